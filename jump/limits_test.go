package jump_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/jump/config"
	"github.com/fleetca/fleetca/jump/relay"
)

// kexInit is a client's first packet (RFC 4253 §6 and §7.1).
func kexInit() []byte {
	payload := append([]byte{20}, make([]byte, 16)...)
	for _, list := range []string{
		"curve25519-sha256", "ssh-ed25519-cert-v01@openssh.com", "aes128-gcm@openssh.com", "aes128-gcm@openssh.com",
		"hmac-sha2-256", "hmac-sha2-256", "none", "none", "", "",
	} {
		payload = append(binary.BigEndian.AppendUint32(payload, uint32(len(list))), list...)
	}
	payload = append(payload, 0, 0, 0, 0, 0)
	padding := 8 - (5+len(payload))%8 + 8
	packet := binary.BigEndian.AppendUint32(nil, uint32(1+len(payload)+padding))
	return append(append(append(packet, byte(padding)), payload...), make([]byte, padding)...)
}

// TestSilence: connections that don't log in are bounded in number and time, by
// server and by address, and leave room for others.
func TestSilence(t *testing.T) {
	calm(t)
	const all, limit = 16, 8
	w := newWorld(t, worldConfig{hosts: []string{"web1"}, settings: func(c *config.Config) {
		c.LoginTimeout, c.Limits.Unauthenticated = 3*time.Second, all
	}})
	slow, other, joe := w.attacker("joe", nil), w.attacker("joe", nil), w.attacker("joe", nil)
	slow.from, other.from = net.IPv4(127, 0, 0, 2), net.IPv4(127, 0, 0, 3)
	begun := time.Now()
	var conns []net.Conn
	open := func(a *attacker, i int) string {
		t.Helper()
		conn := a.dial()
		conns = append(conns, conn)
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		line := make([]byte, 8)
		if _, err := io.ReadFull(conn, line); err != nil {
			t.Fatal(err)
		}
		switch i % 3 {
		case 1:
			_, _ = io.WriteString(conn, "SSH-2.0-slow\r\n")
		case 2:
			_, _ = conn.Write(append([]byte("SSH-2.0-slow\r\n"), kexInit()...))
		}
		return string(line)
	}
	for i := range 3 * limit {
		want := "SSH-2.0-"
		if i >= limit {
			want = "fleetjum"
		}
		if got := open(slow, i); got != want {
			t.Errorf("connection %d: %q, want %q", i, got, want)
		}
	}
	if _, err := joe.outer("anybody"); err != nil {
		t.Errorf("others: %v", err)
	}
	for i := range limit {
		if got := open(other, i); got != "SSH-2.0-" {
			t.Errorf("connection %d of another address: %q", i, got)
		}
	}
	// Now the server is full, for its own address too.
	refused := joe.dial()
	if text, _ := io.ReadAll(refused); !strings.Contains(string(text), "too many connections that have not logged in") {
		t.Errorf("got %q", text)
	}
	_ = refused.Close()
	var done sync.WaitGroup
	for i, conn := range conns {
		if i == 0 {
			// One that always sends a little, and never all.
			done.Go(func() { drip(conn) })
		}
		done.Go(func() { _, _ = io.Copy(io.Discard, conn) })
	}
	done.Wait()
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("it took %v to be rid of them", took)
	}
	for _, conn := range conns {
		_ = conn.Close()
	}
	if _, err := slow.outer("anybody"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// drip sends a byte at a time, in no hurry, until it is cut off.
func drip(conn net.Conn) {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for range ticker.C {
		if _, err := conn.Write([]byte("S")); err != nil {
			return
		}
	}
}

// TestPerIdentity: one person can't take all connections, and reads why.
func TestPerIdentity(t *testing.T) {
	calm(t)
	w := newWorld(t, worldConfig{hosts: []string{"web1"}, settings: func(c *config.Config) {
		c.Limits.PerIdentity, c.Limits.Connections = 2, 4
	}})
	joe, ann, bob := w.attacker("joe", nil), w.attacker("ann", nil), w.attacker("bob", nil)
	first, err := joe.outer("anybody")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := joe.enter("login", "web1"); err != nil {
		t.Fatal(err)
	}
	p := w.person(personConfig{identity: "joe"})
	for name, way := range p.ways() {
		r := p.run(p.ssh(append(way("web1"), "true")...))
		if want := `"joe" has 2 connections, which is the limit`; r.code != 255 || !strings.Contains(r.stderr, want) {
			t.Errorf("%s: %+v, want %q", name, r, want)
		}
	}
	found := false
	for _, e := range w.events("auth") {
		found = found || e.Code == "limit"
	}
	if !found {
		t.Error("it is not in the audit")
	}
	if _, err := ann.outer("anybody"); err != nil {
		t.Errorf("another person: %v", err)
	}
	_ = first.Close()
	w.eventually("there is room again", func() bool {
		v, err := joe.enter("login", "web1")
		if err != nil {
			return false
		}
		out, err := v.exec("echo in")
		if err != nil || out != "in\n" {
			_ = v.Close()
			return false
		}
		return true
	})
	if _, err := bob.outer("anybody"); err != nil {
		t.Errorf("the fourth: %v", err)
	}
	conn := bob.dial()
	if text, _ := io.ReadAll(conn); !strings.Contains(string(text), "too many connections") {
		t.Errorf("the fifth: %q", text)
	}
	_ = conn.Close()
}

// TestChannelFlood: channels and sessions are bounded on each connection, however
// they are nested, and their places are free again afterwards.
func TestChannelFlood(t *testing.T) {
	calm(t)
	w := newWorld(t, worldConfig{hosts: []string{"web1"}, settings: func(c *config.Config) {
		c.Limits.ChannelsPerConnection, c.Limits.SessionsPerConnection = 8, 3
	}})
	joe := w.attacker("joe", nil)
	port := w.sshdPort("web1")
	out, err := joe.outer("anybody")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		var streams []net.Conn
		leave := func() {
			for _, conn := range streams {
				_ = conn.Close()
			}
			streams = nil
		}
		w.eventually("there is room for all of them", func() bool {
			for len(streams) < 8 {
				conn, err := out.stream("direct", "web1", port)
				if err != nil {
					leave()
					return false
				}
				streams = append(streams, conn)
			}
			return true
		})
		for range 12 {
			if _, err := out.stream("direct", "web1", port); !strings.Contains(rejection(err), "too many channels") {
				t.Errorf("one more: %v", err)
			}
		}
		leave()
	}
	// Sessions of two links within one connection count together.
	v, err := joe.outer("anybody")
	if err != nil {
		t.Fatal(err)
	}
	open, refused := 0, 0
	for range 2 {
		stream, err := v.stream("direct", "web1", port)
		if err != nil {
			t.Fatal(err)
		}
		inner, err := joe.handshake(stream, w.login, joe)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if _, err := inner.NewSession(); err == nil {
				open++
			} else if strings.Contains(rejection(err), "too many sessions") {
				refused++
			}
		}
	}
	if open != 3 || refused != 3 {
		t.Errorf("%d sessions open, %d refused", open, refused)
	}
}

