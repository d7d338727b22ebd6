package sshconfig

import (
	"errors"
	"fmt"
	"net/netip"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

func itoa(n int) string     { return strconv.Itoa(n) }
func quote(s string) string { return fmt.Sprintf("%.100q", s) }

// checkSingle refuses a bad value where it stands, also if an earlier one won,
// as ssh does.
func checkSingle(keyword string, s *setting) error {
	var err error
	switch keyword {
	case "port":
		_, err = parsePort(s.value)
	case "identitiesonly", "hashknownhosts", "passwordauthentication", "kbdinteractiveauthentication":
		_, err = parseFlag(s.value)
	case "pubkeyauthentication":
		_, err = parsePublicKey(s.value)
	case "stricthostkeychecking":
		_, err = parseStrict(s.value)
	case "connecttimeout":
		_, err = parseTime(s.value)
	case "addressfamily":
		_, err = parseFamily(s.value)
	case "requiredrsasize":
		_, err = strconv.ParseUint(s.value, 10, 16)
	case "user":
		if strings.Contains(s.value, "%") || strings.Contains(s.value, "${") {
			err = errors.New("tokens in a login are not supported here") // literal before OpenSSH 10
			break
		}
		err = checkUser(s.value)
	case "hostkeyalias":
		err = checkDestination(s.value)
	}
	if err != nil {
		return s.errorf("%w", err)
	}
	return nil
}

// checkDestination refuses what can't be a host's name or address, as ssh does.
func checkDestination(s string) error {
	if strings.HasPrefix(s, "-") {
		return fmt.Errorf("host name %.100q begins with a dash", s)
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c == 0x7f || strings.IndexByte("'`\"$\\;&<>|(){},", c) >= 0 {
			return fmt.Errorf("host name %.100q holds %q", s, c)
		}
	}
	return nil
}

func checkUser(s string) error {
	if strings.HasPrefix(s, "-") {
		return fmt.Errorf("login %.100q begins with a dash", s)
	}
	for _, c := range []byte(s) {
		if c < ' ' || c == 0x7f || strings.IndexByte("'`\";&<>|(){}", c) >= 0 {
			return fmt.Errorf("login %.100q holds %q", s, c)
		}
	}
	return nil
}

func parsePort(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("bad port %.100q", s)
	}
	return int(n), nil
}

func parseFlag(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "yes", "true":
		return true, nil
	case "no", "false":
		return false, nil
	}
	return false, fmt.Errorf("%.100q is neither yes nor no", s)
}

func parsePublicKey(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "unbound", "host-bound":
		return true, nil
	}
	return parseFlag(s)
}

func parseStrict(s string) (string, error) {
	switch strings.ToLower(s) {
	case "yes", "true":
		return "yes", nil
	case "no", "false", "off":
		return "no", nil
	case "ask":
		return "ask", nil
	case "accept-new":
		return "accept-new", nil
	}
	return "", fmt.Errorf("unknown value %.100q", s)
}

func parseFamily(s string) (string, error) {
	switch strings.ToLower(s) {
	case "any":
		return "", nil
	case "inet":
		return "inet", nil
	case "inet6":
		return "inet6", nil
	}
	return "", fmt.Errorf("unknown value %.100q", s)
}

// parseTime is OpenSSH's convtime: 90, 90s, 1m30s, 2h, 1d, 1w; and none.
func parseTime(s string) (time.Duration, error) {
	bad := fmt.Errorf("bad time %.100q", s)
	if s == "none" {
		return 0, nil
	}
	if s == "" {
		return 0, bad
	}
	var total uint64
	for s != "" {
		digits := len(s) - len(strings.TrimLeft(s, "0123456789"))
		n, err := strconv.ParseUint(s[:digits], 10, 31)
		if err != nil {
			return 0, bad
		}
		unit := uint64(1)
		if s = s[digits:]; s != "" {
			switch s[0] {
			case 's', 'S':
			case 'm', 'M':
				unit = 60
			case 'h', 'H':
				unit = 3600
			case 'd', 'D':
				unit = 24 * 3600
			case 'w', 'W':
				unit = 7 * 24 * 3600
			default:
				return 0, bad
			}
			s = s[1:]
		}
		if total += n * unit; total > 1<<31-1 {
			return 0, bad
		}
	}
	return time.Duration(total) * time.Second, nil
}

// hostNameSoFar is what HostName makes of the destination, before the end of
// the files is reached.
func (v *values) hostNameSoFar() (string, error) {
	s := v.single["hostname"]
	if s == nil {
		return v.name, nil
	}
	host, err := expandPercent(s.value, map[byte]string{'h': v.name}, nil)
	if err != nil {
		return "", s.errorf("%w", err)
	}
	if err := checkDestination(host); err != nil {
		return "", s.errorf("%w", err)
	}
	return host, nil
}

