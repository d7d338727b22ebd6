package remote

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetca/fleetca/testenv"
	"github.com/fleetca/fleetca/testenv/fleettest"
)

// jumps is the ssh_config of a fleet whose first hosts are jump hosts.
func jumps(t *testing.T, f *testenv.Fleet, hops ...*testenv.Host) string {
	t.Helper()
	var config strings.Builder
	for i, h := range hops {
		address, port, err := net.SplitHostPort(h.Addr())
		if err != nil {
			t.Fatal(err)
		}
		config.WriteString("Host hop" + itoa(i+1) + "\n  HostName " + address + "\n  Port " + port + "\n  User " + h.Login() + "\n")
	}
	return config.String() + "Host *\n" + usual(t, f)
}

func accepted(h *testenv.Host) int { return strings.Count(h.Log(), "Accepted publickey for") }

func TestJump(t *testing.T) {
	f := fleettest.Start(t, testenv.Config{Hosts: 6})
	hosts := f.Hosts()
	d := newDialer(t, Config{}, jumps(t, f, hosts[0], hosts[1]))
	through := map[string]any{"ansible_ssh_common_args": "-J hop1,hop2"}
	var running sync.WaitGroup
	for _, h := range hosts[2:] {
		running.Go(func() {
			c, err := d.Dial(t.Context(), of(t, h, through), Options{})
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			r, err := c.Run(t.Context(), "echo $FLEETCA_PEER")
			if err != nil || !strings.HasPrefix(string(r.Stdout), "127.0.0.1 ") {
				t.Errorf("%q, %v", r.Stdout, err)
			}
		})
	}
	running.Wait()
	for _, hop := range hosts[:2] {
		if n := accepted(hop); n != 1 {
			t.Errorf("jump host %s was logged in to %d times", hop.Name(), n)
		}
	}
	// The second hop is reached from the first, not from here.
	if strings.Count(hosts[1].Log(), "Connection from") != 1+strings.Count(hosts[1].Log(), "Connection closed by") {
		t.Logf("log of the second hop:\n%s", hosts[1].Log())
	}
	// Connections end with the Dialer.
	c := dial(t, d, of(t, hosts[2], through))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Run(t.Context(), "true"); err == nil {
		t.Error("a connection through a jump host outlives the Dialer")
	}
	if _, err := d.Dial(t.Context(), of(t, hosts[2], through), Options{}); err == nil {
		t.Error("a closed Dialer connects")
	}
}

func TestJumpByConfig(t *testing.T) {
	f := fleettest.Start(t, testenv.Config{Hosts: 3})
	hosts := f.Hosts()
	config := jumps(t, f, hosts[0], hosts[1])
	// hop2's own ProxyJump leads through hop1, as it would for ssh.
	d := newDialer(t, Config{}, "Host hop2\n  ProxyJump hop1\nHost 127.0.0.1\n  ProxyJump hop2\n"+
		strings.ReplaceAll(config, "Host *", "Host hop*\n ProxyJump none\nHost *"))
	dial(t, d, of(t, hosts[2], nil))
	for _, hop := range hosts[:2] {
		if n := accepted(hop); n != 1 {
			t.Errorf("jump host %s was logged in to %d times", hop.Name(), n)
		}
	}
	// The inventory wins.
	direct := newDialer(t, Config{}, "ProxyJump nowhere\n"+usual(t, f))
	dial(t, direct, of(t, hosts[2], map[string]any{"ansible_ssh_common_args": "-o ProxyJump=none"}))
}

