package templates

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ClientMark is how every file begins that is written for people's ssh, so that
// what somebody else wrote is never replaced.
const ClientMark = "# Written by fleetca "

// JumpAddress is where clients find a jump host.
type JumpAddress struct {
	// Address is a name or an address, Port the port.
	Address string
	Port    int
	// Alias is the name in its certificate, where that isn't Address.
	Alias string
}

// Name is the name that its certificate is for.
func (j JumpAddress) Name() string { return cmp.Or(j.Alias, j.Address) }

var (
	clientName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?$`)
	// hostPattern is a name, or all names of a domain, or either excluded.
	hostPattern = regexp.MustCompile(`^!?(\*\.)?[A-Za-z0-9_]([A-Za-z0-9._:-]*[A-Za-z0-9_:])?$`)
	// plainPath is what neither ssh, nor a shell, nor Ansible reads anything into.
	plainPath = regexp.MustCompile(`^(~/|/)[A-Za-z0-9._/@+,-]+$`)
	// loginName is what stands for %r in the command of a shell.
	loginName   = regexp.MustCompile(`^[A-Za-z0-9_.@+][A-Za-z0-9_.@+-]*$`)
	persistTime = regexp.MustCompile(`^([0-9]+[smhdwSMHDW]?)+$`)
)

// IsClientName says whether the name can stand in ssh_config, known_hosts and
// the command of a shell as it is.
func IsClientName(name string) bool { return len(name) <= 255 && clientName.MatchString(name) }

func (j JumpAddress) check() error {
	_, err := netip.ParseAddr(j.Address)
	switch {
	case err != nil && !IsClientName(j.Address), strings.Contains(j.Address, "%"):
		return fmt.Errorf("jump host: %q is neither a host name nor an address", j.Address)
	case j.Port < 1 || j.Port > 65535:
		return fmt.Errorf("jump host: %d is not a port", j.Port)
	case j.Alias != "" && !IsClientName(j.Alias):
		return fmt.Errorf("jump host: %q is not a host name", j.Alias)
	}
	return nil
}

// command is the ProxyCommand that asks for a host by the subsystem.
func (j JumpAddress) command(options, host string) string {
	return fmt.Sprintf("ssh -A -p %d %s%%r@%s -s proxy:%s:%%p", j.Port, options, j.Address, host)
}

// checkClientPath refuses what isn't an absolute path, or one below "~/". A
// '%' would be expanded by some versions of ssh and not by others.
func checkClientPath(field, value string) error {
	if err := Check(value); err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	if !strings.HasPrefix(value, "/") && !strings.HasPrefix(value, "~/") || strings.Contains(value, "%") {
		return fmt.Errorf("%s: %q is not an absolute path without '%%'", field, value)
	}
	return nil
}

// SSHConfig is a file of ssh_config that leads to a fleet through a jump host.
type SSHConfig struct {
	Jump JumpAddress
	// Jumps takes ProxyJump and the session's own agent in place of the
	// subsystem.
	Jumps bool
	// KnownHosts is the file that has the CAs' keys.
	KnownHosts string
	// Blocks are the hosts. The first that fits counts.
	Blocks []SSHBlock
	// Login, IdentityFile and CertificateFile are left to ssh where empty.
	Login, IdentityFile, CertificateFile string
	// ControlPath shares one connection between sessions, for as long as
	// ControlPersist says; neither does where empty.
	ControlPath, ControlPersist string
}

// SSHBlock is hosts with the same settings: names, "*.DOMAIN", and either with
// "!" before it for what is left out.
type SSHBlock struct {
	Patterns []string
	Port     int
}

// Render checks the fields and gives the file.
func (c SSHConfig) Render() (string, error) {
	problems := []error{c.Jump.check(), checkClientPath("KnownHosts", c.KnownHosts)}
	for field, value := range map[string]string{"IdentityFile": c.IdentityFile, "CertificateFile": c.CertificateFile} {
		if value != "" {
			problems = append(problems, checkClientPath(field, value))
		}
	}
	if c.Login != "" && !loginName.MatchString(c.Login) {
		problems = append(problems, fmt.Errorf("login %q holds what a shell would read something into", c.Login))
	}
	if (c.ControlPath == "") != (c.ControlPersist == "") {
		problems = append(problems, errors.New("a ControlPath and ControlPersist go together"))
	} else if c.ControlPath != "" {
		problems = append(problems, checkClientPath("ControlPath", strings.ReplaceAll(c.ControlPath, "%C", "")))
		if !persistTime.MatchString(c.ControlPersist) {
			problems = append(problems, fmt.Errorf("%q is not a time such as 90s, 10m or 1h", c.ControlPersist))
		}
	}
	if len(c.Blocks) == 0 {
		problems = append(problems, errors.New("there are no blocks"))
	}
	for _, b := range c.Blocks {
		problems = append(problems, b.check())
	}
	if err := errors.Join(problems...); err != nil {
		return "", fmt.Errorf("rendering ssh_config: %w", err)
	}
	names := []string{c.Jump.Name()}
	if c.Jump.Address != names[0] {
		names = append(names, c.Jump.Address)
	}
	return render("ssh_config.tmpl", struct {
		SSHConfig
		JumpNames                     []string
		ProxyCommand, JumpDestination string
	}{c, names, c.Jump.command("", "%h"), hostPort(c.Jump.Address, c.Jump.Port)})
}

func (b SSHBlock) check() error {
	if len(b.Patterns) == 0 || b.Port < 1 || b.Port > 65535 {
		return fmt.Errorf("a block with %d patterns and port %d", len(b.Patterns), b.Port)
	}
	for _, p := range b.Patterns {
		if !hostPattern.MatchString(p) {
			return fmt.Errorf("%q is not a pattern of host names", p)
		}
	}
	return nil
}

// hostPort is the form of ProxyJump.
func hostPort(host string, port int) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(port)
}

// SSHKnownHosts is the known_hosts beside an SSHConfig: it says which CA may
// certify which names, the jump host's own and those of the fleet.
type SSHKnownHosts struct {
	Jump JumpAddress
	// HostCAs and JumpCAs are keys as in a .pub file, without line end.
	HostCAs, JumpCAs []string
	Blocks           []SSHBlock
}

// MaxPatterns is how long a list of names on one line may be. OpenSSH before
// 7.7 reads lines of ssh_config of up to 1023 bytes.
const MaxPatterns = 800

// Render checks the fields and gives the file.
func (k SSHKnownHosts) Render() (string, error) {
	problems := []error{k.Jump.check()}
	if len(k.HostCAs) == 0 || len(k.JumpCAs) == 0 || len(k.Blocks) == 0 {
		problems = append(problems, errors.New("HostCAs, JumpCAs and Blocks must be set"))
	}
	for _, b := range k.Blocks {
		problems = append(problems, b.check())
	}
	if err := errors.Join(problems...); err != nil {
		return "", fmt.Errorf("rendering known_hosts: %w", err)
	}
	jump := k.Jump.Alias // ssh looks an alias up as it is
	if jump == "" {
		jump = strings.Join(knownNames(k.Jump.Address, k.Jump.Port), ",")
	}
	data := struct{ JumpLines, HostLines []string }{}
	for _, key := range k.HostCAs {
		data.JumpLines = append(data.JumpLines, strings.ToLower(jump)+" "+key)
	}
	for _, b := range k.Blocks {
		for _, names := range b.known() {
			for _, key := range k.JumpCAs {
				data.HostLines = append(data.HostLines, names+" "+key)
			}
		}
	}
	return render("ssh_known_hosts.tmpl", data)
}

// known are the lists of names of a block, in lower case as ssh looks them up.
// What is excluded has to stand in the same list as the pattern.
func (b SSHBlock) known() []string {
	var names, excluded []string
	for _, p := range b.Patterns {
		bare, negated := strings.CutPrefix(strings.ToLower(p), "!")
		for _, n := range knownNames(bare, b.Port) {
			switch {
			case negated:
				excluded = append(excluded, "!"+n)
			case !slices.Contains(names, n):
				names = append(names, n)
			}
		}
	}
	var lists []string
	for _, chunk := range Chunks(names, MaxPatterns) {
		lists = append(lists, strings.Join(append(chunk, excluded...), ","))
	}
	return lists
}

// knownNames are the forms of a name in known_hosts. For certificates ssh takes
// the bare one on any port; other programs want the port.
func knownNames(name string, port int) []string {
	if port == 22 {
		return []string{name}
	}
	return []string{name, fmt.Sprintf("[%s]:%d", name, port)}
}

// Chunks splits words into lists that take at most so many bytes each with a
// separator between them; a longer word is a list of its own.
func Chunks(words []string, most int) [][]string {
	var lists [][]string
	length := 0
	for _, w := range words {
		if length += 1 + len(w); len(lists) == 0 || length > most {
			lists = append(lists, nil)
			length = len(w)
		}
		last := len(lists) - 1
		lists[last] = append(lists[last], w)
	}
	return lists
}

// AnsibleConfig is what leads Ansible through a jump host by the subsystem:
// ansible.cfg and the variables of a group.
type AnsibleConfig struct {
	Jump       JumpAddress
	KnownHosts string
	// SCP has files carried by scp.
	SCP bool
}

func (c AnsibleConfig) check() error {
	err := c.Jump.check()
	if !plainPath.MatchString(c.KnownHosts) {
		err = errors.Join(err, fmt.Errorf("KnownHosts: %q is not an absolute path that needs no quotes", c.KnownHosts))
	}
	if err != nil {
		return fmt.Errorf("rendering the configuration of Ansible: %w", err)
	}
	return nil
}

// Render checks the fields and gives ansible.cfg.
func (c AnsibleConfig) Render() (string, error) {
	if err := c.check(); err != nil {
		return "", err
	}
	return render("ansible_cfg.tmpl", c)
}

// RenderVars checks the fields and gives the file of group_vars.
func (c AnsibleConfig) RenderVars() (string, error) {
	if err := c.check(); err != nil {
		return "", err
	}
	options := "-o UserKnownHostsFile=" + c.KnownHosts + " -o StrictHostKeyChecking=yes "
	if c.Jump.Alias != "" {
		options = "-o HostKeyAlias=" + c.Jump.Alias + " " + options
	}
	return render("ansible_group_vars.tmpl", struct {
		AnsibleConfig
		ProxyCommand string
	}{c, c.Jump.command(options, "{{ inventory_hostname }}")})
}

// joined is a list of words that are checked already.
func joined(words []string) string { return strings.Join(words, " ") }
