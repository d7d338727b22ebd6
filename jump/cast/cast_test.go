package cast_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleetca/fleetca/jump/cast"
)

var started = time.Date(2026, 11, 21, 9, 30, 0, 250_000_000, time.UTC)

func header() cast.Header {
	return cast.Header{
		Session: "example", Identity: "joe", Login: "root", Host: "web1", Client: "192.0.2.1:4000", ServerID: "jump",
		Started: started, Kind: "terminal", Mode: "strict", Term: "xterm", Columns: 80, Rows: 24, Software: "test",
	}
}

// event is one with its time in microseconds.
func event(us int64, kind cast.Kind, data string) cast.Event {
	return cast.Event{At: time.Duration(us) * time.Microsecond, Kind: kind, Data: []byte(data)}
}

// encode makes a recording with a block after each group of events, and an end.
func encode(t *testing.T, groups ...[]cast.Event) [][]byte {
	t.Helper()
	e := cast.NewEncoder(header())
	var blocks [][]byte
	for i, group := range groups {
		for _, ev := range group {
			if err := e.Add(ev); err != nil {
				t.Fatalf("Add(%v): %v", ev.Kind, err)
			}
		}
		if i == len(groups)-1 {
			break
		}
		b, err := e.Block()
		if err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, b)
	}
	b, err := e.Seal(cast.End{At: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return append(blocks, b)
}

// decode reads blocks with the Decoder and, from one file, with the reader of
// docs/recording-format.md; both must see the same.
func decode(t *testing.T, blocks [][]byte) ([]cast.Event, *cast.Decoder) {
	t.Helper()
	d := cast.NewDecoder()
	var events []cast.Event
	for i, b := range blocks {
		got, err := d.Block(b)
		if err != nil {
			t.Fatalf("block %d: %v", i, err)
		}
		events = append(events, got...)
	}
	read, sealed, err := readRecording(bytes.Join(blocks, nil))
	if err != nil {
		t.Fatalf("the reader written from the page: %v", err)
	}
	if sealed != d.Sealed() || len(read) != len(events) {
		t.Fatalf("the reader sees sealed %v, %d events; the decoder %v, %d", sealed, len(read), d.Sealed(), len(events))
	}
	for i, ev := range events {
		if uint64(ev.At.Microseconds()) != read[i].us || byte(ev.Kind) != read[i].kind || !bytes.Equal(ev.Data, read[i].data) {
			t.Fatalf("event %d: the reader sees %v, the decoder %v", i, read[i], ev)
		}
	}
	return events, d
}

func TestRoundTrip(t *testing.T) {
	status := uint32(3)
	e := cast.NewEncoder(header())
	want := []cast.Event{
		event(0, cast.Command, "echo \xff\x00"),
		event(1, cast.Output, "caf\xc3"),
		event(1, cast.Output, "\xa9\r\n"),
		event(2_000_000, cast.Stderr, strings.Repeat("no such file\n", 100)),
		{At: 2 * time.Second, Kind: cast.Resize, Data: cast.ResizeData(100, 30)},
		event(3_600_000_000, cast.Input, "\x03"),
		event(3_600_000_001, cast.Gap, `{"from":1,"to":2,"bytes":3}`),
		event(3_600_000_001, cast.Kind('Z'), ""),
	}
	var blocks [][]byte
	for i, ev := range want {
		if err := e.Add(ev); err != nil {
			t.Fatal(err)
		}
		if i%3 == 2 {
			b, err := e.Block()
			if err != nil {
				t.Fatal(err)
			}
			blocks = append(blocks, b)
			if e.Pending() != 0 {
				t.Errorf("%d bytes pending after a block", e.Pending())
			}
		}
	}
	if e.Pending() == 0 {
		t.Error("nothing pending")
	}
	last, err := e.Seal(cast.End{At: 2 * time.Hour, ExitStatus: &status, Reason: "idle"})
	if err != nil {
		t.Fatal(err)
	}
	blocks = append(blocks, last)

	events, d := decode(t, blocks)
	if events[0].Kind != cast.Start || events[len(events)-1].Kind != cast.EndKind {
		t.Fatalf("begins with %v, ends with %v", events[0].Kind, events[len(events)-1].Kind)
	}
	equal := func(a, b cast.Event) bool { return a.At == b.At && a.Kind == b.Kind && bytes.Equal(a.Data, b.Data) }
	if got := events[1 : len(events)-1]; !slices.EqualFunc(got, want, equal) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	h, ok := d.Header()
	wantHeader := header()
	wantHeader.Version = cast.Version
	if !ok || h != wantHeader {
		t.Errorf("header %+v, want %+v", h, wantHeader)
	}
	end, ok := d.End()
	if !ok || *end.ExitStatus != 3 || end.Reason != "idle" || end.At != 2*time.Hour || end.Events != uint64(len(events)) {
		t.Errorf("end %+v", end)
	}
	r := d.Report()
	if r.LastHash != e.LastHash() || r.Blocks != e.Blocks() || r.Length != 2*time.Hour || !r.Sealed {
		t.Errorf("report %+v", r)
	}
	if want := uint64(4 + 3 + 1300 + 1); r.Bytes != want || end.Bytes != want {
		t.Errorf("%d bytes counted, %d by the end, want %d", r.Bytes, end.Bytes, want)
	}
}

// Times are cut to microseconds and never go back.
func TestTimes(t *testing.T) {
	e := cast.NewEncoder(header())
	for _, at := range []time.Duration{-time.Second, 1999, 5 * time.Second, 4 * time.Second, math.MaxInt64} {
		if err := e.Add(cast.Event{At: at, Kind: cast.Output}); err != nil {
			t.Fatal(err)
		}
	}
	b, err := e.Seal(cast.End{})
	if err != nil {
		t.Fatal(err)
	}
	events, _ := decode(t, [][]byte{b})
	var got []time.Duration
	for _, ev := range events[1:] {
		got = append(got, ev.At)
	}
	last := time.Duration(math.MaxInt64).Truncate(time.Microsecond)
	if want := []time.Duration{0, time.Microsecond, 5 * time.Second, 5 * time.Second, last, last}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestLargeData(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, cast.MaxBlock/2)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	for _, data := range [][]byte{noise, bytes.Repeat([]byte("yes\n"), cast.MaxBlock/8)} {
		e := cast.NewEncoder(header())
		if err := e.Add(cast.Event{Kind: cast.Output, Data: data}); err != nil {
			t.Fatal(err)
		}
		if err := e.Add(cast.Event{Kind: cast.Output, Data: data}); !errors.Is(err, cast.ErrBlockFull) {
			t.Errorf("adding to a full block: %v", err)
		}
		first, err := e.Block()
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Add(cast.Event{Kind: cast.Output, Data: data}); err != nil {
			t.Fatal(err)
		}
		second, err := e.Seal(cast.End{})
		if err != nil {
			t.Fatal(err)
		}
		if len(first) > cast.MaxStored || len(second) > cast.MaxStored {
			t.Errorf("blocks of %d and %d bytes", len(first), len(second))
		}
		events, _ := decode(t, [][]byte{first, second})
		var got []byte
		for _, ev := range events {
			if len(ev.Data) > cast.MaxData {
				t.Errorf("event of %d bytes", len(ev.Data))
			}
			if ev.Kind == cast.Output {
				got = append(got, ev.Data...)
			}
		}
		if !bytes.Equal(got, append(bytes.Clone(data), data...)) {
			t.Error("output differs")
		}
	}
}

func TestEncoderRefuses(t *testing.T) {
	e := cast.NewEncoder(header())
	for _, c := range []struct {
		ev   cast.Event
		want error
	}{
		{cast.Event{}, cast.ErrKind},
		{cast.Event{Kind: cast.Start}, cast.ErrKind},
		{cast.Event{Kind: cast.EndKind}, cast.ErrKind},
		{cast.Event{Kind: cast.Note, Data: make([]byte, cast.MaxData+1)}, cast.ErrTooLarge},
		{cast.Event{Kind: cast.Output, Data: make([]byte, cast.MaxBlock)}, cast.ErrTooLarge},
	} {
		if err := e.Add(c.ev); !errors.Is(err, c.want) {
			t.Errorf("Add(%v, %d bytes): %v, want %v", c.ev.Kind, len(c.ev.Data), err, c.want)
		}
	}
	if _, err := e.Seal(cast.End{}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Seal(cast.End{}); !errors.Is(err, cast.ErrClosed) {
		t.Errorf("sealing twice: %v", err)
	}
	if err := e.Add(cast.Event{Kind: cast.Output}); !errors.Is(err, cast.ErrClosed) {
		t.Errorf("adding after the seal: %v", err)
	}
	if b, err := e.Block(); b != nil || err != nil {
		t.Errorf("a block after the seal: %x, %v", b, err)
	}
	late := cast.NewEncoder(cast.Header{Started: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)})
	if err := late.Add(cast.Event{Kind: cast.Output}); err == nil {
		t.Error("a start that JSON can't hold passes")
	}
}

// A full block still takes its end, also one of hostile text, and so does a
// first block with a hostile header.
func TestRoomForTheEnd(t *testing.T) {
	hostile := strings.Repeat("\x00\xff", 300_000)
	e := cast.NewEncoder(cast.Header{
		Session: "example", Identity: hostile, Login: hostile, Host: hostile, Client: hostile,
		ServerID: hostile, Kind: hostile, Mode: hostile, Term: hostile, Software: hostile, Started: started,
	})
	var err error
	for err == nil {
		err = e.Add(cast.Event{Kind: cast.Output, Data: make([]byte, cast.MaxData)})
	}
	for err = nil; err == nil; {
		err = e.Add(cast.Event{Kind: cast.Output, Data: make([]byte, 1)})
	}
	if !errors.Is(err, cast.ErrBlockFull) {
		t.Fatal(err)
	}
	b, err := e.Seal(cast.End{Reason: hostile, Signal: hostile, Message: hostile})
	if err != nil {
		t.Fatal(err)
	}
	_, d := decode(t, [][]byte{b})
	if !d.Sealed() {
		t.Error("not sealed")
	}
}

// A cut of text never leaves half a character.
func TestCutText(t *testing.T) {
	e := cast.NewEncoder(cast.Header{Host: strings.Repeat("x", 511) + "é" + strings.Repeat("x", 100), Started: started})
	b, err := e.Block()
	if err != nil {
		t.Fatal(err)
	}
	_, d := decode(t, [][]byte{b})
	if h, _ := d.Header(); h.Host != strings.Repeat("x", 511) {
		t.Errorf("host %q", h.Host)
	}
}

func TestNothingPending(t *testing.T) {
	e := cast.NewEncoder(header())
	if b, err := e.Block(); b == nil || err != nil {
		t.Fatalf("the header makes no block: %v", err)
	}
	if b, err := e.Block(); b != nil || err != nil {
		t.Errorf("Block() = %x, %v", b, err)
	}
}

// sample is a sealed recording of four blocks, one of them compressed.
func sample(t *testing.T) [][]byte {
	return encode(t,
		[]cast.Event{event(1, cast.Output, "$ ")},
		[]cast.Event{event(2, cast.Output, strings.Repeat("hello\r\n", 50))},
		[]cast.Event{event(3, cast.Stderr, "oops")},
		[]cast.Event{event(4, cast.Output, "bye")})
}

// Every change of every single byte is noticed, and where it is.
func TestEveryByteCounts(t *testing.T) {
	blocks := sample(t)
	for n := range blocks {
		for i := range blocks[n] {
			changed := slices.Clone(blocks)
			changed[n] = bytes.Clone(blocks[n])
			changed[n][i] ^= 1
			r, err := cast.Verify(all(changed))
			if err == nil {
				t.Fatalf("byte %d of block %d changed: nothing noticed", i, n)
			}
			if int(r.Blocks) != n {
				t.Errorf("byte %d of block %d changed: noticed at block %d: %v", i, n, r.Blocks, err)
			}
		}
	}
}

func all(blocks [][]byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, b := range blocks {
			if !yield(b, nil) {
				return
			}
		}
	}
}

