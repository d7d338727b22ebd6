package console

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestSplit(t *testing.T) {
	tests := []struct {
		in   string
		want []string
	}{
		{"", nil},
		{"  \t\n", nil},
		{"sessions ls", []string{"sessions", "ls"}},
		{" sessions   ls\n", []string{"sessions", "ls"}},
		{`ls --host 'web *'`, []string{"ls", "--host", "web *"}},
		{`ls --host "web *"x`, []string{"ls", "--host", "web *x"}},
		{`a\ b ''  ""`, []string{"a b", "", ""}},
		{`"a\"b\\c\d" 'a\b'`, []string{`a"b\c\d`, `a\b`}},
		{"a; rm -rf $HOME `x` | b > c*", []string{"a;", "rm", "-rf", "$HOME", "`x`", "|", "b", ">", "c*"}},
		{"a\\\nb", []string{"ab"}},
		{"'Zürich \xff'", []string{"Zürich \xff"}},
	}
	for _, tt := range tests {
		got, err := Split(tt.in)
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("Split(%q) = %q, %v; want %q", tt.in, got, err, tt.want)
		}
	}
	for in, want := range map[string]string{
		`a 'b`:  "a quote (') is not closed",
		`a "b`:  `a quote (") is not closed`,
		`a\`:    "ends in a backslash",
		"a\x00": "a zero byte",
	} {
		if got, err := Split(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Split(%q) = %q, %v; want an error with %q", in, got, err, want)
		}
	}
}

// TestJoinShell asks a real shell for the words.
func TestJoinShell(t *testing.T) {
	words := []string{"plain", "", "a b", `it's`, `"$HOME"`, "`x`", "*", "~", "#", "a\\", "new\nline", "é", "!"}
	out, err := exec.CommandContext(t.Context(), "sh", "-c", `printf '%s\000' `+Join(words)).Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"); !slices.Equal(got, words) {
		t.Errorf("sh reads %q, want %q", got, words)
	}
}

func FuzzSplit(f *testing.F) {
	for _, s := range []string{"", "sessions ls", `a 'b c' "d\"e" f\ g`, `'`, `\`, "a\x00", "\xff\"\\"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		words, err := Split(s)
		if err != nil {
			return
		}
		again, err := Split(Join(words))
		if err != nil || !slices.Equal(again, words) {
			t.Fatalf("Split(%q) = %q, but joined and split again %q, %v", s, words, again, err)
		}
	})
}
