package replay

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/fleetca/fleetca/jump/cast"
	"github.com/fleetca/fleetca/jump/store"
)

// Condition is what Verify finds a recording to be.
type Condition string

// Conditions of a recording.
const (
	// Sealed: every block is there and intact, and the recording has its end.
	Sealed Condition = "sealed"
	// Running: intact so far, and still being written.
	Running Condition = "running"
	// Interrupted: intact up to its last block, and without an end, since the
	// process that wrote it died or the store failed.
	Interrupted Condition = "interrupted"
	// Off: nothing was recorded, as the session's mode says.
	Off Condition = "off"
	// Damaged: a block was altered, is missing or out of place, or the end is
	// missing where the index says that there was one.
	Damaged Condition = "damaged"
	// Missing: there is none, though there is proof that it was made. Verify
	// doesn't find this; who holds an audit log against the store does.
	Missing Condition = "missing"
)

// Verdict is the result of Verify.
type Verdict struct {
	Condition Condition
	Session   store.Session
	// Report covers the blocks that are good: all of them, or those before the
	// damaged one, whose number Report.Blocks then is.
	Report cast.Report
	// Problem says what is damaged or missing; nil otherwise.
	Problem error
}

// Intact tells that nothing which was recorded has been lost or altered.
func (v Verdict) Intact() bool { return v.Condition != Damaged && v.Condition != Missing }

// String is the verdict in one line, with no text out of the recording in it.
func (v Verdict) String() string {
	r := v.Report
	switch v.Condition {
	case Damaged:
		return fmt.Sprintf("damaged at block %d: %v", r.Blocks, v.Problem)
	case Missing:
		return fmt.Sprintf("missing: %v", v.Problem)
	case Interrupted:
		return fmt.Sprintf("interrupted: intact up to its last block, %d blocks, %d events, without an end", r.Blocks, r.Events)
	case Running:
		return fmt.Sprintf("running: intact so far, %d blocks, %d events", r.Blocks, r.Events)
	case Off:
		return "nothing was recorded: recording was off"
	default:
		return fmt.Sprintf("intact and sealed: %d blocks, %d events", r.Blocks, r.Events)
	}
}

// Verify reads a whole recording and holds it against its chain, its seal and
// its index entry. The error is one of reading the store, or wraps
// store.ErrNotFound; damage is no error but a Verdict.
func Verify(ctx context.Context, s store.Store, id string) (Verdict, error) {
	// The entry is read before the blocks: a recording that ends meanwhile is
	// taken for running, never for damaged.
	entry, err := s.Session(ctx, id)
	if err != nil {
		return Verdict{}, fmt.Errorf("verifying recording %q: %w", id, err)
	}
	v := Verdict{Session: entry}
	var failed error
	v.Report, v.Problem = cast.Verify(data(s.Blocks(ctx, id, 0), &failed))
	if failed != nil {
		return Verdict{}, fmt.Errorf("verifying recording %q: %w", id, failed)
	}
	if v.Problem == nil {
		v.Problem = compare(entry, v.Report)
	}
	v.Condition = condition(entry, v)
	return v, nil
}

// data yields the blocks' bytes. An error of the store ends the sequence and is
// put into failed: it says nothing about the recording.
func data(blocks iter.Seq2[store.Block, error], failed *error) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for b, err := range blocks {
			if err != nil {
				*failed = err
				return
			}
			if !yield(b.Data, nil) {
				return
			}
		}
	}
}

// compare holds an intact chain against what the index says.
func compare(entry store.Session, r cast.Report) error {
	switch {
	case r.Blocks > 0 && r.Header.Session != entry.ID:
		return fmt.Errorf("it is the recording of session %q", r.Header.Session)
	case entry.State == store.Open || entry.State == store.Interrupted:
		return nil
	case r.Blocks == 0 && entry.Blocks == 0 && entry.Mode == modeOff:
		return nil
	case !r.Sealed:
		return errors.New("its end is missing")
	case r.Blocks != entry.Blocks:
		return fmt.Errorf("the index counts %d blocks, there are %d", entry.Blocks, r.Blocks)
	default:
		return nil
	}
}

// modeOff is the recording mode of sessions of which nothing is kept.
const modeOff = "off"

func condition(entry store.Session, v Verdict) Condition {
	switch {
	case v.Problem != nil:
		return Damaged
	case v.Report.Sealed:
		return Sealed
	case v.Report.Blocks == 0 && entry.Mode == modeOff:
		return Off
	case entry.State == store.Open:
		return Running
	default:
		return Interrupted
	}
}
