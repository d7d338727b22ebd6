// Package storetest is the suite that every implementation of store.Store
// passes. Only tests import it.
//
// It refuses nothing; what an implementation does beyond the contract (crashes,
// full disks) is tested beside it.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/fleetca/fleetca/jump/store"
)

// wait bounds what a store may take for anything here.
const wait = time.Minute

// Run holds a store to the contract. open makes an empty store; reopen, which
// it returns with it, closes the store and opens what it held as another
// process would. The suite closes what is open at the end.
func Run(t *testing.T, open func(t *testing.T) (s store.Store, reopen func() store.Store)) {
	for _, c := range []struct {
		name string
		test func(*suite)
	}{
		{"entries", (*suite).entries},
		{"blocks", (*suite).blocks},
		{"order", (*suite).order},
		{"listing", (*suite).listing},
		{"audit", (*suite).audit},
		{"remove", (*suite).remove},
		{"limits", (*suite).limits},
		{"refusals", (*suite).refusals},
		{"interrupted", (*suite).interrupted},
		{"writers", (*suite).writers},
		{"reading_while_writing", (*suite).readingWhileWriting},
		{"cancelled", (*suite).cancelled},
		{"closed", (*suite).closed},
		{"retain", (*suite).retain},
		{"retain_bytes", (*suite).retainBytes},
		{"retain_refused", (*suite).retainRefused},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			s, reopen := open(t)
			x := &suite{T: t, ctx: ctx, s: s, reopen: reopen}
			defer func() {
				if err := x.s.Close(); err != nil {
					t.Errorf("closing the store: %v", err)
				}
			}()
			c.test(x)
		})
	}
}

type suite struct {
	*testing.T
	ctx    context.Context
	s      store.Store
	reopen func() store.Store
}

// start is when the sessions of the suite began.
var start = time.Date(2026, 11, 21, 9, 0, 0, 123456000, time.UTC)

// Entry makes a session for tests, the n-th of a row that begins a second
// after the other.
func Entry(n int, st store.State) store.Session {
	at := start.Add(time.Duration(n) * time.Second)
	e := store.Session{
		ID: store.NewID(at), Connection: store.NewID(at), Identity: fmt.Sprintf("user%d@example.com", n%3),
		Login: "root", Host: fmt.Sprintf("web%02d", n), Address: "192.0.2.1:22", Client: "198.51.100.7:40000",
		Kind: store.KindTerminal, Mode: "strict", Started: at, State: st, Columns: 80, Rows: 25,
	}
	if st != store.Open {
		e.Ended = at.Add(time.Minute)
	}
	return e
}

// Blocks makes n blocks of a session, from number from on, that differ.
func Blocks(id string, from uint32, n, size int) []store.Block {
	var blocks []store.Block
	for i := range n {
		number := from + uint32(i)
		data := bytes.Repeat([]byte{byte(number), byte(number >> 8), 0, 0xff, 'x'}, size/5+1)[:size]
		blocks = append(blocks, store.Block{Session: id, Number: number, Raw: uint32(3 * size), Data: data})
	}
	return blocks
}

// write writes a batch and waits until it is committed.
func (x *suite) write(b store.Batch) {
	x.Helper()
	if err := x.try(b); err != nil {
		x.Fatalf("writing a batch: %v", err)
	}
}

// try is write, with the error of either.
func (x *suite) try(b store.Batch) error {
	b.Soon = true
	done := make(chan error, 1)
	if err := x.s.Write(x.ctx, b, func(err error) { done <- err }); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-x.ctx.Done():
		x.Fatal("a batch was neither committed nor refused")
		return nil
	}
}

func collect[T any](x *suite, seq iter.Seq2[T, error]) []T {
	x.Helper()
	var all []T
	for v, err := range seq {
		if err != nil {
			x.Fatal(err)
		}
		all = append(all, v)
	}
	return all
}

// last is the error that a sequence ends with.
func last[T any](seq iter.Seq2[T, error]) error {
	var end error
	for _, err := range seq {
		end = err
	}
	return end
}

func (x *suite) session(id string) store.Session {
	x.Helper()
	e, err := x.s.Session(x.ctx, id)
	if err != nil {
		x.Fatal(err)
	}
	return e
}

// same compares entries; times by the instant.
func same(a, b store.Session) bool {
	ok := a.Started.Equal(b.Started) && a.Ended.Equal(b.Ended)
	a.Started, a.Ended = b.Started, b.Ended
	return ok && reflect.DeepEqual(a, b)
}

// sameBlocks compares what was written with what was read.
func (x *suite) sameBlocks(got, want []store.Block) {
	x.Helper()
	if len(got) != len(want) {
		x.Fatalf("%d blocks, expected %d", len(got), len(want))
	}
	for i, g := range got {
		w := want[i]
		if g.Session != w.Session || g.Number != w.Number || g.Raw != w.Raw || !bytes.Equal(g.Data, w.Data) {
			x.Fatalf("block %d is not what was written as block %d of %s", g.Number, w.Number, w.Session)
		}
		if g.Time.IsZero() {
			x.Fatalf("block %d has no time", g.Number)
		}
	}
}

