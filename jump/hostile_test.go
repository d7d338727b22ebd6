package jump_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/jump/relay"
)

// TestNowhereElse: the jump host connects nobody to an address, and a host is no
// way around the recording of others.
func TestNowhereElse(t *testing.T) {
	calm(t)
	w := newWorld(t, worldConfig{})
	web := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(rw, "from afar")
	}))
	defer web.Close()
	joe := w.attacker("joe", nil)
	out, err := joe.outer("anybody")
	if err != nil {
		t.Fatal(err)
	}
	one, two := w.sshdPort("web1"), w.sshdPort("web2")
	webPort := web.Listener.Addr().(*net.TCPAddr).Port
	for _, to := range []struct {
		host string
		port int
	}{
		{"127.0.0.1", webPort},
		{"localhost", webPort},
		{"127.0.0.1", one},
		{"localhost", one},
		{"::1", one},
		{"", one},
		{"0.0.0.0", one},
		{"2130706433", one},
		{"web1", webPort},
		{"web1", 22},
		{"jump.example.com", w.port},
		{"127.0.0.1", w.port},
		{"169.254.169.254", 80},
		{"web1\x00", one},
		{"web1.", 1},
		{"[::ffff:127.0.0.1]", one},
	} {
		data := ssh.Marshal(relay.DirectTCPIP{Host: to.host, Port: uint32(to.port), Origin: "127.0.0.1", OriginPort: 1})
		_, _, err := out.OpenChannel("direct-tcpip", data)
		if got := rejection(err); !strings.HasPrefix(got, "administratively prohibited: ") || !strings.Contains(got, "inventory") {
			t.Errorf("outer, %q:%d: %s", to.host, to.port, got)
		}
	}
	p := w.person(personConfig{})
	if r := p.run(p.ssh("-W", fmt.Sprintf("localhost:%d", webPort), "jump")); r.code != 255 || r.stdout != "" || !strings.Contains(r.stderr, "inventory") {
		t.Errorf("-W: %+v", r)
	}
	v, err := joe.enter("login", "web1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.exec("true"); err != nil { // by which the host is reached
		t.Fatal(err)
	}
	for _, to := range []struct {
		host string
		port int
	}{
		{"web2", two},
		{"WEB2.", two},
		{"127.0.0.1", two},
		{"127.1", two},
		{"2130706433", two},
		{"0x7f000001", two},
		{"0177.0.0.1", two},
		{"::ffff:127.0.0.1", two},
		{"[::ffff:7f00:1]", two},
		{"web1", one},
		{"localhost", one},
		{"ip6-localhost", one},
		{"::1", one},
		{"[::1]", one},
		{"0.0.0.0", one},
		{"0", one},
		{"::", one},
		{"127.8.9.10", one},
		{"a.localhost", one},
		{"localhost.", one},
		{"localhost", 22},
		{"127.0.0.1", 22},
		{"web1", 22},
		{"::1%lo", one},
	} {
		data := ssh.Marshal(relay.DirectTCPIP{Host: to.host, Port: uint32(to.port), Origin: "127.0.0.1", OriginPort: 1})
		_, _, err := v.OpenChannel("direct-tcpip", data)
		if got := rejection(err); !strings.HasPrefix(got, "administratively prohibited: ") || !strings.Contains(got, "would not be recorded") {
			t.Errorf("within, %q:%d: %s", to.host, to.port, got)
		}
	}
	client := http.Client{Transport: &http.Transport{DialContext: v.DialContext, DisableKeepAlives: true}}
	r, err := client.Get(web.URL)
	if err != nil {
		t.Fatalf("what is permitted: %v", err)
	}
	body, _ := io.ReadAll(r.Body)
	_ = r.Body.Close()
	if string(body) != "from afar" {
		t.Errorf("got %q", body)
	}
}