// hostName is the name to connect to, in the form in which ssh compares it.
func (v *values) hostName() (string, error) {
	host, err := v.hostNameSoFar()
	if err != nil {
		return "", err
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.String(), nil
	}
	return strings.ToLower(host), nil
}

// get returns a single value, or "".
func (v *values) get(keyword string) string {
	if s := v.single[keyword]; s != nil {
		return s.value
	}
	return ""
}

// flag returns a checked yes or no.
func (v *values) flag(keyword string, fallback bool) bool {
	s := v.single[keyword]
	if s == nil {
		return fallback
	}
	value, _ := parsePublicKey(s.value)
	return value
}

// settings turns what was obtained into what a connection needs.
func (v *values) settings(env environment) (Settings, error) {
	s := Settings{
		HostName: v.resolved, Port: 22, User: env.user,
		IdentitiesOnly: v.flag("identitiesonly", false), HashKnownHosts: v.flag("hashknownhosts", false),
		HostKeyAlias: strings.ToLower(v.get("hostkeyalias")), StrictHostKeyChecking: "ask",
		NoPublicKey:           !v.flag("pubkeyauthentication", true),
		NoPassword:            !v.flag("passwordauthentication", true),
		NoKeyboardInteractive: !v.flag("kbdinteractiveauthentication", true),
		Ciphers:               v.get("ciphers"), MACs: v.get("macs"),
		KexAlgorithms: v.get("kexalgorithms"), HostKeyAlgorithms: v.get("hostkeyalgorithms"),
	}
	// All were checked where they stand.
	if p := v.get("port"); p != "" {
		s.Port, _ = parsePort(p)
	}
	if u := v.get("user"); u != "" {
		s.User = u
	}
	if x := v.get("stricthostkeychecking"); x != "" {
		s.StrictHostKeyChecking, _ = parseStrict(x)
	}
	if x := v.get("connecttimeout"); x != "" {
		s.ConnectTimeout, _ = parseTime(x)
	}
	if x := v.get("addressfamily"); x != "" {
		s.AddressFamily, _ = parseFamily(x)
	}
	if x := v.get("requiredrsasize"); x != "" {
		s.RequiredRSASize, _ = strconv.Atoi(x)
	}
	v.preferred(&s)
	if err := v.proxy(&s); err != nil {
		return Settings{}, err
	}
	if err := v.paths(&s, env); err != nil {
		return Settings{}, err
	}
	return s, nil
}

// preferred forbids the methods that PreferredAuthentications leaves out. Their
// order is ours.
func (v *values) preferred(s *Settings) {
	list := v.get("preferredauthentications")
	if list == "" {
		return
	}
	has := func(method string) bool { return strings.Contains(","+list+",", ","+method+",") }
	s.NoPublicKey = s.NoPublicKey || !has("publickey")
	s.NoPassword = s.NoPassword || !has("password")
	s.NoKeyboardInteractive = s.NoKeyboardInteractive || !has("keyboard-interactive")
}

func (v *values) proxy(s *Settings) error {
	if c := v.single["proxycommand"]; c != nil && !c.understood {
		return c.errorf("programs are not run here; say ProxyJump if it leads through a jump host")
	}
	for _, hop := range v.hops {
		// ssh expands these since ProxyJump becomes a ProxyCommand.
		host, err := expandPercent(hop.Host, map[byte]string{
			'h': s.HostName, 'n': v.name, 'p': itoa(s.Port), 'r': s.User,
		}, nil)
		if err != nil {
			return v.single["proxyjump"].errorf("%w", err)
		}
		s.ProxyJump = append(s.ProxyJump, Hop{User: hop.User, Host: host, Port: hop.Port})
	}
	return nil
}

// defaultIdentities are tried where no IdentityFile is configured.
var defaultIdentities = []string{"id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk"}

// paths expands everything that names a file.
func (v *values) paths(s *Settings, env environment) error {
	x := v.expander(s, env)
	for _, f := range v.identity {
		if strings.EqualFold(f.value, "none") {
			continue
		}
		path, err := x.path(f, f.value)
		if err != nil {
			return err
		}
		s.IdentityFiles = append(s.IdentityFiles, path)
	}
	if len(v.identity) == 0 {
		s.DefaultIdentities = true
		for _, name := range defaultIdentities {
			s.IdentityFiles = append(s.IdentityFiles, filepath.Join(env.home, ".ssh", name))
		}
	}
	for _, f := range v.certs {
		if strings.EqualFold(f.value, "none") {
			continue
		}
		path, err := x.path(f, f.value)
		if err != nil {
			return err
		}
		s.CertificateFiles = append(s.CertificateFiles, path)
	}
	var err error
	if s.IdentityAgent, err = x.agent(v.single["identityagent"]); err != nil {
		return err
	}
	s.UserKnownHostsFiles, err = x.files(v.single["userknownhostsfile"], x.path,
		filepath.Join(env.home, ".ssh/known_hosts"), filepath.Join(env.home, ".ssh/known_hosts2"))
	if err != nil {
		return err
	}
	// ssh expands nothing but ~ in the names of the system's files.
	s.GlobalKnownHostsFiles, err = x.files(v.single["globalknownhostsfile"], x.tilde,
		systemFolder+"/ssh_known_hosts", systemFolder+"/ssh_known_hosts2")
	return err
}

