package ca

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/fleetca/fleetca/ca/keyring"
	"github.com/fleetca/fleetca/ca/profile"
)

// MinPassphrase is the shortest passphrase for CA keys, in bytes.
const MinPassphrase = 8

// InitConfig says what CA folder to make.
type InitConfig struct {
	// Path is where; it must not exist, or be an empty folder. Required.
	Path string
	// Type is the type of the keys that are made; keyring.Ed25519 if empty.
	Type keyring.Type
	// Passphrase encrypts the private keys. Required unless NoPassphrase says
	// that they shall not be encrypted, or no key is made.
	Passphrase   []byte
	NoPassphrase bool
	// AgentKeys are the public keys of roles whose private keys live in
	// ssh-agent.
	AgentKeys map[Role]ssh.PublicKey
}

// ErrFolderExists means that there is something where the CA folder shall be.
var ErrFolderExists = errors.New("there is something at that path already")

// CheckNew tells whether Init may make a folder at path. What it finds may
// change until Init looks itself; it saves people from typing a passphrase in
// vain.
func CheckNew(path string) error {
	entries, err := os.ReadDir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("making CA folder: %w", err)
	case len(entries) > 0:
		return fmt.Errorf("making CA folder %q: %w", path, ErrFolderExists)
	}
	return nil
}

// Init makes a CA folder, whole or not at all: everything is made in a folder
// beside it, ".NAME.new-…", and renamed. A crash may leave that folder, which
// nothing uses, and never a CA folder in which something is missing. It returns
// an error that wraps ErrFolderExists rather than overwrite anything.
func Init(ctx context.Context, c InitConfig) (_ *Folder, err error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	path, err := filepath.Abs(c.Path)
	if err != nil {
		return nil, fmt.Errorf("making CA folder %q: %w", c.Path, err)
	}
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		path = resolved
	}
	if err := CheckNew(path); err != nil {
		return nil, err
	}
	parent := filepath.Dir(path)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return nil, fmt.Errorf("making CA folder %q: %w", path, err)
	}
	// MkdirTemp makes it with mode 0700.
	temp, err := os.MkdirTemp(parent, "."+filepath.Base(path)+".new-")
	if err != nil {
		return nil, fmt.Errorf("making CA folder %q: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(temp))
		}
	}()
	if err := c.fill(ctx, temp); err != nil {
		return nil, fmt.Errorf("making CA folder %q: %w", path, err)
	}
	// A folder replaces only an empty folder, in one step, so of two Inits
	// at once one fails here.
	if err := unix.Rename(temp, path); err != nil {
		if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTDIR) {
			err = ErrFolderExists
		}
		return nil, fmt.Errorf("making CA folder %q: %w", path, err)
	}
	if err := syncFolder(parent); err != nil {
		return nil, fmt.Errorf("making CA folder %q: %w", path, err)
	}
	return OpenFolder(path)
}

func (c InitConfig) check() error {
	if c.Path == "" {
		return errors.New("making CA folder: Path not set")
	}
	made := 0
	for _, role := range Roles() {
		if c.AgentKeys[role] == nil {
			made++
		}
	}
	seen := map[string]Role{}
	for role, pub := range c.AgentKeys {
		if err := role.check(); err != nil {
			return fmt.Errorf("making CA folder: %w", err)
		}
		plain, err := profile.CheckKey(pub)
		if err != nil {
			return fmt.Errorf("making CA folder: key of the %s CA: %w", role, err)
		}
		if other, ok := seen[string(plain.Marshal())]; ok {
			return fmt.Errorf("making CA folder: %s CA and %s CA are one key; they must differ", min(role, other), max(role, other))
		}
		seen[string(plain.Marshal())] = role
	}
	switch {
	case made == 0 || c.NoPassphrase && c.Passphrase == nil:
		return nil
	case c.NoPassphrase:
		return errors.New("making CA folder: both Passphrase and NoPassphrase set")
	case len(c.Passphrase) < MinPassphrase:
		return fmt.Errorf("making CA folder: the passphrase has under %d characters", MinPassphrase)
	}
	return nil
}

// fill makes the files of a CA folder in dir.
func (c InitConfig) fill(ctx context.Context, dir string) error {
	var inAgent []string
	for _, role := range Roles() {
		// RSA keys take seconds, so an interrupted init looks up in between.
		if err := ctx.Err(); err != nil {
			return err
		}
		path, comment := filepath.Join(dir, role.file()), "fleetca-"+string(role)+"-ca"
		if pub := c.AgentKeys[role]; pub != nil {
			inAgent = append(inAgent, role.file())
			if err := keyring.WritePublic(path+".pub", pub, comment); err != nil {
				return err
			}
			continue
		}
		if err := c.makeKey(path, comment); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{ledgerFile: "", settingsFile: settingsText(inAgent)} {
		if err := writeFile(filepath.Join(dir, name), text); err != nil {
			return err
		}
	}
	return syncFolder(dir)
}

func (c InitConfig) makeKey(path, comment string) error {
	kind := c.Type
	if kind == "" {
		kind = keyring.Ed25519
	}
	key, err := keyring.Generate(kind)
	if err != nil {
		return err
	}
	pub, err := publicKey(key)
	if err != nil {
		return err
	}
	return errors.Join(keyring.Write(path, key, comment, c.Passphrase), keyring.WritePublic(path+".pub", pub, comment))
}

func publicKey(key crypto.Signer) (ssh.PublicKey, error) {
	pub, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("public half of the key: %w", err)
	}
	return pub, nil
}

// settingsText is the config.yaml that Init writes: what it must say, and the
// rest as comments.
func settingsText(inAgent []string) string {
	var b strings.Builder
	b.WriteString(`# Settings of this CA folder. Everything here is optional.

# Where private keys live: file (beside this one) or agent (ssh-agent, found by
# SSH_AUTH_SOCK; the .pub file beside this one says which key).
`)
	if len(inAgent) == 0 {
		b.WriteString("#keys:\n#  user_ca: agent\n")
	} else {
		b.WriteString("keys:\n")
		for _, name := range inAgent {
			b.WriteString("  " + name + ": agent\n")
		}
	}
	d := profile.DefaultRules()
	fmt.Fprintf(&b, `
# How long certificates live when nothing else is said, and at most.
#limits:
#  user: {default: %s, max: %s}
#  host: {default: %s, max: %s}
`, profile.FormatTTL(d.User.Default), profile.FormatTTL(d.User.Max),
		profile.FormatTTL(d.Host.Default), profile.FormatTTL(d.Host.Max))
	return b.String()
}

// writeFile writes a new file with mode 0600, durably.
func writeFile(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
