package console

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/fleetca/fleetca/jump/audit"
	"github.com/fleetca/fleetca/jump/cast"
	"github.com/fleetca/fleetca/jump/recording"
	"github.com/fleetca/fleetca/jump/replay"
	"github.com/fleetca/fleetca/jump/store"
	"github.com/fleetca/fleetca/jump/transfer"
)

// showCmd is "sessions show".
type showCmd struct {
	ID   string `arg:"" help:"ID, or its beginning."`
	JSON bool   `help:"Write one JSON object."`
}

// Help is shown below the flags' summary.
func (*showCmd) Help() string {
	return `Reads the whole recording: the files that were copied, with their digests, the
forwardings, and whether every block is there and unchanged. That it was shown
is put into the audit log.

${exit_codes}`
}

// Run has the command run.
func (cmd *showCmd) Run(do Do) error { return do(cmd) }

// details are what a recording holds beside output. The lists are cut, so that
// no recording takes the server's memory.
type details struct {
	listed
	Verdict string `json:"verdict"`
	Intact  bool   `json:"intact"`

	Term     string               `json:"term,omitempty"`
	Input    bool                 `json:"input_recorded,omitempty"`
	Software string               `json:"software,omitempty"`
	FullText string               `json:"command_text,omitempty"`
	Message  string               `json:"exit_message,omitempty"`
	Streams  []cast.StreamSummary `json:"streams,omitempty"`
	Files    []transfer.Operation `json:"files,omitempty"`
	Forwards []recording.Forward  `json:"forwardings,omitempty"`
	Missing  []cast.GapSummary    `json:"missing,omitempty"`
	Signals  []string             `json:"signals,omitempty"`
	Notes    []json.RawMessage    `json:"notes,omitempty"`
	Events   map[string]uint64    `json:"events,omitempty"` // by kind
	Left     map[string]uint64    `json:"left_out,omitempty"`
	bytes    int                  // of what is listed
}

const (
	maxDetails     = 10000    // of a kind
	maxDetailBytes = 16 << 20 // of all kinds
	maxCommand     = 64 << 10
)

func (cmd *showCmd) run(ctx context.Context, c *call) error {
	s, err := c.find(ctx, cmd.ID)
	if err != nil {
		return err
	}
	if err := c.record(ctx, audit.Event{Event: eventShow}, s); err != nil {
		return err
	}
	d, err := c.details(ctx, s)
	if err != nil {
		return err
	}
	if cmd.JSON {
		return writeJSON(c.Out, d)
	}
	return c.show(d)
}

// details reads a recording up to its end, or to where it is damaged.
func (c *call) details(ctx context.Context, s store.Session) (*details, error) {
	verdict, err := c.verify(ctx, s.ID)
	if err != nil {
		return nil, err
	}
	s = verdict.Session
	d := &details{
		listed:  listed{s, c.lasted(s).Seconds()},
		Verdict: verdict.String(), Intact: verdict.Intact(),
		Events: map[string]uint64{}, Left: map[string]uint64{},
	}
	for ev, err := range replay.Events(ctx, c.Store, s.ID) {
		if err != nil {
			break // the verdict tells
		}
		d.add(ev)
	}
	return d, ctx.Err()
}

// add takes what an event tells. What isn't the JSON that its kind has is
// counted only: events come from a recording that somebody may have altered.
func (d *details) add(ev cast.Event) {
	name := ev.Kind.String()
	d.Events[name]++
	if ev.Kind.JSON() && ev.Kind != cast.EndKind {
		if d.bytes += len(ev.Data); d.Events[name] > maxDetails || d.bytes > maxDetailBytes {
			d.Left[name]++
			return
		}
	}
	switch ev.Kind {
	case cast.Start:
		var h cast.Header
		if json.Unmarshal(ev.Data, &h) == nil {
			d.Term, d.Input, d.Software = h.Term, h.Input, h.Software
		}
	case cast.Command:
		room := maxCommand - len(d.FullText)
		d.FullText += string(ev.Data[:min(len(ev.Data), room)])
	case cast.Stream:
		d.Streams = appendJSON(d.Streams, ev.Data)
	case cast.File:
		d.Files = appendJSON(d.Files, ev.Data)
	case cast.Forward:
		d.Forwards = appendJSON(d.Forwards, ev.Data)
	case cast.Gap:
		d.Missing = appendJSON(d.Missing, ev.Data)
	case cast.Note:
		d.Notes = appendJSON(d.Notes, ev.Data)
	case cast.Signal:
		if len(d.Signals) < maxDetails {
			d.Signals = append(d.Signals, string(ev.Data))
		}
	case cast.EndKind:
		var end cast.End
		if json.Unmarshal(ev.Data, &end) == nil {
			d.Message = end.Message
		}
	}
}

func appendJSON[T any](list []T, data []byte) []T {
	var v T
	if json.Unmarshal(data, &v) != nil {
		return list
	}
	return append(list, v)
}