func TestJumpErrors(t *testing.T) {
	f := fleettest.Start(t, testenv.Config{Hosts: 2})
	hop, target := f.Hosts()[0], f.Hosts()[1]
	config := jumps(t, f, hop)
	stranger := keygen(t, "ed25519", "")
	through := map[string]any{"ansible_ssh_common_args": "-J hop1"}
	for _, tt := range []struct {
		name, config string
		as           any
		at           string // the host at fault
	}{
		{"unknown key of the jump host", strings.ReplaceAll(config, "Host *", "Host hop1\n UserKnownHostsFile none\nHost *"), new(*HostKeyError), "hop1"},
		{"no way into the jump host", strings.ReplaceAll(config, "Host *", "Host hop1\n IdentitiesOnly yes\n PubkeyAuthentication no\n IdentityFile "+stranger+"\nHost *"), new(*AuthError), "hop1"},
		{"jump host not there", "Host hop1\n  HostName 127.0.0.1\n  Port 1\n" + config, new(*UnreachableError), "hop1"},
		{"jump host leads to itself", "Host hop1\n  ProxyJump hop1\n" + config, nil, "jump hosts"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDialer(t, Config{Timeout: 10 * time.Second}, tt.config)
			_, err := d.Dial(t.Context(), of(t, target, through), Options{})
			var jump *JumpError
			if !errors.As(err, &jump) || jump.Hop != "hop1" || jump.Host != target.Name() {
				t.Fatalf("got %v", err)
			}
			if tt.as != nil && !errors.As(err, tt.as) {
				t.Errorf("got %v", err)
			}
			if !strings.Contains(err.Error(), tt.at) {
				t.Errorf("%v doesn't name %s", err, tt.at)
			}
			// It is not tried again for the next host.
			var again *JumpError
			if _, err := d.Dial(t.Context(), of(t, target, through), Options{}); !errors.As(err, &again) || tt.as != nil && again.Err != jump.Err {
				t.Errorf("tried again: %v", err)
			}
		})
	}
	t.Run("target not there", func(t *testing.T) {
		d := newDialer(t, Config{Timeout: 4 * time.Second}, config)
		_, err := d.Dial(t.Context(), at(t, "gone", "u", "127.0.0.1:1", through), Options{})
		var unreachable *UnreachableError
		if !errors.As(err, &unreachable) || unreachable.Attempts < 2 {
			t.Errorf("got %v", err)
		}
	})
	t.Run("target's key unknown", func(t *testing.T) {
		d := newDialer(t, Config{}, "Match originalhost 127.0.0.1\n UserKnownHostsFile none\n"+config)
		_, err := d.Dial(t.Context(), of(t, target, through), Options{})
		var refusal *HostKeyError
		if jump := (*JumpError)(nil); !errors.As(err, &refusal) || errors.As(err, &jump) {
			t.Errorf("got %v", err)
		}
	})
}

// TestJumpAgain holds that a lost jump host is connected to once more.
func TestJumpAgain(t *testing.T) {
	f := fleettest.Start(t, testenv.Config{Hosts: 2})
	hop, target := f.Hosts()[0], f.Hosts()[1]
	d := newDialer(t, Config{}, jumps(t, f, hop))
	through := map[string]any{"ansible_ssh_common_args": "-J hop1"}
	c := dial(t, d, of(t, target, through))
	if err := hop.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = c.client.Wait() // the loss is noticed
	if err := hop.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	dial(t, d, of(t, target, through))
	if n := accepted(hop); n != 2 {
		t.Errorf("%d logins", n)
	}
}

