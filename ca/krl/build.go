package krl

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // the format has lists of SHA-1 hashes
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// Builder gathers what a list revokes. The zero value revokes nothing. It is
// not safe for concurrent use.
type Builder struct {
	// Version is the list's number, which should grow with each change.
	Version uint64
	// Generated is when it is made, to the second; the zero time says nothing.
	Generated time.Time
	// Comment is any text without NUL.
	Comment string

	content content
}

func (b *Builder) get() *content {
	if b.content.scopes == nil {
		b.content = newContent()
	}
	return &b.content
}

// scope returns the part for ca; nil means any.
func (b *Builder) scope(ca ssh.PublicKey) (*scope, error) {
	if ca == nil {
		return b.get().scope(anyCA), nil
	}
	if isCertificate(ca) {
		return nil, errors.New("the CA is given as a certificate, not as a key")
	}
	return b.get().scope(string(ca.Marshal())), nil
}

// Serial revokes the certificate of ca with that serial; a nil ca means every
// CA. Serial 0 is refused: OpenSSH can't revoke it.
func (b *Builder) Serial(ca ssh.PublicKey, serial uint64) error {
	return b.SerialRange(ca, serial, serial)
}

// SerialRange revokes the certificates of ca with serials from first to last,
// both included; a nil ca means every CA.
func (b *Builder) SerialRange(ca ssh.PublicKey, first, last uint64) error {
	s, err := b.scope(ca)
	if err == nil {
		err = s.add(first, last)
	}
	if err != nil {
		return fmt.Errorf("revoking serials: %w", err)
	}
	return nil
}

// KeyID revokes the certificates of ca with that key ID; a nil ca means every
// CA.
func (b *Builder) KeyID(ca ssh.PublicKey, id string) error {
	s, err := b.scope(ca)
	if err == nil && strings.ContainsRune(id, 0) {
		err = errors.New("NUL inside")
	}
	if err != nil {
		return fmt.Errorf("revoking key ID %q: %w", id, err)
	}
	s.ids[id] = struct{}{}
	return nil
}

// Certificate revokes one certificate by its CA and serial, or by its CA and key
// ID if it has no serial, as ssh-keygen does. Its key stays good.
func (b *Builder) Certificate(cert *ssh.Certificate) error {
	switch {
	case cert == nil || cert.SignatureKey == nil:
		return errors.New("revoking certificate: it has no CA")
	case cert.Serial == 0:
		return b.KeyID(cert.SignatureKey, cert.KeyId)
	default:
		return b.Serial(cert.SignatureKey, cert.Serial)
	}
}

// Key revokes a key with all certificates for it and, if it is a CA's, all that
// it signed. A certificate stands for its key.
func (b *Builder) Key(key ssh.PublicKey) error {
	blob, err := plain(key)
	if err != nil {
		return err
	}
	b.get().keys[string(blob)] = struct{}{}
	return nil
}

// SHA1 revokes like Key, but only the SHA-1 hash of the key is written.
func (b *Builder) SHA1(key ssh.PublicKey) error {
	blob, err := plain(key)
	if err != nil {
		return err
	}
	b.get().sha1s[sha1.Sum(blob)] = struct{}{} //nolint:gosec // as above
	return nil
}

// SHA256 revokes like Key, but only the SHA-256 hash of the key is written.
// OpenSSH before 7.9 doesn't read it.
func (b *Builder) SHA256(key ssh.PublicKey) error {
	blob, err := plain(key)
	if err != nil {
		return err
	}
	b.get().sha256s[sha256.Sum256(blob)] = struct{}{}
	return nil
}

func plain(key ssh.PublicKey) ([]byte, error) {
	if cert, ok := key.(*ssh.Certificate); ok && cert != nil {
		key = cert.Key
	}
	if key == nil || isCertificate(key) {
		return nil, errors.New("revoking key: none is given")
	}
	return key.Marshal(), nil
}

