// Package program is what the command lines of fleetca and fleetjump share:
// parsing, exit codes, how an error and its hint are told, the version, and
// shell completion.
//
// It knows none of the commands, and prints to stdout only what a command was
// asked for: everything said to a person goes to stderr.
package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/fleetca/fleetca/cmd/terminal"
)

// Exit codes, the same for every command of both programs. A program may add
// codes between them.
const (
	ExitFailed      = 1   // something, or some host, failed
	ExitUsage       = 2   // wrong use: flags, inventory or configuration
	ExitInterrupted = 130 // ended by Ctrl-C
)

// App is what commands get besides their flags.
type App struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	Now            func() time.Time
	Term           *terminal.Terminal
}

// Config describes a program. It isn't changed afterwards.
type Config struct {
	// Name is what people type.
	Name string
	// Description is shown above the commands.
	Description string
	// ExitCodes is the sentence that every command's help ends with.
	ExitCodes string
}

// Flags are the flags that every program has: the struct of its command line
// embeds them. One that doesn't shows no version, and colours as on "auto".
type Flags struct {
	Color   string           `enum:"auto,always,never" default:"auto" help:"Colours: auto, always or never. NO_COLOR is honoured."`
	Version kong.VersionFlag `help:"Print the version and exit."`
}

func (f *Flags) common() *Flags { return f }

// Error is an error that carries the exit code of its command.
type Error struct {
	Err  error
	Code int
}

// Error returns the text of the error within.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the error within.
func (e *Error) Unwrap() error { return e.Err }

// WithCode gives err an exit code other than ExitFailed. A nil err stays nil.
func WithCode(code int, err error) error {
	if err == nil {
		return nil
	}
	return &Error{err, code}
}

// ErrSilent is a failure that has been told already: nothing more is printed.
var ErrSilent = errors.New("")

// Main runs the command line of this process and ends it.
func Main(cfg Config, cli any) {
	// After the first signal ctx ends and commands come to a safe stop; the
	// second one kills the process, as if nothing were caught.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	a := &App{
		Stdin:  os.Stdin,
		Stdout: os.Stdout,
		Stderr: os.Stderr,
		Getenv: os.Getenv,
		Now:    time.Now,
		Term:   terminal.New(os.Getenv),
	}
	code := Run(ctx, cfg, a, cli, os.Args[1:])
	os.Exit(code)
}

// Run parses args into cli, a pointer to a struct for kong, runs the command
// and returns the exit code. Commands get ctx, a and cfg.
func Run(ctx context.Context, cfg Config, a *App, cli any, args []string) int {
	exited := -1 // or the code, once help or version was asked for and printed
	parser, err := kong.New(cli,
		kong.Name(cfg.Name),
		kong.Description(cfg.Description+"\n\n"+cfg.ExitCodes),
		kong.UsageOnError(),
		kong.Writers(a.Stdout, a.Stderr),
		kong.Exit(func(code int) { exited = code }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.Vars{"version": Version(), "exit_codes": cfg.ExitCodes},
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(a, cfg),
	)
	if err != nil {
		panic(err) // the structs are wrong; every run would fail
	}
	expand(parser.Model.Node, strings.NewReplacer("${name}", cfg.Name, "${exit_codes}", cfg.ExitCodes))
	kctx, err := parser.Parse(args)
	if exited >= 0 {
		return exited
	}
	if err != nil {
		hint := fmt.Sprintf("%s --help lists the commands, %[1]s COMMAND --help their flags", cfg.Name)
		return a.Report(cfg.Name, WithCode(ExitUsage, terminal.Hint(err, hint)))
	}
	if c, ok := cli.(interface{ common() *Flags }); ok {
		a.Term.SetColour(terminal.Colour(c.common().Color))
	}
	return a.Report(cfg.Name, kctx.Run())
}

// expand fills in what commands' long help leaves open; kong does so in short
// help only.
func expand(node *kong.Node, r *strings.Replacer) {
	node.Detail = r.Replace(node.Detail)
	for _, child := range node.Children {
		expand(child, r)
	}
}

// Report prints err as one line that begins with the program's name, and its
// hint, and returns the exit code.
func (a *App) Report(name string, err error) int {
	if err == nil {
		return 0
	}
	code := ExitFailed
	if coded := (*Error)(nil); errors.As(err, &coded) {
		code = coded.Code
	} else if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
		code = ExitInterrupted
	}
	if text := err.Error(); text != "" {
		fmt.Fprintf(a.Stderr, "%s %s\n", a.Term.Paint(a.Stderr, terminal.Red, name+":"), terminal.CleanLines(text))
	}
	if hint := terminal.HintOf(err); hint != "" {
		fmt.Fprintf(a.Stderr, "hint: %s\n", terminal.CleanLines(hint))
	}
	return code
}

// Version comes from the build: a module version, or the commit.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && (v == "" || v == "(devel)") {
			v = s.Value
		}
	}
	return v
}
