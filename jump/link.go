package jump

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/jump/access"
	"github.com/fleetca/fleetca/jump/relay"
	"github.com/fleetca/fleetca/jump/route"
)

// link is a client connection that is bound to one login on one host. All its
// sessions and forwardings share one connection to that host, which is made when
// the first of them needs it and an agent was offered.
type link struct {
	outer *outer
	who   *person
	login string
	dest  route.Destination
	way   string
	// down is the client's side.
	down interface {
		ssh.Conn
		ssh.ConnMetadata
	}
	conn io.Closer
	// broken, if set, is why nothing can come of this link. Its sessions are
	// told.
	broken *refusal

	// noMore says that the client sent no-more-sessions@openssh.com, opened that
	// it has opened a session. x/crypto gives channels and requests by different
	// ways, so the request may overtake the session that it came after.
	noMore, opened atomic.Bool
	grants         grants
	active         counter // sessions and forwardings that run
	// hostLost is closed when the connection to the host has ended.
	hostLost chan struct{}
	waitOnce sync.Once
	// dial is connect, for as long as the link lives: a session that goes away
	// must not take the host from the others.
	dial func() *attempt

	mu      sync.Mutex
	agents  []ssh.Conn    // connections on which the client offered its agent
	offered chan struct{} // closed once it has; made by serve
	attempt *attempt
	waiting map[*session]struct{} // sessions that hear of delays
	notes   []string              // what the next session's person should read
}

// attempt is one try to reach the host. The fields are set when done is closed.
type attempt struct {
	done    chan struct{}
	up      *route.Upstream
	refused *refusal
	cert    *ssh.Certificate // that the host was logged in to with
	// told says that somebody has seen how it went; the link's mu guards it.
	told bool
}

// offerAgent notes that the client offered its agent on a connection.
func (l *link) offerAgent(conn ssh.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.agents {
		if c == conn {
			return
		}
	}
	// What was offered last is nearest to the session.
	l.agents = append([]ssh.Conn{conn}, l.agents...)
	if len(l.agents) == 1 && l.offered != nil {
		close(l.offered)
	}
}

// offerTime is how long -R waits for an agent that may still be offered.
const offerTime = 3 * time.Second

// awaitOffer waits for the first offer of an agent, once: OpenSSH asks for -R
// before it opens the session that brings one.
func (l *link) awaitOffer(ctx context.Context) {
	l.waitOnce.Do(func() {
		timer := time.NewTimer(offerTime)
		defer timer.Stop()
		select {
		case <-l.offered:
		case <-timer.C:
		case <-ctx.Done():
		}
	})
}

func (l *link) hasAgent() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.agents) > 0
}

// serve serves the link until the client's connection ends.
func (l *link) serve(ctx context.Context, channels <-chan ssh.NewChannel, requests <-chan *ssh.Request) {
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	if l.broken == nil && (l.login == "" || terminal.Clean(l.login) != l.login) {
		// It would forge lines in the host's log.
		l.broken = refusef(codeDestination, "", "%q is no login", l.login)
	}
	l.hostLost = make(chan struct{})
	l.mu.Lock()
	if l.offered = make(chan struct{}); len(l.agents) > 0 {
		close(l.offered)
	}
	l.mu.Unlock()
	l.dial = func() *attempt { return l.connect(ctx, &work) }
	work.Go(func() { l.globalRequests(ctx, requests) })
	if l.broken == nil && l.hasAgent() {
		// The host is reached while the client is still opening its session.
		l.dial()
	}
	for nc := range channels {
		l.open(ctx, &work, nc)
	}
	cancel()
	l.mu.Lock()
	at := l.attempt
	l.mu.Unlock()
	if at != nil {
		<-at.done
		if at.up != nil {
			_ = at.up.Conn.Close()
		}
	}
	work.Wait()
}

