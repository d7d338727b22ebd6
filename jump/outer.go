package jump

import (
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/jump/audit"
	"github.com/fleetca/fleetca/jump/live"
	"github.com/fleetca/fleetca/jump/relay"
	"github.com/fleetca/fleetca/jump/route"
	"github.com/fleetca/fleetca/jump/store"
)

// outer is a client's connection to the jump host.
type outer struct {
	server *Server
	set    *settings
	conn   *ssh.ServerConn
	who    *person
	id     string
	log    *slog.Logger
	// channels counts the open channels of this connection itself, sessions the
	// sessions of it and of all that is within it.
	channels, sessions counter
	// agent says that the client offered its agent on this connection. An agent
	// channel that wasn't offered makes OpenSSH warn of a break-in.
	agent atomic.Bool
	// ended, once set, is why nothing new begins on this connection.
	ended atomic.Pointer[refusal]
	// broken, if set, is why nothing can come of this connection. Its channels
	// are told.
	broken *refusal
	// work counts the goroutines of the connection.
	work sync.WaitGroup

	mu     sync.Mutex
	people []*person // who has proved an identity on this connection or within it
}

// Ways in, as recorded.
const (
	waySubsystem = "subsystem"
	wayDirect    = "direct-tcpip"
	wayLogin     = "login"
)

// serveClient serves one connection from its first byte to its end.
func (s *Server) serveClient(ctx context.Context, conn net.Conn) {
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	client, err := addrPort(conn.RemoteAddr())
	if err != nil {
		s.log.Error("a connection without an address", "error", err)
		return
	}
	set := s.settings.Load()
	if refused := s.limits.arrive(client.Addr(), set.config.Limits); refused != nil {
		s.log.Warn("connection refused", "client", client, "reason", refused.text)
		// Lines before the identification string are allowed (RFC 4253 §4.2).
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = conn.Write([]byte(strings.ReplaceAll(refused.lines(), "hint: ", "")))
		return
	}
	defer s.limits.leave()

	a := &authenticator{server: s, client: client}
	_ = conn.SetDeadline(time.Now().Add(set.config.LoginTimeout))
	sc, channels, requests, err := ssh.NewServerConn(conn, a.config(shownKeys(set.config.HostSigner)...))
	s.limits.settled(client.Addr())
	if err != nil {
		s.loginFailed(ctx, a, "", conn, err)
		return
	}
	_ = conn.SetDeadline(time.Time{})
	who, err := personOf(sc)
	if err != nil {
		s.loginFailed(ctx, a, sc.User(), conn, err)
		_ = sc.Close()
		return
	}
	leave, refused := s.limits.login(who.identity, set.config.Limits)
	if refused != nil {
		a.refused = refused
		s.loginFailed(ctx, a, sc.User(), conn, refused)
		turnAway(sc, channels, requests, refused)
		return
	}
	defer leave()
	id := store.NewID(s.now())
	o := &outer{
		server: s, set: set, conn: sc, who: who, id: id,
		log:      s.log.With("connection", id, "identity", who.identity, "client", client.String()),
		channels: counter{max: set.config.Limits.ChannelsPerConnection},
		sessions: counter{max: set.config.Limits.SessionsPerConnection},
		people:   []*person{who},
	}
	o.serve(ctx, channels, requests)
}

// turnAway tells somebody who has logged in already that nothing comes of it:
// in answer to the channel that every client opens next.
func turnAway(conn ssh.Conn, channels <-chan ssh.NewChannel, requests <-chan *ssh.Request, r *refusal) {
	late := time.AfterFunc(tellTime, func() { _ = conn.Close() })
	defer late.Stop()
	go ssh.DiscardRequests(requests)
	for nc := range channels {
		reject(nc, ssh.ResourceShortage, r)
	}
}

