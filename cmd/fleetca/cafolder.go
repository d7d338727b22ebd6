package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca"
	"github.com/fleetca/fleetca/ca/keyring"
	"github.com/fleetca/fleetca/ca/ledger"
	"github.com/fleetca/fleetca/ca/profile"
	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/cmd/terminal"
)

// caFlags say which CA folder to use and how to open its keys.
type caFlags struct {
	caDirFlag `embed:""`

	PassphraseFile string `type:"path" placeholder:"FILE" help:"Read the passphrase of the CA keys from the first line of FILE ($FLEETCA_PASSPHRASE_FILE) in place of asking."`
}

// caDirFlag is for commands that need no key.
type caDirFlag struct {
	CADir string `name:"ca-dir" type:"path" placeholder:"DIR" help:"CA folder (default: $FLEETCA_DIR, $XDG_DATA_HOME/fleetca, ~/.local/share/fleetca)."`
}

// dir is the CA folder's path.
func (f caDirFlag) dir(a *program.App) (string, error) {
	if f.CADir != "" {
		return f.CADir, nil
	}
	if dir := a.Getenv("FLEETCA_DIR"); dir != "" {
		return filepath.Abs(dir)
	}
	// XDG says that relative paths are to be ignored.
	if data := a.Getenv("XDG_DATA_HOME"); filepath.IsAbs(data) {
		return filepath.Join(data, "fleetca"), nil
	}
	if home := a.Getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "share", "fleetca"), nil
	}
	return "", program.WithCode(program.ExitUsage, terminal.Hint(errors.New("where the CA folder is can't be told: HOME is not set"), "say so with --ca-dir DIR"))
}

// passphraseFile is where the passphrase is, or "" if it is to be asked for.
func (f caFlags) passphraseFile(a *program.App) string {
	if f.PassphraseFile != "" {
		return f.PassphraseFile
	}
	return a.Getenv("FLEETCA_PASSPHRASE_FILE")
}

// caFolder is an open CA folder. close must be called when keys of it were used.
type caFolder struct {
	*ca.Folder
	passphraseFile string
	closers        []io.Closer
}

func (f caFlags) openFolder(a *program.App) (*caFolder, error) {
	folder, err := f.caDirFlag.openFolder(a)
	if err != nil {
		return nil, err
	}
	folder.passphraseFile = f.passphraseFile(a)
	return folder, nil
}

func (f caDirFlag) openFolder(a *program.App) (*caFolder, error) {
	dir, err := f.dir(a)
	if err != nil {
		return nil, err
	}
	folder, err := ca.OpenFolder(dir)
	if errors.Is(err, ca.ErrNoFolder) {
		return nil, program.WithCode(program.ExitUsage, terminal.Hint(err, "fleetca init makes one; --ca-dir or FLEETCA_DIR says where it is"))
	}
	if err != nil {
		return nil, program.WithCode(program.ExitUsage, withModeHint(err))
	}
	return &caFolder{Folder: folder}, nil
}

// withModeHint adds how to close a file to others, if that is the trouble.
func withModeHint(err error) error {
	if loose := (*keyring.LooseModeError)(nil); errors.As(err, &loose) {
		return terminal.Hint(err, fmt.Sprintf("chmod %#o %s, and think about who may have read it", loose.Want, loose.Path))
	}
	return err
}

// provisioningKeys are what hosts trust and what the provisioner expects of them.
func (f *caFolder) provisioningKeys() (userCA, hostCA ssh.PublicKey, err error) {
	if userCA, err = f.PublicKey(ca.UserCA); err != nil {
		return nil, nil, err
	}
	if hostCA, err = f.PublicKey(ca.HostCA); err != nil {
		return nil, nil, err
	}
	return userCA, hostCA, nil
}

// hostTTL is how long host certificates live if nothing else is said.
func (f *caFolder) hostTTL() (time.Duration, error) {
	limits, err := f.Rules().For(profile.Host)
	return limits.Default, err
}

// hostAuthority opens the host CA.
func (f *caFolder) hostAuthority(ctx context.Context, a *program.App) (*ca.Authority, error) {
	return f.authority(ctx, a, ca.HostCA)
}

// authority opens a CA: its key, after asking for the passphrase where one is
// needed, and the ledger.
func (f *caFolder) authority(ctx context.Context, a *program.App, role ca.Role) (*ca.Authority, error) {
	signer, err := f.signer(ctx, a, role)
	if err != nil {
		return nil, withKeyHint(err)
	}
	l, err := ledger.Open(ledger.Config{Path: f.LedgerPath()})
	if err != nil {
		return nil, err
	}
	f.closers = append(f.closers, l)
	return ca.New(ca.Config{
		Kind: role.Kind(), Signer: signer, Rules: f.Rules(), Ledger: l, By: whoami(), Now: a.Now,
	})
}

