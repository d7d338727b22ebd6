package route

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca/trust"
	"github.com/fleetca/fleetca/inventory/sshconfig"
)

// minRSA is the shortest RSA host key that is accepted from anyone.
const minRSA = 2048

// hostCheck decides about the host key of one destination.
type hostCheck struct {
	r        *Router
	d        Destination
	required bool // a certificate is
	known    sshconfig.KnownFiles
	names    []sshconfig.HostName // that known_hosts may have it under, the first that it has decides
}

func (r *Router) hostCheck(d Destination) (*hostCheck, error) {
	c := &hostCheck{r: r, d: d, required: r.cfg.RequireCertificate(d.Host), known: r.known}
	for _, k := range c.known {
		if err := k.Refresh(); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{d.Name, canonical(d.Host.Name), canonical(d.Address)} {
		n := sshconfig.HostName{Host: name, Port: d.Port}
		if !slices.Contains(c.names, n) {
			c.names = append(c.names, n)
		}
	}
	return c, nil
}

// algorithms are those to ask the host for at first.
func (c *hostCheck) algorithms() []string {
	if c.required {
		return sshconfig.CertAlgorithms()
	}
	name := c.names[0]
	for _, n := range c.names {
		if slices.ContainsFunc(n.All(), func(n string) bool { return len(c.known.Types(n)) > 0 }) {
			name = n
			break
		}
	}
	return c.known.Algorithms(name, len(c.r.cfg.HostCAs) > 0)
}

// fewer are those that are left to ask for after a key was refused: a host has
// keys of several types, and of one type a certificate and the plain key. Nil
// means that the refusal stands.
func (c *hostCheck) fewer(algorithms []string, shown ssh.PublicKey, refusal *HostKeyError) []string {
	if refusal.Problem == Revoked {
		return nil
	}
	plain, isCert := shown, false
	if cert, ok := shown.(*ssh.Certificate); ok {
		plain, isCert = cert.Key, true
	}
	left := slices.DeleteFunc(slices.Clone(algorithms), func(a string) bool {
		return sshconfig.KeyType(a) == plain.Type() && strings.Contains(a, "-cert-") == isCert
	})
	if !isCert {
		// Only a type that is known can turn the refusal of a plain key.
		var types []string
		for _, n := range c.names {
			for _, name := range n.All() {
				types = append(types, c.known.Types(name)...)
			}
		}
		left = slices.DeleteFunc(left, func(a string) bool {
			return strings.Contains(a, "-cert-") || !slices.Contains(types, sshconfig.KeyType(a))
		})
	}
	if len(left) == len(algorithms) {
		return nil // it showed what wasn't asked for
	}
	return left
}

// verdict is what one connection attempt has come to about the host key.
type verdict struct {
	check *hostCheck

	mu      sync.Mutex // x/crypto calls from a goroutine that may outlive the attempt
	shown   ssh.PublicKey
	refusal *HostKeyError
}

// callback is what x/crypto calls with the key, and again each time that new
// session keys are agreed on. The key that was accepted stays good for the
// connection then, as it does in ssh: a long session outlives a certificate.
func (v *verdict) callback(_ string, _ net.Addr, key ssh.PublicKey) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.shown != nil {
		if v.refusal == nil && trust.Same(v.shown, key) {
			return nil
		}
		return errors.New("the host has come to show another key")
	}
	v.shown = key
	if v.refusal = v.check.judge(key); v.refusal != nil {
		return v.refusal
	}
	return nil
}

func (v *verdict) get() (shown ssh.PublicKey, refusal *HostKeyError) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.shown, v.refusal
}

