package route

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/testenv"
	"github.com/fleetca/fleetca/testenv/fleettest"
)

// certifiedFleet are hosts with a certificate of the host CA for their names, to
// which certificates of the user CA lead.
func certifiedFleet(t *testing.T, hostCA, userCA *keyPair, config testenv.Config) *testenv.Fleet {
	t.Helper()
	more := config.PerHost
	config.PerHost = func(name string, h *testenv.HostConfig) {
		if more != nil {
			more(name, h)
		}
		k := newKey(t)
		k.certify(t, hostCA, ssh.HostCert, name)
		h.Top += "TrustedUserCAKeys " + userCA.path + ".pub\n" + certifiedHost(k)
	}
	return fleettest.Start(t, config)
}

// TestLogins holds what a real sshd lets in, and what is said where it doesn't.
func TestLogins(t *testing.T) {
	hostCA, userCA, otherCA := newKey(t), newKey(t), newKey(t)
	banner := writeTemp(t, "banner", "Only for herons.\x1b[31m\n")
	revoked := newKey(t)
	principals := writeTemp(t, "principals", "birds\n")
	f := certifiedFleet(t, hostCA, userCA, testenv.Config{
		Names: []string{"usual", "principals", "banner", "nobody", "both", "revoking"},
		PerHost: func(name string, h *testenv.HostConfig) {
			switch name {
			case "principals":
				h.Top = "AuthorizedPrincipalsFile " + principals + "\n"
			case "banner":
				h.Top = "Banner " + banner + "\n"
			case "nobody":
				h.Top = "PubkeyAuthentication no\nPasswordAuthentication yes\n"
			case "both":
				h.Top = "AuthenticationMethods publickey,password\nPasswordAuthentication yes\n"
			case "revoking":
				h.Top = "RevokedKeys " + revoked.path + ".pub\n"
			}
		},
	})
	login := f.Hosts()[0].Login()
	r := routerFor(t, Config{HostCAs: []ssh.PublicKey{hostCA.PublicKey()}}, f, nil)
	rsaKey := newRSAKey(t, 2048)
	rsaSigner := certSigner(t, rsaKey, rsaKey.certify(t, userCA, ssh.UserCert, login))
	expiredKey := newKey(t)
	expired := certSigner(t, expiredKey, expiredKey.certify(t, userCA, ssh.UserCert, login, valid(-2*time.Hour, -time.Hour)))
	revokedSigner := certSigner(t, revoked, revoked.certify(t, userCA, ssh.UserCert, login))
	for _, tt := range []struct {
		name, host string
		signer     ssh.Signer
		login      string
		text       string // "" if let in
		partial    bool
	}{
		{"usual", "usual", user(t, userCA, login), login, "", false},
		{"rsa", "usual", rsaSigner, login, "", false},
		{"wrong principal", "usual", user(t, userCA, "heron"), login, "the host refuses the certificate", false},
		{"other CA", "usual", user(t, otherCA, login), login, "the host refuses the certificate", false},
		{"expired", "usual", expired, login, "the host refuses the certificate", false},
		{"no such login", "usual", user(t, userCA, "nobody-has-this"), "nobody-has-this", "the host refuses the certificate", false},
		{"by principals file", "principals", user(t, userCA, "fish,birds"), login, "", false},
		{"not in the principals file", "principals", user(t, userCA, login), login, "the host refuses the certificate", false},
		{"banner", "banner", user(t, userCA, login), login, "", false},
		{"refused with a banner", "banner", user(t, userCA, "heron"), login, `the host refuses the certificate, it said "Only for herons.`, false},
		{"no certificates", "nobody", user(t, userCA, login), login, "the host takes no certificates, only ", false},
		{"more than a certificate", "both", user(t, userCA, login), login, "wants more beside it", true},
		{"revoked", "revoking", revokedSigner, login, "the host refuses the certificate", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			said := newNotices()
			u, err := r.Dial(t.Context(), resolve(t, r, tt.host), tt.login, tt.signer, said.add)
			if tt.text == "" {
				if err != nil {
					t.Fatal(err)
				}
				if got := run(t, u, "echo hello"); got != "hello\n" {
					t.Errorf("got %q", got)
				}
				if wanted := tt.name == "banner"; strings.HasPrefix(u.Banner, "Only for herons.") != wanted {
					t.Errorf("banner %q", u.Banner)
				}
				if u.Address != f.Host(tt.host).Addr() || u.Attempts != 1 {
					t.Errorf("%s after %d attempts", u.Address, u.Attempts)
				}
				_ = u.Conn.Close()
				return
			}
			var refused *LoginRefusedError
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), tt.text) || refused.Partial != tt.partial || refused.Dropped {
				t.Errorf("got %#v: %v", err, err)
			}
			if strings.ContainsRune(err.Error(), 0x1b) {
				t.Errorf("the host's text is passed on as it is: %q", err)
			}
			if said.String() != "" {
				t.Errorf("told: %s", said)
			}
		})
	}
	// What isn't a login by certificate is refused before anybody is called.
	for _, s := range []ssh.Signer{nil, f.Signer(), certSigner(t, rsaKey, rsaKey.certify(t, userCA, ssh.HostCert, login))} {
		if _, err := r.Dial(t.Context(), resolve(t, r, "usual"), login, s, nil); err == nil || !strings.Contains(err.Error(), "user certificate") {
			t.Errorf("%T: %v", s, err)
		}
	}
	if _, err := r.Dial(t.Context(), Destination{}, login, rsaSigner, nil); err == nil {
		t.Error("no destination is no error")
	}
}

