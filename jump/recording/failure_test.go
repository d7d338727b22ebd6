package recording

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetca/fleetca/jump/cast"
	"github.com/fleetca/fleetca/jump/store"
	"github.com/fleetca/fleetca/jump/store/memstore"
)

const small = 8 << 10 // a buffer that is soon full

// pour calls Output until it fails or all is taken, and counts what was.
func pour(r *Recording, chunks int) (taken *atomic.Int64, done chan error) {
	taken, done = new(atomic.Int64), make(chan error, 1)
	go func() {
		for range chunks {
			if err := r.Output(bytes.Repeat([]byte("x"), 1000)); err != nil {
				done <- err
				return
			}
			taken.Add(1000)
		}
		done <- nil
	}()
	return taken, done
}

func TestBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		r := start(t, Config{Store: s, Buffer: small}, onTerminal())
		synctest.Wait()
		s.Hold()
		taken, done := pour(r, 100)
		synctest.Wait()
		const want = small / (1000 + eventCost) * 1000
		if got := taken.Load(); got != want {
			t.Errorf("taken at once: %d bytes, want %d", got, want)
		}
		time.Sleep(silence / 2) // nothing becomes of waiting so long
		synctest.Wait()
		if got := taken.Load(); got != want {
			t.Errorf("taken by a store that stands still: %d bytes, want %d", got, want)
		}
		s.Release()
		must(t, <-done)
		mustClose(t, r)
		events, d := read(t, s, r.ID())
		if got := len(data(events, cast.Output)); got != 100_000 || !d.Sealed() {
			t.Errorf("recorded %d bytes, sealed %v", got, d.Sealed())
		}
	})
}

// TestGroups checks when blocks are made: not for each event, not later than
// Every after the first one, and at once when there is much.
func TestGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		r := start(t, Config{Store: s}, onTerminal())
		blocks := func() uint32 {
			synctest.Wait()
			return r.Session().Blocks
		}
		for range 50 {
			must(t, r.Output([]byte("x")))
			time.Sleep(time.Millisecond)
		}
		if n := blocks(); n != 1 {
			t.Errorf("after 50 ms: %d blocks", n)
		}
		time.Sleep(50 * time.Millisecond)
		if n := blocks(); n != 2 {
			t.Errorf("after 100 ms: %d blocks", n)
		}
		time.Sleep(time.Hour)
		if n := blocks(); n != 2 {
			t.Errorf("after an idle hour: %d blocks", n)
		}
		must(t, r.Output(make([]byte, 2*cast.GoodBlock)))
		if n := blocks(); n < 3 {
			t.Errorf("after much output: %d blocks", n)
		}
		mustClose(t, r)
		events, _ := read(t, s, r.ID())
		if at := events[50].At; at != 49*time.Millisecond {
			t.Errorf("the 50th output is at %v", at)
		}
	})
}

func TestIndexIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		r := start(t, Config{Store: s}, onTerminal())
		for range 3 {
			must(t, r.Output([]byte("x")))
			time.Sleep(indexEvery)
		}
		synctest.Wait()
		entry, err := s.Session(t.Context(), r.ID())
		must(t, err)
		if entry.State != store.Open || entry.Blocks < 3 {
			t.Errorf("index entry of a running session: %+v", entry)
		}
		mustClose(t, r)
	})
}

