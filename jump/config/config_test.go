package config

import (
	"crypto/rand"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca/keyring"
	"github.com/fleetca/fleetca/ca/krl"
)

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func clock() time.Time { return now }

// minimal is the shortest jump.yaml that is of use.
const minimal = `name: jump.example.com
host_key: host_key
jump_ca: jump_ca
user_cas: user_ca.pub
host_cas: host_ca.pub
inventory: hosts.yaml
store: {dir: state/store}
audit_dir: state/audit
roles:
  - name: staff
    identities: "*"
    logins: "*"
    hosts: all
    permit: [shell]
`

const fleet = `all:
  children:
    web:
      hosts: {Web1.example.com: , web2.example.com: }
      vars: {fleetca_labels: {env: prod}}
    db:
      hosts: {db1: , db2: }
    old:
      hosts: {db2: }
    empty: {}
`

// folder is a folder with all that a jump.yaml names.
type folder struct {
	dir                      string
	user, host, jump, server ssh.Signer
}

func newFolder(tb testing.TB) *folder {
	tb.Helper()
	f := &folder{dir: tb.TempDir()}
	f.user, f.host = f.key(tb, "user_ca"), f.key(tb, "host_ca")
	f.jump, f.server = f.key(tb, "jump_ca"), f.key(tb, "host_key")
	f.write(tb, "hosts.yaml", fleet)
	f.write(tb, "host_key-cert.pub", certLine(f.certificate(tb, nil)))
	return f
}

func (f *folder) path(name string) string { return filepath.Join(f.dir, name) }

// key makes a private key and the .pub file beside it.
func (f *folder) key(tb testing.TB, name string) ssh.Signer {
	tb.Helper()
	key, err := keyring.Generate(keyring.Ed25519)
	if err != nil {
		tb.Fatal(err)
	}
	signer, err := ssh.NewSignerFromSigner(key)
	if err != nil {
		tb.Fatal(err)
	}
	if err := errors.Join(
		keyring.Write(f.path(name), key, name, nil),
		keyring.WritePublic(f.path(name+".pub"), signer.PublicKey(), name),
	); err != nil {
		tb.Fatal(err)
	}
	return signer
}

