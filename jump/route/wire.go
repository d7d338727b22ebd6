package route

import (
	"bytes"
	"errors"
	"net"
	"sync/atomic"
)

const (
	// maxGreeting bounds what a host may say before its SSH version, and
	// maxHandshake all that it may send before it has let us in.
	maxGreeting  = 8 << 10
	maxHandshake = 1 << 20
	maxSaid      = 300
)

var errTooTalkative = errors.New("the host sends more than any SSH server would")

// wire is the connection under SSH. It bounds what the host may send before we
// are in, and remembers what it says before its version and how it ended.
type wire struct {
	net.Conn
	greeted atomic.Bool // the host's version has begun to come in
	heard   atomic.Bool // anything has come in
	done    atomic.Bool // no bounds any more
	failure atomic.Pointer[error]

	// Only the goroutine that reads uses these, until it has ended.
	head  []byte
	total int
}

// Read ends the connection when it fails, before anybody learns of it: that
// makes the moment shorter in which channels are asked for in vain (see conn).
func (w *wire) Read(b []byte) (int, error) {
	n, err := w.read(b)
	if err != nil {
		_ = w.Conn.Close()
	}
	return n, err
}

func (w *wire) read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if w.done.Load() {
		return n, err
	}
	if n > 0 {
		w.heard.Store(true)
	}
	w.total += n
	if !w.greeted.Load() {
		w.head = append(w.head, b[:n]...)
		switch {
		case bytes.HasPrefix(w.head, []byte("SSH-")) || bytes.Contains(w.head, []byte("\nSSH-")):
			w.greeted.Store(true)
		case len(w.head) > maxGreeting:
			err = errTooTalkative
		}
	}
	if w.total > maxHandshake {
		err = errTooTalkative
	}
	if err != nil {
		w.failed(err)
	}
	if errors.Is(err, errTooTalkative) {
		n = 0 // io.ReadFull passes over an error that comes with what it wants
	}
	return n, err
}

func (w *wire) Write(b []byte) (int, error) {
	n, err := w.Conn.Write(b)
	if err != nil && !w.done.Load() {
		w.failed(err)
	}
	return n, err
}

// failed keeps the first failure: what comes after follows from it.
func (w *wire) failed(err error) { w.failure.CompareAndSwap(nil, &err) }

// cause is how the connection failed, nil if it didn't.
func (w *wire) cause() error {
	if err := w.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// said is what came in place of an SSH version. It may be called when nobody
// reads any more.
func (w *wire) said() string {
	if w.greeted.Load() {
		return ""
	}
	return string(bytes.TrimSpace(w.head[:min(len(w.head), maxSaid)]))
}
