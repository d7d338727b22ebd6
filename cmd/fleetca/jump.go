package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca"
	"github.com/fleetca/fleetca/ca/keyring"
	"github.com/fleetca/fleetca/ca/profile"
	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/inventory"
	jumpconfig "github.com/fleetca/fleetca/jump/config"
	"github.com/fleetca/fleetca/templates"
)

// jumpCmd is "fleetca jump".
type jumpCmd struct {
	Init jumpInitCmd `cmd:"" help:"Write all that a jump host needs into a folder."`
}

// jumpInitCmd is "fleetca jump init".
type jumpInitCmd struct {
	caFlags        `embed:""`
	inventoryFlags `embed:""`

	Name []string `required:"" placeholder:"NAME" help:"The jump host's name, and further names that its certificate shall be for."`
	Out  string   `required:"" type:"path" placeholder:"DIR" help:"The folder to make."`

	Listen     []string `placeholder:"ADDRESS" default:":3023" help:"Where it listens: [HOST]:PORT."`
	InstallDir string   `placeholder:"DIR" default:"/etc/fleetjump" help:"Where the folder will be on the jump host; the systemd unit says so."`
	StateDir   string   `placeholder:"DIR" default:"state" help:"Where recordings and audit log go; relative ones are in the folder."`
	Admin      []string `sep:"none" placeholder:"IDENTITY" help:"Write a role that permits everything to this identity, the key ID of a certificate. May be repeated."`
	Everyone   bool     `help:"Write a role that lets everybody with a certificate in, as the logins that it lists."`
	TTL        string   `name:"ttl" placeholder:"TIME" help:"How long the jump host's certificate is valid (default: as for hosts)."`
	JSON       bool     `help:"Write what was made as JSON to stdout."`
}

// Help is shown below the flags' summary.
func (*jumpInitCmd) Help() string {
	return `fleetca jump init --inventory hosts.yaml --name jump.example.com --out jump --admin ann@example.com

makes the jump host's key, has the host CA certify it, and writes into the
folder: that key and certificate, the jump CA's private key, the public keys of
user and host CA, what the inventory says of names and addresses, a jump.yaml
with comments, and a systemd unit. fleetjump serve --config DIR/jump.yaml runs
it from there.

The folder appears whole or not at all, and is for its owner only. Its private
keys have no passphrase, so that the jump host starts by itself: carry it there
as you would carry a key. Without --admin and --everyone nobody may do anything
until jump.yaml says more.

` + exitCodesHelp
}

// jumpDraft is a folder for a jump host while it is made.
type jumpDraft struct {
	names     []string // the first is its name, lower-cased
	listen    []string
	state     string // in jump.yaml
	ttl       time.Duration
	inventory []byte
	hosts     []*inventory.Host
	unit      templates.JumpUnit
	config    templates.JumpConfig
	hostKey   *newKey
	public    ssh.PublicKey
}

// Run makes the folder.
func (c *jumpInitCmd) Run(ctx context.Context, a *program.App) (err error) {
	// What can be wrong shows before anybody types a passphrase.
	if err := ca.CheckNew(c.Out); err != nil {
		return outExists(err, c.Out)
	}
	draft, err := c.draft(ctx, a)
	if err != nil {
		return err
	}
	folder, err := c.openFolder(a)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, folder.close()) }()
	if folder.InAgent(ca.JumpCA) {
		return program.WithCode(program.ExitUsage, terminal.Hint(errors.New("jump CA: its key lives in ssh-agent, and the jump host needs it itself"),
			"the jump CA may be a key in a file while user CA and host CA stay in the agent: fleetca init without --jump-ca-agent-key"))
	}
	request := profile.Request{Kind: profile.Host, PublicKey: draft.public, KeyID: draft.names[0], Principals: draft.names, TTL: draft.ttl}
	if _, err := folder.Rules().Certificate(request, 1, a.Now()); err != nil {
		return program.WithCode(program.ExitUsage, requestHint(err, folder))
	}
	jumpKey, err := folder.privateKey(ctx, a, ca.JumpCA)
	if err != nil {
		return withKeyHint(err)
	}
	authority, err := folder.hostAuthority(ctx, a)
	if err != nil {
		return err
	}
	userCA, hostCA, err := folder.provisioningKeys()
	if err != nil {
		return err
	}
	files := &jumpFolder{draft: draft, jumpKey: jumpKey, userCA: userCA, hostCA: hostCA, now: a.Now}
	files.sign = func() (*ssh.Certificate, error) {
		certs, err := authority.Sign(ctx, request)
		if err != nil {
			return nil, err
		}
		return certs[0], nil
	}
	if err := files.make(ctx, c.Out); err != nil {
		return outExists(err, c.Out)
	}
	return c.report(a, files)
}

