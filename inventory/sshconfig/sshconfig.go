// Package sshconfig answers what ssh_config says about one host: address,
// port, login, keys, agent, jump hosts, known_hosts files. It reads the user's
// file and then the system's, as ssh does, and the first value obtained wins.
// `ssh -G` is the oracle that the tests compare it with.
//
// Lines are read by kevinburke/ssh_config, which finds keywords and keeps their
// positions. What the lines mean is decided here, because that library splits
// Host patterns at blanks only, ends values at any #, takes the criteria of
// Match for patterns, and can tell neither the file nor the line of an included
// value; each of these would silently give a host another host's settings.
//
// It never runs a program (Match exec, ProxyCommand, KnownHostsCommand) and
// never guesses: a setting that applies to the host, matters to a connection
// and can't be honoured is an *Error with file, line and keyword. Settings that
// only concern interactive use (forwarding, multiplexing, logging) are passed
// over; an agent is never forwarded, whatever the file says.
package sshconfig

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Files names the files to read.
type Files struct {
	// User and System are read in this order. Empty means ~/.ssh/config and
	// /etc/ssh/ssh_config, which may be missing; a file named here may not.
	User, System string
}

// Config holds the parsed files. It is immutable; any number of goroutines may
// look up hosts in it.
type Config struct {
	files []*file
	env   environment
}

// environment is what values may refer to.
type environment struct {
	user     string
	home     string
	uid      string
	hostname string
	getenv   func(string) (string, bool)
}

// Error says which line can't be honoured and why.
type Error struct {
	File    string
	Line    int
	Keyword string // as written in the file
	Err     error
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s:%d: %s: %v", e.File, e.Line, e.Keyword, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// Settings is what ssh would use for one host, expanded and complete.
type Settings struct {
	HostName string // lower case unless it is an address
	Port     int
	User     string

	// IdentityFiles in the order in which they are tried. DefaultIdentities
	// says that none was configured and these are ssh's own names, of which
	// most don't exist.
	IdentityFiles     []string
	DefaultIdentities bool
	CertificateFiles  []string
	IdentitiesOnly    bool
	IdentityAgent     string // path of the agent's socket, "" for no agent

	ProxyJump []Hop // in the order in which they are passed; nil for a direct connection

	UserKnownHostsFiles, GlobalKnownHostsFiles []string // nil for none

	HashKnownHosts        bool
	HostKeyAlias          string        // lower case, as ssh takes it
	StrictHostKeyChecking string        // yes, no, ask or accept-new
	ConnectTimeout        time.Duration // 0 means not said
	AddressFamily         string        // "", inet or inet6

	// Ways to authenticate that the files forbid.
	NoPublicKey, NoPassword, NoKeyboardInteractive bool

	// Algorithm lists as written, with OpenSSH's leading +, - or ^; "" means
	// not said.
	Ciphers, MACs, KexAlgorithms, HostKeyAlgorithms string
	RequiredRSASize                                 int // bits, 0 means not said
}

// Hop is one jump host. Zero values mean that the jump host's own settings
// decide.
type Hop struct {
	User, Host string
	Port       int
}

func (h Hop) String() string {
	s := h.Host
	if strings.Contains(s, ":") {
		s = "[" + s + "]"
	}
	if h.Port != 0 {
		s += ":" + strconv.Itoa(h.Port)
	}
	if h.User != "" {
		s = h.User + "@" + s
	}
	return s
}

// Override holds what was said elsewhere and wins, as ssh's -o options do: a
// zero value says nothing, IdentityFile goes before the files' own ones.
type Override struct {
	HostName, User string
	Port           int
	IdentityFile   string
	ProxyJump      string // as -J takes it: [user@]host[:port],… or none
	Hops           []Hop  // the same, already parsed; wins over ProxyJump
}

// Load reads the files and everything that they include. Files are read once;
// later changes to them are not seen.
func Load(files Files) (*Config, error) {
	env, err := currentEnvironment()
	if err != nil {
		return nil, err
	}
	return load(files, env)
}

func currentEnvironment() (environment, error) {
	// ssh takes the home folder from the password database, not from $HOME.
	me, err := user.Current()
	if err != nil {
		return environment{}, fmt.Errorf("finding the local user: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		return environment{}, fmt.Errorf("finding the local host name: %w", err)
	}
	return environment{user: me.Username, home: me.HomeDir, uid: me.Uid, hostname: host, getenv: os.LookupEnv}, nil
}

func load(files Files, env environment) (*Config, error) {
	c := &Config{env: env}
	sources := []struct {
		path, fallback string
		user           bool
	}{
		{files.User, filepath.Join(env.home, ".ssh", "config"), true},
		{files.System, systemFolder + "/ssh_config", false},
	}
	for _, s := range sources {
		r := reader{env: env, user: s.user}
		path, named := s.path, true
		if path == "" {
			path, named = s.fallback, false
		}
		// Like ssh with -F, a file that was named is not asked who owns it.
		f, err := r.read(path, s.user && !named, 0)
		if err != nil {
			if !named && os.IsNotExist(err) {
				continue
			}
			return nil, fmt.Errorf("reading ssh_config: %w", err)
		}
		c.files = append(c.files, f)
	}
	return c, nil
}

// Lookup returns the settings for the destination name, the word that would be
// given to ssh. Host and Match originalhost compare with it as written.
// An *Error names the line that can't be honoured.
func (c *Config) Lookup(name string, over Override) (Settings, error) {
	if name == "" {
		return Settings{}, fmt.Errorf("looking up ssh_config: empty host name")
	}
	if err := checkDestination(name); err != nil {
		return Settings{}, fmt.Errorf("looking up ssh_config: %w", err)
	}
	v, err := c.evaluate(name, over)
	if err != nil {
		return Settings{}, fmt.Errorf("ssh_config for %q: %w", name, err)
	}
	s, err := v.settings(c.env)
	if err != nil {
		return Settings{}, fmt.Errorf("ssh_config for %q: %w", name, err)
	}
	return s, nil
}

// evaluate makes the passes that ssh makes: one, and a second where a Match
// final asks for it.
func (c *Config) evaluate(name string, over Override) (*values, error) {
	v, err := newValues(name, over)
	if err != nil {
		return nil, err
	}
	pass := pass{env: c.env, name: name, host: name, values: v}
	for _, f := range c.files {
		if err := pass.file(f, true, false); err != nil {
			return nil, err
		}
	}
	if v.resolved, err = v.hostName(); err != nil {
		return nil, err
	}
	if pass.wantFinal {
		// ssh compares with the resolved name in the final pass.
		pass.final, pass.host = true, v.resolved
		for _, f := range c.files {
			if err := pass.file(f, true, false); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}
