package sshconfig

import (
	"strings"
)

// pass walks the files once for one host.
type pass struct {
	env       environment
	name      string // as the person wrote it
	host      string // what Host compares with
	final     bool
	wantFinal bool
	values    *values
}

// file applies the lines of f. active says whether lines before the first block
// apply; never, that nothing in the file does, because it is included by a
// block that doesn't apply.
func (p *pass) file(f *file, active, never bool) error {
	for i := range f.lines {
		l := &f.lines[i]
		var err error
		switch l.keyword {
		case "host":
			active, err = p.hostLine(l)
			active = active && !never
		case "match":
			if never {
				active = false
				continue
			}
			active, err = p.matchLine(l)
		case "include":
			for _, inner := range l.includes {
				if err := p.file(inner, active, never || !active); err != nil {
					return err
				}
			}
		default:
			if active {
				err = p.values.apply(l)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *pass) hostLine(l *line) (bool, error) {
	matched := false
	for _, pattern := range l.args {
		pattern, negated := strings.CutPrefix(pattern, "!")
		if pattern == "" {
			return false, l.errorf("empty pattern")
		}
		if MatchPattern(p.host, pattern) {
			if negated {
				return false, nil
			}
			matched = true
		}
	}
	return matched, nil
}

// matchLine decides whether a Match block applies. A criterion that can't be
// evaluated here is an error only if all others hold, since otherwise it makes
// no difference.
func (p *pass) matchLine(l *line) (bool, error) {
	words := criteria(l.rest)
	if len(words) == 0 {
		return false, l.errorf("no criterion")
	}
	matched, unknown := true, ""
	before := 0 // criteria before this one
	for i := 0; i < len(words); i, before = i+1, before+1 {
		attribute, negated := strings.CutPrefix(words[i], "!")
		attribute = strings.ToLower(attribute)
		holds := false
		switch attribute {
		case "all":
			// ssh allows one criterion before it, as in "final all".
			if before > 1 || i != len(words)-1 {
				return false, l.errorf("%q can't be combined with other criteria", "all")
			}
			holds = true
		case "final", "canonical":
			// Nothing is canonicalised here (CanonicalizeHostname is refused),
			// so both hold in the second pass only.
			p.wantFinal = p.wantFinal || attribute == "final"
			holds = p.final
		default:
			i++
			if i == len(words) || words[i] == "" {
				return false, l.errorf("criterion %q lacks its argument", attribute)
			}
			var known bool
			var err error
			if holds, known, err = p.criterion(attribute, words[i]); err != nil {
				return false, err
			}
			if !known {
				unknown = attribute
				continue
			}
		}
		if holds == negated {
			matched = false
		}
	}
	if matched && unknown != "" {
		return false, l.errorf("whether criterion %q holds for %q can't be decided here", unknown, p.name)
	}
	return matched, nil
}

// criterion evaluates one criterion with an argument.
func (p *pass) criterion(attribute, arg string) (holds, known bool, err error) {
	switch attribute {
	case "host":
		host := p.host
		if !p.final {
			if host, err = p.values.hostNameSoFar(); err != nil {
				return false, false, err
			}
		}
		return matchList(strings.ToLower(host), strings.ToLower(arg)), true, nil
	case "originalhost":
		return matchList(strings.ToLower(p.name), strings.ToLower(arg)), true, nil
	case "user":
		login := p.env.user
		if s := p.values.single["user"]; s != nil {
			login = s.value
		}
		return matchList(login, arg), true, nil
	case "localuser":
		return matchList(p.env.user, arg), true, nil
	}
	return false, false, nil
}

// criteria splits the arguments of Match, which ssh reads by older rules than
// other lines: double quotes only, one = may stand after a word, no escapes.
func criteria(s string) []string {
	var words []string
	for s = strings.TrimLeft(s, blanks); s != "" && s[0] != '#'; {
		end := strings.IndexAny(s, blanks+"\"=")
		if end < 0 {
			return append(words, s)
		}
		if s[end] == '"' {
			quoted, rest, closed := strings.Cut(s[end+1:], `"`)
			if !closed {
				// ssh stops reading here; an odd word makes an error above.
				return append(words, s)
			}
			words = append(words, s[:end]+quoted)
			s = strings.TrimLeft(rest, blanks)
			continue
		}
		words = append(words, s[:end])
		s = strings.TrimLeft(s[end:], blanks)
		if strings.HasPrefix(s, "=") {
			s = strings.TrimLeft(s[1:], blanks)
		}
	}
	return words
}

// matchList is MatchPatterns for patterns that a comma separates.
func matchList(s, list string) bool { return MatchPatterns(s, strings.Split(list, ",")) }

// MatchPatterns is OpenSSH's match_pattern_list: whether one of the patterns
// matches, and none that is negated by a leading "!".
func MatchPatterns(s string, patterns []string) bool {
	matched := false
	for _, pattern := range patterns {
		pattern, negated := strings.CutPrefix(pattern, "!")
		if MatchPattern(s, pattern) {
			if negated {
				return false
			}
			matched = true
		}
	}
	return matched
}

// MatchPattern is OpenSSH's match_pattern: * is any text, ? one byte. It takes
// time in proportion to both lengths, whatever the pattern.
func MatchPattern(s, pattern string) bool {
	star, mark := -1, 0
	i, j := 0, 0
	for i < len(s) {
		switch {
		case j < len(pattern) && pattern[j] == '*':
			star, mark = j, i
			j++
		case j < len(pattern) && (pattern[j] == '?' || pattern[j] == s[i]):
			i++
			j++
		case star >= 0:
			mark++
			i, j = mark, star+1
		default:
			return false
		}
	}
	return strings.Trim(pattern[j:], "*") == ""
}
