package badgerstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/fleetca/fleetca/jump/store"
)

// item is what is queued: a batch, or the mark of a Sync.
type item struct {
	batch     store.Batch
	size      int
	committed func(error)
	barrier   chan struct{}
	err       error
}

// Write implements store.Store.
func (s *Store) Write(ctx context.Context, b store.Batch, committed func(error)) error {
	if err := b.Check(); err != nil {
		return err
	}
	size := b.Size()
	if err := s.room.Acquire(ctx, int64(size)); err != nil {
		return fmt.Errorf("waiting for the recording store: %w", err)
	}
	level := s.disk.space().Level
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.writable()
	if err == nil {
		err = s.admission.Accept(b, level)
	}
	if err != nil {
		s.room.Release(int64(size))
		return err
	}
	s.enqueue(item{batch: b, size: size, committed: committed})
	return nil
}

func (s *Store) writable() error {
	switch {
	case s.closing:
		return store.ErrClosed
	case s.failure != nil:
		return s.failure
	}
	return nil
}

// enqueue must be called with mu held.
func (s *Store) enqueue(i item) {
	if len(s.queue) == 0 {
		s.firstAt = time.Now()
	}
	s.queue = append(s.queue, i)
	s.queued += i.size
	s.soon = s.soon || i.batch.Soon || i.barrier != nil
	s.poke()
}

func (s *Store) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Sync implements store.Store.
func (s *Store) Sync(ctx context.Context) error {
	barrier := make(chan struct{})
	s.mu.Lock()
	err := s.writable()
	if err == nil {
		s.enqueue(item{barrier: barrier})
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case <-barrier:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// commitGroups commits what is queued until the store closes and nothing is
// queued anymore.
func (s *Store) commitGroups() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		group, wait, done := s.next()
		switch {
		case done:
			return
		case group != nil:
			s.commit(group)
		case wait > 0:
			timer.Reset(wait)
			select {
			case <-s.wake:
			case <-timer.C:
			}
		default:
			<-s.wake
		}
	}
}

// next takes a group off the queue when it is time to: or says how long to
// wait for more, at most.
func (s *Store) next() (group []item, wait time.Duration, done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return nil, 0, s.closing
	}
	if !s.closing && !s.soon && s.queued < eagerBytes {
		if wait := s.cfg.GroupEvery - time.Since(s.firstAt); wait > 0 {
			return nil, wait, false
		}
	}
	n, size := 0, 0
	for n < len(s.queue) && (n == 0 || size+s.queue[n].size <= groupBytes) {
		size += s.queue[n].size
		n++
	}
	// A copy, so that what was committed can be collected.
	group = append([]item(nil), s.queue[:n]...)
	s.queue = append([]item(nil), s.queue[n:]...)
	s.queued -= size
	// What is left has waited already.
	s.soon = len(s.queue) > 0
	return group, 0, false
}

// commit makes a group durable and tells each of its batches.
func (s *Store) commit(group []item) {
	s.committing.Lock()
	if err := s.apply(group); err != nil {
		s.fail(err)
		for i := range group {
			if group[i].err == nil {
				group[i].err = s.failed()
			}
		}
	}
	s.committing.Unlock()
	for _, i := range group {
		if i.barrier != nil {
			close(i.barrier)
			continue
		}
		s.room.Release(int64(i.size))
		if len(i.batch.Remove) > 0 && i.err == nil {
			s.unswept.Store(true)
			s.pokeKeeper()
		}
		if i.committed != nil {
			i.committed(i.err)
		}
	}
}

func (s *Store) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure
}

// fail makes the store refuse all from now on. After a failed sync nobody
// knows what is on disk; opening the store again finds out.
func (s *Store) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure == nil {
		s.failure = fmt.Errorf("%w: %w", store.ErrFailed, err)
		s.cfg.Log.Error("recording store failed", "error", err)
	}
}

// apply writes the batches of a group and syncs. Its error is the store's;
// that of a batch which wasn't applied is left with it. A crash in here leaves
// those transactions of the group that were written: whole batches, in order,
// none of which was acknowledged.
func (s *Store) apply(group []item) error {
	if err := s.failed(); err != nil {
		return err
	}
	room := s.disk.admit(group)
	t := s.begin()
	defer func() { t.txn.Discard() }()
	for n := range group {
		i := &group[n]
		if i.barrier != nil {
			continue
		}
		if i.err = room(i.batch); i.err != nil {
			s.admission.Refuse(i.batch, i.err)
			continue
		}
		entries, err := t.entries(i.batch)
		if err == nil && !t.fits(entries) {
			if err := t.commit(); err != nil {
				return err
			}
			t = s.begin()
			entries, err = t.entries(i.batch)
		}
		if err != nil {
			i.err = err
			s.admission.Refuse(i.batch, err)
			continue
		}
		if i.err = s.admission.Apply(i.batch); i.err != nil {
			continue
		}
		if err := t.add(entries); err != nil {
			return err
		}
	}
	if err := t.commit(); err != nil {
		return err
	}
	return s.disk.sync()
}

// transaction gathers batches of a group.
type transaction struct {
	s       *Store
	txn     *badger.Txn
	count   int64
	size    int64
	written written
	// Of the entries that were made last: the totals of their sessions, and
	// those that need no totals anymore.
	sums  map[string]totals
	ended []string
}