// TestUnknown: channels, requests and global requests that aren't known are
// refused, on the connection itself and within.
func TestUnknown(t *testing.T) {
	calm(t)
	w := newWorld(t, worldConfig{hosts: []string{"web1"}})
	joe := w.attacker("joe", nil)
	out, err := joe.outer("anybody")
	if err != nil {
		t.Fatal(err)
	}
	conns := map[string]*visit{"outer": out}
	for _, way := range byHand {
		if conns[way], err = joe.enter(way, "web1"); err != nil {
			t.Fatal(err)
		}
	}
	for name, v := range conns {
		for _, kind := range []string{
			"x11", "auth-agent@openssh.com", "forwarded-tcpip", "forwarded-streamlocal@openssh.com", "tun@openssh.com",
			"direct-tcpip@example.com", "", "session\x1b[2J", strings.Repeat("s", 5000),
		} {
			_, _, err := v.OpenChannel(kind, nil)
			got := rejection(err)
			if !strings.HasPrefix(got, "unknown channel type: ") {
				t.Errorf("%s: channel %.20q: %s", name, kind, got)
			}
			noEscapes(t, name, got)
		}
		for _, kind := range []string{"direct-tcpip", "direct-streamlocal@openssh.com"} {
			if _, _, err := v.OpenChannel(kind, []byte{0, 0}); err == nil {
				t.Errorf("%s: %s with a broken payload", name, kind)
			}
		}
		for _, kind := range []string{"hostkeys-00@openssh.com", "hostkeys-prove-00@openssh.com", "streamlocal-forward@example.com", "elevation", ""} {
			if ok, _, err := v.SendRequest(kind, true, nil); ok || err != nil {
				t.Errorf("%s: global request %q: %v %v", name, kind, ok, err)
			}
		}
		if name == "outer" {
			if ok, _, err := v.SendRequest("tcpip-forward", true, ssh.Marshal(relay.TCPIPForward{Address: "0.0.0.0", Port: 0})); ok || err != nil {
				t.Errorf("a port on the jump host: %v %v", ok, err)
			}
			if _, _, err := v.OpenChannel("direct-streamlocal@openssh.com", ssh.Marshal(relay.DirectStreamLocal{Path: "/run/x"})); err == nil {
				t.Error("a socket on the jump host")
			}
			continue
		}
		s, err := v.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = s.SendRequest(relay.TypeAgent, true, nil)
		for _, kind := range []string{"tun", "exec@example.com", "x11-req@example.com", ""} {
			if ok, err := s.SendRequest(kind, true, nil); ok || err != nil {
				t.Errorf("%s: request %q: %v %v", name, kind, ok, err)
			}
		}
	}
}

// TestSecondProgram: one program a channel, and a second session is decided on
// and recorded like the first.
func TestSecondProgram(t *testing.T) {
	calm(t)
	w := newWorld(t, worldConfig{hosts: []string{"web1"}})
	joe := w.attacker("joe", nil)
	n := 0
	for _, way := range byHand {
		v, err := joe.enter(way, "web1")
		if err != nil {
			t.Fatal(err)
		}
		s, err := v.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = s.SendRequest(relay.TypeAgent, true, nil)
		in, _ := s.StdinPipe()
		var out syncBuffer
		s.Stdout, s.Stderr = &out, &out
		if err := s.Start("cat; echo first"); err != nil {
			t.Fatal(err)
		}
		w.eventually("it has begun", func() bool { return len(w.events("session.start")) == n+1 })
		for _, r := range []struct {
			kind    string
			payload []byte
		}{
			{"exec", ssh.Marshal(relay.Exec{Command: "echo second"})}, {"shell", nil}, {"subsystem", ssh.Marshal(relay.Subsystem{Name: "sftp"})},
		} {
			if ok, err := s.SendRequest(r.kind, true, r.payload); ok && err == nil {
				t.Errorf("%s: a second program by %s", way, r.kind)
			}
		}
		_ = in.Close()
		_ = s.Wait()
		if strings.Contains(out.String(), "second") {
			t.Errorf("%s: %q", way, out.String())
		}
		for range 3 {
			if out, err := v.exec("echo another"); err != nil || out != "another\n" {
				t.Errorf("%s: %q, %v", way, out, err)
			}
		}
		n += 4
		if got := len(w.sessions(n)); got != n {
			t.Errorf("%s: %d sessions recorded, want %d", way, got, n)
		}
		_ = v.Close()
	}
}