// loginFailed logs and audits that nobody was let in.
func (s *Server) loginFailed(ctx context.Context, a *authenticator, login string, conn net.Conn, err error) {
	refused := a.failure(err)
	if a.want == nil && !a.shookHands() {
		// It didn't come as far as saying who it is: a health check, a scanner,
		// or somebody who would fill the disk if all of that were audited.
		s.log.Info("no login", "client", a.client.String(), "reason", terminal.Clean(refused.text))
		return
	}
	s.log.Warn("login refused", "client", a.client.String(), "code", refused.code, "reason", terminal.Clean(refused.text))
	no := false
	e := audit.Event{
		Event: "auth", Login: login, Success: &no, Error: refused.text, Code: refused.code,
		LocalAddr: conn.LocalAddr().String(), RemoteAddr: a.client.String(),
	}
	if a.want != nil {
		e.User = a.want.identity
	}
	s.record(ctx, e)
}

// recordTime is how long an audit event may take.
const recordTime = 10 * time.Second

// record writes an audit event. What can't be audited is told to the operators;
// where it stands for something that must not happen unseen, the caller looks
// at the error.
func (s *Server) record(ctx context.Context, e audit.Event) error {
	// What ends must be told of as well, but nobody waits for ever for a disk.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTime)
	defer cancel()
	err := s.cfg.Audit.Record(ctx, e)
	if err != nil {
		s.log.Error("audit record lost", "event", e.Event, "error", err)
	}
	return err
}

// recordUntil writes an event that must not be missing, such as a session's end,
// trying again until ctx ends.
func (s *Server) recordUntil(ctx context.Context, e audit.Event) {
	for s.record(ctx, e) != nil {
		timer := time.NewTimer(time.Second)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

func (o *outer) serve(ctx context.Context, channels <-chan ssh.NewChannel, requests <-chan *ssh.Request) {
	s := o.server
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	s.outers[o] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.outers, o)
		s.mu.Unlock()
	}()
	if o.broken = s.loggedIn(ctx, o.who, o.conn, o.conn.User(), o.id); o.broken != nil {
		defer endBroken(o.conn).Stop()
	}
	if refused := unaccepted(s.settings.Load().config, o.who); refused != nil {
		s.endConnection(o, refused) // revoked between its login and now
	}
	expiry := s.endAtExpiry(o, o.who)
	defer expiry.Stop()
	o.work.Go(func() { o.keepAlive(ctx) })

	if login, host, ok := splitLogin(o.conn.User()); ok {
		o.serveLogin(ctx, login, host, channels, requests)
	} else {
		o.work.Go(func() { o.globalRequests(requests) })
		for nc := range channels {
			o.open(ctx, nc)
		}
	}
	cancel()
	_ = o.conn.Close()
	o.work.Wait()
	o.log.Info("connection closed")
}

// endBroken ends a connection that nothing can come of, once whoever wants to
// know why has been told.
func endBroken(conn ssh.Conn) *time.Timer {
	return time.AfterFunc(agentTime, func() { _ = conn.Close() })
}

// loggedIn logs and audits that somebody was let in. What it returns, if
// anything, is why nothing may come of it.
func (s *Server) loggedIn(ctx context.Context, who *person, conn ssh.ConnMetadata, login, id string) *refusal {
	s.log.Info("logged in", "connection", id, "identity", who.identity, "client", who.client.String(),
		"serial", who.cert.Serial, "login", terminal.Clean(login))
	yes := true
	err := s.record(ctx, audit.Event{
		Event: "auth", User: who.identity, Login: login, Success: &yes, Connection: id,
		LocalAddr: conn.LocalAddr().String(), RemoteAddr: who.client.String(),
		Serial: who.cert.Serial, CA: ssh.FingerprintSHA256(who.cert.SignatureKey),
	})
	if err != nil {
		return unaudited(err)
	}
	return nil
}

// splitLogin takes login%host apart.
func splitLogin(user string) (login, host string, ok bool) {
	i := strings.LastIndexByte(user, '%')
	if i <= 0 || i == len(user)-1 {
		return "", "", false
	}
	return user[:i], user[i+1:], true
}

// serveLogin serves a connection that is itself bound to a host.
func (o *outer) serveLogin(ctx context.Context, login, host string, channels <-chan ssh.NewChannel, requests <-chan *ssh.Request) {
	dest, err := o.set.router.Resolve(host, 0)
	l := &link{outer: o, who: o.who, login: login, dest: dest, way: wayLogin, down: o.conn, conn: o.conn}
	if err != nil {
		l.broken = o.refuse(ctx, host, login, refusalOf(err))
		l.dest.Name = host
	}
	if o.broken != nil {
		l.broken = o.broken
	}
	if o.agent.Load() {
		l.offerAgent(o.conn)
	}
	l.serve(ctx, channels, requests)
}

