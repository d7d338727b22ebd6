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
)

// minRSA is the shortest RSA host key that is accepted from anyone.
const minRSA = 2048

// hostCheck decides about the host key of one host. It is OpenSSH's policy,
// with our own authorities and the inventory's fingerprints before it.
type hostCheck struct {
	host  string   // inventory name, for errors
	names []string // that a certificate of ours may be for
	alias string   // HostKeyAlias
	bare  string   // the name without a port: alias or HostName
	port  int

	cas       []ssh.PublicKey
	certOnly  bool
	pins      []string
	minRSA    int
	user      []*knownFile // the first takes new keys
	global    []*knownFile
	acceptNew bool
	hashed    bool
	now       func() time.Time
}

// name is what known_hosts has the host under.
func (c *hostCheck) name() string {
	if c.alias != "" {
		return c.alias
	}
	return knownName(c.bare, c.port)
}

// lines are those of all files about a name.
func (c *hostCheck) lines(name string) []*knownLine {
	var found []*knownLine
	for _, f := range c.user {
		found = append(found, f.lines(name)...)
	}
	for _, f := range c.global {
		found = append(found, f.lines(name)...)
	}
	return found
}

// check returns nil if the key is the host's, otherwise a *HostKeyError.
func (c *hostCheck) check(ctx context.Context, key ssh.PublicKey) error {
	plain := key
	cert, isCert := key.(*ssh.Certificate)
	if isCert {
		plain = cert.Key
	}
	refuse := func(reason HostKeyReason, places []*knownLine, err error) error {
		e := &HostKeyError{
			Host: c.host, Name: c.name(), Reason: reason,
			Type: plain.Type(), Fingerprint: ssh.FingerprintSHA256(plain), Err: err,
		}
		for _, l := range places {
			e.Known = append(e.Known, l.place())
		}
		return e
	}
	if bits := rsaBits(plain); bits != 0 && bits < max(minRSA, c.minRSA) {
		return refuse(HostKeyWeak, nil, fmt.Errorf("RSA with %d bits", bits))
	}
	for _, name := range c.allNames() {
		if s, places := judge(c.lines(name), key); s == statusRevoked {
			return refuse(HostKeyRevoked, places, nil)
		}
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
	s, places := c.known(c.port, key)
	switch {
	case s == statusKnown:
		return nil
	case s == statusChanged:
		return refuse(HostKeyChanged, places, nil)
	case s == statusRevoked:
		return refuse(HostKeyRevoked, places, nil)
	case !c.acceptNew:
		return refuse(HostKeyUnknown, nil, nil)
	case len(c.user) == 0:
		return refuse(HostKeyNotRecorded, nil, errors.New("there is no user's known_hosts file"))
	}
	switch err := c.user[0].record(ctx, c.name(), plain, c.hashed); {
	case errors.Is(err, errKeyChanged):
		return refuse(HostKeyChanged, nil, err)
	case err != nil:
		return refuse(HostKeyNotRecorded, nil, err)
	}
	return nil
}

// allNames are the names that known_hosts may have the host under.
func (c *hostCheck) allNames() []string {
	if c.alias != "" || c.name() == c.bare {
		return []string{c.name()}
	}
	return []string{c.name(), c.bare}
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

// known is OpenSSH's check_host_key: a name with a port that nothing is known
// of is looked up without the port, and a certificate that isn't good for the
// host counts as the plain key in it.
func (c *hostCheck) known(port int, key ssh.PublicKey) (status, []*knownLine) {
	name := c.alias
	if name == "" {
		name = knownName(c.bare, port)
	}
	cert, isCert := key.(*ssh.Certificate)
	s, places := judge(c.lines(name), key)
	switch {
	case s == statusRevoked:
		return s, places
	case s == statusKnown && isCert:
		ca, _ := places[0].key()
		if trust.HostCertificate(cert, []ssh.PublicKey{ca}, c.certName(), c.now()) == nil {
			return s, places
		}
	case s == statusKnown || s == statusChanged:
		return s, places
	}
	if s == statusNew && c.alias == "" && name != c.bare {
		if s, places := c.known(0, key); s == statusKnown {
			return s, places
		}
	}
	if isCert {
		return c.known(port, cert.Key)
	}
	return statusNew, nil
}

// certName is the name that ssh wants in a certificate.
func (c *hostCheck) certName() string {
	if c.alias != "" {
		return c.alias
	}
	return c.bare
}

func rsaBits(key ssh.PublicKey) int {
	if crypto, ok := key.(ssh.CryptoPublicKey); ok {
		if k, ok := crypto.CryptoPublicKey().(*rsa.PublicKey); ok {
			return k.N.BitLen()
		}
	}
	return 0
}

// plainAlgorithms are the host key algorithms in our order: short keys first.
// SHA-1 signatures are none of them.
func plainAlgorithms() []string {
	first := []string{
		ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
		ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256,
	}
	var others []string
	for _, a := range ssh.SupportedAlgorithms().HostKeys {
		if !strings.Contains(a, "-cert-v01@") && !slices.Contains(first, a) {
			others = append(others, a)
		}
	}
	return append(first, others...)
}

// certAlgorithms are the same for certificates.
func certAlgorithms() []string {
	supported := ssh.SupportedAlgorithms().HostKeys
	var algorithms []string
	for _, a := range plainAlgorithms() {
		if name, _, _ := strings.Cut(a, "@"); slices.Contains(supported, name+"-cert-v01@openssh.com") {
			algorithms = append(algorithms, name+"-cert-v01@openssh.com")
		}
	}
	return algorithms
}

// keyType is the type of key that an algorithm signs with.
func keyType(algorithm string) string {
	algorithm = strings.Replace(algorithm, "-cert-v01@openssh.com", "", 1)
	if algorithm == ssh.KeyAlgoRSASHA256 || algorithm == ssh.KeyAlgoRSASHA512 {
		return ssh.KeyAlgoRSA
	}
	return algorithm
}

// algorithms orders what is asked of the host: certificates first where an
// authority applies, then the types known for it, then the rest. A host that is
// asked for a type that is not known would look like another host.
func (c *hostCheck) algorithms() []string {
	if c.certOnly {
		return certAlgorithms()
	}
	authority := len(c.cas) > 0
	var types []string
	for _, name := range c.allNames() {
		for _, l := range c.lines(name) {
			switch l.marker {
			case markerCA:
				authority = true
			case "":
				types = append(types, l.keyType)
			}
		}
		if len(types) > 0 {
			break // as in OpenSSH, the name with the port decides where it is known
		}
	}
	var known, rest []string
	for _, a := range plainAlgorithms() {
		if slices.Contains(types, keyType(a)) {
			known = append(known, a)
		} else {
			rest = append(rest, a)
		}
	}
	plain := append(known, rest...)
	if authority {
		return append(certAlgorithms(), plain...)
	}
	return plain
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
		if !strings.Contains(a, "-cert-v01@") && keyType(a) != plain.Type() {
			left = append(left, a)
		}
	}
	if refusal.Reason != HostKeyNotPinned {
		// Only a type that is known can turn the refusal.
		lines := c.lines(c.name())
		left = slices.DeleteFunc(left, func(a string) bool {
			return !slices.ContainsFunc(lines, func(l *knownLine) bool { return l.marker == "" && l.keyType == keyType(a) })
		})
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
