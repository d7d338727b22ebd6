//go:build linux

package relay

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/testenv"
	"github.com/fleetca/fleetca/testenv/fleettest"
)

// TestSameAsDirect runs commands with and without the proxy and wants the same
// bytes, apart, and the same status.
func TestSameAsDirect(t *testing.T) {
	p := startProxy(t, Config{}, testenv.HostConfig{Top: "AcceptEnv LANG"})
	tests := []struct{ name, command, stdin string }{
		{"nothing", "true", ""},
		{"status", "exit 7", ""},
		{"large status", "exit 255", ""},
		{"output", "echo out; echo err >&2; echo out again; exit 3", ""},
		{"input", "cat", "some bytes\x00\xff\n"},
		{"input not read", "true", strings.Repeat("x", 1<<20)},
		{"after the end of input", "cat; echo; echo done; wc -c </dev/null >&2", "x"},
		{"not found", "/no/such/program", ""},
		{"signal", "kill -TERM $$; exec sleep 100", ""},
		{"killed", "kill -KILL $$; exec sleep 100", ""},
		{"output closed early", "exec >&- 2>&-; cat >$HOME/got; test $(wc -c <$HOME/got) -eq 70000", strings.Repeat("x", 70000)},
		{"all closed early", "exec >&- 2>&- <&-; sleep 0.5; exit 6", ""},
		{"input closed early", "exec <&-; head -c 300000 /dev/zero", ""},
		{"left in the background", "(exec >&- 2>&- <&-; exec sleep 1) & echo started", ""},
		{"binary", "head -c 1000000 /dev/zero | tr '\\000' '\\377'; exit 1", ""},
		{"both at once", "for i in $(seq 2000); do echo $i; echo $i >&2; done", ""},
		{"shell", "", "echo from the shell; exit 4\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var command []string
			if test.command != "" {
				command = []string{test.command}
			}
			got := run(t, p.ssh(command...), test.stdin)
			if want := run(t, p.direct(command...), test.stdin); got != want {
				t.Errorf("got %.200q, want %.200q", fmt.Sprint(got), fmt.Sprint(want))
			}
		})
	}
	t.Run("environment", func(t *testing.T) {
		c := p.ssh("echo $LANG")
		c.Args = append([]string{c.Args[0], "-o", "SetEnv=LANG=a_B.c"}, c.Args[1:]...)
		if got := run(t, c, ""); got.stdout != "a_B.c\n" {
			t.Errorf("got %+v", got)
		}
	})
}

// TestSignals wants signals to be delivered to the program and the one that
// ended it to be told, by a client that does both. The login isn't root, to
// whose programs sshd sends no signals.
func TestSignals(t *testing.T) {
	p := before(t, fleettest.StartNamespaced(t, testenv.Config{}), Config{})
	s, err := p.client().NewSession()
	check(t, err)
	out, err := s.StdoutPipe()
	check(t, err)
	check(t, s.Start(`trap 'echo got it; kill -SEGV $$' USR1; echo ready; while :; do sleep 0.05; done`))
	lines := bufio.NewScanner(out)
	if lines.Scan(); lines.Text() != "ready" {
		t.Fatalf("got %q", lines.Text())
	}
	check(t, s.Signal(ssh.SIGUSR1))
	if lines.Scan(); lines.Text() != "got it" {
		t.Errorf("got %q", lines.Text())
	}
	exit := (*ssh.ExitError)(nil)
	if err := s.Wait(); !errors.As(err, &exit) || exit.Signal() != "SEGV" {
		t.Errorf("ended with %v", err)
	}
}

// TestOutputNotWanted is `ssh host yes | head`: the client tells that it reads
// no more by eow@openssh.com.
func TestOutputNotWanted(t *testing.T) {
	p := startProxy(t, Config{}, testenv.HostConfig{})
	for name, c := range map[string]*exec.Cmd{"direct": p.direct("yes"), "proxied": p.ssh("yes")} {
		out, err := c.StdoutPipe()
		check(t, err)
		check(t, c.Start())
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "y\n" || err != nil {
			t.Errorf("%s: read %q, %v", name, line, err)
		}
		check(t, out.Close())
		_ = c.Wait()
		if status := c.ProcessState.ExitCode(); status != 255 {
			t.Errorf("%s: ended with %d", name, status)
		}
	}
	eventually(t, "the session's end", func() bool { return p.sessions.Load() == 0 })
}

