package cast

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"
)

// Errors of an Encoder.
var (
	// ErrBlockFull means that the event was not added since the block has no
	// room for it: call Block, then Add again.
	ErrBlockFull = errors.New("block of the recording is full")
	// ErrTooLarge means an event that no block can hold.
	ErrTooLarge = errors.New("event too large for a recording")
	// ErrClosed means that the recording is sealed already.
	ErrClosed = errors.New("recording is sealed")
	// ErrKind means an event that the encoder writes itself, or kind 0.
	ErrKind = errors.New("event of a kind that cannot be added")
)

const (
	// endRoom is kept free in every block, so that Seal always succeeds.
	endRoom = MaxData + maxEventOverhead
	// keepBuffer is the most that an idle encoder holds on to: with a thousand
	// sessions it is what counts.
	keepBuffer = 16 << 10
	// tooShort is a size below which compression can only lose.
	tooShort = 48
	// maxName and maxText bound the text in Header and in End, so that even
	// with every byte escaped both fit an event.
	maxName = 512
	maxText = 3 << 10
)

// Encoder makes the blocks of one recording. It is not safe for concurrent
// use.
type Encoder struct {
	pending []byte
	events  uint32
	// at is the time of the last event of all, before the time of the last
	// event of this block, in microseconds.
	at, before int64

	number    uint32
	last      [hashSize]byte
	allEvents uint64
	allBytes  uint64
	sealed    bool
	err       error
}

// NewEncoder begins a recording; its first event is the header. Version is set,
// Started is brought to UTC and cut to the microsecond. A time that JSON cannot
// hold makes every later call fail.
func NewEncoder(h Header) *Encoder {
	h.Version = Version
	h.Started = h.Started.UTC().Truncate(time.Microsecond)
	for _, s := range []*string{
		&h.Session, &h.Identity, &h.Login, &h.Host, &h.Client, &h.ServerID,
		&h.Kind, &h.Mode, &h.Term, &h.Software,
	} {
		*s = cut(*s, maxName)
	}
	e := &Encoder{}
	data, err := json.Marshal(h)
	if err != nil {
		e.err = fmt.Errorf("beginning a recording: %w", err)
		return e
	}
	e.append(0, Start, data)
	return e
}

// Add appends an event and copies its data. A time before that of the last
// event becomes that time. Output, Stderr, Input and Command of more than
// MaxData bytes are split into several events. If the block has no room for
// all of it, nothing is added and the error is ErrBlockFull; if even an empty
// block had none, ErrTooLarge. Up to MaxBlock/2 bytes always fit an empty
// block.
func (e *Encoder) Add(ev Event) error {
	if e.err != nil {
		return e.err
	}
	if e.sealed {
		return ErrClosed
	}
	if ev.Kind == 0 || ev.Kind == Start || ev.Kind == EndKind {
		return fmt.Errorf("%w: %v", ErrKind, ev.Kind)
	}
	pieces := (len(ev.Data) + MaxData - 1) / MaxData
	if pieces > 1 && !ev.Kind.splits() {
		return fmt.Errorf("%w: %v of %d bytes", ErrTooLarge, ev.Kind, len(ev.Data))
	}
	if need := len(ev.Data) + max(pieces, 1)*maxEventOverhead + endRoom; len(e.pending)+need > MaxBlock {
		if need > MaxBlock {
			return fmt.Errorf("%w: %v of %d bytes", ErrTooLarge, ev.Kind, len(ev.Data))
		}
		return ErrBlockFull
	}
	at := max(ev.At.Microseconds(), e.at)
	data := ev.Data
	for len(data) > MaxData {
		e.append(at, ev.Kind, data[:MaxData])
		data = data[MaxData:]
	}
	e.append(at, ev.Kind, data)
	return nil
}

func (e *Encoder) append(at int64, kind Kind, data []byte) {
	e.pending = binary.AppendUvarint(e.pending, uint64(at-e.before))
	e.pending = append(e.pending, byte(kind))
	e.pending = binary.AppendUvarint(e.pending, uint64(len(data)))
	e.pending = append(e.pending, data...)
	e.at, e.before = at, at
	e.events++
	e.allEvents++
	if kind.counts() {
		e.allBytes += uint64(len(data))
	}
}

// Pending returns how many bytes are not yet in a block.
func (e *Encoder) Pending() int { return len(e.pending) }

// Block returns what was added since the last one as a block, or nil if that is
// nothing. The block is the caller's.
func (e *Encoder) Block() ([]byte, error) {
	if e.err != nil {
		return nil, e.err
	}
	if e.events == 0 {
		return nil, nil
	}
	return e.block(false)
}

// Seal returns the last block: what is pending, and the end. Reason, Signal and
// Message are cut to 3 KiB each. After it, Add and Seal return ErrClosed.
func (e *Encoder) Seal(end End) ([]byte, error) {
	if e.err != nil {
		return nil, e.err
	}
	if e.sealed {
		return nil, ErrClosed
	}
	end.Reason, end.Signal, end.Message = cut(end.Reason, maxText), cut(end.Signal, maxText), cut(end.Message, maxText)
	end.Events, end.Bytes = e.allEvents+1, e.allBytes
	data, err := json.Marshal(end)
	if err != nil {
		return nil, fmt.Errorf("sealing a recording: %w", err)
	}
	e.append(max(end.At.Microseconds(), e.at), EndKind, data)
	e.sealed = true
	return e.block(true)
}

// cut bounds text that others wrote; JSON makes at most six bytes of each.
func cut(s string, size int) string {
	if len(s) <= size {
		return s
	}
	s = s[:size]
	for len(s) > 0 {
		if r, size := utf8.DecodeLastRuneInString(s); r != utf8.RuneError || size != 1 {
			break
		}
		s = s[:len(s)-1]
	}
	return s
}

func (e *Encoder) block(last bool) ([]byte, error) {
	if e.number == math.MaxUint32 {
		e.err = fmt.Errorf("%w: all block numbers are used", ErrTooLarge)
		return nil, e.err
	}
	h := blockHeader{last: last, number: e.number, events: e.events, raw: uint32(len(e.pending))}
	scratch, err := compress(e.pending)
	if err != nil {
		e.err = err
		return nil, err
	}
	payload := e.pending
	if scratch != nil {
		payload, h.codec = scratch.data, codecZstd
	}
	h.stored = uint32(len(payload))
	b := make([]byte, 0, overhead+len(payload))
	b = append(h.appendTo(b), payload...)
	scratch.release()
	e.last = chain(e.last, b)
	b = append(b, e.last[:]...)

	e.number++
	e.events, e.before = 0, 0
	if cap(e.pending) > keepBuffer {
		e.pending = nil
	}
	e.pending = e.pending[:0]
	return b, nil
}

// LastHash returns the hash of the last block that was made: 32 zero bytes
// before the first. Whoever keeps it can tell later whether the recording is
// still the same.
func (e *Encoder) LastHash() [32]byte { return e.last }

// Blocks returns how many blocks were made.
func (e *Encoder) Blocks() uint32 { return e.number }
