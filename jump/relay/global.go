package relay

import (
	"context"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// Requests passes the global requests of one connection to the other, in order
// and with their answers, as decide says; nil refuses all. It returns nil when
// from is closed, which x/crypto/ssh does when the connection has ended, and
// the request under way then is answered.
//
// It also returns when ctx ends, with its cause, and with [ErrTooManyRequests]
// when from floods it. The caller must then close the connection of from, whose
// requests nobody receives any more. A request that the other side has not yet
// answered at the end of ctx is waited for; after 5 s to is closed.
func Requests(ctx context.Context, from <-chan *ssh.Request, to ssh.Conn, decide func(*ssh.Request) Verdict) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var working sync.WaitGroup
	defer working.Wait()
	requests := newQueue()
	handle := func(r *ssh.Request) { passGlobal(ctx, r, to, decide) }
	for open := true; open; {
		select {
		case <-ctx.Done():
			open = false
		case r, ok := <-from:
			if !ok {
				open, from = false, nil
				break
			}
			start, err := requests.add(r)
			if err != nil {
				cancel(err)
			}
			if start {
				working.Go(func() { requests.work(handle) })
			}
		}
	}
	requests.finish()
	// Until the last answer has come the rest is received, and lost, so that
	// the connection doesn't stand still.
	ended := ctx.Done()
	var patience <-chan time.Time
	for {
		select {
		case <-requests.idle:
			return context.Cause(ctx)
		case _, ok := <-from:
			if !ok {
				from = nil
			}
		case <-ended:
			ended = nil
			timer := time.NewTimer(defaultWait)
			defer timer.Stop()
			patience = timer.C
		case <-patience:
			_ = to.Close()
		}
	}
}

func passGlobal(ctx context.Context, r *ssh.Request, to ssh.Conn, decide func(*ssh.Request) Verdict) {
	if decide == nil || ctx.Err() != nil {
		_ = r.Reply(false, nil)
		return
	}
	verdict := decide(r)
	if verdict.Action != Pass {
		_ = r.Reply(verdict.Action == Drop, verdict.Reply)
		return
	}
	payload := r.Payload
	if verdict.Payload != nil {
		payload = verdict.Payload
	}
	// Where to is lost this is a failure, and its owner closes from.
	ok, reply, err := to.SendRequest(r.Type, r.WantReply, payload)
	if err != nil {
		ok, reply = false, nil
	}
	if r.WantReply && verdict.Answered != nil {
		verdict.Answered(ok, reply)
	}
	_ = r.Reply(ok, reply)
}
