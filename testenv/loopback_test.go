//go:build linux

package testenv_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fleetca/fleetca/testenv"
	"github.com/fleetca/fleetca/testenv/fleettest"
)

// session runs a command on the host by the plain ssh client.
func session(t *testing.T, h *testenv.Host, command string, options ...string) (string, error) {
	t.Helper()
	c, err := h.SSH(t.Context(), options...)
	if err != nil {
		t.Fatal(err)
	}
	c.Args = append(c.Args, command)
	text, err := c.CombinedOutput()
	return string(text), err
}

func login(t *testing.T, h *testenv.Host, options ...string) {
	t.Helper()
	text, err := session(t, h, "echo in $HOME", options...)
	if err != nil {
		t.Fatalf("logging in to %s: %v\n%s", h.Name(), err, text)
	}
	if want := "in " + h.Home() + "\n"; text != want {
		t.Fatalf("logging in to %s: got %q, want %q", h.Name(), text, want)
	}
}

func refused(t *testing.T, h *testenv.Host, reason string) {
	t.Helper()
	text, err := session(t, h, "true")
	if err == nil || !strings.Contains(text, reason) {
		t.Fatalf("logging in to %s: got error %v and %q, want %q", h.Name(), err, text, reason)
	}
}

// until waits for a condition that nothing announces.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !condition() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func TestLogin(t *testing.T) {
	t.Parallel()
	f := fleettest.Start(t, testenv.Config{Names: []string{"web[01:03]", "db"}})
	for _, h := range f.Hosts() {
		login(t, h)
		if len(h.PublicKeys()) != 3 {
			t.Errorf("%s has %d host keys, want 3", h.Name(), len(h.PublicKeys()))
		}
		if !strings.Contains(h.Log(), "Accepted publickey for "+h.Login()) {
			t.Errorf("the log of %s doesn't tell of the login:\n%s", h.Name(), h.Log())
		}
	}
	// By address and by name, with a known_hosts of the whole fleet.
	known := filepath.Join(t.TempDir(), "known_hosts")
	if err := f.KnownHosts(known); err != nil {
		t.Fatal(err)
	}
	login(t, f.Host("db"), "-o", "UserKnownHostsFile="+known)
	login(t, f.Host("db"), "-o", "UserKnownHostsFile="+known, "-o", "HostKeyAlias="+"["+strings.Replace(f.Host("db").Addr(), ":", "]:", 1))
}

