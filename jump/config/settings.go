package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fleetca/fleetca/ca/keyring"
	"github.com/fleetca/fleetca/jump/access"
)

var (
	hostName    = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*$`)
	clusterName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,252}$`)
)

// CheckName returns nil if a jump host may have this name: a host name or an
// address, in any case.
func CheckName(name string) error {
	lower := strings.ToLower(name)
	if _, err := netip.ParseAddr(lower); err != nil && (len(lower) > 253 || !hostName.MatchString(lower)) {
		return fmt.Errorf("%q is not a host name", name)
	}
	return nil
}

// maxSocket is the longest path that a unix socket can have.
const maxSocket = 107

// identity reads who the jump host is and where it listens.
func (r *reading) identity() {
	c := r.cfg
	if v := r.top["name"]; !v.given() {
		r.missing("name", "the jump host's name, which its certificate is for")
	} else if name, ok := v.text(); ok {
		c.Name = strings.ToLower(name)
		if err := CheckName(name); err != nil {
			v.fail("%w", err)
			c.Name = "" // nothing more is to be said of it
		}
	}
	c.Cluster = c.Name
	if v := r.top["cluster"]; v.given() {
		v.into(&c.Cluster)
		if c.Cluster != "" && !clusterName.MatchString(c.Cluster) {
			v.fail("%q is not a name of letters, digits, dots, dashes and underscores", c.Cluster)
		}
	}
	c.Listen = []string{DefaultListen}
	if v := r.top["listen"]; v.given() {
		c.Listen = r.listen(v)
	}
	if v := r.top["admin_socket"]; v.given() {
		c.AdminSocket, _ = r.path(v)
		if len(c.AdminSocket) > maxSocket {
			v.fail("%q has over %d characters, which a socket's path can't have", c.AdminSocket, maxSocket)
		}
	}
}

func (r *reading) listen(v value) []string {
	var addresses []string
	for _, item := range v.items() {
		s, ok := item.text()
		if !ok {
			continue
		}
		_, port, err := net.SplitHostPort(s)
		if err != nil {
			item.fail("%q is not an address such as :3023, 192.0.2.1:3023 or [2001:db8::1]:3023", s)
			continue
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
			item.fail("%q: %q is not a port", s, port)
			continue
		}
		if slices.Contains(addresses, s) {
			item.fail("%q is said twice", s)
		}
		addresses = append(addresses, s)
	}
	if len(v.items()) == 0 {
		v.fail("the list is empty")
	}
	return addresses
}

func (r *reading) timeouts() {
	c := r.cfg
	c.DialTimeout, c.LoginTimeout = DefaultDialTimeout, DefaultLoginTimeout
	c.DrainTimeout, c.KeepAlive = DefaultDrainTimeout, DefaultKeepAlive
	r.top["dial_timeout"].duration(&c.DialTimeout, time.Second, 10*time.Minute)
	r.top["login_timeout"].duration(&c.LoginTimeout, time.Second, 10*time.Minute)
	r.top["drain_timeout"].duration(&c.DrainTimeout, time.Second, 24*time.Hour)
	r.top["keep_alive"].duration(&c.KeepAlive, time.Second, time.Hour)
}

// Bounds of sizes: below the least one nothing would work, above the most one
// somebody got the unit wrong.
const (
	leastReserve = 1 << 20
	// leastCloseReserve is what the store needs to end recordings in order, and
	// the ballast is at least an eighth of what is set.
	leastCloseReserve = 64 << 20
	mostReserve       = 1 << 50
	leastStream       = 1 << 10
	mostStream        = 1 << 30
)

