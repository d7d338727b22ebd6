package store

import (
	"fmt"
	"sync"
)

// Admission is what the implementations of Store share: it decides which
// batches are in order. It knows the sessions that are open in this process
// and how far their blocks are, written and committed, so that a recording
// never has a hole: when a batch fails, the later blocks of its sessions that
// are queued fail with it, and the writer may write the failed block again.
//
// The zero value is ready, for a store without open sessions. Accept must be
// called in the order in which batches are queued; then, in the same order,
// Apply or Refuse for each that was accepted. It is safe for concurrent use.
type Admission struct {
	mu   sync.Mutex
	open map[string]*openSession
}

// openSession is kept from the put of a session in state Open until a put in
// another state, or its removal, is accepted and nothing of it is queued.
type openSession struct {
	open    bool
	made    bool   // a put of it was applied
	queued  int    // accepted batches that name it and are neither applied nor refused
	blocks  int    // those among them that have blocks of it
	doomed  int    // those among them that must fail, since a block before theirs did
	cause   error  // why that one failed
	next    uint32 // number of the next block to accept
	applied uint32 // number of the next block to apply
}

// Accept decides on a batch that is to be queued while the level is l. Errors wrap
// ErrTooBig, ErrInvalid, ErrFull, or ErrNotFound for blocks of a session that
// neither is open nor put by the batch.
func (a *Admission) Accept(b Batch, l Level) error {
	if err := b.Check(); err != nil {
		return err
	}
	if l >= Full && !b.Ends() {
		return fmt.Errorf("%w: only what ends recordings is taken", ErrFull)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	put := make(map[string]bool, len(b.Sessions))
	for _, s := range b.Sessions {
		put[s.ID] = true
		if l >= Low && s.State == Open && !a.isOpen(s.ID) {
			return fmt.Errorf("%w: no room for a new session", ErrFull)
		}
	}
	next := make(map[string]uint32)
	for _, k := range b.Blocks {
		if !put[k.Session] && !a.isOpen(k.Session) {
			return fmt.Errorf("block %d of session %s, which is not open: %w", k.Number, k.Session, ErrNotFound)
		}
		want, ok := next[k.Session]
		if o := a.open[k.Session]; !ok && o != nil {
			want = o.next
		}
		if k.Number != want {
			return fmt.Errorf("%w: block %d of session %s, expected block %d", ErrInvalid, k.Number, k.Session, want)
		}
		next[k.Session] = want + 1
	}
	if a.open == nil {
		a.open = make(map[string]*openSession)
	}
	for _, id := range b.named() {
		if a.open[id] == nil {
			a.open[id] = &openSession{}
		}
		a.open[id].queued++
	}
	for _, s := range b.Sessions {
		a.open[s.ID].open = s.State == Open
	}
	for id, n := range next {
		a.open[id].next = n
		a.open[id].blocks++
	}
	for _, id := range b.Remove {
		a.open[id].open = false
	}
	return nil
}

func (a *Admission) isOpen(id string) bool {
	o := a.open[id]
	return o != nil && o.open
}

// named lists the sessions that the batch is about, each once.
func (b Batch) named() []string {
	seen := make(map[string]bool)
	var ids []string
	add := func(id string) {
		if !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	for _, s := range b.Sessions {
		add(s.ID)
	}
	for _, k := range b.Blocks {
		add(k.Session)
	}
	for _, id := range b.Remove {
		add(id)
	}
	return ids
}

// Apply says whether an accepted batch may be committed now, after those that
// were applied before: its sessions must have been made and no block before
// its own have been refused. If not, it refuses the batch, with the error that
// it returns. A store that doesn't commit what was applied has failed for good.
func (a *Admission) Apply(b Batch) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	put := make(map[string]bool, len(b.Sessions))
	for _, s := range b.Sessions {
		put[s.ID] = true
	}
	for _, k := range b.Blocks {
		if o := a.open[k.Session]; o.doomed > 0 || !o.made && !put[k.Session] {
			err := fmt.Errorf("block %d of session %s, after a batch that failed: %w", k.Number, k.Session, o.cause)
			a.settle(b, err)
			return err
		}
	}
	a.settle(b, nil)
	return nil
}

// Refuse tells that an accepted batch isn't committed, for err. Its blocks may
// be written again; a session that it would have been the first to put is not
// open, and one that it would have closed still is.
func (a *Admission) Refuse(b Batch, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.settle(b, err)
}

// settle must be called with mu held.
func (a *Admission) settle(b Batch, err error) {
	last := make(map[string]uint32)
	for _, k := range b.Blocks {
		last[k.Session] = k.Number
	}
	for id, n := range last {
		a.open[id].settleBlocks(n, err)
	}
	for _, s := range b.Sessions {
		o := a.open[s.ID]
		switch {
		case err == nil:
			o.made = true
		case !o.made:
			o.open, o.cause = false, err
		default:
			o.open = true
		}
	}
	for _, id := range b.named() {
		o := a.open[id]
		if o.queued--; o.queued == 0 && !o.open {
			delete(a.open, id)
		}
	}
}

// settleBlocks notes what became of a batch whose last block of o is last.
func (o *openSession) settleBlocks(last uint32, err error) {
	o.blocks--
	switch {
	case err == nil:
		o.applied = last + 1
	case o.doomed > 0:
		o.doomed--
	default:
		// All that was queued since came after this block.
		o.doomed, o.cause, o.next = o.blocks, err, o.applied
	}
}