// Marshal returns the list's bytes, always the same for the same content in
// whatever order it was given. Parse reads them; so does every OpenSSH since
// 6.2 but for SHA256.
func (b *Builder) Marshal() ([]byte, error) {
	c := b.get()
	if strings.ContainsRune(b.Comment, 0) {
		return nil, errors.New("writing revocation list: NUL inside the comment")
	}
	var generated uint64
	if !b.Generated.IsZero() {
		if b.Generated.Unix() < 0 {
			return nil, fmt.Errorf("writing revocation list: made before 1970, at %v", b.Generated)
		}
		generated = uint64(b.Generated.Unix())
	}
	out := []byte(magic)
	out = binary.BigEndian.AppendUint32(out, formatVersion)
	out = binary.BigEndian.AppendUint64(out, b.Version)
	out = binary.BigEndian.AppendUint64(out, generated)
	out = binary.BigEndian.AppendUint64(out, 0) // flags
	out = appendString(out, nil)                // reserved
	out = appendString(out, []byte(b.Comment))

	ranges := 0
	for _, ca := range slices.Sorted(maps.Keys(c.scopes)) {
		s := c.scopes[ca]
		s.serials = merge(s.serials)
		ranges += len(s.serials)
		if body := s.marshal(ca); body != nil {
			out = appendSection(out, sectionCertificates, body)
		}
	}
	out = appendBlobs(out, sectionKeys, sortedBlobs(c.keys))
	out = appendBlobs(out, sectionSHA1, sortedHashes(c.sha1s, func(h [sha1.Size]byte) []byte { return h[:] }))
	out = appendBlobs(out, sectionSHA256, sortedHashes(c.sha256s, func(h [sha256.Size]byte) []byte { return h[:] }))
	if len(out) > MaxSize || ranges > maxRanges {
		return nil, fmt.Errorf("writing revocation list: %d bytes with %d separate serials are more than %d with %d", len(out), ranges, MaxSize, maxRanges)
	}
	return out, nil
}

// marshal returns the body of a certificate section, nil if nothing is revoked.
func (s *scope) marshal(ca string) []byte {
	if len(s.serials)+len(s.ids) == 0 {
		return nil
	}
	out := appendString(nil, []byte(ca))
	out = appendString(out, nil) // reserved
	parts := divide(s.serials)
	var single []byte
	for _, n := range parts.single {
		single = binary.BigEndian.AppendUint64(single, n)
	}
	if single != nil {
		out = appendSection(out, certSerialList, single)
	}
	for _, r := range parts.ranges {
		body := binary.BigEndian.AppendUint64(nil, r.first)
		out = appendSection(out, certSerialRange, binary.BigEndian.AppendUint64(body, r.last))
	}
	for _, group := range parts.bitmaps {
		first, bits := bitmap(group)
		if bits[0]&0x80 != 0 {
			bits = slices.Insert(bits, 0, 0) // or the number were negative
		}
		body := binary.BigEndian.AppendUint64(nil, first)
		out = appendSection(out, certSerialBitmap, appendString(body, bits))
	}
	return appendBlobs(out, certKeyID, sortedBlobs(s.ids))
}

func sortedBlobs(set map[string]struct{}) [][]byte {
	out := make([][]byte, 0, len(set))
	for s := range set {
		out = append(out, []byte(s))
	}
	slices.SortFunc(out, bytes.Compare)
	return out
}

func sortedHashes[H comparable](set map[H]struct{}, slice func(H) []byte) [][]byte {
	out := make([][]byte, 0, len(set))
	for h := range set {
		out = append(out, slice(h))
	}
	slices.SortFunc(out, bytes.Compare)
	return out
}

func appendBlobs(out []byte, kind byte, blobs [][]byte) []byte {
	if len(blobs) == 0 {
		return out
	}
	var body []byte
	for _, b := range blobs {
		body = appendString(body, b)
	}
	return appendSection(out, kind, body)
}

func appendSection(out []byte, kind byte, body []byte) []byte {
	return appendString(append(out, kind), body)
}

func appendString(out, s []byte) []byte {
	out = binary.BigEndian.AppendUint32(out, uint32(len(s)))
	return append(out, s...)
}