// show writes what a reviewer asks, a line each.
func (c *call) show(d *details) error {
	s := d.Session
	t := newTable(c)
	var failed error
	row := func(name, value string) {
		if value != "" && failed == nil {
			failed = t.row(name, value)
		}
	}
	row("session", s.ID)
	row("user", s.Identity)
	row("certificate", joined(" of ", number("serial %d", s.Serial), s.CA))
	row("from", joined(", by ", s.Client, s.Way))
	row("login", s.Login)
	row("host", joined(", at ", s.Host, s.Address))
	row("role", s.Role)
	row("jump host", s.ServerID)
	row("connection", s.Connection)
	row("kind", string(s.Kind))
	if s.Columns > 0 {
		row("terminal", fmt.Sprintf("%s %dx%d", d.Term, s.Columns, s.Rows))
	}
	row("command", commandOf(d))
	c.showNotes(d, row)
	row("started", c.stamp(s.Started))
	row("ended", c.stamp(s.Ended))
	row("lasted", duration(c.lasted(s)))
	row("state", string(s.State))
	row("exit", exitOf(d))
	row("reason", s.Reason)
	row("signals", strings.Join(d.Signals, " "))
	row("resizes", number("%d", d.Events[cast.Resize.String()]))
	row("input", map[bool]string{true: "recorded"}[d.Input])
	for _, sum := range d.Streams {
		row(sum.Stream, joined(", sha256 ", fmt.Sprintf("%s, %s of it recorded", size(sum.Bytes), size(sum.Kept)), sum.SHA256))
		if sum.FromSHA256 != "" {
			row(sum.Stream, joined(", sha256 ", fmt.Sprintf("a command's after %s", size(sum.From)), sum.FromSHA256))
		}
	}
	row("recording", fmt.Sprintf("%s, stored in %s, mode %s, by %s", size(s.Bytes), size(s.StoredBytes), s.Mode, d.Software))
	for _, g := range d.Missing {
		row("missing", fmt.Sprintf("%s from %s to %s: %s", size(g.Bytes), micros(g.From), micros(g.To), g.Reason))
	}
	row("verified", d.Verdict)
	if failed != nil {
		return failed
	}
	if err := t.flush(); err != nil {
		return err
	}
	return c.showLists(d)
}

// showNotes writes what the session ran under, as far as it was noted.
func (c *call) showNotes(d *details, row func(name, value string)) {
	for _, data := range d.Notes {
		var n struct {
			Kind  string          `json:"kind"`
			Value json.RawMessage `json:"value"`
		}
		_ = json.Unmarshal(data, &n) // what isn't a note is shown as it is
		switch n.Kind {
		case "asked":
			var asked struct {
				Command string `json:"command"`
				Raw     []byte `json:"raw"`
				Bytes   int    `json:"bytes"`
			}
			if json.Unmarshal(n.Value, &asked) == nil {
				text := asked.Command
				if len(asked.Raw) > 0 {
					text = string(asked.Raw)
				}
				if len(text) < asked.Bytes {
					text += fmt.Sprintf(" … (%s in all)", size(uint64(asked.Bytes)))
				}
				row("asked", text)
				continue
			}
		case "env":
			var v recording.EnvVar
			if json.Unmarshal(n.Value, &v) == nil {
				row("env", v.Name+"="+v.Value)
				continue
			}
		case "env_left_out":
			var more uint64
			if json.Unmarshal(n.Value, &more) == nil {
				row("env", fmt.Sprintf("and %d more that were not recorded", more))
				continue
			}
		}
		row("note", string(data))
	}
}

// showLists writes what comes in rows of its own.
func (c *call) showLists(d *details) error {
	if len(d.Forwards) > 0 {
		fmt.Fprintln(c.Out)
		t := newTable(c, "FORWARDING", "FROM", "TO", "IN", "OUT", "LASTED", "ERROR")
		for _, f := range d.Forwards {
			if err := t.row(f.Kind, f.From, f.To, size(f.In), size(f.Out), seconds(f.Duration), f.Error); err != nil {
				return err
			}
		}
		if err := t.flush(); err != nil {
			return err
		}
	}
	if len(d.Files) > 0 {
		fmt.Fprintln(c.Out)
		t := newTable(c, "FILE", "SIZE", "SHA256", "RESULT", "PATH")
		for _, f := range d.Files {
			if err := t.row(f.Action, fileSize(f), f.SHA256, resultOf(f), pathsOf(f)); err != nil {
				return err
			}
		}
		if err := t.flush(); err != nil {
			return err
		}
	}
	for name, n := range d.Left {
		fmt.Fprintf(c.Err, "%d more events of kind %s are not shown; sessions export --format json has them\n", n, name)
	}
	return nil
}

// commandOf prefers what was asked for, byte for byte, over the index's form.
func commandOf(d *details) string {
	if d.FullText != "" {
		return d.FullText
	}
	return d.Command
}

func exitOf(d *details) string {
	switch o := outcome(d.Session); {
	case d.ExitSignal != "" && d.Message != "":
		return o + ": " + d.Message
	case o == "none":
		return "the host sent no exit status"
	default:
		return o
	}
}

func fileSize(f transfer.Operation) string {
	if f.Action == transfer.ActionReaddir || f.Action == transfer.ActionStat {
		return strconv.FormatUint(f.Count, 10)
	}
	if f.Action != transfer.ActionRead && f.Action != transfer.ActionWrite {
		return "-"
	}
	return size(f.Size)
}

func resultOf(f transfer.Operation) string {
	if f.Result == transfer.OK && !f.Complete {
		return "incomplete"
	}
	return f.Result
}

func pathsOf(f transfer.Operation) string {
	path := f.Path
	if f.Within != "" {
		path += " or " + f.Within
	}
	if f.Changed != "" {
		path += " (" + f.Changed + ")"
	}
	return joined(" -> ", path, f.Target)
}
