package jump_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/fleetca/fleetca/jump/config"
)

// TestAgentNotOffered: an agent that wasn't offered isn't asked for, which
// OpenSSH takes for a break-in.
func TestAgentNotOffered(t *testing.T) {
	w := newWorld(t, worldConfig{hosts: []string{"web1"}})
	p := w.person(personConfig{})
	for name, args := range map[string][]string{
		"subsystem": {"-o", p.proxyCommand("-a"), "web1"}, "jump": {"-a", "-J", "jump", "web1"}, "login": {"-a", w.login + "%web1@jump"},
		"console": {"-a", "jump", "sessions"},
	} {
		r := p.run(p.ssh(append(append([]string{"-v"}, args...), "ls")...))
		if strings.Contains(r.stderr, "break-in") || strings.Contains(r.stderr, "auth-agent@openssh.com") {
			t.Errorf("%s: %s", name, r.stderr)
		}
	}
}

// watched is an agent that notes what it is asked.
type watched struct {
	mu       sync.Mutex
	open     int
	requests []byte
	blobs    [][]byte
}

func (g *watched) serve(ring agent.Agent) func(io.ReadWriteCloser) {
	return func(ch io.ReadWriteCloser) {
		g.mu.Lock()
		g.open++
		g.mu.Unlock()
		near, far := net.Pipe()
		go func() { _ = agent.ServeAgent(ring, far) }()
		go func() { _, _ = io.Copy(ch, near) }()
		in := bufio.NewReader(ch)
		for {
			var head [4]byte
			if _, err := io.ReadFull(in, head[:]); err != nil {
				break
			}
			message := make([]byte, binary.BigEndian.Uint32(head[:]))
			if _, err := io.ReadFull(in, message); err != nil {
				break
			}
			g.mu.Lock()
			g.requests = append(g.requests, message[0])
			if message[0] == 13 {
				n := binary.BigEndian.Uint32(message[1:])
				g.blobs = append(g.blobs, message[5:5+n])
			}
			g.mu.Unlock()
			_, _ = near.Write(append(head[:], message...))
		}
		_ = near.Close()
		_ = far.Close()
		g.mu.Lock()
		g.open--
		g.mu.Unlock()
	}
}

// TestAgentUse: of an agent we want the list and signatures of the one
// certificate, and only until the login is done.
func TestAgentUse(t *testing.T) {
	calm(t)
	w := newWorld(t, worldConfig{hosts: []string{"web1"}})
	joe, other := w.attacker("joe", nil), w.attacker("root", nil)
	ring := joe.keyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: other.private, Certificate: other.cert}); err != nil {
		t.Fatal(err)
	}
	if err := ring.Add(agent.AddedKey{PrivateKey: other.private}); err != nil {
		t.Fatal(err)
	}
	for _, way := range byHand {
		var g watched
		joe.agent = g.serve(ring)
		v, err := joe.enter(way, "web1")
		if err != nil {
			t.Fatal(err)
		}
		if out, err := v.exec("echo in"); err != nil || out != "in\n" {
			t.Fatalf("%s: %q %v", way, out, err)
		}
		w.eventually("the agent is left alone", func() bool {
			g.mu.Lock()
			defer g.mu.Unlock()
			return g.open == 0
		})
		g.mu.Lock()
		for _, kind := range g.requests {
			if kind != 11 && kind != 13 {
				t.Errorf("%s: the agent was sent a request of type %d", way, kind)
			}
		}
		if len(g.blobs) != 1 || !bytes.Equal(g.blobs[0], joe.cert.Marshal()) {
			t.Errorf("%s: %d signatures", way, len(g.blobs))
		}
		g.mu.Unlock()
		_ = v.Close()
	}
}

// TestHostileAgents: an agent that misbehaves is said to, soon, and costs nothing
// afterwards.
func TestHostileAgents(t *testing.T) {
	calm(t)
	w := newWorld(t, worldConfig{hosts: []string{"web1"}, settings: func(c *config.Config) {
		c.LoginTimeout, c.DialTimeout = 2*time.Second, 2*time.Second
	}})
	joe := w.attacker("joe", nil)
	say := func(message ...byte) func(io.ReadWriteCloser) {
		return func(ch io.ReadWriteCloser) {
			_, _ = io.ReadFull(ch, make([]byte, 5))
			_, _ = ch.Write(message)
			_, _ = io.Copy(io.Discard, ch)
		}
	}
	list := func(blob []byte) []byte {
		m := ssh.Marshal(struct {
			Type    byte
			Count   uint32
			Blob    []byte
			Comment string
		}{12, 1, blob, "c"})
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(m))), m...)
	}
	for name, serve := range map[string]func(io.ReadWriteCloser){
		"says nothing":  func(ch io.ReadWriteCloser) { _, _ = io.Copy(io.Discard, ch) },
		"closes":        func(io.ReadWriteCloser) {},
		"says no":       say(0, 0, 0, 1, 5),
		"nothing in it": say(0, 0, 0, 0),
		"4 GiB":         say(0xff, 0xff, 0xff, 0xff, 12),
		"many keys":     say(0, 0, 0, 5, 12, 0xff, 0xff, 0xff, 0xff),
		"cut short":     say(0, 0, 0, 9, 12, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff),
		"garbage":       say(bytes.Repeat([]byte("\x1b]0;x\a"), 1000)...),
		"wrong type":    say(0, 0, 0, 1, 14),
		"floods": func(ch io.ReadWriteCloser) {
			for junk := bytes.Repeat([]byte{0}, 1<<16); ; {
				if _, err := ch.Write(junk); err != nil {
					return
				}
			}
		},
		"signs nothing": func(ch io.ReadWriteCloser) {
			_, _ = io.ReadFull(ch, make([]byte, 5))
			_, _ = ch.Write(list(joe.cert.Marshal()))
			_, _ = io.ReadFull(ch, make([]byte, 5))
			_, _ = ch.Write([]byte{0, 0, 0, 1, 5})
		},
		"never signs": func(ch io.ReadWriteCloser) {
			_, _ = io.ReadFull(ch, make([]byte, 5))
			_, _ = ch.Write(list(joe.cert.Marshal()))
			_, _ = io.Copy(io.Discard, ch)
		},
		"signs with rubbish": func(ch io.ReadWriteCloser) {
			_, _ = io.ReadFull(ch, make([]byte, 5))
			_, _ = ch.Write(list(joe.cert.Marshal()))
			_, _ = io.ReadFull(ch, make([]byte, 5))
			m := ssh.Marshal(struct {
				Type byte
				Blob []byte
			}{14, ssh.Marshal(ssh.Signature{Format: "ssh-ed25519", Blob: make([]byte, 64)})})
			_, _ = ch.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(m))), m...))
			_, _ = io.Copy(io.Discard, ch)
		},
	} {
		joe.agent = serve
		within(t, 20*time.Second, name, func() {
			var all sync.WaitGroup
			for _, way := range byHand {
				all.Go(func() {
					v, err := joe.enter(way, "web1")
					if err != nil {
						t.Errorf("%s: %v", name, err)
						return
					}
					out, err := v.exec("echo in")
					if err == nil || strings.Contains(out, "in\n") || !strings.Contains(out, "fleetjump: ") || !strings.Contains(out, "agent") {
						t.Errorf("%s by %s: %q, %v", name, way, out, err)
					}
					noEscapes(t, name, out)
					_ = v.Close()
				})
			}
			all.Wait()
		})
	}
	if n := len(w.events("session.start")); n != 0 {
		t.Errorf("%d sessions began", n)
	}
}
