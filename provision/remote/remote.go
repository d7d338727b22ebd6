// Package remote connects to hosts over SSH, runs scripts there, with another
// user's rights where the inventory says so, and uploads files. It takes its
// settings from the inventory and, where that is silent, from ssh_config, and
// authenticates as ssh does: agent, keys, certificates, password. A Dialer
// serves a whole fleet: files, agents and known_hosts are read once, a person
// is asked each thing once, and the connections to jump hosts are shared.
//
// It never trusts a host key that nobody vouches for, never replaces a known
// one, never forwards an agent, never uses SHA-1 signatures or broken ciphers,
// never sends a password twice to one host or a sudo password before sudo asks
// for it, never puts a script or a secret into a command line, and never waits
// for or reads without limit what a host sends. Hosts' output comes back as raw
// bytes: showing it safely is the caller's part.
package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca/trust"
	"github.com/fleetca/fleetca/inventory"
	"github.com/fleetca/fleetca/inventory/sshconfig"
)

const (
	defaultTimeout   = 30 * time.Second
	defaultMaxOutput = 4 << 20
	maxHops          = 8
)

// Config says how a Dialer works. It isn't changed.
type Config struct {
	// SSHConfig gives the settings that the inventory doesn't. Required.
	SSHConfig *sshconfig.Config
	// HostCAs are the authorities whose host certificates are accepted, for the
	// host's inventory name. None means that known_hosts and the inventory's
	// fingerprints decide.
	HostCAs []ssh.PublicKey
	// AcceptNewHostKeys writes the keys of unknown hosts into the user's
	// known_hosts file, as ssh does with StrictHostKeyChecking=accept-new. A
	// key that contradicts a known one stays refused.
	AcceptNewHostKeys bool
	// Password is asked once for the fleet, the first time that a host takes
	// nothing else. Jump hosts never get it. Nil means that no password is used.
	Password func(ctx context.Context, prompt string) (string, error)
	// Passphrase is asked once for each encrypted identity file that a host
	// would accept. Nil means that those are not used. The bytes it returns are
	// overwritten.
	Passphrase func(ctx context.Context, file string) ([]byte, error)
	// BecomePassword is asked once for the fleet, before sudo is first used. A
	// nil password, like a nil function, means that sudo must do without.
	BecomePassword func(ctx context.Context) ([]byte, error)
	// Timeout bounds the making of a connection with all its attempts, not
	// counting the time in which a person is asked. 0 means 30 s.
	Timeout time.Duration
	// MaxOutput bounds what a script may write to each of stdout and stderr, in
	// bytes. 0 means 4 MiB.
	MaxOutput int
	// Now is the clock that certificates are checked by; nil means time.Now.
	Now func() time.Time
}

// Dialer makes connections. All its methods may be called from several
// goroutines.
type Dialer struct {
	cfg      Config
	password *answer[string]
	become   *answer[[]byte]

	mu      sync.Mutex // guards the following
	closed  bool
	files   map[string]*answer[*keyFile]
	certs   map[string]*answer[*ssh.Certificate]
	known   map[string]*answer[*sshconfig.KnownHosts]
	agents  map[string]*agentConn
	hops    map[string]*hop
	badSudo map[string]bool // hosts, by name, that refused the sudo password
	owned   []io.Closer

	running sync.WaitGroup // goroutines that Close waits for
}

// New checks the configuration.
func New(cfg Config) (*Dialer, error) {
	switch {
	case cfg.SSHConfig == nil:
		return nil, errors.New("remote: Config.SSHConfig is missing")
	case cfg.Timeout < 0:
		return nil, fmt.Errorf("remote: Config.Timeout is %s", cfg.Timeout)
	case cfg.MaxOutput < 0:
		return nil, fmt.Errorf("remote: Config.MaxOutput is %d", cfg.MaxOutput)
	}
	for _, ca := range cfg.HostCAs {
		if err := trust.Authority(ca); err != nil {
			return nil, fmt.Errorf("remote: Config.HostCAs: %w", err)
		}
	}
	cfg.HostCAs = slices.Clone(cfg.HostCAs)
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.MaxOutput == 0 {
		cfg.MaxOutput = defaultMaxOutput
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Dialer{
		cfg: cfg, password: newAnswer[string](), become: newAnswer[[]byte](),
		files: map[string]*answer[*keyFile]{}, certs: map[string]*answer[*ssh.Certificate]{},
		known: map[string]*answer[*sshconfig.KnownHosts]{}, agents: map[string]*agentConn{},
		hops: map[string]*hop{}, badSudo: map[string]bool{},
	}, nil
}

// Close closes the connections to jump hosts and agents, and with them the
// Conns that lead through those. The other Conns are their owners' to close.
func (d *Dialer) Close() error {
	d.mu.Lock()
	d.closed = true
	owned := d.owned
	d.owned = nil
	d.mu.Unlock()
	// The last first: a jump host is reached through those before it.
	for _, c := range slices.Backward(owned) {
		_ = c.Close()
	}
	d.running.Wait()
	return nil
}

// own makes Close close c. It is false, and c closed, if Close was called.
func (d *Dialer) own(c io.Closer) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		_ = c.Close()
		return false
	}
	d.owned = append(d.owned, c)
	return true
}

