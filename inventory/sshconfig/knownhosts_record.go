package sshconfig

import (
	"context"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // the format of hashed names in known_hosts
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

const knownHostsTimeout = 5 * time.Second

// ErrKeyChanged is returned by Record where the file has come to hold another
// key of the host since it was read.
var ErrKeyChanged = errors.New("another key was recorded meanwhile")

// Record appends a new host's key under the name, once. Writers of fleetca hold a lock on the
// file, and the line is one write to its end, as ssh itself does it.
//
// A crash leaves the line whole, missing or cut short; a short one is no line
// to ssh or to us, and the next write starts on a line of its own. Where the
// file has come to hold another key of the host, the error wraps ErrKeyChanged.
func (k *KnownHosts) Record(ctx context.Context, name string, key ssh.PublicKey, hashed bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, knownHostsTimeout)
	defer cancel()
	f, err := k.lock(ctx)
	if err != nil {
		return err
	}
	defer f.Close() // and with it the lock
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file that keeps what is written to it", k.path)
	}
	if stateOf(info) != k.state {
		if err := k.read(f); err != nil {
			return err
		}
	}
	switch s, _ := judge(k.find(name), key); s {
	case KeyKnown:
		return nil
	case KeyChanged, KeyRevoked:
		return ErrKeyChanged
	}
	shown := name
	if hashed {
		salt := make([]byte, sha1.Size)
		_, _ = rand.Read(salt) // never fails
		shown = hashMagic + base64.StdEncoding.EncodeToString(salt) + "|" +
			base64.StdEncoding.EncodeToString(hashName(name, salt))
	}
	text := shown + " " + key.Type() + " " + base64.StdEncoding.EncodeToString(key.Marshal()) + "\n"
	if size := info.Size(); size > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, size-1); err != nil {
			return err
		}
		if last[0] != '\n' {
			text = "\n" + text
		}
	}
	if _, err := f.WriteString(text); err != nil {
		return err
	}
	if info, err = f.Stat(); err != nil {
		return err
	}
	k.state = stateOf(info)
	l, _ := parseKnownLine(text)
	l.file = k.path
	k.add(&l)
	return nil
}

// lock opens the file for appending, holding its lock, and makes sure that it
// is still the one of that name: ssh-keygen -R replaces it.
func (k *KnownHosts) lock(ctx context.Context) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(k.path), 0o700); err != nil {
		return nil, err
	}
	for {
		f, err := os.OpenFile(k.path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			ours, err1 := f.Stat()
			there, err2 := os.Stat(k.path)
			if err1 == nil && err2 == nil && os.SameFile(ours, there) {
				return f, nil
			}
		}
		_ = f.Close()
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("locking %s: %w", k.path, err)
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return nil, fmt.Errorf("locking %s: %w", k.path, ctx.Err())
		}
	}
}
