package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca"
	"github.com/fleetca/fleetca/ca/keyring"
	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/cmd/terminal"
)

// initCmd is "fleetca init".
type initCmd struct {
	caFlags `embed:""`

	Type         string `enum:"ed25519,ecdsa,rsa" default:"ed25519" help:"Type of the keys: ed25519, ecdsa or rsa."`
	NoPassphrase bool   `help:"Do not encrypt the private keys."`

	UserCAAgentKey string `name:"user-ca-agent-key" type:"path" placeholder:"PUBKEY_FILE" help:"The user CA's private key lives in ssh-agent; this is its public key."`
	HostCAAgentKey string `name:"host-ca-agent-key" type:"path" placeholder:"PUBKEY_FILE" help:"The same for the host CA."`
	JumpCAAgentKey string `name:"jump-ca-agent-key" type:"path" placeholder:"PUBKEY_FILE" help:"The same for the jump CA."`

	JSON bool `help:"Write what was made as JSON to stdout."`
}

// Help is shown below the flags' summary.
func (*initCmd) Help() string {
	return `Makes a CA folder with three keys: the user CA, whose certificates let people
in, the host CA, whose certificates hosts show, and the jump CA, for the jump
host. The private keys are encrypted with a passphrase, which is asked for
twice. An existing folder is never overwritten, and an interrupted init leaves
none behind.

` + exitCodesHelp
}

// Run makes the CA folder.
func (c *initCmd) Run(ctx context.Context, a *program.App) error {
	dir, err := c.dir(a)
	if err != nil {
		return err
	}
	if err := ca.CheckNew(dir); err != nil {
		return existsHint(err)
	}
	cfg := ca.InitConfig{Path: dir, Type: keyring.Type(c.Type), NoPassphrase: c.NoPassphrase}
	if cfg.AgentKeys, err = c.agentKeys(ctx, a); err != nil {
		return err
	}
	if c.NoPassphrase && c.PassphraseFile != "" {
		return program.WithCode(program.ExitUsage, errors.New("--no-passphrase and --passphrase-file exclude each other"))
	}
	if !c.NoPassphrase && len(cfg.AgentKeys) < len(ca.Roles()) {
		if cfg.Passphrase, err = c.newPassphrase(ctx, a); err != nil {
			return withKeyHint(err)
		}
	}
	folder, err := ca.Init(ctx, cfg)
	if err != nil {
		return existsHint(err)
	}
	return c.report(a, folder)
}

func existsHint(err error) error {
	if errors.Is(err, ca.ErrFolderExists) {
		return terminal.Hint(err, "an existing CA is never overwritten; --ca-dir says where else to make one")
	}
	return err
}

func (c *initCmd) newPassphrase(ctx context.Context, a *program.App) ([]byte, error) {
	if file := c.passphraseFile(a); file != "" {
		return readPassphrase(file)
	}
	passphrase, err := a.Term.NewSecret(ctx, "passphrase for the new CA keys")
	if err == nil && len(passphrase) < ca.MinPassphrase {
		err = fmt.Errorf("the passphrase has under %d characters", ca.MinPassphrase)
	}
	return passphrase, err
}

// agentKeys reads the public keys of CAs that live in ssh-agent, and looks
// whether they do: a wrong file shows now, not at the first signature.
func (c *initCmd) agentKeys(ctx context.Context, a *program.App) (map[ca.Role]ssh.PublicKey, error) {
	keys := map[ca.Role]ssh.PublicKey{}
	for role, path := range map[ca.Role]string{
		ca.UserCA: c.UserCAAgentKey, ca.HostCA: c.HostCAAgentKey, ca.JumpCA: c.JumpCAAgentKey,
	} {
		if path == "" {
			continue
		}
		pub, _, err := keyring.ReadPublic(path)
		if err != nil {
			return nil, program.WithCode(program.ExitUsage, fmt.Errorf("--%s-ca-agent-key: %w", role, err))
		}
		keys[role] = pub
	}
	if len(keys) == 0 {
		return keys, nil
	}
	ag, err := keyring.DialAgent(ctx, a.Getenv("SSH_AUTH_SOCK"))
	if err != nil {
		return nil, withKeyHint(err)
	}
	defer ag.Close()
	for _, role := range ca.Roles() {
		if keys[role] == nil {
			continue
		}
		if _, err := keyring.FromAgent(ag, keys[role]); err != nil {
			return nil, withKeyHint(fmt.Errorf("%s CA: %w", role, err))
		}
	}
	return keys, nil
}

func (c *initCmd) report(a *program.App, folder *ca.Folder) error {
	type line struct {
		CA          ca.Role `json:"ca"`
		Fingerprint string  `json:"fingerprint"`
		PublicKey   string  `json:"public_key"`
		InAgent     bool    `json:"in_agent"`
	}
	out := struct {
		Folder string `json:"ca_dir"`
		Keys   []line `json:"keys"`
	}{Folder: folder.Path()}
	for _, role := range ca.Roles() {
		pub, err := folder.PublicKey(role)
		if err != nil {
			return err
		}
		out.Keys = append(out.Keys, line{role, ssh.FingerprintSHA256(pub), authorizedLine(pub), folder.InAgent(role)})
	}
	if c.JSON {
		return json.NewEncoder(a.Stdout).Encode(out)
	}
	fmt.Fprintf(a.Stdout, "CA folder %s\n", terminal.Clean(out.Folder))
	for _, k := range out.Keys {
		where := ""
		if k.InAgent {
			where = " (in ssh-agent)"
		}
		fmt.Fprintf(a.Stdout, "%s CA   %s%s\n", k.CA, k.Fingerprint, where)
	}
	fmt.Fprintln(a.Stderr, "keep a copy of this folder somewhere safe: without it no host can be certified again")
	return nil
}
