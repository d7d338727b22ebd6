package jump_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/inventory"
	"github.com/fleetca/fleetca/jump/access"
	"github.com/fleetca/fleetca/jump/config"
	"github.com/fleetca/fleetca/jump/store"
	"github.com/fleetca/fleetca/testenv"
)

// TestForwarding: what is forwarded works, is recorded by where from, where to
// and how much, and only for those who may.
func TestForwarding(t *testing.T) {
	poor := openRole()
	poor.Identities, poor.Permit = []string{"ann"}, []access.Action{access.Shell, access.Exec}
	rich := openRole()
	rich.Name, rich.Identities = "rich", []string{"joe"}
	w := newWorld(t, worldConfig{roles: []access.Role{poor, rich}})
	web := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(rw, "from afar")
	}))
	defer web.Close()
	address := strings.TrimPrefix(web.URL, "http://")
	for _, c := range []struct {
		who  string
		may  bool
		flag string
	}{
		{"joe", true, "-L"}, {"joe", true, "-R"}, {"ann", false, "-L"}, {"ann", false, "-R"},
	} {
		t.Run(c.who+" "+c.flag, func(t *testing.T) {
			p := w.person(personConfig{identity: c.who})
			before := len(w.events("port"))
			port := freePort(t)
			way := p.ways()["subsystem"]("web1")
			args := append([]string{c.flag, fmt.Sprintf("127.0.0.1:%d:%s", port, address), "-o", "ExitOnForwardFailure=no"}, way...)
			cmd := p.ssh(append(args, "cat")...)
			hold, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			var stderr syncBuffer
			cmd.Stderr = &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = cmd.Wait() }()
			defer func() { _ = hold.Close() }()
			get := func() string {
				client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
				r, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
				if err != nil {
					return ""
				}
				defer r.Body.Close()
				body, _ := io.ReadAll(r.Body)
				return string(body)
			}
			if !c.may {
				w.eventually("the refusal is audited", func() bool {
					_ = get()
					for _, e := range w.events("session.reject") {
						if e.User == c.who && strings.Contains(e.Error, "forwarding") {
							return true
						}
					}
					return false
				})
				if got := get(); got != "" {
					t.Errorf("got %q", got)
				}
				return
			}
			w.eventually("the forwarding works", func() bool { return get() == "from afar" })
			w.eventually("it is audited", func() bool { return len(w.events("port")) > before })
			e := w.events("port")[before]
			if e.User != "joe" || e.Host != "web1" || e.BytesIn == 0 || e.BytesOut == 0 || e.Recording == "" {
				t.Errorf("audit: %s", e.Line)
			}
			if c.flag == "-L" && e.Target != address {
				t.Errorf("audit: %s", e.Line)
			}
		})
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// TestAgentOnHost: the agent is passed on to the host for those who may have it
// there, and used by us alone for the others.
func TestAgentOnHost(t *testing.T) {
	poor, rich := openRole(), openRole()
	poor.Identities, poor.Permit = []string{"ann"}, []access.Action{access.Exec}
	rich.Name, rich.Identities = "rich", []string{"joe"}
	w := newWorld(t, worldConfig{roles: []access.Role{poor, rich}})
	for who, want := range map[string]string{"joe": "ED25519-CERT", "ann": "no agent"} {
		p := w.person(personConfig{identity: who})
		for _, way := range []string{"jump", "login", "subsystem inner"} {
			r := p.run(p.ssh(append(p.ways()[way]("web1"), `test -n "$SSH_AUTH_SOCK" && ssh-add -l || echo no agent`)...))
			if !strings.Contains(r.stdout, want) {
				t.Errorf("%s by %s: got %+v", who, way, r)
			}
		}
	}
	w.eventually("its use is audited", func() bool { return len(w.events("port")) == 3 })
	for _, e := range w.events("port") {
		if e.User != "joe" || e.Action != "agent" || e.Path != "web1" || e.BytesIn == 0 || e.BytesOut == 0 {
			t.Errorf("audit: %s", e.Line)
		}
	}
}

