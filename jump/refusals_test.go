package jump_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/jump/access"
	"github.com/fleetca/fleetca/jump/config"
	"github.com/fleetca/fleetca/testenv"
)

// TestNotLetIn: whoever has no good certificate reads why, on the own terminal,
// and it stands in the audit.
func TestNotLetIn(t *testing.T) {
	other := newAuthority(t)
	w := newWorld(t, worldConfig{})
	option := func(name, value string) func(*ssh.Certificate) {
		return func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{name: value} }
	}
	hour := func(from, to time.Duration) func(*ssh.Certificate) {
		return func(c *ssh.Certificate) {
			c.ValidAfter = uint64(time.Now().Add(from).Unix())
			c.ValidBefore = uint64(time.Now().Add(to).Unix())
		}
	}
	for _, c := range []struct {
		name   string
		person personConfig
		says   string
	}{
		{"plain key", personConfig{plain: true}, "user certificates only"},
		{"other CA", personConfig{ca: &other}, "not signed by a trusted authority"},
		{"expired", personConfig{change: hour(-2*time.Hour, -time.Hour)}, "expired"},
		{"not yet valid", personConfig{change: hour(time.Hour, 2*time.Hour)}, "not yet valid"},
		{"host certificate", personConfig{change: func(c *ssh.Certificate) { c.CertType, c.Extensions = ssh.HostCert, nil }}, ""},
		{"no principals", personConfig{change: func(c *ssh.Certificate) { c.ValidPrincipals = nil }}, "no principals"},
		{"wildcard principal", personConfig{principals: []string{"*"}}, "is refused"},
		{"unknown critical option", personConfig{change: option("verify-required", "")}, "verify-required"},
		{"source address", personConfig{change: option("source-address", "192.0.2.0/24")}, "not valid from 127.0.0.1"},
		{"no key ID", personConfig{change: func(c *ssh.Certificate) { c.KeyId = "" }}, "no key ID"},
		{"key ID with an escape", personConfig{identity: "joe\x1b[31m"}, "can't be an identity"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := w.person(c.person)
			before := len(w.events("auth"))
			for name, way := range p.ways() {
				r := p.run(p.ssh(append(way("web1"), "true")...))
				if r.code != 255 || !strings.Contains(r.stderr, c.says) || r.stdout != "" {
					t.Errorf("%s: got %+v, want %q", name, r, c.says)
				}
				if strings.Contains(r.stderr, "\x1b") {
					t.Errorf("%s: an escape sequence reached the terminal: %q", name, r.stderr)
				}
			}
			w.eventually("each is in the audit", func() bool { return len(w.events("auth")) >= before+4 })
			for _, e := range w.events("auth")[before:] {
				if e.Success == nil || *e.Success || e.Error == "" || e.Code == "" {
					t.Errorf("audit: %s", e.Line)
				}
			}
		})
	}
	if n := len(w.events("session.start")); n != 0 {
		t.Errorf("%d sessions began", n)
	}
}

// TestAgentRefusals: what is wrong with the agent is said, with what to do.
func TestAgentRefusals(t *testing.T) {
	w := newWorld(t, worldConfig{})
	check := func(t *testing.T, r result, says ...string) {
		t.Helper()
		for _, s := range says {
			if !strings.Contains(r.stderr, s) {
				t.Errorf("stderr %q, want %q", r.stderr, s)
			}
		}
		if r.code != 255 || r.stdout != "" {
			t.Errorf("got %+v", r)
		}
	}
	good := w.person(personConfig{})
	check(t, good.run(good.ssh("-o", good.proxyCommand(""), "web1", "true")), "no agent was forwarded", "hint: add -A to the ssh of the ProxyCommand")
	check(t, good.run(good.ssh("-J", "jump", "web1", "true")), "no agent was forwarded", "hint: ssh -A -J")
	check(t, good.run(good.ssh(w.login+"%web1@jump", "true")), "no agent was forwarded", "hint: ssh -A")

	keyOnly := w.person(personConfig{keyOnly: true})
	empty := w.person(personConfig{noAgent: true})
	for name := range good.ways() {
		t.Run(name, func(t *testing.T) {
			check(t, keyOnly.run(keyOnly.ssh(append(keyOnly.ways()[name]("web1"), "true")...)), "holds the certificate's key", "hint: load the certificate too", "GNOME Keyring")
			check(t, empty.run(empty.ssh(append(empty.ways()[name]("web1"), "true")...)), "hint: load it with ssh-add")
		})
	}
}

