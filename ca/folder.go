package ca

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/fleetca/fleetca/ca/keyring"
	"github.com/fleetca/fleetca/ca/profile"
)

// Role is what one of the CA keys is for.
type Role string

// The three keys of a CA folder. They are always three different keys.
const (
	// UserCA signs user certificates.
	UserCA Role = "user"
	// HostCA signs the certificates that hosts show.
	HostCA Role = "host"
	// JumpCA signs the host certificates that the jump host shows on behalf
	// of a host.
	JumpCA Role = "jump"
)

// Roles lists them all.
func Roles() []Role { return []Role{UserCA, HostCA, JumpCA} }

// Kind is the kind of certificates that a CA of this role signs.
func (r Role) Kind() profile.Kind {
	if r == UserCA {
		return profile.User
	}
	return profile.Host
}

// file is the name of the private key, or of the key as far as config.yaml goes.
func (r Role) file() string { return string(r) + "_ca" }

func (r Role) check() error {
	switch r {
	case UserCA, HostCA, JumpCA:
		return nil
	}
	return fmt.Errorf("unknown CA %q", string(r))
}

// Names of the other files in a CA folder.
const (
	ledgerFile   = "ledger.jsonl"
	settingsFile = "config.yaml"
)

// Folder is a CA folder: for each role the files ROLE_ca and ROLE_ca.pub, the
// ledger, and config.yaml. A private key that lives in ssh-agent has no file;
// config.yaml says so.
type Folder struct {
	path     string
	settings settings
}

// settings is the shape of config.yaml.
type settings struct {
	// Keys says for user_ca, host_ca, jump_ca where the private key lives.
	Keys map[string]keyPlace `yaml:"keys"`
	// Limits change how long certificates of a kind may live.
	Limits struct {
		User limits `yaml:"user"`
		Host limits `yaml:"host"`
	} `yaml:"limits"`
	rules profile.Rules
}

type keyPlace string

const (
	placeFile  keyPlace = "file"
	placeAgent keyPlace = "agent"
)

type limits struct {
	Default string `yaml:"default"`
	Max     string `yaml:"max"`
}

// ErrNoFolder means that there is no CA folder at the path.
var ErrNoFolder = errors.New("no CA folder")

// OpenFolder checks a CA folder and reads its settings. It returns an error that
// wraps ErrNoFolder if there is none, and a *keyring.LooseModeError if others
// than its owner may look into it.
func OpenFolder(path string) (*Folder, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w at %q", ErrNoFolder, path)
	}
	if err != nil {
		return nil, fmt.Errorf("opening CA folder: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("opening CA folder: %q is not a folder", path)
	}
	if err := keyring.CheckPrivate(path, info); err != nil {
		return nil, fmt.Errorf("opening CA folder: %w", err)
	}
	f := &Folder{path: path}
	if err := f.distinct(); err != nil {
		return nil, fmt.Errorf("opening CA folder %q: %w", path, err)
	}
	data, err := readSettings(filepath.Join(path, settingsFile))
	if err != nil {
		return nil, err
	}
	if f.settings, err = parseSettings(data); err != nil {
		return nil, fmt.Errorf("reading %q: %w", filepath.Join(path, settingsFile), err)
	}
	return f, nil
}

// distinct refuses one key in two roles: whoever can sign for one would sign
// for both.
func (f *Folder) distinct() error {
	seen := map[string]Role{}
	for _, role := range Roles() {
		pub, err := f.PublicKey(role)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a jump CA may have moved elsewhere
		}
		if err != nil {
			return err
		}
		if other, ok := seen[string(pub.Marshal())]; ok {
			return fmt.Errorf("%s CA and %s CA are one key; they must differ", other, role)
		}
		seen[string(pub.Marshal())] = role
	}
	if len(seen) == 0 {
		return ErrNoFolder
	}
	return nil
}

// maxSettings is far above any config.yaml.
const maxSettings = 64 << 10

func readSettings(path string) ([]byte, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("opening CA folder: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxSettings))
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", path, err)
	}
	return data, nil
}

