package sshdconfig

import (
	"errors"
	"strings"
)

// blanks are what sshd takes for white space around keywords; between
// arguments only space and tab are.
const blanks = " \t\r\n"

var errQuotes = errors.New("quotes don't end")

// parseLine reads one line without its newline; ok is false for blank lines,
// comments, and what sshd passes over without a word.
func parseLine(line string) (d Directive, ok bool) {
	line = strings.TrimLeft(line, " \t\r")
	if line == "" {
		return Directive{}, false
	}
	// A form feed is white space at the end of a line only, and sshd never
	// strips a line's first byte.
	line = line[:1] + strings.TrimRight(line[1:], blanks+"\f")
	keyword, rest, found := cutWord(line, true)
	if !found {
		return Directive{}, false
	}
	if keyword == "" {
		// A lone '=' before the keyword passes for leading white space.
		if rest == nil {
			return Directive{}, false
		}
		if keyword, rest, found = cutWord(*rest, true); !found {
			return Directive{}, false
		}
	}
	if keyword == "" || keyword[0] == '#' {
		return Directive{}, false
	}
	d.Keyword = lower(keyword)
	if rest == nil || *rest == "" {
		d.Problem = "no argument"
		return d, true
	}
	d.Raw = strings.TrimLeft(*rest, blanks)
	args, err := splitArgs(*rest)
	if err != nil {
		d.Problem = err.Error()
	}
	d.Args = args
	return d, true
}

// cutWord takes the first word off s as sshd's strdelim does: words end at
// white space, at a double quote and, with equals, at one '='. rest is nil
// when nothing follows the word. found is false where sshd finds no word at
// all: quotes that don't end.
func cutWord(s string, equals bool) (word string, rest *string, found bool) {
	stops := blanks + `"`
	if equals {
		stops += "="
	}
	at := strings.IndexAny(s, stops)
	if at < 0 {
		return s, nil, true
	}
	if s[at] == '"' {
		// The quote is dropped, so what stood before it belongs to the word.
		end := strings.IndexByte(s[at+1:], '"')
		if end < 0 {
			return "", nil, false
		}
		after := strings.TrimLeft(s[at+1+end+1:], blanks)
		return s[:at] + s[at+1:at+1+end], &after, true
	}
	after := strings.TrimLeft(s[at+1:], blanks)
	if equals && s[at] != '=' && strings.HasPrefix(after, "=") {
		after = strings.TrimLeft(after[1:], blanks)
	}
	return s[:at], &after, true
}

// splitArgs splits what follows a keyword as sshd's argv_split does: single
// and double quotes anywhere in a word, backslashes before quotes,
// backslashes and, outside quotes, spaces; '#' at a word's start ends the
// line.
func splitArgs(s string) ([]string, error) {
	var args []string
	for i := 0; i < len(s); {
		if s[i] == ' ' || s[i] == '\t' {
			i++
			continue
		}
		if s[i] == '#' {
			break
		}
		word, next, err := scanArg(s, i)
		if err != nil {
			return nil, err
		}
		args = append(args, word)
		i = next
	}
	return args, nil
}

// scanArg reads the argument that starts at s[i] and says where it ends.
func scanArg(s string, i int) (string, int, error) {
	var word strings.Builder
	quote := byte(0)
	for ; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && i+1 < len(s) && escapes(s[i+1], quote):
			i++
			word.WriteByte(s[i])
		case quote == 0 && (c == ' ' || c == '\t'):
			return word.String(), i, nil
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case quote != 0 && c == quote:
			quote = 0
		default:
			word.WriteByte(c)
		}
	}
	if quote != 0 {
		return "", i, errQuotes
	}
	return word.String(), i, nil
}

func escapes(c, quote byte) bool {
	return c == '\'' || c == '"' || c == '\\' || (quote == 0 && c == ' ')
}

// lower makes ASCII letters small: sshd compares keywords in the C locale,
// where other letters have no case.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