// judge returns nil if the key is the host's.
func (c *hostCheck) judge(key ssh.PublicKey) *HostKeyError {
	cert, isCert := key.(*ssh.Certificate)
	e := c.describe(key)
	plain := key
	if isCert {
		plain = cert.Key
	}
	if bits := rsaBits(plain); bits != 0 && bits < minRSA {
		e.Problem, e.Err = Invalid, fmt.Errorf("RSA with %d bits is too short", bits)
		return e
	}
	if c.r.cfg.Revoked(key) || isCert && (c.r.cfg.Revoked(plain) || c.r.cfg.Revoked(cert.SignatureKey)) {
		e.Problem = Revoked
		return e
	}
	for _, n := range c.names {
		if places, revoked := c.known.Revoked(n, key); revoked {
			e.Problem, e.Known = Revoked, positions(places)
			return e
		}
	}
	if isCert {
		err := trust.HostCertificate(cert, c.r.cfg.HostCAs, c.d.Name, c.r.cfg.Now())
		if err == nil {
			return nil
		}
		e.Problem, e.Err = problemOf(err), err
		if trusted := func(ca ssh.PublicKey) bool { return trust.Same(ca, cert.SignatureKey) }; e.Problem == OtherCA &&
			slices.ContainsFunc(c.r.cfg.HostCAs, trusted) {
			e.Problem = Invalid // the right name under a bad signature
		}
	}
	switch {
	case c.required && isCert:
		return e
	case c.required:
		e.Problem = PlainKey
		return e
	}
	return c.lookUp(key, e)
}

// lookUp asks known_hosts. e says what was wrong with the certificate, if it is
// one: that stands where known_hosts knows nothing.
func (c *hostCheck) lookUp(key ssh.PublicKey, e *HostKeyError) *HostKeyError {
	for _, n := range c.names {
		good := func(cert *ssh.Certificate, ca ssh.PublicKey) bool {
			return trust.HostCertificate(cert, []ssh.PublicKey{ca}, n.Principal(), c.r.cfg.Now()) == nil
		}
		switch status, places := c.known.Check(n, key, good); status {
		case sshconfig.KeyKnown:
			return nil
		case sshconfig.KeyUnknown:
			continue
		case sshconfig.KeyChanged:
			e.Problem, e.Known = Changed, positions(places)
		case sshconfig.KeyRevoked:
			e.Problem, e.Known = Revoked, positions(places)
		}
		return e
	}
	if e.Problem == "" {
		e.Problem = Unknown
	}
	return e
}

func positions(lines []*sshconfig.KnownLine) []string {
	var places []string
	for _, l := range lines {
		places = append(places, l.Place())
	}
	return places
}

// problemOf sorts the refusals of ca/trust.
func problemOf(err error) Problem {
	switch {
	case errors.Is(err, trust.ErrUnknownAuthority):
		return OtherCA
	case errors.Is(err, trust.ErrName):
		return WrongName
	case errors.Is(err, trust.ErrExpired):
		return Expired
	case errors.Is(err, trust.ErrNotYetValid):
		return NotYetValid
	}
	return Invalid
}

// describe fills in what was shown.
func (c *hostCheck) describe(key ssh.PublicKey) *HostKeyError {
	e := &HostKeyError{Host: c.d.Host.Name, Name: c.d.Name}
	if cert, ok := key.(*ssh.Certificate); ok {
		key = cert.Key
		e.Names = cert.ValidPrincipals
		e.ValidAfter, e.ValidBefore = bound(cert.ValidAfter), bound(cert.ValidBefore)
		if cert.SignatureKey != nil {
			e.CA = ssh.FingerprintSHA256(cert.SignatureKey)
		}
	}
	e.Type, e.Fingerprint = key.Type(), ssh.FingerprintSHA256(key)
	return e
}

// bound is a time of a certificate; those that no calendar has are no bound.
func bound(t uint64) time.Time {
	if t == 0 || t > 1<<40 {
		return time.Time{}
	}
	return time.Unix(int64(t), 0)
}

// notOffered describes a host that has no key of the types that were asked for.
func (c *hostCheck) notOffered(err *ssh.AlgorithmNegotiationError) *HostKeyError {
	e := &HostKeyError{Host: c.d.Host.Name, Name: c.d.Name, Problem: PlainKey, Err: err}
	switch {
	case slices.ContainsFunc(err.RequestedAlgorithms, func(a string) bool { return strings.Contains(a, "-cert-") }):
		// Such as ssh-rsa-cert-v01@openssh.com alone, before OpenSSH 7.8.
		e.Problem, e.Err = Invalid, errors.New("it has certificates, but only of types that are not accepted, such as RSA with SHA-1")
	case !c.required:
		e.Problem, e.Err = Invalid, errors.New("it has no key of a type that is accepted")
	}
	return e
}

func rsaBits(key ssh.PublicKey) int {
	if crypto, ok := key.(ssh.CryptoPublicKey); ok {
		if k, ok := crypto.CryptoPublicKey().(*rsa.PublicKey); ok {
			return k.N.BitLen()
		}
	}
	return 0
}
