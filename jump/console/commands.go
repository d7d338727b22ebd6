package console

import (
	"context"

	"github.com/alecthomas/kong"
)

// Commands are the console's commands as a grammar for kong. A program that
// hands its words on to a Console embeds them, so that it checks, helps and
// completes like the Console itself; it binds a Do.
type Commands struct {
	Sessions sessionsCmd `cmd:"" help:"List, show, play, export, verify and remove recordings; end sessions."`
	Play     playCmd     `cmd:"" help:"Play a recording: short for sessions play."`
	Audit    auditCmd    `cmd:"" help:"Search the audit log."`
}

// sessionsCmd is "sessions".
type sessionsCmd struct {
	List   listCmd   `cmd:"" name:"ls" help:"List sessions, the newest first; running ones too."`
	Show   showCmd   `cmd:"" help:"Show all that is known of a session."`
	Play   playCmd   `cmd:"" help:"Play a recording in this terminal."`
	Export exportCmd `cmd:"" help:"Write a recording to stdout."`
	Verify verifyCmd `cmd:"" help:"Check that recordings are whole and unchanged."`
	Remove removeCmd `cmd:"" name:"rm" help:"Remove recordings."`
	End    endCmd    `cmd:"" help:"End running sessions."`
}

// Command is one of Commands, with its flags and arguments.
type Command interface {
	run(ctx context.Context, c *call) error
}

// Do runs a Command, or has it run elsewhere.
type Do func(Command) error

// root is the Console's own command line.
type root struct {
	Commands `embed:""`

	do Do
}

// AfterApply gives the commands what runs them.
func (r *root) AfterApply(kctx *kong.Context) error {
	kctx.Bind(r.do)
	return nil
}