func TestNothingIsIgnoredInSessions(t *testing.T) {
	t.Parallel()
	f := fleettest.Start(t, testenv.Config{})
	text, err := session(t, f.Hosts()[0], "grep SigIgn /proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	// A shell can't trap a signal that it was started with as ignored.
	if !noneIgnored(text) {
		t.Errorf("sessions start with ignored signals: %s", text)
	}
}

// noneIgnored reads the line of /proc/PID/status about ignored signals. Signals
// 32 and 33 are the C library's own: its posix_spawn, which make uses, leaves
// them ignored, and no program can name them.
func noneIgnored(row string) bool {
	mask, ok := strings.CutPrefix(strings.TrimSpace(row), "SigIgn:")
	if !ok {
		return false
	}
	ignored, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
	const ofTheLibrary = 1<<31 | 1<<32
	return err == nil && ignored&^ofTheLibrary == 0
}

func TestDistinctKeys(t *testing.T) {
	t.Parallel()
	f := fleettest.Start(t, testenv.Config{Hosts: 8, Host: testenv.HostConfig{KeyTypes: []string{testenv.Ed25519, testenv.ECDSA}}})
	seen := map[string]string{}
	for _, h := range f.Hosts() {
		for _, k := range h.PublicKeys() {
			if other := seen[string(k.Marshal())]; other != "" {
				t.Errorf("%s and %s have the same %s key", h.Name(), other, k.Type())
			}
			seen[string(k.Marshal())] = h.Name()
		}
	}
	if len(seen) != 16 {
		t.Errorf("got %d keys, want 16", len(seen))
	}
}

func TestReload(t *testing.T) {
	t.Parallel()
	f := fleettest.Start(t, testenv.Config{})
	h := f.Hosts()[0]
	dropIn := filepath.Join(filepath.Dir(h.ConfigPath()), "sshd_config.d", "10-test.conf")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(dropIn, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("DenyUsers *\n")
	login(t, h)
	if err := h.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	refused(t, h, "Permission denied")
	if err := os.Remove(dropIn); err != nil {
		t.Fatal(err)
	}
	if err := h.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	login(t, h)

	write("NoSuchOption yes\n")
	err := h.Reload(t.Context())
	if err == nil || !strings.Contains(err.Error(), "Bad configuration option: NoSuchOption") {
		t.Fatalf("reloading a bad configuration: got %v, want an error with the end of the log", err)
	}
	if err := h.Start(t.Context()); err == nil {
		t.Fatal("started with a bad configuration")
	}
	refused(t, h, "Connection refused")
	write("")
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	login(t, h)
	if err := h.Start(t.Context()); err == nil {
		t.Fatal("started a server that is running")
	}
}

func TestStopAndKill(t *testing.T) {
	t.Parallel()
	f := fleettest.Start(t, testenv.Config{Hosts: 2})
	h, other := f.Hosts()[0], f.Hosts()[1]
	long, err := h.SSH(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	long.Args = append(long.Args, "exec cat")
	in, err := long.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := long.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := long.Start(); err != nil {
		t.Fatal(err)
	}
	echo := func() error {
		if _, err := in.Write([]byte("x")); err != nil {
			return err
		}
		_, err := out.Read(make([]byte, 1))
		return err
	}
	if err := echo(); err != nil {
		t.Fatal(err)
	}
	background := func(h *testenv.Host, mark string) {
		if _, err := session(t, h, "setsid sleep "+mark+" >/dev/null 2>&1 </dev/null &"); err != nil {
			t.Fatal(err)
		}
	}
	mark, otherMark := newMark(), newMark()
	background(h, mark)
	background(other, otherMark)

	if err := h.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h.Stop(t.Context()); err != nil {
		t.Fatalf("stopping again: %v", err)
	}
	refused(t, h, "Connection refused")
	if err := echo(); err != nil {
		t.Fatalf("a session didn't live on after Stop: %v", err)
	}
	if err := h.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := long.Wait(); err == nil {
		t.Fatal("a session lived on after Kill")
	}
	until(t, "the end of what sessions left", func() bool { return !sleeps(mark) })
	if !sleeps(otherMark) {
		t.Error("Kill of a host ended a process of another")
	}
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	login(t, h)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if sleeps(otherMark) {
		t.Error("Close left a process that a session had put in the background")
	}
}

// newMark returns a number of seconds to sleep, by which one process is found.
// These tests also run within themselves, so it differs from run to run.
func newMark() string { return fmt.Sprintf("12345.%09d", rand.N(1_000_000_000)) }

// sleeps says whether a process runs sleep with that argument.
func sleeps(argument string) bool {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		if text, err := os.ReadFile(f); err == nil && string(text) == "sleep\x00"+argument+"\x00" {
			return true
		}
	}
	return false
}

func TestConfigLines(t *testing.T) {
	t.Parallel()
	f := fleettest.Start(t, testenv.Config{
		Names: []string{"plain", "changed"},
		PerHost: func(name string, h *testenv.HostConfig) {
			if name == "changed" {
				*h = testenv.HostConfig{
					Top: "PrintMotd yes", Bottom: "Match User nobody\n  X11Forwarding no\n", NoDropIns: true,
					SFTP: testenv.NoSFTP, MaxStartups: "5:10:20", LogLevel: "ERROR", KeyTypes: []string{testenv.Ed25519},
				}
			}
		},
	})
	for _, h := range f.Hosts() {
		login(t, h)
		text, err := os.ReadFile(h.ConfigPath())
		if err != nil {
			t.Fatal(err)
		}
		effective, err := exec.Command("/usr/sbin/sshd", "-T", "-f", h.ConfigPath()).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, effective)
		}
		changed := h.Name() == "changed"
		for want, in := range map[string]bool{
			"\nmaxstartups 5:10:20\n": changed,
			"\nloglevel ERROR\n":      changed,
			"\nsubsystem sftp ":       !changed,
			"\nprintmotd yes\n":       changed,
		} {
			if strings.Contains(string(effective), want) != in {
				t.Errorf("%s: effective configuration has %q: %v, want %v", h.Name(), want, !in, in)
			}
		}
		if has := strings.HasPrefix(string(text), "Include "); has == changed {
			t.Errorf("%s: sshd_config begins with Include: %v", h.Name(), has)
		}
		if _, err := os.Stat(filepath.Join(filepath.Dir(h.ConfigPath()), "sshd_config.d")); (err == nil) == changed {
			t.Errorf("%s: drop-in folder: %v", h.Name(), err)
		}
	}
}

