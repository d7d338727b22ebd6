package badgerstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/fleetca/fleetca/jump/store"
)

const (
	watchEvery   = 250 * time.Millisecond // how often the keeper looks at the disk
	measureEvery = 30 * time.Second
	collectEvery = 10 * time.Minute
	hurryEvery   = time.Second // instead, while room is short
	// sweepAtOnce is how many removed sessions lose their blocks in one go;
	// Badger compares each key with each of them.
	sweepAtOnce = 128
)

// checkSchema refuses what a later version wrote, and what isn't a recording
// store.
func (s *Store) checkSchema() error {
	var found string
	empty := false
	err := s.db.View(func(txn *badger.Txn) error {
		i, err := txn.Get([]byte(schemaKey))
		if err == nil {
			return i.Value(func(v []byte) error {
				found = string(v)
				return nil
			})
		}
		if !errors.Is(err, badger.ErrKeyNotFound) {
			return err
		}
		it := txn.NewIterator(badger.IteratorOptions{})
		defer it.Close()
		it.Rewind()
		empty = !it.Valid()
		return nil
	})
	switch {
	case err != nil:
		return fmt.Errorf("reading the version of the recording store: %w", err)
	case empty:
		err := s.db.Update(func(txn *badger.Txn) error { return txn.Set([]byte(schemaKey), []byte(schemaVersion)) })
		if err == nil {
			err = s.disk.sync()
		}
		if err != nil {
			return fmt.Errorf("making the recording store: %w", err)
		}
		return nil
	case found != schemaVersion:
		return fmt.Errorf("version %q of the recording store is not one that this program reads (%s)", found, schemaVersion)
	}
	return nil
}

// interrupt turns sessions that are still open into interrupted ones. A crash
// in here leaves some of them open, for the next time.
func (s *Store) interrupt(ctx context.Context) error {
	ids, err := s.marked(openPrefix)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := s.db.Update(func(txn *badger.Txn) error {
			e, err := getSession(txn, id)
			if errors.Is(err, errDamaged) || errors.Is(err, store.ErrNotFound) {
				// Lists show it; not being able to open the store because of
				// it would be worse.
				s.cfg.Log.Error("entry of an interrupted session is not readable", "session", id, "error", err)
				return nil
			}
			if err != nil {
				return err
			}
			if err := s.interruptOne(txn, &e); err != nil {
				return err
			}
			raw, err := encodeSession(e)
			if err != nil {
				return err
			}
			return errors.Join(txn.Set(idKey(sessionPrefix, id), raw), txn.Delete(idKey(openPrefix, id)))
		})
		if err != nil {
			return fmt.Errorf("marking session %s as interrupted: %w", id, err)
		}
	}
	if removed, err := s.marked(removedPrefix); err != nil {
		return err
	} else if len(removed) > 0 {
		s.unswept.Store(true)
	}
	if len(ids) == 0 {
		return nil
	}
	return s.disk.sync()
}

// interruptOne looks at the last block only: it has the totals.
func (s *Store) interruptOne(txn *badger.Txn, e *store.Session) error {
	it := txn.NewIterator(badger.IteratorOptions{Reverse: true, Prefix: idKey(blockPrefix, e.ID)})
	defer it.Close()
	e.State = store.Interrupted
	for it.Seek(blockKey(e.ID, 1<<32-1)); it.Valid(); it.Next() {
		number := binary.BigEndian.Uint32(it.Item().Key()[1+store.IDLength:])
		var sum totals
		err := it.Item().Value(func(raw []byte) error {
			k, t, err := decodeBlock(raw)
			e.Ended, sum = k.Time, t
			return err
		})
		if err != nil {
			// A machine that stopped before the value was on disk: never
			// acknowledged, and not to be read.
			s.cfg.Log.Warn("last block of an interrupted session is not readable", "session", e.ID, "block", number, "error", err)
			if err := txn.Delete(it.Item().KeyCopy(nil)); err != nil {
				return err
			}
			continue
		}
		e.Blocks, e.Bytes, e.StoredBytes = number+1, max(e.Bytes, sum.raw), sum.stored
		return nil
	}
	e.Blocks, e.StoredBytes = 0, 0
	return nil
}

// marked lists the IDs that have a key with the prefix.
func (s *Store) marked(prefix string) ([]string, error) {
	var ids []string
	err := s.db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte(prefix)})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			ids = append(ids, string(it.Item().Key()[len(prefix):]))
		}
		return nil
	})
	return ids, err
}

func (s *Store) pokeKeeper() {
	select {
	case s.keep <- struct{}{}:
	default:
	}
}

