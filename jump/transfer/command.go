package transfer

import (
	"strings"
)

// maxCommand is the longest command line, in bytes, that can be an scp.
const maxCommand = 16 << 10

// SCP is what an scp command line asks the host to do.
type SCP struct {
	// Source is true for -f, where the host sends files, and false for -t.
	Source bool
	// Recursive, Preserve and Directory are the options -r, -p and -d.
	Recursive, Preserve, Directory bool
	// Path is the argument with quotes taken off.
	Path string
	// Glob is true if the host's shell expands wildcards in Path, which then
	// may stand for several files, or for none.
	Glob bool
}

// ParseSCP reads the command line of an exec request. It returns true only if
// the whole line is one "scp -t PATH" or "scp -f PATH" with options that scp's
// own client sends (-r, -p, -d, -v, -q), and if every shell that a login may
// have (sh, bash, zsh, ksh, csh, fish) runs just that. So quotes are read where
// all of them agree: no backslash and no exclamation mark inside quotes, no
// control characters anywhere, no braces, no history. Wildcards are taken only
// for -f and only where what they expand to can't become an option.
func ParseSCP(command string) (SCP, bool) {
	if len(command) > maxCommand {
		return SCP{}, false
	}
	words, ok := splitWords(command)
	if !ok || len(words) < 3 || !words[0].bare("scp") {
		return SCP{}, false
	}
	var s SCP
	mode := false
	words = words[1:]
	for len(words) > 0 && strings.HasPrefix(words[0].text, "-") {
		w := words[0]
		words = words[1:]
		if w.bare("--") {
			break
		}
		if w.quoted || w.glob || len(w.text) < 2 {
			return SCP{}, false
		}
		for _, option := range w.text[1:] {
			switch option {
			case 't', 'f':
				// The last one doesn't win: -f does, whatever comes after.
				if mode {
					return SCP{}, false
				}
				mode, s.Source = true, option == 'f'
			case 'r':
				s.Recursive = true
			case 'p':
				s.Preserve = true
			case 'd':
				s.Directory = true
			case 'v', 'q':
			default:
				return SCP{}, false
			}
		}
	}
	if !mode || len(words) != 1 || words[0].text == "" {
		return SCP{}, false
	}
	s.Path, s.Glob = words[0].text, words[0].glob
	return s, s.Source || !s.Glob
}

// word is one word of a command line.
type word struct {
	text   string
	quoted bool // something of it was
	glob   bool // the shell expands it
}

// bare says whether the word is that text and was written so.
func (w word) bare(text string) bool { return w.text == text && !w.quoted && !w.glob }

// splitWords takes a command line apart as all shells do. It returns false if
// there is anything in it that one of them might do more with.
func splitWords(line string) ([]word, bool) {
	var words []word
	for {
		line = strings.TrimLeft(line, " ")
		if line == "" {
			return words, true
		}
		w, rest, ok := nextWord(line)
		if !ok {
			return nil, false
		}
		words = append(words, w)
		line = rest
	}
}

func nextWord(line string) (w word, rest string, ok bool) {
	var text strings.Builder
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == ' ':
			w.text = text.String()
			return w, line[i:], true
		case c == '\'' || c == '"':
			end := strings.IndexByte(line[i+1:], c)
			if end < 0 {
				return w, "", false
			}
			inside := line[i+1 : i+1+end]
			if !literalInside(inside, c) {
				return w, "", false
			}
			text.WriteString(inside)
			w.quoted = true
			i += 1 + end
		case c == '\\':
			i++
			if i == len(line) || !escapable(line[i]) {
				return w, "", false
			}
			text.WriteByte(line[i])
			w.quoted = true
		case c == '~' && i == 0:
			// A home folder: ~ or ~name, up to a slash. In zsh "~[" runs a function.
			n := 1
			for n < len(line) && plainByte(line[n]) && line[n] != '/' {
				n++
			}
			if n < len(line) && line[n] != '/' && line[n] != ' ' {
				return w, "", false
			}
			text.WriteByte(c)
		case c == '*' || c == '?' || c == '[' || c == ']':
			// At the beginning it might expand to "-S…", an option.
			if i == 0 {
				return w, "", false
			}
			w.glob = true
			text.WriteByte(c)
		case plainByte(c) || c == '~':
			text.WriteByte(c)
		default:
			return w, "", false
		}
	}
	w.text = text.String()
	return w, "", true
}

// plainByte says whether a byte means itself in every shell, wherever it stands.
func plainByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c >= 0x80 ||
		strings.IndexByte("_-./@%+,:=", c) >= 0
}

// literalInside says whether text between quotes means itself in every shell:
// fish has escapes inside single quotes, csh has none inside double ones.
func literalInside(text string, quote byte) bool {
	special := `\!`
	if quote == '"' {
		special = "\\!$`"
	}
	return !strings.ContainsAny(text, special) && !strings.ContainsFunc(text, control)
}

// escapable says whether a backslash before c gives c in every shell. In fish
// letters after it have a meaning.
func escapable(c byte) bool {
	return strings.IndexByte(" \"#$&'()*,;<=>?@[\\]^`{|}~%+-./:_", c) >= 0
}

func control(r rune) bool { return r < ' ' || r == 0x7f }