func TestDamage(t *testing.T) {
	blocks := sample(t)
	others := encode(t, []cast.Event{event(1, cast.Output, "# ")}, []cast.Event{event(2, cast.Output, "x")}, nil)
	version := bytes.Clone(blocks[0])
	version[4] = 2
	for _, c := range []struct {
		name   string
		blocks [][]byte
		want   error
		at     uint32
	}{
		{"left out", [][]byte{blocks[0], blocks[2], blocks[3]}, cast.ErrOrder, 1},
		{"first left out", blocks[1:], cast.ErrOrder, 0},
		{"repeated", [][]byte{blocks[0], blocks[1], blocks[1], blocks[2]}, cast.ErrOrder, 2},
		{"exchanged", [][]byte{blocks[0], blocks[2], blocks[1], blocks[3]}, cast.ErrOrder, 1},
		{"of another recording", [][]byte{blocks[0], others[1], blocks[2]}, cast.ErrHash, 1},
		{"after the end", append(slices.Clone(blocks), blocks[3]), cast.ErrSealed, 4},
		{"truncated", [][]byte{blocks[0], blocks[1][:60]}, cast.ErrMalformed, 1},
		{"longer", [][]byte{append(bytes.Clone(blocks[0]), 0)}, cast.ErrMalformed, 0},
		{"empty", [][]byte{{}}, cast.ErrMalformed, 0},
		{"another version", [][]byte{version}, cast.ErrVersion, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := cast.Verify(all(c.blocks))
			if !errors.Is(err, c.want) || r.Blocks != c.at {
				t.Errorf("at block %d: %v; want %d: %v", r.Blocks, err, c.at, c.want)
			}
			if _, _, err := readRecording(bytes.Join(c.blocks, nil)); err == nil && c.name != "empty" {
				t.Error("the reader written from the page notices nothing")
			}
		})
	}
}

