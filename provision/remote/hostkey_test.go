package remote

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/testenv"
	"github.com/fleetca/fleetca/testenv/fleettest"
)

func publicKey(t testing.TB, path string) ssh.PublicKey {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(data)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func authorized(key ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

// certifiedHost is a host whose ed25519 key has a certificate for the names.
func certifiedHost(t testing.TB, ca, names string, options ...string) (*testenv.Fleet, *testenv.Host) {
	t.Helper()
	key := keygen(t, "ed25519", "")
	args := append([]string{"-q", "-s", ca, "-I", "host", "-h", "-n", names}, options...)
	command(t, "ssh-keygen", append(args, key+".pub")...)
	f := fleettest.Start(t, testenv.Config{Host: testenv.HostConfig{
		Top: "HostKey " + key + "\nHostCertificate " + key + "-cert.pub\n",
	}})
	return f, f.Hosts()[0]
}

// TestKnownHostsAgainstSSH holds that we accept and refuse what the real ssh
// does with StrictHostKeyChecking=yes.
func TestKnownHostsAgainstSSH(t *testing.T) {
	ca, otherCA := keygen(t, "ed25519", ""), keygen(t, "ed25519", "")
	plainFleet := fleettest.Start(t, testenv.Config{})
	certFleet, certHost := certifiedHost(t, ca, "127.0.0.1,alias,localhost")
	_, badHost := certifiedHost(t, ca, "elsewhere")
	_, expiredHost := certifiedHost(t, ca, "127.0.0.1", "-V", "20200101:20210101")
	plainHost := plainFleet.Hosts()[0]
	_, port, err := net.SplitHostPort(plainHost.Addr())
	if err != nil {
		t.Fatal(err)
	}
	_, certPort, _ := net.SplitHostPort(certHost.Addr())
	_, badPort, _ := net.SplitHostPort(badHost.Addr())
	keys := map[string]string{}
	for _, k := range plainHost.PublicKeys() {
		keys[k.Type()] = authorized(k)
	}
	ed, ec, rsa := keys[ssh.KeyAlgoED25519], keys[ssh.KeyAlgoECDSA256], keys[ssh.KeyAlgoRSA]
	wrong := authorized(publicKey(t, keygen(t, "ed25519", "")+".pub"))
	wrongRSA := authorized(publicKey(t, keygen(t, "rsa", "")+".pub"))
	caKey, otherKey := authorized(publicKey(t, ca+".pub")), authorized(publicKey(t, otherCA+".pub"))
	var certPlain string
	for _, l := range strings.Split(command(t, "ssh-keyscan", "-t", "ed25519", "-p", certPort, "127.0.0.1"), "\n") {
		if _, key, ok := strings.Cut(l, " "); ok && !strings.HasPrefix(l, "#") {
			certPlain = key
		}
	}
	name, certName, badName := "[127.0.0.1]:"+port, "[127.0.0.1]:"+certPort, "[127.0.0.1]:"+badPort
	hash := func(line string) string {
		path := writeTemp(t, "known_hosts", line+"\n")
		command(t, "ssh-keygen", "-q", "-H", "-f", path)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(data))
	}
	rows := []struct {
		name, known string
		host        *testenv.Host
		config      string
	}{
		{"nothing", "", plainHost, ""},
		{"plain", name + " " + ed, plainHost, ""},
		{"only rsa known", name + " " + rsa, plainHost, ""},
		{"only ecdsa known", name + " " + ec, plainHost, ""},
		{"all known", name + " " + rsa + "\n" + name + " " + ec + "\n" + name + " " + ed, plainHost, ""},
		{"changed", name + " " + wrong, plainHost, ""},
		{"changed, rsa", name + " " + wrongRSA, plainHost, ""},
		{"changed and right", name + " " + wrong + "\n" + name + " " + ed, plainHost, ""},
		{"right rsa, wrong ed25519", name + " " + rsa + "\n" + name + " " + wrong, plainHost, ""},
		{"other host", "[127.0.0.2]:" + port + " " + ed, plainHost, ""},
		{"other port", "[127.0.0.1]:1 " + ed, plainHost, ""},
		{"without port", "127.0.0.1 " + ed, plainHost, ""},
		{"without port, wrong", "127.0.0.1 " + wrong, plainHost, ""},
		{"without port right, with port wrong", "127.0.0.1 " + ed + "\n" + name + " " + wrong, plainHost, ""},
		{"without port wrong, with port right", "127.0.0.1 " + wrong + "\n" + name + " " + ed, plainHost, ""},
		{"hashed", hash(name + " " + ed), plainHost, ""},
		{"hashed without port", hash("127.0.0.1 " + ed), plainHost, ""},
		{"hashed, changed", hash(name + " " + wrong), plainHost, ""},
		{"hashed, other", hash("other " + ed), plainHost, ""},
		{"list", "a,b," + name + ",c " + ed, plainHost, ""},
		{"wildcard", "[127.0.0.?]:* " + ed, plainHost, ""},
		{"star", "* " + ed, plainHost, ""},
		{"negated", "*,!" + name + " " + ed, plainHost, ""},
		{"negated other", "*,!a " + ed, plainHost, ""},
		{"comment", "# " + name + " " + ed, plainHost, ""},
		{"bad line before", name + " ssh-ed25519 AAAA\nrubbish\n" + name + " " + ed, plainHost, ""},
		{"unknown key type before", name + " ssh-future AAAAC3NzaC1lZDI1NTE5AAAAIE\n" + name + " " + ed, plainHost, ""},
		{"unknown marker", "@trusted " + name + " " + ed, plainHost, ""},
		{"tabs and crlf", "  " + name + "\t" + strings.ReplaceAll(ed, " ", "\t") + "\r", plainHost, ""},
		{"revoked", "@revoked " + name + " " + ed, plainHost, ""},
		{"revoked and known", name + " " + ed + "\n@revoked * " + ed, plainHost, ""},
		{"revoked other host", name + " " + ed + "\n@revoked other " + ed, plainHost, ""},
		{"revoked other key", name + " " + ed + "\n@revoked * " + wrong, plainHost, ""},
		{"revoked rsa, known ed25519", name + " " + ed + "\n@revoked * " + rsa, plainHost, ""},
		{"authority is not a key", "@cert-authority " + name + " " + ed, plainHost, ""},
		{"authority for a plain host", "@cert-authority " + name + " " + caKey, plainHost, ""},
		{"alias", "alias " + ed, plainHost, "HostKeyAlias alias"},
		{"alias in capitals", "alias " + ed, plainHost, "HostKeyAlias ALIAS"},
		{"alias has no port", "[alias]:" + port + " " + ed, plainHost, "HostKeyAlias alias"},
		{"alias hashed", hash("alias " + ed), plainHost, "HostKeyAlias alias"},
		{"name instead of alias", name + " " + ed, plainHost, "HostKeyAlias alias"},
		{"capitals in the file", "ALIAS " + ed, plainHost, "HostKeyAlias alias"},

		{"authority", "@cert-authority " + certName + " " + caKey, certHost, ""},
		{"authority without port", "@cert-authority 127.0.0.1 " + caKey, certHost, ""},
		{"authority star", "@cert-authority * " + caKey, certHost, ""},
		{"authority hashed", "@cert-authority " + hash(certName+" "+caKey), certHost, ""},
		{"other authority", "@cert-authority * " + otherKey, certHost, ""},
		{"two authorities", "@cert-authority * " + otherKey + "\n@cert-authority * " + caKey, certHost, ""},
		{"authority for others", "@cert-authority other " + caKey, certHost, ""},
		{"authority and wrong plain", "@cert-authority * " + caKey + "\n" + certName + " " + wrong, certHost, ""},
		{"authority by alias", "@cert-authority alias " + caKey, certHost, "HostKeyAlias alias"},
		{"authority by alias not in it", "@cert-authority * " + caKey, certHost, "HostKeyAlias stranger"},
		{"plain key of a certified host", certName + " " + certPlain, certHost, ""},
		{"other authority and the plain key", "@cert-authority * " + otherKey + "\n" + certName + " " + certPlain, certHost, ""},
		{"authority without marker", certName + " " + caKey, certHost, ""},
		{"authority revoked", "@cert-authority * " + caKey + "\n@revoked * " + caKey, certHost, ""},
		{"certified key revoked", "@cert-authority * " + caKey + "\n@revoked * " + certPlain, certHost, ""},
		{"certificate for another name", "@cert-authority * " + caKey, badHost, ""},
		{"expired certificate", "@cert-authority * " + caKey, expiredHost, ""},
		{"certificate for another name, other port", "@cert-authority " + badName + " " + caKey, badHost, ""},
	}
	accepted := 0
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			known := writeTemp(t, "known_hosts", row.known+"\n")
			address, port, _ := net.SplitHostPort(row.host.Addr())
			key := plainFleet.ClientKey()
			if row.host == certHost {
				key = certFleet.ClientKey()
			}
			args := []string{
				"-F", "none", "-v", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile=" + known,
				"-o", "GlobalKnownHostsFile=none", "-o", "IdentitiesOnly=yes", "-i", key, "-o", "KexAlgorithms=curve25519-sha256",
				"-o", "PreferredAuthentications=none", "-l", row.host.Login(), "-p", port,
			}
			if k, v, ok := strings.Cut(row.config, " "); ok {
				args = append(args, "-o", k+"="+v)
			}
			// ssh says that it came to authentication only after it took the key.
			out, _ := exec.Command("ssh", append(args, address, "true")...).CombinedOutput()
			want := strings.Contains(string(out), "SSH2_MSG_SERVICE_ACCEPT received")
			if !want && !strings.Contains(string(out), "Host key verification failed") {
				t.Fatalf("ssh neither accepts nor refuses the host key: %s", out)
			}
			d := newDialer(t, Config{}, "StrictHostKeyChecking yes\nIdentityFile none\nIdentityAgent none\nUserKnownHostsFile "+known+"\n"+row.config)
			_, err := d.Dial(t.Context(), of(t, row.host, nil), Options{})
			var auth *AuthError
			var key2 *HostKeyError
			got := errors.As(err, &auth) // no key is offered, so that is how far it comes
			if !got && !errors.As(err, &key2) {
				t.Fatalf("neither accepted nor refused: %v", err)
			}
			if got != want {
				t.Errorf("accepted: %v, ssh: %v (%v)\n%s", got, want, err, out)
			}
			if got {
				accepted++
			}
		})
	}
	if accepted < 20 || accepted > len(rows)-20 {
		t.Errorf("%d of %d accepted: the table shows one side only", accepted, len(rows))
	}
}

