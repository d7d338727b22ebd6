package keyring_test

import (
	"bytes"
	"crypto"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/fleetca/fleetca/ca/keyring"
)

// rsaKey is made once: it takes seconds under the race detector.
var rsaKey = sync.OnceValues(func() (crypto.Signer, error) { return keyring.Generate(keyring.RSA) })

func generate(t testing.TB, kind keyring.Type) (crypto.Signer, ssh.PublicKey) {
	t.Helper()
	key, err := crypto.Signer(nil), error(nil)
	if kind == keyring.RSA {
		key, err = rsaKey()
	} else {
		key, err = keyring.Generate(kind)
	}
	if err != nil {
		t.Fatal(err)
	}
	pub, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return key, pub
}

func passphrase(s string) func(string) ([]byte, error) {
	return func(string) ([]byte, error) { return []byte(s), nil }
}

// TestOpenSSHReadsKeys writes each type of key, plain and encrypted, and has
// ssh-keygen read it; then it reads what ssh-keygen wrote.
func TestOpenSSHReadsKeys(t *testing.T) {
	for _, kind := range []keyring.Type{keyring.Ed25519, keyring.ECDSA, keyring.RSA} {
		for _, secret := range []string{"", "correct horse"} {
			if secret != "" && kind != keyring.Ed25519 {
				continue // encryption is slow and does not depend on the type
			}
			name := string(kind)
			if secret != "" {
				name += " encrypted"
			}
			t.Run(name, func(t *testing.T) {
				dir := t.TempDir()
				key, pub := generate(t, kind)
				path := filepath.Join(dir, "key")
				var pass []byte
				if secret != "" {
					pass = []byte(secret)
				}
				if err := keyring.Write(path, key, "a comment", pass); err != nil {
					t.Fatal(err)
				}
				out, err := exec.Command("ssh-keygen", "-y", "-P", secret, "-f", path).CombinedOutput()
				if err != nil {
					t.Fatalf("ssh-keygen -y: %v\n%s", err, out)
				}
				if want := string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(pub))) + " a comment\n"; string(out) != want {
					t.Errorf("ssh-keygen reads %s, wrote %s", out, want)
				}
				if secret != "" {
					if out, err := exec.Command("ssh-keygen", "-y", "-P", "", "-f", path).CombinedOutput(); err == nil {
						t.Errorf("opens without the passphrase: %s", out)
					}
				}
				theirs := filepath.Join(dir, "theirs")
				if out, err := exec.Command("ssh-keygen", "-q", "-t", string(kind), "-N", secret, "-f", theirs).CombinedOutput(); err != nil {
					t.Fatalf("ssh-keygen: %v\n%s", err, out)
				}
				for _, p := range []string{path, theirs} {
					signer, err := keyring.Load(p, passphrase(secret))
					if err != nil {
						t.Fatal(err)
					}
					if p == path && !bytes.Equal(signer.PublicKey().Marshal(), pub.Marshal()) {
						t.Error("another key came back")
					}
				}
				read, _, err := keyring.ReadPublic(theirs + ".pub")
				if err != nil {
					t.Fatal(err)
				}
				signer, err := keyring.Load(theirs, passphrase(secret))
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(read.Marshal(), signer.PublicKey().Marshal()) {
					t.Error("public and private half differ")
				}
			})
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	dir := t.TempDir()
	key, pub := generate(t, keyring.Ed25519)
	path := filepath.Join(dir, "key")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := keyring.Write(path, key, "", nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("overwriting: %v", err)
	}
	if err := keyring.WritePublic(path, pub, ""); !errors.Is(err, fs.ErrExist) {
		t.Errorf("overwriting: %v", err)
	}
	if got, _ := os.ReadFile(path); string(got) != "precious" {
		t.Errorf("the file now holds %q", got)
	}
	dangling := filepath.Join(dir, "dangling")
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), dangling); err != nil {
		t.Fatal(err)
	}
	if err := keyring.Write(dangling, key, "", nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("writing through a symlink: %v", err)
	}
	if err := keyring.Write(filepath.Join(dir, "x"), key, "", []byte{}); err == nil {
		t.Error("an empty passphrase passes for encryption")
	}
	if err := keyring.Write(filepath.Join(dir, "x"), nil, "", nil); err == nil {
		t.Error("no key written")
	}
	if _, err := keyring.Generate("dsa"); err == nil || !strings.Contains(err.Error(), "unknown key type") {
		t.Errorf("DSA: %v", err)
	}
}

