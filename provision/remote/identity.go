package remote

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/fleetca/fleetca/ca/trust"
)

const (
	// maxKeyFile bounds a key file; the largest real ones are some 20 KiB.
	maxKeyFile = 1 << 20
	// agentTimeout bounds the wait for the agent's list of keys, which asks
	// nobody anything.
	agentTimeout = 10 * time.Second
)

func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

func readKeyFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxKeyFile {
		return nil, fmt.Errorf("%s: not a key file", path)
	}
	return os.ReadFile(path)
}

// keyFile is an identity file, read once for the fleet.
type keyFile struct {
	path string
	// public is nil for an encrypted key in an old format without a .pub file
	// beside it, until it has been decrypted.
	public ssh.PublicKey
	cert   *ssh.Certificate // from the -cert.pub beside it
	// Of these two at most one is set; neither, if the file holds the public
	// half only and the agent has the other.
	key       ssh.Signer
	encrypted []byte
	decrypted *answer[ssh.Signer]
}

func (f *keyFile) secret() bool { return f.key != nil || f.encrypted != nil }

// holds says whether the key, or certificate, is of this file.
func (f *keyFile) holds(key ssh.PublicKey) bool {
	if f.cert != nil && trust.Same(f.cert, key) {
		return true
	}
	if cert, ok := key.(*ssh.Certificate); ok {
		key = cert.Key
	}
	return f.public != nil && trust.Same(f.public, key)
}

// keyFile returns the file, reading it if no other host has.
func (d *Dialer) keyFile(ctx context.Context, path string) (*keyFile, error) {
	d.mu.Lock()
	a := d.files[path]
	if a == nil {
		a = newAnswer[*keyFile]()
		d.files[path] = a
	}
	d.mu.Unlock()
	return a.get(ctx, func(context.Context) (*keyFile, error) { return loadKeyFile(path) })
}

func loadKeyFile(path string) (*keyFile, error) {
	f := &keyFile{path: path, decrypted: newAnswer[ssh.Signer]()}
	if data, err := readKeyFile(path + ".pub"); err == nil {
		f.public, _, _, _, _ = ssh.ParseAuthorizedKey(data)
	}
	data, err := readKeyFile(path)
	switch {
	case isMissing(err) && f.public != nil:
		// The secret half is in the agent, perhaps on a token.
	case err != nil:
		return nil, fmt.Errorf("reading identity: %w", err)
	default:
		if err := f.parse(data); err != nil {
			return nil, fmt.Errorf("reading identity %s: %w", path, err)
		}
	}
	if cert, ok := f.public.(*ssh.Certificate); ok {
		f.cert, f.public = cert, cert.Key
	}
	if f.cert == nil {
		if cert, err := loadCertificate(path + "-cert.pub"); err == nil && (f.public == nil || trust.Same(cert.Key, f.public)) {
			f.cert = cert
		}
	}
	return f, nil
}

func (f *keyFile) parse(data []byte) error {
	if public, _, _, _, err := ssh.ParseAuthorizedKey(data); err == nil {
		f.public = public // IdentityFile may name the public half
		return nil
	}
	if err := private(f.path); err != nil {
		return err
	}
	key, err := ssh.ParsePrivateKey(data)
	var missing *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &missing):
		f.encrypted = data
		if missing.PublicKey != nil {
			f.public = missing.PublicKey
		}
		return nil
	case err != nil:
		return err
	}
	f.key, f.public = key, key.PublicKey()
	return nil
}

// private refuses a secret key that others may read, as ssh does. Like there,
// a file of another user's is that user's business.
func private(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if ok && int(st.Uid) == os.Getuid() && info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("others may read this private key (mode %04o); it is not used, as ssh wouldn't: chmod 600 it", info.Mode().Perm())
	}
	return nil
}

// certificate returns a CertificateFile, read once.
func (d *Dialer) certificate(ctx context.Context, path string) (*ssh.Certificate, error) {
	d.mu.Lock()
	a := d.certs[path]
	if a == nil {
		a = newAnswer[*ssh.Certificate]()
		d.certs[path] = a
	}
	d.mu.Unlock()
	return a.get(ctx, func(context.Context) (*ssh.Certificate, error) { return loadCertificate(path) })
}

