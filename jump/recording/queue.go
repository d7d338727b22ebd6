package recording

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/fleetca/fleetca/jump/cast"
)

const (
	// eventCost is what an event counts for besides its data.
	eventCost = 32
	// patience is how long a best-effort recording holds up a session whose
	// store is slow, before it goes on with a gap.
	patience = time.Second
	// startPatience is how long the first block of a strict recording may take,
	// unsavedTime how old the oldest block may become that isn't saved before
	// the session is held up, and silence how old before the recording fails.
	startPatience = 5 * time.Second
	unsavedTime   = 2 * time.Second
	silence       = 30 * time.Second
	// giveUp is how long to try and end a recording that Start gave up.
	giveUp = time.Minute
	// keepQueue is how large a queue is worth keeping for the next use.
	keepQueue = 1 << 20
)

// errSilent is why a strict recording fails whose store neither takes nor
// refuses what it was given.
var errSilent = errors.New("the store has not saved for too long what it was given")

// queue holds events that are in no block yet. Sessions share a few of them, so
// an idle one has none.
type queue struct {
	events []queued
	data   []byte
}

type queued struct {
	at   time.Duration
	kind cast.Kind
	end  int // of its data, which begins where that of the one before ends
}

var queues = sync.Pool{New: func() any { return new(queue) }}

func (q *queue) release() {
	if cap(q.data) > keepQueue {
		return
	}
	q.events, q.data = q.events[:0], q.data[:0]
	queues.Put(q)
}

// event records one event, of data that is not split.
func (r *Recording) event(kind cast.Kind, data []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err := r.put(kind, data)
	return err
}

// bytes records data in as many events as are needed, and returns how many
// bytes are kept.
func (r *Recording) bytes(kind cast.Kind, p []byte) (kept uint64, err error) {
	size := min(cast.MaxData, max(1, r.c.Buffer/4))
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(p) > 0 {
		piece := p[:min(len(p), size)]
		p = p[len(piece):]
		ok, err := r.put(kind, piece)
		if err != nil {
			return kept, err
		}
		if ok {
			kept += uint64(len(piece))
		}
	}
	return kept, nil
}

// hand records what may be cut into several events, or may not.
func (r *Recording) hand(kind cast.Kind, p []byte) (kept uint64, err error) {
	if kind.JSON() {
		return 0, r.event(kind, p)
	}
	return r.bytes(kind, p)
}

// put takes an event once there is room for it; false says that it became part
// of a gap. r.mu is held, but not while it waits.
func (r *Recording) put(kind cast.Kind, data []byte) (bool, error) {
	if r.mode == Off {
		return false, r.refusal()
	}
	cost := len(data) + eventCost
	var deadline <-chan time.Time
	for {
		if err := r.refusal(); err != nil {
			return false, err
		}
		if r.gap != nil && !r.endGap() {
			r.gap.bytes += uint64(len(data))
			return false, nil
		}
		if r.late() {
			r.wait(nil)
			continue
		}
		if r.ahead == 0 || r.ahead+cost <= r.c.Buffer {
			break
		}
		if r.mode == BestEffort && r.failing != nil {
			r.startGap(r.failing.Error())
			continue
		}
		if r.mode == BestEffort && deadline == nil {
			timer := time.NewTimer(patience)
			defer timer.Stop()
			deadline = timer.C
		}
		if !r.wait(deadline) {
			r.startGap("the store was too slow")
		}
	}
	r.append(kind, data)
	return true, nil
}

// late says whether a strict session must wait: what was seen of it must not
// be unsaved for long. It is told by change when that is over.
func (r *Recording) late() bool { return r.mode == Strict && r.unsavedFor() > unsavedTime }

// unsavedFor is the age of the oldest block that isn't saved.
func (r *Recording) unsavedFor() time.Duration {
	if len(r.unsaved) == 0 {
		return 0
	}
	return time.Since(r.unsaved[0].made)
}

