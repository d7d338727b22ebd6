package audit

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/fleetca/fleetca/cmd/terminal"
)

var escapes = []struct{ raw, escaped string }{
	{"", ""},
	{"scp -t /tmp", "scp -t /tmp"},
	{"Grüße, 世界 👋", "Grüße, 世界 👋"},
	{`C:\temp`, `C:\\temp`},
	{`\n`, `\\n`},
	{"a\nb\r\tc", `a\nb\r\tc`},
	{"\x1b]0;owned\a", `\x1b]0;owned\x07`},
	{"\x00\x7f", `\x00\x7f`},
	{"\xff\xfe", `\xff\xfe`},
	{"\x80", `\x80`},
	{"\u0080\u009b31m", `\u0080\u009b31m`}, // C1: CSI in one character
	{"user\u202etxt.exe", `user\u202etxt.exe`},
	{"a\u200bb\ufeff\u2028", `a\u200bb\ufeff\u2028`},
	{"\U000e0041", `\U000e0041`},
	{"\ufffd", "\ufffd"}, // the character itself is text
	{"cut \xe4\xb8", `cut \xe4\xb8`},
	{"nbsp\u00a0", `nbsp\u00a0`},
}

func TestEscape(t *testing.T) {
	for _, tc := range escapes {
		if got := Escape(tc.raw); got != tc.escaped {
			t.Errorf("Escape(%q) = %s, want %s", tc.raw, got, tc.escaped)
		}
		if got, err := Unescape(tc.escaped); err != nil || got != tc.raw {
			t.Errorf("Unescape(%s) = %q, %v, want %q", tc.escaped, got, err, tc.raw)
		}
	}
	for _, bad := range []string{`\`, `\a`, `\x`, `\x1`, `\xzz`, `\u12`, `\ud800`, `\U00110000`, `\+`, `x\`, `\x+1`} {
		if got, err := Unescape(bad); !errors.Is(err, ErrEscape) {
			t.Errorf("Unescape(%s) = %q, %v", bad, got, err)
		}
	}
}

func TestEscapeIsCut(t *testing.T) {
	for _, tc := range []struct {
		raw, want string
		limit     int
		all       bool
	}{
		{"abcdef", "abcdef", 6, true},
		{"abcdef", "abcde", 5, false},
		{"ab\n", "ab", 3, false},
		{"ab\n", `ab\n`, 4, true},
		{"ä", "", 1, false},
	} {
		if got, all := escapeUpTo(tc.raw, tc.limit); got != tc.want || all != tc.all {
			t.Errorf("%q up to %d: %q, %v", tc.raw, tc.limit, got, all)
		}
	}
}

func FuzzEscape(f *testing.F) {
	for _, tc := range escapes {
		f.Add(tc.raw)
		f.Add(tc.escaped)
	}
	f.Fuzz(func(t *testing.T, s string) {
		escaped := Escape(s)
		if back, err := Unescape(escaped); err != nil || back != s {
			t.Fatalf("%q became %q and then %q, %v", s, escaped, back, err)
		}
		if !utf8.ValidString(escaped) || terminal.Clean(escaped) != escaped {
			t.Fatalf("%q became %q, which is no plain text", s, escaped)
		}
		cut, all := escapeUpTo(s, 10)
		if len(cut) > 10 || all != (len(escaped) <= 10) || !strings.HasPrefix(escaped, cut) {
			t.Fatalf("%q became %q, and %q up to 10", s, escaped, cut)
		}
		// Whatever is taken for escaped is escaped in one way only.
		if raw, err := Unescape(s); err == nil && terminal.Clean(s) == s && len(raw) > len(s) {
			t.Fatalf("%q became %q", s, raw)
		}
	})
}
