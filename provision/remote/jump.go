package remote

import (
	"context"
	"fmt"
	"net"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/inventory/sshconfig"
)

// hop is the connection to one jump host on one way, shared by all hosts behind
// it. It is made when it is first needed and again if it was lost. A jump host
// that was never reached isn't tried again, since every host behind it would.
type hop struct {
	turn   chan struct{} // holds whoever is connecting or looking
	client *ssh.Client
	lost   chan struct{} // closed when client is no good any more
	err    error
}

// via returns the connection to the last of the hops, nil if there is none. The
// error is a *JumpError.
func (d *Dialer) via(ctx context.Context, host string, hops []sshconfig.Hop) (*ssh.Client, error) {
	if len(hops) == 0 {
		return nil, nil
	}
	fail := func(hop string, err error) error { return &JumpError{Host: host, Hop: hop, Err: err} }
	// The way is known before the first step, so one that leads in circles
	// connects to nothing and waits for nobody.
	way, err := d.way(hops, 0)
	if err != nil {
		return nil, fail(hops[len(hops)-1].String(), err)
	}
	var client *ssh.Client
	var key strings.Builder
	for _, t := range way {
		fmt.Fprintf(&key, "%s %s@%s\n", t.host, t.settings.User, address(&t.settings))
		if client, err = d.hop(ctx, key.String(), t, client); err != nil {
			return nil, fail(t.host, err)
		}
	}
	return client, nil
}

// way resolves the jump hosts that lead through the hops. As with ssh -J, a
// jump host's own ProxyJump counts only for the first.
func (d *Dialer) way(hops []sshconfig.Hop, depth int) ([]*target, error) {
	var way []*target
	for i, h := range hops {
		settings, err := d.cfg.SSHConfig.Lookup(h.Host, sshconfig.Override{User: h.User, Port: h.Port, Hops: hops[:i]})
		if err != nil {
			return nil, err
		}
		if i == 0 && len(settings.ProxyJump) > 0 {
			if depth >= maxHops {
				return nil, fmt.Errorf("jump hosts lead through each other, or are more than %d", maxHops)
			}
			if way, err = d.way(settings.ProxyJump, depth+1); err != nil {
				return nil, err
			}
		}
		t := &target{host: h.Host, names: []string{h.Host}, settings: settings}
		if settings.HostKeyAlias != "" {
			t.names = append(t.names, settings.HostKeyAlias)
		} else if settings.HostName != h.Host {
			t.names = append(t.names, settings.HostName)
		}
		way = append(way, t)
	}
	if len(way) > maxHops {
		return nil, fmt.Errorf("more than %d jump hosts", maxHops)
	}
	return way, nil
}

// hop returns the connection to one jump host, through the one before it.
func (d *Dialer) hop(ctx context.Context, key string, t *target, before *ssh.Client) (*ssh.Client, error) {
	d.mu.Lock()
	h := d.hops[key]
	if h == nil {
		h = &hop{turn: make(chan struct{}, 1)}
		d.hops[key] = h
	}
	d.mu.Unlock()
	select {
	case h.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-h.turn }()
	if h.err != nil {
		return nil, h.err
	}
	if h.client != nil {
		select {
		case <-h.lost:
		default:
			return h.client, nil
		}
	}
	l, err := d.connect(ctx, t, Options{}, before)
	if err == nil {
		h.lost = make(chan struct{})
		lost := h.lost
		if !d.own(l.client) || !d.start(func() {
			_ = l.client.Wait()
			close(lost)
		}) {
			return nil, ErrClosed
		}
		h.client = l.client
		return h.client, nil
	}
	if ctx.Err() == nil {
		h.err = err
	}
	return nil, err
}

// through opens a channel to an address behind a jump host. A channel that is
// being opened can't be given up, so the goroutine lives on until the jump host
// answers or Dialer.Close ends the connection.
func (d *Dialer) through(ctx context.Context, client *ssh.Client, address string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	if !d.start(func() {
		conn, err := client.Dial("tcp", address)
		select {
		case done <- result{conn, err}:
		case <-ctx.Done():
			if conn != nil {
				_ = conn.Close()
			}
		}
	}) {
		return nil, ErrClosed
	}
	select {
	case r := <-done:
		return r.conn, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
