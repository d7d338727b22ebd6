package remote

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca/trust"
	"github.com/fleetca/fleetca/inventory/sshconfig"
)

// minRSA is the shortest RSA host key that is accepted from anyone.
const minRSA = 2048

// hostCheck decides about the host key of one host. It is OpenSSH's policy,
// with our own authorities and the inventory's fingerprints before it.
type hostCheck struct {
	host  string   // inventory name, for errors
	names []string // that a certificate of ours may be for
	known sshconfig.HostName

	cas       []ssh.PublicKey
	certOnly  bool
	pins      []string
	minRSA    int
	user      []*sshconfig.KnownHosts // the first takes new keys
	global    []*sshconfig.KnownHosts
	acceptNew bool
	hashed    bool
	now       func() time.Time
}

// files are all known_hosts files.
func (c *hostCheck) files() sshconfig.KnownFiles {
	return slices.Concat(c.user, c.global)
}

// check returns nil if the key is the host's, otherwise a *HostKeyError.
func (c *hostCheck) check(ctx context.Context, key ssh.PublicKey) error {
	plain := key
	cert, isCert := key.(*ssh.Certificate)
	if isCert {
		plain = cert.Key
	}
	refuse := func(reason HostKeyReason, places []*sshconfig.KnownLine, err error) error {
		e := &HostKeyError{
			Host: c.host, Name: c.known.String(), Reason: reason,
			Type: plain.Type(), Fingerprint: ssh.FingerprintSHA256(plain), Err: err,
		}
		for _, l := range places {
			e.Known = append(e.Known, l.Place())
		}
		return e
	}
	if bits := rsaBits(plain); bits != 0 && bits < max(minRSA, c.minRSA) {
		return refuse(HostKeyWeak, nil, fmt.Errorf("RSA with %d bits", bits))
	}
	if places, revoked := c.files().Revoked(c.known, key); revoked {
		return refuse(HostKeyRevoked, places, nil)
	}
	certErr := c.ours(cert)
	if isCert && certErr == nil {
		return nil
	}
	if c.certOnly {
		if !isCert {
			certErr = errors.New("it showed a plain key")
		}
		return refuse(HostKeyNoCertificate, nil, certErr)
	}
	if len(c.pins) > 0 {
		if slices.Contains(c.pins, ssh.FingerprintSHA256(plain)) {
			return nil
		}
		return refuse(HostKeyNotPinned, nil, nil)
	}
	s, places := c.files().Check(c.known, key, c.good)
	switch {
	case s == sshconfig.KeyKnown:
		return nil
	case s == sshconfig.KeyChanged:
		return refuse(HostKeyChanged, places, nil)
	case s == sshconfig.KeyRevoked:
		return refuse(HostKeyRevoked, places, nil)
	case !c.acceptNew:
		return refuse(HostKeyUnknown, nil, nil)
	case len(c.user) == 0:
		return refuse(HostKeyNotRecorded, nil, errors.New("there is no user's known_hosts file"))
	}
	switch err := c.user[0].Record(ctx, c.known.String(), plain, c.hashed); {
	case errors.Is(err, sshconfig.ErrKeyChanged):
		return refuse(HostKeyChanged, nil, err)
	case err != nil:
		return refuse(HostKeyNotRecorded, nil, err)
	}
	return nil
}

// ours says whether the certificate is one of our authorities' for the host.
func (c *hostCheck) ours(cert *ssh.Certificate) error {
	if cert == nil || len(c.cas) == 0 {
		return errors.New("no host CA is configured")
	}
	var first error
	for _, name := range c.names {
		err := trust.HostCertificate(cert, c.cas, name, c.now())
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// good says whether a certificate by an authority in known_hosts is the host's.
func (c *hostCheck) good(cert *ssh.Certificate, ca ssh.PublicKey) bool {
	return trust.HostCertificate(cert, []ssh.PublicKey{ca}, c.known.Principal(), c.now()) == nil
}

func rsaBits(key ssh.PublicKey) int {
	if crypto, ok := key.(ssh.CryptoPublicKey); ok {
		if k, ok := crypto.CryptoPublicKey().(*rsa.PublicKey); ok {
			return k.N.BitLen()
		}
	}
	return 0
}

// algorithms are those to ask the host for.
func (c *hostCheck) algorithms() []string {
	if c.certOnly {
		return sshconfig.CertAlgorithms()
	}
	return c.files().Algorithms(c.known, len(c.cas) > 0)
}

// fewer returns what is worth asking the host for after it showed a key that
// was refused: its plain keys, if a certificate was shown, and the other types,
// if fingerprints are pinned, since a fingerprint doesn't tell its type. Nil
// means that the refusal stands.
func (c *hostCheck) fewer(algorithms []string, shown ssh.PublicKey, refusal *HostKeyError) []string {
	if c.certOnly || shown == nil || refusal.Reason == HostKeyRevoked || refusal.Reason == HostKeyNotRecorded {
		return nil
	}
	cert, isCert := shown.(*ssh.Certificate)
	if !isCert && refusal.Reason != HostKeyNotPinned {
		return nil
	}
	plain := shown
	if isCert {
		plain = cert.Key
	}
	var left []string
	for _, a := range algorithms {
		if !strings.Contains(a, "-cert-v01@") && sshconfig.KeyType(a) != plain.Type() {
			left = append(left, a)
		}
	}
	if refusal.Reason != HostKeyNotPinned {
		// Only a type that is known can turn the refusal.
		types := c.files().Types(c.known.String())
		left = slices.DeleteFunc(left, func(a string) bool { return !slices.Contains(types, sshconfig.KeyType(a)) })
	}
	return left
}

// callback makes what x/crypto calls; the key and the verdict go to the
// pointers, since the library doesn't promise to hand errors on as they are.
func (c *hostCheck) callback(ctx context.Context, shown *ssh.PublicKey, verdict *error) ssh.HostKeyCallback {
	return func(_ string, _ net.Addr, key ssh.PublicKey) error {
		*shown = key
		*verdict = c.check(ctx, key)
		return *verdict
	}
}
