package route

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/inventory"
	"github.com/fleetca/fleetca/testenv"
)

func TestMain(m *testing.M) {
	// No agent but those that tests start.
	_ = os.Unsetenv("SSH_AUTH_SOCK")
	os.Exit(m.Run())
}

// writeTemp puts text into a file of the test's own folder.
func writeTemp(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// keyPair is a key, and the file that it is in.
type keyPair struct {
	ssh.Signer
	path string // the public half beside it
}

func newKey(t testing.TB) *keyPair {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return keyOf(t, private)
}

func newRSAKey(t testing.TB, bits int) *keyPair {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return keyOf(t, private)
}

func keyOf(t testing.TB, private crypto.PrivateKey) *keyPair {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	path := writeTemp(t, "key", string(pem.EncodeToMemory(block)))
	if err := os.WriteFile(path+".pub", ssh.MarshalAuthorizedKey(signer.PublicKey()), 0o600); err != nil {
		t.Fatal(err)
	}
	return &keyPair{Signer: signer, path: path}
}

func (k *keyPair) line() string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k.PublicKey())))
}

// certify signs a certificate for the key and writes it beside it.
func (k *keyPair) certify(t testing.TB, ca ssh.Signer, kind uint32, names string, changes ...func(*ssh.Certificate)) *ssh.Certificate {
	t.Helper()
	now := time.Now()
	cert := &ssh.Certificate{
		Key: k.PublicKey(), CertType: kind, KeyId: "test", Serial: 7,
		ValidAfter: uint64(now.Add(-time.Minute).Unix()), ValidBefore: uint64(now.Add(time.Hour).Unix()),
	}
	if names != "" {
		cert.ValidPrincipals = strings.Split(names, ",")
	}
	for _, change := range changes {
		change(cert)
	}
	if err := cert.SignCert(rand.Reader, ca); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(k.path+"-cert.pub", ssh.MarshalAuthorizedKey(cert), 0o600); err != nil {
		t.Fatal(err)
	}
	return cert
}

func valid(from, to time.Duration) func(*ssh.Certificate) {
	return func(c *ssh.Certificate) {
		now := time.Now()
		c.ValidAfter, c.ValidBefore = uint64(now.Add(from).Unix()), uint64(now.Add(to).Unix())
	}
}

// certifiedHost is the configuration of a host that shows this key's certificate.
func certifiedHost(k *keyPair) string {
	return "HostKey " + k.path + "\nHostCertificate " + k.path + "-cert.pub\n"
}

// user is a signer with a certificate of the authority.
func user(t testing.TB, ca ssh.Signer, principals string) ssh.Signer {
	t.Helper()
	k := newKey(t)
	return certSigner(t, k, k.certify(t, ca, ssh.UserCert, principals))
}

func certSigner(t testing.TB, k *keyPair, cert *ssh.Certificate) ssh.Signer {
	t.Helper()
	s, err := ssh.NewCertSigner(cert, k.Signer)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fleetOf is an inventory of hosts with their variables.
func fleetOf(t testing.TB, hosts map[string]map[string]any) *inventory.Inventory {
	t.Helper()
	b := inventory.NewBuilder()
	for name, vars := range hosts {
		if err := b.AddHost(name, "all", 0, inventory.Position{}); err != nil {
			t.Fatal(err)
		}
		for k, v := range vars {
			if err := b.Set(name, k, inventory.Variable{Value: v}); err != nil {
				t.Fatal(err)
			}
		}
	}
	inv, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

// at are the variables of a host that listens there.
func at(t testing.TB, addr string) map[string]any {
	t.Helper()
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]any{"ansible_host": host, "ansible_port": int64(port)}
}

// routerFor is a Router for the hosts of a fleet and others by address.
func routerFor(t testing.TB, c Config, f *testenv.Fleet, others map[string]string) *Router {
	t.Helper()
	hosts := map[string]map[string]any{}
	if f != nil {
		for _, h := range f.Hosts() {
			hosts[h.Name()] = at(t, h.Addr())
		}
	}
	for name, addr := range others {
		hosts[name] = at(t, addr)
	}
	c.Inventory = fleetOf(t, hosts)
	return newRouter(t, c)
}

func newRouter(t testing.TB, c Config) *Router {
	t.Helper()
	r, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func resolve(t testing.TB, r *Router, name string) Destination {
	t.Helper()
	d, err := r.Resolve(name, 0)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// notices gathers what the person is told.
type notices struct {
	mu    sync.Mutex
	lines []string
	first chan struct{} // closed when there is one
}

func newNotices() *notices { return &notices{first: make(chan struct{})} }

func (n *notices) add(line string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.lines = append(n.lines, line); len(n.lines) == 1 {
		close(n.first)
	}
}

func (n *notices) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.lines, "\n")
}

// run runs a command on the host and returns what it printed.
func run(t testing.TB, u *Upstream, command string) string {
	t.Helper()
	client := ssh.NewClient(u.Conn, u.Channels, u.Requests)
	s, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Output(command)
	if err != nil {
		t.Errorf("%q: %v", command, err)
	}
	return string(out)
}

// listen serves each connection by handle, and waits for all at the end.
func listen(t testing.TB, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, handle)
	return l.Addr().String()
}

func serve(t testing.TB, l net.Listener, handle func(net.Conn)) {
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Error(err)
				}
				return
			}
			running.Go(func() {
				defer context.AfterFunc(ctx, func() { _ = c.Close() })()
				defer c.Close()
				handle(c)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		cancel()
		running.Wait()
	})
}

// serverConfig is that of a host in Go, with a certificate for the name, which
// lets everybody in who proves to have a certificate.
func serverConfig(t testing.TB, ca ssh.Signer, name string) *ssh.ServerConfig {
	t.Helper()
	k := newKey(t)
	c := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, nil }}
	c.AddHostKey(certSigner(t, k, k.certify(t, ca, ssh.HostCert, name)))
	return c
}

// serveSSH speaks SSH over the connection until it ends.
func serveSSH(c net.Conn, config *ssh.ServerConfig) {
	conn, channels, requests, err := ssh.NewServerConn(c, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	go func() {
		for ch := range channels {
			_ = ch.Reject(ssh.Prohibited, "no")
		}
	}()
	_ = conn.Wait()
}
