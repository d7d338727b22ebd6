package sshconfig

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
)

// HostName is what a host goes by in known_hosts files.
type HostName struct {
	Alias string // HostKeyAlias, which stands for the rest if it is set
	Host  string // name or address
	Port  int
}

// String is the name that known_hosts has the host under.
func (n HostName) String() string {
	if n.Alias != "" {
		return n.Alias
	}
	return withPort(n.Host, n.Port)
}

// All are the names that known_hosts may have the host under, the most
// particular first.
func (n HostName) All() []string {
	if n.Alias != "" || n.String() == n.Host {
		return []string{n.String()}
	}
	return []string{n.String(), n.Host}
}

// Principal is the name that ssh wants in a certificate.
func (n HostName) Principal() string {
	if n.Alias != "" {
		return n.Alias
	}
	return n.Host
}

// withPort is the form in which known_hosts has a host on a port.
func withPort(host string, port int) string {
	if port == 0 || port == 22 {
		return host
	}
	return "[" + host + "]:" + strconv.Itoa(port)
}

// KeyStatus is what known_hosts says about a key.
type KeyStatus int

// What known_hosts says about a key. The zero value lets nobody in.
const (
	KeyUnknown KeyStatus = iota // nothing is known of the host
	KeyKnown
	KeyChanged // another key is known
	KeyRevoked
)

// KnownFiles are several files, read as if they were one.
type KnownFiles []*KnownHosts

func (f KnownFiles) lines(name string) []*KnownLine {
	var found []*KnownLine
	for _, k := range f {
		found = append(found, k.lines(name)...)
	}
	return found
}

// Revoked says whether a @revoked line about the host names the key, the key in
// the certificate or the one that signed it; and which line.
func (f KnownFiles) Revoked(n HostName, key ssh.PublicKey) ([]*KnownLine, bool) {
	for _, name := range n.All() {
		if s, places := judge(f.lines(name), key); s == KeyRevoked {
			return places, true
		}
	}
	return nil, false
}

// Check is OpenSSH's check_host_key: a name with a port that nothing is known
// of is looked up without the port, and a certificate that isn't good for the
// host counts as the plain key in it. valid says whether a certificate by this
// known authority is good for n.Principal(); nil takes no certificates. The
// lines are those that decided.
func (f KnownFiles) Check(n HostName, key ssh.PublicKey, valid func(cert *ssh.Certificate, ca ssh.PublicKey) bool) (KeyStatus, []*KnownLine) {
	cert, isCert := key.(*ssh.Certificate)
	s, places := judge(f.lines(n.String()), key)
	switch {
	case s == KeyRevoked:
		return s, places
	case s == KeyKnown && isCert:
		if ca, _ := places[0].key(); valid != nil && valid(cert, ca) {
			return s, places
		}
	case s == KeyKnown || s == KeyChanged:
		return s, places
	}
	if s == KeyUnknown && n.Alias == "" && n.String() != n.Host {
		without := HostName{Host: n.Host}
		if s, places := f.Check(without, key, valid); s == KeyKnown {
			return s, places
		}
	}
	if isCert {
		return f.Check(n, cert.Key, valid)
	}
	return KeyUnknown, nil
}

// Types are the types of the plain keys that are known under the name.
func (f KnownFiles) Types(name string) []string {
	var types []string
	for _, l := range f.lines(name) {
		if l.marker == "" && !slices.Contains(types, l.keyType) {
			types = append(types, l.keyType)
		}
	}
	return types
}

// Algorithms orders what to ask of the host: certificates first where an
// authority applies (one of the caller's, or a @cert-authority line), then the
// types known for it, then the rest. A host that is asked for a type that is
// not known would look like another host.
func (f KnownFiles) Algorithms(n HostName, authority bool) []string {
	var types []string
	for _, name := range n.All() {
		authority = authority || slices.ContainsFunc(f.lines(name), func(l *KnownLine) bool { return l.marker == markerCA })
		if types = f.Types(name); len(types) > 0 {
			break // as in OpenSSH, the name with the port decides where it is known
		}
	}
	var known, rest []string
	for _, a := range PlainAlgorithms() {
		if slices.Contains(types, KeyType(a)) {
			known = append(known, a)
		} else {
			rest = append(rest, a)
		}
	}
	plain := append(known, rest...)
	if authority {
		return append(CertAlgorithms(), plain...)
	}
	return plain
}

// judge is OpenSSH's check_key_in_hostkeys: a certificate is compared with the
// @cert-authority lines only, a plain key with the plain lines only. The lines
// returned are those that decided.
func judge(lines []*KnownLine, key ssh.PublicKey) (KeyStatus, []*KnownLine) {
	plain, marker, wanted := key, "", key
	cert, isCert := key.(*ssh.Certificate)
	if isCert {
		plain, marker, wanted = cert.Key, markerCA, cert.SignatureKey
	}
	result := KeyUnknown
	var decided []*KnownLine
	for _, l := range lines {
		known, ok := l.key()
		if !ok {
			continue
		}
		if l.marker == markerRevoked {
			if sameKey(known, plain) || isCert && sameKey(known, cert.SignatureKey) {
				return KeyRevoked, []*KnownLine{l}
			}
			continue
		}
		if l.marker != marker || result == KeyKnown {
			continue
		}
		if sameKey(known, wanted) {
			result, decided = KeyKnown, []*KnownLine{l}
		} else if !isCert {
			result, decided = KeyChanged, append(decided, l)
		}
	}
	return result, decided
}

func sameKey(a, b ssh.PublicKey) bool {
	return bytes.Equal(a.Marshal(), b.Marshal())
}

// PlainAlgorithms are the algorithms to take plain host keys with, in our
// order: short keys first. SHA-1 signatures are none of them.
func PlainAlgorithms() []string {
	first := []string{
		ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
		ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256,
	}
	var others []string
	for _, a := range ssh.SupportedAlgorithms().HostKeys {
		if !isCertAlgorithm(a) && !slices.Contains(first, a) {
			others = append(others, a)
		}
	}
	return append(first, others...)
}

// CertAlgorithms are the same for host certificates.
func CertAlgorithms() []string {
	supported := ssh.SupportedAlgorithms().HostKeys
	var algorithms []string
	for _, a := range PlainAlgorithms() {
		if name, _, _ := strings.Cut(a, "@"); slices.Contains(supported, name+certSuffix) {
			algorithms = append(algorithms, name+certSuffix)
		}
	}
	return algorithms
}

const certSuffix = "-cert-v01@openssh.com"

func isCertAlgorithm(algorithm string) bool { return strings.HasSuffix(algorithm, certSuffix) }

// KeyType is the type of plain key that an algorithm signs with.
func KeyType(algorithm string) string {
	algorithm = strings.Replace(algorithm, certSuffix, "", 1)
	if algorithm == ssh.KeyAlgoRSASHA256 || algorithm == ssh.KeyAlgoRSASHA512 {
		return ssh.KeyAlgoRSA
	}
	return algorithm
}
