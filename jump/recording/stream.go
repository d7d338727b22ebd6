package recording

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"sync"
	"time"

	"github.com/fleetca/fleetca/jump/cast"
)

const (
	// headSize is how much of a stream is held while it is taken for a file
	// copy, to be recorded if it turns out to be none. What isn't one mostly
	// shows in its first bytes: a greeting, an error message. So much is also
	// kept of the beginning, and of the end, of what is only counted.
	headSize = 16 << 10
	// tailSize is how much is kept of the end of a stream of which only the
	// beginning is kept else: what matters may come last.
	tailSize = 256 << 10
)

// stream is one direction of a session's bytes.
type stream struct {
	name string
	kind cast.Kind

	mu    sync.Mutex
	state state
	bytes uint64 // that were accepted
	kept  uint64
	hash  hash.Hash // of all of them; nil if nobody asks for it, or it can't be known
	limit uint64    // bytes that are kept, from the offset from on
	full  uint64    // what limit is for a command
	from  uint64
	rest  hash.Hash     // of the bytes after from; nil if that is 0
	head  []byte        // the first bytes, while it is not known what they are
	tail  ring          // the last bytes of those that aren't kept
	over  time.Duration // when the first was not kept
}

// take records bytes of a stream, as what it is taken for.
func (s *stream) take(r *Recording, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := r.admit(); err != nil {
		return err
	}
	switch s.state {
	case parsed:
		if s.follow(r, p) {
			// What was done to files may not have been recorded.
			err := r.refuses()
			if err == nil {
				s.remember(r, p)
			}
			return err
		}
		if err := s.fall(r); err != nil {
			return err
		}
	case counted:
		if s.looksCounted(r, p) {
			break
		}
		if err := s.fall(r); err != nil {
			return err
		}
	case plainly:
	}
	return s.record(r, p)
}

// count makes it a stream of which only the beginning and the end are kept.
func (s *stream) count() {
	s.state = counted
	s.limit = min(s.full, headSize)
	s.tail.size = int(s.limit)
}

// remember counts bytes of a file copy and holds the first of them.
func (s *stream) remember(r *Recording, p []byte) {
	s.bytes += uint64(len(p))
	n := min(len(p), headSize-len(s.head))
	s.head = append(s.head, p[:n]...)
	if n < len(p) {
		s.passedOver(r)
	}
}

// passedOver notes when it began that bytes aren't kept.
func (s *stream) passedOver(r *Recording) {
	if s.over == 0 {
		s.over = r.elapsed()
	}
}

// fall makes it a plain stream, if the session may have such.
func (s *stream) fall(r *Recording) error {
	if err := r.refuses(); err != nil {
		return err
	}
	return s.settle(r.elapsed(), r.hand)
}

// settle makes it a plain stream. If what passed until now is kept whole, it is
// one from its beginning; otherwise the limit counts from here on, so that it
// can't be used up by what was taken for a file.
func (s *stream) settle(at time.Duration, put func(cast.Kind, []byte) (uint64, error)) error {
	was := s.state
	s.state, s.limit = plainly, s.full
	head := s.head
	s.head = nil
	if was == parsed {
		if s.bytes == uint64(len(head)) {
			s.hash.Write(head)
		} else {
			s.hash = nil
		}
		kept, err := put(s.kind, head[:min(uint64(len(head)), s.limit)])
		s.kept += kept
		if err != nil {
			return err
		}
	} else if err := s.flushTail(at, put); err != nil {
		return err
	}
	s.tail = ring{size: int(min(tailSize, s.limit))}
	left := s.bytes - uint64(len(head))
	if was == counted {
		left = s.bytes - s.kept
	}
	if left == 0 || s.bytes == 0 {
		return nil
	}
	s.from, s.rest = s.bytes, sha256.New()
	if was == parsed && s.limit > 0 {
		return s.missing(at, left, put)
	}
	return nil
}

// record keeps what is within the limit, and counts and digests the rest. What
// is refused does not pass, and so is not counted.
func (s *stream) record(r *Recording, p []byte) error {
	if r.mode == Off {
		return nil
	}
	keep := p[:min(uint64(len(p)), s.limit-min(s.bytes-s.from, s.limit))]
	kept, err := r.bytes(s.kind, keep)
	s.kept += kept
	if err != nil {
		p = p[:kept]
	}
	s.bytes += uint64(len(p))
	if s.hash != nil {
		s.hash.Write(p)
	}
	if s.rest != nil {
		s.rest.Write(p)
	}
	if len(p) > len(keep) {
		s.passedOver(r)
		s.tail.add(p[len(keep):])
	}
	return err
}

// flushTail records the end of what was not kept, and says that it is that, and
// what is missing before it.
func (s *stream) flushTail(at time.Duration, put func(cast.Kind, []byte) (uint64, error)) error {
	older, newer := s.tail.bytes()
	size := uint64(len(older) + len(newer))
	if size == 0 {
		return nil
	}
	if left := s.tail.total - size; left > 0 {
		if err := s.missing(at, left, put); err != nil {
			return err
		}
	}
	mark, err := noteData("tail", map[string]any{"stream": s.name, "offset": s.bytes - size, "bytes": size})
	if err != nil {
		return err
	}
	if _, err := put(cast.Note, mark); err != nil {
		return err
	}
	for _, p := range [][]byte{older, newer} {
		kept, err := put(s.kind, p)
		s.kept += kept
		if err != nil {
			return err
		}
	}
	s.tail = ring{}
	return nil
}

// missing says that bytes were passed over.
func (s *stream) missing(at time.Duration, left uint64, put func(cast.Kind, []byte) (uint64, error)) error {
	data, err := marshal(cast.GapSummary{
		From: s.over.Microseconds(), To: at.Microseconds(), Reason: s.name + " is not kept whole", Bytes: left,
	})
	if err != nil {
		return err
	}
	s.over = 0
	_, err = put(cast.Gap, data)
	return err
}

// summary is the Stream event of what passed.
func (s *stream) summary() ([]byte, error) {
	sum := cast.StreamSummary{Stream: s.name, Bytes: s.bytes, Kept: s.kept, From: s.from}
	if s.state != parsed && s.hash != nil {
		sum.SHA256 = hex.EncodeToString(s.hash.Sum(nil))
	}
	if s.rest != nil {
		sum.FromSHA256 = hex.EncodeToString(s.rest.Sum(nil))
	}
	return marshal(sum)
}

// ring holds the last bytes of what is added to it.
type ring struct {
	size  int // so many
	data  []byte
	next  int // the oldest, once there are as many
	total uint64
}

func (t *ring) add(p []byte) {
	t.total += uint64(len(p))
	if len(p) >= t.size {
		t.data, t.next = append(t.data[:0], p[len(p)-t.size:]...), 0
		return
	}
	n := min(len(p), t.size-len(t.data))
	t.data = append(t.data, p[:n]...)
	for p = p[n:]; len(p) > 0; p = p[n:] {
		n = copy(t.data[t.next:], p)
		t.next = (t.next + n) % t.size
	}
}

func (t *ring) bytes() (older, newer []byte) { return t.data[t.next:], t.data[:t.next] }
