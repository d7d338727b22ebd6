package remote

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/inventory"
	"github.com/fleetca/fleetca/testenv"
	"github.com/fleetca/fleetca/testenv/fleettest"
)

// run runs a program that must succeed.
func command(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// keygen makes a key file with ssh-keygen.
func keygen(t testing.TB, kind, passphrase string, more ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if kind == "rsa" {
		more = append(more, "-b", "2048") // the default takes a second to find
	}
	command(t, "ssh-keygen", append([]string{"-q", "-t", kind, "-N", passphrase, "-f", path}, more...)...)
	return path
}

// startAgent starts a real ssh-agent with those keys.
func startAgent(t testing.TB, keys ...string) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "agent")
	cmd := exec.Command("ssh-agent", "-D", "-a", socket)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for _, key := range keys {
		var out []byte
		var err error
		for range 200 { // until the agent listens
			add := exec.Command("ssh-add", "-q", key)
			add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
			if out, err = add.CombinedOutput(); err == nil {
				break
			}
		}
		if err != nil {
			t.Fatalf("ssh-add: %v: %s", err, out)
		}
	}
	return socket
}

// trusting is a host that lets in whatever the authority certifies, and the
// public keys of the files named, and nobody else.
func trusting(t testing.TB, ca string, keys ...string) testenv.HostConfig {
	t.Helper()
	var authorized strings.Builder
	for _, key := range keys {
		data, err := os.ReadFile(key + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		authorized.Write(data)
	}
	top := "AuthorizedKeysFile " + writeTemp(t, "authorized_keys", authorized.String()) + "\nMaxAuthTries 20\n"
	if ca != "" {
		top += "TrustedUserCAKeys " + ca + ".pub\n"
	}
	return testenv.HostConfig{Top: top}
}

func certify(t testing.TB, ca, key, principal string) {
	t.Helper()
	command(t, "ssh-keygen", "-q", "-s", ca, "-I", "test", "-n", principal, key+".pub")
}

// TestKeys logs in with every kind of key that ssh would use.
func TestKeys(t *testing.T) {
	ca := keygen(t, "ed25519", "")
	plain, rsa, ecdsa := keygen(t, "ed25519", ""), keygen(t, "rsa", ""), keygen(t, "ecdsa", "")
	encrypted, pem := keygen(t, "ed25519", "a passphrase"), keygen(t, "rsa", "a passphrase", "-m", "PEM")
	beside, named, stranger := keygen(t, "ed25519", ""), keygen(t, "ed25519", ""), keygen(t, "ed25519", "")
	inAgent, certInAgent := keygen(t, "rsa", ""), keygen(t, "ecdsa", "")
	f := fleettest.Start(t, testenv.Config{Host: trusting(t, ca, plain, rsa, ecdsa, encrypted, pem, inAgent)})
	h := f.Hosts()[0]
	for _, key := range []string{beside, named, certInAgent} {
		certify(t, ca, key, h.Login())
	}
	elsewhere := filepath.Join(t.TempDir(), "elsewhere-cert.pub")
	if err := os.Rename(named+"-cert.pub", elsewhere); err != nil {
		t.Fatal(err)
	}
	socket := startAgent(t, stranger, inAgent, certInAgent)
	onlyPublic := filepath.Join(t.TempDir(), "public")
	if data, err := os.ReadFile(inAgent + ".pub"); err != nil || os.WriteFile(onlyPublic, data, 0o600) != nil {
		t.Fatal(err)
	}
	known := filepath.Join(t.TempDir(), "known_hosts")
	if err := f.KnownHosts(known); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, config string
		refused      string // part of the error, if it is to fail
	}{
		{"file", "IdentityFile " + plain, ""},
		{"rsa file", "IdentityFile " + rsa, ""},
		{"ecdsa file", "IdentityFile " + ecdsa, ""},
		{"several files", "IdentityFile " + stranger + "\nIdentityFile " + plain, ""},
		{"encrypted", "IdentityFile " + encrypted, ""},
		{"encrypted, old format", "IdentityFile " + pem, ""},
		{"certificate beside", "IdentityFile " + beside, ""},
		{"certificate named", "IdentityFile " + named + "\nCertificateFile " + elsewhere, ""},
		{"agent", "IdentityFile none\nIdentityAgent " + socket, ""},
		{"agent, by public file", "IdentityFile " + onlyPublic + "\nIdentitiesOnly yes\nIdentityAgent " + socket, ""},
		{"certificate file with the agent's key", "CertificateFile " + certInAgent + "-cert.pub\nIdentityFile none\nIdentitiesOnly yes\nIdentityAgent " + socket, ""},
		{"agent without its keys named", "IdentityFile " + stranger + "\nIdentitiesOnly yes\nIdentityAgent " + socket, "tried agent"},
		{"unknown key", "IdentityFile " + stranger, "tried " + stranger},
		{"no file", "IdentityFile /nonexistent/key", "no such file"},
		{"no agent", "IdentityFile none\nIdentityAgent /nonexistent/agent", "connecting to ssh-agent"},
		{"no key", "IdentityFile none", "nothing to offer"},
		{"forbidden", "PubkeyAuthentication no\nIdentityFile " + plain, "nothing to offer"},
		{"certificate that is none", "IdentityFile none\nCertificateFile " + plain + ".pub", "not a user certificate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			config := tt.config
			if !strings.Contains(config, "IdentityAgent") {
				config += "\nIdentityAgent none"
			}
			d := newDialer(t, Config{Passphrase: func(context.Context, string) ([]byte, error) {
				return []byte("a passphrase"), nil
			}}, config+"\nUserKnownHostsFile "+known)
			c, err := d.Dial(t.Context(), of(t, h, nil), Options{})
			if tt.refused == "" {
				if err != nil {
					t.Fatal(err)
				}
				_ = c.Close()
				return
			}
			var auth *AuthError
			if !errors.As(err, &auth) || !strings.Contains(err.Error(), tt.refused) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestPassphraseOnce holds that many hosts at once ask one time.
func TestPassphraseOnce(t *testing.T) {
	encrypted := keygen(t, "ed25519", "a passphrase")
	f := fleettest.Start(t, testenv.Config{Hosts: 8, Host: trusting(t, "", encrypted)})
	for _, tt := range []struct {
		name, passphrase string
		err              error
	}{{"right", "a passphrase", nil}, {"wrong", "something else", nil}, {"refused", "", errors.New("not today")}} {
		t.Run(tt.name, func(t *testing.T) {
			var asked atomic.Int32
			config := strings.Replace(usual(t, f), f.ClientKey(), encrypted, 1)
			d := newDialer(t, Config{Passphrase: func(_ context.Context, file string) ([]byte, error) {
				asked.Add(1)
				if file != encrypted {
					t.Errorf("asked for %q", file)
				}
				return []byte(tt.passphrase), tt.err
			}}, config)
			var running sync.WaitGroup
			for _, h := range f.Hosts() {
				running.Go(func() {
					c, err := d.Dial(t.Context(), of(t, h, nil), Options{})
					var auth *AuthError
					switch {
					case tt.name == "right" && err != nil:
						t.Error(err)
					case tt.name != "right" && (!errors.As(err, &auth) || tt.err != nil && !errors.Is(err, tt.err)):
						t.Errorf("got %v", err)
					}
					if err == nil {
						_ = c.Close()
					}
				})
			}
			running.Wait()
			if asked.Load() != 1 {
				t.Errorf("asked %d times", asked.Load())
			}
		})
	}
	d := newDialer(t, Config{}, strings.Replace(usual(t, f), f.ClientKey(), encrypted, 1))
	if _, err := d.Dial(t.Context(), of(t, f.Hosts()[0], nil), Options{}); err == nil || !strings.Contains(err.Error(), "is encrypted") {
		t.Errorf("without a way to ask: %v", err)
	}
}

// TestNoQuestionForNothing holds that a passphrase is asked for only when the
// host would take the key.
func TestNoQuestionForNothing(t *testing.T) {
	f := fleettest.Start(t, testenv.Config{})
	encrypted := keygen(t, "ed25519", "a passphrase")
	d := newDialer(t, Config{Passphrase: func(context.Context, string) ([]byte, error) {
		t.Error("asked for the passphrase of a key that isn't let in")
		return nil, errors.New("no")
	}}, "IdentityFile "+encrypted+"\n"+usual(t, f))
	dial(t, d, of(t, f.Hosts()[0], nil))
}

// TestPatience holds that the time in which a person is asked isn't counted.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, p, release := withPatience(t.Context(), 10*time.Second)
		defer release()
		time.Sleep(6 * time.Second)
		resume, inner := p.pause(), p.pause()
		time.Sleep(time.Hour)
		inner()
		time.Sleep(time.Hour)
		if ctx.Err() != nil {
			t.Fatal("ended while paused")
		}
		resume()
		time.Sleep(3 * time.Second)
		if ctx.Err() != nil {
			t.Fatal("ended too early")
		}
		time.Sleep(2 * time.Second)
		if !errors.Is(context.Cause(ctx), errTimeout) {
			t.Errorf("cause %v", context.Cause(ctx))
		}
	})
}