func (x *suite) entries() {
	status := uint32(3)
	e := Entry(1, store.Open)
	e.Serial, e.CA, e.Command, e.Way = 1<<63+1, "SHA256:x", "echo \"a\x00b\"", "subsystem"
	x.write(store.Batch{Sessions: []store.Session{e}})
	if got := x.session(e.ID); !same(got, e) {
		x.Fatalf("got %+v\nwant %+v", got, e)
	}
	e.State, e.Ended, e.ExitStatus, e.Reason = store.Ended, start.Add(time.Hour), &status, "idle"
	e.Started = e.Started.Add(time.Millisecond) // its place in the list moves
	x.write(store.Batch{Sessions: []store.Session{e}})
	if got := x.session(e.ID); !same(got, e) {
		x.Fatalf("got %+v\nwant %+v", got, e)
	}
	if got := collect(x, x.s.Sessions(x.ctx, store.Query{})); len(got) != 1 || !same(got[0], e) {
		x.Fatalf("a session that was put twice is listed as %+v", got)
	}
	if _, err := x.s.Session(x.ctx, store.NewID(start)); !errors.Is(err, store.ErrNotFound) {
		x.Fatalf("unknown session: %v", err)
	}
	for _, id := range []string{"", "x", "../../etc/passwd"} {
		if _, err := x.s.Session(x.ctx, id); !errors.Is(err, store.ErrNotFound) {
			x.Fatalf("session %q: %v", id, err)
		}
	}
	x.s = x.reopen()
	if got := x.session(e.ID); !same(got, e) {
		x.Fatalf("opened again: got %+v\nwant %+v", got, e)
	}
}

func (x *suite) blocks() {
	a, b := Entry(1, store.Open), Entry(2, store.Open)
	x.write(store.Batch{Sessions: []store.Session{a, b}})
	// Enough for a reader that reads by pages to turn some.
	var want []store.Block
	for n := uint32(0); n < 400; n += 50 {
		blocks := Blocks(a.ID, n, 50, 1000)
		want = append(want, blocks...)
		x.write(store.Batch{Blocks: blocks})
	}
	other := []store.Block{
		{Session: b.ID, Number: 0, Data: []byte{}},
		{Session: b.ID, Number: 1, Data: []byte{0}},
		{Session: b.ID, Number: 2, Data: bytes.Repeat([]byte("y"), 1<<20), Time: start, Raw: 5},
	}
	x.write(store.Batch{Blocks: other})
	check := func() {
		x.Helper()
		x.sameBlocks(collect(x, x.s.Blocks(x.ctx, a.ID, 0)), want)
		x.sameBlocks(collect(x, x.s.Blocks(x.ctx, a.ID, 250)), want[250:])
		x.sameBlocks(collect(x, x.s.Blocks(x.ctx, a.ID, 1<<31)), nil)
		got := collect(x, x.s.Blocks(x.ctx, b.ID, 0))
		x.sameBlocks(got, other)
		if !got[2].Time.Equal(start) {
			x.Fatalf("time of a block: %v", got[2].Time)
		}
	}
	check()
	// What is read belongs to the reader.
	for k, err := range x.s.Blocks(x.ctx, a.ID, 0) {
		if err != nil {
			x.Fatal(err)
		}
		clear(k.Data)
	}
	x.s = x.reopen()
	check()
	for k, err := range x.s.Blocks(x.ctx, a.ID, 10) {
		if err != nil || k.Number != 10 {
			x.Fatalf("block 10 is block %d: %v", k.Number, err)
		}
		break // leaving early leaves nothing open
	}
	if err := last(x.s.Blocks(x.ctx, store.NewID(start), 0)); !errors.Is(err, store.ErrNotFound) {
		x.Fatalf("blocks of an unknown session: %v", err)
	}
	if err := last(x.s.Blocks(x.ctx, "b", 0)); !errors.Is(err, store.ErrNotFound) {
		x.Fatalf("blocks of what is no ID: %v", err)
	}
}

// order checks that batches are committed in the order of Write, and that
// their callbacks say so.
func (x *suite) order() {
	e := Entry(1, store.Open)
	var mu sync.Mutex
	var told []int
	const batches = 300
	for i := range batches {
		b := store.Batch{Blocks: Blocks(e.ID, uint32(i), 1, 100), Soon: i%7 == 0}
		if i == 0 {
			b.Sessions = []store.Session{e}
		}
		err := x.s.Write(x.ctx, b, func(err error) {
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				i = -1
			}
			told = append(told, i)
		})
		if err != nil {
			x.Fatal(err)
		}
	}
	if err := x.s.Write(x.ctx, store.Batch{}, nil); err != nil {
		x.Fatalf("an empty batch: %v", err)
	}
	if err := x.s.Sync(x.ctx); err != nil {
		x.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(told) != batches {
		x.Fatalf("after Sync %d of %d batches were told of", len(told), batches)
	}
	for i, n := range told {
		if n != i {
			x.Fatalf("batch %d was told of as number %d (-1: failed)", n, i)
		}
	}
	x.sameBlocks(collect(x, x.s.Blocks(x.ctx, e.ID, 0)), Blocks(e.ID, 0, batches, 100))
}
