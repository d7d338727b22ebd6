package recording

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetca/fleetca/jump/cast"
	"github.com/fleetca/fleetca/jump/store"
)

const silent = "recording store does not answer"

// TestStartWaits refuses a session that a store takes but doesn't save, and
// leaves no index entry behind that looks like one that runs.
func TestStartWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		s.Hold()
		recorder := New(Config{Store: s})
		o := onTerminal()
		o.Mode = Strict
		began := time.Now()
		_, err := recorder.Start(t.Context(), o)
		var failed *Error
		if !errors.As(err, &failed) || err.Error() != silent || time.Since(began) != startPatience {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := recorder.Start(ctx, o); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ended ctx: %v", err)
		}
		s.Release()
		recorder.Wait()
		all := sessions(t, s)
		for _, e := range all {
			if e.State != store.Ended || e.Reason == "" {
				t.Errorf("index entry %+v", e)
			}
		}
		if len(all) != 2 {
			t.Errorf("%d sessions", len(all))
		}
	})
	synctest.Test(t, func(t *testing.T) { // a store that never saves
		s := newStore(t)
		s.Hold()
		recorder := New(Config{Store: s})
		o := onTerminal()
		o.Mode = Strict
		if _, err := recorder.Start(t.Context(), o); err == nil {
			t.Error("started")
		}
		began := time.Now()
		if recorder.Wait(); time.Since(began) > giveUp {
			t.Errorf("gave up after %v", time.Since(began))
		}
	})
}

// TestSilentStore has strict sessions whose store stands still: they see little
// that isn't saved, whatever they do, and end when that goes on.
func TestSilentStore(t *testing.T) {
	for name, call := range map[string]func(r *Recording) error{
		"output":  func(r *Recording) error { return r.Output([]byte("x")) },
		"input":   func(r *Recording) error { return r.Input([]byte("x")) },
		"resizes": func(r *Recording) error { return r.Resize(1, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStore(t)
				r := start(t, Config{Store: s}, onTerminal())
				s.Hold()
				must(t, r.Output([]byte("unsaved")))
				began, last := time.Now(), time.Now()
				var err error
				for err == nil {
					last = time.Now()
					time.Sleep(100 * time.Millisecond)
					err = call(r)
				}
				if err.Error() != silent || last.Sub(began) > unsavedTime+time.Second || time.Since(began) > silence+time.Second {
					t.Errorf("the last call passed after %v; after %v: %v", last.Sub(began), time.Since(began), err)
				}
				<-r.Failed()
				s.Release()
				mustClose(t, r)
			})
		})
	}
	// Also if nothing happens any more.
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		r := start(t, Config{Store: s}, onTerminal())
		time.Sleep(time.Hour)
		s.Hold()
		must(t, r.Output([]byte("unsaved")))
		began := time.Now()
		<-r.Failed()
		if after := time.Since(began); r.Err().Error() != silent || after < silence || after > silence+time.Second {
			t.Errorf("after %v: %v", after, r.Err())
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Close(ctx, ""); err == nil {
			t.Error("closed without an error")
		}
	})
}

// TestSlowStore holds a session up, and no more than that, whose store needs
// long for each block.
func TestSlowStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		r := start(t, Config{Store: s}, onTerminal())
		for range 5 {
			s.Hold()
			time.AfterFunc(silence-5*time.Second, s.Release)
			for range 40 {
				must(t, r.Output([]byte("x")))
				time.Sleep(100 * time.Millisecond)
			}
		}
		mustClose(t, r)
		events, d := read(t, s, r.ID())
		if n := len(data(events, cast.Output)); n != 200 || !d.Sealed() {
			t.Errorf("%d bytes, sealed %v", n, d.Sealed())
		}
	})
}
