package remote

import (
	"bytes"
	"io"
	"sync"
)

// output collects what a host writes, up to a limit.
type output struct {
	limit int
	full  chan struct{} // closed when more came
	more  chan struct{} // told after each read

	mu   sync.Mutex
	data []byte
	over bool
}

func newOutput(limit int) *output {
	return &output{limit: limit, full: make(chan struct{}), more: make(chan struct{}, 1)}
}

// fill reads to the end. What is over the limit is thrown away, so that the
// server isn't held up in closing the channel.
func (o *output) fill(r io.Reader) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := r.Read(buffer)
		if n > 0 {
			o.take(buffer[:n])
		}
		if err != nil {
			return
		}
	}
}

func (o *output) take(b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if room := o.limit - len(o.data); len(b) > room {
		b = b[:room]
		if !o.over {
			o.over = true
			close(o.full)
		}
	}
	o.data = append(o.data, b...)
	select {
	case o.more <- struct{}{}:
	default:
	}
}

// count says how often a word has been written.
func (o *output) count(word string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Count(o.data, []byte(word))
}

// after returns what was written after the line that consists of the word, and
// whether there was one; otherwise everything.
func (o *output) after(word string) ([]byte, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, rest, ok := bytes.Cut(o.data, []byte(word+"\n")); ok {
		return rest, true
	}
	return o.data, false
}
