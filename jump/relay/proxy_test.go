//go:build linux

package relay

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/testenv"
	"github.com/fleetca/fleetca/testenv/fleettest"
)

// openSSH is a version that makes OpenSSH use its extensions: it sends
// eow@openssh.com and no-more-sessions@openssh.com to its like only.
const openSSH = "SSH-2.0-OpenSSH_9.2 relay"

// proxy is a jump host with all left out but the relay: it lets everybody in
// and passes everything.
type proxy struct {
	t        testing.TB
	fleet    *testenv.Fleet
	host     *testenv.Host
	port     int
	config   Config
	running  sync.WaitGroup
	sessions atomic.Int64 // running
	globals  atomic.Int64 // keepalives that were asked globally
	seen     [2]atomic.Int64
}

// startProxy starts a host and a proxy in front of it.
func startProxy(t testing.TB, c Config, h testenv.HostConfig) *proxy {
	t.Helper()
	return before(t, fleettest.Start(t, testenv.Config{Host: h}), c)
}

// before puts a proxy in front of a fleet's host.
func before(t testing.TB, f *testenv.Fleet, c Config) *proxy {
	t.Helper()
	p := &proxy{t: t, fleet: f, host: f.Hosts()[0], config: c}
	data := c.Data
	p.config.Data = func(from Side, stderr bool, b []byte) error {
		p.seen[from].Add(int64(len(b)))
		if data != nil {
			return data(from, stderr, b)
		}
		return nil
	}
	if c.Request == nil {
		p.config.Request = pass
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	p.port = l.Addr().(*net.TCPAddr).Port
	ctx, cancel := context.WithCancel(context.Background())
	p.running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.running.Go(func() {
				if err := p.serve(ctx, c); err != nil && ctx.Err() == nil {
					t.Logf("proxy: %v", err)
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		cancel()
		p.running.Wait()
		noGoroutines(t)
	})
	return p
}

// noGoroutines fails the test if anything of the relay still runs.
func noGoroutines(t testing.TB) {
	t.Helper()
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	for g := range bytes.SplitSeq(buf, []byte("\n\n")) {
		if bytes.Contains(g, []byte("relay.(*flow)")) || bytes.Contains(g, []byte("relay.(*relay)")) {
			t.Errorf("left running:\n%s", g)
		}
	}
}

func (p *proxy) serve(ctx context.Context, c net.Conn) error {
	defer func() { _ = c.Close() }()
	server := &ssh.ServerConfig{NoClientAuth: true, ServerVersion: openSSH}
	server.AddHostKey(hostKey())
	server.RekeyThreshold = 8 << 20
	var down, up peer
	var err error
	if down.Conn, down.channels, down.requests, err = ssh.NewServerConn(c, server); err != nil {
		return err
	}
	defer func() { _ = down.Close() }()
	out, err := net.Dial("tcp", p.host.Addr())
	if err != nil {
		return err
	}
	client := &ssh.ClientConfig{
		User: p.host.Login(), Auth: []ssh.AuthMethod{ssh.PublicKeys(p.fleet.Signer())},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), ClientVersion: openSSH,
	}
	client.RekeyThreshold = 8 << 20
	if up.Conn, up.channels, up.requests, err = ssh.NewClientConn(out, "", client); err != nil {
		return errors.Join(err, out.Close())
	}
	defer func() { _ = up.Close() }()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	context.AfterFunc(ctx, func() {
		_ = down.Close()
		_ = up.Close()
	})
	var running, channels sync.WaitGroup
	decide := func(r *ssh.Request) Verdict {
		if r.Type == TypeHostKeys || r.Type == TypeNoMoreSessions {
			return Verdict{}
		}
		if r.Type == TypeKeepAlive {
			p.globals.Add(1)
		}
		return passGlobals(r)
	}
	running.Go(func() { _ = Requests(ctx, down.requests, up, decide) })
	running.Go(func() { _ = Requests(ctx, up.requests, down, decide) })
	lost, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	running.Go(func() {
		_ = down.Wait()
		leave(errors.New("client gone"))
		_ = up.Close()
	})
	for side, ends := range [][2]peer{{down, up}, {up, down}} {
		running.Go(func() {
			for n := range ends[0].channels {
				channels.Go(func() { p.channel(lost, Side(side), n, ends[1]) })
			}
		})
	}
	_ = up.Wait()
	channels.Wait()
	_ = down.Close()
	running.Wait()
	return nil
}

// channel connects a new channel to the other side.
func (p *proxy) channel(ctx context.Context, from Side, n ssh.NewChannel, to peer) {
	var ends [2]Channel
	var err error
	other := from.Other()
	ends[other].Channel, ends[other].Requests, err = to.OpenChannel(n.ChannelType(), n.ExtraData())
	if err != nil {
		reason, text := ssh.ConnectionFailed, err.Error()
		if refused := (*ssh.OpenChannelError)(nil); errors.As(err, &refused) {
			reason, text = refused.Reason, refused.Message
		}
		_ = n.Reject(reason, text)
		return
	}
	if ends[from].Channel, ends[from].Requests, err = n.Accept(); err != nil {
		_ = ends[other].Close()
		return
	}
	if n.ChannelType() == ChannelSession {
		p.sessions.Add(1)
		defer p.sessions.Add(-1)
		err = Relay(ctx, ends[Downstream], ends[Upstream], p.config)
	} else {
		err = Copy(ctx, ends[Downstream], ends[Upstream], nil)
	}
	if err != nil && ctx.Err() == nil {
		p.t.Logf("proxy: %s: %v", n.ChannelType(), err)
	}
}

// options make ssh, scp and sftp go through the proxy.
func (p *proxy) options(options ...string) []string {
	args := []string{"-F", "none"}
	for _, o := range append(options, "Port="+strconv.Itoa(p.port), "User="+p.host.Login(),
		"StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes",
		"LogLevel=ERROR", "Ciphers=aes128-gcm@openssh.com") {
		args = append(args, "-o", o)
	}
	return args
}

// ssh is the client's program, through the proxy.
func (p *proxy) ssh(args ...string) *exec.Cmd {
	return exec.CommandContext(p.t.Context(), "ssh", append(append(p.options(), "127.0.0.1"), args...)...)
}

// direct is the client's program without the proxy.
func (p *proxy) direct(args ...string) *exec.Cmd {
	p.t.Helper()
	c, err := p.host.SSH(p.t.Context(), "-o", "LogLevel=ERROR", "-o", "Ciphers=aes128-gcm@openssh.com")
	check(p.t, err)
	c.Args = append(c.Args, args...)
	return c
}

// client is a client written in Go, through the proxy.
func (p *proxy) client() *ssh.Client {
	p.t.Helper()
	c, err := ssh.Dial("tcp", "127.0.0.1:"+strconv.Itoa(p.port), &ssh.ClientConfig{
		User: p.host.Login(), HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	check(p.t, err)
	p.t.Cleanup(func() { _ = c.Close() })
	return c
}

// outcome is all that a command leaves behind.
type outcome struct {
	stdout, stderr string
	exit           int
}

func run(t testing.TB, c *exec.Cmd, stdin string) outcome {
	t.Helper()
	var out, errs bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(stdin), &out, &errs
	if err := c.Run(); err != nil && c.ProcessState == nil {
		t.Fatal(err)
	}
	return outcome{out.String(), errs.String(), c.ProcessState.ExitCode()}
}

// eventually waits for something to come true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for began := time.Now(); !ok(); {
		if time.Since(began) > time.Minute {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
