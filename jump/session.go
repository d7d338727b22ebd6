package jump

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/jump/access"
	"github.com/fleetca/fleetca/jump/recording"
	"github.com/fleetca/fleetca/jump/relay"
	"github.com/fleetca/fleetca/jump/store"
)

// session is one session channel of a link.
type session struct {
	link *link
	id   string
	ch   ssh.Channel
	log  *slog.Logger
	stop context.CancelCauseFunc

	// What the client asked for so far. It belongs to the goroutine that handles
	// the client's requests, one after the other.
	pty      *relay.PtyRequest
	env      []relay.Env
	refusals int
	resized  time.Time // when a size was audited last
	decision access.Decision
	command  string // as asked for, or forced by the certificate
	asked    string // where another one is forced
	remove   func() // out of the registry of running sessions

	// rec is set once, before the program is started.
	rec    *recording.Recording
	recSet chan struct{}
	begun  time.Time

	watching sync.WaitGroup
	declined atomic.Bool // the host said no to the program
	banner   string      // of the host's, as the person saw it

	active  atomic.Int64 // UnixNano of the last byte
	in, out atomic.Uint64

	mu   sync.Mutex
	exit recording.Exit
}

// session serves one session channel to its end.
func (l *link) session(ctx context.Context, nc ssh.NewChannel) {
	o := l.outer
	if !o.sessions.add() {
		reject(nc, ssh.ResourceShortage, &refusal{codeLimit, "too many sessions on this connection", ""})
		return
	}
	defer o.sessions.done()
	// Where the host is reached already, the client hears its answer: a
	// ControlMaster that gets a no (sshd's MaxSessions) opens a connection of its
	// own.
	early, ok := l.openEarly(nc)
	if !ok {
		return
	}
	ch, requests, err := nc.Accept()
	if err != nil {
		early.close()
		return
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	s := &session{link: l, id: store.NewID(o.server.now()), ch: ch, stop: stop, recSet: make(chan struct{})}
	s.log = o.log.With("session", s.id, "host", l.dest.Name, "login", terminal.Clean(l.login))
	fed, gone := feed(ctx, requests)
	defer settle(ch, gone, l.conn)
	if early != nil {
		s.relay(ctx, relay.Channel{Channel: ch, Requests: fed, Conn: l.conn}, early.channel())
		return
	}
	held, asked, refused := s.awaitAgent(ctx, fed, gone)
	if asked {
		end(ch, refused)
		return
	}
	if refused != nil {
		s.turnAway(ctx, fed, refused)
		return
	}
	far, refused := s.reach(ctx, gone)
	if refused != nil {
		s.turnAway(ctx, prefix(ctx, held, fed), refused)
		return
	}
	s.relay(ctx, relay.Channel{Channel: ch, Requests: fed, First: held, Conn: l.conn}, far.channel())
}

// hostChannel is a session channel on the host's connection.
type hostChannel struct {
	ch       ssh.Channel
	requests <-chan *ssh.Request
	conn     ssh.Conn
}

func (h *hostChannel) channel() relay.Channel {
	return relay.Channel{Channel: h.ch, Requests: h.requests, Conn: h.conn}
}

func (h *hostChannel) close() {
	if h != nil {
		_ = h.ch.Close()
		go ssh.DiscardRequests(h.requests)
	}
}

// openEarly opens the host's channel if the host has been reached. It returns
// false when it has refused the client's.
func (l *link) openEarly(nc ssh.NewChannel) (*hostChannel, bool) {
	up := l.reached()
	if up == nil {
		return nil, true
	}
	ch, requests, err := up.Conn.OpenChannel(relay.ChannelSession, nil)
	if err != nil {
		rejectAs(nc, err)
		return nil, false
	}
	return &hostChannel{ch, requests, up.Conn}, true
}

// awaitAgent receives requests until an agent has been offered: OpenSSH asks
// for that first, before the terminal and the program. Requests that come
// before are held, and answered, since some clients wait for the answer. asked
// says that the program itself was asked for, in vain.
func (s *session) awaitAgent(ctx context.Context, requests <-chan *ssh.Request, gone <-chan struct{}) (held []*ssh.Request, asked bool, refused *refusal) {
	l := s.link
	if l.broken != nil {
		return nil, false, l.broken
	}
	for !l.hasAgent() {
		var r *ssh.Request
		var ok bool
		select {
		case r, ok = <-requests:
		case <-ctx.Done():
		}
		if !ok {
			select {
			case <-ctx.Done():
				return nil, true, refusalOf(context.Cause(ctx))
			case <-gone:
				return nil, true, &refusal{codeProtocol, "the session was closed before it began", ""}
			default:
				return nil, true, &refusal{codeProtocol, "too many requests before a program was asked for", ""}
			}
		}
		switch {
		case relay.StartsProgram(r.Type):
			_ = r.Reply(true, nil)
			return nil, true, l.refuse(ctx, l.noAgent())
		case r.Type == relay.TypeAgent:
			l.offerAgent(l.down)
		}
		held = append(held, answered(r))
		if len(held) > maxHeld {
			return nil, true, &refusal{codeProtocol, "too many requests before a program was asked for", ""}
		}
	}
	return held, false, nil
}

// answered answers a request, so that nobody does later.
func answered(r *ssh.Request) *ssh.Request {
	_ = r.Reply(true, nil)
	r.WantReply = false
	return r
}

// turnAway tells the person why nothing comes of the session. ssh hears it best
// once it has asked for its program.
func (s *session) turnAway(ctx context.Context, requests <-chan *ssh.Request, r *refusal) {
	ctx, cancel := context.WithTimeout(ctx, agentTime)
	defer cancel()
	for asked := false; !asked; {
		select {
		case q, ok := <-requests:
			if !ok {
				asked = true
				break
			}
			asked = relay.StartsProgram(q.Type)
			_ = q.Reply(true, nil) // says nothing where nothing is wanted
		case <-ctx.Done():
			asked = true
		}
	}
	end(s.ch, r)
}

// prefix is first, then what comes from rest.
func prefix(ctx context.Context, first []*ssh.Request, rest <-chan *ssh.Request) <-chan *ssh.Request {
	if len(first) == 0 {
		return rest
	}
	out := make(chan *ssh.Request)
	go func() {
		defer close(out)
		for _, r := range first {
			select {
			case out <- r:
			case <-ctx.Done():
				return
			}
		}
		for r := range rest {
			select {
			case out <- r:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// reach waits for the host's connection and opens a session on it.
func (s *session) reach(ctx context.Context, gone <-chan struct{}) (*hostChannel, *refusal) {
	defer s.link.wait(s)()
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-gone:
			cancel()
		case <-waiting.Done():
		}
	}()
	up, refused := s.link.upstream(waiting)
	if refused != nil {
		return nil, refused
	}
	if up.Banner != "" {
		s.banner = terminal.CleanLines(up.Banner)
		tell(s.ch.Stderr(), s.banner)
	}
	ch, requests, err := up.Conn.OpenChannel(relay.ChannelSession, nil)
	if err != nil {
		return nil, s.link.refuse(ctx, refusef(codeHost, "", "%s did not open a session: %s", s.link.dest.Name, openError(err)))
	}
	return &hostChannel{ch, requests, up.Conn}, nil
}

// relay runs the session and records it.
func (s *session) relay(ctx context.Context, down, up relay.Channel) {
	for _, note := range s.link.takeNotes() {
		tell(s.ch.Stderr(), note)
	}
	over := make(chan struct{})
	unblock := context.AfterFunc(ctx, func() { s.giveUpRecording(context.Cause(ctx), over) })
	err := relay.Relay(ctx, down, up, relay.Config{
		Data:     s.data,
		Request:  s.request,
		Farewell: s.farewell,
	})
	close(over)
	unblock()
	s.stop(nil)
	s.watching.Wait()
	s.over(ctx, err)
}

// giveUpRecording ends a recording that waits for a store which hangs, once the
// session has been cut off: nobody may be held by it for ever.
func (s *session) giveUpRecording(cause error, over <-chan struct{}) {
	if !s.started() {
		return
	}
	// The relay takes its time for a client that doesn't read.
	timer := time.NewTimer(2 * sealTime)
	defer timer.Stop()
	select {
	case <-over:
	case <-timer.C:
		ctx, cancel := context.WithTimeout(context.Background(), tellTime)
		defer cancel()
		_ = s.rec.Close(ctx, s.reason(cause))
	}
}

// farewell is what the client reads when the session is cut off.
func (s *session) farewell(cause error) []byte {
	if errors.Is(cause, context.Canceled) {
		return nil // the client itself has gone
	}
	return []byte("\r\n" + refusalOf(cause).lines())
}

// data records bytes before they are passed on.
func (s *session) data(from relay.Side, stderr bool, p []byte) error {
	s.active.Store(s.link.outer.server.now().UnixNano())
	if !s.started() {
		return &refusal{codeProtocol, "the host sent data before a program was started", ""}
	}
	var err error
	switch {
	case from == relay.Downstream:
		s.in.Add(uint64(len(p)))
		err = s.rec.Input(p)
	case stderr:
		s.out.Add(uint64(len(p)))
		err = s.rec.Stderr(p)
	default:
		s.out.Add(uint64(len(p)))
		err = s.rec.Output(p)
	}
	return err
}
