// Package memstore keeps recordings in memory, for tests: of programs that
// write recordings, and of what other implementations are held to. A test can
// make it slow, full or broken.
//
// It refuses what jump/store says that a store refuses; nothing of it is left
// when the process ends.
package memstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/fleetca/fleetca/jump/store"
)

// queueBytes bounds the batches that are queued.
const queueBytes = 4 * store.MaxBatchBytes

// Store is a store.Store in memory. Make it with New.
type Store struct {
	admission store.Admission
	room      *semaphore.Weighted
	done      chan struct{} // closed when the committing goroutine has ended

	mu      sync.Mutex
	changed *sync.Cond
	queue   []queued
	held    bool
	closed  bool
	failure error
	space   store.Space

	sessions map[string]store.Session
	blocks   map[string][]store.Block
	audit    map[uint64]store.AuditRecord
}

type queued struct {
	batch     store.Batch
	size      int64
	committed func(error)
	barrier   chan struct{} // of Sync, which queues no batch
}

var _ store.Store = (*Store)(nil)

// New returns an empty store. Close ends its goroutine.
func New() *Store {
	s := &Store{
		room:     semaphore.NewWeighted(queueBytes),
		done:     make(chan struct{}),
		space:    store.Space{Free: 1 << 40, Level: store.Plenty},
		sessions: make(map[string]store.Session),
		blocks:   make(map[string][]store.Block),
		audit:    make(map[uint64]store.AuditRecord),
	}
	s.changed = sync.NewCond(&s.mu)
	go s.commit()
	return s
}

// Reopen closes the store and returns one with what was committed, as another
// process would find it.
func (s *Store) Reopen() *Store {
	_ = s.Close() // it has no error to tell
	n := New()
	n.mu.Lock()
	defer n.mu.Unlock()
	maps.Copy(n.sessions, s.sessions)
	maps.Copy(n.blocks, s.blocks)
	maps.Copy(n.audit, s.audit)
	for id, e := range n.sessions {
		if e.State == store.Open {
			n.sessions[id] = store.Interrupt(e, slices.Values(n.blocks[id]))
		}
	}
	return n
}

// SetSpace sets what Space tells, and so what Write refuses.
func (s *Store) SetSpace(sp store.Space) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.space = sp
}

// SetLevel sets the level of Space.
func (s *Store) SetLevel(l store.Level) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.space.Level = l
}

// Hold makes the store infinitely slow: nothing is committed until Release.
func (s *Store) Hold() { s.hold(true) }

// Release ends what Hold began.
func (s *Store) Release() { s.hold(false) }

func (s *Store) hold(h bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = h
	s.changed.Broadcast()
}

// Fail makes commits and writes from now on fail with err: with ErrFull they
// do until Fail(nil), with others the store has failed for good.
func (s *Store) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure = err
}

// Write implements store.Store.
func (s *Store) Write(ctx context.Context, b store.Batch, committed func(error)) error {
	if err := b.Check(); err != nil {
		return err
	}
	size := int64(b.Size())
	if err := s.room.Acquire(ctx, size); err != nil {
		return fmt.Errorf("waiting for room in the store's queue: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.writable()
	if err == nil {
		err = s.admission.Accept(b, s.space.Level)
	}
	if err != nil {
		s.room.Release(size)
		return err
	}
	s.queue = append(s.queue, queued{batch: b, size: size, committed: committed})
	s.changed.Broadcast()
	return nil
}

func (s *Store) writable() error {
	switch {
	case s.closed:
		return store.ErrClosed
	case s.failure != nil:
		return s.failed()
	}
	return nil
}

// failed is the error that Fail asked for, nil without one.
func (s *Store) failed() error {
	if s.failure == nil || errors.Is(s.failure, store.ErrFull) {
		return s.failure
	}
	return fmt.Errorf("%w: %w", store.ErrFailed, s.failure)
}

// Sync implements store.Store.
func (s *Store) Sync(ctx context.Context) error {
	barrier := make(chan struct{})
	s.mu.Lock()
	if err := s.writable(); err != nil {
		s.mu.Unlock()
		return err
	}
	s.queue = append(s.queue, queued{barrier: barrier})
	s.changed.Broadcast()
	s.mu.Unlock()
	select {
	case <-barrier:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// commit applies what is queued, until the store is closed and has nothing
// queued.
func (s *Store) commit() {
	defer close(s.done)
	for {
		s.mu.Lock()
		for (len(s.queue) == 0 || s.held) && !(s.closed && len(s.queue) == 0) {
			s.changed.Wait()
		}
		if len(s.queue) == 0 {
			s.mu.Unlock()
			return
		}
		q := s.queue[0]
		s.queue = s.queue[1:]
		var err error
		if q.barrier == nil {
			err = s.commitOne(q.batch)
		}
		s.mu.Unlock()
		if q.barrier != nil {
			close(q.barrier)
			continue
		}
		s.room.Release(q.size)
		if q.committed != nil {
			q.committed(err)
		}
	}
}

// commitOne must be called with mu held.
func (s *Store) commitOne(b store.Batch) error {
	err := s.failed()
	for _, e := range b.Sessions {
		if old, ok := s.sessions[e.ID]; ok && err == nil {
			err = store.CheckReplace(old, e, b)
		}
	}
	if err != nil {
		s.admission.Refuse(b, err)
		return err
	}
	if err := s.admission.Apply(b); err != nil {
		return err
	}
	s.apply(b)
	return nil
}

// apply must be called with mu held.
func (s *Store) apply(b store.Batch) {
	for _, e := range b.Sessions {
		s.sessions[e.ID] = e
	}
	for _, k := range b.Blocks {
		if k.Time.IsZero() {
			k.Time = time.Now()
		}
		k.Time = k.Time.UTC().Truncate(time.Microsecond)
		s.space.Used += uint64(len(k.Data))
		s.blocks[k.Session] = append(s.blocks[k.Session], k)
	}
	for _, r := range b.Audit {
		s.space.Used += uint64(len(r.Line))
		s.audit[r.Sequence] = r
	}
	for _, id := range b.Remove {
		for _, k := range s.blocks[id] {
			s.space.Used -= uint64(len(k.Data))
		}
		delete(s.sessions, id)
		delete(s.blocks, id)
	}
}

// Space implements store.Store.
func (s *Store) Space() store.Space {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.space
}

// Close implements store.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed, s.held = true, false
	s.changed.Broadcast()
	s.mu.Unlock()
	<-s.done
	return nil
}

func cloneBlock(k store.Block) store.Block {
	k.Data = bytes.Clone(k.Data)
	return k
}
