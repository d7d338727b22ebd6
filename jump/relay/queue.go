package relay

import (
	"sync"

	"golang.org/x/crypto/ssh"
)

// What may wait on one side. A client sends an env request for each variable
// that it passes on, which may be hundreds, before it waits for anything; the
// longest command fits into a packet of 256 KiB.
const (
	maxWaiting      = 1024
	maxWaitingBytes = 1 << 20
)

// queue keeps the requests of one side until the earlier ones are answered. The
// connection that they come from stands still while nobody receives them, its
// loss unnoticed, so they are always received and the queue, which is bounded,
// takes them. They are worked off by a goroutine that lives only while there
// are any: most channels are idle for most of their life.
type queue struct {
	// idle is closed when no more requests come and all are worked off.
	idle chan struct{}

	mu       sync.Mutex
	waiting  []*ssh.Request
	bytes    int
	working  bool
	finished bool
}

func newQueue() *queue {
	return &queue{idle: make(chan struct{})}
}

// add takes a request. If start, nobody works and the caller must have [work]
// called.
func (q *queue) add(r *ssh.Request) (start bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	size := len(r.Type) + len(r.Payload)
	if last := len(q.waiting) - 1; last >= 0 && replaces(r, q.waiting[last]) {
		q.bytes += size - len(q.waiting[last].Type) - len(q.waiting[last].Payload)
		q.waiting[last] = r
		return false, nil
	}
	if len(q.waiting) >= maxWaiting || q.bytes+size > maxWaitingBytes {
		return false, ErrTooManyRequests
	}
	q.waiting = append(q.waiting, r)
	q.bytes += size
	start = !q.working
	q.working = true
	return start, nil
}

// replaces says whether the earlier request doesn't matter any more: a window
// that is dragged while the host can't answer yet changes hundreds of times.
func replaces(r, earlier *ssh.Request) bool {
	return r.Type == TypeWindowChange && earlier.Type == TypeWindowChange &&
		!r.WantReply && !earlier.WantReply && len(r.Payload) <= len(earlier.Payload)
}

// work handles requests one after the other until none is waiting.
func (q *queue) work(handle func(*ssh.Request)) {
	for {
		r := q.next()
		if r == nil {
			return
		}
		handle(r)
	}
}

func (q *queue) next() *ssh.Request {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		q.waiting, q.working = nil, false
		if q.finished {
			close(q.idle)
		}
		return nil
	}
	r := q.waiting[0]
	q.waiting[0] = nil
	q.waiting = q.waiting[1:]
	q.bytes -= len(r.Type) + len(r.Payload)
	return r
}

// finish says that no more requests come. It is called once.
func (q *queue) finish() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.finished = true
	if !q.working {
		close(q.idle)
	}
}