func TestStrictFailure(t *testing.T) {
	for name, tc := range map[string]struct {
		fail func(s *memstore.Store)
		text string
		is   error
		seal bool
	}{
		"full":         {func(s *memstore.Store) { s.SetLevel(store.Full) }, "recording store full", store.ErrFull, true},
		"full at once": {func(s *memstore.Store) { s.Fail(store.ErrFull) }, "recording store full", store.ErrFull, false},
		"failed":       {func(s *memstore.Store) { s.Fail(errors.New("input/output error")) }, "recording store failed", store.ErrFailed, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStore(t)
				r := start(t, Config{Store: s, Buffer: small}, onTerminal())
				must(t, r.Output([]byte("before ")))
				synctest.Wait()
				s.Hold()
				taken, done := pour(r, 100)
				synctest.Wait()
				tc.fail(s)
				s.Release()
				err := <-done // the call that waited is woken
				if err == nil || err.Error() != tc.text || !errors.Is(err, tc.is) {
					t.Errorf("output: %v", err)
				}
				<-r.Failed()
				if err := r.Err(); err == nil || err.Error() != tc.text {
					t.Errorf("err: %v", err)
				}
				for what, err := range map[string]error{
					"stderr": r.Stderr([]byte("x")), "input": r.Input([]byte("x")), "resize": r.Resize(1, 1),
					"note": r.Note("x", nil), "signal": r.Signal("INT"),
				} {
					if err == nil || err.Error() != tc.text {
						t.Errorf("%s: %v", what, err)
					}
				}
				err = r.Close(t.Context(), "")
				events, d := read(t, s, r.ID())
				if (err == nil) != tc.seal || d.Sealed() != tc.seal {
					t.Errorf("close: %v, sealed %v", err, d.Sealed())
				}
				if !tc.seal {
					return
				}
				// All that was accepted is there, for it may have reached the client.
				if got := len(data(events, cast.Output)) - len("before "); int64(got) < taken.Load() {
					t.Errorf("recorded %d bytes, %d were taken", got, taken.Load())
				}
				if end, _ := d.End(); end.Reason != tc.text {
					t.Errorf("reason %q", end.Reason)
				}
			})
		})
	}
}

func TestStartIsRefused(t *testing.T) {
	for _, level := range []store.Level{store.Low, store.Full} {
		s := newStore(t)
		s.SetLevel(level)
		o := onTerminal()
		o.Mode = Strict
		if _, err := New(Config{Store: s}).Start(t.Context(), o); err == nil || err.Error() != "recording store full" {
			t.Errorf("%v: %v", level, err)
		}
		if s.SetLevel(store.Plenty); len(sessions(t, s)) != 0 {
			t.Errorf("%v: there is a session", level)
		}
	}
	s := newStore(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	full := blocking{s}
	if _, err := New(Config{Store: full}).Start(ctx, Options{Mode: Strict}); !errors.Is(err, context.Canceled) {
		t.Errorf("ended ctx: %v", err)
	}
}

// blocking is a store whose queue is full.
type blocking struct{ store.Store }

func (blocking) Write(ctx context.Context, _ store.Batch, _ func(error)) error {
	<-ctx.Done()
	return ctx.Err()
}

func sessions(t *testing.T, s store.Store) []store.Session {
	t.Helper()
	var all []store.Session
	for e, err := range s.Sessions(t.Context(), store.Query{}) {
		must(t, err)
		all = append(all, e)
	}
	return all
}

// TestBestEffort lets a session go on while the store refuses everything, and
// checks that each byte is either recorded or counted in a gap.
func TestBestEffort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		o := onTerminal()
		o.Mode = BestEffort
		r := start(t, Config{Store: s, Buffer: small}, o)
		must(t, r.Output([]byte("before")))
		time.Sleep(time.Second)
		s.Fail(store.ErrFull)
		time.Sleep(time.Second)
		began := time.Now()
		_, done := pour(r, 100)
		must(t, <-done)
		if waited := time.Since(began); waited > 2*patience {
			t.Errorf("held the session up for %v", waited)
		}
		select {
		case <-r.Failed():
			t.Error("it failed")
		default:
		}
		s.Fail(nil)
		time.Sleep(2 * retryEvery)
		synctest.Wait()
		must(t, r.Output([]byte("after")))
		mustClose(t, r)

		events, d := read(t, s, r.ID())
		gaps := gapsOf(t, events)
		out := data(events, cast.Output)
		if len(gaps) != 1 || !d.Sealed() || r.Session().Gaps != 1 {
			t.Fatalf("gaps %+v, sealed %v, index %+v", gaps, d.Sealed(), r.Session())
		}
		if got, want := uint64(len(out))+gaps[0].Bytes, uint64(100_000+len("beforeafter")); got != want {
			t.Errorf("recorded and in gaps: %d bytes, want %d", got, want)
		}
		if !bytes.HasPrefix(out, []byte("beforex")) || !bytes.HasSuffix(out, []byte("xafter")) {
			t.Errorf("recorded: %q … %q", out[:20], out[len(out)-20:])
		}
		if gaps[0].Reason != store.ErrFull.Error() || gaps[0].From >= gaps[0].To || gaps[0].From < 2e6 {
			t.Errorf("gap %+v", gaps[0])
		}
	})
}

