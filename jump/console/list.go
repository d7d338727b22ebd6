package console

import (
	"bufio"
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/jump/store"
)

// listCmd is "sessions ls".
type listCmd struct {
	User  string `aliases:"identity" placeholder:"GLOB" help:"Only sessions of these identities, such as alice or 'a*'."`
	Login string `placeholder:"GLOB" help:"Only with these logins."`
	Host  string `placeholder:"GLOB" help:"Only on these hosts."`
	Kind  string `enum:"any,terminal,command,scp,sftp,forward" default:"any" help:"Only this kind: terminal, command, scp, sftp or forward."`
	State string `enum:"any,open,ended,interrupted" default:"any" help:"Only in this state: open (running), ended or interrupted."`
	Since string `placeholder:"TIME" help:"Only those that began since: so long ago (12h, 7d), or a date (2026-11-21)."`
	Until string `placeholder:"TIME" help:"Only those that began before."`
	Limit *int   `placeholder:"N" help:"At most so many; 0 is all (default: 100, with --json all)."`
	JSON  bool   `help:"Write a JSON line a session."`
}

// listLimit keeps a table readable.
const listLimit = 100

// rowLimit is how many rows are asked for; 0 is all.
func rowLimit(asked *int, json bool) (int, error) {
	switch {
	case asked == nil && json:
		return 0, nil
	case asked == nil:
		return listLimit, nil
	case *asked < 0:
		return 0, program.WithCode(program.ExitUsage, fmt.Errorf("--limit: %d is negative", *asked))
	default:
		return *asked, nil
	}
}

// Help is shown below the flags' summary.
func (*listCmd) Help() string {
	return `The ID's beginning is enough for other commands. EXIT tells how a session
ended: "running" if it hasn't, "interrupted" if the jump host died under it or
could not write its end.

${exit_codes}`
}

// Run has the command run.
func (cmd *listCmd) Run(do Do) error { return do(cmd) }

// listed is a session in JSON, with what a reader would otherwise compute.
type listed struct {
	store.Session
	Seconds float64 `json:"seconds"`
}

func (cmd *listCmd) run(ctx context.Context, c *call) error {
	if err := c.mayReadAny(); err != nil {
		return err
	}
	q, err := cmd.query(c)
	if err != nil {
		return err
	}
	limit, err := rowLimit(cmd.Limit, cmd.JSON)
	if err != nil {
		return err
	}
	out := newTable(c, "ID", "STARTED ("+c.Now().In(c.Zone).Format("MST")+")", "LASTED", "USER", "LOGIN", "HOST", "KIND", "EXIT", "COMMAND")
	if cmd.JSON {
		out.header = nil
	}
	n, more := 0, false
	for s, err := range c.sessions(ctx, q) {
		if err != nil {
			return err
		}
		if more = limit > 0 && n == limit; more {
			break
		}
		n++
		if cmd.JSON {
			err = writeJSON(out.buf, listed{s, c.lasted(s).Seconds()})
		} else {
			err = out.row(short(s.ID), c.when(s.Started), duration(c.lasted(s)), s.Identity, s.Login, s.Host,
				string(s.Kind), outcome(s), cut(s.Command, 60))
		}
		if err != nil {
			return err
		}
	}
	if err := out.flush(); err != nil {
		return err
	}
	switch {
	case n == 0 && !cmd.JSON:
		fmt.Fprintln(c.Err, "no sessions")
	case more:
		fmt.Fprintf(c.Err, "only the latest %d are listed; --limit 0 lists all\n", n)
	}
	return nil
}

func (cmd *listCmd) query(c *call) (store.Query, error) {
	q := store.Query{Identity: cmd.User, Login: cmd.Login, Host: cmd.Host}
	if cmd.Kind != "any" {
		q.Kind = store.Kind(cmd.Kind)
	}
	if cmd.State != "any" {
		q.State = store.State(cmd.State)
	}
	var err error
	if q.Since, err = c.point("since", cmd.Since); err != nil {
		return q, err
	}
	q.Until, err = c.point("until", cmd.Until)
	return q, err
}

// lasted is how long a session took, or has taken so far.
func (c *call) lasted(s store.Session) time.Duration {
	switch {
	case s.State == store.Open:
		return c.Now().Sub(s.Started)
	case s.Ended.IsZero():
		return 0
	default:
		return s.Ended.Sub(s.Started)
	}
}

// outcome is in one word or two how a session ended.
func outcome(s store.Session) string {
	switch {
	case s.State == store.Open:
		return "running"
	case s.State == store.Interrupted:
		return "interrupted"
	case s.ExitSignal != "":
		return "SIG" + s.ExitSignal
	case s.ExitStatus != nil:
		return fmt.Sprint(*s.ExitStatus)
	default:
		return "none"
	}
}

// table writes aligned columns. Its memory is bounded: widths are settled
// anew every tableRows rows.
type table struct {
	buf    *bufio.Writer
	tab    *tabwriter.Writer
	header []string
	rows   int
}

const tableRows = 1000

func newTable(c *call, header ...string) *table {
	buf := bufio.NewWriter(c.Out)
	return &table{buf: buf, tab: tabwriter.NewWriter(buf, 0, 0, 2, ' ', 0), header: header}
}

// row cleans the cells, and writes the header before the first one.
func (t *table) row(cells ...string) error {
	if t.rows == 0 && t.header != nil {
		if err := t.line(t.header); err != nil {
			return err
		}
	}
	if t.rows++; t.rows%tableRows == 0 {
		if err := t.tab.Flush(); err != nil {
			return err
		}
	}
	return t.line(cells)
}

func (t *table) line(cells []string) error {
	for i, cell := range cells {
		end := "\t"
		if i == len(cells)-1 {
			end = "\n" // without a cell, so that nothing trails
		}
		if _, err := fmt.Fprint(t.tab, terminal.Clean(cell), end); err != nil {
			return err
		}
	}
	return nil
}

func (t *table) flush() error {
	if err := t.tab.Flush(); err != nil {
		return err
	}
	return t.buf.Flush()
}

// newLine writes one row without a table around it.
func newLine(c *call, cells ...string) error {
	t := newTable(c)
	if err := t.row(cells...); err != nil {
		return err
	}
	return t.flush()
}
