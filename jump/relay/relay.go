// Package relay pumps one SSH channel, with its requests, between the client's
// connection (downstream) and the host's (upstream), and lets its caller look
// at the bytes and decide on the requests.
//
// Both sides keep what RFC 4254 gives them on a direct connection: bytes in
// order per stream, end of file per direction, answers in the order of the
// requests, exit-status and all output before the close, back-pressure from one
// end to the other. Nothing reaches a host before the request that starts its
// program has been passed, since sshd drops such bytes; nothing reaches a
// client before the answer to it. A client whose own input has ended hears of
// the end of output only after the exit status, since it closes its channel then
// and x/crypto/ssh leaves no way to tell it more; a host that tells neither its
// status nor closes would keep it waiting, which sshd doesn't.
//
// It holds no policy and stores nothing: what isn't decided by the caller is
// refused. It refuses a second program on a channel (RFC 4254 §6.5), payloads
// with trailing bytes (see the Parse functions), and more waiting requests than
// any client sends in good faith. It can't keep the order between standard
// output and standard error: x/crypto/ssh gives them as two streams.
package relay

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// Side is one of the two connections.
type Side uint8

// The sides.
const (
	Downstream Side = iota // the client's
	Upstream               // the host's
)

// String is "downstream" or "upstream".
func (s Side) String() string {
	if s == Upstream {
		return "upstream"
	}
	return "downstream"
}

// Other is the side across.
func (s Side) Other() Side { return 1 - s }

// ErrTooManyRequests ends a relay whose one side sends requests faster than the
// other answers them, far beyond what clients and servers do.
var ErrTooManyRequests = errors.New("too many requests are waiting for their answers")

// Channel is an accepted or opened channel of one side.
type Channel struct {
	ssh.Channel
	// Requests are the channel's. Nobody else may receive from it any more.
	Requests <-chan *ssh.Request
	// First are requests that were already received from Requests and not
	// answered. They are handled before those that follow.
	First []*ssh.Request
	// Conn, if set, is closed when the relay was cut off (see [Relay]) and the
	// peer didn't answer the close of the channel within [Config.Grace].
	// x/crypto/ssh can't give up a channel by itself, so if it isn't set the
	// relay waits until its owner closes the connection.
	Conn io.Closer
}

// Action is what is done with a request.
type Action uint8

// The actions. The zero value refuses.
const (
	Refuse Action = iota // answer that it failed, if an answer is wanted
	Pass                 // pass it on, and the answer back
	Drop                 // keep it, answer that it succeeded
)

// Verdict is a decision on a request.
type Verdict struct {
	Action Action
	// Payload, if not nil, is passed on in place of the request's.
	Payload []byte
	// Reply is the answer's payload where a global request is refused or
	// dropped; channel requests have none.
	Reply []byte
	// Answered, if set, is called with the answer to a passed request that
	// wants one, before the answer is passed back. The reply is nil for
	// channel requests.
	Answered func(ok bool, reply []byte)
}

// Config says what a relay lets pass. It isn't changed. Callbacks for the two
// sides, and for data and requests, run at the same time.
type Config struct {
	// Data sees bytes before they are passed on; if nil, nobody looks. It may
	// block, which holds back that stream, but must return when the relay's
	// context has ended. It must not keep p. Calls for one stream come one
	// after the other; none comes before a program was started on the channel,
	// unless a host sends data and closes without one. An error cuts the relay
	// off, see [Relay].
	Data func(from Side, stderr bool, p []byte) error
	// Request decides on a request before it is passed on; if nil, all are
	// refused. Requests of one side come one after the other: the next only
	// when this one has been answered. It must not call Reply. It may block;
	// ctx ends with the relay.
	Request func(ctx context.Context, from Side, r *ssh.Request) Verdict
	// Answered, if set, is told what the other side answered to a passed
	// request that wants an answer, before the answer is passed back.
	Answered func(from Side, r *ssh.Request, ok bool)
	// Farewell, if set, gives what the client is told on standard error before
	// its channel is closed because the relay was cut off for that cause.
	Farewell func(cause error) []byte
	// Buffer is the size in bytes of a busy stream's buffer, 32 KiB if 0.
	Buffer int
	// Linger is how long a client that has closed its channel may have bytes
	// and requests waiting that the host doesn't take, 5 s if 0.
	Linger time.Duration
	// Grace is how long a peer may take to answer the close of a relay that is
	// cut off, and before that to take the farewell, 5 s each if 0.
	Grace time.Duration
}

// Relay pumps a session channel and returns nil when both channels are closed
// and nothing of it runs any more.
//
// When one side closes its channel, or its connection is lost, all that it had
// sent is passed on and then the other side's channel is closed; a host that
// doesn't take its input is closed after [Config.Linger]. A closed channel and
// a lost connection look the same from here, so a caller that wants the host's
// side closed at once even then ends ctx when the client's connection is lost.
//
// The relay is cut off when ctx ends, Data returns an error or a side floods it
// with requests: nothing more is passed on and both channels are closed at once.
// Relay returns the cause, as [context.Cause] has it.
//
// A peer that doesn't answer the close of its channel, as sshd does while a
// program doesn't take the input that it was sent, keeps Relay from returning
// until its connection ends, or until the relay is cut off and
// [Channel.Conn] is closed.
func Relay(ctx context.Context, down, up Channel, c Config) error {
	return newRelay(down, up, c, 2, true).run(ctx)
}