// TestBestEffortFromTheStart has a store that is full before the session, and
// later isn't.
func TestBestEffortFromTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		s.SetLevel(store.Full)
		o := onTerminal()
		o.Mode = BestEffort
		r := start(t, Config{Store: s, Buffer: small}, o)
		must(t, r.Output([]byte("x")))
		time.Sleep(time.Minute)
		if n := len(sessions(t, s)); n != 0 {
			t.Fatalf("%d sessions in a full store", n)
		}
		s.SetLevel(store.Plenty)
		time.Sleep(2 * retryEvery)
		synctest.Wait()
		if all := sessions(t, s); len(all) != 1 || all[0].State != store.Open {
			t.Errorf("sessions after there is room: %+v", all)
		}
		mustClose(t, r)
		if events, d := read(t, s, r.ID()); string(data(events, cast.Output)) != "x" || !d.Sealed() {
			t.Errorf("recorded %s", lines(events))
		}
	})
}

// TestFullFromStartToEnd has a store that takes only what ends recordings: the
// whole of it comes then.
func TestFullFromStartToEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, mode := range []string{BestEffort, Off} {
			s := newStore(t)
			s.SetLevel(store.Full)
			o := onTerminal()
			o.Mode = mode
			r := start(t, Config{Store: s}, o)
			must(t, r.Output([]byte("x")))
			time.Sleep(10 * time.Second)
			mustClose(t, r)
			entry, err := s.Session(t.Context(), r.ID())
			must(t, err)
			events, d := read(t, s, r.ID())
			if entry.State != store.Ended || (mode == BestEffort) != (d.Sealed() && string(data(events, cast.Output)) == "x") {
				t.Errorf("mode %s: %s, index entry %+v", mode, lines(events), entry)
			}
		}
	})
}

// TestBestEffortSlow has a store that hangs, which is no error for a long time.
func TestBestEffortSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		o := onTerminal()
		o.Mode = BestEffort
		r := start(t, Config{Store: s, Buffer: small}, o)
		synctest.Wait()
		s.Hold()
		began := time.Now()
		_, done := pour(r, 1000)
		must(t, <-done)
		if waited := time.Since(began); waited != patience {
			t.Errorf("held the session up for %v", waited)
		}
		s.Release()
		mustClose(t, r)
		events, d := read(t, s, r.ID())
		gaps := gapsOf(t, events)
		if len(gaps) != 1 || gaps[0].Reason != "the store was too slow" || !d.Sealed() ||
			uint64(len(data(events, cast.Output)))+gaps[0].Bytes != 1_000_000 {
			t.Errorf("gaps %+v, %d bytes, sealed %v", gaps, len(data(events, cast.Output)), d.Sealed())
		}
	})
}

// TestRefusedBlocks refuses single batches, early and late ones, also after
// they were queued: whatever comes of the session, the blocks have no hole.
func TestRefusedBlocks(t *testing.T) {
	for refuse := range 12 {
		synctest.Test(t, func(t *testing.T) {
			s := newStore(t)
			o := onTerminal()
			o.Mode = BestEffort
			r := start(t, Config{Store: s, Buffer: 1 << 20, Every: time.Millisecond}, o)
			for i := range 12 {
				if i == refuse {
					s.Hold()
				}
				must(t, r.Output([]byte{byte('a' + i)}))
				time.Sleep(2 * time.Millisecond)
				synctest.Wait()
				if i == refuse+2 || i == 11 {
					s.Fail(store.ErrFull)
					s.Release()
					synctest.Wait()
					s.Fail(nil)
				}
			}
			mustClose(t, r)
			events, d := read(t, s, r.ID())
			if got := string(data(events, cast.Output)); got != "abcdefghijkl" || !d.Sealed() {
				t.Errorf("refused at %d: recorded %q, sealed %v", refuse, got, d.Sealed())
			}
		})
	}
}