// globalRequests answers what is asked of a connection that carries no link.
func (o *outer) globalRequests(requests <-chan *ssh.Request) {
	for r := range requests {
		if r.WantReply {
			_ = r.Reply(r.Type == relay.TypeKeepAlive, nil)
		}
	}
}

// keepAlive ends a connection whose client doesn't answer any more.
func (o *outer) keepAlive(ctx context.Context) {
	every := o.set.config.KeepAlive
	if every <= 0 {
		return
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		// Whoever doesn't answer for three times that long is gone.
		lost := time.AfterFunc(3*every, func() {
			o.log.Info("client does not answer")
			_ = o.conn.Close()
		})
		_, _, err := o.conn.SendRequest(relay.TypeKeepAlive, true, nil)
		lost.Stop()
		if err != nil {
			return
		}
	}
}

// open handles a channel on a connection that isn't bound to a host.
func (o *outer) open(ctx context.Context, nc ssh.NewChannel) {
	if !o.channels.add() {
		reject(nc, ssh.ResourceShortage, &refusal{codeLimit, "too many channels on this connection", ""})
		return
	}
	switch {
	case o.closing() != nil:
		reject(nc, ssh.Prohibited, o.closing())
	case o.broken != nil && nc.ChannelType() != relay.ChannelSession:
		reject(nc, ssh.Prohibited, o.broken)
	case nc.ChannelType() == relay.ChannelSession:
		o.work.Go(func() {
			defer o.channels.done()
			o.session(ctx, nc)
		})
		return
	case nc.ChannelType() == relay.ChannelDirectTCPIP:
		o.work.Go(func() {
			defer o.channels.done()
			o.directTCPIP(ctx, nc)
		})
		return
	default:
		reject(nc, ssh.UnknownChannelType, refusef(codeProtocol, "", "the jump host has no channels of type %q", nc.ChannelType()))
	}
	o.channels.done()
}

// closing is why nothing new may begin on this connection, or nil.
func (o *outer) closing() *refusal {
	if o.server.draining.Load() {
		return draining()
	}
	return o.ended.Load()
}

// closeTime is how long a client may take to answer the close of a channel.
const closeTime = 10 * time.Second

// settle closes a channel and waits until the client has closed it, too, which
// gone tells. x/crypto keeps a channel and what has come for it until then:
// those whose place was free already would pile up. OpenSSH answers at once; of
// who doesn't, conn is closed.
func settle(ch ssh.Channel, gone <-chan struct{}, conn io.Closer) {
	timer := time.AfterFunc(closeTime, func() { _ = conn.Close() })
	defer timer.Stop()
	_ = ch.Close()
	<-gone
}

// directTCPIP is "ssh -J" and "ssh -W": the channel never leads anywhere but to
// the inner connection.
func (o *outer) directTCPIP(ctx context.Context, nc ssh.NewChannel) {
	asked, err := relay.ParseDirectTCPIP(nc.ExtraData())
	if err != nil {
		reject(nc, ssh.ConnectionFailed, &refusal{codeProtocol, err.Error(), ""})
		return
	}
	dest, refused := o.resolve(ctx, asked.Host, int(asked.Port), "")
	if refused != nil {
		reject(nc, ssh.Prohibited, refused)
		return
	}
	ch, requests, err := nc.Accept()
	if err != nil {
		return
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		ssh.DiscardRequests(requests)
	}()
	defer settle(ch, gone, o.conn)
	// There is nowhere to write to: what fails later is told within.
	_ = o.inner(ctx, ch, dest, wayDirect)
}

// resolve finds a destination, and audits it where there is none.
func (o *outer) resolve(ctx context.Context, host string, port int, cluster string) (route.Destination, *refusal) {
	if cluster != "" && !strings.EqualFold(cluster, o.set.config.Cluster) {
		return route.Destination{}, o.refuse(ctx, host, "", refusef(codeDestination, "leave @CLUSTER out",
			"there is no cluster %q here", cluster))
	}
	dest, err := o.set.router.Resolve(host, port)
	if err != nil {
		return dest, o.refuse(ctx, host, "", refusalOf(err))
	}
	return dest, nil
}

