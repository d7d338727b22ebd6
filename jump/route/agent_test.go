package route

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/fleetca/fleetca/testenv"
	"github.com/fleetca/fleetca/testenv/fleettest"
)

// startAgent starts a real ssh-agent, in which a refused confirmation is what
// every question for one ends with.
func startAgent(t testing.TB) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "agent")
	fleettest.Agent(t, socket, "SSH_ASKPASS=/bin/false", "SSH_ASKPASS_REQUIRE=force", "DISPLAY=none")
	return socket
}

func sshAdd(t testing.TB, socket string, args ...string) {
	t.Helper()
	add := exec.Command("ssh-add", append([]string{"-q"}, args...)...)
	add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("ssh-add %q: %v: %s", args, err, out)
	}
}

func dialAgent(t testing.TB, socket string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// spy keeps the requests that are sent to an agent.
type spy struct {
	net.Conn
	mu   sync.Mutex
	sent bytes.Buffer
}

func (s *spy) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent.Write(b)
	return s.Conn.Write(b)
}

// TestAgent holds what is done with a real ssh-agent, whatever it holds, and
// that a real sshd lets us in by it.
func TestAgent(t *testing.T) {
	hostCA, userCA := newKey(t), newKey(t)
	f := certifiedFleet(t, hostCA, userCA, testenv.Config{})
	h := f.Hosts()[0]
	r := routerFor(t, Config{HostCAs: []ssh.PublicKey{hostCA.PublicKey()}}, f, nil)
	mine, rsaKey, stranger := newKey(t), newRSAKey(t, 2048), newKey(t)
	cert := mine.certify(t, userCA, ssh.UserCert, h.Login())
	rsaCert := rsaKey.certify(t, userCA, ssh.UserCert, h.Login())
	stranger.certify(t, userCA, ssh.UserCert, h.Login()) // would be let in, too
	known := filepath.Join(t.TempDir(), "known_hosts")
	if err := f.KnownHosts(known); err != nil {
		t.Fatal(err)
	}
	lock := func(t *testing.T, socket string) {
		c := dialAgent(t, socket)
		if err := agent.NewClient(c).Lock([]byte("secret")); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name string
		fill func(t *testing.T, socket string)
		cert *ssh.Certificate
		list string // error of AgentSigner
		dial string // error of Dial
	}{
		{"certificate", func(t *testing.T, s string) { sshAdd(t, s, stranger.path, mine.path) }, cert, "", ""},
		{"rsa", func(t *testing.T, s string) { sshAdd(t, s, stranger.path, rsaKey.path) }, rsaCert, "", ""},
		{"only the key", func(t *testing.T, s string) { sshAdd(t, s, "-k", mine.path) }, cert, "the agent holds the certificate's key, but not the certificate", ""},
		{"others", func(t *testing.T, s string) { sshAdd(t, s, stranger.path) }, cert, "the agent does not hold the certificate (2 other keys)", ""},
		{"empty", func(*testing.T, string) {}, cert, "the agent holds no keys, or is locked", ""},
		{"locked", func(t *testing.T, s string) { sshAdd(t, s, mine.path); lock(t, s) }, cert, "the agent holds no keys, or is locked", ""},
		{"confirmation denied", func(t *testing.T, s string) { sshAdd(t, s, "-c", mine.path) }, cert, "", "signing by the agent: the agent refuses"},
		{
			"constrained to a destination", func(t *testing.T, s string) { sshAdd(t, s, "-H", known, "-h", h.Name(), mine.path) },
			cert, "", "signing by the agent: the agent refuses",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			socket := startAgent(t)
			tt.fill(t, socket)
			conn := &spy{Conn: dialAgent(t, socket)}
			signer, err := AgentSigner(t.Context(), conn, nil, tt.cert)
			var none *NoCertificateError
			if tt.list != "" {
				if !errors.As(err, &none) || err.Error() != tt.list || none.HoldsKey != (tt.name == "only the key") {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			u, err := r.Dial(t.Context(), resolve(t, r, h.Name()), h.Login(), signer, nil)
			if tt.dial != "" {
				var refused *AgentError
				if !errors.As(err, &refused) || !refused.Refused || !strings.HasSuffix(err.Error(), tt.dial) {
					t.Errorf("got %v", err)
				}
			} else if err != nil {
				t.Fatal(err)
			} else if got := run(t, u, "echo hello"); got != "hello\n" {
				t.Errorf("got %q", got)
			} else {
				_ = u.Conn.Close()
			}
			// Nothing was asked but to list, and to sign with this certificate.
			conn.mu.Lock()
			defer conn.mu.Unlock()
			var asked []byte
			for rest := conn.sent.Bytes(); len(rest) > 0; {
				request, after, ok := cutString(rest)
				if !ok {
					t.Fatal("a request is cut short")
				}
				asked, rest = append(asked, request[0]), after
				if key, _, _ := cutString(request[1:]); request[0] == agentRequestSign && !bytes.Equal(key, tt.cert.Marshal()) {
					t.Errorf("asked to sign with %x", key)
				}
			}
			if !bytes.Equal(asked, []byte{agentRequestKeys, agentRequestSign}) {
				t.Errorf("requests %d", asked)
			}
		})
	}
}

// TestAgentAgain holds that a refusal isn't the end: the next request may be
// granted, and several at once get the answers that belong to them.
func TestAgentAgain(t *testing.T) {
	userCA, mine := newKey(t), newRSAKey(t, 2048)
	cert := mine.certify(t, userCA, ssh.UserCert, "root")
	socket := startAgent(t)
	sshAdd(t, socket, mine.path)
	signer, err := AgentSigner(t.Context(), dialAgent(t, socket), cert)
	if err != nil {
		t.Fatal(err)
	}
	s := signer.(ssh.MultiAlgorithmSigner)
	if got := s.Algorithms(); !slices.Equal(got, []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}) {
		t.Errorf("signs as %q", got)
	}
	if _, err := s.SignWithAlgorithm(nil, []byte("x"), ssh.KeyAlgoRSA); err == nil {
		t.Error("signs with SHA-1")
	}
	if _, err := s.SignWithAlgorithm(nil, make([]byte, maxAgentRequest), ssh.KeyAlgoRSASHA256); err == nil {
		t.Error("signs a long text")
	}
	var running sync.WaitGroup
	for i := range 20 {
		running.Go(func() {
			data := []byte{byte(i)}
			signature, err := s.Sign(nil, data)
			if err != nil || signature.Format != ssh.KeyAlgoRSASHA512 {
				t.Errorf("%v, %v", signature, err)
			} else if err := cert.Key.Verify(data, signature); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	c := agent.NewClient(dialAgent(t, socket))
	if err := c.Lock([]byte("secret")); err != nil {
		t.Fatal(err)
	}
	var refused *AgentError
	if _, err := s.Sign(nil, nil); !errors.As(err, &refused) || !refused.Refused {
		t.Errorf("locked: %v", err)
	}
	if err := c.Unlock([]byte("secret")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sign(nil, nil); err != nil {
		t.Errorf("unlocked: %v", err)
	}
}

// TestAgentContext holds that the context ends whatever an agent is waited for,
// and the agent with it, even one whose reads don't end by closing it.
func TestAgentContext(t *testing.T) {
	userCA, mine := newKey(t), newKey(t)
	cert := mine.certify(t, userCA, ssh.UserCert, "root")
	gone := errors.New("the client has gone")
	for _, when := range []string{"listing", "signing", "before"} {
		ours, theirs := net.Pipe()
		stuck := &unclosable{Conn: ours, closed: make(chan struct{})}
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() {
			_, _ = io.CopyN(io.Discard, theirs, 5)
			if when != "listing" {
				_, _ = theirs.Write(listing(cert.Marshal()))
				_, _ = io.CopyN(io.Discard, theirs, 4)
			}
			cancel(gone)
			_, _ = io.Copy(io.Discard, theirs)
		}()
		if when == "before" {
			cancel(gone)
		}
		s, err := AgentSigner(ctx, stuck, cert)
		if when == "signing" {
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.Sign(nil, []byte("x"))
			if _, again := s.Sign(nil, []byte("x")); !errors.Is(again, gone) {
				t.Errorf("%s, again: %v", when, again)
			}
		}
		if broken := (*AgentError)(nil); !errors.Is(err, gone) || !errors.As(err, &broken) || broken.Refused {
			t.Errorf("%s: %v", when, err)
		}
		<-stuck.closed
		_ = ours.Close()
		_ = theirs.Close()
	}
}

// unclosable is an SSH channel to a client that doesn't confirm its end.
type unclosable struct {
	net.Conn
	closed chan struct{}
}

func (u *unclosable) Close() error {
	close(u.closed)
	return nil
}

// frame puts a message's length before it.
func frame(body []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// listing is an agent's answer that it holds these keys.
func listing(keys ...[]byte) []byte {
	body := binary.BigEndian.AppendUint32([]byte{agentKeys}, uint32(len(keys)))
	for _, k := range keys {
		body = append(append(body, frame(k)...), frame(nil)...)
	}
	return frame(body)
}

// scripted is an agent that says what it says, whatever is asked.
type scripted struct{ io.Reader }

func (scripted) Write(b []byte) (int, error) { return len(b), nil }
func (scripted) Close() error                { return nil }

// TestHostileAgent holds that no answer of an agent is believed that isn't one,
// and that none takes memory before it has come.
func TestHostileAgent(t *testing.T) {
	userCA, mine, other := newKey(t), newKey(t), newKey(t)
	cert := mine.certify(t, userCA, ssh.UserCert, "root")
	list := listing(cert.Marshal())
	sign := func(by ssh.Signer, data string) []byte {
		signature, err := by.Sign(nil, []byte(data))
		if err != nil {
			t.Fatal(err)
		}
		return frame(append([]byte{agentSignature}, frame(ssh.Marshal(signature))...))
	}
	huge := []byte{0xff, 0xff, 0xff, 0xff}
	for _, tt := range []struct {
		name    string
		answers []byte
		text    string
	}{
		{"good", slices.Concat(list, sign(mine, "data")), ""},
		{"nothing", nil, "listing keys by the agent: EOF"},
		{"cut short", list[:20], "unexpected EOF"},
		{"huge", huge, "an answer of 4294967295 bytes is not accepted"},
		{"empty", frame(nil), "an answer of 0 bytes"},
		{"announced, not sent", binary.BigEndian.AppendUint32(nil, maxAgentAnswer), "EOF"},
		{"wrong answer", frame([]byte{6}), "not a list of keys"},
		{"no count", frame([]byte{agentKeys, 0}), "not a list of keys"},
		{"many keys", frame(append([]byte{agentKeys}, huge...)), "it says that it holds 4294967295 keys"},
		{"fewer keys than said", frame([]byte{agentKeys, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0}), "cut short"},
		{"key beyond the end", frame(append([]byte{agentKeys, 0, 0, 0, 1}, huge...)), "cut short"},
		{"more behind", frame(append(list[4:len(list):len(list)], 1)), "more behind"},
		{"failure", frame([]byte{agentFailure}), "the agent refuses"},
		{"old failure", frame([]byte{agent2Failure}), "the agent refuses"},
		{"signature of other data", slices.Concat(list, sign(mine, "other")), "the signature is not good"},
		{"signature by another key", slices.Concat(list, sign(other, "data")), "the signature is not good"},
		{"signature of another type", slices.Concat(list, sign(newRSAKey(t, 2048), "data")), `asked for a signature of type "ssh-ed25519", got "ssh-rsa"`},
		{"list for a signature", slices.Concat(list, list), "not a signature"},
		{"no signature", slices.Concat(list, frame([]byte{agentSignature})), "cut short"},
		{"rubbish for a signature", slices.Concat(list, frame([]byte{agentSignature, 0, 0, 0, 1, 0})), "can't be read"},
		{"lost", list, "signing by the agent: EOF"},
	} {
		s, err := AgentSigner(t.Context(), scripted{bytes.NewReader(tt.answers)}, cert)
		if err == nil {
			_, err = s.Sign(nil, []byte("data"))
		}
		var broken *AgentError
		if tt.text == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		if !errors.As(err, &broken) || !strings.Contains(err.Error(), tt.text) || broken.Refused != strings.HasSuffix(tt.name, "failure") {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.text)
		}
	}
}

// FuzzAgent holds that an agent's answers make no trouble, and that a signature
// that is returned is good.
func FuzzAgent(f *testing.F) {
	userCA, mine := newKey(f), newKey(f)
	cert := mine.certify(f, userCA, ssh.UserCert, "root")
	list := listing(cert.Marshal())
	signature, err := mine.Sign(nil, []byte("data"))
	if err != nil {
		f.Fatal(err)
	}
	signed := frame(append([]byte{agentSignature}, frame(ssh.Marshal(signature))...))
	f.Add(list, signed)
	f.Add(frame([]byte{agentFailure}), signed)
	f.Add(list, frame([]byte{agentFailure}))
	f.Add(listing(), signed)
	f.Add(listing(mine.PublicKey().Marshal()), []byte{})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff}, []byte{0, 0, 0, 0})
	f.Add(list[:9], signed[:9])
	f.Fuzz(func(t *testing.T, first, second []byte) {
		// The keys differ from run to run, so the corpus's own list and
		// signature are of no use later: half of the runs get a good list.
		for _, answers := range [][]byte{slices.Concat(first, second), slices.Concat(list, second)} {
			s, err := AgentSigner(t.Context(), scripted{bytes.NewReader(answers)}, cert)
			if err != nil {
				_ = err.Error()
				continue
			}
			signature, err := s.Sign(nil, []byte("data"))
			if err == nil && cert.Key.Verify([]byte("data"), signature) != nil {
				t.Error("a bad signature is returned")
			}
		}
	})
}