// TestConsole: the jump host's own commands, over ssh.
func TestConsole(t *testing.T) {
	mine, all, none := openRole(), openRole(), openRole()
	mine.Name, mine.Identities, mine.Recordings, mine.RemoveRecordings, mine.ReadAudit = "mine", []string{"joe"}, access.Own, false, false
	all.Name, all.Identities = "all", []string{"ann"}
	none.Name, none.Identities, none.Recordings, none.RemoveRecordings, none.ReadAudit = "none", []string{"bob"}, access.None, false, false
	w := newWorld(t, worldConfig{roles: []access.Role{mine, all, none}})
	joe, ann, bob := w.person(personConfig{}), w.person(personConfig{identity: "ann"}), w.person(personConfig{identity: "bob"})
	for _, p := range []*client{joe, ann} {
		if r := p.run(p.ssh(append(p.ways()["login"]("web1"), "echo something worth seeing")...)); r.code != 0 {
			t.Fatalf("got %+v", r)
		}
	}
	sessions := w.sessions(2)
	his, hers := sessions[0].ID, sessions[1].ID

	r := joe.run(joe.ssh("jump", "sessions ls --json"))
	if r.code != 0 || !strings.Contains(r.stdout, his) || strings.Contains(r.stdout, hers) {
		t.Errorf("joe's list: %+v", r)
	}
	r = ann.run(ann.ssh("jump", "sessions", "ls"))
	if r.code != 0 || strings.Count(r.stdout, "web1") != 2 {
		t.Errorf("ann's list: %+v", r)
	}
	if r = joe.run(joe.ssh("jump", "sessions", "export", hers, "--format", "raw")); r.code == 0 || r.stdout != "" {
		t.Errorf("joe reads what is ann's: %+v", r)
	}
	if r = ann.run(ann.ssh("jump", "sessions", "export", his, "--format", "raw")); r.stdout != "something worth seeing\n" {
		t.Errorf("got %+v", r)
	}
	if r = ann.run(ann.ssh("jump", "audit", "--identity", "joe", "--event", "exec")); r.code != 0 || strings.Count(r.stdout, "something worth seeing") != 1 {
		t.Errorf("joe's commands: %+v", r)
	}
	if r = joe.run(joe.ssh("jump", "audit")); r.code == 0 || strings.Contains(r.stdout, "web1") {
		t.Errorf("joe reads the audit: %+v", r)
	}
	for _, args := range [][]string{{"jump", "sessions", "ls"}, {"jump", "id"}, {"jump"}, {"-s", "jump", "sftp"}} {
		if r = bob.run(bob.ssh(args...)); r.code != 255 || r.stdout != "" || !strings.Contains(r.stderr, "fleetjump: ") {
			t.Errorf("bob's %q: %+v", args, r)
		}
	}
	if r = ann.run(ann.ssh("jump", "id")); r.code == 0 || strings.Contains(r.stdout, "uid") {
		t.Errorf("a program was run: %+v", r)
	}
	if n := len(w.events("recording.export")); n < 1 {
		t.Error("the export is not in the audit")
	}

	// Replayed on a real terminal.
	cmd := ann.ssh("-t", "jump", "play", his)
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: 80, Rows: 24})
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	var seen syncBuffer
	_, _ = io.Copy(&seen, tty)
	if err := cmd.Wait(); err != nil || !strings.Contains(seen.String(), "something worth seeing") {
		t.Errorf("%v: %q", err, seen.String())
	}
}

// TestLimitsOfSessions: a session that lasts too long, or in which nothing
// happens, ends with a message.
func TestLimitsOfSessions(t *testing.T) {
	long, idle := openRole(), openRole()
	long.Identities, long.MaxSession = []string{"joe"}, 2*time.Second
	idle.Name, idle.Identities, idle.Idle = "idle", []string{"ann"}, 2*time.Second
	w := newWorld(t, worldConfig{roles: []access.Role{long, idle}})
	for who, says := range map[string]string{"joe": "longest that role", "ann": "nothing has happened"} {
		p := w.person(personConfig{identity: who})
		r := p.run(p.ssh(append(p.ways()["jump"]("web1"), "sleep 600")...))
		if r.code != 255 || !strings.Contains(r.stderr, says) {
			t.Errorf("%s: got %+v", who, r)
		}
	}
	for _, s := range w.sessions(2) {
		if s.State != store.Ended || s.Reason == "" {
			t.Errorf("session %+v", s)
		}
	}
}

