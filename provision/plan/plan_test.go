package plan

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca/profile"
	"github.com/fleetca/fleetca/provision/facts"
)

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

type key struct{ ssh.Signer }

func newKey(t testing.TB) key {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return key{signer}
}

// certify signs a host certificate for the public key.
func (k key) certify(t testing.TB, public ssh.PublicKey, at time.Time, names ...string) *ssh.Certificate {
	t.Helper()
	cert, err := profile.DefaultRules().Certificate(profile.Request{
		Kind: profile.Host, PublicKey: public, KeyID: names[0], Principals: names, TTL: 90 * 24 * time.Hour,
	}, 1, at)
	if err != nil {
		t.Fatal(err)
	}
	if err := cert.SignCert(rand.Reader, k); err != nil {
		t.Fatal(err)
	}
	return cert
}

// host is a Debian host as the probe sees it.
type host struct {
	facts  *facts.Facts
	wanted Wanted
	hostCA key
	key    key
}

const debianConfig = "Include /etc/ssh/sshd_config.d/*.conf\nUsePAM yes\nSubsystem sftp /usr/lib/openssh/sftp-server\n"

func newHost(t testing.TB) *host {
	t.Helper()
	h := &host{hostCA: newKey(t), key: newKey(t)}
	h.facts = &facts.Facts{
		SSHD: "/usr/sbin/sshd", ConfigFile: "/etc/ssh/sshd_config", Dir: "/etc/ssh",
		Files:    map[string]facts.File{},
		Followed: []string{"/etc/ssh/sshd_config.d/*.conf"},
		Effective: facts.Effective{
			"port": {"22"}, "trustedusercakeys": {"none"}, "pidfile": {"/run/sshd.pid"},
			"hostkey": {"/etc/ssh/ssh_host_ed25519_key"},
		},
		HostKeys:  []facts.HostKey{{Path: "/etc/ssh/ssh_host_ed25519_key", PublicKey: h.key.PublicKey()}},
		Reload:    facts.Reload{PID: 42},
		Writable:  true,
		FreeBytes: 1 << 30,
	}
	h.put("/etc/ssh/sshd_config", debianConfig)
	h.wanted = Wanted{
		Names: []string{"web01"}, UserCAs: []ssh.PublicKey{newKey(t).PublicKey()},
		HostCA: h.hostCA.PublicKey(), TTL: 90 * 24 * time.Hour,
		Shown: h.key.PublicKey(), Identification: "SSH-2.0-OpenSSH_9.2p1 Debian-2", Login: "root", Now: now,
	}
	return h
}

func (h *host) put(name, text string) {
	h.facts.Files[name] = facts.File{Content: []byte(text), Read: true, Size: int64(len(text)), Mode: 0o644, Regular: true, Exists: true}
	if path.Dir(name) == "/etc/ssh/sshd_config.d" && !slices.Contains(h.facts.Included, name) {
		h.facts.Included = append(h.facts.Included, name)
	}
}

func (h *host) plan(t testing.TB) *Plan {
	t.Helper()
	p, err := New(h.facts, h.wanted)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// carryOut does to the facts what the plan would do to the host.
func (h *host) carryOut(t testing.TB, p *Plan) {
	t.Helper()
	for _, c := range p.Certificates {
		cert := h.hostCA.certify(t, c.Key, h.wanted.Now, p.Names...)
		h.put(path.Join("/etc/ssh/fleetca", c.Name), string(ssh.MarshalAuthorizedKey(cert)))
		h.wanted.Shown = cert
	}
	if p.userCA != nil {
		h.put("/etc/ssh/fleetca/user_ca.pub", string(p.userCA))
	}
	if p.config != nil {
		h.put(p.config.path, string(p.config.text))
	}
	h.facts.Effective["trustedusercakeys"] = []string{"/etc/ssh/fleetca/user_ca.pub"}
	h.facts.Effective["hostcertificate"] = p.hostCAs
}

func names(p *Plan) []string {
	var out []string
	for _, s := range p.Steps {
		out = append(out, s.Name)
	}
	return out
}

func TestFirstRun(t *testing.T) {
	h := newHost(t)
	p := h.plan(t)
	want := []string{
		"write user CA keys", "install host certificate for ssh_host_ed25519_key",
		"write sshd drop-in", "reload sshd",
	}
	if got := names(p); !slices.Equal(got, want) {
		t.Fatalf("steps %q, want %q", got, want)
	}
	text := string(p.config.text)
	for _, line := range []string{
		"TrustedUserCAKeys /etc/ssh/fleetca/user_ca.pub\n",
		"HostCertificate /etc/ssh/fleetca/ssh_host_ed25519_key-cert.pub\n",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("the drop-in lacks %q:\n%s", line, text)
		}
	}
	if !strings.HasPrefix(string(p.config.candidate), text) || !strings.HasSuffix(string(p.config.candidate), debianConfig) {
		t.Errorf("the candidate is not the drop-in before the main file:\n%s", p.config.candidate)
	}
}

