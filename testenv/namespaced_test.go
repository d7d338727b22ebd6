//go:build linux

package testenv_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fleetca/fleetca/testenv"
	"github.com/fleetca/fleetca/testenv/fleettest"
)

func must(t *testing.T, h *testenv.Host, argv ...string) string {
	t.Helper()
	out, err := h.Exec(t.Context(), argv...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func TestNamespacedLogins(t *testing.T) {
	t.Parallel()
	before := time.Now()
	f := fleettest.StartNamespaced(t, testenv.Config{
		Names:   []string{"admin", "operator", "root"},
		PerHost: func(name string, h *testenv.HostConfig) { h.System.Login = name },
	})
	t.Logf("%d hosts started in %v", len(f.Hosts()), time.Since(before).Round(time.Millisecond))
	for _, h := range f.Hosts() {
		login(t, h)
		if !strings.HasSuffix(h.Addr(), ":22") {
			t.Errorf("%s listens on %s, want port 22", h.Name(), h.Addr())
		}
		text, err := session(t, h, "hostname; ps -e | wc -l; grep SigIgn /proc/self/status; ls -A; id -un")
		if err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		rows := strings.Split(strings.TrimSpace(text), "\n")
		if rows[0] != h.Name() || len(rows[1]) > 2 || !noneIgnored(rows[2]) || rows[3] != ".ssh" || rows[4] != h.Login() {
			t.Errorf("%s: want its name, few processes, no ignored signals, an empty home and its login, got %q", h.Name(), rows)
		}
		if h.Login() == testenv.Root {
			continue
		}
		if text, err := session(t, h, "sudo -n id -u"); (h.Login() == testenv.Admin) != (err == nil && text == "0\n") {
			t.Errorf("sudo without a password as %s: %v: %s", h.Login(), err, text)
		}
	}
	operator := f.Host("operator")
	for password, want := range map[string]bool{testenv.OperatorPassword: true, "wrong": false} {
		c, err := operator.SSH(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c.Args = append(c.Args, "sudo -S -p '' id -u")
		c.Stdin = strings.NewReader(password + "\n")
		if text, err := c.CombinedOutput(); want != (err == nil && string(text) == "0\n") {
			t.Errorf("sudo with password %q: %v: %s", password, err, text)
		}
	}
	if !strings.Contains(operator.Log(), "sudo") {
		t.Errorf("the log has nothing from sudo:\n%s", operator.Log())
	}
}

func TestNamespacedPassword(t *testing.T) {
	t.Parallel()
	f := fleettest.StartNamespaced(t, testenv.Config{
		Names: []string{"password", "interactive"},
		PerHost: func(name string, h *testenv.HostConfig) {
			h.System.Login = testenv.Operator
			if name == "interactive" {
				h.Top = "PasswordAuthentication no\nKbdInteractiveAuthentication yes"
			}
		},
	})
	ask := filepath.Join(t.TempDir(), "ask")
	if err := os.WriteFile(ask, []byte("#!/bin/sh\necho '"+testenv.OperatorPassword+"'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, h := range f.Hosts() {
		c, err := h.SSH(t.Context(), "-o", "BatchMode=no", "-o", "PubkeyAuthentication=no")
		if err != nil {
			t.Fatal(err)
		}
		c.Env = append(os.Environ(), "SSH_ASKPASS="+ask, "SSH_ASKPASS_REQUIRE=force")
		c.Args = append(c.Args, "id -un")
		if text, err := c.CombinedOutput(); err != nil || string(text) != "operator\n" {
			t.Errorf("logging in to %s by password: %v: %s", h.Name(), err, text)
		}
	}
}

func TestNamespacedReload(t *testing.T) {
	t.Parallel()
	f := fleettest.StartNamespaced(t, testenv.Config{})
	h := f.Hosts()[0]
	dropIn := "/etc/ssh/sshd_config.d/10-test.conf"
	must(t, h, "sh", "-c", "echo 'DenyUsers *' > "+dropIn)
	if text, err := session(t, h, "sudo service ssh reload"); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	until(t, "the reload", func() bool {
		text, err := session(t, h, "true")
		return err != nil && strings.Contains(text, "Permission denied")
	})
	must(t, h, "rm", dropIn)
	if err := h.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	login(t, h)
	must(t, h, "sh", "-c", "echo 'NoSuchOption yes' > "+dropIn)
	if err := h.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "NoSuchOption") {
		t.Fatalf("reloading a bad configuration: got %v", err)
	}
	login(t, h)
	must(t, h, "rm", dropIn)
	if err := h.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	login(t, h)
	if err := h.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	refused(t, h, "Connection refused")
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	login(t, h)
}

func TestNamespacedPowerCut(t *testing.T) {
	t.Parallel()
	f := fleettest.StartNamespaced(t, testenv.Config{})
	h := f.Hosts()[0]
	must(t, h, "sh", "-c", "for f in /etc /home /root /var/lib /tmp /run; do echo x > $f/mark; done")
	if _, err := os.Stat(h.File("/etc/mark")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat("/etc/mark"); err == nil {
		t.Error("a host's file is in the machine's /etc")
	}
	if err := h.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h.Kill(t.Context()); err != nil {
		t.Fatalf("killing again: %v", err)
	}
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	login(t, h)
	if got := must(t, h, "sh", "-c", "ls -d /*/mark /var/lib/mark"); got != "/etc/mark\n/home/mark\n/root/mark\n/tmp/mark\n/var/lib/mark" {
		t.Errorf("after a power cut these files are there: %q", got)
	}
}

func TestNamespacedFaults(t *testing.T) {
	t.Parallel()
	f := fleettest.StartNamespaced(t, testenv.Config{
		Names: []string{"plain", "readonly", "nosudo", "nosftp", "busybox", "dropbear", "hidden"},
		PerHost: func(name string, h *testenv.HostConfig) {
			switch name {
			case "readonly":
				h.System.ReadOnlyEtc = true
			case "nosudo":
				h.System.NoSudo = true
			case "nosftp":
				h.SFTP = testenv.NoSFTP
			case "busybox":
				h.System.Busybox = true
			case "dropbear":
				h.System.Dropbear = true
			case "hidden":
				h.System.Hide = []string{"/bin/cat", "/usr/bin/tac", "/etc/services"}
			}
		},
	})
	for _, h := range f.Hosts() {
		login(t, h)
	}
	for name, check := range map[string]struct{ command, want string }{
		"plain":    {"cat /etc/hostname; sudo touch /etc/x /usr/x; sudo ls -l /etc/ssh | grep -c key", "plain\ntouch: cannot touch '/usr/x': Read-only file system\n6\n"},
		"readonly": {"sudo touch /etc/x; touch x", "touch: cannot touch '/etc/x': Read-only file system\n"},
		"nosudo":   {"command -v sudo || ls /usr/bin/sudo", "ls: cannot access '/usr/bin/sudo': No such file or directory\n"},
		"nosftp":   {"sudo sshd -T | grep -c ^subsystem", "0\n"},
		"busybox":  {"help | grep -c Built-in; /bin/sh -c 'help | grep -c Built-in'; sudo sh -c 'help | grep -c Built-in'", "1\n1\n1\n"},
		"dropbear": {"pidof sshd || pidof dropbear >/dev/null && ls /etc/ssh", "ls: cannot access '/etc/ssh': No such file or directory\n"},
		"hidden":   {"command -v cat tac; ls /etc/services", "ls: cannot access '/etc/services': No such file or directory\n"},
	} {
		text, _ := session(t, f.Host(name), check.command)
		if text != check.want {
			t.Errorf("%s: got %q, want %q", name, text, check.want)
		}
	}
	conn, err := exec.Command("ssh-keyscan", "-t", "ed25519", strings.TrimSuffix(f.Host("dropbear").Addr(), ":22")).CombinedOutput()
	if err != nil || !strings.Contains(string(conn), "SSH-2.0-dropbear") {
		t.Errorf("dropbear: %v: %s", err, conn)
	}
	if err := f.Host("dropbear").Reload(t.Context()); !errors.Is(err, testenv.ErrUnsupported) {
		t.Errorf("reloading dropbear: got error %v, want ErrUnsupported", err)
	}
	if err := f.Host("dropbear").Restart(t.Context()); err != nil {
		t.Error(err)
	}
	login(t, f.Host("dropbear"))
}

func TestNamespacedFullDisk(t *testing.T) {
	t.Parallel()
	f := fleettest.StartNamespaced(t, testenv.Config{Host: testenv.HostConfig{System: testenv.System{DiskMiB: 8}}})
	h := f.Hosts()[0]
	for _, c := range []struct{ full, other string }{{"/etc", "/home"}, {"/home", "/etc"}} {
		if err := h.FillDisk(c.full); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Exec(t.Context(), "cp", "/etc/hostname", c.full+"/full"); err == nil || !strings.Contains(err.Error(), "No space left") {
			t.Errorf("writing to the full %s: got error %v", c.full, err)
		}
		must(t, h, "cp", "/etc/hostname", c.other+"/file")
		login(t, h)
		if err := h.FreeDisk(c.full); err != nil {
			t.Fatal(err)
		}
		must(t, h, "cp", "/etc/hostname", c.full+"/file")
	}
	if err := h.FillDisk("/usr"); !errors.Is(err, testenv.ErrUnsupported) {
		t.Errorf("filling /usr: got error %v, want ErrUnsupported", err)
	}
}

func TestNamespacedPartition(t *testing.T) {
	t.Parallel()
	f := fleettest.StartNamespaced(t, testenv.Config{Hosts: 2})
	h := f.Hosts()[0]
	if err := h.Partition(t.Context()); err != nil {
		t.Fatal(err)
	}
	if text, err := session(t, h, "true", "-o", "ConnectTimeout=1"); err == nil || strings.Contains(text, "refused") {
		t.Errorf("logging in to a host that is cut off: %v: %s", err, text)
	}
	login(t, f.Hosts()[1])
	must(t, h, "true") // the console needs no network
	if err := h.Heal(t.Context()); err != nil {
		t.Fatal(err)
	}
	login(t, h)
	// From host to host, as jump hosts need it.
	if err := os.WriteFile(h.File("/root/key"), read(t, f.ClientKey()), 0o600); err != nil {
		t.Fatal(err)
	}
	to, _, _ := strings.Cut(f.Hosts()[1].Addr(), ":")
	if got := must(t, h, "ssh", "-i", "/root/key", "-o", "StrictHostKeyChecking=accept-new", "admin@"+to, "hostname"); got != "host2" {
		t.Errorf("from host to host: got %q", got)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestNamespacedDelay(t *testing.T) {
	t.Parallel()
	f := fleettest.StartNamespaced(t, testenv.Config{})
	h := f.Hosts()[0]
	err := h.Delay(t.Context(), 20*time.Millisecond)
	if errors.Is(err, testenv.ErrUnsupported) {
		if !strings.Contains(err.Error(), "sch_netem") {
			t.Errorf("the error doesn't say what is missing: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	login(t, h)
	if took := time.Since(before); took < 100*time.Millisecond {
		t.Errorf("a login over five round trips and more of 20 ms took %v", took)
	}
}
