package keyring_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/fleetca/fleetca/ca/keyring"
	"github.com/fleetca/fleetca/testenv/fleettest"
)

// startAgent runs a real ssh-agent and connects to it.
func startAgent(t *testing.T) *keyring.Agent {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "agent")
	fleettest.Agent(t, socket)
	a, err := keyring.DialAgent(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

func TestFromAgent(t *testing.T) {
	a := startAgent(t)
	for _, kind := range []keyring.Type{keyring.Ed25519, keyring.ECDSA, keyring.RSA} {
		t.Run(string(kind), func(t *testing.T) {
			key, pub := generate(t, kind)
			if _, err := keyring.FromAgent(a, pub); !errors.Is(err, keyring.ErrNotInAgent) {
				t.Errorf("key that is not there: %v", err)
			}
			var private any = key
			if err := a.Add(agent.AddedKey{PrivateKey: private}); err != nil {
				t.Fatal(err)
			}
			signer, err := keyring.FromAgent(a, pub)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(signer.PublicKey().Marshal(), pub.Marshal()) {
				t.Error("another key")
			}
			sig, err := signer.Sign(rand.Reader, []byte("data"))
			if err != nil {
				t.Fatal(err)
			}
			if err := pub.Verify([]byte("data"), sig); err != nil {
				t.Error(err)
			}
			if kind == keyring.RSA && sig.Format != ssh.KeyAlgoRSASHA512 {
				t.Errorf("signature of type %q", sig.Format)
			}
			if _, err := signer.(ssh.AlgorithmSigner).SignWithAlgorithm(rand.Reader, nil, "ssh-dss"); err == nil {
				t.Error("signs as DSA")
			}
		})
	}
}

// oldAgent knows no flags, as agents before OpenSSH 7.2.
type oldAgent struct{ agent.ExtendedAgent }

func (o oldAgent) SignWithFlags(key ssh.PublicKey, data []byte, _ agent.SignatureFlags) (*ssh.Signature, error) {
	return o.Sign(key, data)
}

func TestOldAgentRefused(t *testing.T) {
	ring := agent.NewKeyring().(agent.ExtendedAgent)
	key, pub := generate(t, keyring.RSA)
	if err := ring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
		t.Fatal(err)
	}
	signer, err := keyring.FromAgent(oldAgent{ring}, pub)
	if err != nil {
		t.Fatal(err)
	}
	if sig, err := signer.Sign(rand.Reader, []byte("data")); err == nil {
		t.Errorf("took a signature of type %q", sig.Format)
	}
}

func TestAgentRefuses(t *testing.T) {
	if _, err := keyring.DialAgent(t.Context(), ""); !errors.Is(err, keyring.ErrNoAgent) {
		t.Errorf("no socket: %v", err)
	}
	if _, err := keyring.DialAgent(t.Context(), filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("connected to nothing")
	}
	if _, err := keyring.FromAgent(nil, nil); err == nil {
		t.Error("no agent, no key: accepted")
	}
	key, pub := generate(t, keyring.Ed25519)
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := &ssh.Certificate{Key: pub, CertType: ssh.UserCert}
	if err := cert.SignCert(rand.Reader, signer); err != nil {
		t.Fatal(err)
	}
	if _, err := keyring.FromAgent(agent.NewKeyring().(agent.ExtendedAgent), cert); err == nil {
		t.Error("a certificate passes for a key")
	}
}
