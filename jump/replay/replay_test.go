package replay

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleetca/fleetca/jump/cast"
	"github.com/fleetca/fleetca/jump/store"
	"github.com/fleetca/fleetca/jump/store/memstore"
)

var began = time.Date(2026, 11, 21, 9, 30, 0, 0, time.UTC)

func newStore(t *testing.T) *memstore.Store {
	t.Helper()
	s := memstore.New()
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// recorded is a session and the blocks of its recording.
type recorded struct {
	session store.Session
	blocks  [][]byte
}

// record makes a recording with a block after each event, and its end.
func record(t *testing.T, h cast.Header, evs ...cast.Event) recorded {
	t.Helper()
	h.Session, h.Started = store.NewID(began), began
	e := cast.NewEncoder(h)
	var blocks [][]byte
	for _, ev := range evs {
		if err := e.Add(ev); err != nil {
			t.Fatal(err)
		}
		b, err := e.Block()
		if err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, b)
	}
	end, err := e.Seal(cast.End{})
	if err != nil {
		t.Fatal(err)
	}
	blocks = append(blocks, end)
	return recorded{store.Session{
		ID: h.Session, Kind: store.Kind(h.Kind), Mode: "strict", Started: began, State: store.Ended,
		Blocks: uint32(len(blocks)),
	}, blocks}
}

func (r recorded) put(t *testing.T, s store.Store) string {
	t.Helper()
	// Blocks are taken only while a session is open.
	open := r.session
	open.State = store.Open
	b := store.Batch{Sessions: []store.Session{open}}
	write := func() {
		if err := s.Write(t.Context(), b, nil); err != nil {
			t.Fatal(err)
		}
		b = store.Batch{}
	}
	for i, data := range r.blocks {
		b.Blocks = append(b.Blocks, store.Block{Session: r.session.ID, Number: uint32(i), Data: data})
		if len(b.Blocks) == store.MaxBatchItems/2 {
			write()
		}
	}
	b.Sessions = append(b.Sessions, r.session)
	write()
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r.session.ID
}

func terminalHeader() cast.Header {
	return cast.Header{Kind: "terminal", Columns: 20, Rows: 5, Term: "xterm", Login: "root", Host: "web1"}
}

func TestEvents(t *testing.T) {
	s := newStore(t)
	id := record(t, terminalHeader(), at(1, cast.Output, "one"), at(2, cast.Output, "two")).put(t, s)
	evs := Events(t.Context(), s, id)
	for range 2 { // it may be ranged over again
		var got []string
		for ev, err := range evs {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, ev.Kind.String())
		}
		if want := []string{"start", "output", "output", "end"}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	for range evs { // and be left early
		break
	}
	for _, err := range Events(t.Context(), s, store.NewID(began)) {
		if !errors.Is(err, store.ErrNotFound) {
			t.Errorf("unknown session: %v", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range Events(ctx, s, id) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	}
}

func TestVerify(t *testing.T) {
	evs := []cast.Event{at(1, cast.Output, "one"), at(2, cast.Output, strings.Repeat("two ", 100)), at(3, cast.Output, "three")}
	for _, c := range []struct {
		name   string
		change func(r *recorded)
		want   Condition
		says   string
	}{
		{"whole", func(*recorded) {}, Sealed, "intact and sealed: 4 blocks, 5 events"},
		{"interrupted", func(r *recorded) {
			r.session.State, r.blocks = store.Interrupted, r.blocks[:2]
		}, Interrupted, "interrupted: intact up to its last block, 2 blocks, 3 events, without an end"},
		{"interrupted before its first block", func(r *recorded) {
			r.session.State, r.blocks = store.Interrupted, nil
		}, Interrupted, "0 blocks"},
		{"running", func(r *recorded) {
			r.session.State, r.blocks = store.Open, r.blocks[:3]
		}, Running, "running: intact so far, 3 blocks"},
		{"sealed just now", func(r *recorded) { r.session.State = store.Open }, Sealed, "sealed"},
		{"not recorded", func(r *recorded) {
			r.session.Mode, r.session.Blocks, r.blocks = "off", 0, nil
		}, Off, "recording was off"},
		{"changed", func(r *recorded) { r.blocks[1][30] ^= 1 }, Damaged, "damaged at block 1: block 1: hash"},
		{"cut off", func(r *recorded) { r.blocks = r.blocks[:3] }, Damaged, "damaged at block 3: its end is missing"},
		{"emptied", func(r *recorded) { r.blocks = nil }, Damaged, "damaged at block 0: its end is missing"},
		{"the index counts more", func(r *recorded) { r.session.Blocks = 7 }, Damaged, "the index counts 7 blocks, there are 4"},
		{"changed while interrupted", func(r *recorded) {
			r.session.State = store.Interrupted
			r.blocks[0][100] ^= 1
		}, Damaged, "damaged at block 0"},
		{"of another session", func(r *recorded) { r.session.ID = store.NewID(began) }, Damaged, "it is the recording of session"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStore(t)
			r := record(t, terminalHeader(), evs...)
			c.change(&r)
			v, err := Verify(t.Context(), s, r.put(t, s))
			if err != nil {
				t.Fatal(err)
			}
			if v.Condition != c.want || !strings.Contains(v.String(), c.says) || v.Intact() != (c.want != Damaged) {
				t.Errorf("%s: %s, want %s: %s", v.Condition, v, c.want, c.says)
			}
			if v.Session.ID != r.session.ID {
				t.Errorf("session %q", v.Session.ID)
			}
		})
	}
	s := newStore(t)
	if _, err := Verify(t.Context(), s, store.NewID(began)); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("unknown session: %v", err)
	}
}

// What comes before the damage can be read, and the error says where it is.
func TestEventsOfADamagedRecording(t *testing.T) {
	s := newStore(t)
	r := record(t, terminalHeader(), at(1, cast.Output, "one"), at(2, cast.Output, "two"), at(3, cast.Output, "three"))
	r.blocks[2][40] ^= 1
	id := r.put(t, s)
	for _, f := range []Format{Raw, Text} {
		var b bytes.Buffer
		err := Export(t.Context(), &b, s, id, f)
		if !errors.Is(err, cast.ErrHash) || !strings.Contains(err.Error(), "block 2") {
			t.Errorf("%s: %v", f, err)
		}
		if got := strings.TrimSpace(b.String()); got != "onetwo" {
			t.Errorf("%s: %q", f, got)
		}
	}
	other := record(t, terminalHeader(), at(1, cast.Output, "one"))
	other.session.ID = store.NewID(began)
	id = other.put(t, s)
	for _, err := range Events(t.Context(), s, id) {
		if !errors.Is(err, cast.ErrHash) {
			t.Errorf("recording under another session: %v", err)
		}
	}
}

// broken is a store whose blocks can't be read.
type broken struct {
	store.Store
	err error
}

func (b broken) Blocks(context.Context, string, uint32) iter.Seq2[store.Block, error] {
	return func(yield func(store.Block, error) bool) { yield(store.Block{}, b.err) }
}

// A store that can't be read says nothing about a recording.
func TestVerifyTellsReadingFromDamage(t *testing.T) {
	s := newStore(t)
	id := record(t, terminalHeader(), at(1, cast.Output, "one")).put(t, s)
	gone := errors.New("gone")
	if _, err := Verify(t.Context(), broken{s, gone}, id); !errors.Is(err, gone) {
		t.Errorf("%v", err)
	}
}
