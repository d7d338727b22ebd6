package console

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/jump/access"
	"github.com/fleetca/fleetca/jump/audit"
	"github.com/fleetca/fleetca/jump/recording"
	"github.com/fleetca/fleetca/jump/store"
)

// auditCmd is "audit".
type auditCmd struct {
	User    string `aliases:"identity" placeholder:"GLOB" help:"Only events of these identities."`
	Login   string `placeholder:"GLOB" help:"Only of these logins."`
	Host    string `placeholder:"GLOB" help:"Only of these hosts."`
	Event   string `placeholder:"GLOB" help:"Only these events, such as auth or 'session.*'."`
	Session string `placeholder:"ID" help:"Only of this session; its ID's beginning is enough while its recording is there."`
	File    string `placeholder:"GLOB" help:"Only files whose path is like this, such as '*/authorized_keys'."`
	SHA256  string `name:"sha256" placeholder:"HEX" help:"Only files with this digest."`
	Since   string `placeholder:"TIME" help:"Only what happened since: so long ago (12h, 7d), or a date (2026-11-21)."`
	Until   string `placeholder:"TIME" help:"Only what happened before."`
	Limit   *int   `placeholder:"N" help:"Only the last so many; 0 is all (default: 100, with --json all)."`
	JSON    bool   `help:"Write the lines of the audit log as they are."`
	Verify  bool   `help:"Instead, check that the audit log is whole and unchanged, and that no recording is missing which it tells was made."`
}

// maxLast is how many records are kept in memory, to show the last ones.
const maxLast = 10000

// Help is shown below the flags' summary.
func (*auditCmd) Help() string {
	return `The oldest event comes first. That the log was read is put into it.

    ${name} audit --file '*/passwd' --since 30d
    ${name} audit --event auth --user alice --json

${exit_codes}`
}

// Run has the command run.
func (cmd *auditCmd) Run(do Do) error { return do(cmd) }

