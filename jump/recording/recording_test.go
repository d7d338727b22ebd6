package recording

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetca/fleetca/jump/cast"
	"github.com/fleetca/fleetca/jump/store"
	"github.com/fleetca/fleetca/jump/store/memstore"
)

// newStore makes a store that is closed with the test.
func newStore(t *testing.T) *memstore.Store {
	t.Helper()
	s := memstore.New()
	t.Cleanup(func() {
		s.Release()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func start(t *testing.T, c Config, o Options) *Recording {
	t.Helper()
	if o.Mode == "" {
		o.Mode = Strict
	}
	r, err := New(c).Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func onTerminal() Options {
	return Options{
		Session: store.Session{Identity: "joe", Login: "root", Host: "web01", Kind: store.KindTerminal, Columns: 80, Rows: 25},
		Term:    "xterm",
	}
}

func command(line string) Options {
	return Options{Session: store.Session{Kind: store.KindCommand}, Command: []byte(line)}
}

func mustClose(t *testing.T, r *Recording) {
	t.Helper()
	if err := r.Close(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// read decodes what the store has of a session.
func read(t *testing.T, s store.Store, id string) ([]cast.Event, *cast.Decoder) {
	t.Helper()
	var events []cast.Event
	d := cast.NewDecoder()
	for block, err := range s.Blocks(context.Background(), id, 0) {
		if err != nil {
			t.Fatal(err)
		}
		more, err := d.Block(block.Data)
		if err != nil {
			t.Fatalf("block %d: %v", block.Number, err)
		}
		events = append(events, more...)
	}
	return events, d
}

// data joins the data of all events of a kind.
func data(events []cast.Event, kind cast.Kind) []byte {
	var all []byte
	for _, e := range events {
		if e.Kind == kind {
			all = append(all, e.Data...)
		}
	}
	return all
}

// lines shows events without their times.
func lines(events []cast.Event) string {
	var b strings.Builder
	for _, e := range events {
		switch e.Kind {
		case cast.Start, cast.EndKind:
			fmt.Fprintf(&b, "%v\n", e.Kind)
		default:
			fmt.Fprintf(&b, "%v %q\n", e.Kind, e.Data)
		}
	}
	return b.String()
}

func streamsOf(t *testing.T, events []cast.Event) map[string]cast.StreamSummary {
	t.Helper()
	sums := map[string]cast.StreamSummary{}
	for _, e := range events {
		if e.Kind == cast.Stream {
			var s cast.StreamSummary
			must(t, json.Unmarshal(e.Data, &s))
			sums[s.Stream] = s
		}
	}
	return sums
}

func gapsOf(t *testing.T, events []cast.Event) []cast.GapSummary {
	t.Helper()
	var gaps []cast.GapSummary
	for _, e := range events {
		if e.Kind == cast.Gap {
			var g cast.GapSummary
			must(t, json.Unmarshal(e.Data, &g))
			gaps = append(gaps, g)
		}
	}
	return gaps
}

func TestTerminal(t *testing.T) {
	for _, withInput := range []bool{false, true} {
		s := newStore(t)
		o := onTerminal()
		o.Input = withInput
		r := start(t, Config{Store: s, Software: "test"}, o)
		must(t, r.Output([]byte("password: ")))
		must(t, r.Input([]byte("secret\r")))
		must(t, r.Resize(100, 30))
		must(t, r.Signal("INT"))
		must(t, r.Note("env", map[string]string{"LANG": "C"}))
		must(t, r.Forward(Forward{Kind: "agent", From: "web01", In: 1, Out: 2, Duration: 0.5}))
		must(t, r.Output([]byte("\xff\x00bytes")))
		status := uint32(3)
		r.Exit(Exit{Status: &status})
		mustClose(t, r)

		events, d := read(t, s, r.ID())
		want := "start\noutput \"password: \"\n"
		if withInput {
			want += "input \"secret\\r\"\n"
		}
		want += `resize "\x00\x00\x00d\x00\x00\x00\x1e"
signal "INT"
note "{\"kind\":\"env\",\"value\":{\"LANG\":\"C\"}}"
forward "{\"kind\":\"agent\",\"from\":\"web01\",\"bytes_in\":1,\"bytes_out\":2,\"seconds\":0.5}"
output "\xff\x00bytes"
`
		if !withInput {
			want += "stream \"{\\\"stream\\\":\\\"stdin\\\",\\\"bytes\\\":7,\\\"kept\\\":0}\"\n"
		}
		want += "end\n"
		if got := lines(events); got != want {
			t.Errorf("input %v: got\n%swant\n%s", withInput, got, want)
		}
		if bytes.Contains(data(events, cast.Stream), []byte("secret")) {
			t.Error("the input is in the recording")
		}
		h, _ := d.Header()
		if h.Session != r.ID() || h.Identity != "joe" || h.Term != "xterm" || h.Columns != 80 || h.Software != "test" {
			t.Errorf("header %+v", h)
		}
		end, sealed := d.End()
		if !sealed || end.ExitStatus == nil || *end.ExitStatus != 3 {
			t.Errorf("end %+v, sealed %v", end, sealed)
		}
		entry, err := s.Session(t.Context(), r.ID())
		must(t, err)
		if entry.State != store.Ended || entry.Ended.Before(entry.Started) || entry.ExitStatus == nil || *entry.ExitStatus != 3 ||
			entry.Mode != Strict || entry.Blocks != d.Report().Blocks || entry.StoredBytes != d.Report().StoredBytes {
			t.Errorf("index entry %+v, blocks %+v", entry, d.Report())
		}
		if r.Hash() != fmt.Sprintf("%x", d.Report().LastHash) {
			t.Errorf("hash %s, of the last block %x", r.Hash(), d.Report().LastHash)
		}
		if err := r.Output([]byte("late")); !errors.Is(err, ErrClosed) {
			t.Errorf("output after close: %v", err)
		}
		if err := r.Close(t.Context(), "again"); err != nil {
			t.Errorf("second close: %v", err)
		}
	}
}

// TestCircumstances notes what a forced command hides, and the environment,
// before anything else.
func TestCircumstances(t *testing.T) {
	s := newStore(t)
	o := command("forced")
	o.Asked = []byte("rm -rf /\xff")
	o.Env = []EnvVar{{"LC_X", "echo hidden"}, {"LC_Y", strings.Repeat("\x01", 1<<20)}}
	r := start(t, Config{Store: s}, o)
	must(t, r.Output([]byte("x")))
	mustClose(t, r)
	events, _ := read(t, s, r.ID())
	want := `start
note "{\"kind\":\"asked\",\"value\":{\"command\":\"rm -rf /\\ufffd\",\"raw\":\"cm0gLXJmIC//\",\"bytes\":9}}"
note "{\"kind\":\"env\",\"value\":{\"name\":\"LC_X\",\"value\":\"echo hidden\"}}"
`
	if got := lines(events); !strings.HasPrefix(got, want) {
		t.Errorf("got\n%.600s\nwant\n%s", got, want)
	}
	if events[3].Kind != cast.Note || len(events[3].Data) > 7*maxText || events[4].Kind != cast.Command {
		t.Errorf("then %v of %d bytes, %v", events[3].Kind, len(events[3].Data), events[4].Kind)
	}

	// As much as a client may send.
	o.Command = bytes.Repeat([]byte("c"), 256<<10)
	o.Asked = bytes.Repeat([]byte("\xff\x01"), 128<<10)
	for range 1000 {
		o.Env = append(o.Env, o.Env[1])
	}
	r = start(t, Config{Store: s}, o)
	mustClose(t, r)
	events, _ = read(t, s, r.ID())
	if got := data(events, cast.Command); !bytes.Equal(got, o.Command) {
		t.Errorf("command of %d bytes", len(got))
	}
	if got := data(events, cast.Note); !bytes.Contains(got, []byte(digest(o.Asked))) || !bytes.Contains(got, []byte("env_left_out")) {
		t.Error("what was left out isn't told")
	}
}

// TestRandomBytes records far more than the buffer holds and compares every
// byte.
func TestRandomBytes(t *testing.T) {
	const total = 100 << 20
	s := newStore(t)
	r := start(t, Config{Store: s}, onTerminal())
	seed := [32]byte{1}
	random, sizes := rand.NewChaCha8(seed), rand.New(rand.NewPCG(1, 2))
	buf := make([]byte, 200<<10)
	for left := total; left > 0; {
		p := buf[:min(left, 1+sizes.IntN(len(buf)))]
		random.Read(p)
		must(t, r.Output(p))
		left -= len(p)
	}
	mustClose(t, r)

	random = rand.NewChaCha8(seed)
	d := cast.NewDecoder()
	seen := 0
	for block, err := range s.Blocks(t.Context(), r.ID(), 0) {
		must(t, err)
		events, err := d.Block(block.Data)
		must(t, err)
		for _, e := range events {
			if e.Kind != cast.Output {
				continue
			}
			want := buf[:len(e.Data)]
			random.Read(want)
			if !bytes.Equal(e.Data, want) {
				t.Fatalf("differs within %d bytes after %d", len(want), seen)
			}
			seen += len(want)
		}
	}
	if seen != total || !d.Sealed() {
		t.Fatalf("%d bytes of %d, sealed %v", seen, total, d.Sealed())
	}
}

// TestConcurrentCalls checks that calls of each goroutine are in their order,
// none is lost, and times don't go back (which the decoder checks).
func TestConcurrentCalls(t *testing.T) {
	const writers, calls = 8, 500
	s := newStore(t)
	r := start(t, Config{Store: s, Buffer: 4 << 10, Every: time.Millisecond}, onTerminal())
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range calls {
				var err error
				switch w % 4 {
				case 0:
					err = r.Output(fmt.Appendf(nil, "%d:%d;", w, i))
				case 1:
					err = r.Stderr(fmt.Appendf(nil, "%d:%d;", w, i))
				case 2:
					err = r.Signal(fmt.Sprintf("%d:%d;", w, i))
				case 3:
					err = r.Resize(uint32(w), uint32(i))
					r.Exit(Exit{Signal: "KILL"})
					_ = r.Session()
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	mustClose(t, r)
	events, _ := read(t, s, r.ID())
	next := make([]int, writers)
	for _, e := range events {
		var w, i int
		if e.Kind == cast.Resize {
			columns, rows, err := cast.ParseResize(e.Data)
			must(t, err)
			w, i = int(columns), int(rows)
		} else if _, err := fmt.Sscanf(string(e.Data), "%d:%d;", &w, &i); err != nil {
			continue
		}
		if i != next[w] {
			t.Fatalf("writer %d: call %d where %d was expected", w, i, next[w])
		}
		next[w]++
	}
	if slices.Max(next) != calls || slices.Min(next) != calls {
		t.Errorf("calls recorded: %v", next)
	}
}

// TestIdle measures what a thousand recordings cost that have nothing to do.
func TestIdle(t *testing.T) {
	const many = 1000
	s := newStore(t)
	recorder := New(Config{Store: s})
	recordings := make([]*Recording, many)
	before := measure()
	for i := range recordings {
		r, err := recorder.Start(t.Context(), Options{Session: onTerminal().Session, Mode: Strict})
		must(t, err)
		must(t, r.Output(bytes.Repeat([]byte("a prompt, and a line or two "), 100)))
		recordings[i] = r
	}
	for _, r := range recordings { // so that what was pending is written
		r.mu.Lock()
		for r.ahead > 0 {
			r.wait(nil)
		}
		if r.pending != nil || len(r.unsaved) > 0 {
			t.Error("an idle recording holds something")
		}
		r.mu.Unlock()
	}
	after := measure()
	const bound = 32 << 10 // with what the memory store keeps and the race detector takes
	if each := (int64(after.HeapInuse+after.StackInuse) - int64(before.HeapInuse+before.StackInuse)) / many; each > bound {
		t.Errorf("an idle recording costs %d bytes, more than %d", each, bound)
	} else {
		t.Logf("an idle recording costs %d bytes", each)
	}
	for _, r := range recordings {
		mustClose(t, r)
	}
}

func measure() runtime.MemStats {
	runtime.GC()
	runtime.GC() // what pools let go of the first time
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m
}

func TestRefusals(t *testing.T) {
	s := newStore(t)
	for name, tc := range map[string]struct {
		c    Config
		o    Options
		want string
	}{
		"no store": {Config{}, Options{Mode: Strict}, "starting a recording: Store not set"},
		"no mode":  {Config{Store: s}, Options{}, `starting a recording: unknown mode ""`},
		"scp": {
			Config{Store: s},
			Options{Mode: Strict, Session: store.Session{Kind: store.KindSCP}},
			"starting a recording: a session of kind scp needs the command",
		},
	} {
		if _, err := New(tc.c).Start(t.Context(), tc.o); err == nil || err.Error() != tc.want {
			t.Errorf("%s: got %v, want %s", name, err, tc.want)
		}
	}
	r := start(t, Config{Store: s}, onTerminal())
	if err := r.Note("big", strings.Repeat("x", cast.MaxData)); err == nil {
		t.Error("a note that no block holds was taken")
	}
	if err := r.Note("odd", io.Discard.Write); err == nil {
		t.Error("a note that is no JSON was taken")
	}
	must(t, r.Forward(Forward{From: strings.Repeat("\x01", 1<<20)}))
	must(t, r.Signal(strings.Repeat("x", 1<<20)))
	mustClose(t, r)
	read(t, s, r.ID())
}

// TestMain compresses something first: what the compressor shares between
// sessions must not be made inside one test's bubble.
func TestMain(m *testing.M) {
	e := cast.NewEncoder(cast.Header{Host: strings.Repeat("x", 100)})
	block, err := e.Block()
	if err == nil {
		_, err = cast.NewDecoder().Block(block)
	}
	if err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
