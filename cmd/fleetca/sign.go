package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca"
	"github.com/fleetca/fleetca/ca/keyring"
	"github.com/fleetca/fleetca/ca/profile"
	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/cmd/terminal"
)

// signCmd is "fleetca sign".
type signCmd struct {
	caFlags `embed:""`

	Host []string `xor:"kind" required:"" placeholder:"NAME" help:"Certify a host for these names."`
	User string   `xor:"kind" required:"" placeholder:"ID" help:"Certify a person; ID is what sshd logs."`

	Principals []string `placeholder:"LOGIN" help:"Logins that a user certificate is good for (with --user)."`
	TTL        string   `name:"ttl" placeholder:"TIME" help:"How long it is valid: 8h, 30d, 1w, 1h30m (default: user 12h, host 90d, or as config.yaml says)."`
	KeyID      string   `name:"key-id" placeholder:"ID" help:"Key ID of a host certificate (default: its first name)."`

	SourceAddress []string `placeholder:"NETWORK" help:"Only from these addresses, such as 192.0.2.0/24 (with --user)."`
	ForceCommand  string   `placeholder:"COMMAND" help:"Run this whatever is asked for; of the extensions only permit-pty stays on (with --user)."`
	Extension     []string `placeholder:"NAME" help:"Turn extensions on: permit-pty, permit-port-forwarding, permit-agent-forwarding, permit-X11-forwarding, permit-user-rc, no-touch-required."`
	NoExtension   []string `placeholder:"NAME" help:"Turn extensions off."`
	NoExtensions  bool     `help:"Start without any extension."`

	Agent   bool   `help:"Make the key in memory and put key and certificate into ssh-agent, for as long as it is valid (with --user)."`
	Confirm bool   `help:"Have the agent ask before each use (with --agent)."`
	Type    string `enum:"ed25519,ecdsa,rsa" default:"ed25519" help:"Type of a key that is made: ed25519, ecdsa or rsa."`
	Output  string `short:"o" placeholder:"FILE" help:"Where to write: the certificate if a key was given (- is stdout), otherwise the private key, with FILE-cert.pub beside it."`
	JSON    bool   `help:"Write what was issued as JSON to stdout."`

	PublicKey string `arg:"" optional:"" name:"PUBKEY_FILE" help:"Public key to certify; - is stdin. Without it a key is made."`
}

// Help is shown below the flags' summary.
func (*signCmd) Help() string {
	return `fleetca sign --host web1,web1.example.com /etc/ssh/ssh_host_ed25519_key.pub
    writes ssh_host_ed25519_key-cert.pub beside it, and prints the lines for
    sshd_config.
fleetca sign --host web1
    makes the key web1 and its certificate web1-cert.pub.
fleetca sign --user alice --principals root,deploy ~/.ssh/id_ed25519.pub
    writes id_ed25519-cert.pub, which ssh finds by itself.
fleetca sign --user alice --principals root --ttl 8h --agent
    leaves nothing on disk.

Every certificate is in the ledger before it is signed. A private key is never
overwritten; an older certificate is replaced.

` + exitCodesHelp
}

// Run issues one certificate.
func (c *signCmd) Run(ctx context.Context, a *program.App) (err error) {
	req, err := c.request()
	if err != nil {
		return program.WithCode(program.ExitUsage, err)
	}
	out, err := c.destination()
	if err != nil {
		return program.WithCode(program.ExitUsage, err)
	}
	folder, err := c.openFolder(a)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, folder.close()) }()

	if out.key, req.PublicKey, err = c.key(a); err != nil {
		return err
	}
	// What can't be certified shows before anybody types a passphrase.
	if _, err := folder.Rules().Certificate(req, 1, a.Now()); err != nil {
		return program.WithCode(program.ExitUsage, requestHint(err, folder))
	}
	if err := out.check(); err != nil {
		return err
	}
	if c.Agent {
		if out.agent, err = folder.agent(ctx, a); err != nil {
			return withKeyHint(err)
		}
	}
	role := ca.UserCA
	if req.Kind == profile.Host {
		role = ca.HostCA
	}
	authority, err := folder.authority(ctx, a, role)
	if err != nil {
		return err
	}
	certs, err := authority.Sign(ctx, req)
	if err != nil {
		return err
	}
	if err := out.write(a, certs[0]); err != nil {
		return err
	}
	return c.report(a, out, certs[0])
}