// TestMaxStartups holds that logins get through to an sshd that drops all but
// one that hasn't logged in yet.
func TestMaxStartups(t *testing.T) {
	hostCA, userCA := newKey(t), newKey(t)
	f := certifiedFleet(t, hostCA, userCA, testenv.Config{Host: testenv.HostConfig{MaxStartups: "1:100:1"}})
	h := f.Hosts()[0]
	r := routerFor(t, Config{HostCAs: []ssh.PublicKey{hostCA.PublicKey()}, DialTimeout: 2 * time.Minute}, f, nil)
	signer := user(t, userCA, h.Login())
	var running sync.WaitGroup
	var attempts atomic.Int64
	said := newNotices()
	for range 20 {
		running.Go(func() {
			u, err := r.Dial(t.Context(), resolve(t, r, h.Name()), h.Login(), signer, said.add)
			if err != nil {
				t.Error(err)
				return
			}
			attempts.Add(int64(u.Attempts))
			_ = u.Close()
		})
	}
	running.Wait()
	if attempts.Load() <= 20 {
		t.Errorf("%d attempts: nothing was dropped", attempts.Load())
	}
	if !strings.Contains(said.String(), h.Name()+" drops connections (busy?), trying again") {
		t.Errorf("told: %s", said)
	}
}

// TestStartedLate holds that a host that is being restarted is waited for.
func TestStartedLate(t *testing.T) {
	hostCA, userCA := newKey(t), newKey(t)
	f := certifiedFleet(t, hostCA, userCA, testenv.Config{})
	h := f.Hosts()[0]
	r := routerFor(t, Config{HostCAs: []ssh.PublicKey{hostCA.PublicKey()}, DialTimeout: time.Minute}, f, nil)
	if err := h.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	signer := user(t, userCA, h.Login())
	said := newNotices()
	started := make(chan error, 1)
	go func() {
		<-said.first
		started <- h.Start(context.Background())
	}()
	u, err := r.Dial(t.Context(), resolve(t, r, h.Name()), h.Login(), signer, said.add)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	if said.String() != h.Name()+" refuses connections, trying again" || u.Attempts < 2 {
		t.Errorf("%d attempts, told: %s", u.Attempts, said)
	}
}

