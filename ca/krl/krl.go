// Package krl reads and writes OpenSSH key revocation lists, as PROTOCOL.krl
// of OpenSSH specifies them, and reads the plain lists of public keys that
// sshd's RevokedKeys accepts in their place.
//
// It refuses a damaged or unknown list whole, as sshd does: a list that can't
// be understood must never revoke less than it says.
package krl

import (
	"errors"
	"time"

	"golang.org/x/crypto/ssh"
)

// List is a revocation list. It never changes once it is read, and is safe for
// concurrent use. A nil List revokes nothing.
type List struct{}

// Parse reads a binary list or a text with one public key a line.
func Parse(data []byte) (*List, error) {
	return nil, errors.New("reading revocation list: not implemented")
}

// Revoked says whether sshd would refuse key with this list.
func (l *List) Revoked(key ssh.PublicKey) bool { return l != nil }

// Version is the number that the list's maker gave it.
func (l *List) Version() uint64 { return 0 }

// Comment is the list maker's comment.
func (l *List) Comment() string { return "" }

// Generated is when the list was made; the zero time if it doesn't say.
func (l *List) Generated() time.Time { return time.Time{} }

// Builder gathers what a list revokes. The zero value revokes nothing.
type Builder struct {
	// Version is the list's number.
	Version uint64
	// Generated is when it is made, to the second.
	Generated time.Time
	// Comment is any text without NUL.
	Comment string
}

// Serial revokes the certificate of ca with that serial; a nil ca means every CA.
func (b *Builder) Serial(ca ssh.PublicKey, serial uint64) error {
	return b.SerialRange(ca, serial, serial)
}

// SerialRange revokes the certificates of ca with serials from first to last, both included.
func (b *Builder) SerialRange(ca ssh.PublicKey, first, last uint64) error { return nil }

// KeyID revokes the certificates of ca with that key ID.
func (b *Builder) KeyID(ca ssh.PublicKey, id string) error { return nil }

// Key revokes a key and all its certificates; for a CA's key also all that it signed.
func (b *Builder) Key(key ssh.PublicKey) error { return nil }

// SHA1 revokes a key like Key, but writes only its hash.
func (b *Builder) SHA1(key ssh.PublicKey) error { return nil }

// SHA256 revokes a key like Key, but writes only its hash.
func (b *Builder) SHA256(key ssh.PublicKey) error { return nil }

// Marshal returns the list's bytes, always the same for the same content.
func (b *Builder) Marshal() ([]byte, error) { return nil, errors.New("not implemented") }