// TestBulk sends 100 MiB there and back while all three parties change keys.
func TestBulk(t *testing.T) {
	p := startProxy(t, Config{}, testenv.HostConfig{Top: "RekeyLimit 16M"})
	const size = 100 << 20
	sent, got := sha256.New(), sha256.New()
	c := p.ssh("cat")
	c.Args = append([]string{c.Args[0], "-o", "RekeyLimit=16M"}, c.Args[1:]...)
	c.Stdin = io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{1}), size), sent)
	c.Stdout, c.Stderr = got, os.Stderr
	check(t, c.Run())
	if !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		t.Error("what came back is not what was sent")
	}
	if a, b := p.seen[0].Load(), p.seen[1].Load(); a != size || b != size {
		t.Errorf("seen were %d and %d bytes", a, b)
	}
}

// TestSlowReader has a client that stops reading: the host's program is
// stopped, and nothing is lost.
func TestSlowReader(t *testing.T) {
	p := startProxy(t, Config{}, testenv.HostConfig{})
	const size = 64 << 20
	c := p.ssh("head -c " + strconv.Itoa(size) + " /dev/zero")
	out, err := c.StdoutPipe()
	check(t, err)
	check(t, c.Start())
	// As much as the window of OpenSSH's client, which takes no more then.
	eventually(t, "output", func() bool { return p.seen[Upstream].Load() >= 2<<20 })
	for range 20 {
		if n := p.seen[Upstream].Load(); n > 6<<20 {
			t.Fatalf("%d bytes were passed to a client that doesn't read", n)
		}
		// More round trips than anything would take that still moves.
		if got := run(t, p.ssh("true"), ""); got.exit != 0 {
			t.Fatalf("another session: %+v", got)
		}
	}
	n, err := io.Copy(io.Discard, out)
	if n != size || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
	check(t, c.Wait())
}

