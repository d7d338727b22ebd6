package provision_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca"
	"github.com/fleetca/fleetca/ca/profile"
	"github.com/fleetca/fleetca/inventory"
	"github.com/fleetca/fleetca/inventory/ansible"
	"github.com/fleetca/fleetca/inventory/sshconfig"
	"github.com/fleetca/fleetca/provision"
	"github.com/fleetca/fleetca/provision/remote"
	"github.com/fleetca/fleetca/testenv"
)

// ledger counts what is signed.
type ledger struct {
	mu      sync.Mutex
	entries []ca.Entry
}

func (l *ledger) Append(_ context.Context, entries ...ca.Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, entries...)
	return nil
}

func (l *ledger) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.entries)
}

func newKey(t testing.TB) (ed25519.PrivateKey, ssh.Signer) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, signer
}

func newSigner(t testing.TB) ssh.Signer {
	t.Helper()
	_, signer := newKey(t)
	return signer
}

// world is a fleet, its inventory and the authorities for it.
type world struct {
	t      testing.TB
	dir    string
	fleet  *testenv.Fleet
	hosts  []*inventory.Host
	hostCA ssh.Signer
	userCA ssh.Signer
	ledger *ledger
	// observe sees every event of runs that are made by provision.
	observe func(provision.Event)
}

func newWorld(t testing.TB, fleet *testenv.Fleet, vars map[string]any) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), fleet: fleet, hostCA: newSigner(t), userCA: newSigner(t), ledger: &ledger{}}
	file := filepath.Join(w.dir, "hosts.yaml")
	if err := fleet.Inventory(file, testenv.InventoryConfig{Vars: vars}); err != nil {
		t.Fatal(err)
	}
	inv, err := ansible.Load(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	w.hosts = inv.Hosts()
	if err := fleet.KnownHosts(filepath.Join(w.dir, "known_hosts")); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("UserKnownHostsFile %s\nStrictHostKeyChecking yes\nIdentityAgent none\n", filepath.Join(w.dir, "known_hosts"))
	if err := os.WriteFile(filepath.Join(w.dir, "ssh_config"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

// config is what provision takes unless a test changes it.
func (w *world) config(change ...func(*provision.Config, *remote.Config)) (provision.Config, remote.Config) {
	w.t.Helper()
	files, err := sshconfig.Load(sshconfig.Files{User: filepath.Join(w.dir, "ssh_config")})
	if err != nil {
		w.t.Fatal(err)
	}
	authority, err := ca.New(ca.Config{Kind: profile.Host, Signer: w.hostCA, Rules: profile.DefaultRules(), Ledger: w.ledger})
	if err != nil {
		w.t.Fatal(err)
	}
	dialing := remote.Config{SSHConfig: files, HostCAs: []ssh.PublicKey{w.hostCA.PublicKey()}, Timeout: 30 * time.Second}
	cfg := provision.Config{
		Authority: authority, HostCA: w.hostCA.PublicKey(), UserCAs: []ssh.PublicKey{w.userCA.PublicKey()},
		DefaultTTL: 90 * 24 * time.Hour, MaxFailPercent: -1, Observe: w.observe,
	}
	for _, c := range change {
		c(&cfg, &dialing)
	}
	return cfg, dialing
}

// provision runs over all hosts.
func (w *world) provision(ctx context.Context, change ...func(*provision.Config, *remote.Config)) *provision.Report {
	w.t.Helper()
	cfg, dialing := w.config(change...)
	dialer, err := remote.New(dialing)
	if err != nil {
		w.t.Fatal(err)
	}
	defer dialer.Close()
	cfg.Dialer = dialer
	p, err := provision.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return p.Run(ctx, w.hosts)
}

// must provisions and expects every host to end in the state.
func (w *world) must(state provision.State, change ...func(*provision.Config, *remote.Config)) *provision.Report {
	w.t.Helper()
	report := w.provision(w.t.Context(), change...)
	for _, h := range report.Hosts {
		if h.State != state {
			w.t.Errorf("%s is %s after %s, want %s: %v", h.Host, h.State, h.Phase, state, h.Err)
		}
	}
	if w.t.Failed() {
		w.t.FailNow()
	}
	return report
}

// steps are the names of one host's steps.
func steps(h provision.HostReport) string {
	var names []string
	for _, s := range h.Steps {
		names = append(names, s.Name)
	}
	return strings.Join(names, ", ")
}

// userCertificate writes a key and a certificate for it, and returns the key's
// file.
func (w *world) userCertificate(name string, signer ssh.Signer, principals ...string) string {
	w.t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		w.t.Fatal(err)
	}
	cert, err := profile.DefaultRules().Certificate(profile.Request{
		Kind: profile.User, PublicKey: key, KeyID: name, Principals: principals, TTL: time.Hour,
	}, 1, time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	if err := cert.SignCert(rand.Reader, signer); err != nil {
		w.t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, name)
	if err != nil {
		w.t.Fatal(err)
	}
	file := filepath.Join(w.dir, name)
	for path, data := range map[string][]byte{
		file:               pem.EncodeToMemory(block),
		file + "-cert.pub": ssh.MarshalAuthorizedKey(cert),
	} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	return file
}

// login runs a command on the host with the plain ssh client, which knows
// nothing but the host CA.
func (w *world) login(host *testenv.Host, keyFile, command string) (string, error) {
	w.t.Helper()
	known := filepath.Join(w.dir, "ca_only")
	line := fmt.Sprintf("@cert-authority * %s", ssh.MarshalAuthorizedKey(w.hostCA.PublicKey()))
	if err := os.WriteFile(known, []byte(line), 0o600); err != nil {
		w.t.Fatal(err)
	}
	address, port, _ := strings.Cut(host.Addr(), ":")
	cmd := exec.CommandContext(w.t.Context(), "ssh", "-F", "none", "-i", keyFile, "-p", port, "-l", host.Login(),
		"-o", "HostName="+address, "-o", "HostKeyAlias="+host.Name(), "-o", "UserKnownHostsFile="+known,
		"-o", "GlobalKnownHostsFile=none", "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes",
		"-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "ConnectTimeout=10", host.Name(), command)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// mustLogin fails the test if the login doesn't work.
func (w *world) mustLogin(host *testenv.Host, keyFile string) {
	w.t.Helper()
	if out, err := w.login(host, keyFile, "echo logged in"); err != nil || !strings.Contains(out, "logged in") {
		w.t.Fatalf("logging in to %s with %s: %v\n%s", host.Name(), filepath.Base(keyFile), err, out)
	}
}
