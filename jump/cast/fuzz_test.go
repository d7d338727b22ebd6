package cast_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/fleetca/fleetca/jump/cast"
)

// FuzzDecoder reads a file of blocks. Neither reader may fail in another way
// than by an error; what the decoder accepts, the reader written from the page
// accepts with the same events.
func FuzzDecoder(f *testing.F) {
	status := uint32(0)
	e := cast.NewEncoder(header())
	_ = e.Add(event(5, cast.Output, "hello"))
	first, err := e.Block()
	if err != nil {
		f.Fatal(err)
	}
	_ = e.Add(event(6, cast.Output, string(bytes.Repeat([]byte("x"), 500))))
	last, err := e.Seal(cast.End{ExitStatus: &status})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{nil, first, append(bytes.Clone(first), last...), first[:30]} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		both(t, file)
	})
}

// FuzzEvents is FuzzDecoder past the hash: the bytes are the events of a block
// that is otherwise good. Events that are accepted are written again as the
// same bytes.
func FuzzEvents(f *testing.F) {
	start := rawEvent(0, 's', startJSON)
	f.Add(start, uint32(1), false, false)
	f.Add(bytes.Join([][]byte{start, rawEvent(1500, 'o', "$ ")}, nil), uint32(2), false, true)
	f.Add(bytes.Join([][]byte{start, rawEvent(7, 'x', `{"events":2,"bytes":0}`)}, nil), uint32(2), true, false)
	f.Add(bytes.Join([][]byte{start, rawEvent(1, 'r', "12345678"), rawEvent(0, 'e', "\xff")}, nil), uint32(3), false, false)
	f.Fuzz(func(t *testing.T, raw []byte, count uint32, last, compressed bool) {
		if len(raw) > cast.MaxBlock {
			return
		}
		events := both(t, build([32]byte{}, last, 0, count, raw, compressed))
		if events == nil {
			return
		}
		var again []byte
		before := time.Duration(0)
		for _, ev := range events {
			again = binary.AppendUvarint(again, uint64((ev.At - before).Microseconds()))
			again = append(again, byte(ev.Kind))
			again = binary.AppendUvarint(again, uint64(len(ev.Data)))
			again = append(again, ev.Data...)
			before = ev.At
		}
		if !bytes.Equal(again, raw) {
			t.Errorf("%x is read as what would be written as %x", raw, again)
		}
	})
}

// both reads a file with both readers and returns the events that the decoder
// accepts, nil if there is anything wrong.
func both(t *testing.T, file []byte) []cast.Event {
	var events []cast.Event
	d := cast.NewDecoder()
	for b, err := range cast.Split(bytes.NewReader(file)) {
		if err != nil {
			return nil
		}
		got, err := d.Block(b)
		if err != nil {
			if !errors.Is(err, cast.ErrMalformed) && !errors.Is(err, cast.ErrVersion) && !errors.Is(err, cast.ErrOrder) &&
				!errors.Is(err, cast.ErrHash) && !errors.Is(err, cast.ErrSealed) {
				t.Errorf("an error of no kind: %v", err)
			}
			return nil
		}
		events = append(events, got...)
	}
	read, sealed, err := readRecording(file)
	if err != nil || sealed != d.Sealed() || len(read) != len(events) {
		t.Fatalf("the reader sees %d events, sealed %v, %v; the decoder %d, %v", len(read), sealed, err, len(events), d.Sealed())
	}
	for i, ev := range events {
		if uint64(ev.At.Microseconds()) != read[i].us || byte(ev.Kind) != read[i].kind || !bytes.Equal(ev.Data, read[i].data) {
			t.Fatalf("event %d: the reader sees %v, the decoder %v", i, read[i], ev)
		}
	}
	return events
}

// FuzzRoundTrip makes events of the bytes; what is encoded is decoded as the
// same, in blocks cut anywhere.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("ohello\x00\x05eworld"), uint16(3))
	f.Add(bytes.Repeat([]byte{'o', 200, 'i', 3, 1, 2, 3, 0xff, 0}, 50), uint16(40))
	f.Fuzz(func(t *testing.T, data []byte, cut uint16) {
		e, d := cast.NewEncoder(header()), cast.NewDecoder()
		var want, got []cast.Event
		read := func(b []byte, err error) {
			if err != nil {
				t.Fatal(err)
			}
			if b == nil {
				return
			}
			events, err := d.Block(b)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, events...)
		}
		at := time.Duration(0)
		for len(data) > 2 {
			kind, size := cast.Kind(data[0]), int(data[1])
			at += time.Duration(data[2]) * time.Millisecond
			data = data[3:]
			size = min(size, len(data))
			ev := cast.Event{At: at, Kind: kind, Data: data[:size]}
			data = data[size:]
			if e.Add(ev) == nil {
				want = append(want, ev)
			}
			if e.Pending() > int(cut) {
				read(e.Block())
			}
		}
		read(e.Seal(cast.End{At: at}))
		if !d.Sealed() || len(got) != len(want)+2 {
			t.Fatalf("%d events, want %d and start and end", len(got), len(want))
		}
		for i, ev := range got[1 : len(got)-1] {
			if ev.At != want[i].At || ev.Kind != want[i].Kind || !bytes.Equal(ev.Data, want[i].Data) {
				t.Fatalf("event %d is %v, want %v", i, ev, want[i])
			}
		}
	})
}
