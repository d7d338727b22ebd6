// Package ledger keeps the record of certificates in an append-only file, one
// JSON object a line: readable, greppable, and durable before anything is
// signed.
//
// It refuses to acknowledge what is not on disk, to go on after the disk failed
// to say so, and to change a line that was written: what a crash tore stays
// where it is, on a line of its own, and is reported when the file is read.
package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fleetca/fleetca/ca"
)

// maxBatch bounds how many Append calls share one write.
const maxBatch = 1024

// Config says where the ledger is. Zero durations take the defaults.
type Config struct {
	// Path is the file; it is made with mode 0600 if it does not exist. Required.
	Path string
	// LockTimeout is how long to wait for other processes that write to the
	// same file; each of them holds the lock for one write. Default 30 s.
	LockTimeout time.Duration
}

// Ledger appends to the file. It is safe for concurrent use: calls of Append
// that come while the disk is busy share the next write and the next sync.
// Several processes may have the same file open.
type Ledger struct {
	path        string
	lockTimeout time.Duration
	queue       chan batch
	done        chan struct{} // closed when the writer has ended

	closing sync.RWMutex // held for reading while sending to queue
	closed  bool

	// The fields below belong to the writer goroutine.
	file   *os.File
	failed error
}

var _ ca.Ledger = (*Ledger)(nil)

// batch is one call of Append.
type batch struct {
	lines  []byte
	result chan<- error // has room for the one answer
}

// ErrClosed is returned by Append after Close.
var ErrClosed = errors.New("ledger is closed")

// Open opens the file, making it if needed. Close must be called.
func Open(c Config) (*Ledger, error) {
	if c.Path == "" {
		return nil, errors.New("ledger: Path not set")
	}
	if c.LockTimeout <= 0 {
		c.LockTimeout = 30 * time.Second
	}
	file, err := openFile(c.Path)
	if err != nil {
		return nil, fmt.Errorf("opening ledger: %w", err)
	}
	l := &Ledger{
		path: c.Path, lockTimeout: c.LockTimeout, file: file,
		queue: make(chan batch, maxBatch), done: make(chan struct{}),
	}
	go l.write()
	return l, nil
}

