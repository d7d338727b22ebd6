package inventory

import (
	"fmt"
	"maps"
	"math/big"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Settings are the variables of a host that fleetca uses. A zero field means
// that the inventory says nothing.
type Settings struct {
	Address        string `json:"address,omitempty"`          // ansible_host
	Port           int    `json:"port,omitempty"`             // ansible_port
	User           string `json:"user,omitempty"`             // ansible_user
	PrivateKeyFile string `json:"private_key_file,omitempty"` // ansible_ssh_private_key_file
	ProxyJump      string `json:"proxy_jump,omitempty"`       // from -J or -o ProxyJump= in ansible_ssh_common_args and its like

	Become       bool   `json:"become"`
	BecomeUser   string `json:"become_user,omitempty"`
	BecomeMethod string `json:"become_method,omitempty"` // "" or "sudo"

	Principals          []string          `json:"principals,omitempty"`
	Labels              map[string]string `json:"labels,omitempty"`
	SSHDConfig          string            `json:"sshd_config,omitempty"` // an absolute path
	Reload              string            `json:"reload,omitempty"`
	HostKeyFingerprints []string          `json:"host_key_fingerprints,omitempty"` // "SHA256:…"
	CertTTL             string            `json:"cert_ttl,omitempty"`              // its grammar is ca/profile's
}

// The variables that Settings reads. Of several names for one thing the last
// that is set wins, as in Ansible.
var (
	addressVariables    = []string{"ansible_host", "ansible_ssh_host"}
	portVariables       = []string{"ansible_port", "ansible_ssh_port"}
	userVariables       = []string{"ansible_user", "ansible_ssh_user"}
	keyVariables        = []string{"ansible_private_key_file", "ansible_ssh_private_key_file"}
	becomeUserVariables = []string{"ansible_become_user", "ansible_sudo_user"}
	argumentVariables   = []string{"ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args"}

	ownVariables = []string{
		"fleetca_principals", "fleetca_labels", "fleetca_sshd_config", "fleetca_reload",
		"fleetca_host_key_fingerprints", "fleetca_cert_ttl",
	}
)

// SettingVariables are the names of all variables that Settings reads, sorted.
func SettingVariables() []string {
	names := slices.Concat(addressVariables, portVariables, userVariables, keyVariables,
		becomeUserVariables, argumentVariables, ownVariables,
		[]string{"ansible_become", "ansible_become_method", "ansible_connection"})
	slices.Sort(names)
	return names
}

// SettingError says which variable of which host can't be used.
type SettingError struct {
	Host     string
	Variable string
	Position Position
	Problem  string
}

func (e *SettingError) Error() string {
	return fmt.Sprintf("%s: %s of host %q: %s", e.Position, e.Variable, e.Host, e.Problem)
}

// Settings reads and checks the variables of the host that fleetca uses. The
// error is a *SettingError. It refuses values it can't take literally (Jinja
// expressions, vaulted values) and any fleetca_ variable it doesn't know, since
// a misspelt one would otherwise be lost.
func (h *Host) Settings() (Settings, error) {
	r := reader{host: h}
	s := Settings{
		Address:        r.text(addressVariables...),
		Port:           r.port(portVariables...),
		User:           r.text(userVariables...),
		PrivateKeyFile: r.text(keyVariables...),
		Become:         r.boolean("ansible_become"),
		BecomeUser:     r.text(becomeUserVariables...),
		BecomeMethod:   r.text("ansible_become_method"),

		Principals:          r.list("fleetca_principals"),
		Labels:              r.labels("fleetca_labels"),
		SSHDConfig:          r.text("fleetca_sshd_config"),
		Reload:              r.text("fleetca_reload"),
		HostKeyFingerprints: r.list("fleetca_host_key_fingerprints"),
		CertTTL:             r.text("fleetca_cert_ttl"),
	}
	s.ProxyJump = r.proxyJump(argumentVariables)
	r.check(&s)
	r.unknown()
	if r.err != nil {
		return Settings{}, r.err
	}
	return s, nil
}

// reader reads the variables of one host and keeps the first error.
type reader struct {
	host *Host
	err  error
}

func (r *reader) fail(variable, format string, args ...any) {
	if r.err == nil {
		r.err = &SettingError{
			Host: r.host.Name, Variable: variable,
			Position: r.host.Position(variable), Problem: fmt.Sprintf(format, args...),
		}
	}
}

// last is the last of the names that is set to something other than null.
func (r *reader) last(names ...string) (name string, value any) {
	for _, n := range names {
		if v, ok := r.host.Vars[n]; ok && v.Value != nil {
			name, value = n, v.Value
		}
	}
	return name, value
}

// scalar turns a value into the text Ansible's templates would make of it.
func (r *reader) scalar(name string, value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		return r.plain(name, v, true)
	case Unsafe:
		return r.plain(name, string(v), false)
	case Date:
		return string(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case *big.Int:
		return v.String()
	case bool:
		r.fail(name, "is the truth value %v; put it in quotes if it is meant as text", v)
	case float64:
		r.fail(name, "is the number %v; put it in quotes if it is meant as text", v)
	case Vault:
		r.fail(name, "is encrypted with ansible-vault, which fleetca doesn't decrypt")
	default:
		r.fail(name, "must be a single value, not a list or a mapping")
	}
	return ""
}

func (r *reader) plain(name, text string, template bool) string {
	if template && (strings.Contains(text, "{{") || strings.Contains(text, "{%") || strings.Contains(text, "{#")) {
		r.fail(name, "%q is a Jinja template, which fleetca doesn't evaluate in the variables it uses", text)
		return ""
	}
	if strings.ContainsFunc(text, unicode.IsControl) {
		r.fail(name, "%q holds a control character", text)
		return ""
	}
	return text
}

func (r *reader) text(names ...string) string {
	name, value := r.last(names...)
	if name == "" {
		return ""
	}
	return r.scalar(name, value)
}

func (r *reader) port(names ...string) int {
	name, value := r.last(names...)
	text := r.scalar(name, value)
	if text == "" {
		return 0
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		r.fail(name, "%q is not a port from 1 to 65535", text)
	}
	return int(port)
}

// boolean takes the words that Ansible takes, and unlike Ansible no others.
func (r *reader) boolean(name string) bool {
	switch v := r.host.Vars[name].Value.(type) {
	case bool:
		return v
	case float64:
		r.fail(name, "%v is not a truth value", v)
		return false
	case nil:
		return false
	default:
		switch text := strings.ToLower(r.scalar(name, v)); text {
		case "y", "yes", "on", "1", "true", "t":
			return true
		case "n", "no", "off", "0", "false", "f":
			return false
		default:
			r.fail(name, "%q is not a truth value", text)
			return false
		}
	}
}

// list takes a YAML list, or a text with commas, as INI files have it.
func (r *reader) list(name string) []string {
	var items []string
	switch v := r.host.Vars[name].Value.(type) {
	case nil:
		return nil
	case []any:
		for _, item := range v {
			items = append(items, r.scalar(name, item))
		}
	default:
		items = strings.Split(r.scalar(name, v), ",")
		for i := range items {
			items[i] = strings.TrimSpace(items[i])
		}
	}
	if slices.Contains(items, "") {
		r.fail(name, "holds an empty item")
	}
	return items
}

// labels takes a YAML mapping, or a text like "env=prod,team=a" as INI files
// have it.
func (r *reader) labels(name string) map[string]string {
	labels := map[string]string{}
	switch v := r.host.Vars[name].Value.(type) {
	case nil:
		return nil
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if truth, ok := v[key].(bool); ok {
				labels[key] = strconv.FormatBool(truth)
				continue
			}
			labels[key] = r.scalar(name, v[key])
		}
	case []any:
		r.fail(name, "must be a mapping, or a text like env=prod,team=web")
	default:
		for item := range strings.SplitSeq(r.scalar(name, v), ",") {
			key, value, ok := strings.Cut(item, "=")
			if !ok {
				r.fail(name, "%q is not of the form key=value", item)
			}
			labels[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	for key := range labels {
		if key == "" || strings.ContainsFunc(key, func(c rune) bool { return c == '=' || c == ',' || unicode.IsSpace(c) || unicode.IsControl(c) }) {
			r.fail(name, "%q can't be the key of a label", key)
		}
	}
	return labels
}

var fingerprintForm = regexp.MustCompile(`^SHA256:[A-Za-z0-9+/]{43}$`)

// check looks at values of which only some are good.
func (r *reader) check(s *Settings) {
	for _, variables := range [][]string{addressVariables, userVariables} {
		name, _ := r.last(variables...)
		// Neither may pass for an option of ssh, nor split into two words.
		if text := r.text(variables...); strings.HasPrefix(text, "-") || strings.ContainsFunc(text, unicode.IsSpace) {
			r.fail(name, "%q starts with a dash or holds white space", text)
		}
	}
	if s.BecomeMethod != "" && s.BecomeMethod != "sudo" && s.BecomeMethod != "ansible.builtin.sudo" {
		r.fail("ansible_become_method", "%q is not supported; fleetca knows sudo", s.BecomeMethod)
	} else if s.BecomeMethod != "" {
		s.BecomeMethod = "sudo"
	}
	name, _ := r.last(becomeUserVariables...)
	if strings.HasPrefix(s.BecomeUser, "-") || strings.ContainsFunc(s.BecomeUser, unicode.IsSpace) {
		r.fail(name, "%q starts with a dash or holds white space", s.BecomeUser)
	}
	if c := r.text("ansible_connection"); !slices.Contains([]string{"", "ssh", "smart", "paramiko", "paramiko_ssh", "ansible.builtin.ssh", "ansible.builtin.paramiko_ssh"}, c) {
		r.fail("ansible_connection", "%q is not SSH, and fleetca reaches hosts by SSH only", c)
	}
	for _, p := range s.Principals {
		if strings.ContainsAny(p, ",*?") || strings.ContainsFunc(p, unicode.IsSpace) {
			r.fail("fleetca_principals", "%q holds white space, a comma or a wildcard", p)
		}
	}
	if s.SSHDConfig != "" && (!path.IsAbs(s.SSHDConfig) || path.Clean(s.SSHDConfig) != s.SSHDConfig) {
		r.fail("fleetca_sshd_config", "%q is not a clean absolute path", s.SSHDConfig)
	}
	for _, f := range s.HostKeyFingerprints {
		if !fingerprintForm.MatchString(f) {
			r.fail("fleetca_host_key_fingerprints", "%q is not of the form SHA256:… that ssh-keygen -l prints", f)
		}
	}
}

// unknown refuses fleetca_ variables that mean nothing.
func (r *reader) unknown() {
	for _, name := range slices.Sorted(maps.Keys(r.host.Vars)) {
		if strings.HasPrefix(name, "fleetca_") && !slices.Contains(ownVariables, name) {
			r.fail(name, "is not a variable that fleetca knows; there are %s", strings.Join(ownVariables, ", "))
		}
	}
}
