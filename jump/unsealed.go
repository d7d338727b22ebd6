package jump

import (
	"context"
	"sync"
	"time"

	"github.com/fleetca/fleetca/jump/store"
)

// unsealed are sessions that have ended and whose recordings the store did not
// take the seal of. Their entries still say that they run; settle tries to put
// that right until the store takes it.
type unsealed struct {
	mu  sync.Mutex
	why map[string]string // by session ID
}

func (u *unsealed) add(id, reason string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.why == nil {
		u.why = map[string]string{}
	}
	u.why[id] = reason
}

func (u *unsealed) settle(ctx context.Context, s store.Store, now time.Time) {
	u.mu.Lock()
	all := make(map[string]string, len(u.why))
	for id, reason := range u.why {
		all[id] = reason
	}
	u.mu.Unlock()
	for id, reason := range all {
		entry, err := s.Session(ctx, id)
		if err != nil && ctx.Err() != nil {
			return
		}
		if err == nil && entry.State == store.Open {
			entry.State, entry.Ended, entry.Reason = store.Interrupted, now, reason
			done := make(chan error, 1)
			if err := s.Write(ctx, store.Batch{Sessions: []store.Session{entry}, Closing: true, Soon: true}, func(err error) { done <- err }); err != nil {
				return // it is tried again
			}
			select {
			case err := <-done:
				if err != nil {
					return
				}
			case <-ctx.Done():
				return
			}
		}
		u.mu.Lock()
		delete(u.why, id)
		u.mu.Unlock()
	}
}
