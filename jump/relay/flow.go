package relay

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	// settleTick is how long a stream must have had nothing to read to count as
	// read to its end for now.
	settleTick = 10 * time.Millisecond
	// settleTicks is how many ticks an exit status waits for output that the
	// client doesn't take.
	settleTicks = 100
	// endWait is how long the end of output waits, see awaitExit, while the
	// client may still send input.
	endWait = 250 * time.Millisecond
)

// flow passes what one side sends to the other.
type flow struct {
	r        *relay
	from, to *end
	requests *queue

	// read is closed when all streams were passed on to their end, ended when
	// the other side was told, if it could be.
	read, ended chan struct{}
	// exited is closed when an exit status or signal was passed on, or refused.
	// Only the goroutine that handles the side's requests closes it.
	exited chan struct{}
	// unwanted says that the side takes no more input.
	unwanted atomic.Bool
	// open counts the streams that are not at their end.
	open atomic.Int32
	// moved counts what was passed on.
	moved atomic.Uint64
	// turns has, for each stream, a number that is odd while it waits for bytes
	// and never comes twice.
	turns [2]atomic.Uint64
}

func newFlow(r *relay, from Side) *flow {
	f := &flow{
		r: r, from: r.ends[from], to: r.ends[from.Other()],
		requests: newQueue(),
		read:     make(chan struct{}), ended: make(chan struct{}), exited: make(chan struct{}),
	}
	f.open.Store(int32(r.streams))
	return f
}

// start starts the flow's goroutines, which r.running counts. The flow's own
// context ends early when a host is given up that doesn't take its input.
func (f *flow) start(ctx context.Context) {
	inner, giveUp := context.WithCancel(ctx)
	for stream := range f.r.streams {
		f.r.running.Go(func() { f.pump(inner, stream) })
	}
	f.r.running.Go(func() {
		f.receive(inner)
		f.drain(ctx)
		giveUp()
		// After a cut the channel is for cut to close, once it has said why.
		if ctx.Err() == nil {
			_ = f.to.Close()
		}
	})
}

// receive takes the requests until the peer has closed the channel.
func (f *flow) receive(ctx context.Context) {
	for _, q := range f.from.First {
		f.enqueue(ctx, q)
	}
	for q := range f.from.Requests {
		f.enqueue(ctx, q)
	}
	close(f.from.closed)
	f.requests.finish()
}

func (f *flow) enqueue(ctx context.Context, q *ssh.Request) {
	if ctx.Err() != nil {
		return // Both channels are being closed; nobody waits for an answer.
	}
	start, err := f.requests.add(q)
	switch {
	case err != nil:
		f.r.cancel(err)
	case start:
		f.r.running.Go(func() {
			f.requests.work(func(q *ssh.Request) { f.handle(ctx, q) })
		})
	}
}

// drain returns when the peer, which has closed its channel, has nothing left
// to be passed on. A client may take as long as it likes for its output, as
// with sshd itself. A host that takes nothing more is given up, since the
// client may be gone altogether.
func (f *flow) drain(ctx context.Context) {
	var check <-chan time.Time
	if f.from.side == Downstream {
		ticker := time.NewTicker(f.r.config.Linger)
		defer ticker.Stop()
		check = ticker.C
	}
	moved := f.moved.Load()
	for _, done := range []<-chan struct{}{f.ended, f.requests.idle} {
		for waiting := true; waiting; {
			select {
			case <-done:
				waiting = false
			case <-ctx.Done():
				return
			case <-check:
				now := f.moved.Load()
				if now == moved {
					return
				}
				moved = now
			}
		}
	}
}

// handle decides on one request, passes it on and answers it.
func (f *flow) handle(ctx context.Context, q *ssh.Request) {
	first := f.from.side == Downstream && f.r.programs && StartsProgram(q.Type)
	ok, passed := false, false
	if !first || !isClosed(f.r.started) {
		ok, passed = f.decide(ctx, q)
	}
	_ = q.Reply(ok, nil)
	switch {
	case first && passed && (ok || !q.WantReply):
		close(f.r.started)
	case f.from.side == Upstream && tellsExit(q.Type) && !isClosed(f.exited):
		close(f.exited)
	case f.from.side == Upstream && q.Type == TypeEndOfWrite:
		f.unwanted.Store(true)
	}
}

func (f *flow) decide(ctx context.Context, q *ssh.Request) (ok, passed bool) {
	request := f.r.config.Request
	if request == nil || ctx.Err() != nil || isClosed(f.to.closed) {
		return false, false
	}
	verdict := request(ctx, f.from.side, q)
	switch {
	case verdict.Action == Drop:
		return true, false
	case verdict.Action != Pass || ctx.Err() != nil:
		return false, false
	}
	payload := q.Payload
	if verdict.Payload != nil {
		payload = verdict.Payload
	}
	if f.from.side == Upstream && tellsExit(q.Type) {
		f.settle(ctx)
	}
	ok, err := f.to.SendRequest(q.Type, q.WantReply, payload)
	if err != nil {
		f.failed(err)
	}
	f.moved.Add(1)
	if q.WantReply {
		if verdict.Answered != nil {
			verdict.Answered(ok, nil)
		}
		if f.r.config.Answered != nil {
			f.r.config.Answered(f.from.side, q, ok)
		}
	}
	return ok, err == nil
}

