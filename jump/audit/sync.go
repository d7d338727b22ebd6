package audit

import (
	"context"
	"time"
)

// Sync returns when all that was recorded before is on disk, or when it turned
// out that it can't be brought there, with the reason. Calls at the same time
// share one fsync. An ended ctx ends the waiting only.
func (l *Log) Sync(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.changed.Broadcast()
	})
	defer stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	target := l.sequence
	failures := l.failures
	for l.durable < target {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case l.closed:
			return ErrClosed
		case l.failures != failures && l.broken != nil:
			return l.broken
		}
		signal(l.want)
		l.changed.Wait()
	}
	return nil
}

// syncLoop is the goroutine that brings lines to the disk: all that were
// written within 100 ms together. It sleeps while there are none.
func (l *Log) syncLoop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var due <-chan time.Time
	for {
		select {
		case <-l.stop:
			return
		case <-l.wake:
			if due == nil {
				timer.Reset(syncEvery)
				due = timer.C
			}
			continue
		case <-l.want:
		case <-due:
		}
		due = nil
		l.mu.Lock()
		if err := l.syncLocked(); err != nil && !l.closed {
			timer.Reset(retryEvery)
			due = timer.C
		}
		l.mu.Unlock()
	}
}

// syncLocked makes all lines durable, or repairs the file first if that failed
// before. mu is held, but not while the disk works.
func (l *Log) syncLocked() error {
	// Nothing is written to a file while it is repaired.
	for l.syncing || l.broken != nil && l.writing {
		l.changed.Wait()
	}
	if l.broken == nil && l.durable == l.sequence {
		return nil
	}
	var repair []byte
	if l.broken != nil {
		repair = l.unsynced
	}
	file, synced, size, sequence, again := l.file, l.synced, l.size, l.sequence, l.broken != nil
	l.syncing = true
	l.mu.Unlock()
	var err error
	if again {
		err = rewrite(file, synced, repair)
	}
	if err == nil {
		err = file.Sync()
	}
	l.mu.Lock()
	l.syncing = false
	l.changed.Broadcast()
	if err != nil {
		if l.broken == nil {
			l.log.Error("audit log can't be written", "error", err)
		}
		l.broken = err
		l.failures++
		return err
	}
	if again {
		l.log.Info("audit log can be written again")
		l.broken = nil // otherwise a line may have broken it meanwhile
	}
	l.unsynced = l.unsynced[size-synced:]
	if len(l.unsynced) == 0 {
		l.unsynced = nil
	}
	l.synced, l.durable = size, sequence
	signal(l.feed)
	return nil
}

// rewrite puts the lines that are not known to be on disk after those that
// are. Killed in between, it leaves a torn line, or fewer of them; none was
// said to be durable.
func rewrite(f file, synced int64, lines []byte) error {
	if err := f.Truncate(synced); err != nil {
		return err
	}
	_, err := f.Write(lines)
	return err
}
