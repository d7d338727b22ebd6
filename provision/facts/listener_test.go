package facts_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fleetca/fleetca/provision/facts"
)

// listen starts a real sshd, with its pid file at "pid", and gives its process
// and port.
func (s *site) listen(ctx context.Context) (pid, port int) {
	t := s.t
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port = free.Addr().(*net.TCPAddr).Port
	free.Close()
	sshd, err := exec.LookPath("/usr/sbin/sshd")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(sshd, "-D", "-e", "-f", s.config, "-p", strconv.Itoa(port))
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("sshd said\n%s", log.String())
		}
	})
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		// sshd listens first and notes its process then.
		noted, err := os.ReadFile(s.path("pid"))
		if err == nil && strings.HasSuffix(string(noted), "\n") {
			return cmd.Process.Pid, port
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("sshd doesn't start: %v", err)
		}
	}
}

// TestListener runs the probe as it is run in earnest, by a login over ssh,
// and looks whether it finds the sshd that has to be reloaded.
func TestListener(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, "ssh")
	s.key("key", "-t", "ed25519")
	s.key("me", "-t", "ed25519")
	s.write("sshd_config", strings.Join([]string{
		"HostKey " + s.path("key"), "PidFile " + s.path("pid"), "StrictModes no", "UsePAM no", "PermitRootLogin yes",
		"ListenAddress 127.0.0.1", "AuthorizedKeysFile " + s.path("me.pub"), "",
	}, "\n"), 0o644)
	pid, port := s.listen(ctx)
	probe := func() *facts.Facts {
		t.Helper()
		cmd := exec.CommandContext(ctx, "ssh", "-F", "none", "-T", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
			"-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "IdentityAgent=none", "-o", "IdentitiesOnly=yes",
			"-i", s.path("me"), "-p", strconv.Itoa(port), "-l", me.Username, "127.0.0.1",
			`FLEETCA_PEER="$SSH_CONNECTION" /bin/sh -s`)
		cmd.Stdin = strings.NewReader(s.script())
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("probe over ssh: %v\n%s", err, stderr.String())
		}
		return s.parse(out)
	}
	noted, err := os.ReadFile(s.path("pid"))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, pidfile, found string }{
		{"pid file", string(noted), "pidfile"},
		{"no pid file", "", "parents"},
		{"stale pid file", fmt.Sprintln(os.Getpid()), "parents"},
		{"a process that is gone", "4194300\n", "parents"},
		{"junk", "-1; touch x\n", "parents"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.pidfile == "" {
				if err := os.Remove(s.path("pid")); err != nil {
					t.Fatal(err)
				}
			} else {
				s.write("pid", test.pidfile, 0o644)
			}
			f := probe()
			if f.Reload.PID != pid || f.Reload.Found != test.found || !strings.Contains(f.Reload.Command, "sshd") {
				t.Errorf("got %+v, want process %d by %s", f.Reload, pid, test.found)
			}
			if f.SSHD != "/usr/sbin/sshd" || f.Peer.ServerPort != port || f.Peer.ClientAddress != "127.0.0.1" {
				t.Errorf("got sshd %q, peer %+v", f.SSHD, f.Peer)
			}
		})
	}
}

// BenchmarkProbe compares the probe with the one run of sshd -T in it.
func BenchmarkProbe(b *testing.B) {
	s := newSite(b, "ssh")
	config := ""
	for name, options := range map[string][]string{"ed25519": {"-t", "ed25519"}, "rsa": {"-t", "rsa"}, "ecdsa": {"-t", "ecdsa"}} {
		s.key(name, options...)
		config += "HostKey " + s.path(name) + "\n"
	}
	s.write("conf.d/10.conf", "Banner none\n", 0o644)
	s.write("sshd_config", config+"Include "+s.path("conf.d/*.conf")+"\n", 0o644)
	script := s.script()
	cpu := func(b *testing.B, cmd *exec.Cmd) time.Duration {
		if _, err := cmd.Output(); err != nil {
			b.Fatal(err)
		}
		return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	report := func(b *testing.B, total time.Duration) {
		b.ReportMetric(float64(total.Microseconds())/1000/float64(b.N), "cpu-ms/op")
	}
	b.Run("sshd -T", func(b *testing.B) {
		var total time.Duration
		for b.Loop() {
			total += cpu(b, exec.Command("/usr/sbin/sshd", "-T", "-f", s.config, "-C", "user=root,host=h,addr=127.0.0.1,laddr=127.0.0.1,lport=22"))
		}
		report(b, total)
	})
	for name, shell := range shells {
		b.Run(name, func(b *testing.B) {
			var total time.Duration
			for b.Loop() {
				cmd := exec.Command(shell[0], shell[1:]...)
				cmd.Stdin = strings.NewReader(script)
				total += cpu(b, cmd)
			}
			report(b, total)
		})
	}
}
