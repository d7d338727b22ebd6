package jump_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/testenv"
)

// echo answers whoever connects with what came, and an exclamation mark.
func echo(t *testing.T, network, address string) net.Addr {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				b, _ := io.ReadAll(c)
				_, _ = c.Write(append(b, '!'))
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		running.Wait()
	})
	return l.Addr()
}

// fidelities are what the protocol can do beside what people type every day.
func fidelities(t *testing.T, dir string) []operation {
	t.Helper()
	program, err := filepath.Abs("testdata/ask.py")
	if err != nil {
		t.Fatal(err)
	}
	port := echo(t, "tcp", "127.0.0.1:0").(*net.TCPAddr).Port
	socket := echo(t, "unix", filepath.Join(dir, "e")).String()
	ask := fmt.Sprintf("ask='/usr/bin/python3 %s' ECHO=%d SOCKET=%s\nL=$($ask free) D=$($ask free)\n", program, port, socket)
	forwards := "-L $L:127.0.0.1:$ECHO -L $HERE/local:$SOCKET -R $THERE/remote:$SOCKET -D $D -o ExitOnForwardFailure=yes"
	tries := `$ask tcp $L; $ask unix $HERE/local; $ask unix $THERE/remote; $ask socks $D $ECHO
		P=$($SSH -S cm -O forward -R 0:127.0.0.1:$ECHO web1); $ask tcp $P
		$SSH -S cm -O cancel -R 0:127.0.0.1:$ECHO web1
		$SSH -S cm -O exit web1 2>/dev/null; rm -f $THERE/remote`
	noSession := refused{"without a session OpenSSH offers no agent", "remote port forwarding failed"}
	return []operation{
		{
			client: "OpenSSH", what: "half-closed streams in each direction, `yes` piped into `head`", recorded: "`command`",
			script: `printf x | $SSH web1 'cat; echo; echo after the end'
				head -c 70000 /dev/zero | $SSH web1 "exec >&- 2>&-; cat >$THERE/got; test \$(wc -c <$THERE/got) -eq 70000"
				$SSH web1 'exec <&-; head -c 300000 /dev/zero' | sha256sum
				{ $SSH web1 yes || true; } | head -n 2`,
		},
		{
			client: "OpenSSH", what: "environment (`SetEnv`, of `accept_env`)", recorded: "`command`",
			script: `$SSH -o SetEnv="LC_TEST=a_B.c" web1 'echo $LC_TEST'`,
		},
		{
			client: "OpenSSH", what: "a program's end by a signal; Ctrl-C on a terminal", recorded: "`command`, `terminal`",
			script: `$SSH web1 'kill -TERM $$' || echo "exit $?"
				$SSH web1 'kill -SEGV $$' || echo "exit $?"
				(while ! test -e $THERE/ready; do sleep 0.05; done; printf '\003') |
				$SSH -q -tt web1 "trap 'echo got it; exit 9' INT; touch $THERE/ready; while :; do sleep 0.1; done" || echo "exit $?"`,
		},
		{
			client: "OpenSSH", what: "new keys every few MiB on every leg while 20 MB pass each way", recorded: "`command`",
			script: `head -c 20000000 /dev/zero | tr '\000' x | $SSH web1 cat | sha256sum`,
		},
		{
			client: "OpenSSH", what: "beside a session: `-L`, `-D`, `-R` with port 0, Unix sockets both ways, `-f`, cancelled", recorded: "`command`, `forward`",
			script: ask + "$SSH -f -M -S cm " + forwards + " web1 'sleep 60' </dev/null >/dev/null 2>&1\n" + tries,
		},
		{
			client: "OpenSSH", what: "the same without one: `-N`", recorded: "`forward`",
			not:    map[string]refused{"jump": noSession, "login": noSession},
			script: ask + "$SSH -f -N -M -S cm -o ServerAliveInterval=0 " + forwards + " web1 </dev/null >/dev/null 2>../err || { cat ../err >&2; exit 1; }\nrm ../err\n" + tries,
		},
	}
}

// TestFidelity: what rarer parts of the protocol come to is the same through the
// jump host.
func TestFidelity(t *testing.T) {
	s := newStand(t, worldConfig{host: testenv.HostConfig{
		// The host asks for new keys, and whether the client is there.
		Top: "RekeyLimit 5M\nAcceptEnv LANG LC_*\nClientAliveInterval 1\nClientAliveCountMax 2\nStreamLocalBindUnlink yes\n",
	}})
	for _, road := range append([]string{direct}, roads...) {
		text, err := os.ReadFile(s.config(road))
		if err != nil {
			t.Fatal(err)
		}
		s.p.put("config-"+road, append(text, "  RekeyLimit 3M\n  ServerAliveInterval 1\n  ServerAliveCountMax 2\n"...))
	}
	m := matrix{versions: map[string]string{"OpenSSH": version(t, `OpenSSH_([0-9.]+p[0-9]+)`, "ssh", "-V")}}
	all := fidelities(t, s.p.home)
	for _, op := range all {
		t.Run(op.what, func(t *testing.T) { m.rows = append(m.rows, s.try(t, op)) })
	}
	for _, c := range []struct {
		what     string
		together bool
		try      func(t *testing.T, road string)
	}{
		{"questions whether the other side is there, each way", true, s.keepsAlive},
		{"the host's banner", false, s.banner},
		{"a client that doesn't read stops the host's program; one that is killed ends it", false, s.stalls},
		{"a host that dies ends the client", false, s.dies},
	} {
		r := row{client: "OpenSSH", what: c.what, recorded: "`command`", ways: map[string]string{}}
		t.Run(c.what, func(t *testing.T) {
			var work sync.WaitGroup
			for _, road := range roads {
				r.ways[road] = "yes"
				if c.together {
					work.Go(func() { c.try(t, road) })
				} else {
					c.try(t, road)
				}
			}
			work.Wait()
		})
		m.rows = append(m.rows, r)
	}
	for _, r := range m.rows {
		if len(r.ways) < len(roads) {
			return // only some were asked for
		}
	}
	if len(m.rows) == len(all)+4 {
		m.check(t, "fidelity")
	}
}

