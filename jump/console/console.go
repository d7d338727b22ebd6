// Package console is the commands by which people look at what a jump host
// recorded: list, show, play, export, verify, remove, end, and search the
// audit log. The same commands serve "ssh jump sessions ls", the admin socket
// of a running server, and fleetjump beside a server that doesn't run.
//
// It decides nothing about who somebody is: a Caller comes with what it may
// read. Recordings that a caller may not read are, to that caller, not there.
// It runs no programs, reads no files, and writes text that people chose only
// cleaned, or filtered for drawing, unless raw bytes are asked for.
package console

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/jump/access"
	"github.com/fleetca/fleetca/jump/audit"
	"github.com/fleetca/fleetca/jump/live"
	"github.com/fleetca/fleetca/jump/store"
)

// Exit codes beside program's.
const exitCodesHelp = "Exit codes: 0 all good, 1 something failed, is refused or damaged, 2 wrong use, 130 interrupted."

// Config says what a Console works on. It isn't changed afterwards.
type Config struct {
	// Store holds sessions and recordings; required.
	Store store.Store
	// Audit gets a record of every reading and removing; required, for what isn't
	// recorded isn't allowed.
	Audit *audit.Log
	// Live is the registry of running sessions. Nil: none runs in this process,
	// and none can be ended.
	Live *live.Registry
	// Name is what people type before a command, as help shows it: "ssh jump".
	// Empty is "fleetjump".
	Name string
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Console runs commands. Its method may be called concurrently.
type Console struct {
	cfg Config
}

// New returns a Console. Store and Audit must be set.
func New(cfg Config) *Console {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Name == "" {
		cfg.Name = "fleetjump"
	}
	return &Console{cfg}
}

// Caller is who runs a command and what that may do; the zero Caller may do
// nothing.
type Caller struct {
	// Identity is the verified identity, or the OS account on the admin socket.
	Identity string
	// Client is the address that the caller comes from, for the audit.
	Client string
	// Scope says whose recordings may be listed, read, exported and verified.
	Scope access.Scope
	// Remove lets recordings within Scope be removed and running sessions ended.
	Remove bool
	// Audit lets the audit log be read.
	Audit bool
}

// mayRead is the one place that decides whether a session is there for caller.
func (c Caller) mayRead(s store.Session) bool {
	switch c.Scope {
	case access.All:
		return true
	case access.Own:
		return c.Identity != "" && s.Identity == c.Identity
	default:
		return false
	}
}

// Streams are a command's input and outputs.
type Streams struct {
	// In is read by play, and by any command on a terminal, which Ctrl-C then
	// interrupts. Nil is no input.
	In       io.Reader
	Out, Err io.Writer
	// Terminal says that In and Out are a person's terminal, in raw mode: keys
	// come as they are pressed, and a new line needs a carriage return.
	Terminal bool
	// Size returns the terminal's present size; nil or zeros: unknown.
	Size func() (columns, rows int)
	// Zone is the time zone in which times are shown and read; nil is UTC. Zone
	// makes it of what the caller's TZ says.
	Zone *time.Location
}

// call is one run of a command.
type call struct {
	Config
	Streams
	caller Caller
}

// Run runs the command argv, without the program's name, and returns its exit
// code: 0 all good, 1 something failed or is damaged, 2 wrong use, 130
// interrupted. Errors are told on s.Err, as a line and perhaps a hint. Run
// returns when the command is done or soon after ctx ends; a Read of s.In that
// is under way then may outlive it.
func (c *Console) Run(ctx context.Context, caller Caller, argv []string, s Streams) (exit int) {
	if s.Zone == nil {
		s.Zone = time.UTC
	}
	if s.Terminal {
		s.Out, s.Err = &lineWriter{w: s.Out}, &lineWriter{w: s.Err}
	}
	getenv := func(string) string { return "" }
	app := &program.App{Stdin: s.In, Stdout: s.Out, Stderr: s.Err, Getenv: getenv, Now: c.cfg.Now, Term: terminal.New(getenv)}
	about := program.Config{
		Name:        c.cfg.Name,
		Description: "What was recorded here.",
		ExitCodes:   exitCodesHelp,
	}
	if len(argv) > 0 && argv[0] == "help" {
		argv = append(argv[1:len(argv):len(argv)], "--help")
	}
	cli := &root{do: func(cmd Command) error {
		return (&call{Config: c.cfg, Streams: s, caller: caller}).do(ctx, cmd)
	}}
	return program.Run(ctx, about, app, cli, argv)
}

// do runs cmd. On a terminal in raw mode Ctrl-C is a byte: play reads it among
// its keys, for other commands it is waited for here.
func (c *call) do(ctx context.Context, cmd Command) error {
	if _, reads := cmd.(*playCmd); c.Terminal && c.In != nil && !reads {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		go cancelOnKey(c.In, cancel)
	}
	err := cmd.run(ctx, c)
	if err != nil && ctx.Err() != nil {
		return context.Canceled
	}
	return err
}

// cancelOnKey ends with its input; its Read can't be interrupted.
func cancelOnKey(in io.Reader, cancel func()) {
	const ctrlC = 3
	buf := make([]byte, 64)
	for {
		n, err := in.Read(buf)
		for _, b := range buf[:n] {
			if b == ctrlC {
				cancel()
			}
		}
		if err != nil {
			return
		}
	}
}

// errNotPermitted is for what needs more than the caller has.
func errNotPermitted(what, setting string) error {
	return terminal.Hint(errors.New("you may not "+what), "a role of yours in jump.yaml needs "+setting)
}