// settle waits for output that came before an exit status. Bytes and requests
// come to us by different ways, so that the status overtakes output which we
// still pass on; clients that read what there is when they have the status
// would miss some. It can't be known for sure that nothing is left: a program
// in the background may hold the output open. So it is enough that nothing was
// there to read for a tick, and what the client doesn't take is not waited for.
func (f *flow) settle(ctx context.Context) {
	ticker := time.NewTicker(settleTick)
	defer ticker.Stop()
	var turns [2]uint64
	moved := f.moved.Load()
	for left := settleTicks; left > 0; left-- {
		select {
		case <-f.read:
			return
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		quiet := true
		for stream := range f.r.streams {
			now := f.turns[stream].Load()
			quiet = quiet && now == turns[stream] && now%2 == 1
			turns[stream] = now
		}
		if quiet {
			return
		}
		if now := f.moved.Load(); now != moved {
			moved, left = now, settleTicks
		}
	}
}

// pump passes one stream on until its end.
func (f *flow) pump(ctx context.Context, stream int) {
	b := newBuffer(f.r.config.Buffer)
	defer b.release()
	defer f.streamEnded(ctx, stream)
	open := false
	for {
		f.turns[stream].Add(1)
		n, err := f.from.streams[stream].Read(b.space())
		f.turns[stream].Add(1)
		if n == 0 && err != nil {
			return
		}
		if open = open || f.awaitStart(ctx); !open || !f.pass(ctx, stream, b.space()[:n]) {
			return
		}
		// With bytes comes only the error of telling the peer that there is
		// room again. What a lost connection brought before is still there.
		b.fit(n)
	}
}

// pass shows bytes to the caller and writes them, and says whether it could.
func (f *flow) pass(ctx context.Context, stream int, p []byte) bool {
	if data := f.r.config.Data; data != nil {
		if err := data(f.from.side, stream == 1, p); err != nil {
			f.r.cancel(err)
			return false
		}
	}
	if err := f.to.write(stream, p, ctx.Err); err != nil {
		if ctx.Err() == nil {
			f.failed(err)
		}
		return false
	}
	f.moved.Add(1)
	return true
}

// awaitStart says whether bytes may be passed on: to the host once its program
// runs, to the client then or once the host says nothing more.
func (f *flow) awaitStart(ctx context.Context) bool {
	if !f.r.programs {
		return true
	}
	select {
	case <-f.r.started:
		return true
	case <-f.requests.idle:
	case <-ctx.Done():
		return false
	}
	return f.from.side == Upstream || isClosed(f.r.started)
}

// awaitExit says whether the end of the streams may be told. OpenSSH's client
// closes a channel that has ended in both directions, and x/crypto/ssh closes it
// for good then, so that nothing could tell the client how the program ended. So
// that comes first, even if the program closed its output long before. It isn't
// waited for where the client may still send input, since a client and a program
// may well wait for the ends of each other's bytes.
func (f *flow) awaitExit(ctx context.Context) bool {
	if f.from.side == Downstream || !f.r.programs {
		return true
	}
	timer := time.NewTimer(endWait)
	defer timer.Stop()
	for {
		select {
		case <-f.exited:
			return true
		case <-f.requests.idle:
			return true
		case <-ctx.Done():
			return false
		case <-timer.C:
			if !f.unwanted.Load() && !isClosed(f.r.flows[Downstream].read) {
				return true
			}
		}
	}
}

// streamEnded tells the other side when no stream has more.
func (f *flow) streamEnded(ctx context.Context, stream int) {
	f.turns[stream].Add(1) // It was even. Now it looks idle for good.
	if f.open.Add(-1) > 0 {
		return
	}
	close(f.read)
	if ctx.Err() == nil && f.awaitStart(ctx) && f.awaitExit(ctx) {
		// The farewell uses the same lock: x/crypto doesn't guard the flag
		// that CloseWrite sets and Write reads.
		f.to.writing[1] <- struct{}{}
		_ = f.to.CloseWrite()
		<-f.to.writing[1]
	}
	close(f.ended)
}

// failed is told of an error in sending to the other side. It is io.EOF where
// the channel is closed, which needs nothing done; otherwise the connection
// breaks, which x/crypto/ssh is about to see as well. There is no use in waiting
// for it if it is the client's. What a host has sent before is still passed on.
func (f *flow) failed(err error) {
	if f.to.side == Downstream && !errors.Is(err, io.EOF) {
		f.r.cancel(errLost)
	}
}

// StartsProgram says whether a type of request starts the program of a session,
// RFC 4254 §6.5.
func StartsProgram(name string) bool {
	return name == TypeShell || name == TypeExec || name == TypeSubsystem
}

// tellsExit says whether a request tells how the program ended.
func tellsExit(name string) bool {
	return name == TypeExitStatus || name == TypeExitSignal
}
