// Package audit keeps the journal of who did what through the jump host: one
// JSON object a line, a file a day, each line numbered and holding the SHA-256
// of the line before it.
//
// It refuses to write a value that would fool a terminal or a log (clients
// choose user names, commands and paths: they are escaped, reversibly), to
// change a line that is durable, to let two processes write to one folder, and
// to pass silently over anything that is missing or damaged in it.
//
// The chain shows every change by somebody who did not write all later lines
// anew. Against those who can, keep its head elsewhere (Report.LastHash): the
// store has a copy of each line, and Log.Verify compares them.
package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/fleetca/fleetca/jump/store"
)

const (
	// syncEvery is how long a line may wait for the disk.
	syncEvery = 100 * time.Millisecond
	// retryEvery is how often a disk or a store that failed is tried again
	// when nothing is recorded meanwhile.
	retryEvery = time.Second
	// maxUnsynced is how many bytes of lines may wait for the disk; it bounds
	// what is held in memory to write them once more.
	maxUnsynced = 1 << 20
)

// ErrClosed is returned after Close.
var ErrClosed = errors.New("audit log is closed")

// Config says where the log is. It is not changed after Open.
type Config struct {
	// Dir holds the files; it is made with mode 0700 if it does not exist.
	// Required.
	Dir string
	// Store gets each record too, for queries, once it is durable in the file.
	// What it misses, because it was full or a crash came between, it gets
	// later. Nil: queries read the files.
	Store store.Store
	// ServerID names this jump host in each event.
	ServerID string
	// Now is the clock; time.Now if nil.
	Now func() time.Time
	// Log is told when the disk or the store fails and when they are well
	// again; nothing is logged if nil.
	Log *slog.Logger
}

// Log writes the audit. It is safe for concurrent use.
type Log struct {
	dir      string
	serverID string
	store    store.Store
	now      func() time.Time
	log      *slog.Logger
	open     func(path string, flags int) (file, error)

	lock     *os.File      // the folder, locked for as long as the log is open
	stop     chan struct{} // closed by Close
	requests chan *request // events, to the writing goroutine
	wake     chan struct{} // something is to be synced
	want     chan struct{} // and not in 100 ms but now
	feed     chan struct{} // something durable is to be given to the store
	done     sync.WaitGroup

	mu       sync.Mutex
	changed  *sync.Cond // durable, syncing, writing, broken, fed or closed changed
	closed   bool
	day      string // of the current file, as in its name
	file     file
	size     int64  // of the file, up to the last line that was accepted
	sequence uint64 // of that line
	head     hash   // and of its bytes
	// unsynced holds the lines after the first synced bytes of the file. The
	// kernel forgets what it could not write after it has said so once, so
	// they are written again then.
	unsynced []byte
	synced   int64
	durable  uint64 // sequence number of the last line that is on disk
	syncing  bool   // an fsync runs, without mu
	writing  bool   // a line is being written, or a file made, without mu
	failures int    // how often an fsync failed
	broken   error  // the file may hold anything after the first synced bytes

	feeder feeder // belongs to the feeding goroutine, but for what it says
}

// file is what the log needs of an *os.File, opened for appending.
type file interface {
	Write(p []byte) (int, error)
	Sync() error
	Truncate(size int64) error
	Close() error
}

// Open opens or makes the log and continues its chain. What a crash left of a
// last line is put aside into a file beside it, and told in an audit.damage
// event, as is a log that ends before what the store has seen of it. Only one
// process may have the folder open. Close must be called.
func Open(ctx context.Context, c Config) (*Log, error) {
	return open(ctx, c, openFile)
}

func open(ctx context.Context, c Config, openFile func(string, int) (file, error)) (*Log, error) {
	if c.Dir == "" {
		return nil, errors.New("opening audit log: Dir not set")
	}
	l := &Log{
		dir: c.Dir, serverID: c.ServerID, store: c.Store, now: c.Now, log: c.Log, open: openFile,
		stop: make(chan struct{}), requests: make(chan *request), wake: make(chan struct{}, 1),
		want: make(chan struct{}, 1), feed: make(chan struct{}, 1),
	}
	if l.now == nil {
		l.now = time.Now
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	l.changed = sync.NewCond(&l.mu)
	lock, err := lockDir(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("opening audit log: %w", err)
	}
	l.lock = lock
	damage, err := l.resume(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening audit log %q: %w", c.Dir, err), l.release())
	}
	l.done.Go(l.syncLoop)
	l.done.Go(l.writeLoop)
	if l.store != nil {
		l.done.Go(func() { l.feedLoop(context.WithoutCancel(ctx)) })
	}
	for _, e := range damage {
		l.log.Error("audit log was damaged", "file", e.Path, "reason", e.Reason)
		if err := l.Record(ctx, e); err != nil {
			return nil, errors.Join(fmt.Errorf("opening audit log %q: %w", c.Dir, err), l.Close())
		}
	}
	return l, nil
}

func (l *Log) release() error {
	var err error
	if l.file != nil {
		err = l.file.Close()
	}
	return errors.Join(err, l.lock.Close())
}

// Close makes everything durable and ends the log. The error says that
// something is not.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.changed.Broadcast()
	for l.writing {
		l.changed.Wait()
	}
	err := l.syncLocked()
	l.mu.Unlock()
	close(l.stop)
	l.done.Wait()
	if err := errors.Join(err, l.release()); err != nil {
		return fmt.Errorf("closing audit log: %w", err)
	}
	return nil
}

// signal wakes the goroutine that reads c, if it isn't awake anyway.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
