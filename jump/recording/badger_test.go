package recording

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/fleetca/fleetca/jump/cast"
	"github.com/fleetca/fleetca/jump/store"
	"github.com/fleetca/fleetca/jump/store/badgerstore"
)

func openBadger(t testing.TB, dir string, free func() uint64) *badgerstore.Store {
	t.Helper()
	s, err := badgerstore.Open(context.Background(), badgerstore.Config{
		Dir: dir, Reserve: 512 << 20, CloseReserve: 64 << 20, Ballast: 8 << 20,
		FreeSpace: func(string) (uint64, error) { return free(), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func plenty() uint64 { return 1 << 40 }

// TestBadger has many sessions at once on the real store, closes some of them,
// and opens the store again.
func TestBadger(t *testing.T) {
	const sessions = 40
	dir := t.TempDir()
	s := openBadger(t, dir, plenty)
	recorder := New(Config{Store: s, Buffer: 64 << 10})
	ids, left := make([]string, sessions), make([]*Recording, sessions)
	var wg sync.WaitGroup
	for i := range sessions {
		wg.Go(func() {
			o := onTerminal()
			o.Mode = Strict
			r, err := recorder.Start(context.Background(), o)
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = r.ID()
			out := rand.NewChaCha8([32]byte{byte(i)})
			buf := make([]byte, 10_000)
			for range 50 {
				_, _ = out.Read(buf) // it can't fail
				if err := r.Output(buf); err != nil {
					t.Error(err)
				}
			}
			if i%2 == 0 {
				if err := r.Close(context.Background(), ""); err != nil {
					t.Error(err)
				}
				return
			}
			// A crash, but for what was accepted: wait until it is written.
			r.mu.Lock()
			for r.ahead > 0 {
				r.wait(nil)
			}
			r.mu.Unlock()
			left[i] = r
		})
	}
	wg.Wait()
	must(t, s.Close())
	for _, r := range left {
		if r != nil && r.Close(t.Context(), "") == nil {
			t.Error("a recording was sealed in a closed store")
		}
	}
	s = openBadger(t, dir, plenty)
	defer s.Close()
	for i, id := range ids {
		events, d := read(t, s, id)
		want := make([]byte, 500_000)
		out := rand.NewChaCha8([32]byte{byte(i)})
		for at := 0; at < len(want); at += 10_000 {
			_, _ = out.Read(want[at : at+10_000])
		}
		if !bytes.Equal(data(events, cast.Output), want) {
			t.Errorf("session %d: %d bytes, not those that were recorded", i, len(data(events, cast.Output)))
		}
		state := store.Ended
		if i%2 == 1 {
			state = store.Interrupted
		}
		if entry, err := s.Session(t.Context(), id); err != nil || entry.State != state || d.Sealed() != (i%2 == 0) {
			t.Errorf("session %d: %s, %v, sealed %v", i, entry.State, err, d.Sealed())
		}
	}
}

// BenchmarkOutput records text into the real store.
func BenchmarkOutput(b *testing.B) {
	for _, sessions := range []int{1, 20} {
		b.Run(fmt.Sprint(sessions), func(b *testing.B) {
			s := openBadger(b, b.TempDir(), plenty)
			defer s.Close()
			recorder := New(Config{Store: s})
			text := bytes.Repeat([]byte("drwxr-xr-x 2 root root 4096 Nov 21 12:00 some-folder-0123\r\n"), 32<<10/60)
			b.SetBytes(int64(len(text)) * int64(sessions))
			var wg sync.WaitGroup
			for range sessions {
				wg.Go(func() {
					o := onTerminal()
					o.Mode = Strict
					r, err := recorder.Start(context.Background(), o)
					if err != nil {
						b.Error(err)
						return
					}
					for range b.N {
						if err := r.Output(text); err != nil {
							b.Error(err)
							return
						}
					}
					if err := r.Close(context.Background(), ""); err != nil {
						b.Error(err)
					}
				})
			}
			wg.Wait()
		})
	}
}
