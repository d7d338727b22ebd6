package remote

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/testenv"
	"github.com/fleetca/fleetca/testenv/fleettest"
)

func TestAcceptNew(t *testing.T) {
	f := fleettest.Start(t, testenv.Config{Hosts: 6})
	folder := t.TempDir()
	known := filepath.Join(folder, "new", "known_hosts")
	config := "IdentityAgent none\nIdentityFile " + f.ClientKey() + "\nUserKnownHostsFile " + known + "\n"
	// Two programs at once, and a file whose last line isn't ended.
	if err := os.Mkdir(filepath.Dir(known), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(known, []byte("# my hosts"), 0o600); err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	for range 2 {
		d := newDialer(t, Config{AcceptNewHostKeys: true}, config)
		for _, h := range f.Hosts() {
			running.Go(func() {
				c, err := d.Dial(t.Context(), of(t, h, nil), Options{})
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.Close()
			})
		}
	}
	running.Wait()
	data, err := os.ReadFile(known)
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(strings.TrimSpace(string(data)), "\n"); len(lines) != 7 || lines[0] != "# my hosts" {
		t.Errorf("%d lines:\n%s", len(lines), data)
	}
	// Now strictly, by us and by ssh itself.
	d := newDialer(t, Config{}, "StrictHostKeyChecking yes\n"+config)
	for _, h := range f.Hosts() {
		dial(t, d, of(t, h, nil))
		address, port, _ := net.SplitHostPort(h.Addr())
		command(t, "ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile="+known,
			"-o", "GlobalKnownHostsFile=none", "-i", f.ClientKey(), "-l", h.Login(), "-p", port, address, "true")
	}
	// A changed key is refused, whatever was said.
	addr, _ := serve(t, &ssh.ServerConfig{NoClientAuth: true}, nil)
	_, port, _ := net.SplitHostPort(addr)
	stranger := authorized(f.Hosts()[0].PublicKeys()[0])
	changed := writeTemp(t, "known_hosts", "[127.0.0.1]:"+port+" "+stranger+"\n")
	for _, strict := range []string{"ask", "no", "accept-new"} {
		d := newDialer(t, Config{AcceptNewHostKeys: true}, "StrictHostKeyChecking "+strict+"\nIdentityAgent none\nUserKnownHostsFile "+changed)
		_, err := d.Dial(t.Context(), at(t, "x", "u", addr, nil), Options{})
		var refusal *HostKeyError
		if !errors.As(err, &refusal) || refusal.Reason != HostKeyChanged || len(refusal.Known) != 1 || refusal.Known[0] != changed+":1" {
			t.Errorf("changed key, StrictHostKeyChecking %s: %v", strict, err)
		}
	}
}

func TestAcceptNewHashed(t *testing.T) {
	f := fleettest.Start(t, testenv.Config{})
	known := filepath.Join(t.TempDir(), "known_hosts")
	d := newDialer(t, Config{}, "HashKnownHosts yes\nStrictHostKeyChecking accept-new\nIdentityAgent none\nIdentityFile "+f.ClientKey()+"\nUserKnownHostsFile "+known)
	h := f.Hosts()[0]
	dial(t, d, of(t, h, nil))
	data, err := os.ReadFile(known)
	if err != nil || !strings.HasPrefix(string(data), "|1|") {
		t.Errorf("%q, %v", data, err)
	}
	_, port, _ := net.SplitHostPort(h.Addr())
	if out := command(t, "ssh-keygen", "-F", "[127.0.0.1]:"+port, "-f", known); !strings.Contains(out, "found") {
		t.Errorf("ssh-keygen finds nothing: %s", out)
	}
	if info, err := os.Stat(known); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// TestUnknownKeys holds which values of StrictHostKeyChecking let in a host that
// nothing is known of.
func TestUnknownKeys(t *testing.T) {
	f := fleettest.Start(t, testenv.Config{})
	for strict, accepted := range map[string]bool{"yes": false, "ask": false, "no": false, "off": false, "accept-new": true} {
		known := filepath.Join(t.TempDir(), "known_hosts")
		d := newDialer(t, Config{}, "StrictHostKeyChecking "+strict+"\nIdentityAgent none\nIdentityFile "+f.ClientKey()+"\nUserKnownHostsFile "+known)
		c, err := d.Dial(t.Context(), of(t, f.Hosts()[0], nil), Options{})
		if err == nil {
			_ = c.Close()
		}
		var refusal *HostKeyError
		if unknown := errors.As(err, &refusal) && refusal.Reason == HostKeyUnknown; accepted != (err == nil) || accepted == unknown {
			t.Errorf("StrictHostKeyChecking %s: %v", strict, err)
		}
		if _, err := os.Stat(known); accepted != (err == nil) {
			t.Errorf("StrictHostKeyChecking %s: known_hosts: %v", strict, err)
		}
	}
}

// TestNeverBlindly holds that a new key is refused if it can't be remembered.
func TestNeverBlindly(t *testing.T) {
	f := fleettest.Start(t, testenv.Config{})
	for _, files := range []string{"none", "/dev/null"} {
		d := newDialer(t, Config{AcceptNewHostKeys: true}, "StrictHostKeyChecking no\nIdentityAgent none\nIdentityFile "+f.ClientKey()+"\nUserKnownHostsFile "+files)
		_, err := d.Dial(t.Context(), of(t, f.Hosts()[0], nil), Options{})
		var refusal *HostKeyError
		if !errors.As(err, &refusal) || refusal.Reason != HostKeyNotRecorded {
			t.Errorf("%s: %v", files, err)
		}
	}
}

// TestChoose holds what is made of ssh_config's algorithm lists.
func TestChoose(t *testing.T) {
	ours := []string{"a1", "a2", "b1"}
	for _, tt := range []struct{ wanted, want string }{
		{"", "a1 a2 b1"},
		{"b1,a1", "a1 b1"},
		{"a*", "a1 a2"},
		{"+old", "a1 a2 b1"},
		{"-a*", "b1"},
		{"^b1,old", "b1 a1 a2"},
		{"old", ""},
	} {
		if got := strings.Join(choose(tt.wanted, ours), " "); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.wanted, got, tt.want)
		}
	}
}