// start runs f in a goroutine that Close waits for. It is false if Close was
// called.
func (d *Dialer) start(f func()) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.running.Go(f)
	return true
}

// Options of one connection.
type Options struct {
	// HostCertificateOnly accepts nothing but a valid certificate of
	// Config.HostCAs: the proof, from outside, that a host was provisioned.
	HostCertificateOnly bool
}

// target is what is known of a host before it is connected to.
type target struct {
	host       string // for errors: inventory name, or jump host as configured
	names      []string
	settings   sshconfig.Settings
	pins       []string
	becomeUser string // "" if the login's own rights do
}

// target resolves a host of the inventory. Like Ansible, which calls ssh with
// the host's address, ssh_config is asked for ansible_host where there is one.
func (d *Dialer) target(h *inventory.Host) (*target, error) {
	inv, err := h.Settings()
	if err != nil {
		return nil, err
	}
	destination := h.Name
	if inv.Address != "" {
		destination = inv.Address
	}
	settings, err := d.cfg.SSHConfig.Lookup(destination, sshconfig.Override{
		User: inv.User, Port: inv.Port, IdentityFile: inv.PrivateKeyFile, ProxyJump: inv.ProxyJump,
	})
	if err != nil {
		return nil, err
	}
	t := &target{host: h.Name, names: []string{h.Name}, settings: settings, pins: inv.HostKeyFingerprints}
	if alias := settings.HostKeyAlias; alias != "" {
		t.names = append(t.names, alias)
	}
	if inv.Become {
		user := inv.BecomeUser
		if user == "" {
			user = "root"
		}
		if err := checkBecomeUser(user); err != nil {
			return nil, fmt.Errorf("host %q: %w", h.Name, err)
		}
		if user != settings.User {
			t.becomeUser = user
		}
	}
	return t, nil
}

// check prepares the decision about a target's host key.
func (d *Dialer) check(ctx context.Context, t *target, opts Options) (*hostCheck, error) {
	s := &t.settings
	c := &hostCheck{
		host: t.host, names: t.names,
		known: sshconfig.HostName{Alias: s.HostKeyAlias, Host: s.HostName, Port: s.Port},
		cas:   d.cfg.HostCAs, certOnly: opts.HostCertificateOnly, pins: t.pins, minRSA: s.RequiredRSASize,
		hashed: s.HashKnownHosts, now: d.cfg.Now,
		// "no" is not honoured: it is found in many an ssh_config for machines
		// that come and go, and root's rights over a host need a better proof.
		acceptNew: d.cfg.AcceptNewHostKeys || s.StrictHostKeyChecking == "accept-new",
	}
	for _, group := range []struct {
		paths []string
		into  *[]*sshconfig.KnownHosts
	}{{s.UserKnownHostsFiles, &c.user}, {s.GlobalKnownHostsFiles, &c.global}} {
		for _, path := range group.paths {
			f, err := d.knownHosts(ctx, path)
			if err != nil {
				return nil, err
			}
			*group.into = append(*group.into, f)
		}
	}
	return c, nil
}

// knownHosts returns a known_hosts file, read once.
func (d *Dialer) knownHosts(ctx context.Context, path string) (*sshconfig.KnownHosts, error) {
	d.mu.Lock()
	a := d.known[path]
	if a == nil {
		a = newAnswer[*sshconfig.KnownHosts]()
		d.known[path] = a
	}
	d.mu.Unlock()
	return a.get(ctx, func(context.Context) (*sshconfig.KnownHosts, error) { return sshconfig.LoadKnownHosts(path) })
}

// Dial connects to a host and logs in.
//
// Errors: *inventory.SettingError and *sshconfig.Error where the settings can't
// be used, *UnreachableError, *HostKeyError, *AuthError, and *JumpError around
// these for a jump host on the way. Where ctx ended, its cause is wrapped.
func (d *Dialer) Dial(ctx context.Context, h *inventory.Host, opts Options) (*Conn, error) {
	t, err := d.target(h)
	if err != nil {
		return nil, err
	}
	if opts.HostCertificateOnly && len(d.cfg.HostCAs) == 0 {
		return nil, fmt.Errorf("connecting to %s: a host certificate is wanted and no host CA configured", h.Name)
	}
	// Each jump host has a Timeout of its own.
	via, err := d.via(ctx, t.host, t.settings.ProxyJump)
	if err != nil {
		return nil, err
	}
	l, err := d.connect(ctx, t, opts, via)
	if err != nil {
		return nil, err
	}
	return newConn(d, t, l), nil
}

// link is an established, authenticated connection.
type link struct {
	client  *ssh.Client
	hostKey ssh.PublicKey
}

func network(s *sshconfig.Settings) string {
	switch s.AddressFamily {
	case "inet":
		return "tcp4"
	case "inet6":
		return "tcp6"
	}
	return "tcp"
}

func address(s *sshconfig.Settings) string {
	return net.JoinHostPort(s.HostName, fmt.Sprint(s.Port))
}
