package ca_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/fleetca/fleetca/ca"
	"github.com/fleetca/fleetca/ca/keyring"
)

// newFolder makes a CA folder without passphrase, whose encryption is slow.
func newFolder(t testing.TB) *ca.Folder {
	t.Helper()
	f, err := ca.Init(t.Context(), ca.InitConfig{Path: filepath.Join(t.TempDir(), "ca"), NoPassphrase: true})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func names(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestInit(t *testing.T) {
	f := newFolder(t)
	want := []string{"config.yaml", "host_ca", "host_ca.pub", "jump_ca", "jump_ca.pub", "ledger.jsonl", "user_ca", "user_ca.pub"}
	if got := names(t, f.Path()); !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
	for name, mode := range map[string]fs.FileMode{
		".": 0o700 | fs.ModeDir, "user_ca": 0o600, "host_ca": 0o600, "jump_ca": 0o600,
		"user_ca.pub": 0o644, "ledger.jsonl": 0o600, "config.yaml": 0o600,
	} {
		info, err := os.Stat(filepath.Join(f.Path(), name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != mode {
			t.Errorf("%s has mode %v, want %v", name, info.Mode(), mode)
		}
	}
	keys := map[string]bool{}
	for _, role := range ca.Roles() {
		pub, err := f.PublicKey(role)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := f.Signer(role, ca.Unlock{})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(signer.PublicKey().Marshal(), pub.Marshal()) {
			t.Errorf("%s CA: signer and public key differ", role)
		}
		keys[string(pub.Marshal())] = true
	}
	if len(keys) != 3 {
		t.Errorf("%d different keys", len(keys))
	}
	if left := names(t, filepath.Dir(f.Path())); len(left) != 1 {
		t.Errorf("init left %q behind", left)
	}
}

func TestInitEncrypts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "down", "ca")
	agentKey := newSigner(t, "ed25519").PublicKey()
	f, err := ca.Init(t.Context(), ca.InitConfig{
		Path: path, Passphrase: []byte("correct horse"),
		AgentKeys: map[ca.Role]ssh.PublicKey{ca.UserCA: agentKey, ca.JumpCA: newSigner(t, "rsa").PublicKey()},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Signer(ca.HostCA, ca.Unlock{}); err == nil || !strings.Contains(err.Error(), "encrypted") {
		t.Errorf("the key is not encrypted: %v", err)
	}
	asked := ""
	if _, err := f.Signer(ca.HostCA, ca.Unlock{Passphrase: func(p string) ([]byte, error) {
		asked = p
		return []byte("correct horse"), nil
	}}); err != nil || asked != filepath.Join(path, "host_ca") {
		t.Errorf("asked for %q, %v", asked, err)
	}
	if got := names(t, path); slices.Contains(got, "user_ca") || !slices.Contains(got, "user_ca.pub") {
		t.Errorf("files %q with the user CA in the agent", got)
	}
	if !f.InAgent(ca.UserCA) || f.InAgent(ca.HostCA) {
		t.Error("config.yaml does not say where the keys are")
	}
}

func TestInitRefuses(t *testing.T) {
	one := newSigner(t, "ed25519").PublicKey()
	for name, c := range map[string]struct {
		config ca.InitConfig
		want   string
	}{
		"no path":          {ca.InitConfig{NoPassphrase: true}, "Path not set"},
		"no passphrase":    {ca.InitConfig{Path: "x"}, "passphrase has under 8"},
		"empty":            {ca.InitConfig{Path: "x", Passphrase: []byte{}}, "passphrase has under 8"},
		"short passphrase": {ca.InitConfig{Path: "x", Passphrase: []byte("short")}, "passphrase has under 8"},
		"both":             {ca.InitConfig{Path: "x", Passphrase: []byte("long enough"), NoPassphrase: true}, "both"},
		"odd type":         {ca.InitConfig{Path: "x", NoPassphrase: true, Type: "dsa"}, "unknown key type"},
		"one key": {ca.InitConfig{
			Path: "x", NoPassphrase: true,
			AgentKeys: map[ca.Role]ssh.PublicKey{ca.UserCA: one, ca.HostCA: one},
		}, "host CA and user CA are one key"},
		"odd role": {ca.InitConfig{
			Path: "x", NoPassphrase: true, AgentKeys: map[ca.Role]ssh.PublicKey{"moon": one},
		}, `unknown CA "moon"`},
		"certificate": {ca.InitConfig{
			Path: "x", NoPassphrase: true, AgentKeys: map[ca.Role]ssh.PublicKey{ca.UserCA: certificate(t)},
		}, "got a certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if c.config.Path != "" {
				c.config.Path = filepath.Join(dir, c.config.Path)
			}
			if _, err := ca.Init(t.Context(), c.config); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			if left := names(t, dir); len(left) > 0 {
				t.Errorf("left %q behind", left)
			}
		})
	}
}

func certificate(t *testing.T) ssh.PublicKey {
	a, err := ca.New(config(t, &memory{}))
	if err != nil {
		t.Fatal(err)
	}
	certs, err := a.Sign(t.Context(), request(t))
	if err != nil {
		t.Fatal(err)
	}
	return certs[0]
}

func TestInitNeverOverwrites(t *testing.T) {
	dir := t.TempDir()
	for name, prepare := range map[string]func(path string) error{
		"folder with a file": func(p string) error {
			return errors.Join(os.Mkdir(p, 0o700), os.WriteFile(filepath.Join(p, "x"), nil, 0o600))
		},
		"file": func(p string) error { return os.WriteFile(p, []byte("precious"), 0o600) },
	} {
		path := filepath.Join(dir, name)
		if err := prepare(path); err != nil {
			t.Fatal(err)
		}
		if _, err := ca.Init(t.Context(), ca.InitConfig{Path: path, NoPassphrase: true}); err == nil {
			t.Errorf("%s: overwritten", name)
		}
	}
	if got := names(t, dir); len(got) != 2 {
		t.Errorf("left %q", got)
	}
	f := newFolder(t)
	before, _ := os.ReadFile(filepath.Join(f.Path(), "user_ca"))
	if _, err := ca.Init(t.Context(), ca.InitConfig{Path: f.Path(), NoPassphrase: true}); !errors.Is(err, ca.ErrFolderExists) {
		t.Errorf("second init: %v", err)
	}
	if after, _ := os.ReadFile(filepath.Join(f.Path(), "user_ca")); !bytes.Equal(before, after) {
		t.Error("the key changed")
	}
	empty := t.TempDir()
	if _, err := ca.Init(t.Context(), ca.InitConfig{Path: empty, NoPassphrase: true}); err != nil {
		t.Errorf("into an empty folder: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ca.Init(gone, ca.InitConfig{Path: filepath.Join(dir, "late"), NoPassphrase: true}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if got := names(t, dir); len(got) != 2 {
		t.Errorf("cancelled init left %q", got)
	}
}

// TestInitRace: of many inits at once exactly one makes the folder, whole.
func TestInitRace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ca")
	var all sync.WaitGroup
	var mu sync.Mutex
	made := 0
	for range 8 {
		all.Go(func() {
			_, err := ca.Init(t.Context(), ca.InitConfig{Path: path, NoPassphrase: true})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				made++
			} else if !errors.Is(err, ca.ErrFolderExists) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := names(t, dir); made != 1 || len(got) != 1 {
		t.Errorf("%d made it; left %q", made, got)
	}
	f, err := ca.OpenFolder(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range ca.Roles() {
		if _, err := f.Signer(role, ca.Unlock{}); err != nil {
			t.Error(err)
		}
	}
}

func TestOpenFolderRefuses(t *testing.T) {
	if _, err := ca.OpenFolder(filepath.Join(t.TempDir(), "none")); !errors.Is(err, ca.ErrNoFolder) {
		t.Errorf("nothing there: %v", err)
	}
	if _, err := ca.OpenFolder(t.TempDir()); err == nil {
		t.Error("an empty folder passes")
	}
	for name, c := range map[string]struct {
		change func(t *testing.T, dir string)
		want   string
	}{
		"group may look":  {func(t *testing.T, d string) { chmod(t, d, 0o750) }, "mode 0750"},
		"others may look": {func(t *testing.T, d string) { chmod(t, d, 0o701) }, "mode 0701"},
		"one key twice": {func(t *testing.T, d string) {
			data, _ := os.ReadFile(filepath.Join(d, "user_ca.pub"))
			write(t, filepath.Join(d, "host_ca.pub"), string(data))
		}, "user CA and host CA are one key"},
		"junk public key": {func(t *testing.T, d string) { write(t, filepath.Join(d, "user_ca.pub"), "junk") }, "no public key"},
		"certificate as CA key": {func(t *testing.T, d string) {
			write(t, filepath.Join(d, "user_ca.pub"), string(ssh.MarshalAuthorizedKey(certificate(t))))
		}, "got a certificate"},
		"config: misspelt":      {setting("limit: {}"), "field limit not found"},
		"config: not YAML":      {setting("{"), "yaml"},
		"config: odd key":       {setting("keys: {moon_ca: agent}"), `unknown key "moon_ca"`},
		"config: odd place":     {setting("keys: {user_ca: cloud}"), `"cloud" is neither`},
		"config: zero":          {setting("limits: {user: {max: 0s}}"), "is zero"},
		"config: no unit":       {setting("limits: {user: {max: 30}}"), "not of the form"},
		"config: default above": {setting("limits: {user: {default: 31h}}"), "over the maximum"},
		"config: for ever":      {setting("limits: {host: {max: 500000d}}"), "over 3650d"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFolder(t)
			c.change(t, f.Path())
			if _, err := ca.OpenFolder(f.Path()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func chmod(t *testing.T, path string, mode fs.FileMode) {
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func setting(text string) func(*testing.T, string) {
	return func(t *testing.T, dir string) { write(t, filepath.Join(dir, "config.yaml"), text) }
}

func TestRaisedLimits(t *testing.T) {
	f := newFolder(t)
	write(t, filepath.Join(f.Path(), "config.yaml"), "limits:\n  user: {max: 1w}\n  host: {max: 30d}\n")
	f, err := ca.OpenFolder(f.Path())
	if err != nil {
		t.Fatal(err)
	}
	r := f.Rules()
	if r.User.Max != 7*24*time.Hour || r.User.Default != 12*time.Hour {
		t.Errorf("user %+v", r.User)
	}
	if r.Host.Max != 30*24*time.Hour || r.Host.Default != 30*24*time.Hour {
		t.Errorf("host %+v: a lowered maximum lowers the default", r.Host)
	}
	if err := os.Remove(filepath.Join(f.Path(), "config.yaml")); err != nil {
		t.Fatal(err)
	}
	if f, err = ca.OpenFolder(f.Path()); err != nil || f.Rules().User.Max != 30*time.Hour {
		t.Errorf("without config.yaml: %v", err)
	}
}

func TestSignerRefuses(t *testing.T) {
	f := newFolder(t)
	chmod(t, filepath.Join(f.Path(), "user_ca"), 0o640)
	var loose *keyring.LooseModeError
	if _, err := f.Signer(ca.UserCA, ca.Unlock{}); !errors.As(err, &loose) {
		t.Errorf("readable by the group: %v", err)
	}
	jump, err := os.ReadFile(filepath.Join(f.Path(), "jump_ca"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(f.Path(), "host_ca"), string(jump))
	if _, err := f.Signer(ca.HostCA, ca.Unlock{}); err == nil || !strings.Contains(err.Error(), "not halves of one key") {
		t.Errorf("exchanged private key: %v", err)
	}
	if _, err := f.Signer("moon", ca.Unlock{}); err == nil {
		t.Error("unknown role")
	}
}

// TestSignerInAgent signs with CA keys that live in an agent only.
func TestSignerInAgent(t *testing.T) {
	ring := agent.NewKeyring().(agent.ExtendedAgent)
	key, err := keyring.Generate(keyring.ECDSA)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	f, err := ca.Init(t.Context(), ca.InitConfig{
		Path: filepath.Join(t.TempDir(), "ca"), NoPassphrase: true,
		AgentKeys: map[ca.Role]ssh.PublicKey{ca.UserCA: pub},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Signer(ca.UserCA, ca.Unlock{}); !errors.Is(err, keyring.ErrNoAgent) {
		t.Errorf("without agent: %v", err)
	}
	if _, err := f.Signer(ca.UserCA, ca.Unlock{Agent: ring}); !errors.Is(err, keyring.ErrNotInAgent) {
		t.Errorf("agent without the key: %v", err)
	}
	if err := ring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
		t.Fatal(err)
	}
	signer, err := f.Signer(ca.UserCA, ca.Unlock{Agent: ring})
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(t, &memory{})
	cfg.Signer, cfg.Rules = signer, f.Rules()
	a, err := ca.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Sign(t.Context(), request(t)); err != nil {
		t.Error(err)
	}
}