func TestSFTP(t *testing.T) {
	t.Parallel()
	f := fleettest.Start(t, testenv.Config{Names: []string{"with", "without"}, PerHost: func(name string, h *testenv.HostConfig) {
		if name == "without" {
			h.SFTP = testenv.NoSFTP
		}
	}})
	for name, works := range map[string]bool{"with": true, "without": false} {
		c, err := f.Host(name).SSH(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		// sftp takes the same options but for the name of the port's and login's.
		args := append([]string{"-b", "-"}, c.Args[1:]...)
		for i, a := range args {
			switch a {
			case "-p":
				args[i] = "-P"
			case "-l":
				args[i], args[i+1] = "-o", "User="+args[i+1]
			}
		}
		c = exec.CommandContext(t.Context(), "sftp", args...)
		c.Stdin = strings.NewReader("pwd\n")
		text, err := c.CombinedOutput()
		if (err == nil) != works {
			t.Errorf("sftp to host %s sftp: %v\n%s", name, err, text)
		}
		if works && !strings.Contains(string(text), f.Host(name).Home()) {
			t.Errorf("sftp doesn't start in the host's home %q: %s", f.Host(name).Home(), text)
		}
	}
}

func TestHundred(t *testing.T) {
	before := time.Now()
	f := fleettest.Start(t, testenv.Config{Hosts: 100})
	t.Logf("%d hosts started in %v", len(f.Hosts()), time.Since(before).Round(time.Millisecond))
	login(t, f.Host("host100"))
	before = time.Now()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("ended in %v", time.Since(before).Round(time.Millisecond))
}

func TestRefusedConfigs(t *testing.T) {
	t.Parallel()
	for want, config := range map[string]testenv.Config{
		`config.Hosts is -1`:                  {Hosts: -1},
		`both Names and Hosts`:                {Hosts: 1, Names: []string{"a"}},
		`host "a" twice`:                      {Names: []string{"a", "a"}},
		`host "Web": not a host name`:         {Names: []string{"Web"}},
		`host "a_1": not a host name`:         {Names: []string{"a_[1:2]"}},
		`names no host`:                       {Names: []string{"a[2:1]"}},
		`unknown key type "dsa"`:              {Host: testenv.HostConfig{KeyTypes: []string{"dsa"}}},
		`unknown login "bob"`:                 {Host: testenv.HostConfig{System: testenv.System{Login: "bob"}}},
		`config.System is for namespaced`:     {Host: testenv.HostConfig{System: testenv.System{NoSudo: true}}},
		`no such file or directory`:           {Parent: "/nonexistent"},
		`Bad configuration option: NoSuchKey`: {Host: testenv.HostConfig{Top: "NoSuchKey 1"}},
	} {
		f, err := testenv.Start(t.Context(), config)
		if err == nil {
			t.Errorf("%+v: started", config)
			if err := f.Close(); err != nil {
				t.Error(err)
			}
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got error %q, want it to hold %q", config, err, want)
		}
	}
}

func TestUnprivilegedHostsRefuseWhatTheyCannot(t *testing.T) {
	t.Parallel()
	f := fleettest.Start(t, testenv.Config{})
	h := f.Hosts()[0]
	_, execErr := h.Exec(t.Context(), "true")
	for what, err := range map[string]error{
		"Exec": execErr, "Partition": h.Partition(t.Context()), "Heal": h.Heal(t.Context()),
		"Delay": h.Delay(t.Context(), time.Second), "FillDisk": h.FillDisk("/etc"), "FreeDisk": h.FreeDisk("/etc"),
	} {
		if !errors.Is(err, testenv.ErrUnsupported) {
			t.Errorf("%s: got error %v, want ErrUnsupported", what, err)
		}
	}
	if h.File("/x") != "/x" {
		t.Errorf("File: got %q", h.File("/x"))
	}
}

func TestCanceledStart(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	parent := t.TempDir()
	if _, err := testenv.Start(ctx, testenv.Config{Parent: parent}); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want %v", err, context.Canceled)
	}
	if left, _ := os.ReadDir(parent); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
