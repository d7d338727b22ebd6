package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fleetca/fleetca/jump/store"
)

func (x *suite) listing() {
	var all []store.Session // newest first
	for n := range 150 {
		e := Entry(n, store.Ended)
		if n%10 == 0 {
			e.Kind = store.KindSCP
		}
		all = append(all, e)
	}
	// Put in no order, IDs unlike their times.
	for i := range all {
		all[i].ID = store.NewID(start.Add(-time.Duration(i) * time.Hour))
	}
	x.write(store.Batch{Sessions: all[70:]})
	x.write(store.Batch{Sessions: all[:70]})
	open := Entry(150, store.Open)
	x.write(store.Batch{Sessions: []store.Session{open}})
	all = append(all, open)
	slices.Reverse(all)

	for _, q := range []store.Query{
		{},
		{Limit: 7},
		{Limit: 1000},
		{Host: "WEB1?"},
		{Host: "web*", Identity: "user1@*", Limit: 3},
		{Login: "nobody"},
		{Kind: store.KindSCP},
		{State: store.Open},
		{Since: start.Add(30 * time.Second), Until: start.Add(40 * time.Second)},
		{Since: start.Add(140 * time.Second)},
		{Until: start.Add(time.Second)},
		{Until: start},
		{Since: start.Add(time.Hour)},
	} {
		var want []string
		for _, e := range all {
			if q.Match(e) && (q.Limit == 0 || len(want) < q.Limit) {
				want = append(want, e.Host)
			}
		}
		var got []string
		for _, e := range collect(x, x.s.Sessions(x.ctx, q)) {
			got = append(got, e.Host)
		}
		if !slices.Equal(got, want) {
			x.Errorf("%+v: got %q\nwant %q", q, got, want)
		}
	}
}

func record(n uint64) store.AuditRecord {
	return store.AuditRecord{
		Sequence: n, Time: start.Add(time.Duration(n) * time.Second), Event: []string{"auth", "session.start", "sftp"}[n%3],
		Identity: fmt.Sprintf("user%d", n%5), Login: "root", Host: "web01", Session: "s1", Path: "/etc/\xff*", SHA256: "abCD",
		Line: fmt.Appendf(nil, `{"event":"x","n":%d}`, n),
	}
}

func (x *suite) audit() {
	if _, err := x.s.LastAudit(x.ctx); !errors.Is(err, store.ErrNotFound) {
		x.Fatalf("last audit record of an empty store: %v", err)
	}
	var all []store.AuditRecord
	for n := uint64(1); n <= 300; n++ {
		all = append(all, record(n))
	}
	x.write(store.Batch{Audit: all[100:]})
	x.write(store.Batch{Audit: all[:150]})
	x.s = x.reopen()
	for _, q := range []store.AuditQuery{
		{},
		{FromSequence: 256},
		{FromSequence: 301},
		{Limit: 5, FromSequence: 3},
		{Event: "session.*", Identity: "user1"},
		{Event: "auth", Limit: 2},
		{Path: "/etc/*", SHA256: "ABcd", Session: "s1", Login: "ro?t", Host: "WEB01"},
		{Session: "s"},
		{Since: start.Add(20 * time.Second), Until: start.Add(22 * time.Second)},
	} {
		var want []store.AuditRecord
		for _, r := range all {
			if q.Match(r) && (q.Limit == 0 || len(want) < q.Limit) {
				want = append(want, r)
			}
		}
		got := collect(x, x.s.Audit(x.ctx, q))
		if !slices.EqualFunc(got, want, sameRecord) {
			x.Errorf("%+v: got %d records %+v\nwant %d", q, len(got), got, len(want))
		}
	}
	if r, err := x.s.LastAudit(x.ctx); err != nil || !sameRecord(r, all[299]) {
		x.Fatalf("last audit record: %+v, %v", r, err)
	}
}

func sameRecord(a, b store.AuditRecord) bool {
	return a.Sequence == b.Sequence && a.Time.Equal(b.Time) && a.Event == b.Event && a.Identity == b.Identity &&
		a.Login == b.Login && a.Host == b.Host && a.Session == b.Session && a.Path == b.Path && a.SHA256 == b.SHA256 &&
		string(a.Line) == string(b.Line)
}

