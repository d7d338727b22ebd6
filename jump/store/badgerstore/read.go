package badgerstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/dgraph-io/badger/v4"

	"github.com/fleetca/fleetca/jump/store"
)

// Reads go by pages: each page is one short read transaction, and nothing is
// held while what was read is yielded. A reader that takes hours, as somebody
// who watches a replay does, so keeps neither old data nor the store's closing
// waiting.
const (
	pageItems = 64
	pageBytes = mib
)

// view runs fn in a read transaction, unless the store is closed.
func (s *Store) view(ctx context.Context, fn func(*badger.Txn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.reading.RLock()
	defer s.reading.RUnlock()
	if s.closed {
		return store.ErrClosed
	}
	return s.db.View(fn)
}

// Session implements store.Store.
func (s *Store) Session(ctx context.Context, id string) (store.Session, error) {
	var e store.Session
	err := s.view(ctx, func(txn *badger.Txn) error {
		var err error
		e, err = getSession(txn, id)
		return err
	})
	return e, err
}

// getSession returns an error that wraps store.ErrNotFound or errDamaged, or
// another of Badger's.
func getSession(txn *badger.Txn, id string) (store.Session, error) {
	var e store.Session
	if !store.ValidID(id) {
		return e, fmt.Errorf("session %q: %w", id, store.ErrNotFound)
	}
	i, err := txn.Get(idKey(sessionPrefix, id))
	if errors.Is(err, badger.ErrKeyNotFound) {
		return e, fmt.Errorf("session %q: %w", id, store.ErrNotFound)
	}
	if err != nil {
		return e, fmt.Errorf("reading session %q: %w", id, err)
	}
	raw, err := i.ValueCopy(nil)
	if err != nil {
		// The key is there, its value isn't.
		return e, fmt.Errorf("reading session %q: %w: %w", id, errDamaged, err)
	}
	if e, err = decodeSession(raw); err != nil {
		return e, fmt.Errorf("reading session %q: %w", id, err)
	}
	return e, nil
}

// Sessions implements store.Store.
func (s *Store) Sessions(ctx context.Context, q store.Query) iter.Seq2[store.Session, error] {
	return func(yield func(store.Session, error) bool) {
		// The key before which the next page begins.
		end := []byte{timePrefix[0] + 1}
		if !q.Until.IsZero() {
			// All of the microsecond in which Until lies; Match is exact.
			end = append(timeStart(q.Until), 0xff)
		}
		for n := 0; ; {
			page, next, err := s.sessionPage(ctx, q, end)
			for _, e := range page {
				if err != nil {
					break
				}
				if n++; !yield(e, nil) || n == q.Limit {
					return
				}
			}
			if err != nil {
				yield(store.Session{}, fmt.Errorf("listing sessions: %w", err))
				return
			}
			if next == nil {
				return
			}
			end = next
		}
	}
}

// sessionPage returns what matches among the sessions that come before end,
// latest first, and where the page after this one begins: nil after the last.
func (s *Store) sessionPage(ctx context.Context, q store.Query, end []byte) (page []store.Session, next []byte, err error) {
	err = s.view(ctx, func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Reverse: true})
		defer it.Close()
		seen := 0
		for it.Seek(end); it.Valid(); it.Next() {
			key := it.Item().KeyCopy(nil)
			if key[0] != timePrefix[0] || len(key) != 1+timeLen+store.IDLength {
				if key[0] < timePrefix[0] {
					return nil
				}
				continue
			}
			if string(key) == string(end) {
				continue // the last of the page before
			}
			if !q.Since.IsZero() && string(key) < string(timeStart(q.Since)) {
				return nil
			}
			id := string(key[1+timeLen:])
			e, err := getSession(txn, id)
			if errors.Is(err, errDamaged) {
				// One that can't be read must not hide the others.
				e, err = store.Session{ID: id, Started: keyTime(key), State: store.Interrupted, Reason: err.Error()}, nil
			}
			if err != nil {
				return err
			}
			if q.Match(e) {
				page = append(page, e)
			}
			if seen++; seen == pageItems {
				next = key
				return nil
			}
		}
		return nil
	})
	return page, next, err
}

