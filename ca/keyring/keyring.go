// Package keyring holds private keys: it makes them, writes them to files that
// OpenSSH reads too, and turns a file or a key in ssh-agent into an
// ssh.Signer.
//
// It refuses key files that anybody but their owner may read, that are not
// plain files of that owner, and that are certificates; it never overwrites a
// file, and never takes a passphrase from anywhere but its caller.
package keyring

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/crypto/ssh"
)

// Type is a type of key.
type Type string

// The types that can be made. RSA keys have 4096 bits, ECDSA keys are on the
// curve P-256.
const (
	Ed25519 Type = "ed25519"
	ECDSA   Type = "ecdsa"
	RSA     Type = "rsa"
)

const rsaBits = 4096

// maxFile is far above any private key and keeps a wrong path, such as a disk
// image, from being read into memory.
const maxFile = 1 << 20

// Generate makes a private key.
func Generate(t Type) (crypto.Signer, error) {
	var key crypto.Signer
	var err error
	switch t {
	case Ed25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case ECDSA:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case RSA:
		key, err = rsa.GenerateKey(rand.Reader, rsaBits)
	default:
		return nil, fmt.Errorf("unknown key type %q (known: ed25519, ecdsa, rsa)", string(t))
	}
	if err != nil {
		return nil, fmt.Errorf("making %s key: %w", t, err)
	}
	return key, nil
}

// Write writes key to a new file with mode 0600 in OpenSSH's format, encrypted
// with passphrase unless that is nil, and makes it durable. The file appears
// whole or not at all; an existing one is an error that wraps fs.ErrExist. A
// crash may leave a hidden file ".NAME.new-…" beside it, with the same mode.
func Write(path string, key crypto.Signer, comment string, passphrase []byte) error {
	block, err := marshal(key, comment, passphrase)
	if err != nil {
		return fmt.Errorf("writing private key %q: %w", path, err)
	}
	return writeNew(path, pem.EncodeToMemory(block), 0o600)
}

func marshal(key crypto.Signer, comment string, passphrase []byte) (*pem.Block, error) {
	switch {
	case key == nil:
		return nil, errors.New("no key")
	case passphrase == nil:
		return ssh.MarshalPrivateKey(key, comment)
	case len(passphrase) == 0:
		// An empty passphrase would be taken for encryption that is none.
		return nil, errors.New("the passphrase is empty")
	}
	return ssh.MarshalPrivateKeyWithPassphrase(key, comment, passphrase)
}

// WritePublic writes a public key to a new file with mode 0644, in the form of
// an authorized_keys line.
func WritePublic(path string, key ssh.PublicKey, comment string) error {
	line := bytes.TrimSuffix(ssh.MarshalAuthorizedKey(key), []byte("\n"))
	if comment != "" {
		line = append(append(line, ' '), comment...)
	}
	return writeNew(path, append(line, '\n'), 0o644)
}

// writeNew makes a file that must not exist yet. It is written under another
// name and then linked, which, unlike renaming, never replaces anything.
func writeNew(path string, data []byte, mode fs.FileMode) (err error) {
	// CreateTemp makes it with mode 0600.
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".new-")
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, f.Close(), os.Remove(f.Name()))
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	// Not left to the umask: whoever reads public keys needs the bits.
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes names in a folder durable.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// LooseModeError says that others than its owner may use a file or folder.
type LooseModeError struct {
	Path string
	Mode fs.FileMode
	// Want is a mode that is accepted.
	Want fs.FileMode
}

func (e *LooseModeError) Error() string {
	return fmt.Sprintf("%q has mode %#o: others than its owner may use it", e.Path, e.Mode)
}

// ErrPassphrase means that a private key did not open with the passphrase.
var ErrPassphrase = errors.New("wrong passphrase")

// Load reads a private key file. The passphrase is asked for with the file's
// path, only if the key is encrypted; a nil function means that there is
// nobody to ask. It returns a *LooseModeError for a file that others may read
// and an error that wraps ErrPassphrase when the passphrase does not open it.
func Load(path string, passphrase func(path string) ([]byte, error)) (ssh.Signer, error) {
	data, err := readPrivate(path)
	if err != nil {
		return nil, err
	}
	key, err := ssh.ParseRawPrivateKey(data)
	if missing := (*ssh.PassphraseMissingError)(nil); errors.As(err, &missing) {
		if passphrase == nil {
			return nil, fmt.Errorf("reading private key %q: it is encrypted and no passphrase was given", path)
		}
		secret, err := passphrase(path)
		if err != nil {
			return nil, err
		}
		if key, err = ssh.ParseRawPrivateKeyWithPassphrase(data, secret); err != nil {
			if errors.Is(err, x509.IncorrectPasswordError) {
				err = ErrPassphrase
			}
			return nil, fmt.Errorf("reading private key %q: %w", path, err)
		}
		return signer(path, key)
	}
	if err != nil {
		return nil, fmt.Errorf("reading private key %q: %w", path, err)
	}
	return signer(path, key)
}

func signer(path string, key any) (ssh.Signer, error) {
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return nil, fmt.Errorf("reading private key %q: %w", path, err)
	}
	return s, nil
}

// readPrivate reads a file that only its owner, who must be us or root, may
// read. The checks are made on the opened file, so that it can't be exchanged
// in between.
func readPrivate(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO must not hang us
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("reading private key %q: not a plain file", path)
	}
	if err := CheckPrivate(path, info); err != nil {
		return nil, fmt.Errorf("reading private key: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading private key %q: %w", path, err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("reading private key %q: too large to be one", path)
	}
	return data, nil
}

// CheckPrivate tells whether a file or folder belongs to us or root and is open
// to nobody else. Loose modes give a *LooseModeError.
func CheckPrivate(path string, info fs.FileInfo) error {
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return &LooseModeError{Path: path, Mode: mode, Want: mode &^ 0o077}
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		if uid := os.Geteuid(); int(st.Uid) != uid && st.Uid != 0 {
			return fmt.Errorf("%q belongs to user %d, not to user %d", path, st.Uid, uid)
		}
	}
	return nil
}

// ReadPublic reads the first public key of a file, and its comment.
// Certificates are refused.
func ReadPublic(path string) (ssh.PublicKey, string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, "", fmt.Errorf("reading public key %q: %w", path, err)
	}
	key, comment, err := ParsePublic(data)
	if err != nil {
		return nil, "", fmt.Errorf("reading public key %q: %w", path, err)
	}
	return key, comment, nil
}

// ParsePublic reads one public key, as ssh-keygen writes it. More than one key,
// options before the key, and certificates are refused.
func ParsePublic(data []byte) (ssh.PublicKey, string, error) {
	if bytes.Contains(data, []byte("PRIVATE KEY-----")) {
		return nil, "", errors.New("this is a private key")
	}
	key, comment, options, rest, err := ssh.ParseAuthorizedKey(data)
	if err != nil {
		return nil, "", errors.New("no public key in it")
	}
	if len(options) > 0 {
		return nil, "", fmt.Errorf("options before the key: %q", options)
	}
	if _, ok := key.(*ssh.Certificate); ok {
		return nil, "", errors.New("expected a plain public key, got a certificate")
	}
	if _, _, _, _, err := ssh.ParseAuthorizedKey(rest); err == nil {
		return nil, "", errors.New("more than one public key")
	}
	return key, comment, nil
}
