package memstore

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/fleetca/fleetca/jump/store"
)

// Session implements store.Store.
func (s *Store) Session(ctx context.Context, id string) (store.Session, error) {
	if err := ctx.Err(); err != nil {
		return store.Session{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.sessions[id]; ok {
		return e, nil
	}
	return store.Session{}, fmt.Errorf("session %q: %w", id, store.ErrNotFound)
}

// Sessions implements store.Store.
func (s *Store) Sessions(ctx context.Context, q store.Query) iter.Seq2[store.Session, error] {
	return func(yield func(store.Session, error) bool) {
		s.mu.Lock()
		all := slices.SortedFunc(maps.Values(s.sessions), func(a, b store.Session) int {
			return cmp.Or(b.Started.Compare(a.Started), cmp.Compare(b.ID, a.ID))
		})
		s.mu.Unlock()
		walk(ctx, all, q.Match, q.Limit, yield)
	}
}

// Blocks implements store.Store.
func (s *Store) Blocks(ctx context.Context, id string, from uint32) iter.Seq2[store.Block, error] {
	return func(yield func(store.Block, error) bool) {
		for n := from; ; n++ {
			if err := ctx.Err(); err != nil {
				yield(store.Block{}, err)
				return
			}
			s.mu.Lock()
			_, ok := s.sessions[id]
			blocks := s.blocks[id]
			s.mu.Unlock()
			if !ok {
				yield(store.Block{}, fmt.Errorf("session %q: %w", id, store.ErrNotFound))
				return
			}
			if int64(n) >= int64(len(blocks)) || !yield(cloneBlock(blocks[n]), nil) {
				return
			}
		}
	}
}

// Audit implements store.Store.
func (s *Store) Audit(ctx context.Context, q store.AuditQuery) iter.Seq2[store.AuditRecord, error] {
	return func(yield func(store.AuditRecord, error) bool) {
		s.mu.Lock()
		all := slices.SortedFunc(maps.Values(s.audit), func(a, b store.AuditRecord) int {
			return cmp.Compare(a.Sequence, b.Sequence)
		})
		s.mu.Unlock()
		for i := range all {
			all[i].Line = bytes.Clone(all[i].Line)
		}
		walk(ctx, all, q.Match, q.Limit, yield)
	}
}

// LastAudit implements store.Store.
func (s *Store) LastAudit(ctx context.Context) (store.AuditRecord, error) {
	if err := ctx.Err(); err != nil {
		return store.AuditRecord{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.audit) == 0 {
		return store.AuditRecord{}, fmt.Errorf("last audit record: %w", store.ErrNotFound)
	}
	r := s.audit[slices.Max(slices.Collect(maps.Keys(s.audit)))]
	r.Line = bytes.Clone(r.Line)
	return r, nil
}

// walk yields what matches of all, at most limit if that is positive.
func walk[T any](ctx context.Context, all []T, match func(T) bool, limit int, yield func(T, error) bool) {
	n := 0
	for _, v := range all {
		if err := ctx.Err(); err != nil {
			yield(*new(T), err)
			return
		}
		if !match(v) {
			continue
		}
		if n++; !yield(v, nil) || n == limit {
			return
		}
	}
}