// keeper watches the disk, drops the blocks of removed sessions, and collects
// what they took, until the store closes.
func (s *Store) keeper() {
	watch := time.NewTicker(watchEvery)
	defer watch.Stop()
	measured, collected := time.Now(), time.Now()
	if s.unswept.Load() || s.disk.space().Level > store.Plenty {
		s.pokeKeeper()
	}
	for {
		swept := false
		select {
		case <-s.stop:
			return
		case <-s.keep:
			swept = true
		case <-watch.C:
		}
		s.disk.watch()
		every := collectEvery
		if s.disk.space().Level > store.Plenty {
			every = hurryEvery
		}
		if !s.cfg.noSweep && (swept || time.Since(collected) >= every) {
			if err := s.sweep(); errors.Is(err, errNotCalm) {
				s.cfg.Log.Debug("blocks of removed sessions are dropped later", "why", err)
			} else if err != nil {
				s.cfg.Log.Error("blocks of removed sessions were not dropped", "error", err)
			}
			s.collect()
			collected = time.Now()
		}
		if swept || time.Since(measured) >= measureEvery {
			s.disk.measure()
			if err := s.disk.protect(); err != nil {
				s.cfg.Log.Error("files of the recording store can't be made private", "error", err)
			}
			measured = time.Now()
		}
	}
}

// sweep drops the blocks of removed sessions. A crash in here leaves marks of
// sessions whose blocks may be gone already; the next sweep finds that out.
func (s *Store) sweep() error {
	if !s.unswept.Swap(false) {
		return nil
	}
	ids, err := s.marked(removedPrefix)
	for _, some := range slices.Collect(slices.Chunk(ids, sweepAtOnce)) {
		if err == nil {
			err = s.drop(some)
		}
	}
	if err != nil {
		s.unswept.Store(true)
	}
	return err
}

// drop drops the blocks of some removed sessions and then their marks. While
// it does, nothing is committed.
func (s *Store) drop(ids []string) error {
	s.committing.Lock()
	defer s.committing.Unlock()
	if err := s.failed(); err != nil {
		return err
	}
	if err := s.disk.roomToCollect(); err != nil {
		return err
	}
	prefixes := make([][]byte, len(ids))
	for i, id := range ids {
		prefixes[i] = idKey(blockPrefix, id)
	}
	// Not by deleting each block: Badger notices that a value isn't needed
	// anymore when it compacts what deletes it together with what refers to
	// it, which for keys as small as ours may be never.
	s.disk.busy.Add(1)
	defer s.disk.busy.Add(-1)
	if err := s.db.DropPrefix(prefixes...); err != nil {
		return fmt.Errorf("dropping blocks: %w", err)
	}
	err := s.db.Update(func(txn *badger.Txn) error {
		for _, id := range ids {
			if hasBlocks(txn, id) {
				// Badger only warns of a compaction that it didn't get to.
				s.unswept.Store(true)
				continue
			}
			if err := txn.Delete(idKey(removedPrefix, id)); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = s.disk.sync()
	}
	return err
}

func hasBlocks(txn *badger.Txn, id string) bool {
	it := txn.NewIterator(badger.IteratorOptions{Prefix: idKey(blockPrefix, id)})
	defer it.Close()
	it.Rewind()
	return it.Valid()
}

// collect rewrites value logs of which much isn't needed anymore.
func (s *Store) collect() {
	for s.failed() == nil {
		select {
		case <-s.stop:
			return
		default:
		}
		err := s.disk.roomToCollect()
		if err == nil {
			err = s.collectOne()
		}
		if errors.Is(err, badger.ErrNoRewrite) || errors.Is(err, errNotCalm) {
			return
		}
		if err != nil {
			s.cfg.Log.Warn("value log was not collected", "error", err)
			return
		}
	}
}

// collectOne collects one value log. Badger copies what is still needed to the
// current log and deletes the old one at once, durably, before the copy is:
// unless somebody iterates. So we do, until the copy is synced. Nothing is
// committed meanwhile, some tenths of a second: Badger reads what it has written
// last without a lock then, and logs that it writes get their blocks after.
func (s *Store) collectOne() error {
	s.committing.Lock()
	defer s.committing.Unlock()
	txn := s.db.NewTransaction(false)
	defer txn.Discard()
	it := txn.NewIterator(badger.IteratorOptions{})
	defer it.Close()
	ratio := 0.5
	if s.disk.space().Level == store.Full {
		ratio = 0.9 // what can be had for next to no room
	}
	s.disk.busy.Add(1)
	defer s.disk.busy.Add(-1)
	if err := s.db.RunValueLogGC(ratio); err != nil {
		return err
	}
	// Half of a value log at most was moved, by small values or big ones.
	moved := s.disk.size.vlog / 2
	if err := s.disk.wrote(written{values: moved, keys: moved / 4}); err != nil {
		return err
	}
	return s.disk.sync()
}