// refuse logs and audits a refusal on this connection, and gives it back.
func (o *outer) refuse(ctx context.Context, host, login string, r *refusal) *refusal {
	o.log.Warn("refused", "host", terminal.Clean(host), "login", terminal.Clean(login), "code", r.code, "reason", terminal.Clean(r.text))
	_ = o.server.record(ctx, audit.Event{
		Event: "session.reject", User: o.who.identity, Login: login, Host: host, Connection: o.id,
		RemoteAddr: o.who.client.String(), Code: r.code, Error: r.text,
	})
	return r
}

// inner terminates the connection that the client runs through a channel. What
// it returns is for the person, if there is still a place to tell it.
func (o *outer) inner(ctx context.Context, ch ssh.Channel, dest route.Destination, way string) *refusal {
	signer, err := o.set.mint.signer(dest.Name)
	if err != nil {
		o.log.Error("no certificate for the inner connection", "error", err)
		return &refusal{codeHost, "the jump host could not make a certificate for " + dest.Name, ""}
	}
	a := &authenticator{server: o.server, client: o.who.client, want: o.who}
	stream := newStreamConn(ch, o.conn.LocalAddr(), o.who.client)
	late := time.AfterFunc(o.set.config.LoginTimeout, func() { _ = ch.Close() })
	// A write that the client's window doesn't let through outlives the channel.
	later := time.AfterFunc(o.set.config.LoginTimeout+closeTime, func() { _ = o.conn.Close() })
	stop := context.AfterFunc(ctx, func() { _ = ch.Close() })
	defer stop()
	sc, channels, requests, err := ssh.NewServerConn(stream, a.config(signer))
	late.Stop()
	later.Stop()
	if err != nil {
		o.server.loginFailed(ctx, a, "", stream, err)
		if a.failure(err).code == codeProtocol && !stream.looksRight.Load() {
			return refusef(codeProtocol, "only SSH goes through this jump host", "what came for %s was not SSH", dest.Name)
		}
		return nil
	}
	defer func() { _ = sc.Close() }()
	who, err := personOf(sc)
	if err != nil {
		o.log.Error("inner connection", "error", err)
		return nil
	}
	o.mu.Lock()
	o.people = append(o.people, who)
	o.mu.Unlock()
	if refused := unaccepted(o.server.settings.Load().config, who); refused != nil {
		o.server.endConnection(o, refused) // revoked between its login and now
	}
	broken := o.server.loggedIn(ctx, who, sc, sc.User(), o.id)
	if broken != nil {
		defer endBroken(sc).Stop()
	}
	expiry := o.server.endAtExpiry(o, who)
	defer expiry.Stop()
	l := &link{outer: o, who: who, login: sc.User(), dest: dest, way: way, down: sc, conn: sc, broken: broken}
	if o.agent.Load() {
		l.offerAgent(o.conn)
	}
	l.serve(ctx, channels, requests)
	return nil
}

// endAtExpiry ends what runs on a connection when the certificate's time is
// over.
func (s *Server) endAtExpiry(o *outer, who *person) *time.Timer {
	const forever = 1 << 40
	if who.cert.ValidBefore >= forever {
		return time.NewTimer(0)
	}
	left := time.Unix(int64(who.cert.ValidBefore), 0).Sub(s.now())
	return time.AfterFunc(left, func() {
		s.endConnection(o, &refusal{codeExpired, "your certificate has expired", ""})
	})
}

// endConnection ends the sessions of a connection with a reason, and then it.
func (s *Server) endConnection(o *outer, r *refusal) {
	if !o.ended.CompareAndSwap(nil, r) {
		return
	}
	o.log.Info("ending the connection", "reason", r.text)
	mine := 0
	s.live.Each(func(e live.Entry) bool {
		if e.Session.Connection == o.id {
			mine++
			e.End(r.text)
		}
		return true
	})
	if mine == 0 {
		_ = o.conn.Close()
		return
	}
	// Sessions close by themselves once their recordings are sealed.
	time.AfterFunc(sealTime, func() { _ = o.conn.Close() })
}
