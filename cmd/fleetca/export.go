package main

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca"
	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/cmd/terminal"
)

// exportCmd is "fleetca export".
type exportCmd struct {
	caDirFlag `embed:""`

	UserCA bool `name:"user-ca" xor:"ca" required:"" help:"The user CA, for hosts."`
	HostCA bool `name:"host-ca" xor:"ca" required:"" help:"The host CA, for clients."`
	JumpCA bool `name:"jump-ca" xor:"ca" required:"" help:"The jump CA, for clients of the jump host."`

	Format string   `enum:"openssh,authorized_keys,known_hosts,auto" default:"auto" help:"openssh: the plain key, as TrustedUserCAKeys wants it. authorized_keys: a cert-authority line (user CA). known_hosts: a @cert-authority line (host and jump CA). Default: known_hosts with --domain, otherwise openssh."`
	Domain []string `placeholder:"PATTERN" help:"Host names that the known_hosts line is for, such as '*.example.com' (default: *, all)."`
}

// Help is shown below the flags' summary.
func (*exportCmd) Help() string {
	return `fleetca export --user-ca
    for the file that TrustedUserCAKeys names in sshd_config.
fleetca export --host-ca --domain '*.example.com' >> ~/.ssh/known_hosts
    makes ssh believe the hosts that the host CA has certified.

` + exitCodesHelp
}

// Run prints a CA's public key.
func (c *exportCmd) Run(a *program.App) error {
	folder, err := c.openFolder(a)
	if err != nil {
		return err
	}
	role := ca.UserCA
	switch {
	case c.HostCA:
		role = ca.HostCA
	case c.JumpCA:
		role = ca.JumpCA
	}
	pub, err := folder.PublicKey(role)
	if err != nil {
		return err
	}
	line, err := c.line(role, pub)
	if err != nil {
		return program.WithCode(program.ExitUsage, err)
	}
	_, err = fmt.Fprintln(a.Stdout, line)
	return err
}

func (c *exportCmd) line(role ca.Role, pub ssh.PublicKey) (string, error) {
	key := authorizedLine(pub) + " fleetca-" + string(role) + "-ca"
	format := c.Format
	if format == "auto" {
		format = "openssh"
		if len(c.Domain) > 0 {
			format = "known_hosts"
		}
	}
	if len(c.Domain) > 0 && format != "known_hosts" {
		return "", errors.New("--domain goes with --format known_hosts")
	}
	switch format {
	case "authorized_keys":
		// Such a line lets everybody in whom the CA certifies.
		if role != ca.UserCA {
			return "", terminal.Hint(fmt.Errorf("the %s CA doesn't sign for users: it has no place in authorized_keys", role), "export --user-ca")
		}
		return "cert-authority " + key, nil
	case "known_hosts":
		if role == ca.UserCA {
			return "", terminal.Hint(errors.New("the user CA doesn't sign for hosts: it has no place in known_hosts"), "export --host-ca")
		}
		patterns, err := knownHostsPatterns(c.Domain)
		if err != nil {
			return "", err
		}
		return "@cert-authority " + patterns + " " + key, nil
	}
	return key, nil
}

// knownHostsPatterns joins patterns for a line of known_hosts. ssh lower-cases
// the name that it looks up. Other ports need no pattern of their own: for
// certificates ssh matches the bare name too.
func knownHostsPatterns(domains []string) (string, error) {
	if len(domains) == 0 {
		return "*", nil
	}
	out := make([]string, len(domains))
	positive := false
	for i, d := range domains {
		bare, negated := strings.CutPrefix(d, "!")
		positive = positive || !negated
		if bare == "" || strings.ContainsFunc(bare, notInPattern) {
			return "", fmt.Errorf("--domain %q is not a pattern of host names", d)
		}
		out[i] = strings.ToLower(d)
	}
	if !positive {
		return "", errors.New("--domain: patterns that only exclude match nothing")
	}
	return strings.Join(out, ","), nil
}

// notInPattern tells the characters that no pattern of host names needs. White
// space would begin the next field of the line.
func notInPattern(r rune) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		return false
	}
	return !strings.ContainsRune(".*?-_:[]", r)
}