// passwordServer is a server that lets in by password or by asking.
func passwordServer(t *testing.T, password string, interactive bool, question string) (addr string, key ssh.PublicKey, tries *atomic.Int32) {
	t.Helper()
	tries = &atomic.Int32{}
	check := func(got string) (*ssh.Permissions, error) {
		tries.Add(1)
		if got != password {
			return nil, errors.New("wrong")
		}
		return nil, nil
	}
	config := &ssh.ServerConfig{}
	if interactive {
		config.KeyboardInteractiveCallback = func(_ ssh.ConnMetadata, ask ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
			answers, err := ask("", "", []string{question}, []bool{false})
			if err != nil || len(answers) != 1 {
				return nil, errors.New("no answer")
			}
			return check(answers[0])
		}
	} else {
		config.PasswordCallback = func(_ ssh.ConnMetadata, p []byte) (*ssh.Permissions, error) { return check(string(p)) }
	}
	addr, key = serve(t, config, nil)
	return addr, key, tries
}

// serve runs a server made with x/crypto. session is given each session channel.
func serve(t *testing.T, config *ssh.ServerConfig, session func(ssh.Channel, <-chan *ssh.Request)) (string, ssh.PublicKey) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	hostKey, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	config.AddHostKey(hostKey)
	return listen(t, func(conn net.Conn) {
		c, channels, requests, err := ssh.NewServerConn(conn, config)
		if err != nil {
			return
		}
		defer c.Close()
		go ssh.DiscardRequests(requests)
		for ch := range channels {
			if session == nil {
				_ = ch.Reject(ssh.Prohibited, "no")
				continue
			}
			channel, requests, err := ch.Accept()
			if err != nil {
				return
			}
			go session(channel, requests)
		}
	}), hostKey.PublicKey()
}

