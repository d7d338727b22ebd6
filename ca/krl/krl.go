// Package krl reads and writes OpenSSH key revocation lists, as PROTOCOL.krl
// of OpenSSH specifies them, and reads the plain lists of public keys that
// sshd's RevokedKeys takes in their place.
//
// It refuses a damaged list whole, and one with sections that it doesn't know,
// as sshd does: a list that can't be understood must never revoke less than it
// says. It also refuses signed lists, which OpenSSH does since 9.4, and lists
// beyond [MaxSize], so that a broken file can't take all memory.
package krl

import (
	"crypto/sha1" //nolint:gosec // the format has lists of SHA-1 hashes
	"crypto/sha256"
	"time"

	"golang.org/x/crypto/ssh"
)

// MaxSize is the most bytes that a list may have; OpenSSH takes 128 MiB, which
// no real list comes near.
const MaxSize = 32 << 20

// maxRanges bounds what the bitmaps of a list may unfold to: 64 MiB of memory.
const maxRanges = 4 << 20

// List is a revocation list. It never changes once it is read and is safe for
// concurrent use. A nil List stands for "none is configured" and revokes
// nothing; Parse never returns one without an error.
type List struct{ content }

// Version is the number that the list's maker gave it; 0 for a plain list.
func (l *List) Version() uint64 { return l.version }

// Comment is its maker's comment, not cleaned in any way.
func (l *List) Comment() string { return l.comment }

// Generated is when the list was made; the zero time if it doesn't say, or
// says what no clock shows.
func (l *List) Generated() time.Time {
	const year10000 = 253402300800
	if l.generated == 0 || l.generated >= year10000 {
		return time.Time{}
	}
	return time.Unix(int64(l.generated), 0).UTC()
}

// Empty says whether the list revokes nothing at all.
func (l *List) Empty() bool {
	if l == nil {
		return true
	}
	for _, s := range l.scopes {
		if len(s.serials) > 0 || len(s.ids) > 0 {
			return false
		}
	}
	return len(l.keys)+len(l.sha1s)+len(l.sha256s) == 0
}

// Revoked says whether sshd would refuse key with this list. A plain key is
// revoked by itself or by its hash. A certificate is revoked with its key, with
// the key of its CA, by its key ID and by its serial, these two for its CA or
// for any; serial 0 is what certificates have that were given none, and never
// revokes. Whatever is no key, such as nil or a certificate signed by a
// certificate, is revoked.
func (l *List) Revoked(key ssh.PublicKey) bool {
	if l == nil {
		return false
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return key == nil || l.revokedKey(key)
	}
	if cert == nil || cert.Key == nil || cert.SignatureKey == nil ||
		isCertificate(cert.Key) || isCertificate(cert.SignatureKey) {
		return true
	}
	return l.revokedKey(cert.Key) || l.revokedKey(cert.SignatureKey) ||
		l.scopes[string(cert.SignatureKey.Marshal())].revoked(cert) || l.scopes[anyCA].revoked(cert)
}

// Builder returns a builder that holds all of the list, so that more can be
// revoked in a new version of it.
func (l *List) Builder() *Builder {
	b := &Builder{Version: l.version, Generated: l.Generated(), Comment: l.comment}
	b.content = l.content.clone()
	return b
}

// content is what lists and builders hold.
type content struct {
	version, generated uint64
	comment            string

	scopes  map[string]*scope // by the CA's key in wire format
	keys    map[string]struct{}
	sha1s   map[[sha1.Size]byte]struct{}
	sha256s map[[sha256.Size]byte]struct{}
}

// anyCA is the scope of what is revoked whoever signed it.
const anyCA = ""

// scope is what is revoked of one CA. Its serials are sorted, neither overlap
// nor touch in a list, and are in any order in a builder.
type scope struct {
	serials []serialRange
	ids     map[string]struct{}
}

type serialRange struct{ first, last uint64 }

func newContent() content {
	return content{
		scopes:  map[string]*scope{},
		keys:    map[string]struct{}{},
		sha1s:   map[[sha1.Size]byte]struct{}{},
		sha256s: map[[sha256.Size]byte]struct{}{},
	}
}

func (c *content) clone() content {
	d := newContent()
	d.version, d.generated, d.comment = c.version, c.generated, c.comment
	for ca, s := range c.scopes {
		to := d.scope(ca)
		to.serials = append(to.serials, s.serials...)
		for id := range s.ids {
			to.ids[id] = struct{}{}
		}
	}
	for k := range c.keys {
		d.keys[k] = struct{}{}
	}
	for k := range c.sha1s {
		d.sha1s[k] = struct{}{}
	}
	for k := range c.sha256s {
		d.sha256s[k] = struct{}{}
	}
	return d
}

// scope returns the part for a CA, which it makes if it is missing.
func (c *content) scope(ca string) *scope {
	s := c.scopes[ca]
	if s == nil {
		s = &scope{ids: map[string]struct{}{}}
		c.scopes[ca] = s
	}
	return s
}

func (c *content) revokedKey(key ssh.PublicKey) bool {
	blob := key.Marshal()
	if _, ok := c.keys[string(blob)]; ok {
		return true
	}
	if _, ok := c.sha256s[sha256.Sum256(blob)]; ok {
		return true
	}
	if len(c.sha1s) == 0 {
		return false
	}
	_, ok := c.sha1s[sha1.Sum(blob)] //nolint:gosec // as above
	return ok
}

// revoked asks one scope; a nil one knows nothing.
func (s *scope) revoked(cert *ssh.Certificate) bool {
	if s == nil {
		return false
	}
	if _, ok := s.ids[cert.KeyId]; ok {
		return true
	}
	return cert.Serial != 0 && contains(s.serials, cert.Serial)
}

func isCertificate(key ssh.PublicKey) bool {
	_, ok := key.(*ssh.Certificate)
	return ok
}
