package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/inventory/sshconfig"
)

const (
	// firstPause and maxPause are the ends of the pauses between attempts.
	firstPause = 100 * time.Millisecond
	maxPause   = 2 * time.Second
	// refusedFor bounds the attempts at a port where nobody listens: long
	// enough for a server that is being restarted.
	refusedFor = 3 * time.Second
	// maxGreeting bounds what a server may say before its SSH version, and
	// maxHandshake all that it may send before it has let us in.
	maxGreeting  = 8 << 10
	maxHandshake = 1 << 20

	clientVersion = "SSH-2.0-fleetca"
)

// connect makes the connection, with retries; through via, if it isn't nil.
func (d *Dialer) connect(ctx context.Context, t *target, opts Options, via *ssh.Client) (*link, error) {
	ctx, patience, release := withPatience(ctx, d.cfg.Timeout)
	defer release()
	unreachable := &UnreachableError{Host: t.host, Address: address(&t.settings)}
	check, err := d.check(ctx, t, opts)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", t.host, err)
	}
	algorithms := check.algorithms()
	pause, began := firstPause, time.Now()
	var refused *HostKeyError // the first refusal; what it may turn into says less
	for {
		a := &attempt{d: d, t: t, check: check, patience: patience, via: via, algorithms: algorithms, wire: &wire{}}
		l, err := a.run(ctx)
		if err == nil {
			return l, nil
		}
		unreachable.Attempts++
		var refusal *HostKeyError
		switch {
		case errors.As(a.verdict, &refusal):
			if refused == nil {
				refused = refusal
			}
			if algorithms = check.fewer(algorithms, a.shown, refusal); len(algorithms) > 0 {
				continue // it may have another key
			}
			return nil, refused
		case refused != nil && isNegotiation(err):
			return nil, refused
		case ctx.Err() != nil && !errors.Is(context.Cause(ctx), errTimeout):
			return nil, fmt.Errorf("connecting to %s: %w", t.host, context.Cause(ctx))
		case a.final(err):
			return nil, a.describe(err, unreachable)
		}
		if isRefused(err) && time.Since(began) > refusedFor {
			return nil, a.describe(err, unreachable)
		}
		// Half of the pause is chance, so that a fleet doesn't come back as one.
		select {
		case <-time.After(pause/2 + rand.N(pause/2)):
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), errTimeout) {
				return nil, a.describe(err, unreachable)
			}
			return nil, fmt.Errorf("connecting to %s: %w", t.host, context.Cause(ctx))
		}
		pause = min(2*pause, maxPause)
	}
}

// attempt is one connection attempt.
type attempt struct {
	d          *Dialer
	t          *target
	check      *hostCheck
	patience   *patience
	via        *ssh.Client
	algorithms []string

	wire *wire

	login   *login
	shown   ssh.PublicKey
	verdict error // about the host key
}

func (a *attempt) run(parent context.Context) (*link, error) {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	s := &a.t.settings
	if s.ConnectTimeout > 0 {
		timer := time.AfterFunc(s.ConnectTimeout, func() {
			if !a.wire.greeted.Load() {
				cancel(errTimeout)
			}
		})
		defer timer.Stop()
	}
	raw, err := a.reach(ctx)
	if err != nil {
		return nil, causeOf(ctx, err)
	}
	w := a.wire
	w.Conn = raw
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	config, err := a.config(ctx)
	if err != nil {
		stop()
		_ = raw.Close()
		return nil, err
	}
	conn, channels, requests, err := ssh.NewClientConn(w, address(s), config)
	if !stop() {
		if err == nil {
			_ = conn.Close()
		}
		return nil, context.Cause(ctx)
	}
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	w.done.Store(true)
	return &link{client: ssh.NewClient(newLossy(conn), channels, requests), hostKey: a.shown}, nil
}

func causeOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (a *attempt) reach(ctx context.Context) (net.Conn, error) {
	if a.via != nil {
		return a.d.through(ctx, a.via, address(&a.t.settings))
	}
	var dialer net.Dialer
	return dialer.DialContext(ctx, network(&a.t.settings), address(&a.t.settings))
}

func (a *attempt) config(ctx context.Context) (*ssh.ClientConfig, error) {
	s := &a.t.settings
	a.login = &login{d: a.d, ctx: func() context.Context { return ctx }, patience: a.patience, t: a.t, wire: a.wire}
	config := &ssh.ClientConfig{
		User:            s.User,
		AuthCallback:    a.login.next,
		HostKeyCallback: a.check.callback(ctx, &a.shown, &a.verdict),
		ClientVersion:   clientVersion,
	}
	supported := ssh.SupportedAlgorithms()
	hostKeys := s.HostKeyAlgorithms
	if a.check.certOnly {
		// A list that leaves out certificates would refuse every host that has
		// just been given one. What may prove a host is decided already.
		hostKeys = ""
	}
	for _, list := range []struct {
		keyword, wanted string
		ours            []string
		into            *[]string
	}{
		{"KexAlgorithms", s.KexAlgorithms, supported.KeyExchanges, &config.KeyExchanges},
		{"Ciphers", s.Ciphers, supported.Ciphers, &config.Ciphers},
		{"MACs", s.MACs, supported.MACs, &config.MACs},
		{"HostKeyAlgorithms", hostKeys, a.algorithms, &config.HostKeyAlgorithms},
	} {
		chosen := choose(list.wanted, list.ours)
		if len(chosen) == 0 {
			return nil, fmt.Errorf("connecting to %s: none of the %s in ssh_config is supported here: %.200q", a.t.host, list.keyword, list.wanted)
		}
		*list.into = chosen
	}
	return config, nil
}

