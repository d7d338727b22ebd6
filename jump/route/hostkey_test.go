package route

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/inventory"
	"github.com/fleetca/fleetca/testenv"
	"github.com/fleetca/fleetca/testenv/fleettest"
)

// TestHostCertificates holds what a real sshd must show to be taken for the host
// asked for.
func TestHostCertificates(t *testing.T) {
	hostCA, otherCA, userCA := newKey(t), newKey(t), newKey(t)
	keys := map[string]*keyPair{}
	show := func(name, names string, ca ssh.Signer, changes ...func(*ssh.Certificate)) {
		keys[name] = newKey(t)
		keys[name].certify(t, ca, ssh.HostCert, names, changes...)
	}
	show("good", "good,alias", hostCA)
	show("capitals", "CAPITALS", hostCA)
	show("other-ca", "other-ca", otherCA)
	show("wrong-name", "right,127.0.0.1", hostCA)
	show("expired", "expired", hostCA, valid(-2*time.Hour, -time.Hour))
	show("future", "future", hostCA, valid(time.Hour, 2*time.Hour))
	show("revoked", "revoked", hostCA)
	show("revoked-line", "revoked-line", hostCA)
	show("no-principals", "", hostCA)
	show("star", "*", hostCA)
	show("option", "option", hostCA, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"x": "y"} })
	rsaKey := newRSAKey(t, 2048)
	rsaKey.certify(t, hostCA, ssh.HostCert, "rsa")
	keys["rsa"] = rsaKey
	both := newKey(t) // shown before the good one, of another type
	both.certify(t, otherCA, ssh.HostCert, "two")
	second := newRSAKey(t, 2048)
	second.certify(t, hostCA, ssh.HostCert, "two")

	names := []string{"plain", "two"}
	for name := range keys {
		names = append(names, name)
	}
	trusting := "TrustedUserCAKeys " + userCA.path + ".pub\n"
	f := fleettest.Start(t, testenv.Config{Names: names, PerHost: func(name string, h *testenv.HostConfig) {
		h.Top = trusting
		switch {
		case name == "two":
			h.Top += certifiedHost(both) + certifiedHost(second)
		case keys[name] != nil:
			h.Top += certifiedHost(keys[name])
		}
	}})
	hosts := map[string]map[string]any{}
	for _, h := range f.Hosts() {
		hosts[h.Name()] = at(t, h.Addr())
	}
	hosts["good"]["fleetca_principals"] = []any{"alias", "stranger"}
	r := newRouter(t, Config{
		Inventory: fleetOf(t, hosts), HostCAs: []ssh.PublicKey{hostCA.PublicKey()},
		Revoked: func(key ssh.PublicKey) bool {
			return ssh.FingerprintSHA256(key) == ssh.FingerprintSHA256(keys["revoked"].PublicKey())
		},
		KnownHosts: []string{writeTemp(t, "known_hosts", "@revoked * "+keys["revoked-line"].line()+"\n")},
	})
	login := f.Hosts()[0].Login()
	signer := user(t, userCA, login)
	for _, tt := range []struct {
		name    string
		problem Problem // "" if accepted
		text    string
	}{
		{"good", "", ""},
		{"GOOD.", "", ""},
		{"alias", "", ""},
		{"stranger", WrongName, `host key of good: its certificate is not for "stranger" but for "good,alias", it showed ssh-ed25519 SHA256:`},
		{"capitals", "", ""},
		{"rsa", "", ""},
		{"two", "", ""},
		{"plain", PlainKey, "ssh: handshake failed: remote host presented a public key, expected a host certificate"},
		{"other-ca", OtherCA, "host key of other-ca: its certificate is not signed by a trusted host CA but by " + ssh.FingerprintSHA256(otherCA.PublicKey())},
		{"wrong-name", WrongName, `its certificate is not for "wrong-name" but for "right,127.0.0.1"`},
		{"expired", Expired, "its certificate has expired on 20"},
		{"future", NotYetValid, "its certificate is not valid before 20"},
		{"revoked", Revoked, "its key or certificate is revoked"},
		{"revoked-line", Revoked, "its key or certificate is revoked (/"},
		{"no-principals", Invalid, "it has no principals"},
		{"star", Invalid, `its principal "*" is refused`},
		{"option", Invalid, `critical option "x" can't be honoured`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u, err := r.Dial(t.Context(), resolve(t, r, tt.name), login, signer, nil)
			if tt.problem == "" {
				if err != nil {
					t.Fatal(err)
				}
				if _, ok := u.HostKey.(*ssh.Certificate); !ok {
					t.Errorf("showed a %T", u.HostKey)
				}
				if got := run(t, u, "echo hello"); got != "hello\n" {
					t.Errorf("got %q", got)
				}
				if err := u.Conn.Close(); err != nil {
					t.Error(err)
				}
				return
			}
			var refusal *HostKeyError
			if !errors.As(err, &refusal) || refusal.Problem != tt.problem || !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("got %v, want %s: %s", err, tt.problem, tt.text)
			}
			if tt.problem == PlainKey && err.Error() != tt.text {
				t.Errorf("got %q", err)
			}
		})
	}
	// Nobody is trusted unless somebody is named.
	none := routerFor(t, Config{}, f, nil)
	var refusal *HostKeyError
	if _, err := none.Dial(t.Context(), resolve(t, none, "good"), login, signer, nil); !errors.As(err, &refusal) || refusal.Problem != OtherCA {
		t.Errorf("without a host CA: %v", err)
	}
	if _, err := New(Config{Inventory: fleetOf(t, hosts), HostCAs: []ssh.PublicKey{user(t, hostCA, "x").PublicKey()}}); err == nil {
		t.Error("a certificate is taken for a CA")
	}
}

