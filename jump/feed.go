package jump

import (
	"context"
	"sync"

	"golang.org/x/crypto/ssh"
)

// maxHeld is how many requests may wait while the host is being reached. No
// client sends that many in good faith.
const maxHeld = 256

// feed hands on a channel's requests and holds them while nobody takes them:
// x/crypto stops a whole connection when a few requests of one channel wait,
// and the client's agent, which reaching the host needs, with it. The
// returned channel is closed when in is, or when there are too many; when ctx
// ends it only falls silent until then, since a client that is about to hear a
// last word has not gone. gone is closed as soon as in is: the client has closed its channel.
func feed(ctx context.Context, in <-chan *ssh.Request) (out <-chan *ssh.Request, gone <-chan struct{}) {
	fed, closed := make(chan *ssh.Request), make(chan struct{})
	go func() {
		release := sync.OnceFunc(func() { close(fed) })
		defer release()
		if pass(ctx, in, fed, closed) {
			return
		}
		if ctx.Err() == nil {
			release() // too many
		}
		// Somebody has to receive until the channel is closed, which follows.
		ssh.DiscardRequests(in)
		close(closed)
	}()
	return fed, closed
}

// pass reports whether it ended because in was closed.
func pass(ctx context.Context, in <-chan *ssh.Request, out chan<- *ssh.Request, gone chan<- struct{}) bool {
	var held []*ssh.Request
	from := in
	for from != nil || len(held) > 0 {
		var to chan<- *ssh.Request
		var next *ssh.Request
		if len(held) > 0 {
			to, next = out, held[0]
		}
		select {
		case r, ok := <-from:
			if !ok {
				from = nil
				close(gone)
				continue
			}
			if len(held) == maxHeld {
				return false
			}
			held = append(held, r)
		case to <- next:
			held = held[1:]
		case <-ctx.Done():
			return from == nil
		}
	}
	return true
}