// choose applies an algorithm list of ssh_config to ours. Additions (+) to
// OpenSSH's defaults add nothing: what we don't have is left out for a reason.
func choose(wanted string, ours []string) []string {
	list := strings.Split(strings.TrimLeft(wanted, "+-^"), ",")
	matches := func(algorithm string) bool {
		for _, pattern := range list {
			if sshconfig.MatchPattern(algorithm, pattern) {
				return true
			}
		}
		return false
	}
	var first, rest []string
	for _, algorithm := range ours {
		if matches(algorithm) {
			first = append(first, algorithm)
		} else {
			rest = append(rest, algorithm)
		}
	}
	switch {
	case wanted == "" || wanted[0] == '+':
		return ours
	case wanted[0] == '-':
		return rest
	case wanted[0] == '^':
		return append(first, rest...)
	}
	return first
}

// final says whether another attempt would be of no use: the server spoke SSH,
// or nothing came back at all. What is left are ports that nobody listens on
// and connections that were dropped before the version, as sshd does past its
// MaxStartups.
func (a *attempt) final(err error) bool {
	if a.wire.greeted.Load() {
		return true
	}
	if errors.Is(err, errTooTalkative) {
		return true
	}
	return !isRefused(err) && !isDropped(err)
}

func isRefused(err error) bool {
	var open *ssh.OpenChannelError
	return errors.Is(err, syscall.ECONNREFUSED) || errors.As(err, &open) && open.Reason == ssh.ConnectionFailed
}

// isNegotiation says whether the server has no host key of the types asked for.
func isNegotiation(err error) bool {
	var negotiation *ssh.AlgorithmNegotiationError
	return errors.As(err, &negotiation) && strings.Contains(negotiation.What, "host key")
}

func isDropped(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// describe turns the error of the last attempt into the typed one.
func (a *attempt) describe(err error, unreachable *UnreachableError) error {
	var auth *AuthError
	if errors.As(err, &auth) {
		return auth
	}
	greeted := a.wire.greeted.Load()
	if greeted && isNegotiation(err) {
		reason := HostKeyUnknown
		switch {
		case a.check.certOnly:
			reason = HostKeyNoCertificate
		case len(a.t.pins) > 0:
			reason = HostKeyNotPinned
		}
		return &HostKeyError{Host: a.t.host, Name: a.check.known.String(), Reason: reason, Err: err}
	}
	if greeted && a.login != nil && a.login.started && !errors.Is(err, errTimeout) && !errors.Is(err, errTooTalkative) {
		return a.login.failure(err) // such as "Too many authentication failures"
	}
	unreachable.Err = err
	if !greeted {
		unreachable.Said = a.wire.said()
	}
	unreachable.Silent = len(unreachable.Said) == 0 && (errors.Is(err, errTimeout) || os.IsTimeout(err))
	return unreachable
}

var errTooTalkative = errors.New("the server sends more than any SSH server would")

// wire is the connection under SSH. It bounds what the server may send before
// we are in, and remembers what it says before its version.
type wire struct {
	net.Conn
	greeted atomic.Bool // the server's version has begun to come in
	done    atomic.Bool // no bounds any more
	failed  atomic.Pointer[error]

	// Only the goroutine that reads uses these, until it has ended.
	head  []byte
	total int
}

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.read(b)
	if err != nil {
		w.failed.CompareAndSwap(nil, &err)
	}
	if errors.Is(err, errTooTalkative) {
		n = 0 // io.ReadFull passes over an error that comes with what it wants
	}
	return n, err
}

func (w *wire) read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if w.done.Load() {
		return n, err
	}
	w.total += n
	if !w.greeted.Load() {
		w.head = append(w.head, b[:n]...)
		if strings.HasPrefix(string(w.head), "SSH-") || strings.Contains(string(w.head), "\nSSH-") {
			w.greeted.Store(true)
		} else if len(w.head) > maxGreeting {
			return n, errTooTalkative
		}
	}
	if w.total > maxHandshake {
		return n, errTooTalkative
	}
	return n, err
}

func (w *wire) said() []byte { return w.head[:min(len(w.head), maxQuote)] }