func TestOff(t *testing.T) {
	s := newStore(t)
	o := onTerminal()
	o.Mode, o.Input = Off, true
	r := start(t, Config{Store: s}, o)
	must(t, r.Output(make([]byte, 10<<20)))
	must(t, r.Input([]byte("x")))
	must(t, r.Resize(1, 2))
	must(t, r.Note("x", nil))
	mustClose(t, r)
	entry, err := s.Session(t.Context(), r.ID())
	must(t, err)
	if entry.State != store.Ended || entry.Mode != Off || entry.Blocks != 0 {
		t.Errorf("index entry %+v", entry)
	}
	if events, _ := read(t, s, r.ID()); len(events) != 0 || r.Hash() != "" {
		t.Errorf("recorded %s", lines(events))
	}
}

// TestOffWithoutStore goes on whatever the store says.
func TestOffWithoutStore(t *testing.T) {
	s := newStore(t)
	s.Fail(errors.New("gone"))
	o := onTerminal()
	o.Mode = Off
	r := start(t, Config{Store: s}, o)
	must(t, r.Output([]byte("x")))
	if err := r.Close(t.Context(), ""); !errors.Is(err, store.ErrFailed) {
		t.Errorf("close: %v", err)
	}
}

// TestCloseGivesUp ends a recording whose store hangs.
func TestCloseGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		r := start(t, Config{Store: s, Buffer: small}, onTerminal())
		synctest.Wait()
		s.Hold()
		_, done := pour(r, 100)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := r.Close(ctx, "shutdown")
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("close: %v", err)
		}
		if err := <-done; !errors.Is(err, ErrClosed) {
			t.Errorf("the call that waited: %v", err)
		}
		if r.Hash() != "" {
			t.Error("it has a hash without a seal")
		}
	})
	// The same with a store that doesn't even queue.
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		turns := &turning{Store: s}
		r := start(t, Config{Store: turns, Buffer: small}, onTerminal())
		turns.stuck.Store(true)
		must(t, r.Output([]byte("x")))
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := r.Close(ctx, ""); err == nil {
			t.Error("closed without an error")
		}
	})
}

// turning blocks writes once it is stuck.
type turning struct {
	store.Store
	stuck atomic.Bool
}

func (s *turning) Write(ctx context.Context, b store.Batch, committed func(error)) error {
	if s.stuck.Load() {
		return blocking{}.Write(ctx, b, committed)
	}
	return s.Store.Write(ctx, b, committed)
}

// TestCrash never closes the recording: what was committed is readable.
func TestCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		r := start(t, Config{Store: s}, onTerminal())
		must(t, r.Output([]byte("committed")))
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		s.Hold()
		must(t, r.Output([]byte("lost")))
		time.Sleep(200 * time.Millisecond)
		s.Fail(errors.New("killed"))
		s.Release()
		synctest.Wait()
		again := s.Reopen()
		events, d := read(t, again, r.ID())
		if string(data(events, cast.Output)) != "committed" || d.Sealed() {
			t.Errorf("after a crash: %s, sealed %v", lines(events), d.Sealed())
		}
		entry, err := again.Session(t.Context(), r.ID())
		must(t, err)
		if entry.State != store.Interrupted || entry.Blocks != 2 {
			t.Errorf("index entry %+v", entry)
		}
		must(t, again.Close())
		_ = r.Close(t.Context(), "") // only to end its goroutine
	})
}