// TestHostKeyPolicy holds what goes beyond OpenSSH.
func TestHostKeyPolicy(t *testing.T) {
	ca, otherCA := keygen(t, "ed25519", ""), keygen(t, "ed25519", "")
	caKey, otherKey := publicKey(t, ca+".pub"), publicKey(t, otherCA+".pub")
	fleet, host := certifiedHost(t, ca, "host1,other")
	plain := fleettest.Start(t, testenv.Config{})
	shown := map[string]ssh.PublicKey{}
	for _, k := range plain.Hosts()[0].PublicKeys() {
		shown[k.Type()] = k
	}
	pin := func(keys ...ssh.PublicKey) map[string]any {
		var list []any
		for _, k := range keys {
			list = append(list, ssh.FingerprintSHA256(k))
		}
		return map[string]any{"fleetca_host_key_fingerprints": list}
	}
	later := time.Now().Add(100 * 365 * 24 * time.Hour)
	for _, tt := range []struct {
		name   string
		host   *testenv.Host
		as     string // inventory name, if not the host's
		vars   map[string]any
		cas    []ssh.PublicKey
		only   bool
		known  string
		config string
		now    time.Time
		reason HostKeyReason // "" if accepted
	}{
		{name: "our CA", host: host, cas: []ssh.PublicKey{caKey}},
		{name: "our CA, capitals", host: host, as: "HOST1", cas: []ssh.PublicKey{caKey}},
		{name: "our CA, only", host: host, cas: []ssh.PublicKey{otherKey, caKey}, only: true},
		{
			name: "our CA, only, though ssh_config wants plain keys", host: host, cas: []ssh.PublicKey{caKey}, only: true,
			config: "HostKeyAlgorithms ssh-ed25519,ecdsa-sha2-nistp256,rsa-sha2-512",
		},
		{name: "our CA, name not in it", host: host, as: "web9", cas: []ssh.PublicKey{caKey}, reason: HostKeyUnknown},
		{name: "our CA, name not in it, only", host: host, as: "web9", cas: []ssh.PublicKey{caKey}, only: true, reason: HostKeyNoCertificate},
		{name: "our CA, by alias", host: host, as: "web9", cas: []ssh.PublicKey{caKey}, config: "HostKeyAlias other"},
		{name: "other CA", host: host, cas: []ssh.PublicKey{otherKey}, reason: HostKeyUnknown},
		{name: "other CA, only", host: host, cas: []ssh.PublicKey{otherKey}, only: true, reason: HostKeyNoCertificate},
		{name: "our CA, but known for another key", host: host, cas: []ssh.PublicKey{caKey}, known: "[127.0.0.1]:PORT " + authorized(otherKey)},
		{name: "our CA, but revoked", host: host, cas: []ssh.PublicKey{caKey}, known: "@revoked * " + authorized(caKey), reason: HostKeyRevoked},
		{name: "our CA, pinned to another key", host: host, cas: []ssh.PublicKey{caKey}, vars: pin(otherKey)},
		{name: "no certificate, only", host: plain.Hosts()[0], cas: []ssh.PublicKey{caKey}, only: true, reason: HostKeyNoCertificate},
		{name: "no certificate, only, but known", host: plain.Hosts()[0], cas: []ssh.PublicKey{caKey}, only: true, known: "* " + authorized(shown[ssh.KeyAlgoED25519]), reason: HostKeyNoCertificate},
		{name: "no certificate, known", host: plain.Hosts()[0], cas: []ssh.PublicKey{caKey}, known: "* " + authorized(shown[ssh.KeyAlgoRSA])},
		{name: "pinned", host: plain.Hosts()[0], vars: pin(shown[ssh.KeyAlgoED25519])},
		{name: "pinned rsa", host: plain.Hosts()[0], vars: pin(shown[ssh.KeyAlgoRSA])},
		{name: "pinned ecdsa, with a CA", host: plain.Hosts()[0], cas: []ssh.PublicKey{caKey}, vars: pin(shown[ssh.KeyAlgoECDSA256])},
		{name: "pinned to another", host: plain.Hosts()[0], vars: pin(otherKey), reason: HostKeyNotPinned},
		{name: "pinned to another, though known", host: plain.Hosts()[0], vars: pin(otherKey), known: "* " + authorized(shown[ssh.KeyAlgoED25519]), reason: HostKeyNotPinned},
		{name: "pinned, though known_hosts has another", host: plain.Hosts()[0], vars: pin(shown[ssh.KeyAlgoED25519]), known: "* " + authorized(otherKey)},
		{name: "pinned, but revoked", host: plain.Hosts()[0], vars: pin(shown[ssh.KeyAlgoED25519]), known: "@revoked * " + authorized(shown[ssh.KeyAlgoED25519]), reason: HostKeyRevoked},
		{name: "certificate from the future", host: host, cas: []ssh.PublicKey{caKey}, now: time.Unix(1_000_000_000, 0)},
		{name: "rsa too short for ssh_config", host: plain.Hosts()[0], known: "* " + authorized(shown[ssh.KeyAlgoRSA]), config: "RequiredRSASize 8192\nHostKeyAlgorithms rsa-sha2-*", reason: HostKeyWeak},
		{name: "far future", host: host, cas: []ssh.PublicKey{caKey}, now: later},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, port, _ := net.SplitHostPort(tt.host.Addr())
			known := writeTemp(t, "known_hosts", strings.ReplaceAll(tt.known, "PORT", port)+"\n")
			cfg := Config{HostCAs: tt.cas}
			if !tt.now.IsZero() {
				cfg.Now = func() time.Time { return tt.now }
			}
			d := newDialer(t, cfg, tt.config+"\nUserKnownHostsFile "+known+"\nIdentityAgent none\nIdentityFile "+fleet.ClientKey()+"\nIdentityFile "+plain.ClientKey())
			h := of(t, tt.host, tt.vars)
			if tt.as != "" {
				h.Name = tt.as
			}
			c, err := d.Dial(t.Context(), h, Options{HostCertificateOnly: tt.only})
			if tt.reason == "" {
				if err != nil {
					t.Fatal(err)
				}
				if _, ok := c.HostKey().(*ssh.Certificate); ok != (tt.host == host) {
					t.Errorf("shown: %T", c.HostKey())
				}
				_ = c.Close()
				return
			}
			var refusal *HostKeyError
			if !errors.As(err, &refusal) || refusal.Reason != tt.reason {
				t.Fatalf("got %v, want %q", err, tt.reason)
			}
			if noneOffered := tt.only && tt.host != host; (refusal.Fingerprint == "") != noneOffered {
				t.Errorf("shown key: %v", err)
			}
		})
	}
}
