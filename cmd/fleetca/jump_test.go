package main

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca"
	"github.com/fleetca/fleetca/ca/keyring"
	"github.com/fleetca/fleetca/inventory"
	"github.com/fleetca/fleetca/inventory/ansible"
	"github.com/fleetca/fleetca/templates"
)

// jumpFixture is a folder about to be made, and the host CA that certifies it.
func jumpFixture(t *testing.T) (*jumpFolder, ssh.Signer) {
	t.Helper()
	key := func() (*newKey, ssh.Signer) {
		private, err := keyring.Generate(keyring.Ed25519)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := ssh.NewSignerFromSigner(private)
		if err != nil {
			t.Fatal(err)
		}
		return &newKey{private}, signer
	}
	_, user := key()
	_, host := key()
	jump, _ := key()
	own, shown := key()
	inv, err := ansible.Load(t.Context(), "web1,web2")
	if err != nil {
		t.Fatal(err)
	}
	text, err := jumpInventory(inv, inv.Hosts())
	if err != nil {
		t.Fatal(err)
	}
	f := &jumpFolder{
		draft: &jumpDraft{
			names: []string{"jump"}, state: "state", inventory: text, hosts: inv.Hosts(), hostKey: own, public: shown.PublicKey(),
			config: templates.JumpConfig{Name: "jump", Listen: []string{":3023"}, State: "state"},
			unit: templates.JumpUnit{
				Name: "jump", Binary: "/usr/local/bin/fleetjump", Folder: "/etc/fleetjump", Source: "/srv/jump",
				State: "/etc/fleetjump/state", User: "fleetjump", StopSeconds: 90,
			},
		},
		jumpKey: jump.private, userCA: user.PublicKey(), hostCA: host.PublicKey(), now: time.Now,
	}
	f.sign = func() (*ssh.Certificate, error) { return certify(f, host, "jump") }
	return f, host
}

func certify(f *jumpFolder, by ssh.Signer, name string) (*ssh.Certificate, error) {
	cert := &ssh.Certificate{
		Key: f.draft.public, CertType: ssh.HostCert, KeyId: name, ValidPrincipals: []string{name}, Serial: 1,
		ValidAfter: uint64(time.Now().Add(-time.Minute).Unix()), ValidBefore: uint64(time.Now().Add(time.Hour).Unix()),
	}
	return cert, cert.SignCert(rand.Reader, by)
}

// TestJumpFolder holds that the folder is there whole or not at all, and that
// what fails leaves nothing behind.
func TestJumpFolder(t *testing.T) {
	for name, c := range map[string]struct {
		change func(f *jumpFolder, host ssh.Signer, out string)
		fails  bool
	}{
		"good": {func(*jumpFolder, ssh.Signer, string) {}, false},
		"the host CA refuses": {func(f *jumpFolder, _ ssh.Signer, _ string) {
			f.sign = func() (*ssh.Certificate, error) { return nil, errors.New("no") }
		}, true},
		"a certificate for another name": {func(f *jumpFolder, host ssh.Signer, _ string) {
			f.sign = func() (*ssh.Certificate, error) { return certify(f, host, "other") }
		}, true},
		"the host CA is the user CA": {func(f *jumpFolder, _ ssh.Signer, _ string) { f.userCA = f.hostCA }, true},
		"a host got lost": {func(f *jumpFolder, _ ssh.Signer, _ string) {
			f.draft.hosts = append(f.draft.hosts, &inventory.Host{Name: "web3"})
		}, true},
		"somebody was faster": {func(f *jumpFolder, _ ssh.Signer, out string) {
			sign := f.sign
			f.sign = func() (*ssh.Certificate, error) {
				if err := os.MkdirAll(filepath.Join(out, "theirs"), 0o700); err != nil {
					return nil, err
				}
				return sign()
			}
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			out := filepath.Join(dir, "jump")
			f, host := jumpFixture(t)
			c.change(f, host, out)
			err := f.make(t.Context(), out)
			if (err != nil) != c.fails {
				t.Fatal(err)
			}
			if c.fails {
				if name == "somebody was faster" && !errors.Is(err, ca.ErrFolderExists) {
					t.Errorf("told as %v", err)
				}
				hidden, _ := filepath.Glob(filepath.Join(dir, ".*.new-*"))
				if len(hidden) > 0 {
					t.Errorf("left behind: %q", hidden)
				}
				if _, err := os.Stat(filepath.Join(out, templates.JumpCAFile)); err == nil {
					t.Error("a key was left behind")
				}
				return
			}
			for _, file := range f.files {
				info, err := os.Stat(filepath.Join(out, file))
				if err != nil {
					t.Error(err)
				} else if mode := info.Mode().Perm(); mode != 0o600 && filepath.Ext(file) != ".pub" {
					t.Errorf("%s has mode %#o", file, mode)
				}
			}
		})
	}
}