// A recording that stops is intact as far as it goes.
func TestInterrupted(t *testing.T) {
	blocks := sample(t)
	for n := range len(blocks) {
		r, err := cast.Verify(all(blocks[:n]))
		if err != nil || r.Sealed || int(r.Blocks) != n {
			t.Errorf("%d blocks: %+v, %v", n, r, err)
		}
	}
	if r, err := cast.Verify(all(blocks)); err != nil || !r.Sealed || r.Bytes != 2+350+4+3 {
		t.Errorf("whole: %+v, %v", r, err)
	}
}

// After an error a decoder goes on where it was.
func TestDecoderAfterAnError(t *testing.T) {
	blocks := sample(t)
	d := cast.NewDecoder()
	for _, i := range []int{0, 2, 1, 2, 3} {
		_, err := d.Block(blocks[i])
		if i == 2 && d.Report().Blocks == 1 && !errors.Is(err, cast.ErrOrder) {
			t.Errorf("block 2 too early: %v", err)
		}
	}
	if !d.Sealed() {
		t.Errorf("not sealed: %+v", d.Report())
	}
}

// Events don't share memory with the block that they came from.
func TestBlockMayBeUsedAgain(t *testing.T) {
	for _, text := range []string{"$ ", strings.Repeat("a", 1000)} {
		b := encode(t, []cast.Event{event(1, cast.Output, text)})[0]
		events, err := cast.NewDecoder().Block(b)
		if err != nil {
			t.Fatal(err)
		}
		clear(b)
		if string(events[1].Data) != text {
			t.Errorf("data changed with the block: %q", events[1].Data)
		}
	}
}

