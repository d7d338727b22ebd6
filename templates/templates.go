// Package templates holds every text that is written onto a host or handed to
// a client, each with a typed struct for what goes into it.
//
// It refuses values that could become something else on the way: each one is
// checked for newlines and other control characters, and reaches shell text
// only in single quotes, by the template function "quote". It decides nothing
// and runs nothing.
//
// A new text is a file NAME.tmpl in this folder, a struct with a field for
// each value, and a Render method that checks the fields and calls render.
package templates

import (
	"embed"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"
	"text/template"
	"unicode"
	"unicode/utf8"
)

//go:embed *.tmpl
var files embed.FS

var parsed = sync.OnceValues(func() (*template.Template, error) {
	return template.New("").
		Option("missingkey=error").
		Funcs(template.FuncMap{"quote": Quote, "quoteLines": quoteLines, "quoteText": quoteText, "argument": Argument, "line": line, "join": joined}).
		ParseFS(files, "*.tmpl")
})

// render fills the named template.
func render(name string, data any) (string, error) {
	set, err := parsed()
	if err != nil {
		return "", fmt.Errorf("reading templates: %w", err)
	}
	var text strings.Builder
	if err := set.ExecuteTemplate(&text, name, data); err != nil {
		return "", fmt.Errorf("rendering %s: %w", name, err)
	}
	return text.String(), nil
}

// Quote makes the value one word of a POSIX shell. Control characters are
// refused.
func Quote(value string) (string, error) {
	if err := Check(value); err != nil {
		return "", err
	}
	return singleQuoted(value), nil
}

func singleQuoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// quoteLines makes lines one word of a POSIX shell, joined by newlines.
func quoteLines(lines []string) (string, error) {
	for _, l := range lines {
		if err := Check(l); err != nil {
			return "", err
		}
	}
	return singleQuoted(strings.Join(lines, "\n")), nil
}

// quoteText makes a whole text one word of a POSIX shell, byte for byte: a
// configuration file of the host, or a script of ours. Only NUL can't be.
func quoteText(text string) (string, error) {
	if strings.ContainsRune(text, 0) {
		return "", errors.New("text with a NUL")
	}
	return singleQuoted(text), nil
}

// Argument makes the value one argument in sshd_config or ssh_config, in
// double quotes where it needs them. Quotes, backslashes and '#' are refused:
// OpenSSH versions differ in how they read them.
func Argument(value string) (string, error) {
	if err := Check(value); err != nil {
		return "", err
	}
	if strings.ContainsAny(value, `"\#`) {
		return "", fmt.Errorf("value %q holds a quote, a backslash or '#', which OpenSSH versions read differently", value)
	}
	if value == "" || strings.ContainsAny(value, " '=") {
		return `"` + value + `"`, nil
	}
	return value, nil
}

// line lets a value through as it is, if it can't break out of its line.
func line(value string) (string, error) { return value, Check(value) }

// Check refuses a value that isn't plain text on one line.
func Check(value string) error {
	if !utf8.ValidString(value) {
		return fmt.Errorf("value %q isn't UTF-8 text", value)
	}
	if strings.ContainsFunc(value, unicode.IsControl) {
		return fmt.Errorf("value %q holds a control character", value)
	}
	return nil
}

// checkPath refuses what isn't an absolute path in its shortest form.
func checkPath(field, value string) error {
	if err := Check(value); err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	if !path.IsAbs(value) || path.Clean(value) != value {
		return fmt.Errorf("%s: %q isn't an absolute path without detours", field, value)
	}
	return nil
}
