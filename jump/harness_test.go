package jump_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/inventory"
	"github.com/fleetca/fleetca/inventory/ansible"
	"github.com/fleetca/fleetca/jump"
	"github.com/fleetca/fleetca/jump/access"
	"github.com/fleetca/fleetca/jump/audit"
	"github.com/fleetca/fleetca/jump/cast"
	"github.com/fleetca/fleetca/jump/config"
	"github.com/fleetca/fleetca/jump/replay"
	"github.com/fleetca/fleetca/jump/store"
	"github.com/fleetca/fleetca/jump/store/memstore"
	"github.com/fleetca/fleetca/testenv"
	"github.com/fleetca/fleetca/testenv/fleettest"
)

// authority is a CA key of a test.
type authority struct{ ssh.Signer }

func newAuthority(t testing.TB) authority {
	t.Helper()
	return authority{newKey(t)}
}

func newKey(t testing.TB) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sign makes a certificate. Unlike ca.Authority it signs whatever a test wants
// to see refused.
func (a authority) sign(t testing.TB, key ssh.PublicKey, kind uint32, id string, principals []string, change func(*ssh.Certificate)) *ssh.Certificate {
	t.Helper()
	now := time.Now()
	cert := &ssh.Certificate{
		Key: key, Serial: 7, CertType: kind, KeyId: id, ValidPrincipals: principals,
		ValidAfter: uint64(now.Add(-time.Minute).Unix()), ValidBefore: uint64(now.Add(time.Hour).Unix()),
		Permissions: ssh.Permissions{},
	}
	if kind == ssh.UserCert {
		cert.Extensions = map[string]string{
			"permit-pty": "", "permit-agent-forwarding": "", "permit-port-forwarding": "", "permit-X11-forwarding": "", "permit-user-rc": "",
		}
	}
	if change != nil {
		change(cert)
	}
	if err := cert.SignCert(rand.Reader, a.Signer); err != nil {
		t.Fatal(err)
	}
	return cert
}

// world is a fleet of real sshd hosts with certificates, a jump host in this
// process, and people with real ssh clients.
type world struct {
	t                      testing.TB
	dir                    string
	userCA, hostCA, jumpCA authority
	fleet                  *testenv.Fleet
	inventory              *inventory.Inventory
	settings               *config.Config
	store                  store.Store
	audit                  *audit.Log
	server                 *jump.Server
	port                   int
	logs                   *logBuffer
	login                  string
	stop                   func()
}

// worldConfig says what is not as usual.
type worldConfig struct {
	hosts    []string
	host     testenv.HostConfig
	settings func(*config.Config)
	roles    []access.Role
	store    store.Store
	// principals of a host's certificate; its name if nil.
	principals map[string][]string
	// certify, if it returns nil for a host, leaves it without a certificate.
	certify func(w *world, name string, key ssh.PublicKey) *ssh.Certificate
	reload  func(w *world) (*config.Config, error)
	vars    func(*testenv.Host) map[string]any
	// fleet, if set, starts another fleet than the usual one.
	fleet func(w *world)
}

func everywhere(string) bool { return true }

// openRole lets everybody do everything and is recorded.
func openRole() access.Role {
	return access.Role{
		Name: "open", Identities: []string{"*"}, Logins: []string{"*"}, Hosts: everywhere, Permit: access.Actions(),
		Recording: access.Strict, Recordings: access.All, ReadAudit: true, RemoveRecordings: true,
	}
}

func newWorld(t testing.TB, c worldConfig) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), userCA: newAuthority(t), hostCA: newAuthority(t), jumpCA: newAuthority(t), logs: &logBuffer{}}
	if c.fleet != nil {
		c.fleet(w)
	} else {
		w.startFleet(c)
	}
	ctx := context.Background()
	var err error
	if w.store = c.store; w.store == nil {
		w.store = memstore.New()
	}
	log := slog.New(slog.NewTextHandler(w.logs, nil))
	w.audit, err = audit.Open(ctx, audit.Config{Dir: filepath.Join(w.dir, "audit"), Store: w.store, ServerID: "jump.example.com", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	own := newKey(t)
	shown, err := ssh.NewCertSigner(w.hostCA.sign(t, own.PublicKey(), ssh.HostCert, "jump.example.com", []string{"jump.example.com"}, nil), own)
	if err != nil {
		t.Fatal(err)
	}
	roles := c.roles
	if roles == nil {
		roles = []access.Role{openRole()}
	}
	w.settings = &config.Config{
		Name: "jump.example.com", Cluster: "main", Listen: []string{"127.0.0.1:0"},
		HostSigner: shown, JumpCA: w.jumpCA.Signer,
		UserCAs: []ssh.PublicKey{w.userCA.PublicKey()}, HostCAs: []ssh.PublicKey{w.hostCA.PublicKey()},
		Inventory: w.inventory, Rules: access.Rules{Roles: roles},
		DialTimeout: 10 * time.Second, LoginTimeout: 20 * time.Second, DrainTimeout: time.Second, KeepAlive: 30 * time.Second,
		MaxStream: config.DefaultMaxStream, AcceptEnv: config.DefaultAcceptEnv(), Limits: config.DefaultLimits(),
	}
	if c.settings != nil {
		c.settings(w.settings)
	}
	jc := jump.Config{Settings: w.settings, Store: w.store, Audit: w.audit, Log: log, Software: "test"}
	if c.reload != nil {
		jc.Reload = func(context.Context) (*config.Config, []string, error) {
			cfg, err := c.reload(w)
			return cfg, nil, err
		}
	}
	if w.server, err = jump.New(jc); err != nil {
		t.Fatal(err)
	}
	if err := w.server.Listen(ctx); err != nil {
		t.Fatal(err)
	}
	w.port = w.server.Addresses()[0].(*net.TCPAddr).Port
	serving, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		if err := w.server.Serve(serving); err != nil {
			t.Error("serve:", err)
		}
	})
	w.stop = sync.OnceFunc(func() {
		cancel()
		done.Wait()
	})
	t.Cleanup(func() {
		w.stop()
		if err := w.audit.Close(); err != nil {
			t.Error("audit:", err)
		}
		if c.store == nil {
			_ = w.store.Close()
		}
		if t.Failed() {
			t.Logf("the jump host's log:\n%s", w.logs.String())
		}
	})
	return w
}

