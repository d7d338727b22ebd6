package ca_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca"
	"github.com/fleetca/fleetca/ca/profile"
)

// memory is a ledger that keeps entries, or fails after keeping them.
type memory struct {
	mu      sync.Mutex
	entries []ca.Entry
	calls   int
	fail    error
}

func (m *memory) Append(_ context.Context, e ...ca.Entry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	m.entries = append(m.entries, e...)
	return m.fail
}

func newSigner(t testing.TB, kind string) ssh.Signer {
	t.Helper()
	var key any
	var err error
	switch kind {
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case "ecdsa":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "rsa":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		t.Fatalf("no key type %q", kind)
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func config(t testing.TB, l ca.Ledger) ca.Config {
	return ca.Config{
		Kind: profile.User, Signer: newSigner(t, "ed25519"), Rules: profile.DefaultRules(),
		Ledger: l, By: "tester@here", Now: func() time.Time { return noon },
	}
}

func request(t testing.TB) profile.Request {
	return profile.Request{
		Kind: profile.User, PublicKey: newSigner(t, "ed25519").PublicKey(),
		KeyID: "alice", Principals: []string{"root", "deploy"},
	}
}

func TestSignRecordsFirst(t *testing.T) {
	m := &memory{}
	a, err := ca.New(config(t, m))
	if err != nil {
		t.Fatal(err)
	}
	certs, err := a.Sign(t.Context(), request(t), request(t), request(t))
	if err != nil {
		t.Fatal(err)
	}
	if m.calls != 1 || len(m.entries) != 3 || len(certs) != 3 {
		t.Fatalf("%d certificates, %d entries in %d writes; want 3, 3, 1", len(certs), len(m.entries), m.calls)
	}
	for i, cert := range certs {
		e := m.entries[i]
		if e.Serial != cert.Serial || e.Serial == 0 || e.Serial>>63 != 0 {
			t.Errorf("entry %d: serial %d, certificate has %d", i, e.Serial, cert.Serial)
		}
		if e.Key != ssh.FingerprintSHA256(cert.Key) || e.CA != ssh.FingerprintSHA256(cert.SignatureKey) {
			t.Errorf("entry %d: fingerprints do not match", i)
		}
		if !e.ValidAfter.Equal(noon.Add(-time.Minute)) || !e.ValidBefore.Equal(noon.Add(12*time.Hour)) {
			t.Errorf("entry %d: validity %s to %s", i, e.ValidAfter, e.ValidBefore)
		}
		if e.By != "tester@here" || e.KeyID != "alice" || len(e.Extensions) != 5 {
			t.Errorf("entry %d: %+v", i, e)
		}
		if err := e.Check(); err != nil {
			t.Errorf("entry %d: %v", i, err)
		}
	}
}

func TestSignRefuses(t *testing.T) {
	broken := errors.New("disk full")
	m := &memory{fail: broken}
	a, err := ca.New(config(t, m))
	if err != nil {
		t.Fatal(err)
	}
	if certs, err := a.Sign(t.Context(), request(t)); !errors.Is(err, broken) || certs != nil {
		t.Errorf("signed although the ledger failed: %v, %v", certs, err)
	}

	m = &memory{}
	if a, err = ca.New(config(t, m)); err != nil {
		t.Fatal(err)
	}
	bad := request(t)
	bad.Principals = []string{"*"}
	if _, err := a.Sign(t.Context(), request(t), bad); err == nil || len(m.entries) != 0 {
		t.Errorf("one bad request of two: error %v, %d entries recorded; want an error and none", err, len(m.entries))
	}
	host := request(t)
	host.Kind = profile.Host
	if _, err := a.Sign(t.Context(), host); err == nil || !strings.Contains(err.Error(), "a user CA can't sign a host certificate") {
		t.Errorf("host certificate from a user CA: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.Sign(gone, request(t)); !errors.Is(err, context.Canceled) || len(m.entries) != 0 {
		t.Errorf("cancelled: error %v, %d entries", err, len(m.entries))
	}
}

func TestNewRefuses(t *testing.T) {
	userCA := newSigner(t, "ed25519")
	cert := &ssh.Certificate{Key: newSigner(t, "ed25519").PublicKey(), CertType: ssh.UserCert, ValidPrincipals: []string{"x"}}
	leaf := newSigner(t, "ed25519")
	cert.Key = leaf.PublicKey()
	if err := cert.SignCert(rand.Reader, userCA); err != nil {
		t.Fatal(err)
	}
	certSigner, err := ssh.NewCertSigner(cert, leaf)
	if err != nil {
		t.Fatal(err)
	}
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	shortSigner, err := ssh.NewSignerFromKey(short)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*ca.Config)
		want   string
	}{
		"no kind":          {func(c *ca.Config) { c.Kind = "" }, "Kind"},
		"odd kind":         {func(c *ca.Config) { c.Kind = "jump" }, "Kind"},
		"no signer":        {func(c *ca.Config) { c.Signer = nil }, "Signer not set"},
		"no ledger":        {func(c *ca.Config) { c.Ledger = nil }, "Ledger not set"},
		"no rules":         {func(c *ca.Config) { c.Rules = profile.Rules{} }, "Rules"},
		"certificate":      {func(c *ca.Config) { c.Signer = certSigner }, "got a certificate"},
		"short RSA":        {func(c *ca.Config) { c.Signer = shortSigner }, "1024 bits"},
		"RSA without SHA2": {func(c *ca.Config) { c.Signer = onlySign{newSigner(t, "rsa")} }, "rsa-sha2-512"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t, &memory{})
			c.change(&cfg)
			if _, err := ca.New(cfg); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

// onlySign hides everything but the plain Signer.
type onlySign struct{ s ssh.Signer }

func (o onlySign) PublicKey() ssh.PublicKey { return o.s.PublicKey() }
func (o onlySign) Sign(r io.Reader, d []byte) (*ssh.Signature, error) {
	return o.s.Sign(r, d)
}

// liar signs with SHA-1, whatever it is asked for, or with another key.
type liar struct {
	ssh.Signer
	with ssh.AlgorithmSigner
	algo string
}

func (l liar) SignWithAlgorithm(r io.Reader, d []byte, _ string) (*ssh.Signature, error) {
	return l.with.SignWithAlgorithm(r, d, l.algo)
}

func (l liar) Sign(r io.Reader, d []byte) (*ssh.Signature, error) {
	return l.with.SignWithAlgorithm(r, d, l.algo)
}

func TestSignDistrustsSigner(t *testing.T) {
	rsaKey, other := newSigner(t, "rsa"), newSigner(t, "rsa")
	ed, ed2 := newSigner(t, "ed25519"), newSigner(t, "ed25519")
	for name, c := range map[string]struct {
		signer ssh.Signer
		want   string
	}{
		"SHA-1":         {liar{rsaKey, rsaKey.(ssh.AlgorithmSigner), ssh.KeyAlgoRSA}, `signature of type "ssh-rsa"`},
		"other RSA key": {liar{rsaKey, other.(ssh.AlgorithmSigner), ssh.KeyAlgoRSASHA512}, "does not verify"},
		"other key":     {liar{ed, ed2.(ssh.AlgorithmSigner), ssh.KeyAlgoED25519}, "does not verify"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t, &memory{})
			cfg.Signer = c.signer
			a, err := ca.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := a.Sign(t.Context(), request(t)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestSerialNeverZero(t *testing.T) {
	cfg := config(t, &memory{})
	// Sixteen zero bytes and the lone sign bit would make three zero serials.
	seed := append(make([]byte, 16), 0x80, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 7)
	cfg.Rand = io.MultiReader(bytes.NewReader(seed), rand.Reader)
	a, err := ca.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	certs, err := a.Sign(t.Context(), request(t))
	if err != nil {
		t.Fatal(err)
	}
	if certs[0].Serial != 7 {
		t.Errorf("serial %d, want 7", certs[0].Serial)
	}
}

func TestRSASignsWithSHA512(t *testing.T) {
	cfg := config(t, &memory{})
	cfg.Signer = newSigner(t, "rsa")
	a, err := ca.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	certs, err := a.Sign(t.Context(), request(t))
	if err != nil {
		t.Fatal(err)
	}
	if got := certs[0].Signature.Format; got != ssh.KeyAlgoRSASHA512 {
		t.Errorf("signature of type %q", got)
	}
}
