package remote

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/inventory"
	"github.com/fleetca/fleetca/inventory/sshconfig"
	"github.com/fleetca/fleetca/testenv"
	"github.com/fleetca/fleetca/testenv/fleettest"
)

func TestMain(m *testing.M) {
	// No agent but those that tests start.
	_ = os.Unsetenv("SSH_AUTH_SOCK")
	os.Exit(m.Run())
}

// writeFile puts text into a file of the test's own folder.
func writeTemp(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// newDialer makes a Dialer with that ssh_config and nothing of this machine's.
func newDialer(t testing.TB, cfg Config, config string) *Dialer {
	t.Helper()
	c, err := sshconfig.Load(sshconfig.Files{
		User: writeTemp(t, "config", config+"\nGlobalKnownHostsFile none\n"), System: writeTemp(t, "system", ""),
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg.SSHConfig = c
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// inventoryHost is a host of the inventory with those variables.
func inventoryHost(name string, vars map[string]any) *inventory.Host {
	h := &inventory.Host{Name: name, Vars: map[string]inventory.Variable{}}
	for k, v := range vars {
		h.Vars[k] = inventory.Variable{Value: v}
	}
	return h
}

// at is a host of the inventory at an address.
func at(t testing.TB, name, login, addr string, vars map[string]any) *inventory.Host {
	t.Helper()
	address, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]any{"ansible_host": address, "ansible_port": int64(n), "ansible_user": login}
	for k, v := range vars {
		all[k] = v
	}
	return inventoryHost(name, all)
}

func of(t testing.TB, h *testenv.Host, vars map[string]any) *inventory.Host {
	t.Helper()
	return at(t, h.Name(), h.Login(), h.Addr(), vars)
}

// usual is the ssh_config that reaches a fleet with its own key.
func usual(t testing.TB, f *testenv.Fleet) string {
	t.Helper()
	known := filepath.Join(t.TempDir(), "known_hosts")
	if err := f.KnownHosts(known); err != nil {
		t.Fatal(err)
	}
	return "UserKnownHostsFile " + known + "\nIdentityFile " + f.ClientKey() + "\nIdentityAgent none\n"
}

func dial(t testing.TB, d *Dialer, h *inventory.Host) *Conn {
	t.Helper()
	c, err := d.Dial(t.Context(), h, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// one starts one usual host and connects to it.
func one(t testing.TB, host testenv.HostConfig, cfg Config) *Conn {
	t.Helper()
	f := fleettest.Start(t, testenv.Config{Host: host})
	return dial(t, newDialer(t, cfg, usual(t, f)), of(t, f.Hosts()[0], nil))
}

func TestRun(t *testing.T) {
	c := one(t, testenv.HostConfig{}, Config{})
	if !strings.HasPrefix(c.ServerVersion(), "SSH-2.0-OpenSSH_") {
		t.Errorf("server version %q", c.ServerVersion())
	}
	long := "x=" + strings.Repeat("y", 300_000) + "\necho ${#x}"
	for _, tt := range []struct {
		name, script, stdout, stderr string
		status                       int
	}{
		{"output", "echo out; echo err >&2", "out\n", "err\n", 0},
		{"status", "echo a; exit 7", "a\n", "", 7},
		{"last status", "(exit 3)", "", "", 3},
		{"nothing", "", "", "", 2}, // an empty group is no script
		{"stdin is not the script", "cat; read x; echo \"[$x]\"", "[]\n", "", 0},
		{"ssh-like eater", "head -c 1000 >/dev/null\necho after", "after\n", "", 0},
		{"here document", "cat <<'END'\nit's \"$HOME\" \\ !\nEND", "it's \"$HOME\" \\ !\n", "", 0},
		{"comment at the end", "echo a # b", "a\n", "", 0},
		{"functions", "f() { echo \"f $1\"; }\nf x", "f x\n", "", 0},
		{"locale", "echo $LC_ALL", "C\n", "", 0},
		{"long", long, "300000\n", "", 0},
		{"not UTF-8", `printf '\377\000\001'`, "\xff\x00\x01", "", 0},
		{"set -e", "set -e; false; echo no", "", "", 1},
		{"background", "sleep 100 >/dev/null 2>&1 & echo $!>/dev/null; echo a", "a\n", "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := c.Run(t.Context(), tt.script)
			if err != nil {
				t.Fatal(err)
			}
			if tt.name == "nothing" {
				if r.ExitStatus == 0 {
					t.Error("an empty script is taken")
				}
				return
			}
			if string(r.Stdout) != tt.stdout || string(r.Stderr) != tt.stderr || r.ExitStatus != tt.status {
				t.Errorf("got %q, %q, %d; want %q, %q, %d", r.Stdout, r.Stderr, r.ExitStatus, tt.stdout, tt.stderr, tt.status)
			}
		})
	}
	r, err := c.Run(t.Context(), "echo $FLEETCA_PEER; env | grep -c ^FLEETCA_PEER=127")
	if err != nil || !strings.HasPrefix(string(r.Stdout), "127.0.0.1 ") || !strings.HasSuffix(string(r.Stdout), "\n1\n") {
		t.Errorf("FLEETCA_PEER: %q, %v", r.Stdout, err)
	}
}

func TestRunsSideBySide(t *testing.T) {
	c := one(t, testenv.HostConfig{}, Config{})
	results := make(chan string, 8)
	for i := range 8 {
		go func() {
			r, err := c.Run(t.Context(), "echo "+strconv.Itoa(i))
			if err != nil {
				results <- err.Error()
				return
			}
			results <- strings.TrimSpace(string(r.Stdout))
		}()
	}
	sum := 0
	for range 8 {
		n, err := strconv.Atoi(<-results)
		if err != nil {
			t.Error(err)
		}
		sum += n
	}
	if sum != 28 {
		t.Errorf("sum %d", sum)
	}
}

// fifo makes a named pipe that a script on a loopback host can meet the test at.
func fifo(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if out, err := exec.Command("mkfifo", path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

func TestRunCancelled(t *testing.T) {
	c := one(t, testenv.HostConfig{}, Config{})
	began, never := fifo(t, "began"), fifo(t, "never")
	ctx, cancel := context.WithCancelCause(t.Context())
	mine := errors.New("the person pressed Ctrl-C")
	go func() {
		_, _ = os.ReadFile(began)
		cancel(mine)
	}()
	_, err := c.Run(ctx, "echo x >"+began+"; read y <"+never)
	var script *ScriptError
	if !errors.As(err, &script) || !script.EndUnknown || !errors.Is(err, mine) {
		t.Errorf("got %v", err)
	}
}

func TestRunConnectionLost(t *testing.T) {
	c := one(t, testenv.HostConfig{}, Config{})
	// The script's grandparent is the server's process for this connection.
	_, err := c.Run(t.Context(), "set -- $(cut -d' ' -f4 /proc/$PPID/stat); kill -9 $PPID $1; sleep 100")
	var script *ScriptError
	if !errors.As(err, &script) || !script.EndUnknown || !script.Started {
		t.Errorf("got %v", err)
	}
	if _, err := c.Run(t.Context(), "echo"); err == nil {
		t.Error("a lost connection runs scripts")
	}
}

func TestRunTooMuchOutput(t *testing.T) {
	c := one(t, testenv.HostConfig{}, Config{MaxOutput: 100_000})
	for _, script := range []string{"yes", "yes >&2"} {
		r, err := c.Run(t.Context(), script)
		if !errors.Is(err, ErrTooMuchOutput) {
			t.Errorf("%s: %v", script, err)
		}
		if len(r.Stdout) > 100_000 || len(r.Stderr) > 100_000 {
			t.Errorf("%s: %d and %d bytes", script, len(r.Stdout), len(r.Stderr))
		}
		var script *ScriptError
		if !errors.As(err, &script) || len(err.Error()) > 2000 {
			t.Errorf("error of %d bytes: %.200s", len(err.Error()), err)
		}
	}
}

func TestRunSignal(t *testing.T) {
	c := one(t, testenv.HostConfig{}, Config{})
	_, err := c.Run(t.Context(), "kill -KILL $$")
	var script *ScriptError
	// The login's shell reports its child's end as a status or by its own.
	if err != nil && (!errors.As(err, &script) || script.Signal != "KILL" || script.EndUnknown) {
		t.Errorf("got %v", err)
	}
}

// TestTruncatedScript holds that a script cut off on the way isn't begun.
func TestTruncatedScript(t *testing.T) {
	r := &run{ready: "ready"}
	_, whole, _ := strings.Cut(r.text("echo one\necho two >"+filepath.Join(t.TempDir(), "x")), "\n")
	end := strings.Index(whole, "} </dev/null")
	for _, shell := range []string{"dash", "bash", "busybox"} {
		for _, cut := range []int{end - 20, end - 1, end} {
			args := []string{"-s"}
			if shell == "busybox" {
				args = []string{"sh", "-s"}
			}
			cmd := exec.Command(shell, args...)
			cmd.Stdin = strings.NewReader(whole[:cut])
			out, _ := cmd.Output()
			if strings.Contains(string(out), "one") {
				t.Errorf("%s ran a script cut at %d of %d", shell, cut, len(whole))
			}
		}
	}
}

func TestUpload(t *testing.T) {
	c := one(t, testenv.HostConfig{}, Config{})
	big := []byte(strings.Repeat("0123456789abcdef", 20_000))
	files := []File{{"a", []byte("first"), 0o600}, {"b.sh", []byte("#!/bin/sh\n"), 0o755}, {"big", big, 0o400}, {"empty", nil, 0o644}}
	dir, err := c.Upload(t.Context(), files)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 || !filepath.IsAbs(dir) {
		t.Errorf("%s: %v, %v", dir, info, err)
	}
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(dir, f.Name))
		if err != nil || string(data) != string(f.Content) {
			t.Errorf("%s: %d bytes, %v", f.Name, len(data), err)
		}
		if info, err := os.Stat(filepath.Join(dir, f.Name)); err != nil || info.Mode().Perm() != f.Mode {
			t.Errorf("%s: %v, %v", f.Name, info.Mode(), err)
		}
	}
	again, err := c.Upload(t.Context(), files[:1])
	if err != nil || again == dir {
		t.Errorf("second upload: %q, %v", again, err)
	}
	for range 2 { // the second time there is nothing to do
		for _, d := range []string{dir, again} {
			if err := c.RemoveUpload(t.Context(), d); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(d); !os.IsNotExist(err) {
				t.Errorf("%s is still there", d)
			}
		}
	}
	for _, dir := range []string{"/", "/etc", "", "/tmp/../etc", "x", "/home/.fleetca-upload-x/.."} {
		if err := c.RemoveUpload(t.Context(), dir); err == nil {
			t.Errorf("%q removed", dir)
		}
	}
	for _, name := range []string{"", "a/b", "..", ".", "a\nb"} {
		if _, err := c.Upload(t.Context(), []File{{Name: name}}); err == nil {
			t.Errorf("%q uploaded", name)
		}
	}
}

func TestUploadWithoutSFTP(t *testing.T) {
	c := one(t, testenv.HostConfig{SFTP: testenv.NoSFTP}, Config{})
	if _, err := c.Upload(t.Context(), []File{{Name: "a"}}); !errors.Is(err, ErrNoSFTP) {
		t.Errorf("got %v", err)
	}
	// The connection is still good.
	if _, err := c.Run(t.Context(), "true"); err != nil {
		t.Error(err)
	}
	broken := one(t, testenv.HostConfig{SFTP: "/bin/false"}, Config{})
	if _, err := broken.Upload(t.Context(), []File{{Name: "a"}}); !errors.Is(err, ErrNoSFTP) {
		t.Errorf("subsystem that ends at once: %v", err)
	}
}

func TestUseAfterClose(t *testing.T) {
	f := fleettest.Start(t, testenv.Config{})
	d := newDialer(t, Config{}, usual(t, f))
	c := dial(t, d, of(t, f.Hosts()[0], nil))
	if _, err := c.Upload(t.Context(), []File{{Name: "a"}}); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := c.Run(t.Context(), "true"); !errors.Is(err, ErrClosed) {
		t.Errorf("run after close: %v", err)
	}
	if _, err := c.Upload(t.Context(), nil); err == nil {
		t.Error("upload after close")
	}
}

func TestConfig(t *testing.T) {
	if _, err := New(Config{}); err == nil || !strings.Contains(err.Error(), "SSHConfig") {
		t.Errorf("no ssh_config: %v", err)
	}
	c, err := sshconfig.Load(sshconfig.Files{User: writeTemp(t, "c", ""), System: writeTemp(t, "s", "")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{SSHConfig: c, HostCAs: []ssh.PublicKey{&ssh.Certificate{}}}); err == nil {
		t.Error("a certificate is taken as host CA")
	}
	d, err := New(Config{SSHConfig: c})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Dial(t.Context(), inventoryHost("x", nil), Options{HostCertificateOnly: true}); err == nil {
		t.Error("a host certificate is wanted without a CA")
	}
	if _, err := d.Dial(t.Context(), inventoryHost("x", map[string]any{"ansible_become": true, "ansible_become_user": "a b;c"}), Options{}); err == nil {
		t.Error("a strange user to become is taken")
	}
}

// TestOneSession holds that a server which allows one session at a time does.
func TestOneSession(t *testing.T) {
	c := one(t, testenv.HostConfig{Top: "MaxSessions 1\n"}, Config{})
	for range 3 {
		r, err := c.Run(t.Context(), "echo a")
		if err != nil || string(r.Stdout) != "a\n" {
			t.Fatalf("%q, %v", r.Stdout, err)
		}
		dir, err := c.Upload(t.Context(), []File{{Name: "a", Mode: 0o600}})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.RemoveUpload(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
	}
	none := one(t, testenv.HostConfig{Top: "MaxSessions 0\n"}, Config{})
	var script *ScriptError
	if _, err := none.Run(t.Context(), "true"); !errors.As(err, &script) || script.Started || script.EndUnknown {
		t.Errorf("no session at all: %v", err)
	}
}
