package storetest

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/fleetca/fleetca/jump/store"
)

func (x *suite) retain() {
	now := start.Add(24 * time.Hour)
	var ids []string
	for n := range 200 {
		e := Entry(n, store.Ended)
		if n == 5 {
			e.State, e.Ended = store.Open, time.Time{}
		}
		e.StoredBytes = 1000
		ids = append(ids, e.ID)
		x.write(store.Batch{Sessions: []store.Session{e}, Blocks: Blocks(e.ID, 0, 1, 1000)})
	}
	check := func(name string, p store.Policy, want []string) {
		x.Helper()
		var removed []store.Session
		n, err := store.Retain(x.ctx, x.s, p, now, func(ctx context.Context, chunk []store.Session) error {
			for _, e := range chunk {
				if _, err := x.s.Session(ctx, e.ID); err != nil {
					x.Errorf("%s: what is about to be removed: %v", name, err)
				}
			}
			removed = append(removed, chunk...)
			return nil
		})
		if err != nil || n != len(removed) {
			x.Fatalf("%s: said to have removed %d of %d: %v", name, n, len(removed), err)
		}
		var got []string
		for _, e := range removed {
			got = append(got, e.ID)
			if _, err := x.s.Session(x.ctx, e.ID); !errors.Is(err, store.ErrNotFound) {
				x.Errorf("%s: a removed session: %v", name, err)
			}
		}
		if !slices.Equal(got, want) {
			x.Errorf("%s: removed %d sessions, want %d", name, len(got), len(want))
		}
	}
	check("nothing asked", store.Policy{}, nil)
	check("all young", store.Policy{For: 25 * time.Hour, Bytes: 1 << 30}, nil)
	// Those that ended a minute after their start, more than 24 h - 70 s ago.
	check("age", store.Policy{For: 24*time.Hour - 70*time.Second}, append(ids[:5:5], ids[6:10]...))
	// The open one counts, though it stays, and though it is the oldest.
	check("bytes", store.Policy{Bytes: 150_000}, ids[10:51])
	check("again", store.Policy{Bytes: 150_000}, nil)
	x.session(ids[5])
}

// retainBytes holds what is removed for want of room to its order: by end, and
// without holes.
func (x *suite) retainBytes() {
	now := start.Add(48 * time.Hour)
	put := func(host string, began, ended time.Duration, size uint64) {
		e := Entry(0, store.Ended)
		e.ID, e.Host, e.StoredBytes = store.NewID(now.Add(-began)), host, size
		e.Started, e.Ended = now.Add(-began), now.Add(-ended)
		x.write(store.Batch{Sessions: []store.Session{e}})
	}
	// The one that began first is not the one that ended first.
	put("long", 40*time.Hour, 2*time.Hour, 10)
	put("small", 30*time.Hour, 29*time.Hour, 1)
	put("old", 20*time.Hour, 19*time.Hour, 10)
	put("new", 2*time.Hour, 90*time.Minute, 10)
	check := func(name string, budget uint64, at time.Time, want ...string) {
		x.Helper()
		var removed []string
		n, err := store.Retain(x.ctx, x.s, store.Policy{Bytes: budget}, at, func(_ context.Context, chunk []store.Session) error {
			for _, e := range chunk {
				removed = append(removed, e.Host)
			}
			return nil
		})
		if err != nil || n != len(want) || !slices.Equal(removed, want) {
			x.Errorf("%s: removed %d: %q (%v), want %q", name, n, removed, err, want)
		}
	}
	check("room for all", 31, now)
	// Room for "small" would be left without "old".
	check("no holes", 25, now, "small", "old")
	put("huge", 30*time.Minute, time.Minute, 1000)
	check("too big alone, and young", 100, now, "long", "new")
	check("again", 100, now)
	put("next", 10*time.Second, 0, 10)
	check("it stays beside a newer one", 100, now)
	check("too big alone, and an hour old", 100, now.Add(store.MinimumAge-time.Minute), "huge")
}

// retainRefused removes nothing of a batch that the caller refuses.
func (x *suite) retainRefused() {
	for n := range 100 {
		x.write(store.Batch{Sessions: []store.Session{Entry(n, store.Ended)}})
	}
	refused := errors.New("the audit can't be written")
	var kept []store.Session
	n, err := store.Retain(x.ctx, x.s, store.Policy{For: time.Hour}, start.Add(24*time.Hour), func(_ context.Context, chunk []store.Session) error {
		if chunk[0].Host == "web00" {
			return nil
		}
		kept = chunk
		return refused
	})
	if !errors.Is(err, refused) || n+len(kept) != 100 || len(kept) == 0 || n == 0 {
		x.Fatalf("removed %d, refused %d: %v", n, len(kept), err)
	}
	if left := collect(x, x.s.Sessions(x.ctx, store.Query{})); len(left) != len(kept) {
		x.Errorf("%d sessions are left, want %d", len(left), len(kept))
	}
}
