package audit

import (
	"context"
	"io"
	"iter"
	"path/filepath"

	"github.com/fleetca/fleetca/jump/store"
)

// Query yields the records that match, oldest first, among them all whose
// Record returned before. Patterns are compared with the escaped form and are
// escaped first, so they may be given as the client would have. An error is
// the last thing that it yields.
func (l *Log) Query(ctx context.Context, q store.AuditQuery) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for _, pattern := range []*string{&q.Event, &q.Identity, &q.Login, &q.Host, &q.Path, &q.Session} {
			*pattern = Escape(*pattern)
		}
		l.mu.Lock()
		last, day, size := l.sequence, l.day, l.size
		l.mu.Unlock()
		if l.storeHas(ctx, last) {
			queryStore(ctx, l.store, q, yield)
			return
		}
		queryFiles(ctx, l.dir, place{day, size}, q, yield)
	}
}

// storeHas waits until the store has a record, and says false if it won't have
// it soon.
func (l *Log) storeHas(ctx context.Context, sequence uint64) bool {
	if l.store == nil || l.Sync(ctx) != nil {
		return false
	}
	stop := context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.changed.Broadcast()
	})
	defer stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.feeder.fed < sequence {
		if l.feeder.failing || l.closed || ctx.Err() != nil {
			return false
		}
		l.changed.Wait()
	}
	return true
}

func queryStore(ctx context.Context, s store.Store, q store.AuditQuery, yield func(Record, error) bool) {
	for stored, err := range s.Audit(ctx, q) {
		var r Record
		if err == nil {
			r, err = parse(stored.Line)
		}
		if !yield(r, err) || err != nil {
			return
		}
	}
}

// queryFiles reads all files, up to a place in the last one.
func queryFiles(ctx context.Context, dir string, upTo place, q store.AuditQuery, yield func(Record, error) bool) {
	all, err := days(dir)
	if err != nil {
		yield(Record{}, err)
		return
	}
	found := 0
	for _, day := range all {
		if day > upTo.day {
			return
		}
		limit := int64(-1)
		if day == upTo.day {
			limit = upTo.offset
		}
		for t, err := range readFile(filepath.Join(dir, day+extension), 0, limit) {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(Record{}, err)
				return
			}
			r, err := parse(t.data)
			if err != nil || !q.Match(r.stored()) {
				continue // Verify tells of lines that are none
			}
			if found++; !yield(r, nil) || found == q.Limit {
				return
			}
		}
	}
}

// readFile reads the lines of a file from offset on, up to limit if that isn't
// negative. A file that is gone is empty.
func readFile(path string, offset, limit int64) iter.Seq2[text, error] {
	return func(yield func(text, error) bool) {
		f, err := openRead(path)
		if err != nil {
			if !gone(err) {
				yield(text{}, err)
			}
			return
		}
		defer f.Close()
		if _, err := f.Seek(offset, io.SeekStart); err != nil {
			yield(text{}, err)
			return
		}
		var in io.Reader = f
		if limit >= 0 {
			in = io.LimitReader(f, limit-offset)
		}
		for t, err := range texts(in, offset) {
			if !yield(t, err) || err != nil {
				return
			}
		}
	}
}