func outExists(err error, path string) error {
	if errors.Is(err, ca.ErrFolderExists) {
		return program.WithCode(program.ExitUsage, terminal.Hint(fmt.Errorf("making %q: %w", path, ca.ErrFolderExists),
			"nothing is overwritten; --out says where else to make it"))
	}
	return err
}

// draft checks the flags and the inventory.
func (c *jumpInitCmd) draft(ctx context.Context, a *program.App) (*jumpDraft, error) {
	d := &jumpDraft{listen: c.Listen, state: c.StateDir}
	for _, name := range c.Name {
		d.names = append(d.names, strings.ToLower(name))
	}
	err := jumpconfig.CheckName(d.names[0])
	if err != nil {
		return nil, program.WithCode(program.ExitUsage, fmt.Errorf("--name: %w", err))
	}
	if slices.Contains(c.Admin, "") {
		return nil, program.WithCode(program.ExitUsage, errors.New("--admin: the identity is empty"))
	}
	if c.TTL != "" {
		if d.ttl, err = profile.ParseTTL(c.TTL); err != nil {
			return nil, program.WithCode(program.ExitUsage, fmt.Errorf("--ttl: %w", err))
		}
	}
	lowPort, err := lowPort(c.Listen)
	if err != nil {
		return nil, program.WithCode(program.ExitUsage, err)
	}
	state := c.StateDir
	if !path.IsAbs(state) {
		if !filepath.IsLocal(state) || filepath.Clean(state) == "." {
			return nil, program.WithCode(program.ExitUsage, fmt.Errorf("--state-dir %q is not within the folder", state))
		}
		state = path.Join(c.InstallDir, state)
	}
	d.config = templates.JumpConfig{Name: d.names[0], Listen: c.Listen, State: c.StateDir, Admins: c.Admin, Everyone: c.Everyone}
	d.unit = templates.JumpUnit{
		Name: d.names[0], Binary: "/usr/local/bin/fleetjump", Folder: path.Clean(c.InstallDir), Source: c.Out, State: path.Clean(state),
		User: "fleetjump", LowPort: lowPort, StopSeconds: int(jumpconfig.DefaultDrainTimeout/time.Second) + 30,
	}
	// Both are rendered here once, for what they refuse.
	_, err = d.config.Render()
	if err == nil {
		_, err = d.unit.Render()
	}
	if err != nil {
		return nil, program.WithCode(program.ExitUsage, err)
	}
	if err := c.copyInventory(ctx, a, d); err != nil {
		return nil, err
	}
	private, err := keyring.Generate(keyring.Ed25519)
	if err != nil {
		return nil, err
	}
	d.hostKey = &newKey{private}
	d.public, err = ssh.NewPublicKey(private.Public())
	return d, err
}

// lowPort tells whether one of the addresses needs a privilege.
func lowPort(addresses []string) (bool, error) {
	low := false
	for i, address := range addresses {
		_, text, err := net.SplitHostPort(address)
		if err != nil {
			return false, fmt.Errorf("--listen %q is not of the form [HOST]:PORT", address)
		}
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return false, fmt.Errorf("--listen %q: %q is not a port", address, text)
		}
		if slices.Contains(addresses[:i], address) {
			return false, fmt.Errorf("--listen %q is said twice", address)
		}
		low = low || port > 0 && port < 1024
	}
	return low, nil
}

