// Package ca is the certificate authority: it draws serial numbers, records
// what it is about to issue, and signs.
//
// It refuses to sign what could not be recorded first, to sign with a key that
// is a certificate or weak, to sign for more than its rules allow, and to hand
// out a certificate whose signature does not verify.
package ca

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca/profile"
)

// Ledger records certificates.
type Ledger interface {
	// Append records entries durably, all of them or with an error: when it
	// returns nil they survive a crash of this process and of the machine.
	// After an error any of them may or may not be recorded. It is safe for
	// concurrent use.
	Append(ctx context.Context, entries ...Entry) error
}

// Config is what an Authority is made of.
type Config struct {
	// Kind is what the authority signs: profile.User or profile.Host. Required.
	Kind profile.Kind
	// Signer is the CA key. Required; must be safe for concurrent use.
	Signer ssh.Signer
	// Rules bound what is signed. Required; see profile.DefaultRules.
	Rules profile.Rules
	// Ledger records every certificate before it is signed. Required.
	Ledger Ledger
	// By says in the ledger who issues, such as "alice@laptop". Optional.
	By string
	// Now is the clock; time.Now if nil.
	Now func() time.Time
	// Rand is where serials and nonces come from; crypto/rand if nil.
	Rand io.Reader
}

// Authority issues certificates of one kind with one key. It is safe for
// concurrent use.
type Authority struct {
	kind   profile.Kind
	signer ssh.Signer
	public ssh.PublicKey
	rules  profile.Rules
	ledger Ledger
	by     string
	now    func() time.Time
	rand   io.Reader
}

// New makes an Authority.
func New(c Config) (*Authority, error) {
	if _, err := c.Rules.For(c.Kind); err != nil {
		return nil, fmt.Errorf("authority: Kind: %w", err)
	}
	if err := c.Rules.Check(); err != nil {
		return nil, fmt.Errorf("authority: Rules: %w", err)
	}
	if c.Signer == nil {
		return nil, errors.New("authority: Signer not set")
	}
	if c.Ledger == nil {
		return nil, errors.New("authority: Ledger not set")
	}
	public, err := profile.CheckKey(c.Signer.PublicKey())
	if err != nil {
		return nil, fmt.Errorf("authority: Signer: %w", err)
	}
	signer, err := modern(c.Signer, public)
	if err != nil {
		return nil, fmt.Errorf("authority: Signer: %w", err)
	}
	a := &Authority{
		kind: c.Kind, signer: signer, public: public, rules: c.Rules,
		ledger: c.Ledger, by: c.By, now: c.Now, rand: c.Rand,
	}
	if a.now == nil {
		a.now = time.Now
	}
	if a.rand == nil {
		a.rand = rand.Reader
	}
	return a, nil
}

// modern makes an RSA key sign with SHA-512. Left to themselves, signers may
// choose SHA-1, which OpenSSH has refused in certificates since 8.2.
func modern(s ssh.Signer, public ssh.PublicKey) (ssh.Signer, error) {
	if public.Type() != ssh.KeyAlgoRSA {
		return s, nil
	}
	as, ok := s.(ssh.AlgorithmSigner)
	if !ok {
		return nil, errors.New("RSA key can't choose its hash; rsa-sha2-512 is needed")
	}
	return ssh.NewSignerWithAlgorithms(as, []string{ssh.KeyAlgoRSASHA512})
}

// PublicKey is the key that those who trust the authority must know.
func (a *Authority) PublicKey() ssh.PublicKey { return a.public }

// Kind is what the authority signs.
func (a *Authority) Kind() profile.Kind { return a.kind }

// Rules are the bounds of what it signs.
func (a *Authority) Rules() profile.Rules { return a.rules }

// Sign issues a certificate for each request, in order, or none. All are
// recorded with one write to the ledger before the first is signed; a crash or
// an error after that leaves records of certificates that do not exist, which
// does no harm, and never the reverse.
func (a *Authority) Sign(ctx context.Context, requests ...profile.Request) ([]*ssh.Certificate, error) {
	if len(requests) == 0 {
		return nil, nil
	}
	now := a.now()
	certs := make([]*ssh.Certificate, len(requests))
	entries := make([]Entry, len(requests))
	for i, req := range requests {
		if req.Kind != a.kind {
			return nil, fmt.Errorf("certifying %q: a %s CA can't sign a %s certificate", label(req), a.kind, req.Kind)
		}
		serial, err := a.serial()
		if err != nil {
			return nil, err
		}
		cert, err := a.rules.Certificate(req, serial, now)
		if err != nil {
			return nil, fmt.Errorf("certifying %q: %w", label(req), err)
		}
		certs[i], entries[i] = cert, newEntry(cert, a.public, a.by, now)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := a.ledger.Append(ctx, entries...); err != nil {
		return nil, fmt.Errorf("recording in the ledger before signing: %w", err)
	}
	for _, cert := range certs {
		// A key in an agent may ask for a touch each time, so a cancelled
		// run must not go on asking.
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := a.sign(cert); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err() // it is why an agent's connection was closed
			}
			return nil, fmt.Errorf("signing the certificate for %q: %w", cert.KeyId, err)
		}
	}
	return certs, nil
}

func (a *Authority) sign(cert *ssh.Certificate) error {
	if err := cert.SignCert(a.rand, a.signer); err != nil {
		return err
	}
	// The signer may be an agent, a token, a colleague's program: look at
	// what came back before anybody relies on it.
	if a.public.Type() == ssh.KeyAlgoRSA && cert.Signature.Format != ssh.KeyAlgoRSASHA512 {
		return fmt.Errorf("the CA key made a signature of type %q in place of %q", cert.Signature.Format, ssh.KeyAlgoRSASHA512)
	}
	checker := ssh.CertChecker{
		SupportedCriticalOptions: []string{"source-address", "force-command"},
		Clock:                    func() time.Time { return time.Unix(int64(cert.ValidAfter), 0) },
	}
	if err := checker.CheckCert(cert.ValidPrincipals[0], cert); err != nil {
		return fmt.Errorf("checking what the CA key signed: %w", err)
	}
	return nil
}

// serial draws a random number of 63 bits, never zero: counted serials would
// need state that two processes share, and revocation by serial needs each to
// be used once.
func (a *Authority) serial() (uint64, error) {
	for {
		var b [8]byte
		if _, err := io.ReadFull(a.rand, b[:]); err != nil {
			return 0, fmt.Errorf("drawing a serial number: %w", err)
		}
		if n := binary.BigEndian.Uint64(b[:]) & math.MaxInt64; n != 0 {
			return n, nil
		}
	}
}

func label(r profile.Request) string {
	if r.KeyID == "" && len(r.Principals) > 0 {
		return r.Principals[0]
	}
	return r.KeyID
}
