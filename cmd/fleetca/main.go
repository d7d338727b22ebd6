// Command fleetca is an SSH certificate authority that provisions fleets of
// plain OpenSSH sshd hosts from an inventory, with nothing installed on them.
//
// Each command has a file of its own: flags in, a call into a package, output
// out. Machine output goes to stdout, everything said to a person to stderr.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/fleetca/fleetca/cmd/terminal"
)

// Exit codes, the same for every command.
const (
	exitFailed      = 1   // something, or some host, failed
	exitUsage       = 2   // wrong use: flags, inventory or configuration
	exitChanges     = 3   // --check found changes
	exitInterrupted = 130 // ended by Ctrl-C
)

const exitCodesHelp = "Exit codes: 0 all good, 1 something or some host failed, 2 wrong use, 3 --check found changes, 130 interrupted."

// cli is the command line. A command is a field here and a file beside this
// one.
type cli struct {
	Init   initCmd   `cmd:"" help:"Make a CA folder with its three keys."`
	Sign   signCmd   `cmd:"" help:"Issue a host or user certificate."`
	Certs  certsCmd  `cmd:"" help:"List and show what was issued."`
	Export exportCmd `cmd:"" help:"Print a CA's public key for sshd_config, known_hosts or authorized_keys."`

	Inventory inventoryCmd `cmd:"" help:"Show what an inventory says."`
	Provision provisionCmd `cmd:"" help:"Make every selected sshd trust the user CA and show certificates of the host CA."`

	Completion completionCmd `cmd:"" help:"Print the completion script for a shell."`
	Complete   completeCmd   `cmd:"" hidden:""`

	Color   string           `enum:"auto,always,never" default:"auto" help:"Colours: auto, always or never. NO_COLOR is honoured."`
	Version kong.VersionFlag `help:"Print the version and exit."`
}

// app is what commands get besides their flags.
type app struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	Now            func() time.Time
	Term           *terminal.Terminal
}

// codedError carries the exit code of a command that failed.
type codedError struct {
	error
	code int
}

func (c *codedError) Unwrap() error { return c.error }

// withCode gives err an exit code other than 1. A nil err stays nil.
func withCode(code int, err error) error {
	if err == nil {
		return nil
	}
	return &codedError{err, code}
}

func main() {
	// After the first signal ctx ends and commands come to a safe stop; the
	// second one kills the process, as if nothing were caught.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	a := &app{
		Stdin:  os.Stdin,
		Stdout: os.Stdout,
		Stderr: os.Stderr,
		Getenv: os.Getenv,
		Now:    time.Now,
		Term:   terminal.New(os.Getenv),
	}
	code := run(ctx, a, os.Args[1:])
	os.Exit(code)
}

// run parses args, runs the command and returns the exit code.
func run(ctx context.Context, a *app, args []string) int {
	var flags cli
	parser, err := kong.New(&flags,
		kong.Name("fleetca"),
		kong.Description("Certificates for every sshd that people already run.\n\n"+exitCodesHelp),
		kong.UsageOnError(),
		kong.Writers(a.Stdout, a.Stderr),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.Vars{"version": version(), "exit_codes": exitCodesHelp},
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(a),
	)
	if err != nil {
		panic(err) // the structs above are wrong; every run would fail
	}
	kctx, err := parser.Parse(args)
	if err != nil {
		return a.report(withCode(exitUsage, terminal.Hint(err, "fleetca --help lists the commands, fleetca COMMAND --help their flags")))
	}
	a.Term.SetColour(terminal.Colour(flags.Color))
	return a.report(kctx.Run())
}

// report prints err as one line, and its hint, and returns the exit code.
func (a *app) report(err error) int {
	if err == nil {
		return 0
	}
	code := exitFailed
	if coded := (*codedError)(nil); errors.As(err, &coded) {
		code = coded.code
	} else if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
		code = exitInterrupted
	}
	if text := err.Error(); text != "" {
		fmt.Fprintf(a.Stderr, "%s %s\n", a.Term.Paint(a.Stderr, terminal.Red, "fleetca:"), terminal.CleanLines(text))
	}
	if hint := terminal.HintOf(err); hint != "" {
		fmt.Fprintf(a.Stderr, "hint: %s\n", terminal.CleanLines(hint))
	}
	return code
}

// version comes from the build: a module version, or the commit.
func version() string {
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