// copyInventory reads the inventory and keeps what a jump host needs of it.
func (c *jumpInitCmd) copyInventory(ctx context.Context, a *program.App, d *jumpDraft) error {
	inv, err := c.load(ctx)
	if err != nil {
		return err
	}
	warnInventory(a, inv)
	hosts, err := c.choose(inv)
	if err != nil {
		return err
	}
	var kept []*inventory.Host
	var indirect []string
	for _, h := range hosts {
		s, err := h.Settings()
		if bad := (*inventory.SettingError)(nil); errors.As(err, &bad) && bad.Variable == "ansible_connection" {
			fmt.Fprintf(a.Stderr, "%s left out: %s\n", a.Term.Paint(a.Stderr, terminal.Yellow, "warning:"), terminal.Clean(err.Error()))
			continue
		}
		if err != nil {
			return program.WithCode(program.ExitUsage, terminal.Hint(err, "--limit leaves hosts out: --limit 'all:!"+h.Name+"'"))
		}
		if s.ProxyJump != "" {
			indirect = append(indirect, h.Name)
		}
		kept = append(kept, h)
	}
	if len(indirect) > 0 {
		fmt.Fprintf(a.Stderr, "%s %s: the jump host will connect directly, not through the jump host that the inventory names\n",
			a.Term.Paint(a.Stderr, terminal.Yellow, "warning:"), terminal.Clean(terminal.FoldNames(indirect)))
	}
	if len(kept) == 0 {
		return program.WithCode(program.ExitUsage, errors.New("no host is left for the jump host to lead to"))
	}
	d.hosts = kept
	d.inventory, err = jumpInventory(inv, kept)
	return err
}

// jumpMade is the JSON of a folder that was made.
type jumpMade struct {
	Folder      string   `json:"folder"`
	Name        string   `json:"name"`
	Hosts       int      `json:"hosts"`
	Config      string   `json:"config"`
	Files       []string `json:"files"`
	Certificate ca.Entry `json:"certificate"`
	HostKey     string   `json:"host_key"`
	JumpCA      string   `json:"jump_ca"`
	Warnings    []string `json:"warnings"`
}

func (c *jumpInitCmd) report(a *program.App, f *jumpFolder) error {
	made := jumpMade{
		Folder: f.path, Name: f.draft.names[0], Hosts: len(f.draft.hosts), Config: filepath.Join(f.path, templates.JumpConfigFile),
		Files: f.files, Certificate: ca.Describe(f.cert), HostKey: ssh.FingerprintSHA256(f.draft.public),
		JumpCA: ssh.FingerprintSHA256(f.jumpPublic), Warnings: append([]string{}, f.warnings...),
	}
	if c.JSON {
		return json.NewEncoder(a.Stdout).Encode(made)
	}
	for _, w := range f.warnings {
		fmt.Fprintf(a.Stderr, "%s %s\n", a.Term.Paint(a.Stderr, terminal.Yellow, "warning:"), terminal.Clean(w))
	}
	fmt.Fprintf(a.Stdout, "jump host %s, for %d hosts, in %s\n", made.Name, made.Hosts, terminal.Clean(made.Folder))
	fmt.Fprintf(a.Stdout, "host key  %s, certificate valid for %s\n", made.HostKey, left(a.Now(), made.Certificate.ValidBefore))
	fmt.Fprintf(a.Stdout, "jump CA   %s\n", made.JumpCA)
	if len(c.Admin) == 0 && !c.Everyone {
		fmt.Fprintln(a.Stderr, "nobody may do anything yet: jump.yaml has examples of roles")
	}
	fmt.Fprintf(a.Stderr, `try it here:      fleetjump serve --config %s
as a service:     the lines at the top of %s
clients trust it: fleetca export --jump-ca --domain '*.example.com' >> ~/.ssh/known_hosts, and the same with --host-ca
`, terminal.Clean(made.Config), terminal.Clean(filepath.Join(made.Folder, templates.JumpUnitFile)))
	return nil
}