// open handles a channel that the client opens.
func (l *link) open(ctx context.Context, work *sync.WaitGroup, nc ssh.NewChannel) {
	o := l.outer
	if !o.channels.add() {
		reject(nc, ssh.ResourceShortage, &refusal{codeLimit, "too many channels on this connection", ""})
		return
	}
	handle := l.session
	switch {
	case o.closing() != nil:
		reject(nc, ssh.Prohibited, o.closing())
		o.channels.done()
		return
	case nc.ChannelType() == relay.ChannelSession && l.opened.Swap(true) && l.noMore.Load():
		reject(nc, ssh.Prohibited, &refusal{codeProtocol, "you said that there would be no more sessions", ""})
		o.channels.done()
		return
	case nc.ChannelType() == relay.ChannelSession:
	case nc.ChannelType() == relay.ChannelDirectTCPIP, nc.ChannelType() == relay.ChannelDirectStreamLocal:
		handle = l.forwardOut
	default:
		reject(nc, ssh.UnknownChannelType, refusef(codeProtocol, "", "channels of type %q are not passed on", nc.ChannelType()))
		o.channels.done()
		return
	}
	l.active.add()
	work.Go(func() {
		defer o.channels.done()
		defer l.active.done()
		handle(ctx, nc)
	})
}

// decide asks the rules for one action on this link. They are the present ones:
// a connection that is kept open doesn't keep what was taken from its person.
func (l *link) decide(action access.Action) access.Decision {
	name := l.dest.Name
	if l.dest.Host != nil {
		name = l.dest.Host.Name
	}
	return l.outer.server.settings.Load().config.Rules.Decide(access.Request{
		Identity: l.who.identity, Certificate: l.who.certificate(), Login: l.login, Host: name, Action: action,
	})
}

// refuse logs and audits.
func (l *link) refuse(ctx context.Context, r *refusal) *refusal {
	return l.outer.refuse(ctx, l.dest.Name, l.login, r)
}

// connect begins an attempt to reach the host unless one is under way or has
// succeeded. A failed one is made again for whoever asks after somebody has been
// told of it.
func (l *link) connect(ctx context.Context, work *sync.WaitGroup) *attempt {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at := l.attempt; at != nil {
		select {
		case <-at.done:
			if at.refused == nil || !at.told {
				return at
			}
		default:
			return at
		}
	}
	at := &attempt{done: make(chan struct{})}
	l.attempt = at
	agents := l.agents
	work.Go(func() {
		defer close(at.done)
		at.up, at.cert, at.refused = l.reach(ctx, work, agents)
		if at.refused != nil {
			l.refuse(ctx, at.refused)
		}
	})
	return at
}

// reach decides, finds the certificate in the agent and logs in to the host.
func (l *link) reach(ctx context.Context, work *sync.WaitGroup, agents []ssh.Conn) (*route.Upstream, *ssh.Certificate, *refusal) {
	if d := l.decide(access.Connect); !d.Allowed {
		return nil, nil, refusedByRule(d)
	}
	if len(agents) == 0 {
		return nil, nil, l.noAgent()
	}
	// Whoever is asked for a confirmation may think for a while, not for ever.
	patience := l.outer.set.config.LoginTimeout + l.outer.set.config.DialTimeout
	dialing, cancel := context.WithTimeoutCause(ctx, patience,
		&refusal{codeAgent, "your agent did not sign in time", "does it wait for you to confirm, or to touch a key?"})
	defer cancel()
	signer, closer, err := l.signer(dialing, agents)
	if err != nil {
		return nil, nil, refusalOf(err)
	}
	defer func() { _ = closer.Close() }()
	up, err := l.outer.set.router.Dial(dialing, l.dest, l.login, signer, l.notice)
	if err != nil {
		return nil, nil, refusalOf(err)
	}
	l.outer.log.Info("host reached", "host", l.dest.Name, "login", terminal.Clean(l.login), "way", l.way)
	work.Go(func() { l.hostRequests(up) })
	work.Go(func() { l.hostChannels(ctx, work, up) })
	work.Go(func() { l.hostGone(up) })
	cert, _ := signer.PublicKey().(*ssh.Certificate)
	return up, cert, nil
}

