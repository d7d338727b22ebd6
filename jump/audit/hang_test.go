package audit

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetca/fleetca/jump/store"
)

// stuck opens files of a disk that stops answering: what is asked of it then
// returns when it answers again.
type stuck struct {
	disk
	gate                                 chan struct{} // closed when it answers again
	onOpen, onWrite, onSync, onTruncated atomic.Bool
}

func (s *stuck) wait(on *atomic.Bool) {
	if on.Load() {
		<-s.gate
	}
}

func (s *stuck) open(path string, flags int) (file, error) {
	s.wait(&s.onOpen)
	f, err := s.disk.open(path, flags)
	if err != nil {
		return nil, err
	}
	return &stuckFile{f, s}, nil
}

type stuckFile struct {
	file
	disk *stuck
}

func (f *stuckFile) Write(p []byte) (int, error) {
	f.disk.wait(&f.disk.onWrite)
	return f.file.Write(p)
}

func (f *stuckFile) Sync() error {
	f.disk.wait(&f.disk.onSync)
	return f.file.Sync()
}

func (f *stuckFile) Truncate(size int64) error {
	f.disk.wait(&f.disk.onTruncated)
	return f.file.Truncate(size)
}

// TestStuckDisk has a disk that doesn't answer. Nobody waits for it longer than
// he wants to, what was given up isn't in the log, and all goes on once the disk
// answers.
func TestStuckDisk(t *testing.T) {
	long := strings.Repeat("x", maxValue)
	for name, c := range map[string]struct {
		stop func(t *testing.T, l *Log, d *stuck, at *time.Time)
		// written says that the first event given up was being written.
		written bool
	}{
		"too much unsynced": {stop: func(t *testing.T, l *Log, d *stuck, _ *time.Time) {
			d.onSync.Store(true)
			for full := false; !full; {
				must(t, l.Record(t.Context(), Event{Event: EventExec, User: "before", Command: long}))
				l.mu.Lock()
				full = len(l.unsynced) > maxUnsynced
				l.mu.Unlock()
			}
		}},
		"the file of a new day waits for the old one": {stop: func(t *testing.T, l *Log, d *stuck, at *time.Time) {
			d.onSync.Store(true)
			record(t, l, "before")
			*at = at.Add(24 * time.Hour)
		}},
		"the file of a new day": {stop: func(t *testing.T, l *Log, d *stuck, at *time.Time) {
			must(t, l.Sync(t.Context()))
			d.onOpen.Store(true)
			*at = at.Add(24 * time.Hour)
		}},
		"broken": {stop: func(t *testing.T, l *Log, d *stuck, _ *time.Time) {
			d.noSync.Store(true)
			record(t, l, "before")
			if l.Sync(t.Context()) == nil {
				t.Fatal("synced")
			}
			d.noSync.Store(false)
			d.onTruncated.Store(true)
		}},
		"a write": {written: true, stop: func(_ *testing.T, _ *Log, d *stuck, _ *time.Time) {
			d.onWrite.Store(true)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &stuck{gate: make(chan struct{})}
				dir, at := t.TempDir(), time.Now()
				l, err := open(t.Context(), Config{Dir: dir, Now: func() time.Time { return at }}, d.open)
				must(t, err)
				record(t, l, "first")
				c.stop(t, l, d, &at)
				for range 3 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					begun := time.Now()
					err := l.Record(ctx, Event{Event: EventAuth, User: "given up"})
					if !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != time.Second {
						t.Errorf("after %v: %v", time.Since(begun), err)
					}
					cancel()
				}
				// Nor does the rest wait for it.
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				for range l.Query(ctx, store.AuditQuery{Identity: "nobody"}) {
				}
				_ = l.Sync(ctx)
				cancel()
				waits := make(chan error, 1)
				go func() { waits <- l.Record(t.Context(), Event{Event: EventAuth, User: "patient"}) }()
				synctest.Wait()
				close(d.gate)
				must(t, <-waits)
				want := 0
				if c.written {
					want = 1
				}
				got := strings.Count(users(t, l, store.AuditQuery{}), "given")
				if got != want || !strings.Contains(users(t, l, store.AuditQuery{}), "patient") {
					t.Errorf("%d given up are in the log, want %d: %s", got, want, users(t, l, store.AuditQuery{}))
				}
				must(t, l.Close())
				mustVerify(t, dir)
			})
		})
	}
}

// TestCloseWaitsForWrite has Close come while a line is being written: that is
// on disk afterwards.
func TestCloseWaitsForWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &stuck{gate: make(chan struct{})}
		dir := t.TempDir()
		l, err := open(t.Context(), Config{Dir: dir}, d.open)
		must(t, err)
		record(t, l, "first")
		d.onWrite.Store(true)
		wrote, closed := make(chan error, 1), make(chan error, 1)
		go func() { wrote <- l.Record(t.Context(), Event{Event: EventAuth, User: "last"}) }()
		synctest.Wait()
		go func() { closed <- l.Close() }()
		synctest.Wait()
		if err := l.Record(canceledSoon(t), Event{Event: EventAuth}); err == nil {
			t.Error("recorded while the log closes")
		}
		close(d.gate)
		must(t, <-wrote)
		must(t, <-closed)
		if l.durable != 2 {
			t.Errorf("%d records are durable", l.durable)
		}
		mustVerify(t, dir)
	})
}

func canceledSoon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	t.Cleanup(cancel)
	return ctx
}
