package jump_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/jump/access"
	"github.com/fleetca/fleetca/jump/config"
	"github.com/fleetca/fleetca/jump/relay"
	"github.com/fleetca/fleetca/jump/store"
	"github.com/fleetca/fleetca/testenv"
)

// badHost is a host with a good certificate that misbehaves.
type badHost struct {
	w      *world
	global func(*ssh.ServerConn)
	all    sync.WaitGroup

	mu      sync.Mutex
	session func(ssh.Channel, <-chan *ssh.Request) // nil refuses
}

// does says what becomes of sessions from now on.
func (h *badHost) does(session func(ssh.Channel, <-chan *ssh.Request)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.session = session
}

const escapes = "\x1b]0;owned\a\x1b[2J\x9b31m\u202e\r\nline"

// newBadHost gives a world whose host web1 is a bad one.
func newBadHost(t *testing.T) (*world, *badHost) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &badHost{}
	t.Cleanup(func() {
		_ = l.Close()
		h.all.Wait()
	})
	w := newWorld(t, worldConfig{
		hosts: []string{"web1"},
		vars: func(*testenv.Host) map[string]any {
			return map[string]any{"ansible_port": l.Addr().(*net.TCPAddr).Port}
		},
		settings: func(c *config.Config) { c.DialTimeout = 3 * time.Second },
	})
	h.w = w
	key := newKey(t)
	shown, err := ssh.NewCertSigner(w.hostCA.sign(t, key.PublicKey(), ssh.HostCert, "web1", []string{"web1"}, nil), key)
	if err != nil {
		t.Fatal(err)
	}
	c := &ssh.ServerConfig{
		PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return &ssh.Permissions{}, nil },
		BannerCallback:    func(ssh.ConnMetadata) string { return "welcome" + escapes },
	}
	c.AddHostKey(shown)
	h.all.Go(func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			h.all.Go(func() { h.serve(raw, c) })
		}
	})
	return w, h
}

func (h *badHost) serve(raw net.Conn, c *ssh.ServerConfig) {
	defer raw.Close()
	conn, channels, requests, err := ssh.NewServerConn(raw, c)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	if h.global != nil {
		h.all.Go(func() { h.global(conn) })
	}
	for nc := range channels {
		h.mu.Lock()
		session := h.session
		h.mu.Unlock()
		if session == nil {
			_ = nc.Reject(ssh.ResourceShortage, "no room"+escapes)
			continue
		}
		ch, requests, err := nc.Accept()
		if err != nil {
			continue
		}
		h.all.Go(func() { session(ch, requests) })
	}
}