func TestSecondRunIsEmpty(t *testing.T) {
	h := newHost(t)
	h.carryOut(t, h.plan(t))
	if got := names(h.plan(t)); len(got) != 0 {
		t.Errorf("the second run plans %q", got)
	}
}

// Each row changes a host that was provisioned, and says what the next run does
// and why.
func TestDrift(t *testing.T) {
	const certFile = "/etc/ssh/fleetca/ssh_host_ed25519_key-cert.pub"
	tests := []struct {
		name   string
		change func(t *testing.T, h *host)
		steps  []string
		detail string
	}{
		{"a third of its life is left", func(_ *testing.T, h *host) { h.wanted.Now = now.Add(59 * 24 * time.Hour) }, nil, ""},
		{
			"less than a third is left", func(_ *testing.T, h *host) { h.wanted.Now = now.Add(61 * 24 * time.Hour) },
			[]string{"install host certificate for ssh_host_ed25519_key", "reload sshd"},
			"expires in",
		},
		{
			"expired", func(_ *testing.T, h *host) { h.wanted.Now = now.Add(91 * 24 * time.Hour) },
			[]string{"install host certificate for ssh_host_ed25519_key", "reload sshd"},
			"expired",
		},
		{
			"another name", func(_ *testing.T, h *host) { h.wanted.Names = []string{"web01", "www"} },
			[]string{"install host certificate for ssh_host_ed25519_key", "reload sshd"},
			"its names have changed",
		},
		{
			"another host CA", func(t *testing.T, h *host) { h.wanted.HostCA = newKey(t).PublicKey() },
			[]string{"install host certificate for ssh_host_ed25519_key", "reload sshd"},
			"signed by another CA",
		},
		{
			"a new host key", func(t *testing.T, h *host) { h.facts.HostKeys[0].PublicKey = newKey(t).PublicKey() },
			[]string{"install host certificate for ssh_host_ed25519_key", "reload sshd"},
			"the host has a new key",
		},
		{
			"the certificate is gone", func(_ *testing.T, h *host) { delete(h.facts.Files, certFile) },
			[]string{"install host certificate for ssh_host_ed25519_key", "reload sshd"},
			"none yet",
		},
		{
			"the certificate is junk", func(_ *testing.T, h *host) { h.put(certFile, "\x1b]0;junk") },
			[]string{"install host certificate for ssh_host_ed25519_key", "reload sshd"},
			"none yet",
		},
		{"a forged certificate", func(t *testing.T, h *host) {
			cert := newKey(t).certify(t, h.key.PublicKey(), now, "web01")
			cert.SignatureKey = h.hostCA.PublicKey()
			h.put(certFile, string(ssh.MarshalAuthorizedKey(cert)))
		}, []string{"install host certificate for ssh_host_ed25519_key", "reload sshd"}, "signed by another CA"},
		{
			"not reloaded", func(_ *testing.T, h *host) { h.wanted.Shown = h.key.PublicKey() },
			[]string{"reload sshd"},
			"the running sshd doesn't show its certificate",
		},
		{
			"user CA replaced", func(t *testing.T, h *host) { h.wanted.UserCAs = []ssh.PublicKey{newKey(t).PublicKey()} },
			[]string{"write user CA keys"},
			"",
		},
		{"user CA file writable for all", func(_ *testing.T, h *host) {
			f := h.facts.Files["/etc/ssh/fleetca/user_ca.pub"]
			f.Mode = 0o666
			h.facts.Files["/etc/ssh/fleetca/user_ca.pub"] = f
		}, []string{"write user CA keys"}, ""},
		{"user CA file of another owner", func(_ *testing.T, h *host) {
			f := h.facts.Files["/etc/ssh/fleetca/user_ca.pub"]
			f.UID = 1000
			h.facts.Files["/etc/ssh/fleetca/user_ca.pub"] = f
		}, []string{"write user CA keys"}, ""},
		{
			"drop-in edited", func(_ *testing.T, h *host) { h.put("/etc/ssh/sshd_config.d/00-fleetca.conf", "# nothing\n") },
			[]string{"write sshd drop-in", "reload sshd"},
			"",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			h.carryOut(t, h.plan(t))
			tt.change(t, h)
			p := h.plan(t)
			if got := names(p); !slices.Equal(got, tt.steps) {
				t.Fatalf("steps %q, want %q", got, tt.steps)
			}
			if tt.detail != "" && !strings.Contains(p.Steps[0].Detail, tt.detail) {
				t.Errorf("because %q, want %q", p.Steps[0].Detail, tt.detail)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	tests := []struct {
		name   string
		change func(t *testing.T, h *host)
		reason Reason
	}{
		{"dropbear", func(_ *testing.T, h *host) { h.wanted.Identification = "SSH-2.0-dropbear_2022.83" }, NotOpenSSH},
		{"CentOS 7", func(_ *testing.T, h *host) { h.wanted.Identification = "SSH-2.0-OpenSSH_7.4" }, ""},
		{"Debian 8", func(_ *testing.T, h *host) { h.wanted.Identification = "SSH-2.0-OpenSSH_6.7p1" }, TooOld},
		{"no sshd", func(_ *testing.T, h *host) { h.facts.SSHD = "" }, NoSSHD},
		{"no config", func(_ *testing.T, h *host) { delete(h.facts.Files, "/etc/ssh/sshd_config") }, BrokenConfig},
		{"plain user", func(_ *testing.T, h *host) { h.facts.UID, h.facts.Writable = 1000, false }, NoRights},
		{"read-only", func(_ *testing.T, h *host) { h.facts.Writable = false }, ReadOnly},
		{"full disk", func(_ *testing.T, h *host) { h.facts.FreeBytes = 4096 }, DiskFull},
		{"broken configuration", func(_ *testing.T, h *host) { h.facts.Effective = nil }, BrokenConfig},
		{"no host keys", func(_ *testing.T, h *host) { h.facts.HostKeys = nil }, NoHostKeys},
		{"unknown include", func(_ *testing.T, h *host) { h.put("/etc/ssh/sshd_config", "Include /elsewhere/*\n") }, BrokenConfig},
		{"another CA's certificate for the key", func(t *testing.T, h *host) {
			h.facts.HostCertificates = []facts.HostCertificate{{
				Path: "/etc/ssh/other-cert.pub", Certificate: newKey(t).certify(t, h.key.PublicKey(), now, "web01"),
			}}
		}, OtherCA},
		{"unreadable trusted keys", func(_ *testing.T, h *host) {
			h.facts.Effective["trustedusercakeys"] = []string{"/etc/ssh/old_ca.pub"}
			h.facts.Files["/etc/ssh/old_ca.pub"] = facts.File{Regular: true, Exists: true}
		}, CannotKeep},
		{"main file is a link, and there is no drop-in", func(_ *testing.T, h *host) {
			h.put("/etc/ssh/sshd_config", "UsePAM yes\n")
			f := h.facts.Files["/etc/ssh/sshd_config"]
			f.Link = "/srv/sshd_config"
			h.facts.Files["/etc/ssh/sshd_config"] = f
		}, CannotKeep},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			tt.change(t, h)
			_, err := New(h.facts, h.wanted)
			var refusal *Refusal
			switch {
			case tt.reason == "" && err != nil:
				t.Fatalf("refused: %v", err)
			case tt.reason != "" && (!errors.As(err, &refusal) || refusal.Reason != tt.reason):
				t.Fatalf("got %v, want a refusal for %s", err, tt.reason)
			}
		})
	}
}

func TestTrustedKeysAreKept(t *testing.T) {
	h := newHost(t)
	old, late := newKey(t).PublicKey(), newKey(t).PublicKey()
	h.facts.Effective["trustedusercakeys"] = []string{"/etc/ssh/old_ca.pub"}
	h.put("/etc/ssh/old_ca.pub", "# old\r\n"+string(ssh.MarshalAuthorizedKey(old))+"\n  junk\n"+string(ssh.MarshalAuthorizedKey(late)))
	p := h.plan(t)
	text := string(p.userCA)
	if !strings.Contains(text, string(ssh.MarshalAuthorizedKey(old))) {
		t.Errorf("the key that was trusted is not kept:\n%s", text)
	}
	if strings.Contains(text, string(ssh.MarshalAuthorizedKey(late))) {
		t.Errorf("a key after a junk line, which sshd doesn't trust, became trusted:\n%s", text)
	}
	if !slices.ContainsFunc(p.Notes, func(n string) bool { return strings.Contains(n, "/etc/ssh/old_ca.pub:4 ") }) {
		t.Errorf("nothing says that line 4 is junk: %q", p.Notes)
	}
	h.carryOut(t, p)
	if got := names(h.plan(t)); len(got) != 0 {
		t.Errorf("the second run plans %q", got)
	}
}

// Where no drop-in would win, the settings go to the top of sshd_config.
func TestBlock(t *testing.T) {
	for name, main := range map[string]string{
		"no include":          "Port 22\nMatch User git\n\tPasswordAuthentication no",
		"include is too late": "TrustedUserCAKeys none\n" + debianConfig,
		"include in a match":  "Match User git\nInclude /etc/ssh/sshd_config.d/*.conf\n",
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.put("/etc/ssh/sshd_config", main)
			p := h.plan(t)
			if p.config.path != "/etc/ssh/sshd_config" {
				t.Fatalf("the settings go to %s", p.config.path)
			}
			if !strings.HasSuffix(string(p.config.text), main) {
				t.Errorf("what was there has changed:\n%s", p.config.text)
			}
			h.carryOut(t, p)
			if got := names(h.plan(t)); len(got) != 0 {
				t.Errorf("the second run plans %q", got)
			}
		})
	}
}