func (w *world) startFleet(c worldConfig) {
	t := w.t
	names := c.hosts
	if names == nil {
		names = []string{"web1", "web2"}
	}
	caFile := filepath.Join(w.dir, "user_ca.pub")
	w.write("user_ca.pub", ssh.MarshalAuthorizedKey(w.userCA.PublicKey()), 0o644)
	host := c.host
	if host.KeyTypes == nil {
		host.KeyTypes = []string{testenv.Ed25519}
	}
	w.fleet = fleettest.Start(t, testenv.Config{Names: names, Host: host, PerHost: func(name string, h *testenv.HostConfig) {
		h.Top += fmt.Sprintf("TrustedUserCAKeys %s\nHostCertificate %s\n", caFile, filepath.Join(w.dir, name+"-cert.pub"))
	}})
	for _, h := range w.fleet.Hosts() {
		w.login = h.Login()
		key := h.PublicKeys()[0]
		principals := c.principals[h.Name()]
		if principals == nil {
			principals = []string{h.Name()}
		}
		var cert *ssh.Certificate
		if c.certify != nil {
			cert = c.certify(w, h.Name(), key)
		} else {
			cert = w.hostCA.sign(t, key, ssh.HostCert, h.Name(), principals, nil)
		}
		if cert == nil {
			continue
		}
		w.write(h.Name()+"-cert.pub", ssh.MarshalAuthorizedKey(cert), 0o644)
		if err := h.Reload(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(w.dir, "hosts.yaml")
	if err := w.fleet.Inventory(path, testenv.InventoryConfig{HostVars: c.vars}); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.inventory, err = ansible.Load(context.Background(), path); err != nil {
		t.Fatal(err)
	}
}

func (w *world) write(name string, content []byte, mode os.FileMode) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, content, mode); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// logBuffer gathers the server's log.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// sessions waits until n sessions have ended, and returns them, oldest first.
func (w *world) sessions(n int) []store.Session {
	w.t.Helper()
	var out []store.Session
	w.eventually("that many sessions have ended", func() bool {
		out = out[:0]
		for s, err := range w.store.Sessions(context.Background(), store.Query{}) {
			if err != nil {
				w.t.Fatal(err)
			}
			if s.State != store.Open {
				out = append(out, s)
			}
		}
		return len(out) >= n
	})
	if len(out) != n {
		w.t.Fatalf("%d sessions, want %d: %+v", len(out), n, out)
	}
	slices.Reverse(out)
	return out
}

func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			w.t.Fatalf("gave up waiting: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// raw is the recorded output of a session.
func (w *world) raw(id string) string {
	w.t.Helper()
	var b bytes.Buffer
	if err := replay.Export(context.Background(), &b, w.store, id, replay.Raw); err != nil {
		w.t.Fatal(err)
	}
	return b.String()
}

// events are the audit events of a kind.
func (w *world) events(kind string) []audit.Record {
	w.t.Helper()
	if err := w.audit.Sync(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	var out []audit.Record
	for r, err := range w.audit.Query(context.Background(), store.AuditQuery{Event: kind}) {
		if err != nil {
			w.t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

// recorded are the events of a session.
func (w *world) recorded(id string) iter.Seq[cast.Event] {
	return func(yield func(cast.Event) bool) {
		for e, err := range replay.Events(context.Background(), w.store, id) {
			if err != nil {
				w.t.Errorf("recording of %s: %v", id, err)
				return
			}
			if !yield(e) {
				return
			}
		}
	}
}

// typed is the recorded input.
func (w *world) typed(id string) string {
	var b strings.Builder
	for e := range w.recorded(id) {
		if e.Kind == cast.Input {
			b.Write(e.Data)
		}
	}
	return b.String()
}