func (x *suite) remove() {
	keep, gone := Entry(1, store.Open), Entry(2, store.Open)
	x.write(store.Batch{
		Sessions: []store.Session{keep, gone},
		Blocks:   append(Blocks(keep.ID, 0, 20, 2000), Blocks(gone.ID, 0, 200, 2000)...),
	})
	x.write(store.Batch{Remove: []string{gone.ID, store.NewID(start)}})
	check := func() {
		x.Helper()
		if _, err := x.s.Session(x.ctx, gone.ID); !errors.Is(err, store.ErrNotFound) {
			x.Fatalf("removed session: %v", err)
		}
		if err := last(x.s.Blocks(x.ctx, gone.ID, 0)); !errors.Is(err, store.ErrNotFound) {
			x.Fatalf("blocks of a removed session: %v", err)
		}
		if got := collect(x, x.s.Sessions(x.ctx, store.Query{})); len(got) != 1 || got[0].ID != keep.ID {
			x.Fatalf("sessions: %+v", got)
		}
		x.sameBlocks(collect(x, x.s.Blocks(x.ctx, keep.ID, 0)), Blocks(keep.ID, 0, 20, 2000))
	}
	check()
	if err := x.try(store.Batch{Blocks: Blocks(gone.ID, 200, 1, 10)}); !errors.Is(err, store.ErrNotFound) {
		x.Fatalf("a block of a removed session: %v", err)
	}
	x.s = x.reopen()
	check()
	// A batch that puts and removes leaves nothing.
	x.write(store.Batch{Sessions: []store.Session{Entry(3, store.Ended)}, Remove: []string{gone.ID, keep.ID}})
	if got := collect(x, x.s.Sessions(x.ctx, store.Query{})); len(got) != 1 || got[0].Host != "web03" {
		x.Fatalf("sessions: %+v", got)
	}
}

// limits checks that what is within the limits is taken whole and what is
// beyond them is refused whole.
func (x *suite) limits() {
	e := Entry(1, store.Open)
	big := Blocks(e.ID, 0, 3, 1<<20)
	rest := store.MaxBatchBytes - (store.Batch{Sessions: []store.Session{e}, Blocks: Blocks(e.ID, 0, 4, 0)}).Size() - 3<<20
	big = append(big, Blocks(e.ID, 3, 1, rest)...)
	b := store.Batch{Sessions: []store.Session{e}, Blocks: big}
	if b.Size() != store.MaxBatchBytes {
		x.Fatalf("the batch has %d bytes", b.Size())
	}
	x.write(b)
	x.sameBlocks(collect(x, x.s.Blocks(x.ctx, e.ID, 0)), big)

	for _, size := range []int{1, 500, 2000, 7000} {
		many := Entry(2, store.Open)
		b := store.Batch{Sessions: []store.Session{many}, Blocks: Blocks(many.ID, 0, store.MaxBatchItems-1, size)}
		x.write(b)
		x.sameBlocks(collect(x, x.s.Blocks(x.ctx, many.ID, 0)), b.Blocks)
	}
	var sessions []store.Session
	var ids []string
	for n := range store.MaxBatchItems {
		s := Entry(n, store.Ended)
		s.Command = string(make([]byte, 400))
		sessions = append(sessions, s)
		ids = append(ids, s.ID)
	}
	x.write(store.Batch{Sessions: sessions})
	x.write(store.Batch{Remove: ids})
	for _, id := range ids {
		if _, err := x.s.Session(x.ctx, id); !errors.Is(err, store.ErrNotFound) {
			x.Fatalf("removed session: %v", err)
		}
	}

	if err := x.try(store.Batch{Blocks: Blocks(e.ID, 4, store.MaxBatchItems+1, 1)}); !errors.Is(err, store.ErrTooBig) {
		x.Fatalf("too many items: %v", err)
	}
	if err := x.try(store.Batch{Blocks: Blocks(e.ID, 4, 1, store.MaxBatchBytes)}); !errors.Is(err, store.ErrTooBig) {
		x.Fatalf("too many bytes: %v", err)
	}
	x.sameBlocks(collect(x, x.s.Blocks(x.ctx, e.ID, 4)), nil)
}

