package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Policy says what Retain keeps. A zero field keeps all.
type Policy struct {
	For   time.Duration // sessions are removed so long after they ended
	Bytes uint64        // of stored blocks; what ended first goes first
}

// MinimumAge is for how long after its end a session stays even if it alone
// takes more than Policy.Bytes: a recording must not remove itself by its size.
const MinimumAge = time.Hour

// removeAtOnce is how many sessions one batch of Retain removes.
const removeAtOnce = 64

// Retain removes whole sessions that p doesn't keep, those that ended first
// before the others, and returns how many it removed, durably, also with an
// error. Sessions in state Open are never removed, though their bytes count.
//
// By bytes it keeps the sessions that ended last, as many as fit; whatever
// ended before the first that doesn't fit goes, however small it is. That one
// goes too, unless it is younger than MinimumAge.
//
// before, if it isn't nil, is called with what is about to be removed, at most
// 64 sessions, before each batch: the place to put it into an audit. Its error
// ends Retain, and nothing of that batch is removed.
func Retain(ctx context.Context, s Store, p Policy, now time.Time, before func(context.Context, []Session) error) (int, error) {
	if p.For <= 0 && p.Bytes == 0 {
		return 0, nil
	}
	doomed, err := p.doomed(ctx, s, now)
	if err != nil {
		return 0, fmt.Errorf("listing sessions for retention: %w", err)
	}
	removed := 0
	for chunk := range slices.Chunk(doomed, removeAtOnce) {
		n, err := retainChunk(ctx, s, chunk, before)
		if removed += n; err != nil {
			return removed, err
		}
	}
	return removed, nil
}

// candidate is what Retain holds of each session of the store: little, since
// there may be a million.
type candidate struct {
	id    [IDLength]byte
	ended int64 // Unix nanoseconds
	bytes uint64
}

// doomed lists what p doesn't keep, what ended first first.
func (p Policy) doomed(ctx context.Context, s Store, now time.Time) ([]candidate, error) {
	var doomed, rest []candidate
	var kept uint64
	for e, err := range s.Sessions(ctx, Query{}) {
		if err != nil {
			return nil, err
		}
		if e.State == Open {
			kept += e.StoredBytes
			continue
		}
		c := candidate{ended: lastTime(e).UnixNano(), bytes: e.StoredBytes}
		copy(c.id[:], e.ID)
		switch {
		case p.For > 0 && now.Sub(lastTime(e)) > p.For:
			doomed = append(doomed, c)
		case p.Bytes > 0:
			rest = append(rest, c)
		}
	}
	byEnd := func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.ended, b.ended), slices.Compare(a.id[:], b.id[:]))
	}
	slices.SortFunc(rest, byEnd)
	for i, c := range slices.Backward(rest) {
		if kept += c.bytes; kept <= p.Bytes {
			continue
		}
		if now.UnixNano()-c.ended >= int64(MinimumAge) {
			i++
		}
		doomed = append(doomed, rest[:i]...)
		break
	}
	slices.SortFunc(doomed, byEnd)
	return doomed, nil
}

// retainChunk removes one batch of sessions and says how many.
func retainChunk(ctx context.Context, s Store, chunk []candidate, before func(context.Context, []Session) error) (int, error) {
	var sessions []Session
	var ids []string
	for _, c := range chunk {
		e, err := s.Session(ctx, string(c.id[:]))
		if errors.Is(err, ErrNotFound) {
			continue // somebody removed it meanwhile
		}
		if err != nil {
			return 0, fmt.Errorf("reading a session for retention: %w", err)
		}
		sessions, ids = append(sessions, e), append(ids, e.ID)
	}
	if len(ids) == 0 {
		return 0, nil
	}
	if before != nil {
		if err := before(ctx, sessions); err != nil {
			return 0, fmt.Errorf("before removing %d sessions for retention: %w", len(ids), err)
		}
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
		return 0, fmt.Errorf("removing %d sessions for retention: %w", len(ids), err)
	}
	return len(ids), nil
}

func lastTime(s Session) time.Time {
	if s.Ended.IsZero() {
		return s.Started
	}
	return s.Ended
}
