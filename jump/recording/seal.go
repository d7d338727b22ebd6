package recording

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/fleetca/fleetca/jump/cast"
	"github.com/fleetca/fleetca/jump/store"
)

const (
	// mergeBytes and mergeItems bound what is written at once at the end, well
	// within the store's limits.
	mergeBytes = store.MaxBatchBytes / 2
	mergeItems = store.MaxBatchItems / 2
	// sealTries is enough to find out that something was refused, to write all
	// again, and to do so once more.
	sealTries = 3
)

// seal writes all there is and the last block, in batches that a store takes
// even while it is full. Killed in it, it leaves an interrupted recording that
// is readable as far as it got.
func (r *Recording) seal(ctx context.Context) error {
	r.encode(func(*batch) error { return nil })
	err := r.last(ctx)
	if err == nil {
		err = r.save(ctx)
	}
	if err != nil {
		return fmt.Errorf("sealing recording %s: %w", r.session.ID, err)
	}
	if r.mode != Off {
		hash := r.writer.encoder.LastHash()
		r.mu.Lock()
		r.hash = hex.EncodeToString(hash[:])
		r.mu.Unlock()
	}
	return nil
}

// last makes the last block and the last index entry.
func (r *Recording) last(ctx context.Context) error {
	r.mu.Lock()
	s, exit := &r.session, r.exit
	at := r.now()
	s.Ended = r.started.Add(at)
	s.State, s.ExitStatus, s.ExitSignal = store.Ended, exit.Status, cut(exit.Signal, maxSignal)
	reason := s.Reason
	r.mu.Unlock()
	final := &batch{}
	if r.mode == Off {
		r.mu.Lock()
		r.unsaved = append(r.unsaved, final)
		r.mu.Unlock()
	} else {
		// The end's own bytes are counted after the fact: only the encoder
		// knows them.
		raw := r.writer.encoder.Pending()
		data, err := r.writer.encoder.Seal(cast.End{
			At: at, Reason: reason, ExitStatus: exit.Status, Signal: exit.Signal, Core: exit.Core, Message: exit.Message,
		})
		if err != nil {
			return r.interrupt(ctx, err)
		}
		final = r.keep(data, raw, 0)
	}
	r.mu.Lock()
	final.index, final.final = true, true
	r.mu.Unlock()
	return nil
}

// interrupt gives up the seal, and says so in the index.
func (r *Recording) interrupt(ctx context.Context, cause error) error {
	r.mu.Lock()
	r.session.State = store.Interrupted
	r.unsaved = append(r.unsaved, &batch{index: true, final: true})
	r.mu.Unlock()
	return errors.Join(cause, r.save(ctx))
}

// save writes what the store doesn't have. What is on its way from before may
// be refused, since it was not written to close a recording, and takes all down
// that comes after it; so it is tried again when that is known.
func (r *Recording) save(ctx context.Context) error {
	var err error
	for range sealTries {
		for _, b := range r.merge() {
			if err = r.write(ctx, b, true); err != nil {
				break
			}
		}
		if err := r.landed(ctx); err != nil {
			return err
		}
		r.mu.Lock()
		left := len(r.unsaved)
		err = r.failing
		r.mu.Unlock()
		if left == 0 {
			return nil
		}
	}
	return cmp.Or(err, errUnsaved)
}

var errUnsaved = errors.New("the store did not take all blocks")

// merge puts what has to be written into as few batches as can be, one as a
// rule, so that the end is in the store with all that comes before it.
func (r *Recording) merge() []*batch {
	r.mu.Lock()
	defer r.mu.Unlock()
	// What is on the ground before something that flies has been refused, and
	// so will that be: then all of it has to be written again, in order.
	first := slices.IndexFunc(r.unsaved, func(b *batch) bool { return !b.flying })
	if first < 0 || slices.ContainsFunc(r.unsaved[first:], func(b *batch) bool { return b.flying }) {
		return nil
	}
	kept, merged := slices.Clone(r.unsaved[:first]), []*batch(nil)
	size := 0
	for _, b := range r.unsaved[first:] {
		bytes := 0
		for _, block := range b.blocks {
			bytes += len(block.Data)
		}
		n := len(merged)
		if n == 0 || size+bytes > mergeBytes || len(merged[n-1].blocks)+len(b.blocks) > mergeItems {
			merged = append(merged, b)
			size = bytes
			continue
		}
		into := merged[n-1]
		into.blocks = append(into.blocks, b.blocks...)
		into.cost += b.cost
		into.index, into.final = into.index || b.index, into.final || b.final
		size += bytes
	}
	r.unsaved = append(kept, merged...)
	return merged
}

// landed waits until the store has said what became of all that it took.
func (r *Recording) landed(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		flying := false
		for _, b := range r.unsaved {
			flying = flying || b.flying
		}
		if !flying {
			return nil
		}
		if r.change == nil {
			r.change = make(chan struct{})
		}
		change := r.change
		r.mu.Unlock()
		var err error
		select {
		case <-change:
		case <-ctx.Done():
			err = ctx.Err()
		}
		r.mu.Lock()
		if err != nil {
			return err
		}
	}
}
