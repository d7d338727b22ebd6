package console

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/jump/access"
	"github.com/fleetca/fleetca/jump/audit"
	"github.com/fleetca/fleetca/jump/replay"
	"github.com/fleetca/fleetca/jump/store"
)

// verifyCmd is "sessions verify".
type verifyCmd struct {
	IDs   []string `arg:"" optional:"" name:"ID" help:"IDs, or their beginnings."`
	All   bool     `help:"All recordings."`
	Since string   `placeholder:"TIME" help:"With --all: only those that began since."`
	JSON  bool     `help:"Write a JSON line a recording."`
}

// Help is shown below the flags' summary.
func (*verifyCmd) Help() string {
	return `Reads every block, and compares: with the block before it, with the end, with
the list of sessions, and with what the audit log says of the end. With --all
also finds the recordings that are missing: which the audit log tells were made,
and not that they were removed. Only what is damaged or missing is listed then,
unless --json is given. An interrupted recording is not damaged.

${exit_codes}`
}

// Run has the command run.
func (cmd *verifyCmd) Run(do Do) error { return do(cmd) }

// verified is a verdict in JSON.
type verified struct {
	ID        string           `json:"id"`
	Condition replay.Condition `json:"condition"`
	Intact    bool             `json:"intact"`
	Blocks    uint32           `json:"blocks"`
	Events    uint64           `json:"events"`
	Bytes     uint64           `json:"bytes"`
	LastHash  string           `json:"last_hash"`
	Problem   string           `json:"problem,omitempty"`
}

func (cmd *verifyCmd) run(ctx context.Context, c *call) error {
	switch {
	case cmd.All == (len(cmd.IDs) > 0):
		return program.WithCode(program.ExitUsage, errors.New("say which recordings, or --all"))
	case cmd.Since != "" && !cmd.All:
		return program.WithCode(program.ExitUsage, errors.New("--since goes with --all"))
	case cmd.All:
		return cmd.all(ctx, c)
	}
	sessions, err := c.findAll(ctx, cmd.IDs)
	if err != nil {
		return err
	}
	if err := c.record(ctx, audit.Event{Event: eventVerify}, sessions...); err != nil {
		return err
	}
	damaged := 0
	for _, s := range sessions {
		v, err := c.verify(ctx, s.ID)
		if err != nil {
			return err
		}
		if !v.Intact() {
			damaged++
		}
		if err := cmd.tell(c, v); err != nil {
			return err
		}
	}
	return damage(damaged, 0)
}

// all verifies what the caller may read. It holds no list of it, which may be
// long.
func (cmd *verifyCmd) all(ctx context.Context, c *call) error {
	if err := c.mayReadAny(); err != nil {
		return err
	}
	since, err := c.point("since", cmd.Since)
	if err != nil {
		return err
	}
	if err := c.record(ctx, audit.Event{Event: eventVerify, Reason: "all recordings"}); err != nil {
		return err
	}
	seals, err := c.seals(ctx, store.AuditQuery{Since: since})
	if err != nil {
		return err
	}
	counts := map[replay.Condition]int{}
	for s, err := range c.sessions(ctx, store.Query{Since: since}) {
		if err != nil {
			return err
		}
		v, err := c.whole(ctx, s.ID)
		if errors.Is(err, store.ErrNotFound) {
			continue // removed meanwhile
		} else if err != nil {
			return err
		}
		compareSeal(&v, seals[s.ID].hash)
		delete(seals, s.ID)
		counts[v.Condition]++
		if cmd.JSON || !v.Intact() {
			if err := cmd.tell(c, v); err != nil {
				return err
			}
		}
	}
	missing, err := c.missing(ctx, seals)
	if err != nil {
		return err
	}
	for _, id := range missing {
		if err := cmd.tell(c, replay.Verdict{Condition: replay.Missing, Session: store.Session{ID: id}, Problem: errMissing}); err != nil {
			return err
		}
	}
	fmt.Fprintf(c.Err, "%d sealed, %d interrupted, %d running, %d not recorded, %d damaged%s\n", counts[replay.Sealed],
		counts[replay.Interrupted], counts[replay.Running], counts[replay.Off], counts[replay.Damaged],
		number(", %d missing", uint64(len(missing))))
	return damage(counts[replay.Damaged], len(missing))
}

