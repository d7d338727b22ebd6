package relay

import "sync"

const (
	// defaultBuffer is as much as x/crypto/ssh puts into one packet.
	defaultBuffer = 32 << 10
	// smallBuffer is what a stream has while it is idle, since a jump host has
	// thousands of those.
	smallBuffer = 1 << 10
)

var (
	smallBuffers   = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	defaultBuffers = sync.Pool{New: func() any { return new([defaultBuffer]byte) }}
)

// buffer is a stream's: small while little comes, large while much does.
type buffer struct {
	size  int
	small *[smallBuffer]byte
	large *[defaultBuffer]byte
	own   []byte // in place of large where size isn't the default
	busy  bool
}

func newBuffer(size int) *buffer {
	return &buffer{size: size, small: smallBuffers.Get().(*[smallBuffer]byte)}
}

// space is where to read into.
func (b *buffer) space() []byte {
	switch {
	case !b.busy:
		return b.small[:min(b.size, smallBuffer)]
	case b.own != nil:
		return b.own
	}
	return b.large[:]
}

// fit changes the size for what comes next, after n bytes were read.
func (b *buffer) fit(n int) {
	switch {
	case !b.busy && n == smallBuffer && b.size > smallBuffer:
		b.busy = true
		if b.size == defaultBuffer {
			b.large = defaultBuffers.Get().(*[defaultBuffer]byte)
		} else {
			b.own = make([]byte, b.size)
		}
	case b.busy && n <= smallBuffer:
		b.idle()
	}
}

func (b *buffer) idle() {
	if b.large != nil {
		defaultBuffers.Put(b.large)
	}
	b.large, b.own, b.busy = nil, nil, false
}

// release gives the buffers back. None of their bytes may be used any more.
func (b *buffer) release() {
	b.idle()
	smallBuffers.Put(b.small)
	b.small = nil
}