func (s *Store) begin() *transaction {
	return &transaction{s: s, txn: s.db.NewTransaction(true), sums: make(map[string]totals)}
}

// commit writes the transaction, not yet durably.
func (t *transaction) commit() error {
	if t.count == 0 {
		return nil
	}
	if err := t.txn.Commit(); err != nil {
		return fmt.Errorf("committing: %w", err)
	}
	return t.s.disk.wrote(t.written)
}

// entries makes what a batch changes, as of what the transaction has so far.
// A nil value deletes.
func (t *transaction) entries(b store.Batch) ([]entry, error) {
	clear(t.sums)
	t.ended = b.Remove
	var all []entry
	for _, e := range b.Sessions {
		more, err := t.session(b, e)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	for _, k := range b.Blocks {
		if k.Time.IsZero() {
			k.Time = t.s.cfg.Now()
		}
		sum, ok := t.sums[k.Session]
		if !ok {
			sum = t.s.totals[k.Session]
		}
		sum.raw += uint64(k.Raw)
		sum.stored += uint64(len(k.Data))
		t.sums[k.Session] = sum
		all = append(all, entry{blockKey(k.Session, k.Number), encodeBlock(k, sum)})
	}
	for _, r := range b.Audit {
		all = append(all, entry{auditKey(r.Sequence), encodeAudit(r)})
	}
	for _, id := range b.Remove {
		more, err := t.removal(b, id)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	return all, nil
}

type entry struct{ key, value []byte }

// session makes the entries of one put.
func (t *transaction) session(b store.Batch, e store.Session) ([]entry, error) {
	var all []entry
	old, err := t.old(e.ID)
	switch {
	case errors.Is(err, badger.ErrKeyNotFound):
		if _, err := t.txn.Get(idKey(removedPrefix, e.ID)); err == nil {
			return nil, fmt.Errorf("%w: session %s was removed", store.ErrInvalid, e.ID)
		} else if !errors.Is(err, badger.ErrKeyNotFound) {
			return nil, err
		}
	case err != nil:
		return nil, err
	default:
		if err := store.CheckReplace(old, e, b); err != nil {
			return nil, err
		}
		all = append(all, entry{timeKey(old.Started, e.ID), nil})
	}
	raw, err := encodeSession(e)
	if err != nil {
		return nil, fmt.Errorf("%w: session %s: %w", store.ErrInvalid, e.ID, err)
	}
	open := entry{idKey(openPrefix, e.ID), nil}
	if e.State == store.Open {
		open.value = []byte{}
	} else {
		t.ended = append(t.ended[:len(t.ended):len(t.ended)], e.ID)
	}
	return append(all, entry{idKey(sessionPrefix, e.ID), raw}, entry{timeKey(e.Started, e.ID), []byte{}}, open), nil
}

// removal makes the entries that take a session away. Its blocks, which can
// be too many for a transaction, are out of reach with that, and are dropped
// by the keeper: the mark of removedPrefix tells it to, also after a crash.
func (t *transaction) removal(b store.Batch, id string) ([]entry, error) {
	var starts []time.Time
	old, err := t.old(id)
	switch {
	case err == nil:
		starts = append(starts, old.Started)
	case !errors.Is(err, badger.ErrKeyNotFound):
		return nil, err
	}
	for _, e := range b.Sessions {
		if e.ID == id { // put by the same batch
			starts = append(starts, e.Started)
		}
	}
	if len(starts) == 0 {
		return nil, nil
	}
	all := []entry{
		{idKey(sessionPrefix, id), nil},
		{idKey(openPrefix, id), nil},
		{idKey(removedPrefix, id), []byte{}},
	}
	for _, at := range starts {
		all = append(all, entry{timeKey(at, id), nil})
	}
	return all, nil
}

func (t *transaction) old(id string) (store.Session, error) {
	i, err := t.txn.Get(idKey(sessionPrefix, id))
	if err != nil {
		return store.Session{}, err
	}
	var e store.Session
	err = i.Value(func(raw []byte) error {
		e, err = decodeSession(raw)
		return err
	})
	return e, err
}

// fits says whether the entries fit into the transaction too. They always fit
// into an empty one: store.MaxBatchItems sees to that.
func (t *transaction) fits(entries []entry) bool {
	count, size := t.count+int64(len(entries)), t.size
	for _, e := range entries {
		size += e.size()
	}
	return t.count == 0 || count < t.s.db.MaxBatchCount()-1 && size < t.s.db.MaxBatchSize()-1024
}

// size is at least what Badger counts an entry for.
func (e entry) size() int64 {
	return int64(len(e.key) + min(len(e.value), valueThreshold) + 32)
}

func (t *transaction) add(entries []entry) error {
	for _, e := range entries {
		var err error
		if e.value == nil {
			err = t.txn.Delete(e.key)
		} else {
			err = t.txn.Set(e.key, e.value)
		}
		if err != nil {
			return fmt.Errorf("writing %q: %w", e.key, err)
		}
		t.count++
		t.size += e.size()
		if len(e.value) >= valueThreshold {
			t.written.add(written{values: uint64(len(e.key) + len(e.value) + entryOverhead), keys: uint64(len(e.key)) + entryOverhead})
		} else {
			t.written.add(written{keys: uint64(len(e.key)+len(e.value)) + entryOverhead})
		}
	}
	maps.Copy(t.s.totals, t.sums)
	for _, id := range t.ended {
		delete(t.s.totals, id)
	}
	return nil
}
