package templates

import (
	"os/exec"
	"strings"
	"testing"
)

// TestQuote holds Quote against a real shell.
func TestQuote(t *testing.T) {
	for _, value := range []string{
		"", "plain", "two words", "it's", "''", `"$(touch x)" $HOME \ * ~ # ; & | < > ( ) { } !`, "-n", "é", "a'b'c'", `\'`,
	} {
		word, err := Quote(value)
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("sh", "-c", "printf %s "+word).Output()
		if err != nil || string(out) != value {
			t.Errorf("%q became %s, for the shell %q, %v", value, word, out, err)
		}
	}
}

func TestArgument(t *testing.T) {
	for value, want := range map[string]string{
		"/etc/ssh/x": "/etc/ssh/x", "/a b": `"/a b"`, "it's": `"it's"`, "": `""`, "a=b": `"a=b"`,
	} {
		if got, err := Argument(value); err != nil || got != want {
			t.Errorf("%q became %s, %v; want %s", value, got, err, want)
		}
	}
	for _, value := range []string{`a"b`, `a\b`, "a#b"} {
		if got, err := Argument(value); err == nil {
			t.Errorf("%q became %s", value, got)
		}
	}
}

func TestControlCharacters(t *testing.T) {
	for _, value := range []string{"a\nb", "\r", "\x00", "\x1b[2J", "\x7f", "\u0085", "\u009b", "\xff", "tab\t"} {
		if err := Check(value); err == nil {
			t.Errorf("%q is taken", value)
		}
		if _, err := Quote(value); err == nil {
			t.Errorf("%q is quoted", value)
		}
		if _, err := Argument(value); err == nil {
			t.Errorf("%q is an argument", value)
		}
	}
}

func FuzzQuote(f *testing.F) {
	f.Add("it's")
	f.Add(`\$'"`)
	f.Fuzz(func(t *testing.T, value string) {
		word, err := Quote(value)
		if err != nil {
			return
		}
		// In single quotes nothing but a single quote means anything.
		inner := strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(word, "'"), "'"), `'\''`, "\x00")
		if strings.Contains(inner, "'") || strings.ReplaceAll(inner, "\x00", "'") != value {
			t.Errorf("%q became %s", value, word)
		}
	})
}
