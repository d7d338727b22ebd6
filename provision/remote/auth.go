package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca/trust"
)

// signer is a key that signs when it has been accepted, and asks for its
// passphrase only then.
type signer struct {
	source     string // for errors: "agent", or the file
	public     ssh.PublicKey
	algorithms []string
	sign       func(data []byte, algorithm string) (*ssh.Signature, error)
}

func (s *signer) PublicKey() ssh.PublicKey { return s.public }
func (s *signer) Algorithms() []string     { return s.algorithms }

func (s *signer) Sign(r io.Reader, data []byte) (*ssh.Signature, error) {
	return s.SignWithAlgorithm(r, data, "")
}

func (s *signer) SignWithAlgorithm(_ io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	if algorithm != "" && !slices.Contains(s.algorithms, algorithm) {
		return nil, fmt.Errorf("signing with %s: not allowed", algorithm)
	}
	return s.sign(data, algorithm)
}

// signatureAlgorithms are those of a key: no SHA-1.
func signatureAlgorithms(key ssh.PublicKey) []string {
	if cert, ok := key.(*ssh.Certificate); ok {
		key = cert.Key
	}
	if key.Type() == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{key.Type()}
}

// login is one attempt to be let in. It belongs to the goroutine that makes
// the handshake.
type login struct {
	d        *Dialer
	ctx      func() context.Context // of the attempt
	patience *patience
	t        *target
	wire     *wire

	keys       []*signer
	keysLoaded bool
	tried      []string
	allowed    []string
	started    bool // the server has asked who we are
	sent       bool // the password; it is sent once, to stay clear of lock-outs
	gaveUp     bool // no password to send, or questions that it doesn't answer
	problems   []error
}

// next chooses what to offer. x/crypto calls it after each refusal.
func (l *login) next(c *ssh.ClientAuthContext) (ssh.AuthMethod, error) {
	l.started, l.allowed = true, c.AllowedMethods
	if err := l.ctx().Err(); err != nil {
		return nil, context.Cause(l.ctx())
	}
	if err := l.wire.failed.Load(); err != nil {
		return nil, *err // x/crypto would take it for a refusal
	}
	s := &l.t.settings
	if slices.Contains(c.AllowedMethods, "publickey") && !s.NoPublicKey {
		if !l.keysLoaded {
			l.keys, l.keysLoaded = l.candidates(), true
		}
		if len(l.keys) > 0 {
			key := l.keys[0]
			l.keys = l.keys[1:]
			l.tried = append(l.tried, key.source+" "+ssh.FingerprintSHA256(key.public))
			return ssh.PublicKeys(key), nil
		}
	}
	if l.d.cfg.Password != nil && !l.sent && !l.gaveUp {
		if slices.Contains(c.AllowedMethods, "password") && !s.NoPassword {
			l.tried = append(l.tried, "password")
			return ssh.PasswordCallback(l.password), nil
		}
		if slices.Contains(c.AllowedMethods, "keyboard-interactive") && !s.NoKeyboardInteractive {
			l.tried = append(l.tried, "keyboard-interactive")
			return ssh.KeyboardInteractive(l.questions), nil
		}
	}
	return nil, l.failure(nil)
}

// failure is the error of a login that came to its end.
func (l *login) failure(err error) *AuthError {
	problems := l.problems
	if err != nil {
		problems = append(slices.Clone(problems), err)
	}
	return &AuthError{
		Host: l.t.host, User: l.t.settings.User, Allowed: l.allowed, Tried: l.tried,
		PasswordRefused: l.sent, Err: errors.Join(problems...),
	}
}

// password asks the person once for the whole fleet.
func (l *login) password() (string, error) {
	defer l.patience.pause()()
	password, err := l.d.password.get(l.ctx(), func(ctx context.Context) (string, error) {
		return l.d.cfg.Password(ctx, "SSH password")
	})
	if err != nil {
		l.gaveUp = true
		l.problems = append(l.problems, fmt.Errorf("asking for the password: %w", err))
		return "", err
	}
	l.sent = true
	return password, nil
}

