package relay

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
)

// pipe is one direction of a connection in memory, which takes what is written
// at once: net.Pipe would let both sides of an SSH handshake wait for a reader.
type pipe struct {
	cond   *sync.Cond
	bytes  bytes.Buffer
	closed bool
}

type memoryConn struct {
	in, out *pipe
}

func memory() (net.Conn, net.Conn) {
	a := &pipe{cond: sync.NewCond(new(sync.Mutex))}
	b := &pipe{cond: sync.NewCond(new(sync.Mutex))}
	return memoryConn{a, b}, memoryConn{b, a}
}

func (c memoryConn) Read(p []byte) (int, error) {
	c.in.cond.L.Lock()
	defer c.in.cond.L.Unlock()
	for c.in.bytes.Len() == 0 {
		if c.in.closed {
			return 0, io.EOF
		}
		c.in.cond.Wait()
	}
	return c.in.bytes.Read(p)
}

func (c memoryConn) Write(p []byte) (int, error) {
	c.out.cond.L.Lock()
	defer c.out.cond.L.Unlock()
	if c.out.closed {
		return 0, io.ErrClosedPipe
	}
	c.out.cond.Broadcast()
	return c.out.bytes.Write(p)
}

func (c memoryConn) Close() error {
	for _, p := range []*pipe{c.in, c.out} {
		p.cond.L.Lock()
		p.closed = true
		p.cond.Broadcast()
		p.cond.L.Unlock()
	}
	return nil
}

func (memoryConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (memoryConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (memoryConn) SetDeadline(time.Time) error      { return nil }
func (memoryConn) SetReadDeadline(time.Time) error  { return nil }
func (memoryConn) SetWriteDeadline(time.Time) error { return nil }

// peer is one end of an SSH connection.
type peer struct {
	ssh.Conn
	channels <-chan ssh.NewChannel
	requests <-chan *ssh.Request
}

var hostKey = sync.OnceValue(func() ssh.Signer {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		panic(err)
	}
	return signer
})

// connect makes an SSH connection over a transport.
func connect(t testing.TB, near, far net.Conn) (client, server peer) {
	t.Helper()
	config := &ssh.ServerConfig{NoClientAuth: true}
	config.AddHostKey(hostKey())
	done := make(chan error, 1)
	go func() {
		var err error
		server.Conn, server.channels, server.requests, err = ssh.NewServerConn(far, config)
		done <- err
	}()
	var err error
	client.Conn, client.channels, client.requests, err = ssh.NewClientConn(near, "", &ssh.ClientConfig{
		HostKeyCallback: ssh.FixedHostKey(hostKey().PublicKey()),
	})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close()
		_ = server.Close()
	})
	return client, server
}

// open opens a channel from one end of a connection to the other.
func open(t testing.TB, from, to peer) (near, far Channel) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		var err error
		near.Channel, near.Requests, err = from.OpenChannel(ChannelSession, nil)
		done <- err
	}()
	n := <-to.channels
	var err error
	if far.Channel, far.Requests, err = n.Accept(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return near, far
}

// lab is a client and a host, both played by the test, and what the relay
// between them has of each.
type lab struct {
	t                    testing.TB
	client, host         Channel
	down, up             Channel
	clientConn, hostConn peer
	downConn, upConn     peer
	result               chan error
	mu                   sync.Mutex
	events               []string
}

func newLab(t testing.TB) *lab {
	t.Helper()
	l := &lab{t: t, result: make(chan error, 1)}
	near, far := memory()
	l.clientConn, l.downConn = connect(t, near, far)
	near, far = memory()
	l.upConn, l.hostConn = connect(t, near, far)
	l.client, l.down = open(t, l.clientConn, l.downConn)
	l.up, l.host = open(t, l.upConn, l.hostConn)
	return l
}

// relay starts one.
func (l *lab) relay(ctx context.Context, c Config) {
	go func() { l.result <- Relay(ctx, l.down, l.up, c) }()
}

// note adds to the list of events.
func (l *lab) note(event string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, event)
}

func (l *lab) expect(events ...string) {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.events, events) {
		l.t.Errorf("events %q, want %q", l.events, events)
	}
}

// ended wants the relay to have ended with that error.
func (l *lab) ended(want error) {
	l.t.Helper()
	if err := <-l.result; !is(err, want) {
		l.t.Errorf("relay returned %v, want %v", err, want)
	}
}

// pass passes every request.
func pass(context.Context, Side, *ssh.Request) Verdict { return Verdict{Action: Pass} }

// bubble runs a test with a clock that stands still while anything happens. It
// also fails if a goroutine is left at the end.
func bubble(t *testing.T, run func(t *testing.T, l *lab)) {
	t.Helper()
	hostKey()
	synctest.Test(t, func(t *testing.T) { run(t, newLab(t)) })
}

// start has the client start a program, which the host lets it.
func (l *lab) start() {
	l.t.Helper()
	answered := make(chan bool, 1)
	go func() {
		ok, _ := l.client.SendRequest(TypeExec, true, ssh.Marshal(Exec{"true"}))
		answered <- ok
	}()
	r := <-l.host.Requests
	if r == nil || r.Type != TypeExec {
		l.t.Fatalf("the host got %+v, want exec", r)
	}
	if err := r.Reply(true, nil); err != nil {
		l.t.Fatal(err)
	}
	if !<-answered {
		l.t.Fatal("exec was refused")
	}
}

// read reads all of a stream.
func read(t testing.TB, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func write(t testing.TB, w io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(w, s); err != nil {
		t.Fatal(err)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
