package remote

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/fleetca/fleetca/testenv"
	"github.com/fleetca/fleetca/testenv/fleettest"
)

// TestCommandLine holds that every login shell passes the line on unharmed.
func TestCommandLine(t *testing.T) {
	with := &sudo{user: "root", password: []byte("x"), prompt: "fleetca-password-ABC"}
	without := &sudo{user: "svc_a-b.c$", prompt: "fleetca-password-ABC"}
	for _, s := range []*sudo{with, without} {
		line := s.command("fleetca-ready-XYZ")
		if strings.ContainsAny(line, "\n\\!`") || strings.Count(line, "'") != 4 {
			t.Errorf("a shell may change %s", line)
		}
		if strings.Contains(line, "ABC") == (s.password == nil) {
			t.Errorf("prompt: %s", line)
		}
	}
	// A sudo that shows its arguments and runs what it was told to.
	bin := t.TempDir()
	fake := "#!/bin/sh\necho \"sudo $*\" >&2\nwhile [ $# -gt 0 ] && [ \"$1\" != -- ]; do shift; done\nshift\nexec \"$@\"\n"
	if err := os.WriteFile(filepath.Join(bin, "sudo"), []byte(fake), 0o755); err != nil {
		t.Fatal(err)
	}
	shells := [][]string{{"dash"}, {"bash"}, {"busybox", "sh"}}
	for _, more := range []string{"zsh", "fish", "csh", "tcsh", "mksh", "ksh"} {
		if _, err := exec.LookPath(more); err == nil {
			shells = append(shells, []string{more})
		}
	}
	r := &run{ready: "fleetca-ready-XYZ", sudo: without}
	for _, shell := range shells {
		for _, line := range []string{r.command(), (&run{ready: r.ready}).command()} {
			cmd := exec.Command(shell[0], append(shell[1:], "-c", line)...)
			cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "SSH_CONNECTION=10.0.0.1 1 10.0.0.2 22", "HOME="+bin)
			text := r.text("echo \"[$FLEETCA_PEER] it's\"; cat")
			want := "fleetca-ready-XYZ\n[10.0.0.1 1 10.0.0.2 22] it's\n"
			var stderr bytes.Buffer
			cmd.Stdin, cmd.Stderr = strings.NewReader(text), &stderr
			out, err := cmd.Output()
			if err != nil || string(out) != want || !strings.Contains(stderr.String(), "fleetca-ready-XYZ\n") {
				t.Errorf("%v -c %s: %q, %q, %v", shell, line, out, stderr.String(), err)
			}
			if line == r.command() && !strings.Contains(stderr.String(), "sudo -n -H -u svc_a-b.c$ -- /bin/sh -c") {
				t.Errorf("%v: %s", shell, stderr.String())
			}
		}
	}
}

// TestExplain holds what is made of sudo's own words.
func TestExplain(t *testing.T) {
	for _, tt := range []struct {
		said   string
		given  bool
		reason BecomeReason
	}{
		{"sh: 1: exec: sudo: not found", false, BecomeMissing},
		{"sh: line 1: exec: sudo: not found", true, BecomeMissing},
		{"sh: exec: line 0: sudo: not found", false, BecomeMissing},
		{"sudo: a password is required", false, BecomeNeedsPassword},
		{"sudo: sorry, you must have a tty to run sudo", false, BecomeNeedsTerminal},
		{"sudo: a terminal is required to read the password; either use the -S option", false, BecomeNeedsTerminal},
		{"bob is not in the sudoers file.", true, BecomeNotAllowed},
		{"bob is not in the sudoers file.  This incident will be reported.", true, BecomeNotAllowed},
		{"Sorry, user bob is not allowed to execute '/bin/sh' as root on web1.", true, BecomeNotAllowed},
		{"Sorry, user bob may not run sudo on web1.", true, BecomeNotAllowed},
		{"P:Sorry, try again.\nsudo: no password was provided\nsudo: 1 incorrect password attempt", true, BecomeWrongPassword},
		{"P:\nsudo: 1 incorrect password attempt", true, BecomeWrongPassword},
		{"sudo: unknown user x", false, BecomeOther},
		{"", false, BecomeOther},
	} {
		s := &sudo{host: "web1", user: "root", prompt: "P", refused: func() {}}
		if tt.given {
			s.password = []byte("x")
		}
		var e *BecomeError
		if err := s.explain([]byte(tt.said), 1); !errors.As(err, &e) || e.Reason != tt.reason {
			t.Errorf("%q: %v, want %q", tt.said, err, tt.reason)
		}
	}
}

// machines starts namespaced hosts, one per login.
func machines(t *testing.T, systems map[string]testenv.System) *testenv.Fleet {
	t.Helper()
	var names []string
	for name := range systems {
		names = append(names, name)
	}
	return fleettest.StartNamespaced(t, testenv.Config{Names: names, PerHost: func(name string, h *testenv.HostConfig) {
		h.System = systems[name]
	}})
}

