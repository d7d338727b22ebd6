package route

import (
	"context"
	"errors"
	"sync"
	"time"
)

// errTimeout is the cause of a context whose budget is used up.
var errTimeout = errors.New("timed out")

// budget is a time limit that stands still while a person is being waited for.
type budget struct {
	end context.CancelCauseFunc

	mu     sync.Mutex
	timer  *time.Timer
	left   time.Duration
	since  time.Time
	paused bool
}

// withBudget returns a context that ends, with the cause errTimeout, when d is
// used up. The function releases it.
func withBudget(ctx context.Context, d time.Duration) (context.Context, *budget, func()) {
	ctx, end := context.WithCancelCause(ctx)
	b := &budget{end: end, left: d, since: time.Now()}
	b.timer = time.AfterFunc(d, func() { end(errTimeout) })
	return ctx, b, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.paused = true
		b.timer.Stop()
		end(context.Canceled)
	}
}

func (b *budget) pause() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.paused {
		b.paused = true
		b.timer.Stop()
		b.left -= time.Since(b.since)
	}
}

func (b *budget) resume() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.paused {
		b.paused = false
		b.since = time.Now()
		b.timer.Reset(max(b.left, 0))
	}
}

// remaining is what is left of it.
func (b *budget) remaining() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.paused {
		return b.left
	}
	return b.left - time.Since(b.since)
}

// teller passes lines on to the person, one at a time, none twice, and none once
// it is closed.
type teller struct {
	to func(string)

	mu     sync.Mutex
	closed bool
	said   map[string]bool
}

func (t *teller) say(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.to == nil || t.closed || t.said[line] {
		return
	}
	if t.said == nil {
		t.said = map[string]bool{}
	}
	t.said[line] = true
	t.to(line)
}

// after says the line unless the function that it returns is called before.
func (t *teller) after(d time.Duration, line string) (stop func()) {
	timer := time.AfterFunc(d, func() { t.say(line) })
	return func() { timer.Stop() }
}

func (t *teller) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
}
