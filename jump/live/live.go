// Package live knows the sessions that run in this process: lists them, ends
// them, and waits until there are none.
//
// It stores nothing, decides nothing about who may see or end a session, and
// never ends one by itself.
package live

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/fleetca/fleetca/jump/store"
)

// Entry is a running session.
type Entry struct {
	// Session as it was when it began; its ID is not empty.
	Session store.Session
	// End asks the session to end, and why. It returns without waiting for that,
	// may be called more than once and from several goroutines. The reason is
	// shown to the person whose session it is, and kept with the recording.
	End func(reason string)
}

// Registry holds the running sessions. Its methods may be called concurrently.
type Registry struct {
	mu      sync.Mutex
	entries map[string]Entry
	empty   chan struct{} // closed while nothing runs
}

// New returns an empty Registry.
func New() *Registry {
	empty := make(chan struct{})
	close(empty)
	return &Registry{entries: map[string]Entry{}, empty: empty}
}

// Add enters a session. The returned function takes it out again and may be
// called more than once; who adds a session calls it when the session is over
// and its recording is sealed.
func (r *Registry) Add(e Entry) (remove func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.entries) == 0 {
		r.empty = make(chan struct{})
	}
	id := e.Session.ID
	r.entries[id] = e
	return sync.OnceFunc(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.entries, id)
		if len(r.entries) == 0 {
			close(r.empty)
		}
	})
}

// List returns the running sessions, the newest first.
func (r *Registry) List() []store.Session {
	r.mu.Lock()
	sessions := make([]store.Session, 0, len(r.entries))
	for _, e := range r.entries {
		sessions = append(sessions, e.Session)
	}
	r.mu.Unlock()
	slices.SortFunc(sessions, func(a, b store.Session) int {
		if c := b.Started.Compare(a.Started); c != 0 {
			return c
		}
		return strings.Compare(b.ID, a.ID)
	})
	return sessions
}

// Each calls f for each running session, in no order, until f returns false.
// Sessions may come and go meanwhile, and f may call the Registry.
func (r *Registry) Each(f func(Entry) bool) {
	for _, e := range r.all() {
		if !f(e) {
			return
		}
	}
}

// End asks the session to end and reports whether it runs here.
func (r *Registry) End(id, reason string) bool {
	r.mu.Lock()
	e, ok := r.entries[id]
	r.mu.Unlock()
	if ok {
		e.End(reason)
	}
	return ok
}

// Running reports whether the session runs here.
func (r *Registry) Running(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.entries[id]
	return ok
}

// EndAll asks every running session to end.
func (r *Registry) EndAll(reason string) {
	for _, e := range r.all() {
		e.End(reason)
	}
}

// Len returns how many sessions run.
func (r *Registry) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.entries)
}

// Wait returns nil once no session runs, or ctx's error if that ends first. A
// session that is added meanwhile is waited for too, as long as another one
// runs.
func (r *Registry) Wait(ctx context.Context) error {
	r.mu.Lock()
	empty := r.empty
	r.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// all is a copy, so that nothing is called with the lock held.
func (r *Registry) all() []Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	entries := make([]Entry, 0, len(r.entries))
	for _, e := range r.entries {
		entries = append(entries, e)
	}
	return entries
}
