package badgerstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetca/fleetca/jump/store"
)

const (
	crashBlock = 20_000 // most bytes of a block
	perBatch   = 3      // blocks of a batch; an audit record goes with them
)

// crashChild records from several writers, and prints what was acknowledged,
// until it is killed or has done its share and closes the store.
func crashChild(dir string) error {
	s, err := Open(context.Background(), childConfig(dir))
	if err != nil {
		return err
	}
	var sequence atomic.Uint64
	if r, err := s.LastAudit(context.Background()); err == nil {
		sequence.Store(r.Sequence)
	} else if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	say("opened")
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	for range cap(errs) {
		wg.Go(func() {
			var p pending
			for range 4 {
				if err := crashSession(s, &p, &sequence); err != nil {
					errs <- err
					return
				}
			}
			if err := p.wait(); err != nil {
				errs <- err
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
	}
	err = s.Close()
	say("closed")
	return err
}

func crashSession(s *Store, p *pending, sequence *atomic.Uint64) error {
	e := openEntry()
	id := e.ID
	if err := p.write(s, store.Batch{Sessions: []store.Session{e}, Soon: true}, func() { say("open %s", id) }); err != nil {
		return err
	}
	batches := uint32(rand.N(40))
	for n := uint32(0); n < batches*perBatch; n += perBatch {
		q := sequence.Add(1)
		b := store.Batch{Blocks: contentBlocks(id, n, perBatch, crashBlock), Audit: []store.AuditRecord{{Sequence: q, Session: id, Path: strconv.Itoa(int(n))}}, Soon: n%4 == 0}
		for _, k := range b.Blocks {
			e.Blocks++
			e.StoredBytes += uint64(len(k.Data))
			e.Bytes += uint64(k.Raw)
		}
		if err := p.write(s, b, func() { say("blocks %s %d %d", id, n+perBatch, q) }); err != nil {
			return err
		}
	}
	switch rand.N(3) {
	case 0:
		e.State, e.Ended = store.Ended, time.Now()
		return p.write(s, store.Batch{Sessions: []store.Session{e}, Closing: true}, func() { say("ended %s", id) })
	case 1:
		return p.write(s, store.Batch{Remove: []string{id}}, func() { say("removed %s", id) })
	}
	return nil
}

// acknowledged is what the children said was committed.
type acknowledged struct {
	state  map[string]string // the last word about a session
	blocks map[string]uint32
	audit  map[uint64]string // session and first block
}

func (a *acknowledged) note(line string) {
	f := strings.Fields(line)
	switch {
	case len(f) == 4 && f[0] == "blocks":
		n, _ := strconv.ParseUint(f[2], 10, 32)
		q, _ := strconv.ParseUint(f[3], 10, 64)
		a.blocks[f[1]] = uint32(n)
		a.audit[q] = fmt.Sprintf("%s %d", f[1], n-perBatch)
	case len(f) == 2:
		a.state[f[1]] = f[0]
	}
}

// check holds what is in the store against what was acknowledged: nothing of
// that is missing, and of the rest there are only whole batches in order.
func (a *acknowledged) check(t *testing.T, s store.Store) {
	t.Helper()
	ctx := t.Context()
	found := map[string]store.Session{}
	for e, err := range s.Sessions(ctx, store.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		found[e.ID] = e
		if a.state[e.ID] == "removed" {
			t.Errorf("session %s is there, its removal was acknowledged", e.ID)
		}
		if e.State == store.Open || a.state[e.ID] == "ended" && e.State != store.Ended {
			t.Errorf("session %s is %s, acknowledged as %s", e.ID, e.State, a.state[e.ID])
		}
		if err := checkRecording(ctx, s, e, a.blocks[e.ID], crashBlock); err != nil {
			t.Error(err)
		}
		if e.Blocks%perBatch != 0 {
			t.Errorf("session %s has %d blocks: not whole batches", e.ID, e.Blocks)
		}
		if e.State == store.Interrupted && e.Blocks > 0 && (e.Ended.Before(e.Started) || time.Since(e.Ended) > time.Hour) {
			t.Errorf("session %s ended at %v", e.ID, e.Ended)
		}
	}
	for id, state := range a.state {
		if _, ok := found[id]; !ok && state == "ended" {
			t.Errorf("session %s is gone, its end was acknowledged", id)
		}
	}
	// Audit records and blocks of one batch are there together, or not at all.
	records := map[string]bool{}
	for r, err := range s.Audit(ctx, store.AuditQuery{}) {
		if err != nil {
			t.Fatal(err)
		}
		if want, ok := a.audit[r.Sequence]; ok && want != r.Session+" "+r.Path {
			t.Errorf("audit record %d is of %s %s, acknowledged of %s", r.Sequence, r.Session, r.Path, want)
		}
		delete(a.audit, r.Sequence)
		records[r.Session+" "+r.Path] = true
		if e, ok := found[r.Session]; ok {
			if n, _ := strconv.Atoi(r.Path); uint32(n) >= e.Blocks {
				t.Errorf("audit record %d is there, blocks %s of its batch are not", r.Sequence, r.Path)
			}
		}
	}
	if len(a.audit) > 0 {
		t.Errorf("%d acknowledged audit records are missing", len(a.audit))
	}
	for id, e := range found {
		for n := uint32(0); n < e.Blocks; n += perBatch {
			if !records[fmt.Sprintf("%s %d", id, n)] {
				t.Errorf("blocks %d of session %s are there, the audit record of their batch is not", n, id)
			}
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}

// TestKilled kills a store at random moments, also while it opens and closes,
// and each time opens it as it is. BADGERSTORE_ROUNDS sets how often.
func TestKilled(t *testing.T) {
	rounds := 20
	if n, err := strconv.Atoi(os.Getenv("BADGERSTORE_ROUNDS")); err == nil {
		rounds = n
	}
	ack := &acknowledged{state: map[string]string{}, blocks: map[string]uint32{}, audit: map[uint64]string{}}
	dir := t.TempDir()
	var retried, blocks int
	for round := range rounds {
		c := startChild(t, "crash", dir)
		kill := time.AfterFunc(time.Duration(rand.N(600))*time.Millisecond, func() { _ = c.cmd.Process.Kill() })
		for c.out.Scan() {
			ack.note(c.out.Text())
		}
		_ = c.cmd.Wait()
		kill.Stop()
		if err := c.stderr.String(); strings.Contains(err, "child:") || strings.Contains(err, "panic") || strings.Contains(err, "SIG") {
			t.Fatalf("round %d: %v\n%s", round, c.cmd.ProcessState, err)
		}
		log := new(logBuffer)
		cfg := small(dir)
		cfg.Log = textLog(log)
		s, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatalf("round %d: opening after %v: %v\n%s", round, c.cmd.ProcessState, err, log.String())
		}
		if strings.Contains(log.String()+c.stderr.String(), "trying once more") {
			retried++
		}
		blocks += len(ack.audit) * perBatch
		ack.check(t, s)
		// What is checked doesn't need to be checked again and again.
		if round%10 == 9 {
			var all []string
			for e, err := range s.Sessions(t.Context(), store.Query{}) {
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, e.ID)
				ack.state[e.ID] = "removed"
			}
			for len(all) > 0 {
				n := min(len(all), 100)
				if err := writeNow(t, s, store.Batch{Remove: all[:n]}); err != nil {
					t.Fatal(err)
				}
				all = all[n:]
			}
		}
		if err := s.Close(); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	t.Logf("%d rounds, %d acknowledged blocks, opened at the second try %d times", rounds, blocks, retried)
}

// writeNow writes a batch and waits for it.
func writeNow(t testing.TB, s store.Store, b store.Batch) error {
	t.Helper()
	b.Soon = true
	done := make(chan error, 1)
	if err := s.Write(t.Context(), b, func(err error) { done <- err }); err != nil {
		return err
	}
	return <-done
}
