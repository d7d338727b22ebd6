package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one mistake in jump.yaml or in a file that it names.
type Problem struct {
	// File and Line are where in jump.yaml; a zero Line is the whole file.
	File string
	Line int
	// Field is the way to the value, such as "roles[2].hosts"; "" is the file.
	Field string
	// Err says what is wrong with it.
	Err error
}

// Error is one line: "jump.yaml:12: roles[2].hosts: …".
func (p *Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	b.WriteString(": ")
	if p.Field != "" {
		b.WriteString(p.Field + ": ")
	}
	// A file's own errors may have several lines; here each has one.
	b.WriteString(strings.Join(strings.Split(strings.TrimRight(p.Err.Error(), "\n"), "\n"), "; "))
	return b.String()
}

// Unwrap gives what is wrong.
func (p *Problem) Unwrap() error { return p.Err }

// Errors are all mistakes of a jump.yaml, by line. It is never empty.
type Errors []*Problem

// Error is a line for each mistake.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, p := range e {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the mistakes.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, p := range e {
		errs[i] = p
	}
	return errs
}

func (e Errors) sort() {
	slices.SortStableFunc(e, func(a, b *Problem) int { return cmp.Compare(a.Line, b.Line) })
}
