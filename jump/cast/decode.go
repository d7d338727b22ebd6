package cast

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"iter"
	"time"
)

// Decoder reads the blocks of one recording, in order. It is not safe for
// concurrent use.
type Decoder struct {
	number uint32
	last   [hashSize]byte
	// at is the time of the last event in microseconds.
	at          int64
	events      uint64
	bytes       uint64
	header      Header
	started     bool
	end         End
	sealed      bool
	storedBytes uint64
}

// NewDecoder returns a Decoder that expects the first block of a recording.
func NewDecoder() *Decoder { return &Decoder{} }

// Block returns the events of the next block. They are the caller's; b may be
// used again. Errors wrap ErrMalformed, ErrVersion, ErrOrder, ErrHash or
// ErrSealed; after one, the decoder is as it was before.
func (d *Decoder) Block(b []byte) ([]Event, error) {
	h, err := parseHeader(b)
	if err != nil {
		return nil, err
	}
	if d.sealed {
		return nil, ErrSealed
	}
	if len(b) != overhead+int(h.stored) {
		return nil, fmt.Errorf("%w: %d bytes of payload announced, %d there", ErrMalformed, h.stored, len(b)-overhead)
	}
	if h.number != d.number {
		return nil, fmt.Errorf("%w: number %d, expected %d", ErrOrder, h.number, d.number)
	}
	body, sum := b[:len(b)-hashSize], b[len(b)-hashSize:]
	hash := chain(d.last, body)
	if !bytes.Equal(sum, hash[:]) {
		return nil, ErrHash
	}
	var raw []byte
	if h.codec == codecZstd {
		raw, err = decompress(body[headerSize:], h.raw)
	} else {
		raw = bytes.Clone(body[headerSize:])
	}
	if err != nil {
		return nil, err
	}
	next := *d
	events, err := next.parse(raw, h)
	if err != nil {
		return nil, err
	}
	next.last = hash
	next.number++
	next.storedBytes += uint64(len(b))
	*d = next
	return events, nil
}

func (d *Decoder) parse(raw []byte, h blockHeader) ([]Event, error) {
	events := make([]Event, 0, h.events)
	var at int64
	for i := range h.events {
		ev, rest, err := parseEvent(raw, at)
		if err != nil {
			return nil, fmt.Errorf("event %d of block %d: %w", i, h.number, err)
		}
		raw, at = rest, ev.At.Microseconds()
		if err := d.take(ev, h.last && i == h.events-1); err != nil {
			return nil, fmt.Errorf("event %d of block %d: %w", i, h.number, err)
		}
		events = append(events, ev)
	}
	if len(raw) != 0 {
		return nil, fmt.Errorf("%w: %d bytes after the events of block %d", ErrMalformed, len(raw), h.number)
	}
	return events, nil
}

// parseEvent reads the event at the start of raw; before is the time of the
// one before it in this block.
func parseEvent(raw []byte, before int64) (Event, []byte, error) {
	delta, raw, ok := uvarint(raw)
	if !ok || delta > uint64(maxAt-before) {
		return Event{}, nil, fmt.Errorf("%w: bad time", ErrMalformed)
	}
	if len(raw) == 0 || raw[0] == 0 {
		return Event{}, nil, fmt.Errorf("%w: no kind", ErrMalformed)
	}
	kind := Kind(raw[0])
	size, raw, ok := uvarint(raw[1:])
	if !ok || size > MaxData || size > uint64(len(raw)) {
		return Event{}, nil, fmt.Errorf("%w: bad length", ErrMalformed)
	}
	at := time.Duration(before+int64(delta)) * time.Microsecond
	return Event{At: at, Kind: kind, Data: raw[:size:size]}, raw[size:], nil
}

// uvarint reads a number in its one shortest form.
func uvarint(b []byte) (uint64, []byte, bool) {
	v, n := binary.Uvarint(b)
	if n <= 0 || n > 1 && b[n-1] == 0 {
		return 0, nil, false
	}
	return v, b[n:], true
}

