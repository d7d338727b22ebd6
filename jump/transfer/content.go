package transfer

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"slices"
)

// Bounds on what is kept of one file: bytes that came before those that go in
// front of them, and parts of the file that passed with holes between.
const (
	maxHeld  = 2 << 20
	maxParts = 256
)

// content is what is known of a file's bytes that pass in one direction. Bytes
// are hashed as they pass, from the beginning of the file on; those that come
// too early are held, a few. What passes is counted only when it is accepted.
type content struct {
	write bool
	hash  hash.Hash
	next  uint64  // so much is hashed
	held  []chunk // by offset, all beyond next
	size  int     // of held
	lost  bool    // the digest can't be known any more
	// disorder is true once bytes came that weren't the next ones.
	disorder bool
	touched  bool // something came

	parts     []part // what was accepted, by offset, neither overlapping nor touching
	scattered bool   // there are more parts than are kept
	accepted  uint64
}

type chunk struct {
	offset uint64
	data   []byte
}

type part struct{ from, to uint64 }

// budget bounds what all files of a session hold together.
type budget struct{ left int }

// pass takes bytes as they pass.
func (c *content) pass(offset uint64, data []byte, b *budget) {
	c.touched = true
	if c.lost || len(data) == 0 {
		return
	}
	if c.hash == nil {
		c.hash = sha256.New()
	}
	if offset < c.next {
		c.disorder = true
		if c.write {
			// The file has no longer what was hashed.
			c.lose(b)
			return
		}
		// Read again: what is new may be at the end.
		again := c.next - offset
		if again >= uint64(len(data)) {
			return
		}
		offset, data = c.next, data[again:]
	}
	if offset > c.next {
		c.disorder = true
		c.hold(offset, data, b)
		return
	}
	c.hash.Write(data)
	c.next += uint64(len(data))
	c.drain(b)
}

// hold keeps bytes until those before them have come.
func (c *content) hold(offset uint64, data []byte, b *budget) {
	if c.size+len(data) > maxHeld || len(data) > b.left || offset+uint64(len(data)) < offset {
		c.lose(b)
		return
	}
	c.size += len(data)
	b.left -= len(data)
	i, _ := slices.BinarySearchFunc(c.held, offset, func(h chunk, o uint64) int {
		if h.offset <= o {
			return -1
		}
		return 1
	})
	// Pieces of one packet are joined, so that small ones cost nothing more.
	if i > 0 {
		if before := &c.held[i-1]; before.offset+uint64(len(before.data)) == offset {
			before.data = append(before.data, data...)
			return
		}
	}
	if len(c.held) >= maxParts {
		c.size -= len(data)
		b.left += len(data)
		c.lose(b)
		return
	}
	c.held = slices.Insert(c.held, i, chunk{offset, slices.Clone(data)})
}

// drain hashes what was held and is next now.
func (c *content) drain(b *budget) {
	for len(c.held) > 0 && c.held[0].offset <= c.next {
		h := c.held[0]
		c.held[0] = chunk{} // or the array would keep it
		c.held = c.held[1:]
		c.size -= len(h.data)
		b.left += len(h.data)
		again := c.next - h.offset
		if again > 0 && c.write {
			c.lose(b)
			return
		}
		if again < uint64(len(h.data)) {
			c.hash.Write(h.data[again:])
			c.next += uint64(len(h.data)) - again
		}
	}
}

// lose gives up the digest and what is held for it.
func (c *content) lose(b *budget) {
	b.left += c.size
	c.lost, c.held, c.size = true, nil, 0
}

// accept notes that n bytes that had passed were taken by the other side.
func (c *content) accept(offset, n uint64) {
	if n == 0 {
		return
	}
	c.accepted += n
	to := offset + n
	if c.scattered || to < offset {
		c.scattered = true
		return
	}
	first, _ := slices.BinarySearchFunc(c.parts, offset, func(p part, o uint64) int {
		if p.to < o {
			return -1
		}
		return 1
	})
	last := first
	merged := part{offset, to}
	for last < len(c.parts) && c.parts[last].from <= to {
		merged.from = min(merged.from, c.parts[last].from)
		merged.to = max(merged.to, c.parts[last].to)
		last++
	}
	c.parts = slices.Replace(c.parts, first, last, merged)
	if len(c.parts) > maxParts {
		c.scattered = true
	}
}

// first is the offset of the first byte that was accepted.
func (c *content) first() uint64 {
	if len(c.parts) == 0 {
		return 0
	}
	return c.parts[0].from
}

// whole says whether exactly the bytes before end were accepted.
func (c *content) whole(end uint64) bool {
	if c.scattered {
		return false
	}
	if len(c.parts) == 0 {
		return end == 0
	}
	return len(c.parts) == 1 && c.parts[0] == part{0, end}
}

// sum is the digest of a file that is whole with end bytes, if it is known.
func (c *content) sum(end uint64) string {
	switch {
	case c.lost || c.next != end || len(c.held) > 0:
		return ""
	case c.hash == nil:
		return hex.EncodeToString(sha256.New().Sum(nil))
	default:
		return hex.EncodeToString(c.hash.Sum(nil))
	}
}

// end is where the accepted bytes end.
func (c *content) end() uint64 {
	if len(c.parts) == 0 {
		return 0
	}
	return c.parts[len(c.parts)-1].to
}
