package ca_test

import (
	"bytes"
	"crypto"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca/keyring"
	"github.com/fleetca/fleetca/ca/profile"
	"github.com/fleetca/fleetca/testenv"
	"github.com/fleetca/fleetca/testenv/fleettest"
)

// rig is a real sshd that trusts CAs of every type, and keys of every type.
type rig struct {
	host   *testenv.Host
	cas    map[string]ssh.Signer
	public map[string]ssh.PublicKey
	files  map[string]string // private keys
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{cas: map[string]ssh.Signer{}, public: map[string]ssh.PublicKey{}, files: map[string]string{}}
	var trusted bytes.Buffer
	for _, kind := range keyTypes {
		r.cas[kind] = newSigner(t, kind)
		trusted.Write(ssh.MarshalAuthorizedKey(r.cas[kind].PublicKey()))
		r.files[kind] = filepath.Join(dir, kind)
		var key crypto.Signer
		key, err := keyring.Generate(keyring.Type(kind))
		if err != nil {
			t.Fatal(err)
		}
		if err := keyring.Write(r.files[kind], key, "", nil); err != nil {
			t.Fatal(err)
		}
		if r.public[kind], err = ssh.NewPublicKey(key.Public()); err != nil {
			t.Fatal(err)
		}
	}
	caFile := filepath.Join(dir, "user_ca.pub")
	write(t, caFile, trusted.String())
	fleet := fleettest.Start(t, testenv.Config{
		Names: []string{"web1"}, Host: testenv.HostConfig{Top: "TrustedUserCAKeys " + caFile},
	})
	r.host = fleet.Host("web1")
	return r
}

