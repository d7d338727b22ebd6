package recording

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fleetca/fleetca/jump/cast"
	"github.com/fleetca/fleetca/jump/store"
)

const (
	// retryEvery is how often a best-effort recording tries again to write
	// what the store did not take.
	retryEvery = time.Second
	// indexEvery is how old the totals in the index may become while there is
	// output.
	indexEvery = time.Minute
	// settling is how long the end of a recording waits for calls that hang,
	// grace how long Close waits for the writer after its ctx has ended.
	settling = 5 * time.Second
	grace    = time.Second
)

// writer is what the goroutine that writes has to itself.
type writer struct {
	encoder *cast.Encoder // nil in mode off

	// What was logged last, so that only changes are.
	failing bool
	gaps    uint32
}

// batch is on its way to the store. It is kept until the store has it, so that
// it can be written again.
type batch struct {
	blocks []store.Block // none: only the index entry
	cost   int           // what their events counted for
	index  bool          // it carries the index entry
	final  bool          // it ends the recording
	flying bool          // the store has taken it but not committed it
	made   time.Time
}

// run is the writer goroutine: it waits for events, and then for more of them,
// and makes blocks.
func (r *Recording) run(ctx context.Context) {
	defer close(r.done)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-r.begun:
		case <-r.closing:
			r.settle(ctx)
			r.sealing = r.seal(ctx)
			return
		}
		delay, plenty := r.patience()
		timer.Reset(delay)
		select {
		case <-plenty:
		case <-timer.C:
		case <-r.closing:
		}
		timer.Stop()
		r.flush(ctx)
		r.report()
	}
}

// settle has the streams tell what is known at their end. It doesn't wait for
// ever for those who are told of it: whoever hangs then ends the goroutine.
func (r *Recording) settle(ctx context.Context) {
	settled := make(chan struct{})
	go func() {
		defer close(settled)
		r.streams.close(r)
	}()
	timer := time.NewTimer(settling)
	defer timer.Stop()
	select {
	case <-settled:
		return
	case <-timer.C:
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if data, err := noteData("unfinished", "the last file operations could not be told in time"); err == nil && r.mode != Off {
		r.append(cast.Note, data)
	}
	r.over = true
}

// patience is how long to wait for more, and what ends that wait early: a store
// that just failed gets its time even if there is much to write.
func (r *Recording) patience() (time.Duration, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failing != nil {
		return retryEvery, nil
	}
	return r.c.Every, r.plenty
}

// flush writes what is pending; but first what the store did not take before.
func (r *Recording) flush(ctx context.Context) {
	r.mu.Lock()
	err := r.err
	r.mu.Unlock()
	again := r.grounded()
	if err != nil {
		return // Close writes what there is
	}
	// A block that was refused takes those down that came after it, so all of
	// them are written again, in order.
	if len(again) > 0 {
		if r.landed(ctx) != nil {
			return
		}
		again = r.grounded()
	}
	for _, b := range again {
		if r.write(ctx, b, false) != nil {
			return // which has seen to it that this is tried again
		}
	}
	r.encode(func(b *batch) error { return r.write(ctx, b, false) })
}

// grounded are the batches that the store has not, in order.
func (r *Recording) grounded() []*batch {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.unsaved), func(b *batch) bool { return b.flying })
}

// encode turns what is pending into blocks and hands them on. After an error
// the rest still becomes blocks, for a later try.
func (r *Recording) encode(hand func(*batch) error) {
	r.mu.Lock()
	q := r.pending
	r.pending = nil
	r.mu.Unlock()
	if q == nil {
		return
	}
	defer q.release()
	cost, begin := 0, 0
	var err error
	for i, e := range q.events {
		data := q.data[begin:e.end]
		begin = e.end
		cost += len(data) + eventCost
		if err := r.writer.encoder.Add(cast.Event{At: e.at, Kind: e.kind, Data: data}); err != nil {
			r.lost(cost, fmt.Errorf("recording an event: %w", err))
			return
		}
		if r.writer.encoder.Pending() < cast.GoodBlock && i < len(q.events)-1 {
			continue
		}
		b, blockErr := r.block(cost)
		if blockErr != nil {
			r.lost(cost, blockErr)
			return
		}
		cost = 0
		if err == nil {
			err = hand(b)
		}
	}
}

