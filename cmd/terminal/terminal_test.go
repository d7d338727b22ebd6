package terminal

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestClean(t *testing.T) {
	tests := []struct{ in, want string }{
		{"web01", "web01"},
		{"", ""},
		{"Zürich 北京 \U0001F511", "Zürich 北京 \U0001F511"},
		{"a\nb\r\tc", `a\nb\r\tc`},
		{"\x1b]52;c;aGk=\x07", `\x1b]52;c;aGk=\x07`},
		{"\u202egnp.exe", `\u202egnp.exe`},
		{"\u009b31m", `\x9b31m`},
		{"bad\xff\xfeutf8", `bad\xff\xfeutf8`},
		{"\ufffd", "\ufffd"},
	}
	for _, tt := range tests {
		if got := Clean(tt.in); got != tt.want {
			t.Errorf("Clean(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
	if got := CleanLines("+a\n\t-b\x1b[0m\n"); got != "+a\n\t-b\\x1b[0m\n" {
		t.Errorf("CleanLines = %q", got)
	}
}

func FuzzClean(f *testing.F) {
	for _, s := range []string{"", "web01", "\x1b[31m", "\xff", "\u202e", "a\nb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Clean(s)
		if !utf8.ValidString(got) {
			t.Fatalf("Clean(%q) = %q is not UTF-8", s, got)
		}
		for _, r := range got {
			if !unicode.IsPrint(r) {
				t.Fatalf("Clean(%q) lets %U through", s, r)
			}
		}
		if Clean(got) != got {
			t.Fatalf("Clean is not idempotent on %q", s)
		}
	})
}

func TestFoldNames(t *testing.T) {
	tests := []struct {
		in   string
		want string
	}{
		{"", ""},
		{"web01", "web01"},
		{"web01 web02 web03 db1", "db1,web[01-03]"},
		{"web3 web1 web2 web7", "web[1-3,7]"},
		{"web08 web09 web10 web11", "web[08-11]"},
		{"web1 web01", "web01,web1"},
		{"web01.example.com web02.example.com", "web[01-02].example.com"},
		{"a b a", "a,b"},
		{"10.0.0.1 10.0.0.2", "10.0.0.[1-2]"},
		{"x99999999999999999999999 x1", "x1,x99999999999999999999999"},
		{"rack1-node1 rack1-node2 rack2-node1", "rack1-node[1-2],rack2-node1"},
	}
	for _, tt := range tests {
		if got := FoldNames(strings.Fields(tt.in)); got != tt.want {
			t.Errorf("FoldNames(%s) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestHint(t *testing.T) {
	cause := errors.New("no such key")
	err := fmt.Errorf("signing: %w", Hint(cause, "run fleetca init"))
	if !errors.Is(err, cause) || err.Error() != "signing: no such key" {
		t.Errorf("the hint changed the error: %v", err)
	}
	if got := HintOf(err); got != "run fleetca init" {
		t.Errorf("HintOf = %q", got)
	}
	if Hint(nil, "x") != nil {
		t.Error("a hint made an error of nil")
	}
}

func TestColoured(t *testing.T) {
	env := map[string]string{}
	term := New(func(k string) string { return env[k] })
	var b strings.Builder
	if got := term.Paint(&b, Red, "x"); got != "x" {
		t.Errorf("auto paints a pipe: %q", got)
	}
	term.SetColour(ColourAlways)
	if got := term.Paint(&b, Red, "x"); got != "\x1b[31mx\x1b[0m" {
		t.Errorf("always does not paint: %q", got)
	}
	term.SetColour(ColourNever)
	if term.Coloured(&b) {
		t.Error("never is coloured")
	}
}
