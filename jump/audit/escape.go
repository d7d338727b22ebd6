package audit

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxValue is how long one value may be, escaped. A client may send commands
// and paths of 256 KiB (and the recording has them whole); a journal of who did
// what needs their beginning.
const maxValue = 16 << 10

// ErrEscape is wrapped by the error of Unescape.
var ErrEscape = errors.New("not an escaped value")

// Escape returns s in a form that no terminal, pager or log takes for anything
// but text: what isn't printable (control characters, line separators, bytes
// that aren't UTF-8) or isn't seen (bidirectional overrides, zero-width
// characters) becomes \n, \r, \t, \x1b for a byte, \u202e or \U000e0001 for a
// character, and a backslash becomes two. Unescape gives s back, byte for byte.
func Escape(s string) string {
	escaped, _ := escapeUpTo(s, -1)
	return escaped
}

// escapeUpTo escapes the beginning of s, as much as gives limit bytes at most
// (all of it if limit is negative), and says whether that was all.
func escapeUpTo(s string, limit int) (escaped string, all bool) {
	if (limit < 0 || len(s) <= limit) && isPlain(s) {
		return s, true
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		text := s[i : i+size]
		if !plain(r) || r == utf8.RuneError && size == 1 {
			text = escapeRune(r, size, s[i])
		}
		if limit >= 0 && b.Len()+len(text) > limit {
			return b.String(), false
		}
		b.WriteString(text)
		i += size
	}
	return b.String(), true
}

func escapeRune(r rune, size int, first byte) string {
	switch {
	case r == '\\':
		return `\\`
	case r == '\n':
		return `\n`
	case r == '\r':
		return `\r`
	case r == '\t':
		return `\t`
	case size == 1:
		// A control character, or a byte that isn't UTF-8. A character of C1
		// has two bytes and is \u0080, so the two are told apart.
		return fmt.Sprintf(`\x%02x`, first)
	case r < 0x10000:
		return fmt.Sprintf(`\u%04x`, r)
	default:
		return fmt.Sprintf(`\U%08x`, r)
	}
}

func isPlain(s string) bool {
	for i, r := range s {
		if !plain(r) {
			return false
		}
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
				return false
			}
		}
	}
	return true
}

func plain(r rune) bool { return unicode.IsPrint(r) && r != '\\' }

// Unescape reverses Escape. The error wraps ErrEscape.
func Unescape(s string) (string, error) {
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	var b strings.Builder
	for rest := s; rest != ""; {
		before, after, found := strings.Cut(rest, `\`)
		b.WriteString(before)
		if !found {
			break
		}
		if after == "" {
			return "", fmt.Errorf("%w: it ends in a backslash", ErrEscape)
		}
		kind, digits := after[0], after[1:]
		if plain, ok := short[kind]; ok {
			b.WriteByte(plain)
			rest = digits
			continue
		}
		length := map[byte]int{'x': 2, 'u': 4, 'U': 8}[kind]
		if length == 0 || len(digits) < length {
			return "", fmt.Errorf("%w: %q", ErrEscape, `\`+after[:min(len(after), 9)])
		}
		code, err := strconv.ParseUint(digits[:length], 16, 32)
		if err != nil || kind != 'x' && !utf8.ValidRune(rune(code)) {
			return "", fmt.Errorf("%w: %q", ErrEscape, `\`+after[:length+1])
		}
		if kind == 'x' {
			b.WriteByte(byte(code))
		} else {
			b.WriteRune(rune(code))
		}
		rest = digits[length:]
	}
	return b.String(), nil
}

var short = map[byte]byte{'\\': '\\', 'n': '\n', 'r': '\r', 't': '\t'}
