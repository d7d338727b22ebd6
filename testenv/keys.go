//go:build linux

package testenv

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"
)

// keyPair is a private key as sshd reads it, and its public half.
type keyPair struct {
	kind    string
	private []byte
	public  ssh.PublicKey
}

func newKey(kind, comment string) (*keyPair, error) {
	var key crypto.Signer
	var err error
	switch kind {
	case Ed25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case ECDSA:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case RSA:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		err = fmt.Errorf("unknown type %q", kind)
	}
	if err != nil {
		return nil, fmt.Errorf("making %s key: %w", kind, err)
	}
	block, err := ssh.MarshalPrivateKey(key, comment)
	if err != nil {
		return nil, fmt.Errorf("writing down %s key: %w", kind, err)
	}
	public, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("taking the public half of %s key: %w", kind, err)
	}
	return &keyPair{kind: kind, private: pem.EncodeToMemory(block), public: public}, nil
}

func (k *keyPair) authorized(comment string) string {
	return strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(k.public)), "\n") + " " + comment + "\n"
}

func (k *keyPair) write(path, comment string) error {
	if err := os.WriteFile(path, k.private, 0o600); err != nil {
		return fmt.Errorf("writing key: %w", err)
	}
	if err := os.WriteFile(path+".pub", []byte(k.authorized(comment)), 0o644); err != nil {
		return fmt.Errorf("writing key: %w", err)
	}
	return nil
}

// rsaPool is how many rsa keys a fleet makes at most: one takes longer than
// starting a whole host.
const rsaPool = 4

type keySource struct{ pool []*keyPair }

// newKeySource makes the rsa keys for a fleet of that many hosts.
func newKeySource(ctx context.Context, hosts int) (*keySource, error) {
	s := &keySource{pool: make([]*keyPair, min(hosts, rsaPool))}
	g, ctx := errgroup.WithContext(ctx)
	for i := range s.pool {
		g.Go(func() (err error) {
			if err := ctx.Err(); err != nil {
				return err
			}
			s.pool[i], err = newKey(RSA, "testenv")
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("making rsa keys: %w", err)
	}
	return s, nil
}

// keys returns host keys for the host of that index, in the order of kinds.
func (s *keySource) keys(index int, name string, kinds []string) ([]*keyPair, error) {
	var keys []*keyPair
	for _, kind := range kinds {
		if kind == RSA {
			keys = append(keys, s.pool[index%len(s.pool)])
			continue
		}
		k, err := newKey(kind, "root@"+name)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func hostKeyPath(folder, kind string) string {
	return filepath.Join(folder, "ssh_host_"+kind+"_key")
}