// sshTo is ssh to a host by one way.
func (s *stand) sshTo(road, host string, words ...string) result {
	return s.p.run(s.p.command("bash", "-c", s.ssh(road)+` "$0" "$@"`, host, strings.Join(words, " ")))
}

// keepsAlive has both ends ask for longer than they would wait for an answer.
func (s *stand) keepsAlive(t *testing.T, road string) {
	if r := s.sshTo(road, "web1", "sleep 4; echo alive"); r.stdout != "alive\n" || r.code != 0 {
		t.Errorf("by %s: got %+v", road, r)
	}
}

// banner wants the host's banner to be shown.
func (s *stand) banner(t *testing.T, road string) {
	h := s.fleet.Host("web2")
	path := s.write("banner", []byte("Authorised users only.\n"), 0o644)
	text, err := os.ReadFile(h.ConfigPath())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), path) {
		if err := os.WriteFile(h.ConfigPath(), []byte("Banner "+path+"\n"+string(text)), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := h.Reload(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if r := s.sshTo(road, "web2", "echo in"); r.stdout != "in\n" || !strings.Contains(r.stderr, "Authorised users only.") {
		t.Errorf("by %s: got %+v", road, r)
	}
}

// stalls has a client not read what its program writes, and kills it.
func (s *stand) stalls(t *testing.T, road string) {
	s.fresh(t)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	cmd := s.p.command("bash", "-c", "exec "+s.ssh(road)+` web1 "$0"`,
		fmt.Sprintf("echo $$ >%[1]s/pid; i=0; while head -c 1000000 /dev/zero; do i=$((i+1)); echo $i >%[1]s/n.new; mv %[1]s/n.new %[1]s/n; done", s.there()))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	written := func() int {
		text, _ := os.ReadFile(filepath.Join(s.there(), "n"))
		n, _ := strconv.Atoi(strings.TrimSpace(string(text)))
		return n
	}
	_, _ = io.ReadFull(out, make([]byte, 100)) // it has begun
	s.eventually("it stands still", func() bool {
		was := written()
		// Longer than anything would take that still moves.
		if r := s.sshTo(road, "web1", "sleep 0.3"); r.code != 0 {
			t.Fatalf("another session: %+v", r)
		}
		return was > 0 && written() == was
	})
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); written() > 60 || grown > 40<<20 {
		t.Errorf("by %s: the host's program wrote %d MB, the heap grew by %d bytes", road, written(), grown)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	_ = cmd.Wait()
	pid, err := os.ReadFile(filepath.Join(s.there(), "pid"))
	if err != nil {
		t.Fatal(err)
	}
	s.eventually("the host's program ends", func() bool {
		_, err := os.Stat("/proc/" + strings.TrimSpace(string(pid)))
		return os.IsNotExist(err)
	})
	if took := time.Since(killed); took > 10*time.Second {
		t.Errorf("by %s: it ended after %v", road, took)
	}
}

// dies kills a host under its client.
func (s *stand) dies(t *testing.T, road string) {
	s.fresh(t)
	h := s.fleet.Host("web2")
	ready := filepath.Join(s.there(), "ready")
	ended := make(chan result, 1)
	go func() { ended <- s.sshTo(road, "web2", "touch "+ready+"; exec sleep 60") }()
	s.eventually("the session runs", func() bool {
		_, err := os.Stat(ready)
		return err == nil
	})
	if err := h.Kill(context.Background()); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	r := <-ended
	if took := time.Since(killed); r.code != 255 || took > 10*time.Second {
		t.Errorf("by %s: the client ended after %v: %+v", road, took, r)
	}
	if err := h.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// signals has a client send a signal to a program, and be told of the one that
// ended it. The host is one whose login isn't root: to root's programs sshd
// sends none. OpenSSH's client can't do it either.
func (s *stand) signals(t *testing.T) {
	joe := s.attacker("joe", nil)
	for _, way := range byHand {
		v, err := joe.enter(way, "web1")
		if err != nil {
			t.Fatal(err)
		}
		if out, err := v.exec("true"); err != nil { // the agent is there from now on
			t.Fatal(out, err)
		}
		program, err := v.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		out, err := program.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := program.Start(`trap 'echo got it; kill -SEGV $$' USR1; echo ready; while :; do sleep 0.05; done`); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		if lines.Scan(); lines.Text() != "ready" {
			t.Fatalf("by %s: got %q", way, lines.Text())
		}
		if err := program.Signal(ssh.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		if lines.Scan(); lines.Text() != "got it" {
			t.Errorf("by %s: got %q", way, lines.Text())
		}
		exit := (*ssh.ExitError)(nil)
		if err := program.Wait(); !errors.As(err, &exit) || exit.Signal() != "SEGV" {
			t.Errorf("by %s: ended with %v", way, err)
		}
		_ = v.Close()
	}
	s.ended(t)
}
