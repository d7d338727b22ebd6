package audit

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// request is an event on its way to the file.
type request struct {
	event Event
	done  chan error // takes one value without waiting
	// settled is set by who comes first: the writer, that writes it, or its
	// caller, that no longer wants it.
	settled atomic.Bool
}

// Record writes an event. When it returns nil the event is in the file, and on
// disk within 100 ms (Sync waits for that). When it returns an error the event
// is not in the log, and a later Record may succeed.
//
// It waits while the disk is behind, is being repaired or takes the file of a
// new day, until ctx ends. Only if ctx ends while the line itself is being
// written may the event be in the log in spite of the error.
func (l *Log) Record(ctx context.Context, e Event) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r := &request{event: e, done: make(chan error, 1)}
	var err error
	select {
	case l.requests <- r:
		select {
		case err = <-r.done:
		case <-ctx.Done():
			err = ctx.Err()
			if r.settled.Swap(true) { // it is being written, or was
				select {
				case err = <-r.done:
				default:
				}
			}
		}
	case <-ctx.Done():
		err = ctx.Err()
	case <-l.stop:
		err = ErrClosed
	}
	if err != nil {
		return fmt.Errorf("recording audit event %q: %w", e.Event, err)
	}
	return nil
}

// writeLoop is the goroutine that writes lines: the only one, so that nobody
// waits for a disk that doesn't answer longer than he wants to.
func (l *Log) writeLoop() {
	for {
		select {
		case <-l.stop:
			return
		case r := <-l.requests:
			r.done <- l.write(r)
		}
	}
}

// write writes what is asked for, unless its caller has given up by then.
func (l *Log) write(r *request) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.ready(); err != nil {
		return err
	}
	if r.settled.Swap(true) {
		return context.Canceled // nobody hears it
	}
	e := r.event
	if e.Time.IsZero() {
		e.Time = l.now()
	}
	e.ServerID = l.serverID
	line, err := encode(e, l.sequence+1, l.head)
	if err != nil {
		return err
	}
	if err := l.append(line); err != nil {
		return err
	}
	signal(l.wake)
	return nil
}

// ready makes sure that the file of the day is open and well, or says why not.
// It gives up mu while the disk works.
func (l *Log) ready() error {
	for {
		day := l.now().UTC().Format(time.DateOnly)
		// The clock may have been put back over midnight: lines stay in order,
		// so an older file is never written to again.
		turn := l.file == nil || day > l.day
		var err error
		switch {
		case l.closed:
			return ErrClosed
		case l.broken != nil, len(l.unsynced) > maxUnsynced, turn && l.durable < l.sequence:
			err = l.syncLocked()
		case turn:
			err = l.turn(day)
		default:
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// working runs f, in which the disk works, without mu.
func (l *Log) working(f func()) {
	l.writing = true
	l.mu.Unlock()
	f()
	l.mu.Lock()
	l.writing = false
	l.changed.Broadcast()
}

// append writes a line to the file. Killed within the write, it leaves a torn
// line, which Open puts aside. It gives up mu while the disk works.
func (l *Log) append(line []byte) error {
	whole := append(line[:len(line):len(line)], '\n')
	file, size := l.file, l.size
	var err, undo error
	l.working(func() {
		if _, err = file.Write(whole); err != nil {
			// A full disk takes half a line. The rest of the file is as it
			// was, so the next line may be written as soon as there is room.
			undo = file.Truncate(size)
		}
	})
	if err != nil {
		if undo != nil {
			l.broken = errors.Join(err, undo)
		}
		return err
	}
	l.unsynced = append(l.unsynced, whole...)
	l.size += int64(len(whole))
	l.sequence++
	l.head = sha256.Sum256(line)
	return nil
}

// turn makes the file of a new day the current one; the old one is durable.
// Killed within it, it leaves an empty file, which Open takes over. It gives up
// mu while the disk works.
func (l *Log) turn(day string) error {
	path := filepath.Join(l.dir, day+extension)
	var next file
	var err error
	l.working(func() {
		if next, err = l.open(path, os.O_CREATE|os.O_EXCL); err != nil {
			return
		}
		if err = syncDir(l.dir); err != nil {
			// Without its name on disk the file may be gone after a crash.
			err = errors.Join(err, next.Close(), os.Remove(path))
		}
	})
	if err != nil {
		return err
	}
	last, lastDay := l.file, l.day
	l.file, l.day, l.size, l.synced = next, day, 0, 0
	if last == nil {
		return nil
	}
	l.working(func() { err = last.Close() })
	if err != nil {
		l.log.Warn("audit file did not close well", "day", lastDay, "error", err)
	}
	return nil
}