// TestUnreachable holds how long is waited for what doesn't come, and what is
// said then.
func TestUnreachable(t *testing.T) {
	hostCA, userCA := newKey(t), newKey(t)
	signer := user(t, userCA, "root")
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	rest := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	others := map[string]string{
		"closed": closed.Addr().String(),
		"silent": listen(t, rest),
		"hangs": listen(t, func(c net.Conn) {
			_, _ = io.WriteString(c, "SSH-2.0-x\r\n")
			rest(c)
		}),
		"drops":    listen(t, func(net.Conn) {}),
		"penalty":  listen(t, func(c net.Conn) { _, _ = io.WriteString(c, "Not allowed at this time\r\n") }),
		"web":      listen(t, func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad \x1bRequest\r\n\r\n"); rest(c) }),
		"chatters": listen(t, func(c net.Conn) { _, _ = io.Copy(c, endless{}) }),
		"floods": listen(t, func(c net.Conn) {
			_, _ = io.WriteString(c, "SSH-2.0-x\r\n")
			_, _ = io.Copy(c, endless{})
		}),
	}
	r := routerFor(t, Config{HostCAs: []ssh.PublicKey{hostCA.PublicKey()}, DialTimeout: 1500 * time.Millisecond}, nil, others)
	hosts := map[string]map[string]any{"nowhere": {"ansible_host": "nowhere.invalid"}}
	nowhere := newRouter(t, Config{Inventory: fleetOf(t, hosts), DialTimeout: 1500 * time.Millisecond})
	for _, tt := range []struct {
		name   string
		silent bool
		again  bool // there is more than one attempt
		said   string
		text   string
		told   string
	}{
		{"closed", false, true, "", "connection refused (", "closed refuses connections, trying again"},
		{"silent", true, false, "", "nothing came back", ""},
		{"hangs", false, false, "", "timed out", ""},
		{"drops", false, true, "", " attempts in ", "drops drops connections (busy?), trying again"},
		{"penalty", false, true, "Not allowed at this time", `it said "Not allowed at this time"`, "penalty drops connections (busy?), trying again"},
		{"web", false, false, "HTTP/1.1 400 Bad \x1bRequest", `it said "HTTP/1.1 400 Bad \x1bRequest"`, ""},
		{"chatters", false, false, strings.Repeat(strings.Repeat("x", 99)+"\n", 3)[:299], "more than any SSH server would", ""},
		{"floods", false, false, "", "connecting to floods", ""},
		{"nowhere", false, false, "", "no such host", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := r
			if tt.name == "nowhere" {
				r = nowhere
			}
			told := newNotices()
			began := time.Now()
			_, err := r.Dial(t.Context(), resolve(t, r, tt.name), "root", signer, told.add)
			var unreachable *UnreachableError
			if !errors.As(err, &unreachable) || unreachable.Silent != tt.silent || unreachable.Said != tt.said || !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("got %#v: %v", err, err)
			}
			if tt.again != (unreachable.Attempts > 1) {
				t.Errorf("%d attempts", unreachable.Attempts)
			}
			if (tt.told == "") != (told.String() == "") || !strings.HasPrefix(told.String(), tt.told) {
				t.Errorf("told: %s", told)
			}
			if strings.ContainsRune(err.Error(), 0x1b) {
				t.Errorf("%q", err)
			}
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
		if i%100 == 99 {
			b[i] = '\n'
		}
	}
	return len(b), nil
}

// TestSlowOnce holds that a host that hangs, and doesn't the next time, is
// reached: within the time for all attempts, none takes it all.
func TestSlowOnce(t *testing.T) {
	hostCA, userCA := newKey(t), newKey(t)
	config := serverConfig(t, hostCA, "slow")
	var count atomic.Int32
	addr := listen(t, func(c net.Conn) {
		if count.Add(1) == 1 {
			_, _ = io.WriteString(c, "SSH-2.0-x\r\n")
			_, _ = io.Copy(io.Discard, c)
			return
		}
		serveSSH(c, config)
	})
	r := routerFor(t, Config{HostCAs: []ssh.PublicKey{hostCA.PublicKey()}, DialTimeout: 10 * time.Second}, nil, map[string]string{"slow": addr})
	told := newNotices()
	u, err := r.Dial(t.Context(), resolve(t, r, "slow"), "root", user(t, userCA, "root"), told.add)
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Close(); err != nil {
		t.Error(err)
	}
	if got := told.String(); got != "slow is slow, still waiting for it\nslow is slow, trying again" {
		t.Errorf("told: %s", got)
	}
}

// TestCancelled holds that Dial ends with its context, whatever it waits for.
func TestCancelled(t *testing.T) {
	hostCA, userCA := newKey(t), newKey(t)
	config := serverConfig(t, hostCA, "signs")
	reached := make(chan struct{}, 10)
	others := map[string]string{
		"silent": listen(t, func(c net.Conn) {
			reached <- struct{}{}
			_, _ = io.Copy(io.Discard, c)
		}),
		"signs": listen(t, func(c net.Conn) { serveSSH(c, config) }),
		"drops": listen(t, func(net.Conn) { reached <- struct{}{} }),
	}
	r := routerFor(t, Config{HostCAs: []ssh.PublicKey{hostCA.PublicKey()}}, nil, others)
	k := newKey(t)
	cert := k.certify(t, userCA, ssh.UserCert, "root")
	for name := range others {
		signer := certSigner(t, k, cert)
		if name == "signs" {
			// An agent that asks somebody who isn't there.
			ours, theirs := net.Pipe()
			go func() {
				defer theirs.Close()
				_, _ = io.CopyN(io.Discard, theirs, 5)
				_, _ = theirs.Write(listing(cert.Marshal()))
				_, _ = io.CopyN(io.Discard, theirs, 4)
				reached <- struct{}{}
				_, _ = io.Copy(io.Discard, theirs)
			}()
			var err error
			if signer, err = AgentSigner(t.Context(), ours, cert); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := errors.New("the client has gone")
		done := make(chan error, 1)
		go func() {
			_, err := r.Dial(ctx, resolve(t, r, name), "root", signer, nil)
			done <- err
		}()
		<-reached
		cancel(gone)
		if err := <-done; !errors.Is(err, gone) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestHostileLogins holds what servers may do while they let us in.
func TestHostileLogins(t *testing.T) {
	hostCA, userCA := newKey(t), newKey(t)
	open := serverConfig(t, hostCA, "open")
	open.NoClientAuth = true
	// A server that says much, and one that ends the connection when it sees
	// who comes.
	talkative := serverConfig(t, hostCA, "talkative")
	talkative.BannerCallback = func(ssh.ConnMetadata) string { return strings.Repeat("B", 60_000) }
	endlessly := serverConfig(t, hostCA, "endlessly")
	endlessly.PreAuthConnCallback = func(c ssh.ServerPreAuthConn) {
		for c.SendAuthBanner(strings.Repeat("B", 30_000)) == nil {
		}
	}
	others := map[string]string{
		"open":      listen(t, func(c net.Conn) { serveSSH(c, open) }),
		"talkative": listen(t, func(c net.Conn) { serveSSH(c, talkative) }),
		"endlessly": listen(t, func(c net.Conn) { serveSSH(c, endlessly) }),
		"leaves": listen(t, func(c net.Conn) {
			config := serverConfig(t, hostCA, "leaves")
			config.PublicKeyCallback = func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) {
				_ = c.Close()
				return nil, errors.New("no")
			}
			serveSSH(c, config)
		}),
	}
	r := routerFor(t, Config{HostCAs: []ssh.PublicKey{hostCA.PublicKey()}, DialTimeout: 20 * time.Second}, nil, others)
	signer := user(t, userCA, "root")
	dial := func(name string) (*Upstream, error) {
		return r.Dial(t.Context(), resolve(t, r, name), "root", signer, nil)
	}
	var refused *LoginRefusedError
	if _, err := dial("open"); !errors.As(err, &refused) || !refused.Unproven {
		t.Errorf("a host that lets in anybody: %v", err)
	}
	if _, err := dial("leaves"); !errors.As(err, &refused) || !refused.Dropped {
		t.Errorf("a host that leaves: %v", err)
	}
	u, err := dial("talkative")
	if err != nil {
		t.Fatal(err)
	}
	if len(u.Banner) != maxBanner {
		t.Errorf("%d bytes of banner", len(u.Banner))
	}
	_ = u.Close()
	if _, err := dial("endlessly"); err == nil {
		t.Error("a host that never stops greeting is let pass")
	}
}

// TestFailingSigner holds that a signer's failure is no refusal by the host.
func TestFailingSigner(t *testing.T) {
	hostCA, userCA := newKey(t), newKey(t)
	config := serverConfig(t, hostCA, "web1")
	addr := listen(t, func(c net.Conn) { serveSSH(c, config) })
	r := routerFor(t, Config{HostCAs: []ssh.PublicKey{hostCA.PublicKey()}}, nil, map[string]string{"web1": addr})
	_, err := r.Dial(t.Context(), resolve(t, r, "web1"), "root", brokenSigner{user(t, userCA, "root")}, nil)
	if !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), `logging in to web1 as "root"`) {
		t.Errorf("got %v", err)
	}
}

type brokenSigner struct{ ssh.Signer }

func (brokenSigner) Sign(io.Reader, []byte) (*ssh.Signature, error) { return nil, os.ErrPermission }