func (r *reading) storage() {
	s := &r.cfg.Store
	s.Reserve, s.CloseReserve, s.Ballast = DefaultReserve, DefaultCloseReserve, DefaultBallast
	if v := r.top["store"]; v.given() {
		keys := v.section("dir", "reserve", "close_reserve", "ballast", "retain_for", "retain_size")
		if dir := keys["dir"]; dir.given() {
			s.Dir, _ = r.folder(dir)
		} else {
			v.fail("it says no dir: where recordings go")
		}
		keys["reserve"].size(&s.Reserve, leastReserve, mostReserve)
		keys["close_reserve"].size(&s.CloseReserve, leastCloseReserve, mostReserve)
		keys["ballast"].size(&s.Ballast, leastReserve, mostReserve)
		keys["retain_for"].duration(&s.RetainFor, time.Minute, 10*365*24*time.Hour)
		keys["retain_size"].size(&s.RetainBytes, leastReserve, mostReserve)
		if s.Ballast < s.CloseReserve/8 {
			v.fail("ballast (%s) must be at least an eighth of close_reserve (%s)", formatSize(s.Ballast), formatSize(s.CloseReserve))
		}
		if s.CloseReserve >= s.Reserve {
			v.fail("close_reserve (%s) must be below reserve (%s): sessions are refused before running ones are closed",
				formatSize(s.CloseReserve), formatSize(s.Reserve))
		}
	} else {
		r.missing("store", "say in store.dir where recordings go")
	}
	if v := r.top["audit_dir"]; v.given() {
		r.cfg.AuditDir, _ = r.folder(v)
		if r.cfg.AuditDir != "" && r.cfg.AuditDir == s.Dir {
			v.fail("%q is store.dir already; they must differ", r.cfg.AuditDir)
		}
	} else {
		r.missing("audit_dir", "where the audit files go")
	}
	r.cfg.MaxStream = DefaultMaxStream
	r.top["max_stream"].size(&r.cfg.MaxStream, leastStream, mostStream)
}

// folder is a folder of ours that need not exist yet. If it does, nobody else
// may look into it.
func (r *reading) folder(v value) (string, bool) {
	path, ok := r.path(v)
	if !ok {
		return "", false
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return path, true
	case err != nil:
		v.fail("%w", err)
	case !info.IsDir():
		v.fail("%q is not a folder", path)
	default:
		if err := keyring.CheckPrivate(path, info); err != nil {
			v.fail("%w", err)
			return path, false
		}
		return path, true
	}
	return path, false
}

func (r *reading) limits() {
	l := DefaultLimits()
	if v := r.top["limits"]; v.given() {
		keys := v.section("connections", "per_identity", "unauthenticated", "channels_per_connection", "sessions_per_connection")
		keys["connections"].count(&l.Connections)
		// A lowered maximum lowers what nobody set.
		l.PerIdentity, l.Unauthenticated = min(l.PerIdentity, l.Connections), min(l.Unauthenticated, l.Connections)
		keys["per_identity"].count(&l.PerIdentity)
		keys["unauthenticated"].count(&l.Unauthenticated)
		keys["channels_per_connection"].count(&l.ChannelsPerConnection)
		l.SessionsPerConnection = min(l.SessionsPerConnection, l.ChannelsPerConnection)
		keys["sessions_per_connection"].count(&l.SessionsPerConnection)
	}
	r.cfg.Limits = l
	r.environment()
}

// loaders are variables that change which code runs. sshd's own AcceptEnv
// stands in the way as well, if it is set with care.
var loaders = []string{"LD_PRELOAD", "LD_LIBRARY_PATH", "PATH", "BASH_ENV", "ENV", "PYTHONPATH", "IFS"}

func (r *reading) environment() {
	v := r.top["accept_env"]
	r.cfg.AcceptEnv = DefaultAcceptEnv()
	if !v.given() {
		return
	}
	if len(v.items()) == 0 { // nothing is passed on
		r.cfg.AcceptEnv = nil
		return
	}
	r.cfg.AcceptEnv = v.texts()
	for _, p := range r.cfg.AcceptEnv {
		for _, name := range loaders {
			if access.Match(p, name) {
				v.warn("%q lets people set %s on hosts, which changes the programs that run there", p, name)
				break
			}
		}
	}
}
