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
	"io"
	"time"

	"github.com/fleetca/fleetca/jump/access"
	"github.com/fleetca/fleetca/jump/audit"
	"github.com/fleetca/fleetca/jump/live"
	"github.com/fleetca/fleetca/jump/store"
)

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
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Console runs commands. Its method may be called concurrently.
type Console struct {
	cfg Config
}

// New returns a Console.
func New(cfg Config) *Console {
	if cfg.Now == nil {
		cfg.Now = time.Now
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

// Streams are a command's input and outputs.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	// Terminal says that In and Out are a person's terminal, in raw mode: keys
	// come as they are pressed, and a new line needs a carriage return.
	Terminal bool
	// Size returns the terminal's present size; nil or zeros: unknown.
	Size func() (columns, rows int)
}

// Run runs the command argv, without the program's name, and returns its exit
// code: 0 all good, 1 something failed or is damaged, 2 wrong use, 130
// interrupted. Errors are told on s.Err. Run returns when the command is done
// or, with an error told, soon after ctx ends; a Read of s.In that is under
// way then may outlive it.
func (c *Console) Run(ctx context.Context, caller Caller, argv []string, s Streams) (exit int) {
	return 1
}
