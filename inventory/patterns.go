package inventory

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// patternWord is what stands between the ":" of a list of patterns.
var patternWord = regexp.MustCompile(`(?:[^\s:\[\]]|\[[^\]]*\])+`)

// SplitPatterns splits "a,b[1],c" or, for want of a comma, "a:b[1]:c" into
// single patterns. A colon inside an IPv6 address or in brackets doesn't split.
func SplitPatterns(text string) []string {
	var patterns []string
	if strings.Contains(text, ",") {
		patterns = strings.Split(text, ",")
	} else if _, _, ok := ParseAddress(text); ok {
		patterns = []string{text}
	} else {
		patterns = patternWord.FindAllString(text, -1)
	}
	for i := range patterns {
		patterns[i] = strings.TrimSpace(patterns[i])
	}
	return slices.DeleteFunc(patterns, func(p string) bool { return p == "" })
}

// orderPatterns puts unions before intersections before exclusions, whatever
// the order they were written in.
func orderPatterns(patterns []string) []string {
	var unions, intersections, exclusions []string
	for _, p := range patterns {
		switch p[0] {
		case '!':
			exclusions = append(exclusions, p)
		case '&':
			intersections = append(intersections, p)
		default:
			unions = append(unions, p)
		}
	}
	if len(unions) == 0 {
		unions = []string{"all"}
	}
	return slices.Concat(unions, intersections, exclusions)
}

// matcher reports whether a name matches an expression: a glob, or a regular
// expression after "~", which has to match only the name's beginning.
func matcher(expression string) (func(string) bool, error) {
	if rest, ok := strings.CutPrefix(expression, "~"); ok {
		re, err := regexp.Compile(`^(?:` + rest + `)`)
		if err != nil {
			return nil, fmt.Errorf("pattern %q: %w", expression, err)
		}
		return re.MatchString, nil
	}
	pieces := compileGlob(expression)
	return func(name string) bool { return matchGlob(pieces, []rune(name)) }, nil
}

// piece is a part of a glob, read as Python's fnmatch reads it.
type piece struct {
	star, any bool
	set       *runeSet
	literal   rune
}

type runeSet struct {
	negated bool
	ranges  [][2]rune
}

func (p piece) matches(c rune) bool {
	switch {
	case p.any:
		return true
	case p.set == nil:
		return p.literal == c
	}
	in := slices.ContainsFunc(p.set.ranges, func(r [2]rune) bool { return r[0] <= c && c <= r[1] })
	return in != p.set.negated
}

func compileGlob(text string) []piece {
	var pieces []piece
	for i := 0; i < len(text); {
		c, size := utf8.DecodeRuneInString(text[i:])
		i += size
		switch c {
		case '*':
			if len(pieces) == 0 || !pieces[len(pieces)-1].star {
				pieces = append(pieces, piece{star: true})
			}
		case '?':
			pieces = append(pieces, piece{any: true})
		case '[':
			set, rest, ok := compileSet(text[i:])
			if !ok { // not closed: an ordinary character
				pieces = append(pieces, piece{literal: '['})
				continue
			}
			pieces = append(pieces, piece{set: set})
			i = len(text) - len(rest)
		default:
			pieces = append(pieces, piece{literal: c})
		}
	}
	return pieces
}

// compileSet reads what follows a "[". A "]" that comes first is a member.
func compileSet(text string) (set *runeSet, rest string, ok bool) {
	set = &runeSet{}
	body := text
	if strings.HasPrefix(body, "!") {
		set.negated = true
		body = body[1:]
	}
	from := 0
	if strings.HasPrefix(body, "]") {
		from = 1
	}
	end := strings.IndexByte(body[from:], ']')
	if end < 0 {
		return nil, "", false
	}
	rest = body[from+end+1:]
	members := []rune(body[:from+end])
	for i := 0; i < len(members); i++ {
		if i+2 < len(members) && members[i+1] == '-' {
			set.ranges = append(set.ranges, [2]rune{members[i], members[i+2]}) // an inverted one matches nothing
			i += 2
			continue
		}
		set.ranges = append(set.ranges, [2]rune{members[i], members[i]})
	}
	return set, rest, true
}

// matchGlob goes back only to the last star, so that no pattern takes
// exponential time.
func matchGlob(pieces []piece, name []rune) bool {
	p, n, star, mark := 0, 0, -1, 0
	for n < len(name) {
		switch {
		case p < len(pieces) && pieces[p].star:
			star, mark = p, n
			p++
		case p < len(pieces) && pieces[p].matches(name[n]):
			p++
			n++
		case star >= 0:
			mark++
			p, n = star+1, mark
		default:
			return false
		}
	}
	for p < len(pieces) && pieces[p].star {
		p++
	}
	return p == len(pieces)
}