// take checks that the event may stand where it does; last says that it is the
// last of the last block.
func (d *Decoder) take(ev Event, last bool) error {
	if ev.At.Microseconds() < d.at {
		return fmt.Errorf("%w: time goes back", ErrMalformed)
	}
	if (ev.Kind == Start) == d.started {
		return fmt.Errorf("%w: %v where it does not belong", ErrMalformed, ev.Kind)
	}
	if (ev.Kind == EndKind) != last {
		return fmt.Errorf("%w: %v where it does not belong", ErrMalformed, ev.Kind)
	}
	d.at = ev.At.Microseconds()
	d.events++
	if ev.Kind.counts() {
		d.bytes += uint64(len(ev.Data))
	}
	switch ev.Kind {
	case Start:
		return d.takeStart(ev)
	case EndKind:
		return d.takeEnd(ev)
	default:
		return nil
	}
}

func (d *Decoder) takeStart(ev Event) error {
	if err := json.Unmarshal(ev.Data, &d.header); err != nil {
		return fmt.Errorf("%w: reading the header: %w", ErrMalformed, err)
	}
	if d.header.Version != Version || ev.At != 0 {
		return fmt.Errorf("%w: header of version %d at %v", ErrMalformed, d.header.Version, ev.At)
	}
	d.started = true
	return nil
}

func (d *Decoder) takeEnd(ev Event) error {
	end := End{At: ev.At}
	if err := json.Unmarshal(ev.Data, &end); err != nil {
		return fmt.Errorf("%w: reading the end: %w", ErrMalformed, err)
	}
	var counts struct{ Events, Bytes *uint64 }
	if err := json.Unmarshal(ev.Data, &counts); err != nil || counts.Events == nil || counts.Bytes == nil {
		return fmt.Errorf("%w: the end does not count events and bytes", ErrMalformed)
	}
	if end.Events != d.events || end.Bytes != d.bytes {
		return fmt.Errorf("%w: the end counts %d events and %d bytes, there are %d and %d",
			ErrMalformed, end.Events, end.Bytes, d.events, d.bytes)
	}
	d.end, d.sealed = end, true
	return nil
}

// Header returns the recording's header once the first block was read.
func (d *Decoder) Header() (Header, bool) { return d.header, d.started }

// Sealed tells whether the block that ends the recording was read.
func (d *Decoder) Sealed() bool { return d.sealed }

// End returns how the session ended once the recording is sealed.
func (d *Decoder) End() (End, bool) { return d.end, d.sealed }

// Report tells what the blocks read so far hold.
func (d *Decoder) Report() Report {
	return Report{
		Header: d.header, Blocks: d.number, Events: d.events, Bytes: d.bytes, StoredBytes: d.storedBytes,
		Sealed: d.sealed, End: d.end, LastHash: d.last, Length: time.Duration(d.at) * time.Microsecond,
	}
}

// Report is what Verify found.
type Report struct {
	Header Header
	// Blocks, Events and Bytes (of Output, Stderr and Input) that were read
	// and are good; StoredBytes is the size of these blocks.
	Blocks                     uint32
	Events, Bytes, StoredBytes uint64
	// Length is the time of the last event.
	Length time.Duration
	// Sealed says that the recording has its end; End is then set.
	Sealed bool
	End    End
	// LastHash is the hash of the last good block.
	LastHash [32]byte
}

// Verify reads all blocks of a recording and checks them. The error is that of
// the first bad block, or of reading; the report then covers the blocks before
// it, so Report.Blocks is the number of the bad one.
func Verify(blocks iter.Seq2[[]byte, error]) (Report, error) {
	d := NewDecoder()
	for b, err := range blocks {
		if err == nil {
			_, err = d.Block(b)
		}
		if err != nil {
			return d.Report(), fmt.Errorf("block %d: %w", d.number, err)
		}
	}
	return d.Report(), nil
}