// TestLimitsOfForwardings: what bounds a session bounds a forwarding, by the role
// that permits it.
func TestLimitsOfForwardings(t *testing.T) {
	long, idle, other := openRole(), openRole(), openRole()
	long.Name, long.Identities, long.Permit, long.MaxSession = "long", []string{"joe"}, []access.Action{access.LocalForwarding}, 2*time.Second
	idle.Name, idle.Identities, idle.Permit, idle.Idle = "idle", []string{"ann"}, []access.Action{access.LocalForwarding}, 2*time.Second
	other.Permit = []access.Action{access.Shell, access.Exec}
	w := newWorld(t, worldConfig{roles: []access.Role{other, long, idle}})
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for who, says := range map[string]string{"joe": `the forwarding has lasted 2s, which is the longest that role "long" allows`, "ann": `nothing has happened for 2s, which is the limit of role "idle"`} {
		before := len(w.events("port"))
		port := freePort(t)
		p := w.person(personConfig{identity: who})
		cmd := p.ssh(append([]string{"-N", "-L", fmt.Sprintf("127.0.0.1:%d:%s", port, silent.Addr())}, p.ways()["subsystem"]("web1")...)...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var conn net.Conn
		w.eventually("ssh listens", func() bool {
			conn, err = net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			return err == nil
		})
		// Nothing is sent and nothing read: the end comes from the jump host.
		if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("%s: read %d, %v", who, n, err)
		}
		w.eventually("its end is audited", func() bool { return len(w.events("port")) == before+1 })
		if e := w.events("port")[before]; e.User != who || e.Error != says {
			t.Errorf("audit: %s", e.Line)
		}
		_ = conn.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	for _, e := range w.events("session.start") {
		if e.Kind != "forward" || e.Role != map[string]string{"joe": "long", "ann": "idle"}[e.User] {
			t.Errorf("audit: %s", e.Line)
		}
	}
}

// TestReloadWarns: what a running server doesn't take up is said.
func TestReloadWarns(t *testing.T) {
	w := newWorld(t, worldConfig{reload: func(w *world) (*config.Config, error) {
		c := *w.settings
		c.MaxStream, c.Listen = 1<<10, []string{"127.0.0.1:1"}
		return &c, nil
	}})
	if err := w.server.Reload(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"listen", "max_stream"} {
		if !strings.Contains(w.logs.String(), key+" has changed: that takes effect when the jump host is started anew") {
			t.Errorf("nothing is said of %s", key)
		}
	}
	if strings.Contains(w.logs.String(), "audit_dir has changed") {
		t.Error("what is as it was is said to have changed")
	}
}

// TestDrain: when the jump host is stopped, people are told, and recordings are
// sealed.
func TestDrain(t *testing.T) {
	w := newWorld(t, worldConfig{})
	p := w.person(personConfig{})
	cmd := p.ssh(append(p.ways()["subsystem"]("web1"), "echo begun; sleep 600")...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	w.stop()
	_ = cmd.Wait()
	if !strings.Contains(stderr.String(), "shutting down") {
		t.Errorf("stderr %q", stderr.String())
	}
	s := w.sessions(1)[0]
	if s.State != store.Ended || !strings.Contains(s.Reason, "shutting down") || w.raw(s.ID) != "begun\n" {
		t.Errorf("session %+v", s)
	}
}

// TestPlainHostKeys: where the settings say that a host needs no certificate, its
// key has to be in known_hosts.
func TestPlainHostKeys(t *testing.T) {
	known := filepath.Join(t.TempDir(), "known_hosts")
	w := newWorld(t, worldConfig{
		hosts:   []string{"known", "unknown", "strict"},
		certify: func(*world, string, ssh.PublicKey) *ssh.Certificate { return nil },
		settings: func(c *config.Config) {
			c.RequireHostCertificate = func(h *inventory.Host) bool { return h.Name == "strict" }
			c.KnownHosts = []string{known}
		},
	})
	h := w.fleet.Host("known")
	host, port, _ := net.SplitHostPort(h.Addr())
	line := fmt.Sprintf("[%s]:%s,[known]:%s %s", host, port, port, ssh.MarshalAuthorizedKey(h.PublicKeys()[0]))
	if err := os.WriteFile(known, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	p := w.person(personConfig{})
	for name, way := range p.ways() {
		if r := p.run(p.ssh(append(way("known"), "echo fine")...)); r.stdout != "fine\n" {
			t.Errorf("%s: known: %+v", name, r)
		}
		if r := p.run(p.ssh(append(way("unknown"), "true")...)); r.code != 255 || !strings.Contains(r.stderr, "known_hosts") {
			t.Errorf("%s: unknown: %+v", name, r)
		}
		if r := p.run(p.ssh(append(way("strict"), "true")...)); r.code != 255 || !strings.Contains(r.stderr, "expected a host certificate") {
			t.Errorf("%s: strict: %+v", name, r)
		}
	}
}

// TestCopyOnly: who may only copy files gets no shell by a program that calls
// itself scp or sftp-server.
func TestCopyOnly(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"scp", "sftp-server"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho here you are\nexec /bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	role := openRole()
	role.Permit = []access.Action{access.SCP, access.SFTP}
	w := newWorld(t, worldConfig{roles: []access.Role{role}, host: testenv.HostConfig{
		Top: "SetEnv PATH=" + dir + ":/usr/bin:/bin\n", SFTP: filepath.Join(dir, "sftp-server"),
	}})
	p := w.person(personConfig{})
	for name, way := range p.ways() {
		for _, args := range [][]string{append(way("web1"), "scp -f x"), append([]string{"-s"}, append(way("web1"), "sftp")...)} {
			cmd := p.ssh(args...)
			cmd.Stdin = strings.NewReader("echo any command: $((40+2))\n")
			r := p.run(cmd)
			if strings.Contains(r.stdout, "42") || strings.Contains(r.stdout, "here you are") || !strings.Contains(r.stderr, "no file copy") {
				t.Errorf("%s: %q: got %+v", name, args[len(args)-1], r)
			}
		}
	}
	if n := len(w.events("session.reject")); n != 8 {
		t.Errorf("%d session.reject events", n)
	}
}