// TestBecome uses the real sudo of namespaced hosts.
func TestBecome(t *testing.T) {
	f := machines(t, map[string]testenv.System{
		"admin": {}, "operator": {Login: testenv.Operator}, "root": {Login: testenv.Root},
		"nosudo": {NoSudo: true}, "busybox": {Busybox: true}, "busypass": {Busybox: true, Login: testenv.Operator},
	})
	config := usual(t, f)
	right := []byte(testenv.OperatorPassword)
	for _, tt := range []struct {
		name, host string
		user       string
		password   []byte
		plain      bool // no become at all
		whoami     string
		reason     BecomeReason
	}{
		{name: "without", host: "admin", whoami: "root"},
		{name: "another user", host: "admin", user: testenv.Operator, whoami: testenv.Operator},
		{name: "a password that isn't asked for", host: "admin", password: right, whoami: "root"},
		{name: "with", host: "operator", password: right, whoami: "root"},
		{name: "with, busybox", host: "busypass", password: right, whoami: "root"},
		{name: "none given", host: "operator", reason: BecomeNeedsPassword},
		{name: "wrong", host: "operator", password: []byte("wrong"), reason: BecomeWrongPassword},
		{name: "empty", host: "operator", password: []byte{}, reason: BecomeWrongPassword},
		{name: "line end in it", host: "operator", password: []byte("a\nb"), reason: BecomeOther},
		{name: "no such user", host: "admin", user: "nobody-here", reason: BecomeOther},
		{name: "missing", host: "nosudo", reason: BecomeMissing},
		{name: "missing, with", host: "nosudo", password: right, reason: BecomeMissing},
		{name: "busybox", host: "busybox", whoami: "root"},
		{name: "already root", host: "root", whoami: "root"},
		{name: "already the user", host: "nosudo", user: testenv.Admin, whoami: testenv.Admin},
		{name: "not wanted", host: "admin", plain: true, whoami: testenv.Admin},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := Config{}
			asked := 0
			if tt.password != nil {
				cfg.BecomePassword = func(context.Context) ([]byte, error) { asked++; return tt.password, nil }
			}
			vars := map[string]any{"ansible_become": !tt.plain}
			if tt.user != "" {
				vars["ansible_become_user"] = tt.user
			}
			h := f.Host(tt.host)
			d := newDialer(t, cfg, config)
			c := dial(t, d, of(t, h, vars))
			before := failures(h)
			script := "id -un; echo \"$FLEETCA_PEER\"; cat; echo err >&2; exit 5"
			for i := range 2 {
				r, err := c.Run(t.Context(), script)
				if tt.reason != "" {
					var become *BecomeError
					if !errors.As(err, &become) || become.Reason != tt.reason {
						t.Fatalf("got %v, want %q", err, tt.reason)
					}
					if len(tt.password) > 2 && strings.Contains(err.Error(), string(tt.password)) {
						t.Errorf("the password is in %v", err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				lines := strings.Split(string(r.Stdout), "\n")
				if len(lines) != 3 || lines[0] != tt.whoami || len(strings.Fields(lines[1])) != 4 {
					t.Errorf("run %d: stdout %q", i, r.Stdout)
				}
				if string(r.Stderr) != "err\n" || r.ExitStatus != 5 {
					t.Errorf("run %d: stderr %q, status %d", i, r.Stderr, r.ExitStatus)
				}
			}
			if asked > 1 {
				t.Errorf("asked %d times", asked)
			}
			if tt.name == "wrong" && failures(h) != before+1 {
				t.Errorf("%d wrong passwords in the log after two runs", failures(h)-before)
			}
			if tt.password != nil && bytes.Contains([]byte(h.Log()), right) {
				t.Error("the password is in the host's log")
			}
		})
	}
}

var failedSudo = regexp.MustCompile(`sudo.*(authentication failure;|incorrect password attempt)`)

func failures(h *testenv.Host) int {
	n := 0
	for l := range strings.Lines(h.Log()) {
		if failedSudo.MatchString(l) && strings.Contains(l, "authentication failure;") {
			n++
		}
	}
	return n
}

// TestOperatorsPassword logs in to the real sshd by password, through PAM and
// without.
func TestOperatorsPassword(t *testing.T) {
	f := fleettest.StartNamespaced(t, testenv.Config{Names: []string{"password", "pam"}, PerHost: func(name string, h *testenv.HostConfig) {
		h.System.Login = testenv.Operator
		if name == "pam" {
			h.Top = "PasswordAuthentication no\nKbdInteractiveAuthentication yes\nUsePAM yes\n"
		}
	}})
	config := strings.Replace(usual(t, f), "IdentityFile "+f.ClientKey(), "IdentityFile none", 1)
	for _, h := range f.Hosts() {
		for _, password := range []string{testenv.OperatorPassword, "wrong"} {
			d := newDialer(t, Config{Password: func(context.Context, string) (string, error) { return password, nil }}, config)
			c, err := d.Dial(t.Context(), of(t, h, nil), Options{})
			var auth *AuthError
			switch {
			case password == "wrong" && (!errors.As(err, &auth) || !auth.PasswordRefused):
				t.Errorf("%s: wrong password: %v", h.Name(), err)
			case password != "wrong" && err != nil:
				t.Errorf("%s: %v", h.Name(), err)
			}
			if err == nil {
				_ = c.Close()
			}
		}
	}
}

// TestOddServers holds what is said of servers that aren't OpenSSH's.
func TestOddServers(t *testing.T) {
	f := machines(t, map[string]testenv.System{"dropbear": {Dropbear: true}})
	c := dial(t, newDialer(t, Config{}, usual(t, f)), of(t, f.Hosts()[0], nil))
	if !strings.Contains(c.ServerVersion(), "dropbear") {
		t.Errorf("server version %q", c.ServerVersion())
	}
	r, err := c.Run(t.Context(), "echo $FLEETCA_PEER")
	if err != nil || len(strings.Fields(string(r.Stdout))) != 4 {
		t.Errorf("%q, %v", r.Stdout, err)
	}
	if _, err := c.Upload(t.Context(), []File{{Name: "a"}}); err != nil && !errors.Is(err, ErrNoSFTP) {
		t.Errorf("upload: %v", err)
	}
}

// TestSudoersAndStartUpFiles changes a real host: what sudoers can forbid, and
// a login whose shell says things at its start.
func TestSudoersAndStartUpFiles(t *testing.T) {
	f := machines(t, map[string]testenv.System{"web": {}})
	h := f.Hosts()[0]
	config := usual(t, f)
	c := dial(t, newDialer(t, Config{}, config), of(t, h, map[string]any{"ansible_become": true}))
	noise := "echo noise; echo noise >&2; printf 'fleetca-ready-'; read eaten"
	r, err := c.Run(t.Context(), "echo \""+noise+"\" >"+h.Home()+"/.bashrc; echo hello")
	if err != nil || string(r.Stdout) != "hello\n" {
		t.Fatalf("%q, %v", r.Stdout, err)
	}
	// A start-up file that eats a line of the script keeps all of it from running.
	plain := dial(t, newDialer(t, Config{}, config), of(t, h, nil))
	var script *ScriptError
	if _, err := plain.Run(t.Context(), "touch eaten"); !errors.As(err, &script) || script.Started || script.EndUnknown {
		t.Errorf("after a start-up file that eats: %v", err)
	}
	var become *BecomeError
	if _, err := c.Run(t.Context(), "touch "+h.Home()+"/eaten"); !errors.As(err, &become) {
		t.Errorf("after a start-up file that eats: %v", err)
	}
	root := dial(t, newDialer(t, Config{}, config), at(t, h.Name(), testenv.Root, h.Addr(), nil))
	if r, err := root.Run(t.Context(), "ls "+h.Home()+"/eaten"); err != nil || r.ExitStatus == 0 {
		t.Errorf("half of a script was run: %q, %v", r.Stdout, err)
	}
	quiet := strings.TrimSuffix(noise, "; read eaten")
	if _, err := root.Run(t.Context(), "echo \""+quiet+"\" >"+h.Home()+"/.bashrc"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r, err := c.Run(t.Context(), "echo out; echo err >&2")
		if err != nil || string(r.Stdout) != "out\n" || string(r.Stderr) != "err\n" {
			t.Errorf("with noise: %q, %q, %v", r.Stdout, r.Stderr, err)
		}
	}
	dir, err := c.Upload(t.Context(), []File{{Name: "a", Mode: 0o600}})
	if !errors.Is(err, ErrNoSFTP) && err != nil {
		t.Errorf("sftp with noise: %q, %v", dir, err)
	}
	for _, tt := range []struct {
		rule   string
		reason BecomeReason
	}{
		{"Defaults:admin requiretty", BecomeNeedsTerminal},
		{"admin ALL=(ALL) NOPASSWD: !ALL", BecomeNotAllowed},
		{"admin ALL=(ALL) PASSWD: ALL", BecomeNeedsPassword},
	} {
		session := dial(t, newDialer(t, Config{}, config), of(t, h, map[string]any{"ansible_become": true}))
		if _, err := root.Run(t.Context(), "echo '"+tt.rule+"' >/etc/sudoers.d/zz; chmod 440 /etc/sudoers.d/zz"); err != nil {
			t.Fatal(err)
		}
		_, err := session.Run(t.Context(), "true")
		if !errors.As(err, &become) || become.Reason != tt.reason {
			t.Errorf("%s: %v, want %q", tt.rule, err, tt.reason)
		}
	}
}
