package live

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetca/fleetca/jump/store"
)

var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func entry(id string, after time.Duration, end func(string)) Entry {
	return Entry{Session: store.Session{ID: id, Started: start.Add(after)}, End: end}
}

func TestRegistry(t *testing.T) {
	r := New()
	ended := map[string]string{}
	add := func(id string, after time.Duration) func() {
		return r.Add(entry(id, after, func(reason string) { ended[id] = reason }))
	}
	removeA, removeB := add("a", 0), add("b", time.Second)
	add("c", time.Second)
	if got := fmt.Sprint(ids(r.List())); got != "[c b a]" {
		t.Errorf("List = %s, want the newest first", got)
	}
	if !r.End("b", "asked to") || r.End("d", "asked to") {
		t.Error("End doesn't tell what runs from what doesn't")
	}
	if !r.Running("b") || r.Running("d") {
		t.Error("Running doesn't tell what runs from what doesn't")
	}
	removeB()
	removeB()
	if r.End("b", "again") || r.Running("b") || r.Len() != 2 {
		t.Errorf("b is still there: %v", ids(r.List()))
	}
	removeA()
	r.EndAll("shutting down")
	if got := fmt.Sprint(ended); got != "map[b:asked to c:shutting down]" {
		t.Errorf("ended %s", got)
	}
	seen := 0
	r.Each(func(e Entry) bool {
		seen += r.Len() // doesn't deadlock
		return false
	})
	if seen != 1 {
		t.Errorf("Each saw %d", seen)
	}
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New()
		if err := r.Wait(t.Context()); err != nil {
			t.Fatalf("Wait with nothing running: %v", err)
		}
		remove := r.Add(entry("a", 0, func(string) {}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := r.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Wait = %v while a session runs", err)
		}
		time.AfterFunc(time.Hour, remove)
		begun := time.Now()
		if err := r.Wait(t.Context()); err != nil || time.Since(begun) != time.Hour {
			t.Fatalf("Wait = %v after %v", err, time.Since(begun))
		}
	})
}

// TestEndRemoves lets End take the session out at once, as a session that ends
// quickly does, from many goroutines.
func TestEndRemoves(t *testing.T) {
	r := New()
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			var once sync.Once
			var remove func()
			ready := make(chan struct{})
			remove = r.Add(entry(fmt.Sprint(i), 0, func(string) {
				<-ready
				once.Do(remove)
			}))
			close(ready)
			r.End(fmt.Sprint(i), "over")
			r.List()
		})
	}
	wg.Wait()
	if err := r.Wait(t.Context()); err != nil || r.Len() != 0 {
		t.Fatalf("%d left: %v", r.Len(), err)
	}
}

func ids(sessions []store.Session) []string {
	var found []string
	for _, s := range sessions {
		found = append(found, s.ID)
	}
	return found
}