func requestHint(err error, folder *caFolder) error {
	if long := (*profile.TooLongError)(nil); errors.As(err, &long) {
		return terminal.Hint(err, fmt.Sprintf("config.yaml in %s may raise the maximum: limits: {%s: {max: %s}}",
			folder.Path(), long.Kind, profile.FormatTTL(long.Asked)))
	}
	return err
}

// request is what the flags ask for, but for the public key.
func (c *signCmd) request() (profile.Request, error) {
	req := profile.Request{
		Kind: profile.Host, KeyID: c.KeyID, Principals: c.Host,
		ForceCommand: c.ForceCommand,
		Extensions:   profile.Extensions{None: c.NoExtensions, Enable: c.Extension, Disable: c.NoExtension},
	}
	if c.User != "" {
		if c.KeyID != "" {
			return req, errors.New("--key-id is for hosts: with --user the ID is the key ID")
		}
		req.Kind, req.KeyID, req.Principals = profile.User, c.User, c.Principals
		if len(c.Principals) == 0 {
			return req, terminal.Hint(errors.New("--user needs --principals"), "name the logins it shall be good for, such as --principals root,deploy")
		}
	} else if len(c.Principals) > 0 {
		return req, errors.New("--principals is for users: with --host the names are the principals")
	}
	switch {
	case c.Agent && c.User == "":
		return req, errors.New("--agent is for users: sshd wants its keys in files")
	case c.Agent && (c.PublicKey != "" || c.Output != ""):
		return req, errors.New("--agent makes a key of its own and writes no file: leave out PUBKEY_FILE and --output")
	case c.Confirm && !c.Agent:
		return req, errors.New("--confirm goes with --agent")
	}
	if c.TTL != "" {
		ttl, err := profile.ParseTTL(c.TTL)
		if err != nil {
			return req, fmt.Errorf("--ttl: %w", err)
		}
		req.TTL = ttl
	}
	for _, s := range c.SourceAddress {
		network, err := profile.ParseSourceAddress(s)
		if err != nil {
			return req, fmt.Errorf("--source-address: %w", err)
		}
		req.SourceAddresses = append(req.SourceAddresses, network)
	}
	return req, nil
}

// key reads the key to certify, or makes one, whose private half is then not
// nil.
func (c *signCmd) key(a *program.App) (*newKey, ssh.PublicKey, error) {
	var pub ssh.PublicKey
	var err error
	switch c.PublicKey {
	case "":
		private, err := keyring.Generate(keyring.Type(c.Type))
		if err != nil {
			return nil, nil, err
		}
		if pub, err = ssh.NewPublicKey(private.Public()); err != nil {
			return nil, nil, err
		}
		return &newKey{private}, pub, nil
	case "-":
		var data []byte
		if data, err = io.ReadAll(io.LimitReader(a.Stdin, 1<<20)); err == nil {
			pub, _, err = keyring.ParsePublic(data)
		}
		if err != nil {
			err = fmt.Errorf("reading the public key from stdin: %w", err)
		}
	default:
		pub, _, err = keyring.ReadPublic(c.PublicKey)
	}
	return nil, pub, program.WithCode(program.ExitUsage, err)
}

// authorizedLine is a key or certificate as one line of a .pub file.
func authorizedLine(key ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

// left is the time from now to then, rounded to its two greatest units.
func left(now, then time.Time) string {
	d := then.Sub(now)
	switch {
	case d <= 0:
		return "expired"
	case d >= 24*time.Hour:
		d = d.Round(time.Hour)
	case d >= time.Hour:
		d = d.Round(time.Minute)
	default:
		d = max(d.Round(time.Second), time.Second)
	}
	return profile.FormatTTL(d)
}