// close ends what authority opened, the ledger first.
func (f *caFolder) close() error {
	var errs []error
	for i := len(f.closers) - 1; i >= 0; i-- {
		errs = append(errs, f.closers[i].Close())
	}
	f.closers = nil
	return errors.Join(errs...)
}

// attempts is how often a passphrase may be typed wrong, as with ssh.
const attempts = 3

func (f *caFolder) signer(ctx context.Context, a *program.App, role ca.Role) (ssh.Signer, error) {
	return f.signerWith(ctx, a, role, new([]byte))
}

// signerWith is signer, and stores the passphrase that was needed, if one was.
func (f *caFolder) signerWith(ctx context.Context, a *program.App, role ca.Role, passphrase *[]byte) (ssh.Signer, error) {
	if f.InAgent(role) {
		ag, err := f.agent(ctx, a)
		if err != nil {
			return nil, fmt.Errorf("%s CA: its key lives in ssh-agent: %w", role, err)
		}
		return f.Signer(role, ca.Unlock{Agent: ag})
	}
	if f.passphraseFile != "" {
		return f.Signer(role, ca.Unlock{Passphrase: func(string) (_ []byte, err error) {
			*passphrase, err = readPassphrase(f.passphraseFile)
			return *passphrase, err
		}})
	}
	for i := 1; ; i++ {
		signer, err := f.Signer(role, ca.Unlock{Passphrase: func(path string) (_ []byte, err error) {
			*passphrase, err = a.Term.Secret(ctx, fmt.Sprintf("passphrase of the %s CA (%s)", role, path))
			return *passphrase, err
		}})
		if !errors.Is(err, keyring.ErrPassphrase) || i == attempts {
			return signer, err
		}
		fmt.Fprintln(a.Stderr, "wrong passphrase, try again")
	}
}

// agent connects to the running ssh-agent. A signature may wait for a finger on
// a token; the end of ctx ends that too.
func (f *caFolder) agent(ctx context.Context, a *program.App) (*keyring.Agent, error) {
	ag, err := keyring.DialAgent(ctx, a.Getenv("SSH_AUTH_SOCK"))
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = ag.Close() })
	f.closers = append(f.closers, closeFunc(func() error {
		if !stop() {
			return nil // ctx has closed it
		}
		return ag.Close()
	}))
	return ag, nil
}

type closeFunc func() error

func (f closeFunc) Close() error { return f() }

// withKeyHint tells what helps when a CA key doesn't open.
func withKeyHint(err error) error {
	switch {
	case errors.Is(err, terminal.ErrNoTerminal):
		return terminal.Hint(err, "without a terminal the passphrase comes from --passphrase-file FILE or $FLEETCA_PASSPHRASE_FILE")
	case errors.Is(err, keyring.ErrNoAgent):
		return terminal.Hint(err, `start one with eval "$(ssh-agent)" and add the CA key to it`)
	case errors.Is(err, keyring.ErrNotInAgent):
		return terminal.Hint(err, "ssh-add adds it (a hardware token: ssh-add -s LIBRARY); ssh-add -l lists what is there")
	}
	return withModeHint(err)
}

// readPassphrase reads the first line of a file, which may also be a pipe such
// as /dev/fd/3. A plain file must be closed to others.
func readPassphrase(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the passphrase: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading the passphrase: %w", err)
	}
	if info.Mode().IsRegular() {
		if err := keyring.CheckPrivate(path, info); err != nil {
			return nil, withModeHint(fmt.Errorf("reading the passphrase: %w", err))
		}
	}
	const most = 4096
	data, err := io.ReadAll(io.LimitReader(file, most+1))
	if err != nil {
		return nil, fmt.Errorf("reading the passphrase: %w", err)
	}
	line, _, _ := strings.Cut(string(data), "\n")
	line = strings.TrimSuffix(line, "\r")
	switch {
	case line == "":
		return nil, fmt.Errorf("reading the passphrase: the first line of %q is empty", path)
	case len(line) > most:
		return nil, fmt.Errorf("reading the passphrase: the first line of %q is over %d bytes long", path, most)
	}
	return []byte(line), nil
}

// whoami is who issues, for the ledger: as much as the system tells.
func whoami() string {
	name, host := "", ""
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	return name + "@" + host
}
