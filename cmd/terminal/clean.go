// Package terminal is what both programs share towards the person at the
// keyboard: escaping of untrusted text, folded host names, colours, progress,
// prompts and hints.
//
// It knows nothing of certificates, hosts or files, prints nothing by itself
// and never reads a secret from an argument or the environment.
package terminal

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Clean returns s with everything that could move the cursor, change colours,
// reorder text or end the line replaced by a visible escape (\n, \x1b,
// \u202e). Text that came from a host, a file or a certificate goes through
// Clean before it is printed.
func Clean(s string) string { return clean(s, "") }

// CleanLines is Clean for text of several lines: newlines and tabs stay.
func CleanLines(s string) string { return clean(s, "\n\t") }

func clean(s, keep string) string {
	if isClean(s, keep) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + 16)
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case printable(r, keep):
			b.WriteString(s[:size])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		s = s[size:]
	}
	return b.String()
}

func isClean(s, keep string) bool {
	for i, r := range s {
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
				return false
			}
		}
		if !printable(r, keep) {
			return false
		}
	}
	return true
}

// printable leaves out format characters (Cf), among them the bidirectional
// overrides, which unicode.IsPrint leaves out too.
func printable(r rune, keep string) bool {
	return unicode.IsPrint(r) || strings.ContainsRune(keep, r)
}