// noAgent is told with what to type, which depends on the way in.
func (l *link) noAgent() *refusal {
	hint := "ssh -A (ForwardAgent yes), and ssh-add the key with its certificate"
	switch l.way {
	case waySubsystem:
		hint = "add -A to the ssh of the ProxyCommand: ssh -A -p PORT %r@JUMP -s proxy:%h:%p"
	case wayDirect:
		hint = "ssh -A -J JUMP HOST; sftp and scp need -A as well, and -N needs the ProxyCommand way"
	}
	return &refusal{codeNoAgent, "no agent was forwarded: the jump host logs in to " + l.dest.Name + " with the certificate in your ssh-agent", hint}
}

// signer finds the proven certificate in what agents were offered.
func (l *link) signer(ctx context.Context, agents []ssh.Conn) (ssh.Signer, io.Closer, error) {
	certs := []*ssh.Certificate{l.who.cert}
	if outer := l.outer.who.cert; l.outer.who != l.who && samePermissions(outer, l.who.cert) {
		certs = append(certs, outer)
	}
	var first error
	for _, conn := range agents {
		ch, err := openAgent(ctx, conn)
		if err != nil {
			first = cmpError(first, err)
			continue
		}
		within, cancel := context.WithCancelCause(ctx)
		late := time.AfterFunc(min(agentTime, l.outer.set.config.LoginTimeout), func() {
			cancel(&refusal{codeAgent, "your agent did not answer in time", "does ssh-add -l answer where you typed ssh?"})
		})
		signer, err := route.AgentSigner(within, ch, certs...)
		late.Stop()
		if err == nil {
			return signer, ch, nil
		}
		_ = ch.Close()
		first = cmpError(first, err)
	}
	return nil, nil, first
}

// samePermissions tells whether two certificates of a person allow the same.
// With another one the host would not do what was decided and recorded.
func samePermissions(a, b *ssh.Certificate) bool {
	return slices.Equal(a.ValidPrincipals, b.ValidPrincipals) &&
		maps.Equal(a.CriticalOptions, b.CriticalOptions) && maps.Equal(a.Extensions, b.Extensions)
}

func cmpError(first, err error) error {
	if first != nil {
		return first
	}
	return err
}

// agentTime is how long a client may take to open its agent.
const agentTime = 20 * time.Second

// openAgent opens the client's agent, which it has offered.
func openAgent(ctx context.Context, conn ssh.Conn) (ssh.Channel, error) {
	late := &refusal{codeAgent, "your client did not open its agent in time", "is ssh-agent running where you typed ssh?"}
	ctx, cancel := context.WithTimeoutCause(ctx, agentTime, late)
	defer cancel()
	ch, requests, err := openOffered(ctx, conn)
	switch {
	case errors.Is(err, late), ctx.Err() != nil && err != nil:
		return nil, err
	case err != nil:
		return nil, &refusal{codeAgent, "your client did not open its agent: " + openError(err), "is ssh-agent running, and SSH_AUTH_SOCK set, where you typed ssh?"}
	}
	go ssh.DiscardRequests(requests)
	return ch, nil
}

// agentPause is the longest wait before a client that offered its agent, and
// then refused to open it, is asked once more.
const agentPause = 400 * time.Millisecond

// openOffered opens the client's agent, again for a while if the client says no:
// Paramiko offers it a moment before it is ready to be asked.
func openOffered(ctx context.Context, conn ssh.Conn) (ssh.Channel, <-chan *ssh.Request, error) {
	for pause := 50 * time.Millisecond; ; pause *= 2 {
		ch, requests, err := openChannel(ctx, conn, relay.ChannelAgent, nil)
		if no := (*ssh.OpenChannelError)(nil); !errors.As(err, &no) || pause > agentPause {
			return ch, requests, err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, nil, context.Cause(ctx)
		}
	}
}