// TestRejectedChannels: what is refused costs nothing, however often it is asked.
func TestRejectedChannels(t *testing.T) {
	calm(t)
	w := newWorld(t, worldConfig{hosts: []string{"web1"}})
	joe := w.attacker("joe", nil)
	for _, way := range []string{"outer", "login"} {
		v, err := joe.outer(map[string]string{"outer": "anybody", "login": w.login + "%web1"}[way])
		if err != nil {
			t.Fatal(err)
		}
		flood := func(n int) {
			for range n {
				if _, _, err := v.OpenChannel("tun@openssh.com", make([]byte, 1000)); err == nil {
					t.Fatal("opened")
				}
				if _, _, err := v.SendRequest("junk@example.com", false, make([]byte, 1000)); err != nil {
					t.Fatal(err)
				}
			}
		}
		flood(100)
		before := heap()
		flood(10_000)
		if grown := heap() - before; grown > 8<<20 {
			t.Errorf("%s: %d bytes more after 10000 refused channels", way, grown)
		}
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestRequestFlood: requests before a program, and after it, don't pile up.
func TestRequestFlood(t *testing.T) {
	calm(t)
	w := newWorld(t, worldConfig{hosts: []string{"web1"}})
	joe := w.attacker("joe", nil)
	for _, way := range byHand {
		v, err := joe.enter(way, "web1")
		if err != nil {
			t.Fatal(err)
		}
		ch, requests, err := v.OpenChannel("session", nil)
		if err != nil {
			t.Fatal(err)
		}
		go ssh.DiscardRequests(requests)
		env := ssh.Marshal(relay.Env{Name: "LANG", Value: strings.Repeat("x", 1000)})
		within(t, 30*time.Second, "the flood by "+way, func() {
			for range 100_000 {
				if _, err := ch.SendRequest("env", false, env); err != nil {
					break
				}
			}
			if text, _ := io.ReadAll(ch.Stderr()); way != "subsystem" && !strings.Contains(string(text), "too many requests") {
				t.Errorf("%s: told %q", way, text)
			}
		})
		if way != "subsystem" {
			if out, err := v.exec("echo in"); err != nil || out != "in\n" {
				t.Errorf("%s: afterwards %q, %v", way, out, err)
			}
		}
		_ = v.Close()
	}
}

// offers are the algorithms of a server's KEXINIT (RFC 4253 §7.1).
func offers(t *testing.T, conn io.ReadWriter) [][]string {
	t.Helper()
	if _, err := io.WriteString(conn, "SSH-2.0-scanner\r\n"); err != nil {
		t.Fatal(err)
	}
	var line []byte
	for b := make([]byte, 1); !bytes.HasSuffix(line, []byte("\n")); line = append(line, b[0]) {
		if _, err := io.ReadFull(conn, b); err != nil {
			t.Fatal(err)
		}
	}
	head := make([]byte, 5)
	if _, err := io.ReadFull(conn, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint32(head)-1)
	if _, err := io.ReadFull(conn, body); err != nil {
		t.Fatal(err)
	}
	var lists [][]string
	rest := body[17:]
	for range 10 {
		n := binary.BigEndian.Uint32(rest)
		lists = append(lists, strings.Split(string(rest[4:4+n]), ","))
		rest = rest[4+n:]
	}
	return lists
}

// TestAlgorithms: what is offered to clients is modern, with strict key exchange
// (CVE-2023-48795), and without compression.
func TestAlgorithms(t *testing.T) {
	calm(t)
	w := newWorld(t, worldConfig{hosts: []string{"web1"}})
	joe := w.attacker("joe", nil)
	v, err := joe.outer("anybody")
	if err != nil {
		t.Fatal(err)
	}
	inner, err := v.stream("direct", "web1", w.sshdPort("web1"))
	if err != nil {
		t.Fatal(err)
	}
	outer := joe.dial()
	defer outer.Close()
	kex := []string{
		"mlkem768x25519-sha256", "curve25519-sha256", "curve25519-sha256@libssh.org", "ecdh-sha2-nistp256", "ecdh-sha2-nistp384",
		"ecdh-sha2-nistp521", "diffie-hellman-group16-sha512", "kex-strict-s-v00@openssh.com",
	}
	gcm := []string{"aes128-gcm@openssh.com", "aes256-gcm@openssh.com"}
	ctr := []string{"aes128-ctr", "aes192-ctr", "aes256-ctr"}
	macs := []string{"hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512"}
	for name, conn := range map[string]io.ReadWriteCloser{"outer": outer, "inner": inner} {
		got := offers(t, conn)
		_ = conn.Close()
		slices.Sort(got[0])
		slices.Sort(kex)
		if !slices.Equal(got[0], kex) {
			t.Errorf("%s: key exchanges %q", name, got[0])
		}
		// What is shown on behalf of hosts is a certificate and nothing else.
		want := []string{"ssh-ed25519-cert-v01@openssh.com"}
		if name == "outer" {
			want = append(want, "ssh-ed25519")
		}
		if !slices.Equal(got[1], want) {
			t.Errorf("%s: host keys %q", name, got[1])
		}
		for _, i := range []int{2, 3} {
			ciphers := slices.DeleteFunc(got[i], func(c string) bool { return c == "chacha20-poly1305@openssh.com" })
			if want := append(slices.Clone(gcm), ctr...); !slices.Equal(ciphers, want) {
				t.Errorf("%s: ciphers %q", name, got[i])
			}
			if !slices.Equal(got[i+2], macs) || !slices.Equal(got[i+4], []string{"none"}) {
				t.Errorf("%s: MACs %q, compression %q", name, got[i+2], got[i+4])
			}
		}
		for _, list := range got {
			if weak := strings.Join(list, " "); strings.Contains(weak, "sha1") || strings.Contains(weak, "cbc") || strings.Contains(weak, "group1-") {
				t.Errorf("%s: %s", name, weak)
			}
		}
	}
	// Signatures of people as well: RSA with SHA-1 proves nothing.
	p := w.person(personConfig{})
	r := p.run(p.ssh("-v", w.login+"%web1@jump", "true"))
	if !strings.Contains(r.stderr, "server-sig-algs") || strings.Contains(r.stderr, "server-sig-algs=<ssh-rsa") || strings.Contains(r.stderr, ",ssh-rsa,") {
		t.Errorf("signatures: %s", r.stderr)
	}
}
