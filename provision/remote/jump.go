package remote

import (
	"context"
	"fmt"
	"net"
	"strings"

	"github.com/fleetca/fleetca/inventory/sshconfig"
	"golang.org/x/crypto/ssh"
)

// hop is the connection to one jump host, shared by all hosts behind it. It is
// made when it is first needed and once more if it was lost. A jump host that
// was never reached isn't tried again, since every host behind it would.
type hop struct {
	turn   chan struct{} // holds whoever is connecting or looking
	client *ssh.Client
	lost   chan struct{} // closed when client is no good any more
	err    error
}

// hop returns the connection to the last of the hops, through those before it.
func (d *Dialer) hop(ctx context.Context, hops []sshconfig.Hop, depth int) (*ssh.Client, error) {
	if depth >= maxHops {
		return nil, fmt.Errorf("more than %d jump hosts, or jump hosts that lead through each other", maxHops)
	}
	var words []string
	for _, h := range hops {
		words = append(words, h.String())
	}
	key := strings.Join(words, ",")
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
	err := h.connect(ctx, d, hops, depth)
	if err != nil && ctx.Err() == nil {
		h.err = err
	}
	return h.client, err
}

func (h *hop) connect(ctx context.Context, d *Dialer, hops []sshconfig.Hop, depth int) error {
	last := hops[len(hops)-1]
	// As with ssh -J: a jump host's own ProxyJump counts only for the first.
	settings, err := d.cfg.SSHConfig.Lookup(last.Host, sshconfig.Override{
		User: last.User, Port: last.Port, Hops: hops[:len(hops)-1],
	})
	if err != nil {
		return err
	}
	t := &target{host: last.Host, names: []string{last.Host}, settings: settings}
	if settings.HostKeyAlias != "" {
		t.names = append(t.names, settings.HostKeyAlias)
	} else if settings.HostName != last.Host {
		t.names = append(t.names, settings.HostName)
	}
	l, err := d.connect(ctx, t, Options{}, depth+1)
	if err != nil {
		return err
	}
	if !d.own(l.client) {
		return ErrClosed
	}
	lost := make(chan struct{})
	if !d.start(func() {
		_ = l.client.Wait()
		close(lost)
	}) {
		return ErrClosed
	}
	h.client, h.lost = l.client, lost
	return nil
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
