package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/jump/audit"
	"github.com/fleetca/fleetca/jump/cast"
	"github.com/fleetca/fleetca/jump/recording"
	"github.com/fleetca/fleetca/jump/replay"
	"github.com/fleetca/fleetca/jump/store"
	"github.com/fleetca/fleetca/jump/transfer"
)

// playCmd is "play" and "sessions play".
type playCmd struct {
	ID      string        `arg:"" help:"ID, or its beginning."`
	Speed   float64       `default:"1" help:"Times as fast; 0 writes all at once, without keys."`
	MaxIdle time.Duration `placeholder:"TIME" help:"Longest wait between two outputs, such as 2s (default: as it was)."`
	Start   time.Duration `placeholder:"TIME" help:"Begin so long after the start, such as 5m."`
	Raw     bool          `help:"Pass on everything that the host sent, also what does more than draw."`
}

// Help is shown below the flags' summary.
func (*playCmd) Help() string {
	return `Keys:

    space        pause, and go on
    .            one output further, and pause
    ]            to the next marker: a resize, a gap, a file
    { }          slower, faster
    left right   5 seconds back, on; also h and l
    q, Ctrl-C    quit

Replaying can do nothing to your terminal but draw, unless --raw is given, and
leaves it as it was. Over SSH a terminal is needed: ssh -t. Without one,
--speed 0 writes what was drawn.

${exit_codes}`
}

// Run has the command run.
func (cmd *playCmd) Run(do Do) error { return do(cmd) }

func (cmd *playCmd) run(ctx context.Context, c *call) error {
	switch {
	case cmd.Speed < 0 || cmd.Speed > replay.MaxSpeed:
		return program.WithCode(program.ExitUsage, fmt.Errorf("--speed: %v is not between 0 and %v", cmd.Speed, replay.MaxSpeed))
	case cmd.MaxIdle < 0 || cmd.Start < 0:
		return program.WithCode(program.ExitUsage, errors.New("--max-idle and --start are not negative"))
	case cmd.Speed == 0 && cmd.Start > 0:
		return program.WithCode(program.ExitUsage, errors.New("--speed 0 writes all, so --start does not go with it"))
	case cmd.Speed > 0 && !c.Terminal:
		return program.WithCode(program.ExitUsage, terminal.Hint(errors.New("playing needs a terminal"),
			"over SSH: ssh -t; to write it all at once: --speed 0; as text: sessions export --format text"))
	}
	s, err := c.find(ctx, cmd.ID)
	if err != nil {
		return err
	}
	if err := playable(s); err != nil {
		return err
	}
	if err := c.record(ctx, audit.Event{Event: audit.EventPlay}, s); err != nil {
		return err
	}
	events := replay.Events(ctx, c.Store, s.ID)
	if cmd.Speed == 0 {
		return c.dump(events, cmd.Raw)
	}
	out := c.Out
	if lines, ok := out.(*lineWriter); ok {
		out = lines.w // the player sees to line ends itself
	}
	var keys io.Reader
	if c.In != nil {
		// Without its deadlines: a terminal that was made raw takes one and reads
		// on all the same, and the player would wait for that read to end.
		keys = struct{ io.Reader }{c.In}
	}
	return replay.Play(ctx, events, replay.PlayOptions{
		Out: out, Keys: keys, Speed: cmd.Speed, MaxIdle: cmd.MaxIdle, Start: cmd.Start, Raw: cmd.Raw,
		Size: c.Size, Notice: notice,
	})
}

// playable refuses recordings in which nothing draws.
func playable(s store.Session) error {
	var what string
	switch {
	case s.Mode == recording.Off:
		what = "recording was off for session " + short(s.ID)
	case s.Kind == store.KindSCP || s.Kind == store.KindSFTP || s.Kind == store.KindForward:
		what = fmt.Sprintf("session %s (%s) drew nothing", short(s.ID), s.Kind)
	default:
		return nil
	}
	return terminal.Hint(errors.New(what), "sessions show tells what is known of it")
}

// dump writes the output without waiting.
func (c *call) dump(events iter.Seq2[cast.Event, error], raw bool) error {
	filter := replay.NewFilter(c.Out)
	var out io.Writer = filter
	if raw {
		out = c.Out
	}
	for ev, err := range events {
		if err != nil {
			return err
		}
		data := ev.Data
		switch ev.Kind {
		case cast.Output, cast.Stderr:
		case cast.Gap: // or what is before and after it would look like one piece
			data = fmt.Appendf(nil, "\r\n[%s]\r\n", notice(ev))
		default:
			continue
		}
		if _, err := out.Write(data); err != nil {
			return err
		}
	}
	if c.Terminal && !raw {
		return filter.Restore(0)
	}
	return nil
}

// notice is what a viewer is told of an event that draws nothing.
func notice(ev cast.Event) string {
	switch ev.Kind {
	case cast.Gap:
		var g cast.GapSummary
		if json.Unmarshal(ev.Data, &g) != nil {
			return "something is missing here"
		}
		return terminal.Clean(fmt.Sprintf("%s in %s are missing here: %s", size(g.Bytes), micros(g.To-g.From), g.Reason))
	case cast.File:
		var f transfer.Operation
		if json.Unmarshal(ev.Data, &f) != nil {
			return ""
		}
		return terminal.Clean(fmt.Sprintf("%s %s: %s", f.Action, pathsOf(f), resultOf(f)))
	case cast.Forward:
		var f recording.Forward
		if json.Unmarshal(ev.Data, &f) != nil {
			return ""
		}
		return terminal.Clean(fmt.Sprintf("%s forwarding %s to %s ended", f.Kind, f.From, f.To))
	case cast.Signal:
		return terminal.Clean("signal " + string(ev.Data))
	default:
		return ""
	}
}