// watch fails a strict recording of which something is unsaved for too long,
// also if nobody calls it. r.mu is held.
func (r *Recording) watch() {
	if r.mode != Strict || r.alarm != nil || r.closed || r.err != nil {
		return
	}
	r.alarm = time.AfterFunc(silence-r.unsavedFor(), func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.alarm = nil
		switch {
		case len(r.unsaved) == 0: // the next block sets it again
		case r.closed:
		case r.unsavedFor() >= silence:
			r.fail(errSilent)
		default:
			r.watch()
		}
	})
}

// ease ends watch.
func (r *Recording) ease() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.alarm != nil {
		r.alarm.Stop()
	}
}

// refusal is why no event is taken.
func (r *Recording) refusal() error {
	if r.closed {
		return ErrClosed
	}
	if r.err != nil {
		return r.err
	}
	return r.denied
}

// append takes an event, whether there is room or not.
func (r *Recording) append(kind cast.Kind, data []byte) {
	if r.over {
		return
	}
	if r.pending == nil {
		r.pending = queues.Get().(*queue)
	}
	q := r.pending
	q.data = append(q.data, data...)
	q.events = append(q.events, queued{r.now(), kind, len(q.data)})
	r.ahead += len(data) + eventCost
	signal(r.begun)
	if len(q.data) >= r.enough() {
		signal(r.plenty)
	}
}

// enough is how many bytes are worth a block before the time is up.
func (r *Recording) enough() int { return min(cast.GoodBlock, r.c.Buffer/4) }

// admit waits until the session may go on, for calls that record nothing by
// themselves; an error says that it may not.
func (r *Recording) admit() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		if err := r.refusal(); err != nil {
			return err
		}
		if !r.late() {
			return nil
		}
		r.wait(nil)
	}
}

// elapsed is now for who doesn't hold r.mu.
func (r *Recording) elapsed() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now()
}

// wait waits for a change, without r.mu. False says that time was up first.
func (r *Recording) wait(deadline <-chan time.Time) bool {
	if r.change == nil {
		r.change = make(chan struct{})
	}
	change := r.change
	if r.pending != nil {
		signal(r.plenty) // somebody waits for it
	}
	r.waiting++
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.waiting--
	}()
	select {
	case <-change:
		return true
	case <-deadline:
		return false
	}
}

// broadcast wakes all who wait.
func (r *Recording) broadcast() {
	if r.change != nil {
		close(r.change)
		r.change = nil
	}
}

func (r *Recording) startGap(reason string) {
	if r.gap == nil {
		r.gap = &gap{from: r.now(), reason: reason}
	}
}

// endGap ends the gap if the store has taken enough of what came before it:
// not at the first free byte, or there would be a gap for every few events.
func (r *Recording) endGap() bool {
	if r.failing != nil || r.ahead > r.c.Buffer/2 {
		return false
	}
	r.markGap()
	return true
}

// markGap writes the gap down.
func (r *Recording) markGap() {
	g := r.gap
	r.gap = nil
	r.session.Gaps++
	data, err := json.Marshal(cast.GapSummary{
		From: g.from.Microseconds(), To: r.now().Microseconds(), Reason: cut(g.reason, maxText), Bytes: g.bytes,
	})
	if err == nil { // numbers and text always are JSON
		r.append(cast.Gap, data)
	}
}

// marshal is json.Marshal for the data of an event.
func marshal(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("recording %T: %w", v, err)
	}
	if len(data) > cast.MaxData {
		return nil, fmt.Errorf("recording %T: %d bytes are over the maximum of %d", v, len(data), cast.MaxData)
	}
	return data, nil
}

// note is the data of a Note event.
type note struct {
	Kind  string `json:"kind"`
	Value any    `json:"value,omitempty"`
}

func noteData(kind string, v any) ([]byte, error) { return marshal(note{kind, v}) }

// cut bounds a text, at the end of a character.
func cut(s string, size int) string {
	if len(s) <= size {
		return s
	}
	for size > 0 && !utf8.RuneStart(s[size]) {
		size--
	}
	return s[:size]
}

// signal wakes the goroutine that reads c, if it isn't awake anyway.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