// Copy pumps a channel that carries only bytes: direct-tcpip, forwarded-tcpip,
// direct-streamlocal, forwarded-streamlocal, x11, auth-agent. End of file is
// passed on per direction and the end of either channel as in [Relay]. data may
// be nil and is as [Config.Data]. Of requests only keepalive@openssh.com is
// passed on; extended data, which such channels don't have, is never read.
func Copy(ctx context.Context, down, up Channel, data func(from Side, p []byte) error) error {
	c := Config{Request: func(_ context.Context, _ Side, r *ssh.Request) Verdict {
		if r.Type == TypeKeepAlive {
			return Verdict{Action: Pass}
		}
		return Verdict{}
	}}
	if data != nil {
		c.Data = func(from Side, _ bool, p []byte) error { return data(from, p) }
	}
	return newRelay(down, up, c, 1, false).run(ctx)
}

// defaultWait is what Linger and Grace are if unset.
const defaultWait = 5 * time.Second

// errLost cuts off a relay whose client's connection broke, as seen by a write.
var errLost = errors.New("the client's connection is lost")

// relay is the state of one [Relay] or [Copy].
type relay struct {
	config   Config
	ends     [2]*end
	flows    [2]*flow
	streams  int  // 2 with standard error
	programs bool // whether a request starts what reads and writes the bytes
	// started is closed when the request that starts the program was answered.
	// Only the goroutine that handles the client's requests closes it.
	started chan struct{}
	cancel  context.CancelCauseFunc
	running sync.WaitGroup
}

// end is the channel of one side.
type end struct {
	Channel
	side Side
	// streams are standard output and input, and standard error.
	streams [2]io.ReadWriter
	// writing has a place for who writes to a stream: x/crypto/ssh takes one
	// writer at a time.
	writing [2]chan struct{}
	// closed is closed when the peer has closed the channel or its connection
	// is lost.
	closed chan struct{}
}

func newRelay(down, up Channel, c Config, streams int, programs bool) *relay {
	if c.Buffer <= 0 {
		c.Buffer = defaultBuffer
	}
	if c.Linger <= 0 {
		c.Linger = defaultWait
	}
	if c.Grace <= 0 {
		c.Grace = defaultWait
	}
	r := &relay{
		config: c, streams: streams, programs: programs,
		ends:    [2]*end{newEnd(Downstream, down), newEnd(Upstream, up)},
		started: make(chan struct{}),
	}
	r.flows = [2]*flow{newFlow(r, Downstream), newFlow(r, Upstream)}
	return r
}

func newEnd(side Side, c Channel) *end {
	return &end{
		Channel: c, side: side,
		streams: [2]io.ReadWriter{c.Channel, c.Stderr()},
		writing: [2]chan struct{}{make(chan struct{}, 1), make(chan struct{}, 1)},
		closed:  make(chan struct{}),
	}
}

func (r *relay) run(ctx context.Context) error {
	ctx, r.cancel = context.WithCancelCause(ctx)
	defer r.cancel(nil)
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(cut)
		r.cut(context.Cause(ctx))
	})
	for _, f := range r.flows {
		f.start(ctx)
	}
	r.running.Wait()
	if stop() {
		return nil
	}
	<-cut
	if cause := context.Cause(ctx); !errors.Is(cause, errLost) {
		return cause
	}
	return nil
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// cut closes both channels at once.
func (r *relay) cut(cause error) {
	var closing sync.WaitGroup
	for _, e := range r.ends {
		closing.Go(func() {
			if e.side == Downstream {
				e.tell(r.config, cause, &closing)
			}
			// A peer that reads nothing at all blocks even this.
			closing.Go(func() { _ = e.Close() })
			if !e.isClosedWithin(r.config.Grace) && e.Conn != nil {
				_ = e.Conn.Close()
			}
		})
	}
	closing.Wait()
}

// tell gives the client the farewell, and the client time to take it.
func (e *end) tell(c Config, cause error, telling *sync.WaitGroup) {
	if c.Farewell == nil || errors.Is(cause, errLost) {
		return
	}
	said := make(chan struct{})
	telling.Go(func() {
		defer close(said)
		text := c.Farewell(cause)
		if len(text) == 0 {
			return
		}
		_ = e.write(1, text, nil)
	})
	timer := time.NewTimer(c.Grace)
	defer timer.Stop()
	select {
	case <-said:
	case <-e.closed:
	case <-timer.C:
	}
}

// write writes to a stream, unless allowed, if set, says no by then. x/crypto/ssh
// sends no more than the peer's window lets it, so this may take for ever.
func (e *end) write(stream int, p []byte, allowed func() error) error {
	e.writing[stream] <- struct{}{}
	defer func() { <-e.writing[stream] }()
	if allowed != nil {
		if err := allowed(); err != nil {
			return err
		}
	}
	_, err := e.streams[stream].Write(p)
	return err
}

func (e *end) isClosedWithin(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-e.closed:
		return true
	case <-timer.C:
		return false
	}
}
