package console

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/jump/audit"
	"github.com/fleetca/fleetca/jump/store"
)

// Events that jump/audit has no name for.
const (
	eventShow   = "recording.show"
	eventVerify = "recording.verify"
	eventStop   = "session.stop"
)

// record puts into the audit what the caller is about to do with sessions, and
// waits until that is on disk: what can't be recorded doesn't happen.
func (c *call) record(ctx context.Context, e audit.Event, sessions ...store.Session) error {
	e.User, e.RemoteAddr = c.caller.Identity, c.caller.Client
	for _, s := range sessions {
		e := e
		e.SID, e.Connection, e.Login, e.Host, e.Kind = s.ID, s.Connection, s.Login, s.Host, string(s.Kind)
		if e.Reason == "" {
			e.Reason = "recording of " + s.Identity
		}
		if err := c.Audit.Record(ctx, e); err != nil {
			return fmt.Errorf("recording %s in the audit: %w", e.Event, err)
		}
	}
	if len(sessions) == 0 {
		if err := c.Audit.Record(ctx, e); err != nil {
			return fmt.Errorf("recording %s in the audit: %w", e.Event, err)
		}
	}
	if err := c.Audit.Sync(ctx); err != nil {
		return fmt.Errorf("recording %s in the audit: %w", e.Event, err)
	}
	return nil
}

// removeCmd is "sessions rm".
type removeCmd struct {
	IDs []string `arg:"" name:"ID" help:"IDs, or their beginnings."`
}

// Help is shown below the flags' summary.
func (*removeCmd) Help() string {
	return `Nothing is asked, and nothing brings them back. If one of the IDs is unknown, or
its session runs, none is removed; should the store or the audit log fail in the
middle, the error says how many are gone. The audit log keeps who removed what.

Over SSH you need remove_recordings: true in a role of yours, and you can remove
only what you may read.

${exit_codes}`
}

// Run has the command run.
func (cmd *removeCmd) Run(do Do) error { return do(cmd) }

// removeAtOnce is how many recordings one batch removes.
const removeAtOnce = 64

func (cmd *removeCmd) run(ctx context.Context, c *call) error {
	if !c.caller.Remove {
		return errNotPermitted("remove recordings", "remove_recordings: true")
	}
	sessions, err := c.findAll(ctx, cmd.IDs)
	if err != nil {
		return err
	}
	for _, s := range sessions {
		if s.State == store.Open {
			return terminal.Hint(fmt.Errorf("session %s is running", short(s.ID)), "sessions end ends it")
		}
	}
	removed := 0
	for chunk := range slices.Chunk(sessions, removeAtOnce) {
		err := c.record(ctx, audit.Event{Event: audit.EventRemove}, chunk...)
		if err == nil {
			err = c.remove(ctx, chunk)
		}
		if err != nil {
			return fmt.Errorf("removed %d of %d recordings: %w", removed, len(sessions), err)
		}
		removed += len(chunk)
	}
	fmt.Fprintf(c.Err, "removed %s\n", count(removed, "recording"))
	return nil
}

func (c *call) remove(ctx context.Context, sessions []store.Session) error {
	ids := make([]string, len(sessions))
	for i, s := range sessions {
		ids[i] = s.ID
	}
	done := make(chan error, 1)
	// Closing, since what makes room must not be refused for want of room.
	err := c.Store.Write(ctx, store.Batch{Remove: ids, Closing: true, Soon: true}, func(err error) { done <- err })
	if err == nil {
		err = <-done // comes in any case
	}
	if err != nil {
		return fmt.Errorf("removing: %w", err)
	}
	return nil
}

// endCmd is "sessions end".
type endCmd struct {
	IDs    []string `arg:"" name:"ID" help:"IDs, or their beginnings."`
	Reason string   `placeholder:"TEXT" help:"Shown to the person whose session it is, and kept with the recording."`
}

// Help is shown below the flags' summary.
func (*endCmd) Help() string {
	return `The person is told that and by whom the session was ended. Its recording is
closed in order and stays.

Over SSH you need remove_recordings: true in a role of yours, and you can end
only sessions whose recordings you may read.

${exit_codes}`
}

// Run has the command run.
func (cmd *endCmd) Run(do Do) error { return do(cmd) }

func (cmd *endCmd) run(ctx context.Context, c *call) error {
	if !c.caller.Remove {
		return errNotPermitted("end sessions", "remove_recordings: true")
	}
	sessions, err := c.findAll(ctx, cmd.IDs)
	if err != nil {
		return err
	}
	if c.Live == nil {
		return terminal.Hint(errors.New("no jump host runs here, so no session does"), "sessions are ended through the server that they run in")
	}
	reason := "ended by " + c.caller.Identity
	if cmd.Reason != "" {
		reason += ": " + cmd.Reason
	}
	if err := c.record(ctx, audit.Event{Event: eventStop, Reason: reason}, sessions...); err != nil {
		return err
	}
	ended := 0
	for _, s := range sessions {
		if c.Live.End(s.ID, reason) {
			ended++
			continue
		}
		fmt.Fprintf(c.Err, "session %s is not running\n", short(s.ID))
	}
	if ended < len(sessions) {
		return program.WithCode(program.ExitFailed, program.ErrSilent)
	}
	return nil
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