// parseSettings reads config.yaml. Unknown fields and values are refused, so
// that a misspelt limit is not silently no limit.
func parseSettings(data []byte) (settings, error) {
	var s settings
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&s); err != nil && !errors.Is(err, io.EOF) {
		return settings{}, yamlError(err)
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return settings{}, errors.New("more than one document")
	}
	for name, place := range s.Keys {
		known := false
		for _, role := range Roles() {
			known = known || role.file() == name
		}
		if !known {
			return settings{}, fmt.Errorf("keys: unknown key %q", name)
		}
		if place != placeFile && place != placeAgent {
			return settings{}, fmt.Errorf("keys: %s: %q is neither %q nor %q", name, string(place), placeFile, placeAgent)
		}
	}
	s.rules = profile.DefaultRules()
	if err := s.Limits.User.apply(&s.rules.User); err != nil {
		return settings{}, fmt.Errorf("limits: user: %w", err)
	}
	if err := s.Limits.Host.apply(&s.rules.Host); err != nil {
		return settings{}, fmt.Errorf("limits: host: %w", err)
	}
	if err := s.rules.Check(); err != nil {
		return settings{}, fmt.Errorf("limits: %w", err)
	}
	return s, nil
}

// yamlError is the first complaint of the decoder, without the names of our
// types.
func yamlError(err error) error {
	typeErr := (*yaml.TypeError)(nil)
	if !errors.As(err, &typeErr) || len(typeErr.Errors) == 0 {
		return err
	}
	text, _, _ := strings.Cut(typeErr.Errors[0], " in type ")
	text, _, _ = strings.Cut(text, " into ")
	return errors.New(text)
}

func (l limits) apply(to *profile.Limits) error {
	var err error
	if l.Max != "" {
		if to.Max, err = profile.ParseTTL(l.Max); err != nil {
			return fmt.Errorf("max: %w", err)
		}
		// A lowered maximum lowers the default that nobody set.
		to.Default = min(to.Default, to.Max)
	}
	if l.Default != "" {
		if to.Default, err = profile.ParseTTL(l.Default); err != nil {
			return fmt.Errorf("default: %w", err)
		}
	}
	return nil
}

// Path is where the folder is.
func (f *Folder) Path() string { return f.path }

// LedgerPath is where the ledger is.
func (f *Folder) LedgerPath() string { return filepath.Join(f.path, ledgerFile) }

// Rules are the limits that config.yaml sets, or the default ones.
func (f *Folder) Rules() profile.Rules { return f.settings.rules }

// PublicKey reads the public key of a role.
func (f *Folder) PublicKey(role Role) (ssh.PublicKey, error) {
	if err := role.check(); err != nil {
		return nil, err
	}
	pub, _, err := keyring.ReadPublic(filepath.Join(f.path, role.file()+".pub"))
	if err != nil {
		return nil, fmt.Errorf("%s CA: %w", role, err)
	}
	if pub, err = profile.CheckKey(pub); err != nil {
		return nil, fmt.Errorf("%s CA: %w", role, err)
	}
	return pub, nil
}

// InAgent tells whether the private key of a role lives in ssh-agent.
func (f *Folder) InAgent(role Role) bool { return f.settings.Keys[role.file()] == placeAgent }

// Unlock is how to get at private keys.
type Unlock struct {
	// Passphrase gives the passphrase of a key file. Nil: encrypted keys don't
	// open.
	Passphrase func(path string) ([]byte, error)
	// Agent is the running ssh-agent. Nil: keys that live there can't be used.
	Agent agent.ExtendedAgent
}

// Signer opens the private key of a role. Its public half is the one that the
// folder shows, or an error. The errors of keyring.Load and keyring.FromAgent
// are wrapped.
func (f *Folder) Signer(role Role, u Unlock) (ssh.Signer, error) {
	pub, err := f.PublicKey(role)
	if err != nil {
		return nil, err
	}
	if f.InAgent(role) {
		if u.Agent == nil {
			return nil, fmt.Errorf("%s CA: its key lives in ssh-agent: %w", role, keyring.ErrNoAgent)
		}
		signer, err := keyring.FromAgent(u.Agent, pub)
		if err != nil {
			return nil, fmt.Errorf("%s CA: %w", role, err)
		}
		return signer, nil
	}
	path := filepath.Join(f.path, role.file())
	signer, err := keyring.Load(path, u.Passphrase)
	if err != nil {
		return nil, fmt.Errorf("%s CA: %w", role, err)
	}
	if !bytes.Equal(signer.PublicKey().Marshal(), pub.Marshal()) {
		return nil, fmt.Errorf("%s CA: %q and %q are not halves of one key", role, path, path+".pub")
	}
	return signer, nil
}
