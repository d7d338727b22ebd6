package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca"
	"github.com/fleetca/fleetca/ca/keyring"
	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/inventory"
	jumpconfig "github.com/fleetca/fleetca/jump/config"
	"github.com/fleetca/fleetca/templates"
)

// defaultJumpPort is where fleetjump listens if nothing is said.
const defaultJumpPort = 3023

// clientFlags say which fleet is reached through which jump host.
type clientFlags struct {
	inventoryFlags `embed:""`

	Jump     string `required:"" placeholder:"HOST[:PORT]" help:"The jump host (port 3023 if not said)."`
	JumpName string `placeholder:"NAME" help:"The name that its certificate is for, where that isn't HOST."`
}

// address parses --jump and --jump-name. ssh compares names in lower case.
func (f *clientFlags) address() (templates.JumpAddress, error) {
	j := templates.JumpAddress{Address: strings.ToLower(f.Jump), Port: defaultJumpPort, Alias: strings.ToLower(f.JumpName)}
	if host, port, err := net.SplitHostPort(j.Address); err == nil {
		if j.Port, err = strconv.Atoi(port); err != nil || j.Port < 1 || j.Port > 65535 {
			return j, program.WithCode(program.ExitUsage, fmt.Errorf("--jump: %q is not a port", port))
		}
		j.Address = host
	}
	j.Address = strings.TrimSuffix(strings.TrimPrefix(j.Address, "["), "]")
	if err := jumpconfig.CheckName(j.Address); err != nil {
		return j, program.WithCode(program.ExitUsage, fmt.Errorf("--jump: %w", err))
	}
	if j.Alias == j.Address {
		j.Alias = ""
	}
	if _, err := netip.ParseAddr(j.Alias); j.Alias != "" && (err == nil || jumpconfig.CheckName(j.Alias) != nil) {
		return j, program.WithCode(program.ExitUsage, fmt.Errorf("--jump-name: %q is not a host name", f.JumpName))
	}
	return j, nil
}

// hosts reads the inventory: all hosts that a jump host could lead to, and
// those of them that are chosen.
func (f *clientFlags) hosts(ctx context.Context, a *program.App) (all, chosen []*inventory.Host, err error) {
	inv, err := f.load(ctx)
	if err != nil {
		return nil, nil, err
	}
	warnInventory(a, inv)
	if chosen, err = f.choose(inv); err != nil {
		return nil, nil, err
	}
	all, _, err = remoteHosts(inv.Hosts())
	if err != nil {
		return nil, nil, err
	}
	chosen, local, err := remoteHosts(chosen)
	if err != nil {
		return nil, nil, err
	}
	for _, err := range local {
		warn(a, "left out: %s", err)
	}
	return all, chosen, nil
}

// remoteHosts leaves out those that nobody connects to by SSH.
func remoteHosts(hosts []*inventory.Host) (kept []*inventory.Host, local []error, err error) {
	for _, h := range hosts {
		_, err := h.Settings()
		if bad := (*inventory.SettingError)(nil); errors.As(err, &bad) && bad.Variable == "ansible_connection" {
			local = append(local, err)
			continue
		}
		if err != nil {
			return nil, nil, program.WithCode(program.ExitUsage, err)
		}
		kept = append(kept, h)
	}
	return kept, local, nil
}

// warn tells something on stderr that doesn't end the command.
func warn(a *program.App, format string, args ...any) {
	fmt.Fprintf(a.Stderr, "%s %s\n", a.Term.Paint(a.Stderr, terminal.Yellow, "warning:"), terminal.Clean(fmt.Sprintf(format, args...)))
}

// sshConfigCmd is "fleetca ssh-config".
type sshConfigCmd struct {
	clientFlags `embed:""`
	caDirFlag   `embed:""`

	HostCA []string `name:"host-ca" type:"path" placeholder:"FILE" help:"Public key of the host CA, for people without a CA folder. May be repeated."`
	JumpCA []string `name:"jump-ca" type:"path" placeholder:"FILE" help:"Public key of the jump CA, likewise."`

	Via         string   `enum:"subsystem,jump" default:"subsystem" help:"How to pass the jump host: subsystem (a ProxyCommand, good for all that runs ssh) or jump (ProxyJump)."`
	Domain      []string `placeholder:"*.DOMAIN" help:"All names of this domain, also those of hosts to come. May be repeated."`
	Login       string   `placeholder:"LOGIN" help:"The login on hosts (default: left to ssh)."`
	Identity    string   `type:"path" placeholder:"FILE" help:"The key to log in with, and no other of the agent."`
	Certificate string   `type:"path" placeholder:"FILE" help:"Its certificate, where that isn't beside it as FILE-cert.pub."`

	ControlMaster  bool   `help:"Share one connection to a host between sessions."`
	ControlPersist string `default:"10m" placeholder:"TIME" help:"How long such a connection stays after the last session."`

	Write      bool   `help:"Write the files and include them in the configuration, in place of printing."`
	KnownHosts bool   `help:"Print the lines for known_hosts in place of the configuration."`
	Name       string `default:"fleetca" placeholder:"NAME" help:"Names the files, NAME_config and NAME_known_hosts: for people with several fleets."`
	SSHDir     string `name:"ssh-dir" type:"path" placeholder:"DIR" help:"Where ssh's own files are (default: ~/.ssh)."`
}

