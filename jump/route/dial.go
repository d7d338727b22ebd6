package route

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/cmd/terminal"
)

const (
	// firstPause and maxPause are the ends of the pauses between attempts.
	firstPause = 100 * time.Millisecond
	maxPause   = time.Second
	// shortest is how long an attempt may at least take, if so much is left.
	shortest = 5 * time.Second

	// sshd tells only clients that call themselves OpenSSH when a program has
	// stopped reading (eow@openssh.com), without which "yes | head" never ends.
	clientVersion = "SSH-2.0-OpenSSH_9.2 fleetjump"
)

// Upstream is a connection to a host that has let us in.
type Upstream struct {
	// Conn, Channels and Requests are as ssh.NewClientConn returns them, but
	// for OpenChannel, which always returns when the connection is lost; the
	// caller must serve both channels until they are closed.
	Conn     ssh.Conn
	Channels <-chan ssh.NewChannel
	Requests <-chan *ssh.Request
	// HostKey is what the host has shown: an *ssh.Certificate if one was
	// required.
	HostKey ssh.PublicKey
	// Address is host:port as connected to, with the address that was reached.
	Address string
	// Banner is what the host said before it let us in, cut off at 16 KiB. It
	// is untrusted text.
	Banner string
	// Attempts is how many connections it took.
	Attempts int
}

// Close ends the connection and waits until it has ended.
func (u *Upstream) Close() error {
	err := u.Conn.Close()
	var rest sync.WaitGroup
	rest.Go(func() { ssh.DiscardRequests(u.Requests) })
	rest.Go(func() {
		for range u.Channels { // there is nobody to refuse them to
		}
	})
	rest.Wait()
	_ = u.Conn.Wait() // what ended it is us
	return err
}

// Dial connects to the destination and logs in with the signer, whose public
// key must be a user certificate. What may pass by itself is tried again, with
// growing pauses, until Config.DialTimeout is over: ports where nobody listens,
// hosts that can't be reached or don't answer, and connections that end before
// the host has proven who it is, as sshd ends them past its MaxStartups. Each
// attempt may take two thirds of what is left. A refused login is final.
//
// notice, if not nil, is called with one line of clean text whenever the person
// should know why it takes time: from other goroutines too, but one at a time,
// and never after Dial has returned.
//
// ctx bounds Dial, not the connection that it returns.
//
// Errors: *UnreachableError, *HostKeyError, *LoginRefusedError, and what the
// signer returned, such as an *AgentError, wrapped. Where ctx ended, its cause
// is wrapped.
func (r *Router) Dial(ctx context.Context, d Destination, login string, signer ssh.Signer, notice func(string)) (*Upstream, error) {
	if d.Host == nil || d.Address == "" || d.Port <= 0 || d.Port > 65535 {
		return nil, fmt.Errorf("connecting to %q: the destination is not one of Resolve's", d.Name)
	}
	var cert *ssh.Certificate
	if signer != nil {
		cert, _ = signer.PublicKey().(*ssh.Certificate)
	}
	if cert == nil || cert.CertType != ssh.UserCert || cert.Key == nil || login == "" {
		return nil, fmt.Errorf("connecting to %s: a login and the signer of a user certificate are needed", d.Host.Name)
	}
	check, err := r.hostCheck(d)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", d.Host.Name, err)
	}
	t := &trip{r: r, d: d, login: login, signer: signer, cert: cert, check: check, tell: &teller{to: notice}, began: time.Now()}
	defer t.tell.close()
	ctx, overall, release := withBudget(ctx, r.cfg.DialTimeout)
	defer release()
	t.overall = overall
	return t.run(ctx)
}

// trip is one Dial.
type trip struct {
	r       *Router
	d       Destination
	login   string
	signer  ssh.Signer
	cert    *ssh.Certificate
	check   *hostCheck
	tell    *teller
	overall *budget
	began   time.Time
	count   int
	// refusal is the first of a host key: what another key of the host turns it
	// into says less.
	refusal *HostKeyError
}

func (t *trip) run(ctx context.Context) (*Upstream, error) {
	algorithms := t.check.algorithms()
	pause := firstPause
	for {
		a := &attempt{trip: t, algorithms: algorithms, wire: &wire{}, verdict: &verdict{check: t.check}}
		t.count++
		u, err := a.run(ctx)
		if err == nil {
			u.Attempts = t.count
			return u, nil
		}
		shown, refusal := a.verdict.get()
		switch {
		case ctx.Err() != nil && !errors.Is(context.Cause(ctx), errTimeout):
			return nil, fmt.Errorf("connecting to %s: %w", t.d.Host.Name, context.Cause(ctx))
		case refusal != nil:
			if t.refusal == nil {
				t.refusal = refusal
			}
			if algorithms = t.check.fewer(algorithms, shown, refusal); len(algorithms) > 0 {
				continue // it may have another key
			}
			return nil, t.refusal
		case !a.passing(err):
			return nil, a.describe(err)
		case ctx.Err() != nil || t.overall.remaining() < pause:
			return nil, a.describe(err)
		}
		t.tell.say(a.excuse(err) + ", trying again")
		t.r.cfg.Log.Debug("host not reached yet", "host", t.d.Host.Name, "attempt", t.count, "error", err)
		// Half of the pause is chance, so that a crowd doesn't come back as one.
		select {
		case <-time.After(pause/2 + rand.N(pause/2)):
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), errTimeout) {
				return nil, a.describe(err)
			}
			return nil, fmt.Errorf("connecting to %s: %w", t.d.Host.Name, context.Cause(ctx))
		}
		pause = min(2*pause, maxPause)
	}
}