// TestKnownHosts holds what counts where no certificate is required.
func TestKnownHosts(t *testing.T) {
	hostCA, otherCA, userCA := newKey(t), newKey(t), newKey(t)
	certified, foreign := newKey(t), newKey(t)
	certified.certify(t, hostCA, ssh.HostCert, "certified")
	foreign.certify(t, otherCA, ssh.HostCert, "foreign")
	f := fleettest.Start(t, testenv.Config{Names: []string{"plain", "certified", "foreign"}, PerHost: func(name string, h *testenv.HostConfig) {
		h.Top = "TrustedUserCAKeys " + userCA.path + ".pub\n"
		switch name {
		case "certified":
			h.Top += certifiedHost(certified)
		case "foreign":
			h.Top += certifiedHost(foreign)
		}
	}})
	plain := map[string]string{}
	for _, k := range f.Host("plain").PublicKeys() {
		plain[k.Type()] = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k)))
	}
	login := f.Hosts()[0].Login()
	signer := user(t, userCA, login)
	wrong := newKey(t).line()
	for _, tt := range []struct {
		name, host, known string
		required          bool
		problem           Problem
	}{
		{"known", "plain", "plain " + plain[ssh.KeyAlgoED25519], false, ""},
		{"known with port", "plain", "[plain]:PORT " + plain[ssh.KeyAlgoED25519], false, ""},
		{"known by rsa alone", "plain", "plain " + plain[ssh.KeyAlgoRSA], false, ""},
		{"known by address", "plain", "[127.0.0.1]:PORT " + plain[ssh.KeyAlgoECDSA256], false, ""},
		{"in capitals", "plain", "PLAIN " + plain[ssh.KeyAlgoED25519], false, ""},
		{"known, but a certificate is required", "plain", "plain " + plain[ssh.KeyAlgoED25519], true, PlainKey},
		{"unknown", "plain", "", false, Unknown},
		{"known by another name", "plain", "other " + plain[ssh.KeyAlgoED25519], false, Unknown},
		{"changed", "plain", "[plain]:PORT " + wrong, false, Changed},
		{"changed under its name, known by address", "plain", "[plain]:PORT " + wrong + "\n[127.0.0.1]:PORT " + plain[ssh.KeyAlgoED25519], false, Changed},
		{"changed without port, as ssh passes it over", "plain", "plain " + wrong, false, Unknown},
		{"changed, other type known", "plain", "[plain]:PORT " + wrong + "\n[plain]:PORT " + plain[ssh.KeyAlgoRSA], false, ""},
		{"revoked", "plain", "plain " + plain[ssh.KeyAlgoED25519] + "\n@revoked * " + plain[ssh.KeyAlgoED25519], false, Revoked},
		{"certificate of our CA", "certified", "", false, ""},
		{"certificate of our CA, another key known", "certified", "certified " + wrong, false, ""},
		{"certificate of another CA", "foreign", "", false, OtherCA},
		{"certificate of another CA, which is known", "foreign", "@cert-authority foreign " + otherCA.line(), false, ""},
		{"certificate of another CA, which is known, but ours is required", "foreign", "@cert-authority foreign " + otherCA.line(), true, OtherCA},
		{"certificate of another CA, its key known", "foreign", "foreign " + foreign.line(), false, ""},
		{"certificate of another CA, other key known", "foreign", "[foreign]:PORT " + wrong, false, Changed},
		{"certificate of another CA, known for others", "foreign", "@cert-authority other " + otherCA.line(), false, OtherCA},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, port, _ := net.SplitHostPort(f.Host(tt.host).Addr())
			known := writeTemp(t, "known_hosts", strings.ReplaceAll(tt.known, "PORT", port)+"\n")
			r := routerFor(t, Config{
				HostCAs: []ssh.PublicKey{hostCA.PublicKey()}, KnownHosts: []string{known},
				RequireCertificate: func(h *inventory.Host) bool { return tt.required && h.Name == tt.host },
			}, f, nil)
			u, err := r.Dial(t.Context(), resolve(t, r, tt.host), login, signer, nil)
			if tt.problem == "" {
				if err != nil {
					t.Fatal(err)
				}
				_ = u.Close()
				return
			}
			var refusal *HostKeyError
			if !errors.As(err, &refusal) || refusal.Problem != tt.problem {
				t.Fatalf("got %v, want %s", err, tt.problem)
			}
			if (tt.problem == Changed) != (len(refusal.Known) > 0) && tt.problem != Revoked {
				t.Errorf("places: %q", refusal.Known)
			}
		})
	}
}