// Help is shown below the flags' summary.
func (*sshConfigCmd) Help() string {
	return `fleetca ssh-config --inventory hosts.yaml --jump jump.example.com --write

makes "ssh web1" go through the jump host: it writes ~/.ssh/fleetca_config with
the hosts, ~/.ssh/fleetca_known_hosts with the CAs' keys, and one Include line at
the top of ~/.ssh/config. Run again, it replaces its own two files and leaves the
rest alone. Without --write it prints the configuration.

Nothing here is secret. Who has no CA folder takes the public keys that jump init
wrote, host_ca.pub and jump_ca.pub, and the inventory.yaml beside them.

` + exitCodesHelp
}

var fileName = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$`)

// Run prints or writes the configuration.
func (c *sshConfigCmd) Run(ctx context.Context, a *program.App) error {
	if c.Write && c.KnownHosts {
		return program.WithCode(program.ExitUsage, errors.New("--known-hosts prints, --write doesn't: say one of them"))
	}
	if !fileName.MatchString(c.Name) || c.Name+"_config" == "config" {
		return program.WithCode(program.ExitUsage, fmt.Errorf("--name: %q can't name files", c.Name))
	}
	files, err := newSSHFiles(a, c.SSHDir, c.Name)
	if err != nil {
		return err
	}
	config, known, err := c.render(ctx, a, files)
	if err != nil {
		return err
	}
	switch {
	case c.KnownHosts:
		_, err = fmt.Fprint(a.Stdout, known)
	case !c.Write:
		_, err = fmt.Fprint(a.Stdout, config)
		fmt.Fprintf(a.Stderr, "%s must hold what --known-hosts prints; --write does all of it\n", files.shown("known_hosts"))
	default:
		return files.write(a, config, known)
	}
	return err
}

// render gives the two files.
func (c *sshConfigCmd) render(ctx context.Context, a *program.App, files *sshFiles) (config, known string, err error) {
	jump, err := c.address()
	if err != nil {
		return "", "", err
	}
	hostCAs, jumpCAs, err := c.authorities(a)
	if err != nil {
		return "", "", err
	}
	all, chosen, err := c.hosts(ctx, a)
	if err != nil {
		return "", "", err
	}
	names, err := newFleetNames(a, jump, all, chosen)
	if err != nil {
		return "", "", err
	}
	blocks, err := names.blocks(c.Domain)
	if err != nil {
		return "", "", program.WithCode(program.ExitUsage, err)
	}
	if c.Via == "jump" {
		fmt.Fprintln(a.Stderr, "with --via jump, scp and sftp need -A each time, and ssh -N doesn't work; --via subsystem has neither trouble")
	}
	sc := templates.SSHConfig{
		Jump: jump, Jumps: c.Via == "jump", KnownHosts: files.shown("known_hosts"), Blocks: blocks,
		Login: c.Login, IdentityFile: c.Identity, CertificateFile: c.Certificate,
	}
	if c.ControlMaster {
		sc.ControlPath, sc.ControlPersist = files.shown("%C"), c.ControlPersist
	}
	if config, err = sc.Render(); err != nil {
		return "", "", program.WithCode(program.ExitUsage, err)
	}
	known, err = templates.SSHKnownHosts{Jump: jump, HostCAs: hostCAs, JumpCAs: jumpCAs, Blocks: blocks}.Render()
	return config, known, program.WithCode(program.ExitUsage, err)
}

// authorities are the public keys of host and jump CA, from files or the CA
// folder.
func (c *sshConfigCmd) authorities(a *program.App) (hostCAs, jumpCAs []string, err error) {
	folder := &caFolder{}
	if len(c.HostCA) == 0 || len(c.JumpCA) == 0 {
		if folder, err = c.openFolder(a); err != nil {
			return nil, nil, terminal.Hint(err, "without a CA folder the public keys come from --host-ca FILE and --jump-ca FILE: jump init writes them as host_ca.pub and jump_ca.pub")
		}
	}
	if hostCAs, err = authorityLines(folder, ca.HostCA, c.HostCA); err != nil {
		return nil, nil, err
	}
	if jumpCAs, err = authorityLines(folder, ca.JumpCA, c.JumpCA); err != nil {
		return nil, nil, err
	}
	// One key for both would let the jump CA vouch for the jump host.
	for _, key := range hostCAs {
		for _, other := range jumpCAs {
			if key == other {
				return nil, nil, program.WithCode(program.ExitUsage, errors.New("host CA and jump CA are the same key"))
			}
		}
	}
	return hostCAs, jumpCAs, nil
}

func authorityLines(folder *caFolder, role ca.Role, files []string) ([]string, error) {
	if len(files) == 0 {
		key, err := folder.PublicKey(role)
		if err != nil {
			return nil, err
		}
		return []string{authorizedLine(key)}, nil
	}
	var lines []string
	for _, path := range files {
		keys, err := readAuthorities(path)
		if err != nil {
			return nil, program.WithCode(program.ExitUsage, fmt.Errorf("--%s-ca: %w", role, err))
		}
		for _, key := range keys {
			lines = append(lines, authorizedLine(key))
		}
	}
	return lines, nil
}

// readAuthorities reads a file with a public key a line: more than one while a
// CA is being changed. A broken line spoils the file.
func readAuthorities(path string) ([]ssh.PublicKey, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var keys []ssh.PublicKey
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, _, err := keyring.ParsePublic([]byte(line))
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, i+1, err)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s holds no public key", path)
	}
	return keys, nil
}