// openFile opens for reading too: the writer looks at the last byte.
func openFile(path string) (*os.File, error) {
	const flags = os.O_RDWR | os.O_APPEND | unix.O_NOFOLLOW
	file, err := os.OpenFile(path, flags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		// Two processes may both come here; O_CREATE without O_EXCL lets both
		// have the one file.
		if file, err = os.OpenFile(path, flags|os.O_CREATE, 0o600); err == nil {
			err = syncDir(filepath.Dir(path))
		}
	}
	if err != nil {
		if file != nil {
			err = errors.Join(err, file.Close())
		}
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%q is not a plain file", path)
	}
	if err == nil && info.Mode().Perm()&0o022 != 0 {
		err = fmt.Errorf("%q has mode %#o: others than its owner may write to it", path, info.Mode().Perm())
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// syncDir makes a new file's name durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Append records entries. When it returns nil they are on disk. After an error
// some, all or none of them may be; a cancelled ctx ends only the waiting.
func (l *Ledger) Append(ctx context.Context, entries ...ca.Entry) error {
	lines, err := marshal(entries)
	if err != nil || len(lines) == 0 {
		return err
	}
	result := make(chan error, 1)
	if err := l.send(ctx, batch{lines, result}); err != nil {
		return err
	}
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// send hands a batch to the writer, never after Close.
func (l *Ledger) send(ctx context.Context, b batch) error {
	l.closing.RLock()
	defer l.closing.RUnlock()
	if l.closed {
		return ErrClosed
	}
	select {
	case l.queue <- b:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func marshal(entries []ca.Entry) ([]byte, error) {
	var lines []byte
	for _, e := range entries {
		if err := e.Check(); err != nil {
			return nil, fmt.Errorf("ledger entry of serial %d: %w", e.Serial, err)
		}
		line, err := json.Marshal(e) // escapes newlines, so it is one line
		if err != nil {
			return nil, fmt.Errorf("ledger entry of serial %d: %w", e.Serial, err)
		}
		if len(line) > maxLine {
			return nil, fmt.Errorf("ledger entry of serial %d: %d bytes are over the maximum of %d", e.Serial, len(line), maxLine)
		}
		lines = append(append(lines, line...), '\n')
	}
	return lines, nil
}

// Close waits until everything handed to Append is written, and closes the file.
func (l *Ledger) Close() error {
	l.closing.Lock()
	wasClosed := l.closed
	l.closed = true
	l.closing.Unlock()
	if wasClosed {
		return nil
	}
	close(l.queue)
	<-l.done
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("closing ledger: %w", err)
	}
	return nil
}

// write is the writer goroutine. It takes whatever has queued up and commits it
// together.
func (l *Ledger) write() {
	defer close(l.done)
	for first := range l.queue {
		batches := []batch{first}
	more:
		for len(batches) < maxBatch {
			select {
			case b, ok := <-l.queue:
				if !ok {
					break more
				}
				batches = append(batches, b)
			default:
				break more
			}
		}
		err := l.commit(batches)
		for _, b := range batches {
			b.result <- err
		}
	}
}

func (l *Ledger) commit(batches []batch) error {
	if l.failed != nil {
		return l.failed
	}
	var lines []byte
	for _, b := range batches {
		lines = append(lines, b.lines...)
	}
	if err := lock(l.file, unix.LOCK_EX, l.lockTimeout); err != nil {
		return fmt.Errorf("locking ledger %q: %w", l.path, err)
	}
	err := l.appendLocked(lines)
	if unlockErr := flock(l.file, unix.LOCK_UN); err == nil && unlockErr != nil {
		l.failed = fmt.Errorf("unlocking ledger %q: %w", l.path, unlockErr)
	}
	return err
}

// appendLocked writes lines after the last whole line. Killed between the write
// and the sync, it leaves lines of certificates that were never signed. Killed
// within the write, it leaves a torn line, which the next writer ends.
func (l *Ledger) appendLocked(lines []byte) error {
	// The file may have been replaced while we waited, by a restore or an
	// editor; what is written to the old one would be lost.
	if err := l.same(); err != nil {
		return err
	}
	info, err := l.file.Stat()
	if err != nil {
		return fmt.Errorf("reading ledger %q: %w", l.path, err)
	}
	size := info.Size()
	if size > 0 {
		var last [1]byte
		if _, err := l.file.ReadAt(last[:], size-1); err != nil {
			return fmt.Errorf("reading ledger %q: %w", l.path, err)
		}
		if last[0] != '\n' {
			lines = append([]byte{'\n'}, lines...)
		}
	}
	if _, err := l.file.Write(lines); err != nil {
		// A full disk takes part of a line. Put the end back while we hold the
		// lock; if even that fails, the next writer ends the torn line.
		_ = l.file.Truncate(size)
		return fmt.Errorf("writing ledger %q: %w", l.path, err)
	}
	if err := l.file.Sync(); err != nil {
		// After a failed sync the kernel may have dropped the pages, and a
		// second sync would say that all is well: nothing more from this
		// process can be trusted to be on disk.
		l.failed = fmt.Errorf("syncing ledger %q: %w", l.path, err)
		return l.failed
	}
	return nil
}

// same is an error unless the path still leads to the open file.
func (l *Ledger) same() error {
	ours, err := l.file.Stat()
	if err != nil {
		return fmt.Errorf("reading ledger %q: %w", l.path, err)
	}
	theirs, err := os.Stat(l.path)
	if err != nil {
		return fmt.Errorf("reading ledger: %w", err)
	}
	if !os.SameFile(ours, theirs) {
		return fmt.Errorf("ledger %q was replaced by another file while in use", l.path)
	}
	return nil
}

// lock takes the lock that ends with the process, asking again and again so
// that a stopped process elsewhere can't hang this one for ever.
func lock(f *os.File, how int, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	wait := time.Millisecond
	for {
		err := flock(f, how|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("another process has held it for %s", timeout)
		}
		time.Sleep(wait)
		wait = min(2*wait, 20*time.Millisecond)
	}
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