// TestDestinations: only names of the inventory lead anywhere, in any case.
func TestDestinations(t *testing.T) {
	w := newWorld(t, worldConfig{vars: func(h *testenv.Host) map[string]any {
		return map[string]any{"fleetca_principals": []string{"both"}}
	}, principals: map[string][]string{"web1": {"web1", "both"}, "web2": {"web2", "both"}}})
	p := w.person(personConfig{extra: "CanonicalizeHostname no"})
	port := strings.Split(w.fleet.Host("web1").Addr(), ":")[1]
	for _, c := range []struct{ host, port, says string }{
		{"web1", port, ""},
		{"WEB1", port, ""},
		{"web1", "22", `port 22 of host "web1" is not in the inventory`},
		{"web9", "22", `host "web9" is not in the inventory`},
		{"127.0.0.1", port, "is an address"},
		{"::1", port, "is an address"},
		{"0x7f000001", port, "is an address"},
		{"both", "", `"both" is ambiguous: it may be any of ["web1" "web2"]`},
	} {
		t.Run(c.host+" "+c.port, func(t *testing.T) {
			args := []string{"-s", "jump", "proxy:" + c.host + ":" + c.port}
			if c.port == "" {
				args[2] = "proxy:" + c.host
			}
			cmd := p.ssh(append([]string{"-A"}, args...)...)
			cmd.Stdin = strings.NewReader("GET / HTTP/1.0\r\n\r\n")
			r := p.run(cmd)
			if c.says != "" && !strings.Contains(r.stderr, c.says) || r.code == 0 {
				t.Errorf("got %+v, want %q", r, c.says)
			}
			if c.says == "" && c.host[0] == 'w' && !strings.Contains(strings.ToLower(r.stderr), "not ssh") {
				t.Errorf("got %+v: what isn't SSH was taken", r)
			}
		})
	}
	r := p.run(p.ssh("-A", "-s", "jump", "proxy:web1:"+port+"@elsewhere"))
	if !strings.Contains(r.stderr, `no cluster "elsewhere"`) {
		t.Errorf("got %+v", r)
	}
	// By direct-tcpip there is only the rejection's text.
	r = p.run(p.ssh("-A", "-J", "jump", "-p", "22", "web9", "true"))
	if !strings.Contains(r.stderr, "web9") || !strings.Contains(r.stderr, "inventory") {
		t.Errorf("got %+v", r)
	}
	r = p.run(p.ssh("-A", "-o", "HostKeyAlias=web1", "-J", "jump", "-p", port, "WEB1", "echo yes"))
	if r.stdout != "yes\n" {
		t.Errorf("upper case: got %+v", r)
	}
	if n := len(w.events("session.reject")); n < 7 {
		t.Errorf("%d session.reject events", n)
	}
}

// TestNotPermitted: rules bind on every way in, and the person reads which.
func TestNotPermitted(t *testing.T) {
	role := openRole()
	role.Identities = []string{"joe"}
	role.Hosts = func(h string) bool { return h == "web1" }
	role.Permit = []access.Action{access.Exec}
	w := newWorld(t, worldConfig{roles: []access.Role{role}})
	joe, ann := w.person(personConfig{}), w.person(personConfig{identity: "ann"})
	stranger := w.person(personConfig{principals: []string{"somebody"}})
	n := 0
	for name := range joe.ways() {
		t.Run(name, func(t *testing.T) {
			for what, c := range map[string]struct {
				p    *client
				host string
				args []string
				says string
			}{
				"other host":      {joe, "web2", []string{"true"}, "web2"},
				"other person":    {ann, "web1", []string{"true"}, "ann"},
				"other principal": {stranger, "web1", []string{"true"}, "principal"},
				"shell":           {joe, "web1", nil, "shell"},
				"sftp":            {joe, "web1", []string{"sftp"}, "sftp"},
			} {
				args := append(c.p.ways()[name](c.host), c.args...)
				if what == "sftp" {
					args = append([]string{"-s"}, args...)
				}
				r := c.p.run(c.p.ssh(args...))
				if !strings.Contains(r.stderr, c.says) || r.code != 255 || r.stdout != "" {
					t.Errorf("%s: got %+v, want %q", what, r, c.says)
				}
				n++
				w.eventually("each refusal is in the audit", func() bool { return len(w.events("session.reject")) >= n })
				if got := len(w.events("session.reject")); got != n {
					t.Errorf("%s: %d session.reject events, want %d", what, got, n)
				}
			}
			if r := joe.run(joe.ssh(append(joe.ways()[name]("web1"), "echo fine")...)); r.stdout != "fine\n" {
				t.Errorf("got %+v", r)
			}
		})
	}
}

// TestHostsRefused: a host that can't prove itself is told apart on the person's
// terminal.
func TestHostsRefused(t *testing.T) {
	other := newAuthority(t)
	w := newWorld(t, worldConfig{
		hosts: []string{"plain", "otherca", "wrongname", "expired", "down", "good"},
		certify: func(w *world, name string, key ssh.PublicKey) *ssh.Certificate {
			switch name {
			case "plain":
				return nil
			case "otherca":
				return other.sign(t, key, ssh.HostCert, name, []string{name}, nil)
			case "wrongname":
				return w.hostCA.sign(t, key, ssh.HostCert, name, []string{"good"}, nil)
			case "expired":
				return w.hostCA.sign(t, key, ssh.HostCert, name, []string{name}, func(c *ssh.Certificate) {
					c.ValidBefore = uint64(time.Now().Add(-time.Second).Unix())
				})
			}
			return w.hostCA.sign(t, key, ssh.HostCert, name, []string{name}, nil)
		},
		settings: func(c *config.Config) { c.DialTimeout = 3 * time.Second },
	})
	if err := w.fleet.Host("down").Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	p := w.person(personConfig{})
	for name, way := range p.ways() {
		t.Run(name, func(t *testing.T) {
			for host, says := range map[string]string{
				"plain":     "ssh: handshake failed: remote host presented a public key, expected a host certificate",
				"otherca":   "its certificate is not signed by a trusted host CA but by " + ssh.FingerprintSHA256(other.PublicKey()),
				"wrongname": `its certificate is not for "wrongname" but for "good"`,
				"expired":   "its certificate has expired",
				"down":      "connecting to down (" + w.fleet.Host("down").Addr() + "): ",
			} {
				r := p.run(p.ssh(append(way(host), "true")...))
				if r.code != 255 || !strings.Contains(r.stderr, says) || !strings.Contains(r.stderr, "hint: ") {
					t.Errorf("%s: got %+v, want %q", host, r, says)
				}
			}
		})
	}
}