func TestModes(t *testing.T) {
	old := unix.Umask(0)
	defer unix.Umask(old)
	dir := t.TempDir()
	key, pub := generate(t, keyring.Ed25519)
	path := filepath.Join(dir, "key")
	for _, mask := range []int{0, 0o077} {
		unix.Umask(mask)
		if err := errors.Join(keyring.Write(path, key, "", nil), keyring.WritePublic(path+".pub", pub, "c")); err != nil {
			t.Fatal(err)
		}
		for p, want := range map[string]fs.FileMode{path: 0o600, path + ".pub": 0o644} {
			info, err := os.Stat(p)
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode() != want {
				t.Errorf("umask %03o: mode %v, want %v", mask, info.Mode(), want)
			}
			if err := os.Remove(p); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	dir := t.TempDir()
	key, _ := generate(t, keyring.Ed25519)
	write := func(name string, pass []byte) string {
		path := filepath.Join(dir, name)
		if err := keyring.Write(path, key, "", pass); err != nil {
			t.Fatal(err)
		}
		return path
	}
	plain, locked := write("plain", nil), write("locked", []byte("secret"))
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o601} {
		if err := os.Chmod(plain, mode); err != nil {
			t.Fatal(err)
		}
		var loose *keyring.LooseModeError
		if _, err := keyring.Load(plain, nil); !errors.As(err, &loose) || loose.Mode != mode || loose.Want != 0o600 {
			t.Errorf("mode %#o: %v", mode, err)
		}
	}
	if err := os.Chmod(plain, 0o400); err != nil {
		t.Fatal(err)
	}
	asked := func(string) ([]byte, error) {
		t.Error("asked for the passphrase of a plain key")
		return nil, errors.New("asked")
	}
	if _, err := keyring.Load(plain, asked); err != nil {
		t.Error(err)
	}
	cancelled := errors.New("ctrl-c")
	if _, err := keyring.Load(locked, func(string) ([]byte, error) { return nil, cancelled }); !errors.Is(err, cancelled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := keyring.Load(locked, passphrase("wrong")); !errors.Is(err, keyring.ErrPassphrase) {
		t.Errorf("wrong passphrase: %v", err)
	}
	if _, err := keyring.Load(locked, nil); err == nil || !strings.Contains(err.Error(), "encrypted") {
		t.Errorf("nobody to ask: %v", err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	junk := filepath.Join(dir, "junk")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	huge := filepath.Join(dir, "huge")
	if err := os.WriteFile(huge, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(huge, 1<<40); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		fifo: "not a plain file", junk: "no key found", huge: "too large",
		dir: "not a plain file", filepath.Join(dir, "none"): "no such file",
	} {
		if _, err := keyring.Load(path, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Load(%q): %v, want %q", path, err, want)
		}
	}
}

// TestOtherOwner: a key that belongs to somebody else was put there by them.
func TestOtherOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	key, _ := generate(t, keyring.Ed25519)
	if err := keyring.Write(path, key, "", nil); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := keyring.CheckPrivate(path, info); err != nil {
		t.Error(err)
	}
	if err := keyring.CheckPrivate(path, owned{info, os.Geteuid() + 1}); err == nil || !strings.Contains(err.Error(), "belongs to user") {
		t.Errorf("key of another user: %v", err)
	}
	if err := keyring.CheckPrivate(path, owned{info, 0}); err != nil {
		t.Errorf("key of root: %v", err)
	}
}

type owned struct {
	fs.FileInfo
	uid int
}

func (o owned) Sys() any { return &syscall.Stat_t{Uid: uint32(o.uid)} }

func FuzzParsePublic(f *testing.F) {
	_, pub := generate(f, keyring.Ed25519)
	line := ssh.MarshalAuthorizedKey(pub)
	if _, _, err := keyring.ParsePublic(line); err != nil {
		f.Fatalf("the seed does not load: %v", err)
	}
	f.Add(line)
	f.Add(append(bytes.TrimSpace(line), " comment\n"...))
	f.Add(append([]byte("# a comment\n\n"), line...))
	f.Add(append(bytes.Clone(line), line...))
	f.Add(append([]byte("cert-authority "), line...))
	f.Add([]byte("-----BEGIN OPENSSH PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, _, err := keyring.ParsePublic(data)
		if err != nil {
			return
		}
		if _, ok := key.(*ssh.Certificate); ok {
			t.Fatal("a certificate passes for a key")
		}
		again, _, err := keyring.ParsePublic(ssh.MarshalAuthorizedKey(key))
		if err != nil || !bytes.Equal(again.Marshal(), key.Marshal()) {
			t.Fatalf("key does not read back: %v", err)
		}
	})
}

func TestParsePublicRefuses(t *testing.T) {
	key, pub := generate(t, keyring.Ed25519)
	line := string(ssh.MarshalAuthorizedKey(pub))
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := &ssh.Certificate{Key: pub, CertType: ssh.UserCert}
	if err := cert.SignCert(strings.NewReader(strings.Repeat("r", 100)), signer); err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		"": "no public key", "junk\n": "no public key", line + line: "more than one",
		"cert-authority " + line: "options before the key", string(ssh.MarshalAuthorizedKey(cert)): "got a certificate",
		"-----BEGIN OPENSSH PRIVATE KEY-----\nx": "private key",
	} {
		if _, _, err := keyring.ParsePublic([]byte(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParsePublic(%.30q): %v, want %q", in, err, want)
		}
	}
}