// TestRetries holds what is tried again, and what isn't.
func TestRetries(t *testing.T) {
	f := fleettest.Start(t, testenv.Config{})
	h := f.Hosts()[0]
	config := usual(t, f)
	known, err := os.ReadFile(strings.Fields(config)[1])
	if err != nil {
		t.Fatal(err)
	}
	_, hostPort, _ := net.SplitHostPort(h.Addr())
	// front passes connections on to the host, after treating the first ones.
	front := func(t *testing.T, treat func(n int32, c net.Conn) bool) (string, *atomic.Int32, *Dialer) {
		var count atomic.Int32
		addr := listen(t, func(c net.Conn) {
			if treat(count.Add(1), c) {
				return
			}
			s, err := net.Dial("tcp", h.Addr())
			if err != nil {
				return
			}
			defer s.Close()
			pass(c, s)
		})
		_, port, _ := net.SplitHostPort(addr)
		lines := strings.ReplaceAll(string(known), "]:"+hostPort, "]:"+port)
		d := newDialer(t, Config{Timeout: 20 * time.Second}, strings.Replace(config, strings.Fields(config)[1], writeTemp(t, "known_hosts", lines), 1))
		return addr, &count, d
	}
	drop := func(c net.Conn) { _ = c.Close() }
	reset := func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0); _ = c.Close() }
	for _, tt := range []struct {
		name  string
		treat func(c net.Conn)
	}{
		{"dropped", drop},
		{"reset", reset},
		{"MaxStartups", func(c net.Conn) { _, _ = c.Write([]byte("Exceeded MaxStartups\r\n")); drop(c) }},
		{"penalty", func(c net.Conn) { _, _ = c.Write([]byte("Not allowed at this time\r\n")); drop(c) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr, count, d := front(t, func(n int32, c net.Conn) bool {
				if n <= 2 {
					tt.treat(c)
				}
				return n <= 2
			})
			c, err := d.Dial(t.Context(), at(t, h.Name(), h.Login(), addr, nil), Options{})
			if err != nil {
				t.Fatal(err)
			}
			_ = c.Close()
			if count.Load() != 3 {
				t.Errorf("%d connections", count.Load())
			}
		})
	}
	t.Run("never", func(t *testing.T) {
		addr, count, _ := front(t, func(_ int32, c net.Conn) bool {
			_, _ = c.Write([]byte("Exceeded MaxStartups\r\n"))
			return true
		})
		d := newDialer(t, Config{Timeout: time.Second}, config)
		_, err := d.Dial(t.Context(), at(t, h.Name(), h.Login(), addr, nil), Options{})
		var unreachable *UnreachableError
		if !errors.As(err, &unreachable) || unreachable.Attempts < 3 || int32(unreachable.Attempts) != count.Load() {
			t.Errorf("got %v after %d", err, count.Load())
		}
		if !strings.Contains(err.Error(), "Exceeded MaxStartups") {
			t.Errorf("%v doesn't say what the server said", err)
		}
	})
	t.Run("cut after the version", func(t *testing.T) {
		addr, count, d := front(t, func(_ int32, c net.Conn) bool {
			_, _ = c.Write([]byte("SSH-2.0-x\r\n"))
			return true
		})
		_, err := d.Dial(t.Context(), at(t, h.Name(), h.Login(), addr, nil), Options{})
		var unreachable *UnreachableError
		if !errors.As(err, &unreachable) || count.Load() != 1 {
			t.Errorf("got %v after %d", err, count.Load())
		}
	})
	t.Run("wrong key", func(t *testing.T) {
		addr, count, _ := front(t, func(int32, net.Conn) bool { return false })
		_, port, _ := net.SplitHostPort(addr)
		lines := strings.ReplaceAll(string(known), "]:"+hostPort, "]:"+port)
		d := newDialer(t, Config{}, "IdentityAgent none\nIdentityFile "+keygen(t, "ed25519", "")+"\nUserKnownHostsFile "+writeTemp(t, "kh", lines))
		_, err := d.Dial(t.Context(), at(t, h.Name(), h.Login(), addr, nil), Options{})
		var auth *AuthError
		if !errors.As(err, &auth) || count.Load() != 1 {
			t.Errorf("got %v after %d", err, count.Load())
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		mine := errors.New("the person pressed Ctrl-C")
		addr, _, d := front(t, func(int32, net.Conn) bool { cancel(mine); return true })
		_, err := d.Dial(ctx, at(t, h.Name(), h.Login(), addr, nil), Options{})
		if !errors.Is(err, mine) {
			t.Errorf("got %v", err)
		}
	})
}

// pass copies between two connections until either ends.
func pass(a, b net.Conn) {
	var running sync.WaitGroup
	one := func(to, from net.Conn) {
		buffer := make([]byte, 32<<10)
		for {
			n, err := from.Read(buffer)
			if n > 0 {
				if _, err := to.Write(buffer[:n]); err != nil {
					break
				}
			}
			if err != nil {
				break
			}
		}
		_ = to.Close()
		_ = from.Close()
	}
	running.Go(func() { one(a, b) })
	running.Go(func() { one(b, a) })
	running.Wait()
}
