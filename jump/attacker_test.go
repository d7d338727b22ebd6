package jump_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/fleetca/fleetca/jump/relay"
)

// attacker is somebody with a certificate and a client made by hand, which does
// what OpenSSH's doesn't.
type attacker struct {
	ssh.Signer // shows the certificate
	w          *world
	private    ed25519.PrivateKey
	cert       *ssh.Certificate
	// agent serves the channels to the agent; its keyring if nil.
	agent func(io.ReadWriteCloser)
	// from is the address to come from, 127.0.0.1 if nil.
	from net.IP
}

func (w *world) attacker(identity string, change func(*ssh.Certificate)) *attacker {
	w.t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		w.t.Fatal(err)
	}
	a := &attacker{w: w, private: private}
	a.cert = w.userCA.sign(w.t, key, ssh.UserCert, identity, []string{w.login}, change)
	a.show(a.cert)
	return a
}

// show makes the attacker come with another certificate of the same key.
func (a *attacker) show(cert *ssh.Certificate) {
	a.w.t.Helper()
	plain, err := ssh.NewSignerFromSigner(a.private)
	if err != nil {
		a.w.t.Fatal(err)
	}
	if a.Signer, err = ssh.NewCertSigner(cert, plain); err != nil {
		a.w.t.Fatal(err)
	}
	a.cert = cert
}

// keyring is an agent that holds the certificate.
func (a *attacker) keyring() agent.Agent {
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: a.private, Certificate: a.cert}); err != nil {
		a.w.t.Fatal(err)
	}
	return ring
}

// visit is a client with what it was told before it was let in.
type visit struct {
	*ssh.Client
	banner string
}

// handshake logs in over a connection with signers, tried in their order.
func (a *attacker) handshake(raw net.Conn, user string, signers ...ssh.Signer) (*visit, error) {
	v := &visit{}
	conn, channels, requests, err := ssh.NewClientConn(raw, "jump.example.com:22", &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signers...)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(),
		BannerCallback: func(text string) error {
			v.banner += text
			return nil
		},
	})
	if err != nil {
		_ = raw.Close()
		return v, err
	}
	v.Client = ssh.NewClient(conn, channels, requests)
	serve := a.agent
	if serve == nil {
		ring := a.keyring()
		serve = func(ch io.ReadWriteCloser) { _ = agent.ServeAgent(ring, ch) }
	}
	asked := v.HandleChannelOpen(relay.ChannelAgent)
	go func() {
		for nc := range asked {
			ch, requests, err := nc.Accept()
			if err != nil {
				continue
			}
			go ssh.DiscardRequests(requests)
			go func() {
				serve(ch)
				_ = ch.Close()
			}()
		}
	}()
	a.w.t.Cleanup(func() { _ = v.Close() })
	return v, nil
}

// dial makes a TCP connection to the jump host.
func (a *attacker) dial() net.Conn {
	a.w.t.Helper()
	d := net.Dialer{}
	if a.from != nil {
		d.LocalAddr = &net.TCPAddr{IP: a.from}
	}
	raw, err := d.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", a.w.port))
	if err != nil {
		a.w.t.Fatal(err)
	}
	return raw
}

// outer logs in to the jump host.
func (a *attacker) outer(user string, signers ...ssh.Signer) (*visit, error) {
	a.w.t.Helper()
	if signers == nil {
		signers = []ssh.Signer{a}
	}
	return a.handshake(a.dial(), user, signers...)
}

// byHand are the ways in for attackers.
var byHand = []string{"direct", "subsystem", "login"}

// enter comes in to a host and returns the connection that leads there. inner
// are the signers for the inner connection; the attacker's own if nil.
func (a *attacker) enter(way, host string, inner ...ssh.Signer) (*visit, error) {
	a.w.t.Helper()
	if inner == nil {
		inner = []ssh.Signer{a}
	}
	if way == "login" {
		return a.outer(a.w.login+"%"+host, inner...)
	}
	out, err := a.outer("anybody")
	if err != nil {
		return out, err
	}
	stream, err := out.stream(way, host, a.w.sshdPort(host))
	if err != nil {
		return out, err
	}
	return a.handshake(stream, a.w.login, inner...)
}

func (w *world) sshdPort(host string) int {
	w.t.Helper()
	h := w.fleet.Host(host)
	if h == nil {
		return 22
	}
	_, port, err := net.SplitHostPort(h.Addr())
	if err != nil {
		w.t.Fatal(err)
	}
	n := 0
	_, _ = fmt.Sscan(port, &n)
	return n
}