// terminal runs a command under a terminal of that size.
func terminal(t testing.TB, c *exec.Cmd, rows, columns uint16) *os.File {
	t.Helper()
	f, err := pty.StartWithSize(c, &pty.Winsize{Rows: rows, Cols: columns})
	check(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// TestTerminal compares what a program sees of its terminal with and without
// the proxy, and changes the window.
func TestTerminal(t *testing.T) {
	p := startProxy(t, Config{}, testenv.HostConfig{})
	shown := map[string]string{}
	for name, c := range map[string]*exec.Cmd{
		"direct":  p.direct("stty -a; tty >/dev/null && echo $TERM"),
		"proxied": p.ssh("stty -a; tty >/dev/null && echo $TERM"),
	} {
		c.Args = append([]string{c.Args[0], "-tt"}, c.Args[1:]...)
		c.Env = append(os.Environ(), "TERM=xterm-relay")
		f := terminal(t, c, 43, 132)
		b, _ := io.ReadAll(f) // Ends with an error, as terminals do.
		check(t, c.Wait())
		shown[name] = string(b)
	}
	if d, p := shown["direct"], shown["proxied"]; d != p || !strings.Contains(d, "rows 43; columns 132") {
		t.Errorf("direct:\n%s\nproxied:\n%s", d, p)
	}

	c := p.ssh(`trap 'stty size; exit 5' WINCH; echo ready; while :; do sleep 0.05; done`)
	c.Args = append([]string{c.Args[0], "-tt"}, c.Args[1:]...)
	f := terminal(t, c, 24, 80)
	lines := bufio.NewScanner(f)
	if lines.Scan(); lines.Text() != "ready" {
		t.Fatalf("got %q", lines.Text())
	}
	check(t, pty.Setsize(f, &pty.Winsize{Rows: 50, Cols: 200}))
	if lines.Scan(); lines.Text() != "50 200" {
		t.Errorf("got %q", lines.Text())
	}
	for lines.Scan() {
		continue
	}
	_ = c.Wait()
	if status := c.ProcessState.ExitCode(); status != 5 {
		t.Errorf("ended with %d", status)
	}
}

// TestControlMaster runs several sessions at once on one connection.
func TestControlMaster(t *testing.T) {
	p := startProxy(t, Config{}, testenv.HostConfig{})
	socket := filepath.Join(t.TempDir(), "s")
	master := exec.CommandContext(t.Context(), "ssh", append(p.options("ControlMaster=yes", "ControlPath="+socket), "-N", "127.0.0.1")...)
	master.Stderr = os.Stderr
	check(t, master.Start())
	defer func() { _ = master.Wait() }()
	eventually(t, "the master", func() bool {
		_, err := os.Stat(socket)
		return err == nil
	})
	through := func(args ...string) *exec.Cmd {
		return exec.CommandContext(t.Context(), "ssh", append(p.options("ControlPath="+socket), args...)...)
	}
	var sessions sync.WaitGroup
	for i := range 8 {
		sessions.Go(func() {
			want := outcome{stdout: strconv.Itoa(i), stderr: "err", exit: i}
			if got := run(t, through("127.0.0.1", "cat; printf err >&2; exit "+want.stdout), want.stdout); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
	sessions.Wait()
	if got := run(t, through("-O", "exit", "127.0.0.1"), ""); got.exit != 0 {
		t.Errorf("ending the master: %+v", got)
	}
}

// TestFiles copies files by sftp and by both protocols of scp.
func TestFiles(t *testing.T) {
	p := startProxy(t, Config{}, testenv.HostConfig{})
	content := make([]byte, 5<<20)
	if _, err := rand.NewChaCha8([32]byte{2}).Read(content); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "from"), content, 0o600))
	for name, argv := range map[string][]string{"sftp": {"scp", "-s"}, "scp": {"scp", "-O"}} {
		t.Run(name, func(t *testing.T) {
			there, back := filepath.Join(dir, name+".there"), filepath.Join(dir, name+".back")
			copies := func(from, to string) {
				args := append(append(argv[1:len(argv):len(argv)], p.options()...), from, to)
				if got := run(t, exec.CommandContext(t.Context(), argv[0], args...), ""); got.exit != 0 {
					t.Fatalf("got %+v", got)
				}
			}
			copies(filepath.Join(dir, "from"), "127.0.0.1:"+there)
			copies("127.0.0.1:"+there, back)
			if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, content) {
				t.Errorf("what came back is not what was sent: %v", err)
			}
		})
	}
}

// TestForwarding goes through the proxy by direct-tcpip and forwarded-tcpip,
// and by Unix sockets both ways.
func TestForwarding(t *testing.T) {
	p := startProxy(t, Config{}, testenv.HostConfig{})
	dir := t.TempDir()
	echo := func(network, address string) net.Listener {
		l, err := net.Listen(network, address)
		check(t, err)
		var running sync.WaitGroup
		running.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				running.Go(func() {
					b, _ := io.ReadAll(c)
					_, _ = c.Write(append(b, "!"...))
					_ = c.Close()
				})
			}
		})
		t.Cleanup(func() {
			_ = l.Close()
			running.Wait()
		})
		return l
	}
	port := echo("tcp", "127.0.0.1:0").Addr().(*net.TCPAddr).Port
	echo("unix", filepath.Join(dir, "echo"))
	ask := func(c net.Conn) {
		t.Helper()
		defer func() { _ = c.Close() }()
		write(t, c, "x")
		check(t, c.(interface{ CloseWrite() error }).CloseWrite())
		if got := read(t, c); got != "x!" {
			t.Errorf("got %q", got)
		}
	}
	t.Run("stdio", func(t *testing.T) {
		c := exec.CommandContext(t.Context(), "ssh", append(p.options(), "-W", "127.0.0.1:"+strconv.Itoa(port), "127.0.0.1")...)
		if got := run(t, c, "x"); got != (outcome{stdout: "x!"}) {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		c := exec.CommandContext(t.Context(), "ssh", append(p.options(), "-W", "127.0.0.1:1", "127.0.0.1")...)
		if got := run(t, c, "x"); got.exit != 255 || !strings.Contains(got.stderr, "stdio forwarding failed") {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("listeners", func(t *testing.T) {
		local, remote := filepath.Join(dir, "local"), filepath.Join(dir, "remote")
		c := exec.CommandContext(t.Context(), "ssh", append(p.options("LogLevel=INFO"), "-N",
			"-L", local+":"+filepath.Join(dir, "echo"),
			"-R", remote+":"+filepath.Join(dir, "echo"),
			"-R", "0:127.0.0.1:"+strconv.Itoa(port), "127.0.0.1")...)
		said, err := c.StderrPipe()
		check(t, err)
		check(t, c.Start())
		lines := bufio.NewScanner(said)
		var allocated []string
		for allocated == nil && lines.Scan() {
			allocated = regexp.MustCompile(`Allocated port (\d+)`).FindStringSubmatch(lines.Text())
		}
		if allocated == nil {
			t.Fatal("no port was allocated")
		}
		tcp, err := net.Dial("tcp", "127.0.0.1:"+allocated[1])
		check(t, err)
		ask(tcp)
		for _, path := range []string{local, remote} {
			eventually(t, path, func() bool { _, err := os.Stat(path); return err == nil })
			c, err := net.Dial("unix", path)
			check(t, err)
			ask(c)
		}
		check(t, c.Process.Kill())
		_ = c.Wait()
	})
}

// TestAgent forwards an agent to the host.
func TestAgent(t *testing.T) {
	p := startProxy(t, Config{}, testenv.HostConfig{})
	socket := filepath.Join(t.TempDir(), "agent")
	agent := exec.CommandContext(t.Context(), "ssh-agent", "-D", "-a", socket)
	check(t, agent.Start())
	defer func() {
		_ = agent.Process.Kill()
		_ = agent.Wait()
	}()
	env := append(os.Environ(), "SSH_AUTH_SOCK="+socket)
	eventually(t, "the agent", func() bool {
		add := exec.CommandContext(t.Context(), "ssh-add", "-q", p.fleet.ClientKey())
		add.Env = env
		return add.Run() == nil
	})
	c := p.ssh("ssh-add -l")
	c.Args = append([]string{c.Args[0], "-A"}, c.Args[1:]...)
	c.Env = env
	want := ssh.FingerprintSHA256(p.fleet.Signer().PublicKey())
	if got := run(t, c, ""); !strings.Contains(got.stdout, want) {
		t.Errorf("got %+v, want %s", got, want)
	}
}

// TestKeepAlive has either party end the connection if the other doesn't answer
// for two seconds. OpenSSH's sshd asks on a channel, its client globally.
func TestKeepAlive(t *testing.T) {
	var asked atomic.Int64
	p := startProxy(t, Config{Request: func(_ context.Context, from Side, r *ssh.Request) Verdict {
		if from == Upstream && r.Type == TypeKeepAlive {
			asked.Add(1)
		}
		return Verdict{Action: Pass}
	}}, testenv.HostConfig{Top: "ClientAliveInterval 1\nClientAliveCountMax 2"})
	alive := outcome{stdout: "alive\n"}
	if got := run(t, p.ssh("sleep 4; echo alive"), ""); got != alive || asked.Load() == 0 {
		t.Errorf("asked by the host %d times, the client got %+v", asked.Load(), got)
	}
	c := p.ssh("sleep 4; echo alive")
	c.Args = append([]string{c.Args[0], "-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=2"}, c.Args[1:]...)
	if got := run(t, c, ""); got != alive || p.globals.Load() == 0 {
		t.Errorf("asked by the client %d times, it got %+v", p.globals.Load(), got)
	}
}

// TestKilled kills the client, and the host.
func TestKilled(t *testing.T) {
	p := startProxy(t, Config{}, testenv.HostConfig{})
	begin := func() (*exec.Cmd, *bufio.Reader) {
		c := p.ssh("echo $$; exec cat")
		// Held open, or cat would end by itself.
		_, err := c.StdinPipe()
		check(t, err)
		out, err := c.StdoutPipe()
		check(t, err)
		check(t, c.Start())
		return c, bufio.NewReader(out)
	}
	c, out := begin()
	line, err := out.ReadString('\n')
	check(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	check(t, err)
	check(t, c.Process.Kill())
	_ = c.Wait()
	eventually(t, "the host's program to end", func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
		return errors.Is(err, os.ErrNotExist)
	})
	eventually(t, "the session's end", func() bool { return p.sessions.Load() == 0 })

	c, out = begin()
	_, err = out.ReadString('\n')
	check(t, err)
	check(t, p.host.Kill(t.Context()))
	_ = c.Wait()
	if status := c.ProcessState.ExitCode(); status != 255 {
		t.Errorf("the client ended with %d", status)
	}
	eventually(t, "the session's end", func() bool { return p.sessions.Load() == 0 })
}