// Blocks implements store.Store.
func (s *Store) Blocks(ctx context.Context, id string, from uint32) iter.Seq2[store.Block, error] {
	return func(yield func(store.Block, error) bool) {
		for next := uint64(from); next <= 1<<32-1; {
			page, err := s.blockPage(ctx, id, uint32(next))
			for _, k := range page {
				if !yield(k, nil) {
					return
				}
			}
			if err != nil {
				yield(store.Block{}, fmt.Errorf("reading blocks: %w", err))
				return
			}
			if len(page) == 0 {
				return
			}
			next += uint64(len(page))
		}
	}
}

// blockPage returns some blocks from number from on, and with an error those
// that are readable before it.
func (s *Store) blockPage(ctx context.Context, id string, from uint32) (page []store.Block, err error) {
	err = s.view(ctx, func(txn *badger.Txn) error {
		if _, err := getSession(txn, id); err != nil && !errors.Is(err, errDamaged) {
			return err
		}
		it := txn.NewIterator(badger.IteratorOptions{Prefix: idKey(blockPrefix, id)})
		defer it.Close()
		size := 0
		for it.Seek(blockKey(id, from)); it.Valid() && len(page) < pageItems && size < pageBytes; it.Next() {
			want := uint64(from) + uint64(len(page))
			number := binary.BigEndian.Uint32(it.Item().Key()[1+store.IDLength:])
			if uint64(number) != want {
				return fmt.Errorf("session %q: %w: block %d is missing", id, errDamaged, want)
			}
			raw, err := it.Item().ValueCopy(nil)
			if err != nil {
				return fmt.Errorf("block %d of session %q: %w", number, id, err)
			}
			k, _, err := decodeBlock(raw)
			if err != nil {
				return fmt.Errorf("block %d of session %q: %w", number, id, err)
			}
			k.Session, k.Number = id, number
			page = append(page, k)
			size += len(raw)
		}
		return nil
	})
	return page, err
}

// Audit implements store.Store.
func (s *Store) Audit(ctx context.Context, q store.AuditQuery) iter.Seq2[store.AuditRecord, error] {
	return func(yield func(store.AuditRecord, error) bool) {
		from := q.FromSequence
		for n := 0; ; {
			page, last, err := s.auditPage(ctx, q, from)
			for _, r := range page {
				if n++; !yield(r, nil) || n == q.Limit {
					return
				}
			}
			if err != nil {
				yield(store.AuditRecord{}, fmt.Errorf("reading audit records: %w", err))
				return
			}
			if last == 0 || last+1 == 0 {
				return
			}
			from = last + 1
		}
	}
}

// auditPage returns what matches among some records from sequence from on, and
// the sequence of the last one that it looked at: 0 if there is none.
func (s *Store) auditPage(ctx context.Context, q store.AuditQuery, from uint64) (page []store.AuditRecord, last uint64, err error) {
	err = s.view(ctx, func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte(auditPrefix)})
		defer it.Close()
		seen, size := 0, 0
		for it.Seek(auditKey(from)); it.Valid() && seen < 8*pageItems && size < pageBytes; it.Next() {
			r, n, err := auditItem(it.Item())
			if err != nil {
				return err
			}
			if q.Match(r) {
				page = append(page, r)
			}
			last = r.Sequence
			seen++
			size += n
		}
		return nil
	})
	return page, last, err
}

func auditItem(i *badger.Item) (r store.AuditRecord, size int, err error) {
	sequence := binary.BigEndian.Uint64(i.Key()[len(auditPrefix):])
	err = i.Value(func(raw []byte) error {
		size = len(raw)
		r, err = decodeAudit(raw)
		return err
	})
	if err != nil {
		return r, 0, fmt.Errorf("audit record %d: %w", sequence, err)
	}
	r.Sequence = sequence
	return r, size, nil
}

// LastAudit implements store.Store.
func (s *Store) LastAudit(ctx context.Context) (store.AuditRecord, error) {
	var r store.AuditRecord
	err := s.view(ctx, func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Reverse: true, Prefix: []byte(auditPrefix)})
		defer it.Close()
		it.Seek(auditKey(1<<64 - 1))
		if !it.Valid() {
			return fmt.Errorf("last audit record: %w", store.ErrNotFound)
		}
		var err error
		r, _, err = auditItem(it.Item())
		return err
	})
	return r, err
}
