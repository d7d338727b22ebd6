package profile

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

const (
	minRSABits = 2048
	maxRSABits = 16384 // OpenSSH reads no longer ones
)

// CheckKey gives key in its plain form, or an error if it must neither be
// certified nor be an authority: certificates, DSA, short RSA, and types that
// OpenSSH does not know.
func CheckKey(key ssh.PublicKey) (ssh.PublicKey, error) {
	if key == nil {
		return nil, errors.New("public key not set")
	}
	if _, ok := key.(*ssh.Certificate); ok {
		return nil, errIsCertificate
	}
	// A key may come wrapped (agent.Key is one), and a wrapper can say any
	// type; only the bytes count.
	plain, err := ssh.ParsePublicKey(key.Marshal())
	if err != nil {
		return nil, fmt.Errorf("reading public key: %w", err)
	}
	if _, ok := plain.(*ssh.Certificate); ok {
		return nil, errIsCertificate
	}
	switch plain.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256,
		ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
		return plain, nil
	case ssh.KeyAlgoRSA:
		c, ok := plain.(ssh.CryptoPublicKey)
		if !ok {
			return nil, errors.New("reading public key: RSA key without numbers")
		}
		pub, ok := c.CryptoPublicKey().(*rsa.PublicKey)
		if !ok {
			return nil, errors.New("reading public key: RSA key without numbers")
		}
		if bits := pub.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return nil, fmt.Errorf("RSA key of %d bits refused: it must have %d to %d", bits, minRSABits, maxRSABits)
		}
		return plain, nil
	}
	return nil, fmt.Errorf("key of type %q refused: it must be ed25519, ecdsa, rsa or a security key", strings.ToValidUTF8(plain.Type(), "?"))
}

var errIsCertificate = errors.New("expected a plain public key, got a certificate")
