package remote

import (
	"context"
	"sync"
	"time"
)

// answer asks something at most once and shares what came of it, also a
// failure, between all hosts.
type answer[T any] struct {
	turn  chan struct{} // holds whoever is asking or reading
	known bool          // guarded by turn, as are the others
	value T
	err   error
}

func newAnswer[T any]() *answer[T] {
	return &answer[T]{turn: make(chan struct{}, 1)}
}

// get returns the answer, asking if nobody has yet. An asker that gives up
// because its own ctx ends leaves the question to the next one.
func (a *answer[T]) get(ctx context.Context, ask func(context.Context) (T, error)) (T, error) {
	var none T
	select {
	case a.turn <- struct{}{}:
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
	defer func() { <-a.turn }()
	if a.known {
		return a.value, a.err
	}
	value, err := ask(ctx)
	if err != nil && ctx.Err() != nil {
		return none, err
	}
	a.value, a.err, a.known = value, err, true
	return value, err
}

// patience is a deadline that stands still while a person is being asked
// something, or while a jump host has its own.
type patience struct {
	end context.CancelCauseFunc

	mu     sync.Mutex
	timer  *time.Timer
	left   time.Duration
	since  time.Time
	paused int
}

// withPatience returns a context that ends after d of waiting for the network,
// with the cause errTimeout. The function releases it.
func withPatience(ctx context.Context, d time.Duration) (context.Context, *patience, func()) {
	ctx, end := context.WithCancelCause(ctx)
	p := &patience{end: end, left: d, since: time.Now()}
	p.timer = time.AfterFunc(d, func() { end(errTimeout) })
	return ctx, p, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.timer.Stop()
		end(context.Canceled)
	}
}

// pause stops the clock; the function it returns lets it go on.
func (p *patience) pause() func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.paused++; p.paused == 1 {
		p.timer.Stop()
		p.left -= time.Since(p.since)
	}
	return p.resume
}

func (p *patience) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.paused--; p.paused == 0 {
		p.since = time.Now()
		p.timer.Reset(max(p.left, time.Second))
	}
}