// expander expands the values of one host.
type expander struct {
	env    environment
	tokens map[byte]string
}

func (v *values) expander(s *Settings, env environment) expander {
	short, _, _ := strings.Cut(env.hostname, ".")
	alias := s.HostKeyAlias
	if alias == "" {
		alias = v.name
	}
	return expander{env: env, tokens: map[byte]string{
		'd': env.home, 'h': s.HostName, 'i': env.uid, 'k': alias, 'L': short, 'l': env.hostname,
		'n': v.name, 'p': itoa(s.Port), 'r': s.User, 'u': env.user,
	}}
}

// path expands ~ at the start, % tokens and ${NAME}, as for IdentityFile.
func (x expander) path(s *setting, value string) (string, error) {
	value, err := x.env.expandTilde(value)
	if err == nil {
		value, err = expandPercent(value, x.tokens, x.env.getenv)
	}
	if err != nil {
		return "", s.errorf("%w", err)
	}
	return value, nil
}

func (x expander) tilde(s *setting, value string) (string, error) {
	value, err := x.env.expandTilde(value)
	if err != nil {
		return "", s.errorf("%w", err)
	}
	return value, nil
}

func (x expander) files(s *setting, expand func(*setting, string) (string, error), fallback ...string) ([]string, error) {
	if s == nil {
		return fallback, nil
	}
	if strings.EqualFold(s.value, "none") {
		return nil, nil
	}
	var files []string
	for _, arg := range s.args {
		path, err := expand(s, arg)
		if err != nil {
			return nil, err
		}
		files = append(files, path)
	}
	return files, nil
}

// agent returns the socket that IdentityAgent means.
func (x expander) agent(s *setting) (string, error) {
	const variable = "SSH_AUTH_SOCK"
	inherited := func(name string) string {
		path, _ := x.env.getenv(name)
		return path
	}
	if s == nil {
		return inherited(variable), nil
	}
	value, err := x.path(s, s.value)
	if err != nil {
		return "", err
	}
	switch name, dollar := strings.CutPrefix(value, "$"); {
	case value == "none":
		return "", nil
	case value == variable:
		return inherited(variable), nil
	case dollar:
		if name == "" || strings.Trim(strings.ToUpper(name), "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" {
			return "", s.errorf("%.100q is not the name of a variable", name)
		}
		return inherited(name), nil
	}
	return value, nil
}

// expandTilde replaces ~ or ~login at the start.
func (env environment) expandTilde(path string) (string, error) {
	rest, ok := strings.CutPrefix(path, "~")
	if !ok {
		return path, nil
	}
	login, rest, _ := strings.Cut(rest, "/")
	home := env.home
	if login != "" {
		u, err := user.Lookup(login)
		if err != nil {
			return "", fmt.Errorf("expanding %.100q: %w", path, err)
		}
		home = u.HomeDir
	}
	return strings.TrimSuffix(home, "/") + "/" + rest, nil
}

// expandPercent replaces %x and, where getenv is given, ${NAME}. What was put
// in is not expanded again.
func expandPercent(s string, tokens map[byte]string, getenv func(string) (string, bool)) (string, error) {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '$' && getenv != nil && i+1 < len(s) && s[i+1] == '{':
			end := strings.IndexByte(s[i:], '}')
			if end < 3 {
				return "", fmt.Errorf("bad variable in %.100q", s)
			}
			name := s[i+2 : i+end]
			value, set := getenv(name)
			if !set {
				return "", fmt.Errorf("environment variable %.100q is not set", name)
			}
			out.WriteString(value)
			i += end
		case s[i] == '%':
			i++
			if i == len(s) {
				return "", fmt.Errorf("%.100q ends in %%", s)
			}
			value, ok := tokens[s[i]]
			if s[i] == '%' {
				value, ok = "%", true
			}
			if !ok {
				return "", fmt.Errorf("token %%%c in %.100q is not supported", s[i], s)
			}
			out.WriteString(value)
		default:
			out.WriteByte(s[i])
		}
	}
	return out.String(), nil
}
