package replay

import (
	"io"
	"time"
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
}

func newKeyboard(r io.Reader) *keyboard {
	k := &keyboard{keys: make(chan key), stop: make(chan struct{}), done: make(chan struct{}), r: r}
	if r == nil {
		close(k.done)
		return k
	}
	go k.read()
	return k
}

func (k *keyboard) read() {
	defer close(k.done)
	var p keyParser
	buf := make([]byte, 64)
	for {
		n, err := k.r.Read(buf)
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
	if d, ok := k.r.(interface{ SetReadDeadline(time.Time) error }); ok {
		if d.SetReadDeadline(time.Unix(1, 0)) == nil {
			<-k.done
			_ = d.SetReadDeadline(time.Time{})
		}
	}
}