func (f *folder) write(tb testing.TB, name, text string) {
	tb.Helper()
	if err := os.WriteFile(f.path(name), []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
}

// certificate is the jump host's, after change.
func (f *folder) certificate(tb testing.TB, change func(*ssh.Certificate)) *ssh.Certificate {
	tb.Helper()
	cert := &ssh.Certificate{
		Key: f.server.PublicKey(), Serial: 1, CertType: ssh.HostCert, KeyId: "jump",
		ValidPrincipals: []string{"jump.example.com"},
		ValidAfter:      uint64(now.Add(-time.Hour).Unix()), ValidBefore: uint64(now.Add(90 * 24 * time.Hour).Unix()),
	}
	if change != nil {
		change(cert)
	}
	if cert.SignatureKey == nil {
		f.sign(tb, cert, f.host)
	}
	return cert
}

func (f *folder) sign(tb testing.TB, cert *ssh.Certificate, by ssh.Signer) {
	tb.Helper()
	if err := cert.SignCert(rand.Reader, by); err != nil {
		tb.Fatal(err)
	}
}

func certLine(key ssh.PublicKey) string { return string(ssh.MarshalAuthorizedKey(key)) }

func (f *folder) load(tb testing.TB, text string) (*Config, []string, error) {
	tb.Helper()
	f.write(tb, "jump.yaml", text)
	return Loader{Now: clock}.Load(tb.Context(), f.path("jump.yaml"))
}

// good loads what must have no mistakes.
func (f *folder) good(tb testing.TB, text string) (*Config, []string) {
	tb.Helper()
	c, warnings, err := f.load(tb, text)
	if err != nil {
		tb.Fatalf("%v\nof:\n%s", err, text)
	}
	return c, warnings
}

// mistakes loads what must have some, and gives a line for each, without the
// folder's path.
func (f *folder) mistakes(tb testing.TB, text string) []string {
	tb.Helper()
	c, _, err := f.load(tb, text)
	if err == nil || c != nil {
		tb.Fatalf("no mistake found in:\n%s", text)
	}
	if all := Errors(nil); !errors.As(err, &all) || len(all) == 0 {
		tb.Fatalf("%T: %v", err, err)
	}
	return strings.Split(strings.ReplaceAll(err.Error(), f.dir+"/", ""), "\n")
}

func TestDefaults(t *testing.T) {
	f := newFolder(t)
	c, warnings := f.good(t, minimal)
	if len(warnings) > 0 {
		t.Errorf("warnings: %q", warnings)
	}
	want := Store{Dir: f.path("state/store"), Reserve: 512 << 20, CloseReserve: 256 << 20, Ballast: 128 << 20}
	switch {
	case c.Path != f.path("jump.yaml"), c.Name != "jump.example.com", c.Cluster != "jump.example.com",
		!slices.Equal(c.Listen, []string{":3023"}), c.AdminSocket != "":
		t.Errorf("who and where: %+v", c)
	case c.DialTimeout != 30*time.Second, c.LoginTimeout != time.Minute, c.DrainTimeout != time.Minute, c.KeepAlive != 30*time.Second:
		t.Errorf("timeouts: %+v", c)
	case c.Store != want, c.AuditDir != f.path("state/audit"), c.MaxStream != 4<<20:
		t.Errorf("store: %+v", c)
	case c.Limits != DefaultLimits(), c.Limits.Connections != 1000:
		t.Errorf("limits: %+v", c.Limits)
	case !slices.Equal(c.AcceptEnv, DefaultAcceptEnv()):
		t.Errorf("environment: %q", c.AcceptEnv)
	case c.Revoked != nil:
		t.Error("revoked keys out of nothing")
	case len(c.UserCAs) != 1, len(c.HostCAs) != 1, certLine(c.JumpCA.PublicKey()) != certLine(f.jump.PublicKey()):
		t.Errorf("keys: %+v", c)
	case len(c.Inventory.Hosts()) != 4, len(c.Rules.Roles) != 1:
		t.Errorf("fleet: %+v", c)
	}
	if cert, ok := c.HostSigner.PublicKey().(*ssh.Certificate); !ok || cert.KeyId != "jump" {
		t.Errorf("the host key shows no certificate: %v", c.HostSigner.PublicKey())
	}
	for _, h := range c.Inventory.Hosts() {
		if !c.RequireHostCertificate(h) {
			t.Errorf("%s needn't show a certificate", h.Name)
		}
	}
	if !c.RequireHostCertificate(nil) {
		t.Error("nil needn't show a certificate")
	}
	var files []string
	for _, file := range c.Files() {
		files = append(files, strings.TrimPrefix(file, f.dir+"/"))
	}
	if want := []string{
		"group_vars", "host_ca.pub", "host_key", "host_key-cert.pub", "host_vars", "hosts.yaml", "jump.yaml", "jump_ca", "user_ca.pub",
	}; !slices.Equal(files, want) {
		t.Errorf("files: %q", files)
	}
}

func TestEverything(t *testing.T) {
	f := newFolder(t)
	f.key(t, "user_ca2")
	f.write(t, "known_hosts", "")
	c, warnings := f.good(t, `
name: JUMP.example.com
cluster: Berlin
listen: ["127.0.0.1:0", "[::1]:3023"]
admin_socket: state/admin.sock
host_key: host_key
host_certificate: ./host_key-cert.pub
jump_ca: `+f.path("jump_ca")+`
user_cas: [user_ca.pub, user_ca2.pub]
host_cas: [host_ca.pub]
inventory: [hosts.yaml, "extra1,"]
require_host_certificate: false
hosts:
  - {hosts: "db,web", require_host_certificate: true}
  - {labels: {env: prod}, require_host_certificate: true}
known_hosts: known_hosts
dial_timeout: 10s
login_timeout: 20s
drain_timeout: 1h30m
keep_alive: 1m
store: {dir: store, reserve: 96MiB, close_reserve: 64MiB, ballast: 8MiB, retain_for: 90d, retain_size: 1TB}
audit_dir: audit
max_stream: 64KiB
accept_env: []
limits: {connections: 10, per_identity: 9, unauthenticated: 8, channels_per_connection: 7, sessions_per_connection: 6}
roles:
  - name: a
    identities: [joe, "*@ops"]
    principals: team
    logins: [root, joe]
    hosts: [web, "!web2.example.com"]
    labels: {env: prod}
    permit: [shell, dynamic_forwarding, local_forwarding]
    recording: best_effort
    record_input: true
    max_session: 8h
    idle: 15m
    recordings: own
    remove_recordings: true
    read_audit: true
  - {name: b, identities: eve, deny: all}
  - {name: c, hosts: all, deny: [sftp]}
  - {name: d, identities: auditor, recordings: all}
`)
	if len(warnings) > 0 {
		t.Errorf("warnings: %q", warnings)
	}
	switch {
	case c.Name != "jump.example.com", c.Cluster != "Berlin", len(c.Listen) != 2, c.AdminSocket != f.path("state/admin.sock"):
		t.Errorf("who and where: %+v", c)
	case c.DialTimeout != 10*time.Second, c.LoginTimeout != 20*time.Second, c.DrainTimeout != 90*time.Minute, c.KeepAlive != time.Minute:
		t.Errorf("timeouts: %+v", c)
	case c.Store != Store{f.path("store"), 96 << 20, 64 << 20, 8 << 20, 90 * 24 * time.Hour, 1e12}, c.MaxStream != 64<<10:
		t.Errorf("store: %+v", c.Store)
	case c.Limits != Limits{10, 9, 8, 7, 6}, len(c.AcceptEnv) != 0, len(c.UserCAs) != 2, !slices.Equal(c.KnownHosts, []string{f.path("known_hosts")}):
		t.Errorf("limits and more: %+v", c)
	}
	requires := map[string]bool{}
	for _, h := range c.Inventory.Hosts() {
		requires[h.Name] = c.RequireHostCertificate(h)
	}
	if want := map[string]bool{"Web1.example.com": true, "web2.example.com": true, "db1": true, "db2": true, "extra1": false}; !maps.Equal(requires, want) {
		t.Errorf("certificates required: %v", requires)
	}
	r := c.Rules.Roles[0]
	if r.Deny || !slices.Equal(r.Identities, []string{"joe", "*@ops"}) || !slices.Equal(r.Principals, []string{"team"}) ||
		!slices.Equal(r.Logins, []string{"root", "joe"}) || len(r.Permit) != 2 || r.Recording != "best_effort" || !r.RecordInput ||
		r.MaxSession != 8*time.Hour || r.Idle != 15*time.Minute || r.Recordings != "own" || !r.RemoveRecordings || !r.ReadAudit {
		t.Errorf("role: %+v", r)
	}
	for host, want := range map[string]bool{"web1.EXAMPLE.com": true, "web2.example.com": false, "db1": false, "": false} {
		if got := r.Hosts(host); got != want {
			t.Errorf("role a on %q: %v", host, got)
		}
	}
	for _, r := range c.Rules.Roles[1:3] {
		if !r.Deny || r.Hosts != nil {
			t.Errorf("role %s: %+v", r.Name, r)
		}
	}
	if r := c.Rules.Roles[3]; r.Recordings != "all" || r.Recording != "strict" || r.Hosts != nil || r.Permit != nil {
		t.Errorf("role d: %+v", r)
	}
}

// TestAllAtOnce holds that one run tells of all mistakes, in the order of lines.
func TestAllAtOnce(t *testing.T) {
	f := newFolder(t)
	got := f.mistakes(t, `name: jump.example.com
lisen: 1
host_key: nothing
dial_timeout: x
jump_ca: jump_ca
user_cas: nothing.pub
inventory: hosts.yaml
store: {dir: s, reserve: 1}
roles:
  - {name: a, deny: all, hosts: nowhere}
  - {name: b, permit: [fly]}
`)
	var lines []string
	for _, g := range got {
		line, _, _ := strings.Cut(strings.TrimPrefix(g, "jump.yaml:"), " ")
		lines = append(lines, line)
	}
	if want := []string{"", "", "2:", "3:", "4:", "6:", "8:", "10:", "11:", "11:", "11:", "11:"}; !slices.Equal(lines, want) {
		t.Errorf("lines %q of\n%s", lines, strings.Join(got, "\n"))
	}
}

func TestWarnings(t *testing.T) {
	f := newFolder(t)
	f.write(t, "none.yaml", "all: {hosts: {}}")
	head, _, _ := strings.Cut(minimal, "roles:")
	const role = "name: r, identities: a, logins: a, permit: all"
	for _, c := range []struct{ text, want string }{
		{head, "roles: is missing: nobody may do anything"},
		{head + "roles: []", "jump.yaml:9: roles: there is none"},
		{head + "roles:\n# none yet\n", "jump.yaml:9: roles: there is none"},
		{head + "roles: [{" + role + ", hosts: [web, gone]}]", `jump.yaml:9: roles[0].hosts[1]: no host matches pattern "gone"`},
		{head + "roles: [{" + role + ", hosts: 'db:&web'}]", "roles[0].hosts: no host matches limit"},
		{head + "roles: [{" + role + ", labels: {env: x}}]", `roles[0].labels: no host matches label "env=x"`},
		{head + "roles: [{name: r, hosts: empty, deny: all}]", "roles[0].hosts: no host matches limit"},
		{head + "roles: [{" + role + ", hosts: all, record_input: true, recording: off}]", "record_input: has no effect"},
		{"accept_env: ['L*']\n" + minimal, `jump.yaml:1: accept_env: "L*" lets people set LD_PRELOAD`},
		{"require_host_certificate: false\n" + minimal, "known_hosts: is missing"},
		{strings.Replace(minimal, "hosts.yaml", "none.yaml", 1), "inventory: there is no host in it"},
	} {
		_, warnings := f.good(t, c.text)
		if len(warnings) != 1 || !strings.Contains(warnings[0], c.want) {
			t.Errorf("got %q, want %q", warnings, c.want)
		}
	}
}

func TestCertificate(t *testing.T) {
	f := newFolder(t)
	for name, c := range map[string]struct {
		change  func(*ssh.Certificate)
		warning string
		mistake string
	}{
		"expired":       {func(c *ssh.Certificate) { c.ValidBefore = uint64(now.Unix()) - 1 }, "clients will refuse it", ""},
		"not yet valid": {func(c *ssh.Certificate) { c.ValidAfter = uint64(now.Unix()) + 60 }, "clients will refuse it", ""},
		"soon over":     {func(c *ssh.Certificate) { c.ValidBefore = uint64(now.Add(36 * time.Hour).Unix()); c.ValidAfter = 1 }, "expires in 1d12h, at 2026-11-23T00:00:00Z", ""},
		"forever":       {func(c *ssh.Certificate) { c.ValidAfter, c.ValidBefore = 0, ssh.CertTimeInfinity }, "", ""},
		"for a user":    {func(c *ssh.Certificate) { c.CertType = ssh.UserCert }, "", "host certificate expected, got a user certificate"},
		"for all":       {func(c *ssh.Certificate) { c.ValidPrincipals = nil }, "", "no principals"},
		"by another CA": {func(c *ssh.Certificate) { f.sign(t, c, f.user) }, "", "host_cas doesn't have its CA"},
		"forged": {func(c *ssh.Certificate) {
			f.sign(t, c, f.host)
			c.Serial++
		}, "", "not signed by a trusted authority"},
		"forged and expired": {func(c *ssh.Certificate) {
			c.ValidBefore = uint64(now.Unix()) - 1
			f.sign(t, c, f.host)
			c.Serial++
		}, "", "not signed by a trusted authority"},
	} {
		t.Run(name, func(t *testing.T) {
			f.write(t, "host_key-cert.pub", certLine(f.certificate(t, c.change)))
			if c.mistake != "" {
				if got := f.mistakes(t, minimal); len(got) != 1 || !strings.Contains(got[0], c.mistake) {
					t.Errorf("got %q, want %q", got, c.mistake)
				}
				return
			}
			_, warnings := f.good(t, minimal)
			if c.warning == "" && len(warnings) > 0 || c.warning != "" && (len(warnings) != 1 || !strings.Contains(warnings[0], c.warning)) {
				t.Errorf("got %q, want %q", warnings, c.warning)
			}
		})
	}
}

// TestFilesOfInventory: folders within folders are looked at, too.
func TestFilesOfInventory(t *testing.T) {
	f := newFolder(t)
	for _, dir := range []string{"inventory/more/group_vars", "inventory/group_vars/web"} {
		if err := os.MkdirAll(f.path(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	f.write(t, "inventory/more/hosts.yaml", fleet)
	f.write(t, "inventory/group_vars/web/a.yml", "a: b\n")
	c, _ := f.good(t, strings.Replace(minimal, "hosts.yaml", "inventory", 1))
	for _, want := range []string{"inventory", "inventory/more", "inventory/group_vars", "inventory/group_vars/web", "inventory/host_vars"} {
		if !slices.Contains(c.Files(), f.path(want)) {
			t.Errorf("%s is not among %q", want, c.Files())
		}
	}
}

func TestRevoked(t *testing.T) {
	f := newFolder(t)
	bad := f.key(t, "bad")
	b := krl.Builder{Generated: now}
	if err := b.Key(bad.PublicKey()); err != nil {
		t.Fatal(err)
	}
	list, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"KRL": string(list), "list": certLine(bad.PublicKey())} {
		f.write(t, "revoked", text)
		c, warnings := f.good(t, "revoked_keys: revoked\n"+minimal)
		if len(warnings) > 0 || !c.Revoked.Revoked(bad.PublicKey()) || c.Revoked.Revoked(f.user.PublicKey()) {
			t.Errorf("%s: %q, %+v", name, warnings, c.Revoked)
		}
		if !slices.Contains(c.Files(), f.path("revoked")) {
			t.Errorf("%s: nobody looks whether it changes: %q", name, c.Files())
		}
	}
	f.write(t, "revoked", certLine(f.user.PublicKey()))
	if _, warnings := f.good(t, "revoked_keys: revoked\n"+minimal); len(warnings) != 1 || !strings.Contains(warnings[0], "jump.yaml:5: user_cas: the key SHA256:") {
		t.Errorf("a revoked CA: %q", warnings)
	}
	f.write(t, "revoked", "SSHKRL\n\x00")
	if got := f.mistakes(t, "revoked_keys: revoked\n"+minimal); len(got) != 1 || !strings.HasPrefix(got[0], `jump.yaml:1: revoked_keys: "revoked": `) {
		t.Errorf("a broken list: %q", got)
	}
}

// TestNoHostCA: a fleet without host certificates needs no host CA.
func TestNoHostCA(t *testing.T) {
	f := newFolder(t)
	f.write(t, "known_hosts", "")
	c, warnings := f.good(t, "require_host_certificate: false\nknown_hosts: known_hosts\n"+strings.Replace(minimal, "host_cas: host_ca.pub\n", "", 1))
	if len(warnings) > 0 || len(c.HostCAs) > 0 || c.HostSigner == nil {
		t.Errorf("%q, %+v", warnings, c)
	}
}

func TestFile(t *testing.T) {
	f := newFolder(t)
	for name, c := range map[string]struct{ text, want string }{
		"empty":     {"", "jump.yaml: it is empty"},
		"comment":   {"# nothing\n", "jump.yaml: it is empty"},
		"list":      {"- a\n", "jump.yaml:1: must be a mapping with some of name, cluster,"},
		"no YAML":   {"name: [\n", "jump.yaml:"},
		"tabs":      {"a:\n\tb: c\n", "jump.yaml:2: found character that cannot start any token"},
		"documents": {minimal + "---\n" + minimal, "jump.yaml: it holds more than one document"},
		"huge":      {strings.Repeat("#", 1<<20+1), "is larger than 1MiB"},
	} {
		if got := f.mistakes(t, c.text); len(got) != 1 || !strings.Contains(got[0], c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
	_, _, err := Load(t.Context(), f.path("nothing.yaml"))
	if all := Errors(nil); !errors.As(err, &all) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %T: %v", err, err)
	}
	if err := os.Chmod(f.path("jump.yaml"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Load(t.Context(), f.path("jump.yaml")); err == nil || !strings.Contains(err.Error(), "everybody may change it") {
		t.Errorf("a file that everybody may write: %v", err)
	}
}