// enterBad comes in to the bad host by a way.
func (h *badHost) enter(t *testing.T, a *attacker, way string) *visit {
	t.Helper()
	if way == "login" {
		v, err := a.enter(way, "web1")
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	out, err := a.outer("anybody")
	if err != nil {
		t.Fatal(err)
	}
	host, err := out.stream("direct", "web1", 0)
	if way != "direct" {
		host, err = out.stream(way, "web1", h.port(t))
	} else if err != nil {
		host, err = out.stream("direct", "web1", h.port(t))
	}
	if err != nil {
		t.Fatal(err)
	}
	v, err := a.handshake(host, h.w.login, a)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (h *badHost) port(t *testing.T) int {
	t.Helper()
	s, err := h.w.inventory.Hosts()[0].Settings()
	if err != nil {
		t.Fatal(err)
	}
	return s.Port
}

// answer handles a channel's requests: yes to all, and then the program.
func answer(ch ssh.Channel, requests <-chan *ssh.Request, program func()) {
	for r := range requests {
		_ = r.Reply(true, nil)
		if r.Type == "exec" || r.Type == "shell" {
			go ssh.DiscardRequests(requests)
			program()
			_ = ch.Close()
			return
		}
	}
}

// TestHostAsks: a host gets no channel to the client that the client didn't ask
// for, and none of its global requests is passed on.
func TestHostAsks(t *testing.T) {
	calm(t)
	_, h := newBadHost(t)
	joe := h.w.attacker("joe", func(c *ssh.Certificate) {
		c.Extensions = map[string]string{"permit-pty": ""} // no agent at hosts
	})
	type result struct{ what, got string }
	results := make(chan result, 100)
	h.global = func(conn *ssh.ServerConn) {
		for _, kind := range []string{
			"session", "x11", "auth-agent@openssh.com", "forwarded-tcpip", "forwarded-streamlocal@openssh.com", "direct-tcpip",
			"direct-streamlocal@openssh.com", "tun@openssh.com", escapes,
		} {
			_, _, err := conn.OpenChannel(kind, ssh.Marshal(relay.ForwardedTCPIP{Address: "127.0.0.1", Port: 22}))
			results <- result{"channel " + kind, rejection(err)}
		}
		for _, kind := range []string{"hostkeys-00@openssh.com", "tcpip-forward", "no-more-sessions@openssh.com", escapes} {
			ok, _, err := conn.SendRequest(kind, true, []byte("junk"))
			results <- result{"request " + kind, fmt.Sprint(ok, " ", err)}
		}
		for range 500 { // fewer than what counts as a flood
			if _, _, err := conn.SendRequest("hostkeys-00@openssh.com", false, make([]byte, 1000)); err != nil {
				break
			}
		}
		results <- result{}
	}
	h.does(func(ch ssh.Channel, requests <-chan *ssh.Request) {
		answer(ch, requests, func() {
			_, _ = io.WriteString(ch, "in\n")
			_, _ = ch.SendRequest("exit-status", false, []byte{0, 0, 0, 0})
		})
	})
	for _, way := range byHand {
		v := h.enter(t, joe, way)
		out, err := v.exec("true")
		if err != nil || !strings.Contains(out, "in\n") {
			t.Errorf("%s: %q, %v", way, out, err)
		}
		noEscapes(t, "banner by "+way, out)
		for {
			r := <-results
			if r.what == "" {
				break
			}
			if strings.HasPrefix(r.what, "channel") && !strings.HasPrefix(r.got, "administratively prohibited: the client did not ask") ||
				strings.HasPrefix(r.what, "request") && r.got != "false <nil>" {
				t.Errorf("%s, %q: %s", way, r.what, r.got)
			}
		}
		if out, err := v.exec("true"); err != nil || !strings.Contains(out, "in\n") {
			t.Errorf("%s: afterwards %q, %v", way, out, err)
		}
		_ = v.Close()
	}
}

// TestHostileSessions: what a host does with a session ends soon, with a reason,
// or when the client goes; and it leaves nothing behind.
func TestHostileSessions(t *testing.T) {
	calm(t)
	_, h := newBadHost(t)
	joe := h.w.attacker("joe", nil)
	junk := bytes.Repeat([]byte("junk "), 10_000)
	for name, c := range map[string]struct {
		session func(ssh.Channel, <-chan *ssh.Request)
		hangs   bool // until the client goes
		says    string
	}{
		"refuses": {says: `no room\x1b]0;owned`},
		"never answers": {hangs: true, session: func(_ ssh.Channel, requests <-chan *ssh.Request) {
			for range requests {
			}
		}},
		"says no": {session: func(_ ssh.Channel, requests <-chan *ssh.Request) {
			for r := range requests {
				_ = r.Reply(false, nil)
			}
		}, hangs: true},
		"talks before": {session: func(ch ssh.Channel, requests <-chan *ssh.Request) {
			_, _ = ch.Write([]byte("early"))
			_ = ch.Close()
			ssh.DiscardRequests(requests)
		}},
		"closes at once": {session: func(ch ssh.Channel, requests <-chan *ssh.Request) {
			_ = ch.Close()
			ssh.DiscardRequests(requests)
		}},
		"never ends": {hangs: true, session: func(ch ssh.Channel, requests <-chan *ssh.Request) {
			answer(ch, requests, func() {
				_, _ = ch.SendRequest("exit-status", false, []byte{0, 0, 0, 0})
				_, _ = io.Copy(io.Discard, ch)
			})
		}},
		"floods": {hangs: true, session: func(ch ssh.Channel, requests <-chan *ssh.Request) {
			answer(ch, requests, func() {
				for {
					if _, err := ch.Write(junk); err != nil {
						return
					}
					if _, err := ch.Stderr().Write(junk); err != nil {
						return
					}
				}
			})
		}},
		"floods with requests": {hangs: true, session: func(ch ssh.Channel, requests <-chan *ssh.Request) {
			answer(ch, requests, func() {
				for {
					if _, err := ch.SendRequest("exit-signal", false, ssh.Marshal(relay.ExitSignal{Signal: escapes, Message: escapes})); err != nil {
						return
					}
				}
			})
		}},
	} {
		h.does(c.session)
		for _, way := range byHand {
			within(t, 30*time.Second, name+" by "+way, func() {
				v := h.enter(t, joe, way)
				done := make(chan string, 1)
				go func() {
					out, err := v.exec("true")
					done <- fmt.Sprint(out[:min(len(out), 1000)], err)
				}()
				if !c.hangs {
					if got := <-done; !strings.Contains(got, c.says) {
						t.Errorf("%s by %s: %q", name, way, got)
					} else {
						noEscapes(t, name, got)
					}
					_ = v.Close()
					return
				}
				select {
				case <-done:
				case <-time.After(300 * time.Millisecond): // it hangs or floods
				}
				_ = v.Close()
			})
		}
	}
	h.w.eventually("all is sealed", func() bool {
		for range h.w.store.Sessions(context.Background(), store.Query{State: store.Open}) {
			return false
		}
		return true
	})
	noEscapes(t, "log", h.w.logs.String())
	for _, e := range h.w.events("session.end") {
		noEscapes(t, "audit", string(e.Line))
	}
}

// TestEscapes: what clients name never reaches a terminal, the log or the audit
// as it is.
func TestEscapes(t *testing.T) {
	calm(t)
	role := openRole()
	role.Principals = []string{"*"} // any login, then
	w := newWorld(t, worldConfig{hosts: []string{"web1"}, roles: []access.Role{role}})
	joe, ann := w.attacker("joe", nil), w.person(personConfig{identity: "ann"})
	dir, err := os.MkdirTemp("", "s") // short, since it is a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, escapes)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, user := range []string{"x" + escapes, "x" + escapes + "%web1", "root%web1" + escapes, w.login + "%web1"} {
		v, err := joe.outer(user)
		if err != nil {
			noEscapes(t, "error", err.Error())
			continue
		}
		for _, command := range []string{"true " + escapes, "sessions " + escapes, escapes} {
			out, _ := v.exec(command)
			if user != w.login+"%web1" { // whose shell says it again
				noEscapes(t, "terminal of "+user, out)
			}
		}
		for _, host := range []string{"web1" + escapes, escapes} {
			_, _, err := v.OpenChannel("direct-tcpip", ssh.Marshal(relay.DirectTCPIP{Host: host, Port: 22}))
			noEscapes(t, "rejection", rejection(err))
			_, _, err = v.OpenChannel("direct-streamlocal@openssh.com", ssh.Marshal(relay.DirectStreamLocal{Path: "/" + host}))
			noEscapes(t, "rejection", rejection(err))
			_, _, err = v.OpenChannel("direct-streamlocal@openssh.com", ssh.Marshal(relay.DirectStreamLocal{Path: socket}))
			if own := user == w.login+"%web1"; own != (err == nil) {
				t.Errorf("%q: %v", user, err)
			}
		}
		_ = v.Close()
	}
	var entries []store.Session
	w.eventually("all is sealed", func() bool {
		entries = nil
		for s, err := range w.store.Sessions(context.Background(), store.Query{}) {
			if err != nil {
				t.Fatal(err)
			}
			if s.State == store.Open {
				return false
			}
			entries = append(entries, s)
		}
		return len(entries) >= 5 // three commands, two forwardings
	})
	noEscapes(t, "log", w.logs.String())
	for _, kind := range []string{"auth", "session.start", "session.reject", "exec", "session.end", "port"} {
		events := w.events(kind)
		if len(events) == 0 {
			t.Errorf("no event %s", kind)
		}
		for _, e := range events {
			noEscapes(t, "audit", string(e.Line))
		}
	}
	ids := strings.Fields(ann.run(ann.ssh("jump", "sessions", "ls", "--json")).stdout)
	if len(ids) == 0 {
		t.Error("no session is listed")
	}
	for _, command := range []string{"sessions ls", "sessions ls --json", "audit", "audit --json"} {
		r := ann.run(ann.ssh("jump", command))
		if r.code != 0 || r.stdout == "" {
			t.Errorf("%s: %+v", command, r)
		}
		noEscapes(t, command, r.stdout+r.stderr)
	}
	for _, s := range entries {
		noEscapes(t, "entry", s.Command)
		r := ann.run(ann.ssh("jump", "sessions show "+s.ID))
		if r.code != 0 {
			t.Errorf("show: %+v", r)
		}
		noEscapes(t, "show", r.stdout+r.stderr)
	}
}