func (x *suite) refusals() {
	e := Entry(1, store.Open)
	x.write(store.Batch{Sessions: []store.Session{e}, Blocks: Blocks(e.ID, 0, 2, 10)})
	ended := Entry(2, store.Ended)
	x.write(store.Batch{Sessions: []store.Session{ended}, Blocks: Blocks(ended.ID, 0, 2, 10)})
	valid, again := Entry(3, store.Open), ended
	again.State = store.Open
	for name, c := range map[string]struct {
		batch store.Batch
		want  error
	}{
		"no ID":                    {store.Batch{Sessions: []store.Session{{State: store.Open}}}, store.ErrInvalid},
		"ID not of NewID":          {store.Batch{Sessions: []store.Session{{ID: "x", State: store.Open}}}, store.ErrInvalid},
		"upper case":               {store.Batch{Remove: []string{"ABCDEFGHABCDEFGHABCDEFGHAB"}}, store.ErrInvalid},
		"no state":                 {store.Batch{Sessions: []store.Session{{ID: store.NewID(start)}}}, store.ErrInvalid},
		"block without session":    {store.Batch{Blocks: Blocks(store.NewID(start), 0, 1, 1)}, store.ErrNotFound},
		"block of an ended one":    {store.Batch{Blocks: Blocks(ended.ID, 2, 1, 1)}, store.ErrNotFound},
		"opened again":             {store.Batch{Sessions: []store.Session{again}}, store.ErrInvalid},
		"a new block of ended one": {store.Batch{Sessions: []store.Session{ended}, Blocks: Blocks(ended.ID, 0, 1, 1)}, store.ErrInvalid},
		"hole":                     {store.Batch{Blocks: Blocks(e.ID, 3, 1, 1)}, store.ErrInvalid},
		"block again":              {store.Batch{Blocks: Blocks(e.ID, 1, 1, 1)}, store.ErrInvalid},
		"not from 0":               {store.Batch{Sessions: []store.Session{valid}, Blocks: Blocks(valid.ID, 1, 1, 1)}, store.ErrInvalid},
		"audit without a sequence": {store.Batch{Audit: []store.AuditRecord{{Event: "auth"}}}, store.ErrInvalid},
		"one good, one bad":        {store.Batch{Sessions: []store.Session{valid}, Blocks: Blocks(e.ID, 3, 1, 1)}, store.ErrInvalid},
	} {
		if err := x.try(c.batch); !errors.Is(err, c.want) {
			x.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	if got := collect(x, x.s.Sessions(x.ctx, store.Query{})); len(got) != 2 {
		x.Fatalf("of refused batches something was applied: %+v", got)
	}
	x.write(store.Batch{Blocks: Blocks(e.ID, 2, 1, 10)})
	x.sameBlocks(collect(x, x.s.Blocks(x.ctx, e.ID, 0)), Blocks(e.ID, 0, 3, 10))
}

func (x *suite) interrupted() {
	with, without, ended := Entry(1, store.Open), Entry(2, store.Open), Entry(3, store.Open)
	x.write(store.Batch{Sessions: []store.Session{with, without, ended}})
	blocks := Blocks(with.ID, 0, 5, 1000)
	for i := range blocks {
		blocks[i].Time = start.Add(time.Duration(i) * time.Minute)
	}
	x.write(store.Batch{Blocks: blocks})
	ended.State, ended.Ended, ended.Blocks = store.Ended, start.Add(time.Hour), 1
	x.write(store.Batch{Sessions: []store.Session{ended}, Blocks: Blocks(ended.ID, 0, 1, 10), Closing: true})

	for range 2 { // opening once more changes nothing
		x.s = x.reopen()
		with.State, with.Blocks, with.Bytes, with.StoredBytes = store.Interrupted, 5, 15000, 5000
		with.Ended = start.Add(4 * time.Minute)
		if got := x.session(with.ID); !same(got, with) {
			x.Fatalf("got %+v\nwant %+v", got, with)
		}
		without.State = store.Interrupted
		if got := x.session(without.ID); !same(got, without) {
			x.Fatalf("got %+v\nwant %+v", got, without)
		}
		if got := x.session(ended.ID); !same(got, ended) {
			x.Fatalf("got %+v\nwant %+v", got, ended)
		}
		x.sameBlocks(collect(x, x.s.Blocks(x.ctx, with.ID, 0)), blocks)
	}
	if got := collect(x, x.s.Sessions(x.ctx, store.Query{State: store.Interrupted})); len(got) != 2 {
		x.Fatalf("%d interrupted sessions are listed", len(got))
	}
	if err := x.try(store.Batch{Blocks: Blocks(with.ID, 5, 1, 10)}); !errors.Is(err, store.ErrNotFound) {
		x.Fatalf("a block of an interrupted session: %v", err)
	}
}

func (x *suite) writers() {
	const writers, batches = 50, 20
	var wg sync.WaitGroup
	ids := make([]string, writers)
	for w := range writers {
		e := Entry(w, store.Open)
		ids[w] = e.ID
		wg.Go(func() {
			for n := range batches {
				b := store.Batch{Blocks: Blocks(e.ID, uint32(2*n), 2, 600)}
				if n == 0 {
					b.Sessions = []store.Session{e}
				}
				if err := x.s.Write(x.ctx, b, nil); err != nil {
					x.Errorf("writer %d: %v", w, err)
					return
				}
			}
			if err := x.s.Sync(x.ctx); err != nil {
				x.Errorf("writer %d: %v", w, err)
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		x.sameBlocks(collect(x, x.s.Blocks(x.ctx, id, 0)), Blocks(id, 0, 2*batches, 600))
	}
}

// readingWhileWriting checks that a slow reader neither stops a writer nor is
// confused by it.
func (x *suite) readingWhileWriting() {
	e := Entry(1, store.Open)
	x.write(store.Batch{Sessions: []store.Session{e}, Blocks: Blocks(e.ID, 0, 1, 100)})
	var n uint32
	for k, err := range x.s.Blocks(x.ctx, e.ID, 0) {
		if err != nil {
			x.Fatal(err)
		}
		if k.Number != n {
			x.Fatalf("block %d, expected %d", k.Number, n)
		}
		if n++; n < 200 {
			x.write(store.Batch{Blocks: Blocks(e.ID, n, 1, 100)})
		}
	}
	if n == 0 {
		x.Fatal("nothing was read")
	}
	x.sameBlocks(collect(x, x.s.Blocks(x.ctx, e.ID, 0)), Blocks(e.ID, 0, int(n), 100)[:n])
	var seen error
	for _, err := range x.s.Blocks(x.ctx, e.ID, 0) {
		if seen = err; err == nil {
			x.write(store.Batch{Remove: []string{e.ID}})
		}
	}
	if n > 1 && seen != nil && !errors.Is(seen, store.ErrNotFound) {
		x.Fatalf("removed while it was read: %v", seen)
	}
}

func (x *suite) cancelled() {
	e := Entry(1, store.Ended)
	x.write(store.Batch{Sessions: []store.Session{e}, Blocks: Blocks(e.ID, 0, 2, 10), Audit: []store.AuditRecord{record(1)}})
	ctx, cancel := context.WithCancel(x.ctx)
	cancel()
	_, one := x.s.Session(ctx, e.ID)
	_, latest := x.s.LastAudit(ctx)
	for name, err := range map[string]error{
		"session": one, "sessions": last(x.s.Sessions(ctx, store.Query{})), "blocks": last(x.s.Blocks(ctx, e.ID, 0)),
		"audit": last(x.s.Audit(ctx, store.AuditQuery{})), "last audit": latest,
	} {
		if !errors.Is(err, context.Canceled) {
			x.Errorf("%s with an ended context: %v", name, err)
		}
	}
}

func (x *suite) closed() {
	e := Entry(1, store.Open)
	done := make(chan error, 1)
	if err := x.s.Write(x.ctx, store.Batch{Sessions: []store.Session{e}}, func(err error) { done <- err }); err != nil {
		x.Fatal(err)
	}
	if err := x.s.Close(); err != nil {
		x.Fatal(err)
	}
	select {
	case err := <-done:
		if err != nil {
			x.Fatalf("queued when the store was closed: %v", err)
		}
	default:
		x.Fatal("Close did not commit what was queued")
	}
	if err := x.s.Close(); err != nil {
		x.Fatalf("a second Close: %v", err)
	}
	never := func(error) { x.Error("committed was called for a batch that was refused") }
	if err := x.s.Write(x.ctx, store.Batch{Sessions: []store.Session{e}}, never); !errors.Is(err, store.ErrClosed) {
		x.Fatalf("Write after Close: %v", err)
	}
	if err := x.s.Sync(x.ctx); !errors.Is(err, store.ErrClosed) {
		x.Fatalf("Sync after Close: %v", err)
	}
	x.s = x.reopen()
	if got := x.session(e.ID); got.State != store.Interrupted {
		x.Fatalf("a session that was open when the store was closed is %s", got.State)
	}
}
