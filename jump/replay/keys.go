package replay

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// key is what a viewer may type.
type key byte

const (
	keyPause key = iota + 1
	keyStep
	keyMarker
	keySlower
	keyFaster
	keyBack
	keyForward
	keyQuit
	// keysEnded says that no more keys will come.
	keysEnded
)

// keyParser makes keys of bytes; the sequences of the arrow keys may be split.
type keyParser struct{ state byte }

// next returns the key that c completes, or 0.
func (k *keyParser) next(c byte) key {
	state := k.state
	k.state = 0
	switch {
	case c == esc:
		k.state = esc
		return 0
	case state == esc && (c == '[' || c == 'O'):
		k.state = '['
		return 0
	case state == '[':
		switch {
		case c == 'C':
			return keyForward
		case c == 'D':
			return keyBack
		case c >= 0x20 && c < 0x40:
			k.state = '['
		}
		return 0
	}
	switch c {
	case ' ':
		return keyPause
	case '.':
		return keyStep
	case ']':
		return keyMarker
	case '{':
		return keySlower
	case '}':
		return keyFaster
	case 'h':
		return keyBack
	case 'l':
		return keyForward
	case 'q', 0x03, 0x04: // ^C and ^D come as bytes from a terminal in raw mode
		return keyQuit
	}
	return 0
}

// keyboard reads keys in a goroutine of its own.
type keyboard struct {
	keys chan key
	stop chan struct{}
	done chan struct{}
	r    io.Reader
	// wake, if r is a file, ends the wait for the file when it is closed.
	wake *os.File
	// ends says that the goroutine ends when it is told to.
	ends bool
}

func newKeyboard(r io.Reader) (*keyboard, error) {
	k := &keyboard{keys: make(chan key), stop: make(chan struct{}), done: make(chan struct{}), r: r}
	switch f := r.(type) {
	case nil:
		close(k.done)
		k.ends = true
		return k, nil
	case *os.File:
		// A terminal that is read in blocking mode, as after os.File.Fd, takes
		// a deadline and doesn't keep it.
		waiting, wake, err := os.Pipe()
		if err != nil {
			return nil, fmt.Errorf("preparing to read keys: %w", err)
		}
		k.wake, k.ends = wake, true
		go func() {
			defer close(k.done)
			defer waiting.Close()
			k.read(&pollReader{f, waiting})
		}()
		return k, nil
	}
	go func() {
		defer close(k.done)
		k.read(r)
	}()
	return k, nil
}

func (k *keyboard) read(r io.Reader) {
	var p keyParser
	buf := make([]byte, 64)
	for {
		n, err := r.Read(buf)
		for _, c := range buf[:n] {
			if key := p.next(c); key != 0 && !k.send(key) {
				return
			}
		}
		if err != nil {
			k.send(keysEnded)
			return
		}
	}
}

func (k *keyboard) send(key key) bool {
	select {
	case k.keys <- key:
		return true
	case <-k.stop:
		return false
	}
}

// close ends the goroutine and waits for it, if the reader can be interrupted.
// Otherwise it ends with the next byte or the end of the reader.
func (k *keyboard) close() {
	close(k.stop)
	if k.wake != nil {
		_ = k.wake.Close() // nothing was written to it
	}
	d, ok := k.r.(interface{ SetReadDeadline(time.Time) error })
	deadline := !k.ends && ok && d.SetReadDeadline(time.Unix(1, 0)) == nil
	if k.ends || deadline {
		<-k.done
	}
	if deadline {
		_ = d.SetReadDeadline(time.Time{}) // as it was when it could be set
	}
}

// pollReader reads a file, and ends when another has something to read or is
// closed on its other side.
type pollReader struct{ file, wake *os.File }

func (p *pollReader) Read(b []byte) (int, error) {
	fds := make([]unix.PollFd, 0, 2)
	for _, f := range []*os.File{p.file, p.wake} {
		conn, err := f.SyscallConn()
		if err == nil {
			err = conn.Control(func(fd uintptr) {
				fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
			})
		}
		if err != nil {
			return 0, err
		}
	}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, fmt.Errorf("waiting for keys: %w", err)
		case fds[1].Revents != 0:
			return 0, io.EOF
		}
		return p.file.Read(b)
	}
}