// TestEnvironment: only what can't hurt is passed on.
func TestEnvironment(t *testing.T) {
	calm(t)
	// The host takes everything, so it is the jump host that holds it back.
	host := worldConfig{hosts: []string{"web1"}}
	host.host.Top = "AcceptEnv *\n"
	w := newWorld(t, host)
	joe := w.attacker("joe", nil)
	for _, way := range byHand {
		v, err := joe.enter(way, "web1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.exec("true"); err != nil { // the agent is there from now on
			t.Fatal(err)
		}
		s, err := v.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		for name, may := range map[string]bool{
			"LANG": true, "LC_ALL": true, "LD_PRELOAD": false, "LD_LIBRARY_PATH": false, "PATH": false, "BASH_ENV": false, "ENV": false,
			"IFS": false, "PYTHONPATH": false, "lang": false, "LANG\n": false, "": false, "SSH_ORIGINAL_COMMAND": false,
		} {
			if err := s.Setenv(name, "C.UTF-8"); (err == nil) != may {
				t.Errorf("%s: %q: %v", way, name, err)
			}
		}
		out, err := s.Output("env")
		if err != nil || !strings.Contains(string(out), "LANG=C.UTF-8\n") || strings.Contains(string(out), "LD_PRELOAD") || strings.Contains(string(out), "BASH_ENV") {
			t.Errorf("%s: %v, %s", way, err, out)
		}
		_ = v.Close()
	}
}

// TestNothingOfItsOwn: there is no file, no shell, no program and no agent of the
// jump host itself to be had.
func TestNothingOfItsOwn(t *testing.T) {
	calm(t)
	w := newWorld(t, worldConfig{hosts: []string{"web1"}})
	joe := w.attacker("joe", nil)
	v, err := joe.outer("root")
	if err != nil {
		t.Fatal(err)
	}
	try := func(start func(*ssh.Session) error) string {
		t.Helper()
		s, err := v.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		var stdout, stderr syncBuffer
		s.Stdout, s.Stderr = &stdout, &stderr
		if err := start(s); err == nil {
			err = s.Wait()
			if err == nil {
				t.Error("it ended well")
			}
		}
		if stdout.String() != "" {
			t.Errorf("got %q", stdout.String())
		}
		noEscapes(t, "refusal", stderr.String())
		return stderr.String()
	}
	if got := try(func(s *ssh.Session) error { return s.Shell() }); !strings.Contains(got, "no shell") {
		t.Errorf("shell: %q", got)
	}
	for _, command := range []string{
		"id", "/bin/sh", "sh -c id", "$(id)", "`id`", "sessions ls; id", "sessions ls && id", "sessions ls | sh", "scp -t /tmp/x",
		"rsync --server . /", "serve", "fleetjump serve", "config check", "../../bin/id", "sessions\x1b[2J", "\x00", strings.Repeat("a ", 50_000),
	} {
		got := try(func(s *ssh.Session) error { return s.Start(command) })
		if got == "" || strings.Contains(got, "uid=") {
			t.Errorf("%.40q: %q", command, got)
		}
	}
	for _, name := range []string{"sftp", "netconf", "", "proxy", "PROXY:web1:22", "proxy:\x1b[2J:22", "proxy:../web1:22"} {
		if got := try(func(s *ssh.Session) error { return requestSubsystem(s, name) }); !strings.Contains(got, "fleetjump: ") {
			t.Errorf("subsystem %q: %q", name, got)
		}
	}
	// It doesn't reach for an agent by itself, and gives nobody one.
	if _, _, err := v.OpenChannel(relay.ChannelAgent, nil); err == nil {
		t.Error("an agent of the jump host")
	}
}

// requestSubsystem starts a subsystem with the session's streams: a session
// that is started for something else copies them as well.
func requestSubsystem(s *ssh.Session, name string) error {
	if s.Stderr == nil {
		return s.RequestSubsystem(name)
	}
	to := s.Stderr
	s.Stderr = nil
	stderr, err := s.StderrPipe()
	if err != nil {
		return err
	}
	if err := s.RequestSubsystem(name); err != nil {
		return err
	}
	_, _ = io.Copy(to, stderr)
	return io.EOF
}
