//go:build linux

package testenv

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Config says what fleet to start. It isn't changed by this package.
type Config struct {
	// Names of the hosts, with ranges as in an inventory: "web[01:50]", "db".
	// A range also makes a group in the inventory, named by what stands before
	// the bracket. Empty means "host[1:Hosts]".
	Names []string
	// Hosts is how many hosts to start where Names is empty; 0 means one.
	Hosts int
	// Parent is the folder in which the fleet's folder is made; the system's
	// folder for temporary files if empty.
	Parent string
	// Host is what all hosts are like.
	Host HostConfig
	// PerHost, if set, is called for each host with a copy of Host to change.
	PerHost func(name string, host *HostConfig)
}

// Types of host keys.
const (
	Ed25519 = "ed25519"
	ECDSA   = "ecdsa"
	RSA     = "rsa"
)

// NoSFTP as [HostConfig.SFTP] leaves the subsystem out.
const NoSFTP = "none"

// HostConfig says what one host is like. The zero value is a usual host.
type HostConfig struct {
	// Top is put before, Bottom after everything else in sshd_config. A Match
	// block in Top would swallow what follows.
	Top, Bottom string
	// NoDropIns leaves out sshd_config.d and the Include line that reads it.
	NoDropIns bool
	// KeyTypes are the types of host keys; all three if empty. Each host has
	// ed25519 and ecdsa keys of its own; the slow rsa keys are drawn from a
	// few made for the fleet, so several hosts may show the same one.
	KeyTypes []string
	// SFTP is the command of the sftp subsystem. If empty, it is the one of
	// Debian on namespaced hosts, otherwise internal-sftp in the host's home.
	SFTP string
	// MaxStartups as in sshd_config(5). If empty, unprivileged hosts take
	// many; namespaced ones have sshd's default.
	MaxStartups string
	// LogLevel as in sshd_config(5). If empty, VERBOSE on unprivileged hosts
	// and sshd's default on namespaced ones.
	LogLevel string
	// System is for namespaced hosts; Start refuses any that isn't zero.
	System System
}

// System says what the system of a namespaced host is like.
type System struct {
	// Login is the default login: [Admin] if empty, [Operator] or [Root].
	Login string
	// Busybox makes /bin/sh the one of busybox, also as login shell.
	Busybox bool
	// Dropbear runs that SSH server in place of OpenSSH's.
	Dropbear bool
	// NoSudo takes sudo away.
	NoSudo bool
	// ReadOnlyEtc makes /etc a read-only file system once the host is set up.
	ReadOnlyEtc bool
	// Hide are absolute paths of files that the host doesn't have.
	Hide []string
	// DiskMiB is the size of each of the host's two disks, one for /home and
	// /tmp, one for the rest; 64 MiB if 0.
	DiskMiB int
}

// The logins of a namespaced host. All take the fleet's key.
const (
	// Admin may use sudo without a password and has none.
	Admin = "admin"
	// Operator may use sudo with its password, which is [OperatorPassword].
	// It can log in by that password too, as Debian's sshd_config allows.
	Operator = "operator"
	// Root is the superuser.
	Root = "root"
)

// OperatorPassword is the password of [Operator]: a sentence that won't be
// found anywhere by chance, so that tests can search for leaks of it.
const OperatorPassword = "operator: seven herons over Uppsala"

var errNoHosts = errors.New("config names no host")

func (c *Config) names() (names []string, groups map[string][]string, err error) {
	patterns := c.Names
	if len(patterns) == 0 {
		if c.Hosts < 0 {
			return nil, nil, fmt.Errorf("config.Hosts is %d", c.Hosts)
		}
		patterns = []string{fmt.Sprintf("host[1:%d]", max(c.Hosts, 1))}
	} else if c.Hosts != 0 {
		return nil, nil, errors.New("config has both Names and Hosts")
	}
	seen := map[string]bool{}
	groups = map[string][]string{}
	for _, pattern := range patterns {
		expanded, group, err := expand(pattern)
		if err != nil {
			return nil, nil, err
		}
		for _, name := range expanded {
			if seen[name] {
				return nil, nil, fmt.Errorf("config names host %q twice", name)
			}
			seen[name] = true
		}
		names = append(names, expanded...)
		if group != "" && len(c.Names) > 0 {
			groups[group] = append(groups[group], expanded...)
		}
	}
	if len(names) == 0 {
		return nil, nil, errNoHosts
	}
	return names, groups, nil
}

var (
	rangePattern = regexp.MustCompile(`^(.*)\[(\d+):(\d+)\](.*)$`)
	namePattern  = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)
)

// expand returns the names that a pattern with at most one range stands for,
// and what stands before the range.
func expand(pattern string) (names []string, group string, err error) {
	m := rangePattern.FindStringSubmatch(pattern)
	if m == nil {
		if !namePattern.MatchString(pattern) {
			return nil, "", fmt.Errorf("config names host %q: not a host name in lower case", pattern)
		}
		return []string{pattern}, "", nil
	}
	first, err := strconv.Atoi(m[2])
	if err != nil {
		return nil, "", fmt.Errorf("config names hosts %q: %w", pattern, err)
	}
	last, err := strconv.Atoi(m[3])
	if err != nil {
		return nil, "", fmt.Errorf("config names hosts %q: %w", pattern, err)
	}
	for i := first; i <= last; i++ {
		name := fmt.Sprintf("%s%0*d%s", m[1], len(m[2]), i, m[4])
		if !namePattern.MatchString(name) {
			return nil, "", fmt.Errorf("config names host %q: not a host name in lower case", name)
		}
		names = append(names, name)
	}
	return names, strings.TrimRight(m[1], "-."), nil
}

// host returns what the host of that name is like, defaults filled in.
func (c *Config) host(name string) (HostConfig, error) {
	h := c.Host
	if c.PerHost != nil {
		c.PerHost(name, &h)
	}
	if len(h.KeyTypes) == 0 {
		h.KeyTypes = []string{RSA, ECDSA, Ed25519}
	}
	for _, t := range h.KeyTypes {
		if t != RSA && t != ECDSA && t != Ed25519 {
			return h, fmt.Errorf("config of host %q: unknown key type %q", name, t)
		}
	}
	switch h.System.Login {
	case "", Admin, Operator, Root:
	default:
		return h, fmt.Errorf("config of host %q: unknown login %q", name, h.System.Login)
	}
	if h.System.DiskMiB < 0 {
		return h, fmt.Errorf("config of host %q: disk of %d MiB", name, h.System.DiskMiB)
	}
	return h, nil
}

// zero says whether nothing was asked for that only a namespaced host has.
func (s *System) zero() bool {
	return s.Login == "" && !s.Busybox && !s.Dropbear && !s.NoSudo && !s.ReadOnlyEtc &&
		len(s.Hide) == 0 && s.DiskMiB == 0
}

// lines joins pieces of sshd_config, each ended by a newline.
func lines(pieces ...string) string {
	var b strings.Builder
	for _, p := range pieces {
		if p == "" {
			continue
		}
		b.WriteString(strings.TrimSuffix(p, "\n"))
		b.WriteByte('\n')
	}
	return b.String()
}