// login runs ssh with a certificate and nothing else that could let it in.
func (r *rig) login(t *testing.T, keyType string, cert *ssh.Certificate, options, command []string) (string, error) {
	t.Helper()
	certFile := filepath.Join(t.TempDir(), "cert.pub")
	write(t, certFile, string(ssh.MarshalAuthorizedKey(cert)))
	_, port, err := net.SplitHostPort(r.host.Addr())
	if err != nil {
		t.Fatal(err)
	}
	known := filepath.Join(t.TempDir(), "known_hosts")
	var lines strings.Builder
	for _, k := range r.host.PublicKeys() {
		lines.WriteString("web1 " + string(ssh.MarshalAuthorizedKey(k)))
	}
	write(t, known, lines.String())
	args := append([]string{
		"-F", "none", "-p", port, "-l", r.host.Login(), "-i", r.files[keyType],
		"-o", "CertificateFile=" + certFile, "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none",
		"-o", "BatchMode=yes", "-o", "PreferredAuthentications=publickey",
		"-o", "HostKeyAlias=web1", "-o", "UserKnownHostsFile=" + known, "-o", "GlobalKnownHostsFile=/dev/null",
		"-o", "StrictHostKeyChecking=yes",
	}, options...)
	cmd := exec.CommandContext(t.Context(), "ssh", append(append(args, "127.0.0.1"), command...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (r *rig) sign(t *testing.T, caType string, kind profile.Kind, now func() time.Time, req profile.Request) *ssh.Certificate {
	t.Helper()
	certs, err := authority(t, kind, r.cas[caType], now).Sign(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return certs[0]
}

// ago is a clock that is off by d.
func ago(d time.Duration) func() time.Time {
	return func() time.Time { return time.Now().Add(-d) }
}

// TestSSHDAcceptsUsers: a real sshd accepts certificates of every type of key
// and CA, obeys their options, and refuses what it must.
func TestSSHDAcceptsUsers(t *testing.T) {
	r := newRig(t)
	user := func(keyType string, change func(*profile.Request)) profile.Request {
		req := profile.Request{
			Kind: profile.User, PublicKey: r.public[keyType], KeyID: "alice",
			Principals: []string{"nobody-else", r.host.Login()},
		}
		if change != nil {
			change(&req)
		}
		return req
	}
	for _, caType := range keyTypes {
		for _, keyType := range keyTypes {
			t.Run(keyType+" by "+caType, func(t *testing.T) {
				cert := r.sign(t, caType, profile.User, nil, user(keyType, nil))
				out, err := r.login(t, keyType, cert, nil, []string{"echo", "in"})
				if err != nil || out != "in\n" {
					t.Errorf("refused: %v\n%s", err, out)
				}
			})
		}
	}
	from := func(nets ...string) func(*profile.Request) {
		return func(q *profile.Request) {
			for _, n := range nets {
				q.SourceAddresses = append(q.SourceAddresses, netip.MustParsePrefix(n))
			}
		}
	}
	for _, c := range []struct {
		name    string
		change  func(*profile.Request)
		options []string
		command []string
		want    string // in the output; "!" before it: refused, with this in sshd's log
	}{
		{"source address inside", from("192.0.2.0/24", "127.0.0.0/8"), nil, []string{"echo", "in"}, "in"},
		{"source address itself", from("127.0.0.1/32", "2001:db8::/32"), nil, []string{"echo", "in"}, "in"},
		{"source address outside", from("192.0.2.0/24"), nil, []string{"echo", "in"}, "!not from a permitted source address"},
		{"forced command", func(q *profile.Request) { q.ForceCommand = `echo "forced: $SSH_ORIGINAL_COMMAND"` }, nil, []string{"echo", "in"}, "forced: echo in"},
		{"terminal", nil, []string{"-tt"}, []string{"tty"}, "/dev/pts/"},
		{"terminal off", disable("permit-pty"), []string{"-tt"}, []string{"tty"}, "PTY allocation request failed"},
		{"terminal with forced command", func(q *profile.Request) { q.ForceCommand = "tty" }, []string{"-tt"}, nil, "/dev/pts/"},
		{"forwarding", nil, []string{"-W", r.host.Addr()}, nil, "SSH-2.0-OpenSSH"},
		{"forwarding off", disable("permit-port-forwarding"), []string{"-W", r.host.Addr()}, nil, "administratively prohibited"},
		{"forwarding with forced command", func(q *profile.Request) { q.ForceCommand = "true" }, []string{"-W", r.host.Addr()}, nil, "administratively prohibited"},
		{"no extensions", func(q *profile.Request) { q.Extensions.None = true }, nil, []string{"echo", "in"}, "in"},
		{"wrong principal", func(q *profile.Request) { q.Principals = []string{"nobody-else"} }, nil, []string{"echo", "in"}, "!name is not a listed principal"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := len(r.host.Log())
			cert := r.sign(t, "ed25519", profile.User, nil, user("ed25519", c.change))
			out, err := r.login(t, "ed25519", cert, c.options, c.command)
			if reason, refused := strings.CutPrefix(c.want, "!"); refused {
				if err == nil || !strings.Contains(out, "Permission denied") {
					t.Errorf("accepted: %s", out)
				}
				if log := r.host.Log()[before:]; !strings.Contains(log, reason) {
					t.Errorf("sshd does not say %q:\n%s", reason, log)
				}
				return
			}
			if !strings.Contains(out, c.want) {
				t.Errorf("%v, want %q in\n%s", err, c.want, out)
			}
		})
	}
	t.Run("other CA", func(t *testing.T) {
		cert, err := authority(t, profile.User, newSigner(t, "ed25519"), nil).Sign(t.Context(), user("ed25519", nil))
		if err != nil {
			t.Fatal(err)
		}
		if out, err := r.login(t, "ed25519", cert[0], nil, []string{"true"}); err == nil {
			t.Errorf("accepted: %s", out)
		}
	})
	t.Run("host certificate", func(t *testing.T) {
		cert := r.sign(t, "ed25519", profile.Host, nil, profile.Request{
			Kind: profile.Host, PublicKey: r.public["ed25519"], Principals: []string{r.host.Login()},
		})
		if out, err := r.login(t, "ed25519", cert, nil, []string{"true"}); err == nil {
			t.Errorf("accepted: %s", out)
		}
	})
}

func disable(names ...string) func(*profile.Request) {
	return func(q *profile.Request) { q.Extensions.Disable = names }
}

// skews are clocks of the CA beside the one of sshd and ssh: by how much the
// CA's is behind, and what becomes of its certificates.
var skews = []struct {
	name   string
	behind time.Duration
	ttl    time.Duration
	want   string
}{
	{"half a minute ahead", -30 * time.Second, time.Hour, ""},
	{"five minutes behind", 5 * time.Minute, time.Hour, ""},
	{"five minutes ahead", -5 * time.Minute, time.Hour, "not yet valid"},
	{"five minutes behind, four to live", 5 * time.Minute, 4 * time.Minute, "expired"},
	{"half a day behind", 12 * time.Hour, time.Hour, "expired"},
}

// TestSSHDClockSkew: what sshd makes of certificates from a CA whose clock is off.
func TestSSHDClockSkew(t *testing.T) {
	r := newRig(t)
	for _, c := range skews {
		t.Run(c.name, func(t *testing.T) {
			before := len(r.host.Log())
			cert := r.sign(t, "ed25519", profile.User, ago(c.behind), profile.Request{
				Kind: profile.User, PublicKey: r.public["ed25519"], KeyID: "alice",
				Principals: []string{r.host.Login()}, TTL: c.ttl,
			})
			out, err := r.login(t, "ed25519", cert, nil, []string{"true"})
			if c.want == "" {
				if err != nil {
					t.Errorf("refused: %v\n%s", err, out)
				}
				return
			}
			if log := r.host.Log()[before:]; err == nil || !strings.Contains(log, "Certificate invalid: "+c.want) {
				t.Errorf("%v, want sshd to say %q:\n%s", err, c.want, log)
			}
		})
	}
}

// TestSSHAcceptsHosts: the real ssh client, with nothing but @cert-authority in
// known_hosts and strict checking, accepts certificates of every type of host
// key and CA, and refuses what it must.
func TestSSHAcceptsHosts(t *testing.T) {
	fleet := fleettest.Start(t, testenv.Config{Names: []string{"web1"}})
	r := &rig{host: fleet.Host("web1"), cas: map[string]ssh.Signer{}}
	for _, caType := range keyTypes {
		r.cas[caType] = newSigner(t, caType)
		keys := r.host.PublicKeys()
		certs := make([]*ssh.Certificate, len(keys))
		for i, key := range keys {
			certs[i] = r.sign(t, caType, profile.Host, nil, profile.Request{
				Kind: profile.Host, PublicKey: key, Principals: []string{"web1", "WEB1.example.com"},
			})
		}
		r.present(t, certs)
		for _, key := range keys {
			t.Run(key.Type()+" by "+caType, func(t *testing.T) {
				algorithm := key.Type() + "-cert-v01@openssh.com"
				if key.Type() == ssh.KeyAlgoRSA {
					algorithm = "rsa-sha2-512-cert-v01@openssh.com"
				}
				for _, name := range []string{"web1", "web1.example.com", "Web1.Example.com"} {
					if out, err := r.connect(t, r.cas[caType].PublicKey(), name, "-o", "HostKeyAlgorithms="+algorithm); err != nil {
						t.Errorf("as %s refused: %v\n%s", name, err, out)
					}
				}
			})
		}
	}
	trusted := r.cas["ed25519"].PublicKey()
	key := r.host.PublicKeys()[0]
	for _, c := range []struct {
		name string
		cert func(t *testing.T) *ssh.Certificate
		ca   ssh.PublicKey
		want string
	}{
		{"other name", func(t *testing.T) *ssh.Certificate {
			return r.sign(t, "ed25519", profile.Host, nil, profile.Request{Kind: profile.Host, PublicKey: key, Principals: []string{"db1"}})
		}, trusted, "name is not a listed principal"},
		{"other CA", func(t *testing.T) *ssh.Certificate {
			return r.sign(t, "ecdsa", profile.Host, nil, profile.Request{Kind: profile.Host, PublicKey: key, Principals: []string{"web1"}})
		}, trusted, "Host key verification failed"},
		{"user certificate", func(t *testing.T) *ssh.Certificate {
			return r.sign(t, "ed25519", profile.User, nil, profile.Request{Kind: profile.User, PublicKey: key, KeyID: "web1", Principals: []string{"web1"}})
		}, trusted, "Host key verification failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.present(t, []*ssh.Certificate{c.cert(t)})
			if out, err := r.connect(t, c.ca, "web1"); err == nil || !strings.Contains(out, c.want) {
				t.Errorf("%v, want %q in\n%s", err, c.want, out)
			}
		})
	}
	for _, c := range skews {
		t.Run(c.name, func(t *testing.T) {
			r.present(t, []*ssh.Certificate{r.sign(t, "ed25519", profile.Host, ago(c.behind), profile.Request{
				Kind: profile.Host, PublicKey: key, Principals: []string{"web1"}, TTL: c.ttl,
			})})
			out, err := r.connect(t, trusted, "web1")
			if (err == nil) != (c.want == "") || !strings.Contains(out, c.want) {
				t.Errorf("%v, want %q in\n%s", err, c.want, out)
			}
		})
	}
}

// present makes sshd show host certificates.
func (r *rig) present(t *testing.T, certs []*ssh.Certificate) {
	t.Helper()
	etc := filepath.Dir(r.host.ConfigPath())
	var config strings.Builder
	for _, cert := range certs {
		path := filepath.Join(etc, cert.Key.Type()+"-cert.pub")
		if err := os.WriteFile(r.host.File(path), ssh.MarshalAuthorizedKey(cert), 0o644); err != nil {
			t.Fatal(err)
		}
		config.WriteString("HostCertificate " + path + "\n")
	}
	write(t, r.host.File(filepath.Join(etc, "sshd_config.d", "certs.conf")), config.String())
	if err := r.host.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// connect logs in to the host by a name, trusting only a CA for any host.
func (r *rig) connect(t *testing.T, trusted ssh.PublicKey, name string, options ...string) (string, error) {
	t.Helper()
	known := filepath.Join(t.TempDir(), "known_hosts")
	write(t, known, "@cert-authority web1,*.example.com "+string(ssh.MarshalAuthorizedKey(trusted)))
	cmd, err := r.host.SSH(t.Context(), append([]string{
		"-o", "UserKnownHostsFile=" + known, "-o", "StrictHostKeyChecking=yes", "-o", "HostKeyAlias=" + name,
	}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Args = append(cmd.Args, "true")
	out, err := cmd.CombinedOutput()
	return string(out), err
}
