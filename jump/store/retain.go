package store

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Policy says what Retain keeps. A zero field keeps all.
type Policy struct {
	For   time.Duration // sessions are removed so long after they ended
	Bytes uint64        // of stored blocks; the oldest sessions go first
}

// removeAtOnce is how many sessions one batch of Retain removes.
const removeAtOnce = 64

// Retain removes whole sessions that p doesn't keep, oldest first, and returns
// those that it removed, durably, also with an error. Sessions in state Open
// are never removed, though their bytes count. The caller audits.
func Retain(ctx context.Context, s Store, p Policy, now time.Time) ([]Session, error) {
	if p.For <= 0 && p.Bytes == 0 {
		return nil, nil
	}
	var doomed []Session // newest first
	var kept uint64
	for e, err := range s.Sessions(ctx, Query{State: Open}) {
		if err != nil {
			return nil, fmt.Errorf("listing open sessions for retention: %w", err)
		}
		kept += e.StoredBytes
	}
	for e, err := range s.Sessions(ctx, Query{}) {
		if err != nil {
			return nil, fmt.Errorf("listing sessions for retention: %w", err)
		}
		switch {
		case e.State == Open:
		case p.For > 0 && now.Sub(lastTime(e)) > p.For, p.Bytes > 0 && kept+e.StoredBytes > p.Bytes:
			doomed = append(doomed, e)
		default:
			kept += e.StoredBytes
		}
	}
	slices.Reverse(doomed)
	var removed []Session
	for chunk := range slices.Chunk(doomed, removeAtOnce) {
		ids := make([]string, len(chunk))
		for i, e := range chunk {
			ids[i] = e.ID
		}
		done := make(chan error, 1)
		// Closing: what makes room must not be refused for want of room.
		err := s.Write(ctx, Batch{Remove: ids, Closing: true, Soon: true}, func(err error) { done <- err })
		if err == nil {
			// Not until ctx ends: committed is called in any case, and what
			// was removed has to be known.
			err = <-done
		}
		if err != nil {
			return removed, fmt.Errorf("removing %d sessions for retention: %w", len(ids), err)
		}
		removed = append(removed, chunk...)
	}
	return removed, nil
}

func lastTime(s Session) time.Time {
	if s.Ended.IsZero() {
		return s.Started
	}
	return s.Ended
}