// questions answers keyboard-interactive: one hidden question is the password,
// anything else is not ours to answer.
func (l *login) questions(_, _ string, questions []string, echos []bool) ([]string, error) {
	switch {
	case len(questions) == 0:
		return nil, nil
	case len(questions) > 1 || echos[0] || l.sent:
		err := fmt.Errorf("the server asks %s, which a password doesn't answer", quoted([]byte(strings.Join(questions, " "))))
		l.problems = append(l.problems, err)
		l.gaveUp = true
		return nil, err
	}
	password, err := l.password()
	if err != nil {
		return nil, err
	}
	return []string{password}, nil
}

// candidates are the keys to offer, in ssh's order: certificates that were
// named, keys of files that the agent has, other keys of the agent, and last
// those that only files have.
func (l *login) candidates() []*signer {
	s := &l.t.settings
	agentKeys, agentErr := l.agentKeys()
	if agentErr != nil {
		l.problems = append(l.problems, agentErr)
	}
	var files []*keyFile
	for _, path := range s.IdentityFiles {
		f, err := l.d.keyFile(l.ctx(), path)
		if err != nil {
			if l.ctx().Err() == nil && !(s.DefaultIdentities && isMissing(err)) {
				l.problems = append(l.problems, err)
			}
			continue
		}
		files = append(files, f)
	}
	b := &bag{}
	for _, path := range s.CertificateFiles {
		cert, err := l.d.certificate(l.ctx(), path)
		if err != nil {
			l.problems = append(l.problems, err)
			continue
		}
		if key := l.forCertificate(cert, agentKeys, files); key != nil {
			b.add(key)
		}
	}
	listed := func(key ssh.PublicKey) bool {
		return slices.ContainsFunc(files, func(f *keyFile) bool { return f.holds(key) }) ||
			slices.ContainsFunc(b.signers, func(s *signer) bool { return trust.Same(s.public, key) })
	}
	for _, key := range agentKeys {
		if listed(key) {
			b.add(l.agentSigner(key))
		}
	}
	for _, f := range files {
		// A certificate beside a key whose secret only the agent has.
		if f.cert != nil && slices.ContainsFunc(agentKeys, func(k ssh.PublicKey) bool { return trust.Same(k, f.cert.Key) }) {
			b.add(certified(f.cert, l.agentSigner(f.cert.Key), f.path))
		}
	}
	if !s.IdentitiesOnly {
		for _, key := range agentKeys {
			b.add(l.agentSigner(key))
		}
	}
	for _, f := range files {
		if !f.secret() {
			continue
		}
		plain := l.fileSigner(f)
		if plain == nil {
			continue // fileSigner has noted why
		}
		if f.cert != nil {
			b.add(certified(f.cert, plain, f.path))
		}
		b.add(plain)
	}
	return b.signers
}

// forCertificate finds the secret key of a certificate that was named.
func (l *login) forCertificate(cert *ssh.Certificate, agentKeys []ssh.PublicKey, files []*keyFile) *signer {
	for _, key := range agentKeys {
		if trust.Same(key, cert.Key) {
			return certified(cert, l.agentSigner(key), "agent")
		}
	}
	for _, f := range files {
		if f.secret() && f.public != nil && trust.Same(f.public, cert.Key) {
			return certified(cert, l.fileSigner(f), f.path)
		}
	}
	return nil
}

// certified is a certificate with the key that signs for it.
func certified(cert *ssh.Certificate, key *signer, source string) *signer {
	return &signer{source: source + " certificate", public: cert, algorithms: key.algorithms, sign: key.sign}
}

// bag gathers signers without offering one key twice.
type bag struct{ signers []*signer }

func (b *bag) add(s *signer) {
	for _, have := range b.signers {
		if trust.Same(have.public, s.public) {
			return
		}
	}
	b.signers = append(b.signers, s)
}