func TestSplit(t *testing.T) {
	blocks := sample(t)
	file := bytes.Join(blocks, nil)
	i := 0
	for b, err := range cast.Split(iotest(file)) {
		if err != nil || !bytes.Equal(b, blocks[i]) {
			t.Fatalf("block %d: %x, %v", i, b, err)
		}
		i++
	}
	if i != len(blocks) {
		t.Errorf("%d blocks", i)
	}
	for _, size := range []int{1, 23, 24, len(file) - 1} {
		if _, err := cast.Verify(cast.Split(bytes.NewReader(file[:size]))); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("file of %d bytes: %v", size, err)
		}
	}
	file[len(blocks[0])] = 'X'
	if r, err := cast.Verify(cast.Split(bytes.NewReader(file))); !errors.Is(err, cast.ErrMalformed) || r.Blocks != 1 {
		t.Errorf("at block %d: %v", r.Blocks, err)
	}
}

// iotest gives out a byte at a time.
func iotest(b []byte) io.Reader { return &oneByte{b} }

type oneByte struct{ b []byte }

func (r *oneByte) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:1], r.b)
	r.b = r.b[n:]
	return n, nil
}

func TestResizeData(t *testing.T) {
	c, r, err := cast.ParseResize(cast.ResizeData(80, math.MaxUint32))
	if c != 80 || r != math.MaxUint32 || err != nil {
		t.Errorf("%d, %d, %v", c, r, err)
	}
	for _, n := range []int{0, 7, 9} {
		if _, _, err := cast.ParseResize(make([]byte, n)); !errors.Is(err, cast.ErrResize) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestKindNames(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range []cast.Kind{
		cast.Start, cast.Output, cast.Stderr, cast.Input, cast.Resize, cast.Command, cast.Stream,
		cast.File, cast.Forward, cast.Signal, cast.Gap, cast.Note, cast.EndKind, 1,
	} {
		if s := k.String(); seen[s] || strings.HasPrefix(s, "kind") != (k == 1) {
			t.Errorf("%c is called %q", k, s)
		}
		seen[k.String()] = true
	}
	if s := fmt.Sprint(cast.Kind(200)); s != "kind 200" {
		t.Error(s)
	}
}
