package audit

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"time"

	"github.com/fleetca/fleetca/jump/store"
)

const (
	// feedRecords and feedBytes bound one batch, well within the store's
	// limits even if its last line is the longest there is.
	feedRecords = 256
	feedBytes   = 1 << 20
	// lastFeed is how long Close lets the store take the last records.
	lastFeed = 5 * time.Second
)

// feeder gives the store the durable lines of the files, in order. It reads
// them back instead of keeping them, so a store that is behind costs no memory,
// and what was missed is not another case.
type feeder struct {
	// Owned by the feeding goroutine.
	day    string // file to read on in; empty: not known yet
	offset int64
	next   uint64 // lowest sequence number that the store doesn't have

	// Under Log.mu.
	fed     uint64 // last sequence number that the store has
	failing bool   // the store did not take the last batch
}

// feedLoop is the goroutine that feeds the store.
func (l *Log) feedLoop(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l.done.Go(func() {
		select {
		case <-l.stop:
			time.AfterFunc(lastFeed, cancel)
		case <-ctx.Done():
		}
	})
	timer := time.NewTimer(0) // for what was missed before
	defer timer.Stop()
	for {
		stopping := false
		select {
		case <-l.stop:
			stopping = true
		case <-l.feed:
		case <-timer.C:
		}
		err := l.feedAll(ctx)
		if stopping {
			return
		}
		if err != nil {
			timer.Reset(retryEvery)
		}
	}
}

// feedAll gives the store all that is durable.
func (l *Log) feedAll(ctx context.Context) error {
	for {
		l.mu.Lock()
		durable := l.durable
		l.mu.Unlock()
		var err error
		if l.feeder.next <= durable {
			err = l.feedSome(ctx, durable)
		}
		l.mu.Lock()
		was := l.feeder.failing
		l.feeder.failing, l.feeder.fed = err != nil, l.feeder.next-1
		l.changed.Broadcast()
		l.mu.Unlock()
		switch {
		case err != nil && !was:
			l.log.Warn("audit records do not reach the store", "from", l.feeder.next, "error", err)
		case err == nil && was:
			l.log.Info("audit records reach the store again", "from", l.feeder.next)
		}
		if err != nil || l.feeder.next > durable {
			return err
		}
	}
}

// feedSome gives the store one batch, of records up to durable.
func (l *Log) feedSome(ctx context.Context, durable uint64) error {
	b, at, next, err := l.readBatch(durable)
	if err != nil {
		return err
	}
	if len(b) > 0 {
		done := make(chan error, 1)
		if err := l.store.Write(ctx, store.Batch{Audit: b}, func(err error) { done <- err }); err != nil {
			return err
		}
		select {
		case err = <-done:
		case <-ctx.Done():
			err = ctx.Err() // whatever comes of it, a second put does no harm
		}
		if err != nil {
			return err
		}
	}
	l.feeder.day, l.feeder.offset, l.feeder.next = at.day, at.offset, next
	return nil
}

// place is a place in the files.
type place struct {
	day    string
	offset int64
}

// readBatch reads the next durable records, and says where to go on and with
// which number.
func (l *Log) readBatch(durable uint64) ([]store.AuditRecord, place, uint64, error) {
	all, err := days(l.dir)
	if err != nil {
		return nil, place{}, 0, err
	}
	next := l.feeder.next
	at := place{l.feeder.day, l.feeder.offset}
	if at.day == "" {
		if at.day, err = l.dayOf(all, next); err != nil {
			return nil, place{}, 0, err
		}
	}
	var batch []store.AuditRecord
	size := 0
	first, _ := slices.BinarySearch(all, at.day)
	for _, day := range all[first:] {
		if day != at.day {
			at = place{day: day}
		}
		for t, err := range l.read(day, at.offset) {
			if err != nil {
				return nil, place{}, 0, err
			}
			if !t.ended {
				break // it is being written
			}
			r, err := parse(t.data)
			switch {
			case err == nil && r.Sequence > durable:
				return batch, at, next, nil
			case err == nil && r.Sequence >= next:
				batch = append(batch, r.stored())
				size += len(t.data)
				next = r.Sequence + 1
			}
			at.offset = t.next
			if len(batch) == feedRecords || size >= feedBytes {
				return batch, at, next, nil
			}
		}
	}
	// All there is was read. Numbers up to durable that weren't seen are in
	// no file: lost, which Verify tells, and not to be looked for again.
	return batch, at, max(next, durable+1), nil
}

// dayOf finds the file that holds a sequence number, or where it would be.
func (l *Log) dayOf(all []string, sequence uint64) (string, error) {
	for _, day := range slices.Backward(all) {
		for t, err := range l.read(day, 0) {
			if err != nil {
				return "", err
			}
			r, err := parse(t.data)
			if err != nil {
				continue
			}
			if r.Sequence <= sequence {
				return day, nil
			}
			break
		}
	}
	if len(all) == 0 {
		return "", errors.New("there are no audit files")
	}
	return all[0], nil
}

// read reads one file; one that is gone is empty.
func (l *Log) read(day string, offset int64) func(yield func(text, error) bool) {
	return readFile(filepath.Join(l.dir, day+extension), offset, -1)
}
