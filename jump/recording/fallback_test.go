package recording

import (
	"bytes"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/fleetca/fleetca/jump/cast"
	"github.com/fleetca/fleetca/jump/store"
)

// TestFallbackRefused has sessions that are no copies where only copies are
// allowed: nothing of them passes, neither way, from the byte that shows it on.
func TestFallbackRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		options func(t *testing.T, f *files) Options
		begin   func(r *Recording) error
		shows   func(r *Recording) error
	}{
		"scp that is a shell": {
			func(t *testing.T, f *files) Options { return scpOptions(t, "scp -f x", f) },
			func(r *Recording) error { return r.Input([]byte{0}) },
			func(r *Recording) error { return r.Output([]byte("$ ")) },
		},
		"a client that types": {
			func(t *testing.T, f *files) Options { return scpOptions(t, "scp -f x", f) },
			func(r *Recording) error { return nil },
			func(r *Recording) error { return r.Input([]byte("echo any command\n")) },
		},
		"sftp that is a shell": {
			func(_ *testing.T, f *files) Options {
				return Options{Session: store.Session{Kind: store.KindSFTP}, OnFile: f.add}
			},
			func(r *Recording) error { return r.Input([]byte("\x00\x00\x00\x05\x01\x00\x00\x00\x03")) },
			func(r *Recording) error { return r.Output([]byte("This account is not available.\n")) },
		},
		"rsync that is a shell": {
			func(*testing.T, *files) Options { return command("rsync --server . x") },
			func(r *Recording) error { return r.Input([]byte("\x1f\x00\x00\x00")) },
			func(r *Recording) error { return r.Output([]byte("$ ")) },
		},
	} {
		for _, mode := range []string{Strict, BestEffort, Off} {
			t.Run(name+" "+mode, func(t *testing.T) {
				s := newStore(t)
				var f files
				o := tc.options(t, &f)
				o.Mode = mode
				told, refused := 0, errors.New("only copies are allowed")
				o.OnFallback = func(why string) error {
					told++
					if why == "" {
						t.Error("it doesn't say why")
					}
					return refused
				}
				r := start(t, Config{Store: s}, o)
				must(t, tc.begin(r))
				for what, err := range map[string]error{
					"the bytes that show it": tc.shows(r), "input": r.Input([]byte("id\n")), "output": r.Output([]byte("root")),
					"stderr": r.Stderr([]byte("x")), "resize": r.Resize(1, 1), "again": tc.shows(r),
				} {
					if !errors.Is(err, refused) {
						t.Errorf("%s: %v", what, err)
					}
				}
				mustClose(t, r)
				if told != 1 {
					t.Errorf("told %d times", told)
				}
				if mode == Off {
					return
				}
				events, d := read(t, s, r.ID())
				notes := data(events, cast.Note)
				if !bytes.Contains(notes, []byte("recorded_as_command")) || !bytes.Contains(notes, []byte("only copies are allowed")) || !d.Sealed() {
					t.Errorf("recorded %s", lines(events))
				}
			})
		}
	}
}

// TestFallbackAllowed tells of it once, and goes on.
func TestFallbackAllowed(t *testing.T) {
	s := newStore(t)
	var f files
	o := scpOptions(t, "scp -f x", &f)
	told := 0
	o.OnFallback = func(string) error { told++; return nil }
	r := start(t, Config{Store: s}, o)
	must(t, r.Output([]byte("$ ")))
	must(t, r.Input([]byte("id\n")))
	must(t, r.Output([]byte("root\n")))
	mustClose(t, r)
	events, _ := read(t, s, r.ID())
	if out := data(events, cast.Output); told != 1 || string(out) != "$ root\n" {
		t.Errorf("told %d times, recorded %q", told, out)
	}
}

// TestFallbackWaits lets nothing pass the other way while it is being decided.
func TestFallbackWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		var f files
		o := scpOptions(t, "scp -f x", &f)
		decide, refused := make(chan error), errors.New("no")
		o.OnFallback = func(string) error { return <-decide }
		r := start(t, Config{Store: s}, o)
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := r.Output([]byte("$ ")); !errors.Is(err, refused) {
				t.Errorf("output: %v", err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if err := r.Input([]byte{0}); !errors.Is(err, refused) {
				t.Errorf("input: %v", err)
			}
		})
		synctest.Wait()
		decide <- refused
		wg.Wait()
		mustClose(t, r)
	})
}