// attempt is one connection attempt.
type attempt struct {
	*trip
	algorithms []string
	wire       *wire
	verdict    *verdict
	auth       *login // nil until there is a connection
}

func (a *attempt) address() string { return net.JoinHostPort(a.d.Address, strconv.Itoa(a.d.Port)) }

func (a *attempt) run(parent context.Context) (*Upstream, error) {
	left := a.overall.remaining()
	ctx, limit, release := withBudget(parent, max(left*2/3, min(left, shortest)))
	defer release()
	name := terminal.Clean(a.d.Name)
	defer a.tell.after(patience, name+" is slow, still waiting for it")()
	dialer := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: a.r.cfg.KeepAlive, Interval: a.r.cfg.KeepAlive, Count: 4,
	}}
	raw, err := dialer.DialContext(ctx, "tcp", a.address()) // sets TCP_NODELAY
	if err != nil {
		return nil, causeOf(ctx, err)
	}
	a.wire.Conn = raw
	a.auth = &login{
		signer: a.signer, cert: a.cert, tell: a.tell,
		ctx: func() context.Context { return ctx }, clocks: []*budget{a.overall, limit},
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	conn, channels, requests, err := ssh.NewClientConn(a.wire, a.address(), &ssh.ClientConfig{
		Config:            Algorithms(),
		User:              a.login,
		AuthCallback:      a.auth.next,
		HostKeyCallback:   a.verdict.callback,
		HostKeyAlgorithms: a.algorithms,
		BannerCallback:    a.auth.hear,
		ClientVersion:     clientVersion,
	})
	inTime := stop()
	if err != nil {
		_ = raw.Close()
		return nil, causeOf(ctx, err)
	}
	shown, _ := a.verdict.get()
	u := &Upstream{
		Conn: newConn(conn), Channels: channels, Requests: requests, HostKey: shown,
		Address: raw.RemoteAddr().String(), Banner: a.auth.banner.String(),
	}
	switch {
	case !inTime:
		_ = u.Close()
		return nil, context.Cause(ctx)
	case !a.auth.signed:
		_ = u.Close()
		return nil, errUnproven
	}
	a.wire.done.Store(true)
	return u, nil
}

var errUnproven = errors.New("the host asked for no proof")

func causeOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// loggingIn says whether the host has come so far as to say what it takes.
func (a *attempt) loggingIn() bool { return a.auth != nil && a.auth.began }

// passing says whether the failure may pass by itself. A login that the host
// has begun to judge is never tried again, however it ended: sshd counts, and
// punishes. It is worth another attempt only if it was us who lost patience.
func (a *attempt) passing(err error) bool {
	if a.auth != nil && a.auth.err != nil || errors.Is(err, errUnproven) {
		return false
	}
	if errors.Is(err, errTimeout) {
		return true
	}
	if a.loggingIn() {
		return false
	}
	if a.auth == nil { // no connection
		var dns *net.DNSError
		if errors.As(err, &dns) && dns.IsNotFound {
			return false
		}
		return !errors.Is(err, syscall.EACCES) && !errors.Is(err, syscall.EPERM)
	}
	var negotiation *ssh.AlgorithmNegotiationError
	return !errors.As(err, &negotiation) && (isDropped(err) || isDropped(a.wire.cause()))
}

func isDropped(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// excuse says to the person why it takes so long.
func (a *attempt) excuse(err error) string {
	name := terminal.Clean(a.d.Name)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return name + " refuses connections"
	case a.auth == nil && !timedOut(err):
		return name + " can't be reached"
	case timedOut(err):
		return name + " is slow"
	}
	return name + " drops connections (busy?)"
}

func timedOut(err error) bool { return errors.Is(err, errTimeout) || os.IsTimeout(err) }

// describe turns the error of the last attempt into the typed one.
func (a *attempt) describe(err error) error {
	if negotiation := hostKeyNegotiation(err); negotiation != nil {
		if a.refusal != nil {
			return a.refusal
		}
		return a.check.notOffered(negotiation)
	}
	host := a.d.Host.Name
	if a.auth != nil && a.auth.err != nil {
		return fmt.Errorf("logging in to %s as %q: %w", host, a.login, a.auth.err)
	}
	if unproven := errors.Is(err, errUnproven); unproven || a.loggingIn() && !timedOut(err) {
		return &LoginRefusedError{
			Host: host, Login: a.login, Methods: a.auth.methods, Partial: a.auth.partial,
			Dropped: !unproven && isDropped(a.wire.cause()), Unproven: unproven,
			Banner: a.auth.banner.String(), Err: err,
		}
	}
	return &UnreachableError{
		Host: host, Address: a.address(), Silent: timedOut(err) && !a.wire.heard.Load(), Said: a.wire.said(),
		Attempts: a.count, Waited: time.Since(a.began), Err: err,
	}
}

// hostKeyNegotiation returns the error that says that the host has no key of the
// types that were asked for.
func hostKeyNegotiation(err error) *ssh.AlgorithmNegotiationError {
	var negotiation *ssh.AlgorithmNegotiationError
	if errors.As(err, &negotiation) && negotiation.What == "host key" {
		return negotiation
	}
	return nil
}
