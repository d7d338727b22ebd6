package memstore_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/fleetca/fleetca/jump/store"
	"github.com/fleetca/fleetca/jump/store/memstore"
	"github.com/fleetca/fleetca/jump/store/storetest"
)

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) (store.Store, func() store.Store) {
		s := memstore.New()
		return s, func() store.Store {
			s = s.Reopen()
			return s
		}
	})
}

// TestFaults checks what tests of others rely on.
func TestFaults(t *testing.T) {
	s := memstore.New()
	defer s.Close()
	e := storetest.Entry(1, store.Open)
	write := func(b store.Batch) error {
		done := make(chan error, 1)
		if err := s.Write(t.Context(), b, func(err error) { done <- err }); err != nil {
			return err
		}
		return <-done
	}
	if err := write(store.Batch{Sessions: []store.Session{e}}); err != nil {
		t.Fatal(err)
	}

	s.Hold()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	var n uint32
	var err error
	for ; err == nil; n++ {
		err = s.Write(ctx, store.Batch{Blocks: storetest.Blocks(e.ID, n, 1, 1<<20)}, nil)
	}
	if !errors.Is(err, context.DeadlineExceeded) || n < 2 || n > 17 {
		t.Errorf("a held store took %d MiB: %v", n, err)
	}
	s.Release()
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}

	s.SetLevel(store.Low)
	if err := write(store.Batch{Sessions: []store.Session{storetest.Entry(2, store.Open)}}); !errors.Is(err, store.ErrFull) {
		t.Errorf("a new session at level low: %v", err)
	}
	s.SetLevel(store.Plenty)
	s.Fail(store.ErrFull)
	if err := write(store.Batch{Audit: []store.AuditRecord{{Sequence: 1}}}); !errors.Is(err, store.ErrFull) || errors.Is(err, store.ErrFailed) {
		t.Errorf("while it is full: %v", err)
	}
	s.Fail(nil)
	if err := write(store.Batch{Audit: []store.AuditRecord{{Sequence: 1}}}); err != nil {
		t.Errorf("after it was full: %v", err)
	}
	s.Fail(errors.New("broken"))
	if err := write(store.Batch{}); !errors.Is(err, store.ErrFailed) {
		t.Errorf("when it has failed: %v", err)
	}
}