// TestKnownHostsReread holds that what is written into known_hosts later counts,
// and that nothing is written there by us.
func TestKnownHostsReread(t *testing.T) {
	userCA := newKey(t)
	f := fleettest.Start(t, testenv.Config{Host: testenv.HostConfig{Top: "TrustedUserCAKeys " + userCA.path + ".pub\n"}})
	h := f.Hosts()[0]
	known := filepath.Join(t.TempDir(), "known_hosts")
	r := routerFor(t, Config{KnownHosts: []string{known}, RequireCertificate: func(*inventory.Host) bool { return false }}, f, nil)
	signer := user(t, userCA, h.Login())
	var refusal *HostKeyError
	if _, err := r.Dial(t.Context(), resolve(t, r, h.Name()), h.Login(), signer, nil); !errors.As(err, &refusal) || refusal.Problem != Unknown {
		t.Errorf("before: %v", err)
	}
	if _, err := os.Stat(known); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("known_hosts: %v", err)
	}
	if err := f.KnownHosts(known); err != nil {
		t.Fatal(err)
	}
	u, err := r.Dial(t.Context(), resolve(t, r, h.Name()), h.Login(), signer, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = u.Close()
	if err := os.Remove(known); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Dial(t.Context(), resolve(t, r, h.Name()), h.Login(), signer, nil); !errors.As(err, &refusal) || refusal.Problem != Unknown {
		t.Errorf("after: %v", err)
	}
}
