// Package replay reads recordings out of a store: their events, whether they
// are intact, their replay on a terminal, and their export.
//
// It refuses to hand a recorded byte to a reviewer's terminal unless it draws:
// see Filter. It changes nothing in the store, writes no audit events, and
// decides nothing about who may read what.
package replay

import (
	"context"
	"fmt"
	"iter"

	"github.com/fleetca/fleetca/jump/cast"
	"github.com/fleetca/fleetca/jump/store"
)

// Events yields the events of a recording in order; it may be ranged over again.
// An error is the last thing that it yields; what came before it is good. The
// error wraps store.ErrNotFound if there is no such session, or one of the
// errors of jump/cast if a block is damaged. A recording without an end, or
// with no block at all, is no error here: see Verify.
func Events(ctx context.Context, s store.Store, id string) iter.Seq2[cast.Event, error] {
	return func(yield func(cast.Event, error) bool) {
		d := cast.NewDecoder()
		n := uint32(0)
		for b, err := range s.Blocks(ctx, id, 0) {
			var events []cast.Event
			if err == nil {
				events, err = decode(d, b, id)
			}
			if err != nil {
				yield(cast.Event{}, fmt.Errorf("reading block %d of recording %q: %w", n, id, err))
				return
			}
			n++
			for _, ev := range events {
				if !yield(ev, nil) {
					return
				}
			}
		}
	}
}

// decode reads the next block, and holds the recording against the session
// that it is stored under.
func decode(d *cast.Decoder, b store.Block, id string) ([]cast.Event, error) {
	events, err := d.Block(b.Data)
	if err != nil {
		return nil, err
	}
	if h, _ := d.Header(); h.Session != id {
		return nil, fmt.Errorf("%w: it is part of the recording of session %q", cast.ErrHash, h.Session)
	}
	return events, nil
}