// openChannel is conn.OpenChannel that ends with ctx. x/crypto can't give up an
// open, and waits for ever when the connection is lost at the wrong moment; the
// goroutine that waits is left behind then.
func openChannel(ctx context.Context, conn ssh.Conn, channelType string, extra []byte) (ssh.Channel, <-chan *ssh.Request, error) {
	type opened struct {
		ch       ssh.Channel
		requests <-chan *ssh.Request
		err      error
	}
	got := make(chan opened, 1)
	go func() {
		ch, requests, err := conn.OpenChannel(channelType, extra)
		got <- opened{ch, requests, err}
	}()
	select {
	case o := <-got:
		return o.ch, o.requests, o.err
	case <-ctx.Done():
	}
	go func() {
		if o := <-got; o.err == nil {
			_ = o.ch.Close()
			ssh.DiscardRequests(o.requests)
		}
	}()
	return nil, nil, context.Cause(ctx)
}

func openError(err error) string {
	if e := (*ssh.OpenChannelError)(nil); errors.As(err, &e) && e.Message != "" {
		return terminal.Clean(e.Message)
	}
	return terminal.Clean(err.Error())
}

// notice tells sessions that wait for the host why they do.
func (l *link) notice(text string) {
	l.mu.Lock()
	var tellThem []*session
	for s := range l.waiting {
		tellThem = append(tellThem, s)
	}
	l.mu.Unlock()
	for _, s := range tellThem {
		tell(s.ch.Stderr(), "fleetjump: "+terminal.Clean(text)+"\r\n")
	}
}

func (l *link) wait(s *session) (done func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting == nil {
		l.waiting = map[*session]struct{}{}
	}
	l.waiting[s] = struct{}{}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.waiting, s)
	}
}

// hostGone ends the client's connection when the host's has ended. Sessions
// pass on what is still on its way, and close by themselves.
func (l *link) hostGone(up *route.Upstream) {
	_ = up.Conn.Wait()
	close(l.hostLost)
	late := time.NewTimer(sealTime)
	defer late.Stop()
	select {
	case <-l.active.empty():
	case <-late.C:
	}
	_ = l.conn.Close()
}

// upstream waits for the host's connection.
func (l *link) upstream(ctx context.Context) (*route.Upstream, *refusal) {
	if l.broken != nil {
		return nil, l.broken
	}
	at := l.dial()
	select {
	case <-at.done:
		l.mu.Lock()
		at.told = true
		l.mu.Unlock()
		return at.up, at.refused
	case <-ctx.Done():
		return nil, &refusal{codeProtocol, fmt.Sprintf("given up: %v", context.Cause(ctx)), ""}
	}
}

// reached is the host's connection if there is one by now.
func (l *link) reached() *route.Upstream {
	l.mu.Lock()
	at := l.attempt
	l.mu.Unlock()
	if at == nil {
		return nil
	}
	select {
	case <-at.done:
		return at.up
	default:
		return nil
	}
}

// used is the certificate that the host was logged in to with: that of the link's
// person, or the one of the outer connection that permits the same.
func (l *link) used() *ssh.Certificate {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at := l.attempt; at != nil {
		select {
		case <-at.done:
			if at.cert != nil {
				return at.cert
			}
		default:
		}
	}
	return l.who.cert
}

// maxNotes bounds what is kept for a session that may never come.
const maxNotes = 16

// note keeps a refusal for the next session's person, where the protocol has no
// room for a reason.
func (l *link) note(r *refusal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.notes) < maxNotes {
		l.notes = append(l.notes, r.lines())
	}
}

func (l *link) takeNotes() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	notes := l.notes
	l.notes = nil
	return notes
}