// lost says that events can't be encoded, which no store is to blame for.
func (r *Recording) lost(cost int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ahead -= cost
	r.fail(err)
}

// block makes a block of what the encoder holds, and counts it.
func (r *Recording) block(cost int) (*batch, error) {
	raw := r.writer.encoder.Pending()
	data, err := r.writer.encoder.Block()
	if err != nil {
		return nil, fmt.Errorf("making a block: %w", err)
	}
	return r.keep(data, raw, cost), nil
}

// keep counts a block and keeps it until it is saved.
func (r *Recording) keep(data []byte, raw, cost int) *batch {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := &batch{cost: cost, made: time.Now(), blocks: []store.Block{{
		Session: r.session.ID, Number: r.session.Blocks, Raw: uint32(raw), Data: data, Time: r.c.Now(),
	}}}
	r.session.Blocks++
	r.session.Bytes += uint64(raw)
	r.session.StoredBytes += uint64(len(data))
	r.unsaved = append(r.unsaved, b)
	r.watch()
	return b
}

// write gives a batch to the store.
func (r *Recording) write(ctx context.Context, b *batch, closing bool) error {
	r.mu.Lock()
	out := store.Batch{
		Blocks: b.blocks, Closing: closing,
		// Somebody waits for the first one.
		Soon: closing || r.waiting > 0 || r.ahead > r.c.Buffer/2 || r.mode == Strict && r.indexed.IsZero(),
	}
	now := r.c.Now()
	if b.index || !closing && now.Sub(r.indexed) >= indexEvery {
		b.index, r.indexed = true, now
		entry := r.session
		if !b.final {
			entry.State = store.Open
		}
		out.Sessions = []store.Session{entry}
	}
	b.flying = true
	r.mu.Unlock()
	err := r.c.Store.Write(ctx, out, func(err error) { r.committed(b, err) })
	if err == nil {
		return nil
	}
	r.mu.Lock()
	b.flying = false
	r.mu.Unlock()
	if errors.Is(err, store.ErrInvalid) || errors.Is(err, store.ErrNotFound) {
		// A block before this one was refused, about which the store is going
		// to tell: that is the reason to give.
		_ = r.landed(ctx) // if ctx ends, so does the recording
	}
	r.committed(b, err)
	return err
}

// committed is told by the store what became of a batch.
func (r *Recording) committed(b *batch, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b.flying = false
	if err != nil {
		r.fail(err)
		return
	}
	r.unsaved = slices.DeleteFunc(r.unsaved, func(other *batch) bool { return other == b })
	r.ahead -= b.cost
	if !slices.ContainsFunc(r.unsaved, func(b *batch) bool { return !b.flying }) {
		r.failing = nil
	}
	r.broadcast()
}

// fail says that the store did not take something. r.mu is held.
func (r *Recording) fail(err error) {
	r.failing = err
	switch {
	case r.closed: // the seal says what came of it
	case r.mode != Strict:
		signal(r.begun) // to be tried again
	case r.err == nil:
		r.err = failure(err)
		close(r.failed)
	}
	r.broadcast()
}

// report logs what changed in a recording that goes on without its store.
func (r *Recording) report() {
	if r.mode == Strict {
		return // whoever asks for it is told
	}
	r.mu.Lock()
	failing, gaps := r.failing, r.session.Gaps
	r.mu.Unlock()
	w := &r.writer
	log := r.c.Log.With("session", r.session.ID)
	if failing != nil && !w.failing {
		log.Warn("recording can't be written; the session goes on", "error", failing)
	}
	if failing == nil && w.failing {
		log.Info("recording can be written again")
	}
	if gaps != w.gaps {
		log.Warn("recording has gaps", "gaps", gaps)
	}
	w.failing, w.gaps = failing != nil, gaps
}