func (cmd *auditCmd) run(ctx context.Context, c *call) error {
	if !c.caller.Audit {
		return errNotPermitted("read the audit log", "read_audit: true")
	}
	q, err := cmd.query(ctx, c)
	if err != nil {
		return err
	}
	if cmd.Verify {
		return cmd.verify(ctx, c)
	}
	limit, err := rowLimit(cmd.Limit, cmd.JSON)
	if err != nil {
		return err
	}
	if limit > maxLast {
		return program.WithCode(program.ExitUsage, fmt.Errorf("--limit: the last %d at most, or 0 for all", maxLast))
	}
	// Its own reading is no part of what is found.
	if q.Until.IsZero() {
		q.Until = c.Now()
	}
	if err := c.record(ctx, audit.Event{Event: audit.EventAuditRead, Reason: cmd.words()}); err != nil {
		return err
	}
	t := newTable(c, "TIME ("+c.Now().In(c.Zone).Format("MST")+")", "EVENT", "USER", "LOGIN", "HOST", "SESSION", "DETAILS")
	found := c.Audit.Query(ctx, q)
	more := false
	if limit > 0 {
		found = last(found, limit, &more)
	}
	n := 0
	for r, err := range found {
		if err != nil {
			return err
		}
		n++
		if cmd.JSON {
			if _, err := t.buf.Write(append(r.Line, '\n')); err != nil {
				return err
			}
		} else if err := t.row(c.when(r.Time), r.Event.Event, r.User, r.Login, r.Host, short(r.SID), cut(describe(r.Event), 300)); err != nil {
			return err
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	switch {
	case n == 0 && !cmd.JSON:
		fmt.Fprintln(c.Err, "no events")
	case more:
		fmt.Fprintf(c.Err, "only the last %d are listed; --limit 0 lists all\n", n)
	}
	return nil
}

func (cmd *auditCmd) query(ctx context.Context, c *call) (store.AuditQuery, error) {
	q := store.AuditQuery{
		Identity: cmd.User, Login: cmd.Login, Host: cmd.Host, Event: cmd.Event,
		Path: cmd.File, SHA256: cmd.SHA256, Session: strings.ToLower(cmd.Session),
	}
	var err error
	if q.Since, err = c.point("since", cmd.Since); err != nil {
		return q, err
	}
	if q.Until, err = c.point("until", cmd.Until); err != nil {
		return q, err
	}
	if q.Session == "" || store.ValidID(q.Session) {
		return q, nil
	}
	// The caller may read every event, but perhaps no recording; the whole ID
	// is needed then.
	s, err := c.find(ctx, q.Session)
	q.Session = s.ID
	return q, err
}

// words are the filters, for the audit of who looked for what.
func (cmd *auditCmd) words() string {
	var b []string
	for _, f := range []struct{ name, value string }{
		{"user", cmd.User},
		{"login", cmd.Login},
		{"host", cmd.Host},
		{"event", cmd.Event},
		{"session", cmd.Session},
		{"file", cmd.File},
		{"sha256", cmd.SHA256},
		{"since", cmd.Since},
		{"until", cmd.Until},
	} {
		if f.value != "" {
			b = append(b, "--"+f.name, f.value)
		}
	}
	return Join(b)
}

// last passes on only the last n, and says whether there were more.
func last(records iter.Seq2[audit.Record, error], n int, more *bool) iter.Seq2[audit.Record, error] {
	return func(yield func(audit.Record, error) bool) {
		var ring []audit.Record
		next := 0
		for r, err := range records {
			if err != nil {
				yield(r, err)
				return
			}
			if len(ring) < n {
				ring = append(ring, r)
				continue
			}
			*more = true
			ring[next] = r
			next = (next + 1) % n
		}
		for i := range ring {
			if !yield(ring[(next+i)%len(ring)], nil) {
				return
			}
		}
	}
}

// describe is an event's fields beyond the columns, most telling first.
func describe(e audit.Event) string {
	var b []string
	add := func(format string, args ...any) { b = append(b, fmt.Sprintf(format, args...)) }
	if e.Success != nil {
		add("%s", map[bool]string{true: "ok", false: "failed"}[*e.Success])
	}
	text := func(format, value string) {
		if value != "" {
			add(format, value)
		}
	}
	if e.Mode != recording.Strict {
		text("recording %s", e.Mode) // first: of this session there may be none
	}
	text("%s", e.Action)
	text("%s", joined(" -> ", e.Path, e.Target))
	if e.Len != nil {
		add("%s", size(*e.Len))
	}
	text("sha256 %s", e.SHA256)
	text("%s", e.Result)
	text("%q", e.Command)
	text("asked for %q", e.Asked)
	if e.ExitCode != nil {
		add("exit %d", *e.ExitCode)
	}
	text("%s", e.ExitError)
	text("%s", e.Error)
	text("%s", e.Reason)
	text("%s", e.Size)
	if e.BytesIn > 0 || e.BytesOut > 0 {
		add("%s in, %s out", size(e.BytesIn), size(e.BytesOut))
	}
	if e.Duration > 0 {
		add("%s", duration(time.Duration(e.Duration)))
	}
	text("by %s", e.Way)
	text("from %s", e.RemoteAddr)
	return strings.Join(b, ", ")
}

func (cmd *auditCmd) verify(ctx context.Context, c *call) error {
	if err := c.record(ctx, audit.Event{Event: audit.EventAuditRead, Reason: "verify"}); err != nil {
		return err
	}
	report, err := c.Audit.Verify(ctx)
	if err != nil {
		return fmt.Errorf("verifying the audit log: %w", err)
	}
	made, err := c.seals(ctx, store.AuditQuery{})
	if err != nil {
		return err
	}
	// Who reads the log reads of everybody's sessions.
	c.caller.Scope = access.All
	missing, err := c.missing(ctx, made)
	if err != nil {
		return err
	}
	if err := cmd.tell(c, report, missing); err != nil {
		return err
	}
	switch n := report.Count; {
	case n > 0:
		err = fmt.Errorf("the audit log is damaged in %s", count(n, "place"))
	case len(missing) > 0:
		err = damage(0, len(missing))
	default:
		return nil
	}
	return program.WithCode(program.ExitFailed, err)
}

// audited is what verifying the log finds, in JSON.
type audited struct {
	audit.Report
	// Missing are recordings that the log tells were made, and not removed.
	Missing []string `json:"missing_recordings,omitempty"`
}

func (cmd *auditCmd) tell(c *call, report audit.Report, missing []string) error {
	if cmd.JSON {
		return writeJSON(c.Out, audited{report, missing})
	}
	for _, p := range report.Problems {
		if err := newLine(c, p.String()); err != nil {
			return err
		}
	}
	for _, id := range missing {
		if err := newLine(c, fmt.Sprintf("recording %s is missing: %v", id, errMissing)); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(c.Err, "%s in %s; the last one's hash is %s\n",
		count(int(report.Records), "record"), count(report.Files, "file"), report.LastHash)
	return err
}
