package relay

import (
	"io"
	"net"
	"testing"

	"golang.org/x/crypto/ssh"
)

// tcp connects two ends over loopback.
func tcp(b *testing.B) (net.Conn, net.Conn) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(b, err)
	defer func() { _ = l.Close() }()
	near, err := net.Dial("tcp", l.Addr().String())
	check(b, err)
	far, err := l.Accept()
	check(b, err)
	return near, far
}

// bulk moves b.N chunks of 32 KiB from a host to a client.
func bulk(b *testing.B, from io.Writer, to io.Reader) {
	chunk := make([]byte, defaultBuffer)
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		for range b.N {
			if _, err := from.Write(chunk); err != nil {
				return
			}
		}
	}()
	if _, err := io.CopyN(io.Discard, to, int64(b.N)*int64(len(chunk))); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
}

// BenchmarkDirect is what one SSH connection can do without a relay.
func BenchmarkDirect(b *testing.B) {
	near, far := tcp(b)
	client, host := connect(b, near, far)
	to, from := open(b, client, host)
	bulk(b, from, to)
}

// BenchmarkRelay has the client, the relay and the host share the processor, so
// four times the encryption of one end.
func BenchmarkRelay(b *testing.B) {
	l := &lab{t: b, result: make(chan error, 1)}
	near, far := tcp(b)
	l.clientConn, l.downConn = connect(b, near, far)
	near, far = tcp(b)
	l.upConn, l.hostConn = connect(b, near, far)
	l.client, l.down = open(b, l.clientConn, l.downConn)
	l.up, l.host = open(b, l.upConn, l.hostConn)
	var seen int
	l.relay(b.Context(), Config{Request: pass, Data: func(_ Side, _ bool, p []byte) error {
		seen += len(p)
		return nil
	}})
	l.start()
	bulk(b, l.host, l.client)
	check(b, l.host.Close())
	l.ended(nil)
	if want := b.N * defaultBuffer; seen != want {
		b.Errorf("seen were %d bytes of %d", seen, want)
	}
}

// still is a channel that has as much to read as it is asked for and takes all
// that is written, to measure the relay without SSH around it.
type still struct {
	ssh.Channel
	left   int
	closed chan *ssh.Request
}

func (s *still) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n := min(len(p), s.left)
	s.left -= n
	return n, nil
}

func (s *still) Write(p []byte) (int, error) { return len(p), nil }
func (s *still) CloseWrite() error           { return nil }
func (s *still) Stderr() io.ReadWriter       { return &still{} }

func (s *still) Close() error {
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
	return nil
}

// BenchmarkPump is what the relay itself takes.
func BenchmarkPump(b *testing.B) {
	b.SetBytes(defaultBuffer)
	b.ReportAllocs()
	up := make(chan *ssh.Request)
	close(up)
	down := &still{closed: make(chan *ssh.Request)}
	host := &still{left: b.N * defaultBuffer, closed: make(chan *ssh.Request)}
	err := Copy(b.Context(), Channel{Channel: down, Requests: down.closed}, Channel{Channel: host, Requests: up},
		func(Side, []byte) error { return nil })
	check(b, err)
}