// damage is the error of having found damaged and missing recordings, nil for
// none.
func damage(damaged, missing int) error {
	switch {
	case damaged == 0 && missing == 0:
		return nil
	case missing == 0:
		return fmt.Errorf("%s damaged", count(damaged, "recording"))
	case damaged == 0:
		return fmt.Errorf("%s missing", count(missing, "recording"))
	default:
		return fmt.Errorf("%s damaged, %d missing", count(damaged, "recording"), missing)
	}
}

func (cmd *verifyCmd) tell(c *call, v replay.Verdict) error {
	if !cmd.JSON {
		return newLine(c, v.Session.ID, v.String())
	}
	out := verified{
		ID: v.Session.ID, Condition: v.Condition, Intact: v.Intact(), Blocks: v.Report.Blocks, Events: v.Report.Events,
		Bytes: v.Report.Bytes, LastHash: hex.EncodeToString(v.Report.LastHash[:]),
	}
	if v.Problem != nil {
		out.Problem = v.Problem.Error()
	}
	return writeJSON(c.Out, out)
}

// whole is replay.Verify, with the session as it is now.
func (c *call) whole(ctx context.Context, id string) (replay.Verdict, error) {
	v, err := replay.Verify(ctx, c.Store, id)
	if err != nil || v.Session.State != store.Open {
		return v, err
	}
	now, err := c.present(ctx, v.Session)
	if err != nil {
		return v, err
	}
	if now.State == store.Interrupted {
		v.Session = now
		if v.Condition == replay.Running {
			v.Condition = replay.Interrupted
		}
	}
	return v, nil
}

// verify is whole, and compares with the audit log.
func (c *call) verify(ctx context.Context, id string) (replay.Verdict, error) {
	v, err := c.whole(ctx, id)
	if err != nil {
		return v, err
	}
	seals, err := c.seals(ctx, store.AuditQuery{Session: id, Since: v.Session.Started})
	if err != nil {
		return v, err
	}
	compareSeal(&v, seals[id].hash)
	return v, nil
}

// seal is what the audit log tells of a recording that was made.
type seal struct {
	hash string // of its last block
	user string // whose it is, escaped
}

// seals finds the recordings that the audit log names the hash of, by session.
// They were durable then. One whose session has only begun, by the log, may
// have been lost in a crash.
func (c *call) seals(ctx context.Context, q store.AuditQuery) (map[string]seal, error) {
	seals := map[string]seal{}
	events := []string{audit.EventSessionEnd, audit.EventPort}
	if q.Session != "" {
		events = []string{""} // one pass is less than two
	}
	for _, q.Event = range events {
		for r, err := range c.Audit.Query(ctx, q) {
			if err != nil {
				return nil, fmt.Errorf("reading the audit log: %w", err)
			}
			if r.Recording != "" {
				seals[r.SID] = seal{r.Recording, r.User}
			}
		}
	}
	return seals, nil
}

// errMissing says why a recording should be there.
var errMissing = errors.New("the audit log tells that it was made, and not that it was removed")

// missing lists those of the recordings that the caller may read, that the
// store doesn't have, and whose removal the audit log doesn't tell of. It takes
// the others out of made.
func (c *call) missing(ctx context.Context, made map[string]seal) ([]string, error) {
	for id, s := range made {
		if c.caller.Scope == access.Own && s.user != audit.Escape(c.caller.Identity) {
			delete(made, id)
			continue
		}
		_, err := c.Store.Session(ctx, id)
		if err == nil {
			delete(made, id)
		} else if !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
	}
	if len(made) == 0 {
		return nil, nil
	}
	// Asked last: a removal is in the log before it happens.
	for r, err := range c.Audit.Query(ctx, store.AuditQuery{Event: audit.EventRemove}) {
		if err != nil {
			return nil, fmt.Errorf("reading the audit log: %w", err)
		}
		delete(made, r.SID)
	}
	return slices.Sorted(maps.Keys(made)), nil
}

// errSeal says that a recording is consistent in itself, but another one than
// was made.
var errSeal = errors.New("its last block is not the one that the audit log names")

// compareSeal turns a verdict that the audit log contradicts into damage: who
// can write to the store can make a new chain, but then has the audit log's
// chain against him.
func compareSeal(v *replay.Verdict, seal string) {
	if seal == "" || v.Condition == replay.Damaged || hex.EncodeToString(v.Report.LastHash[:]) == seal {
		return
	}
	v.Condition, v.Problem = replay.Damaged, errSeal
}
