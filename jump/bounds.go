package jump

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/fleetca/fleetca/jump/access"
	"github.com/fleetca/fleetca/jump/recording"
)

// bounds end a session or a forwarding when it may not go on: when it has lasted
// too long, when nothing happens in it, or when it can't be recorded.
type bounds struct {
	what     string // "session" or "forwarding"
	decision access.Decision
	rec      *recording.Recording
	active   *atomic.Int64 // UnixNano of the last byte
	now      func() time.Time
	stop     context.CancelCauseFunc
}

// watch returns when ctx ends or when it has ended what it watches.
func (b bounds) watch(ctx context.Context) {
	d := b.decision
	var idle <-chan time.Time
	if d.Idle > 0 {
		ticker := time.NewTicker(max(d.Idle/10, time.Second))
		defer ticker.Stop()
		idle = ticker.C
	}
	var long <-chan time.Time
	if d.MaxSession > 0 {
		timer := time.NewTimer(d.MaxSession)
		defer timer.Stop()
		long = timer.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.rec.Failed():
			b.stop(b.rec.Err())
			return
		case <-long:
			b.stop(refusef(codeLimit, "", "the %s has lasted %v, which is the longest that role %q allows", b.what, d.MaxSession, d.Role))
			return
		case <-idle:
			if b.now().Sub(time.Unix(0, b.active.Load())) > d.Idle {
				b.stop(refusef(codeLimit, "", "nothing has happened for %v, which is the limit of role %q", d.Idle, d.Role))
				return
			}
		}
	}
}
