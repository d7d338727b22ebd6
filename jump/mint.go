package jump

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca/profile"
)

// mint makes the certificates that the inner server shows on behalf of hosts:
// one key of this process for all of them, signed by the jump CA for the name
// that the client asked for. They live in memory and for a short time.
type mint struct {
	authority ssh.Signer
	now       func() time.Time
	key       ssh.Signer

	mu   sync.Mutex
	made map[string]minted
}

type minted struct {
	signer ssh.Signer
	renew  time.Time
}

const (
	// mintedLife is how long such a certificate is valid. Clients look at it
	// only while they connect and rekey.
	mintedLife = time.Hour
	// maxMinted bounds the names that are kept. They are names of the
	// inventory, so it is never reached by guessing.
	maxMinted = 100_000
)

func newMint(authority ssh.Signer, now func() time.Time) (*mint, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the key of the inner connections: %w", err)
	}
	key, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		return nil, fmt.Errorf("making the key of the inner connections: %w", err)
	}
	return &mint{authority: authority, now: now, key: key, made: map[string]minted{}}, nil
}

// signer gives the host key for a name, which is one of the inventory's.
func (m *mint) signer(name string) (ssh.Signer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	if old, ok := m.made[name]; ok && now.Before(old.renew) {
		return old.signer, nil
	}
	signer, err := m.sign(name, now)
	if err != nil {
		return nil, fmt.Errorf("making a certificate for %q: %w", name, err)
	}
	if len(m.made) >= maxMinted {
		clear(m.made)
	}
	m.made[name] = minted{signer, now.Add(mintedLife / 2)}
	return signer, nil
}

func (m *mint) sign(name string, now time.Time) (ssh.Signer, error) {
	var serial [8]byte
	_, _ = rand.Read(serial[:])
	rules := profile.Rules{Host: profile.Limits{Default: mintedLife, Max: mintedLife}}
	cert, err := rules.Certificate(profile.Request{
		Kind: profile.Host, PublicKey: m.key.PublicKey(), KeyID: name, Principals: []string{name},
	}, binary.BigEndian.Uint64(serial[:])>>1|1, now)
	if err != nil {
		return nil, err
	}
	if err := cert.SignCert(rand.Reader, m.authority); err != nil {
		return nil, err
	}
	return ssh.NewCertSigner(cert, m.key)
}
