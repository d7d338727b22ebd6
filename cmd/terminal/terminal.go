package terminal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/term"
)

// ErrNoTerminal is returned by the prompts when there is nobody to ask.
var ErrNoTerminal = errors.New("no terminal to ask on")

// Colour says when colours are used.
type Colour string

// The values of --color.
const (
	ColourAuto   Colour = "auto" // on a terminal, unless NO_COLOR is set
	ColourAlways Colour = "always"
	ColourNever  Colour = "never"
)

// Terminal asks questions and says whether a stream is looked at by a person.
// Methods may be called concurrently; questions are asked one at a time.
type Terminal struct {
	getenv func(string) string
	colour Colour
	ask    sync.Mutex
	asking atomic.Bool // boards keep quiet meanwhile
}

// New returns a Terminal. getenv is os.Getenv outside tests.
func New(getenv func(string) string) *Terminal {
	return &Terminal{getenv: getenv, colour: ColourAuto}
}

// SetColour is called once, when the flags are known.
func (t *Terminal) SetColour(c Colour) { t.colour = c }

// IsTerminal reports whether stream is a terminal.
func IsTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Style is an ANSI colour or weight.
type Style string

// The few styles that are used.
const (
	Bold   Style = "1"
	Dim    Style = "2"
	Red    Style = "31"
	Green  Style = "32"
	Yellow Style = "33"
	Cyan   Style = "36"
)

// Paint returns s in the style, if stream takes colours.
func (t *Terminal) Paint(stream io.Writer, style Style, s string) string {
	if s == "" || !t.Coloured(stream) {
		return s
	}
	return "\x1b[" + string(style) + "m" + s + "\x1b[0m"
}

// Coloured reports whether colours go to stream.
func (t *Terminal) Coloured(stream io.Writer) bool {
	switch t.colour {
	case ColourAlways:
		return true
	case ColourNever:
		return false
	default:
		return t.getenv("NO_COLOR") == "" && t.getenv("TERM") != "dumb" && IsTerminal(stream)
	}
}

// Width returns the columns of stream, or 80.
func Width(stream any) int {
	if f, ok := stream.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			return w
		}
	}
	return 80
}

// Secret asks for a secret on the controlling terminal, without echo. The
// prompt is cleaned. It returns ErrNoTerminal where there is none, and ctx's
// error when ctx ends first.
func (t *Terminal) Secret(ctx context.Context, prompt string) ([]byte, error) {
	t.ask.Lock()
	defer t.ask.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	tty, err := openTTY()
	if err != nil {
		return nil, fmt.Errorf("asking for %q: %w", Clean(prompt), ErrNoTerminal)
	}
	fd := int(tty.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		tty.Close()
		return nil, fmt.Errorf("asking for %q: %w", Clean(prompt), ErrNoTerminal)
	}
	t.asking.Store(true)
	defer t.asking.Store(false)
	fmt.Fprint(tty, "\r\x1b[K"+Clean(prompt)+": ")
	type answer struct {
		secret []byte
		err    error
	}
	answers := make(chan answer, 1)
	go func() {
		secret, err := term.ReadPassword(fd)
		answers <- answer{secret, err}
	}()
	select {
	case a := <-answers:
		defer tty.Close()
		fmt.Fprintln(tty)
		if a.err != nil {
			return nil, fmt.Errorf("asking for %q: %w", Clean(prompt), a.err)
		}
		return a.secret, nil
	case <-ctx.Done():
		// The read can't be interrupted, so the terminal stays open under it. What
		// matters is that it echoes again.
		_ = term.Restore(fd, state)
		fmt.Fprintln(tty)
		return nil, ctx.Err()
	}
}

// NewSecret asks twice and returns an error when the answers differ or are
// empty.
func (t *Terminal) NewSecret(ctx context.Context, prompt string) ([]byte, error) {
	first, err := t.Secret(ctx, prompt)
	if err != nil {
		return nil, err
	}
	if len(first) == 0 {
		return nil, fmt.Errorf("%s: nothing was typed", Clean(prompt))
	}
	second, err := t.Secret(ctx, prompt+" (again)")
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(first, second) {
		return nil, fmt.Errorf("%s: the two answers differ", Clean(prompt))
	}
	return first, nil
}

func openTTY() (*os.File, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return tty, nil
}