// listen runs a server of single connections, which end with the test.
func listen(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			running.Go(func() {
				defer conn.Close()
				handle(conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	return l.Addr().String()
}

// pinned is a host of the inventory whose key is known by its fingerprint.
func pinned(t *testing.T, name, addr string, key ssh.PublicKey) *inventory.Host {
	t.Helper()
	return at(t, name, "someone", addr, map[string]any{
		"fleetca_host_key_fingerprints": []any{ssh.FingerprintSHA256(key)},
	})
}

func TestPassword(t *testing.T) {
	for _, tt := range []struct {
		name        string
		interactive bool
		question    string
		config      string
		password    string
		tries       int32
		ok          bool
	}{
		{"password", false, "", "", "secret", 1, true},
		{"asking", true, "Password: ", "", "secret", 1, true},
		{"wrong", false, "", "", "other", 1, false},
		{"asking, wrong", true, "Password: ", "", "other", 1, false},
		{"forbidden", false, "", "PasswordAuthentication no", "secret", 0, false},
		{"asking forbidden", true, "x", "KbdInteractiveAuthentication no", "secret", 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr, key, tries := passwordServer(t, "secret", tt.interactive, tt.question)
			var asked atomic.Int32
			d := newDialer(t, Config{Password: func(context.Context, string) (string, error) {
				asked.Add(1)
				return tt.password, nil
			}}, "IdentityFile none\nIdentityAgent none\n"+tt.config)
			var running sync.WaitGroup
			for i := range 4 {
				running.Go(func() {
					c, err := d.Dial(t.Context(), pinned(t, "web"+itoa(i), addr, key), Options{})
					var auth *AuthError
					switch {
					case tt.ok && err != nil:
						t.Error(err)
					case !tt.ok && (!errors.As(err, &auth) || auth.PasswordRefused != (tt.tries > 0)):
						t.Errorf("got %v", err)
					}
					if err == nil {
						_ = c.Close()
					}
				})
			}
			running.Wait()
			if want := min(tt.tries, 1); asked.Load() != want {
				t.Errorf("asked %d times", asked.Load())
			}
			if tries.Load() != 4*tt.tries {
				t.Errorf("%d tries on the server, want one a host", tries.Load())
			}
		})
	}
	addr, key, _ := passwordServer(t, "secret", true, "")
	d := newDialer(t, Config{Password: func(context.Context, string) (string, error) {
		return "", errors.New("no terminal")
	}}, "IdentityFile none\nIdentityAgent none\n")
	if _, err := d.Dial(t.Context(), pinned(t, "web1", addr, key), Options{}); err == nil || !strings.Contains(err.Error(), "no terminal") {
		t.Errorf("no way to ask: %v", err)
	}
}

func itoa(i int) string { return string(rune('0' + i)) }
