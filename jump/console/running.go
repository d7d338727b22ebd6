package console

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/fleetca/fleetca/jump/store"
)

// startTime is for how long a session may be in the store before it is in the
// registry: its start is put into the audit in between.
const startTime = time.Minute

// present returns a session that was read from the store as it is now. One that
// is open there but runs nowhere is interrupted: the store failed when it was
// to be closed, or its server is gone. The error wraps store.ErrNotFound if it
// was removed meanwhile.
func (c *call) present(ctx context.Context, s store.Session) (store.Session, error) {
	if s.State != store.Open || c.runs(s) {
		return s, nil
	}
	// It may have ended since it was read. What ends in order is closed in the
	// store before it leaves the registry.
	s, err := c.Store.Session(ctx, s.ID)
	if err == nil && s.State == store.Open {
		s.State = store.Interrupted
	}
	return s, err
}

// runs says whether an open session runs, or is about to.
func (c *call) runs(s store.Session) bool {
	return c.Live != nil && (c.Live.Running(s.ID) || c.Now().Sub(s.Started) < startTime)
}

// sessions yields the sessions that the caller may read, as they are now.
func (c *call) sessions(ctx context.Context, q store.Query) iter.Seq2[store.Session, error] {
	return func(yield func(store.Session, error) bool) {
		state := q.State
		if state == store.Interrupted {
			q.State = "" // some are open in the store
		}
		for s, err := range c.Store.Sessions(ctx, q) {
			if err != nil {
				yield(s, err)
				return
			}
			if !c.caller.mayRead(s) {
				continue
			}
			s, err := c.present(ctx, s)
			switch {
			case errors.Is(err, store.ErrNotFound):
			case err == nil && state != "" && s.State != state:
			case !yield(s, err) || err != nil:
				return
			}
		}
	}
}