// stream is a channel that leads to a host's inner connection.
func (v *visit) stream(way, host string, port int) (net.Conn, error) {
	if way == "direct" {
		return v.Dial("tcp", net.JoinHostPort(host, fmt.Sprint(port)))
	}
	ch, requests, err := v.OpenChannel("session", nil)
	if err != nil {
		return nil, err
	}
	go ssh.DiscardRequests(requests)
	if _, err := ch.SendRequest(relay.TypeAgent, true, nil); err != nil {
		return nil, err
	}
	name := ssh.Marshal(relay.Subsystem{Name: fmt.Sprintf("proxy:%s:%d", host, port)})
	if ok, err := ch.SendRequest("subsystem", true, name); err != nil || !ok {
		return nil, fmt.Errorf("no subsystem: %w", err)
	}
	return channelConn{ch}, nil
}

// channelConn is a channel as a connection.
type channelConn struct{ ssh.Channel }

func (channelConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (channelConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (channelConn) SetDeadline(time.Time) error      { return nil }
func (channelConn) SetReadDeadline(time.Time) error  { return nil }
func (channelConn) SetWriteDeadline(time.Time) error { return nil }

// exec offers the agent, runs a command and returns all that came back.
func (v *visit) exec(command string) (string, error) {
	s, err := v.NewSession()
	if err != nil {
		return "", err
	}
	defer s.Close()
	// sshd says no to a second one on a connection.
	if _, err := s.SendRequest(relay.TypeAgent, true, nil); err != nil {
		return "", err
	}
	if _, err := s.StdinPipe(); err != nil { // never ends
		return "", err
	}
	var out syncBuffer
	s.Stdout, s.Stderr = &out, &out
	err = s.Run(command)
	return out.String(), err
}

// scripted is a public key that looks different each time it is asked for. By
// it x/crypto's client offers one key and signs with another.
type scripted struct {
	ssh.PublicKey
	blobs [][]byte // the last one stays
}

func (s *scripted) Marshal() []byte {
	blob := s.blobs[0]
	if len(s.blobs) > 1 {
		s.blobs = s.blobs[1:]
	}
	return blob
}

type scriptedSigner struct {
	ssh.AlgorithmSigner
	key *scripted
}

func (s scriptedSigner) PublicKey() ssh.PublicKey { return s.key }

// offerOnly asks whether a certificate would do, and signs nothing.
func offerOnly(a *attacker) ssh.Signer {
	return scriptedSigner{a.Signer.(ssh.AlgorithmSigner), &scripted{a.cert, [][]byte{a.cert.Marshal(), nil}}}
}

// offerThenSign asks for one certificate and then proves another without asking,
// with the key of a third.
func offerThenSign(offered, shown, key *attacker) ssh.Signer {
	asked := offered.cert.Marshal()
	return scriptedSigner{key.Signer.(ssh.AlgorithmSigner), &scripted{offered.cert, [][]byte{asked, asked, shown.cert.Marshal()}}}
}

// calm fails the test if more goroutines are left in the end than there were.
// It is called first of all.
func calm(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		t.Helper()
		deadline := time.Now().Add(30 * time.Second)
		for runtime.NumGoroutine() > before {
			if time.Now().After(deadline) {
				stacks := make([]byte, 1<<20)
				t.Errorf("%d goroutines, %d before\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
}

// within fails the test if something takes longer.
func within(t *testing.T, limit time.Duration, what string, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	select {
	case <-done:
	case <-time.After(limit):
		t.Fatalf("%s takes longer than %v", what, limit)
	}
}

// lastLogin is whom the latest good auth event is about, once there are n.
func (w *world) lastLogin(n int) string {
	w.t.Helper()
	user := ""
	w.eventually("the login is in the audit", func() bool {
		good := 0
		for _, e := range w.events("auth") {
			if e.Success != nil && *e.Success {
				good++
				user = e.User
			}
		}
		return good >= n
	})
	return user
}

func rejection(err error) string {
	if e := (*ssh.OpenChannelError)(nil); errors.As(err, &e) {
		return e.Reason.String() + ": " + e.Message
	}
	return fmt.Sprint(err)
}

// noEscapes fails the test if text could do something to a terminal.
func noEscapes(t testing.TB, what, text string) {
	t.Helper()
	clean := strings.NewReplacer("\r\n", "", "\n", "", "\t", "").Replace(text)
	if i := strings.IndexFunc(clean, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x202e }); i >= 0 {
		t.Errorf("%s: a control character in %q", what, clean[max(0, i-60):min(len(clean), i+60)])
	}
}