func loadCertificate(path string) (*ssh.Certificate, error) {
	data, err := readKeyFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading certificate: %w", err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(data)
	if err != nil {
		return nil, fmt.Errorf("reading certificate %s: %w", path, err)
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok || cert.CertType != ssh.UserCert {
		return nil, fmt.Errorf("reading certificate %s: not a user certificate", path)
	}
	return cert, nil
}

// fileSigner signs with a file's key. If what the file holds can't even be
// told without its passphrase, that is asked for now.
func (l *login) fileSigner(f *keyFile) *signer {
	open := func() (ssh.AlgorithmSigner, error) {
		key, err := l.open(f)
		if err != nil {
			l.problems = append(l.problems, err)
			return nil, err
		}
		return key.(ssh.AlgorithmSigner), nil //nolint:forcetypeassert // all of x/crypto's are
	}
	if f.public == nil {
		key, err := open()
		if err != nil {
			return nil
		}
		return l.opened(f, key)
	}
	return &signer{
		source: f.path, public: f.public, algorithms: signatureAlgorithms(f.public),
		sign: func(data []byte, algorithm string) (*ssh.Signature, error) {
			key, err := open()
			if err != nil {
				return nil, err
			}
			return key.SignWithAlgorithm(rand.Reader, data, algorithm)
		},
	}
}

func (l *login) opened(f *keyFile, key ssh.AlgorithmSigner) *signer {
	return &signer{
		source: f.path, public: key.PublicKey(), algorithms: signatureAlgorithms(key.PublicKey()),
		sign: func(data []byte, algorithm string) (*ssh.Signature, error) {
			return key.SignWithAlgorithm(rand.Reader, data, algorithm)
		},
	}
}

// open returns the file's secret key, asking once for its passphrase.
func (l *login) open(f *keyFile) (ssh.Signer, error) {
	if f.key != nil {
		return f.key, nil
	}
	defer l.patience.pause()()
	return f.decrypted.get(l.ctx(), func(ctx context.Context) (ssh.Signer, error) {
		if l.d.cfg.Passphrase == nil {
			return nil, fmt.Errorf("identity %s is encrypted and there is no way to ask for its passphrase", f.path)
		}
		passphrase, err := l.d.cfg.Passphrase(ctx, f.path)
		if err != nil {
			return nil, fmt.Errorf("asking for the passphrase of %s: %w", f.path, err)
		}
		key, err := ssh.ParsePrivateKeyWithPassphrase(f.encrypted, passphrase)
		clear(passphrase)
		if err != nil {
			return nil, fmt.Errorf("decrypting identity %s: %w", f.path, err)
		}
		return key, nil
	})
}

// agentConn is one ssh-agent, shared by all hosts that use it.
type agentConn struct {
	opened *answer[[]ssh.PublicKey]
	conn   net.Conn // set by opened
	client agent.ExtendedAgent
}

// agentKeys lists the agent's keys, once for the fleet.
func (l *login) agentKeys() ([]ssh.PublicKey, error) {
	path := l.t.settings.IdentityAgent
	if path == "" {
		return nil, nil
	}
	a, err := l.d.agent(path)
	if err != nil {
		return nil, err
	}
	return a.opened.get(l.ctx(), func(ctx context.Context) ([]ssh.PublicKey, error) {
		dialer := net.Dialer{Timeout: agentTimeout}
		conn, err := dialer.DialContext(ctx, "unix", path)
		if err != nil {
			return nil, fmt.Errorf("connecting to ssh-agent: %w", err)
		}
		_ = conn.SetDeadline(time.Now().Add(agentTimeout))
		client := agent.NewClient(conn)
		keys, err := client.List()
		if err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("asking ssh-agent for its keys: %w", err)
		}
		_ = conn.SetDeadline(time.Time{})
		if !l.d.own(conn) {
			return nil, ErrClosed
		}
		a.conn, a.client = conn, client
		var public []ssh.PublicKey
		for _, k := range keys {
			key, err := ssh.ParsePublicKey(k.Blob)
			if err != nil {
				continue // of a type that we don't know
			}
			if cert, ok := key.(*ssh.Certificate); ok && cert.CertType != ssh.UserCert {
				continue
			}
			public = append(public, key)
		}
		return public, nil
	})
}

func (d *Dialer) agent(path string) (*agentConn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, ErrClosed
	}
	a := d.agents[path]
	if a == nil {
		a = &agentConn{opened: newAnswer[[]ssh.PublicKey]()}
		d.agents[path] = a
	}
	return a, nil
}

// agentSigner signs through the agent. A token may want to be touched, so the
// clock stands still; and since the agent can't be interrupted, the wait for it
// is given up when ctx ends, while Dialer.Close ends the request itself.
func (l *login) agentSigner(key ssh.PublicKey) *signer {
	path := l.t.settings.IdentityAgent
	return &signer{
		source: "agent", public: key, algorithms: signatureAlgorithms(key),
		sign: func(data []byte, algorithm string) (*ssh.Signature, error) {
			a, err := l.d.agent(path)
			if err != nil {
				return nil, err
			}
			defer l.patience.pause()()
			type result struct {
				signature *ssh.Signature
				err       error
			}
			done := make(chan result, 1)
			if !l.d.start(func() {
				s, err := a.client.SignWithFlags(key, data, agentFlags(algorithm))
				done <- result{s, err}
			}) {
				return nil, ErrClosed
			}
			select {
			case r := <-done:
				if r.err != nil {
					r.err = fmt.Errorf("ssh-agent refuses to sign with %s: %w", ssh.FingerprintSHA256(key), r.err)
					l.problems = append(l.problems, r.err)
				}
				return r.signature, r.err
			case <-l.ctx().Done():
				return nil, context.Cause(l.ctx())
			}
		},
	}
}

func agentFlags(algorithm string) agent.SignatureFlags {
	switch algorithm {
	case ssh.KeyAlgoRSASHA256:
		return agent.SignatureFlagRsaSha256
	case ssh.KeyAlgoRSASHA512:
		return agent.SignatureFlagRsaSha512
	}
	return 0
}
