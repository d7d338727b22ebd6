// Package route finds the host that a client asks for by name and logs in to
// it: name → host of the inventory → authenticated SSH connection. What the
// client's forwarded agent holds is reached through AgentSigner.
//
// It refuses addresses, names and ports that the inventory doesn't give, names
// that several hosts share, hosts that don't show a valid certificate of a host
// CA for the name asked for (unless known_hosts is enough for that host, and
// then keys that it doesn't know: nothing is ever learnt), and logins by
// anything but the one signer given. Of an agent it uses one certificate and
// nothing else: it lists and signs, and takes no answer of unbounded size. It
// decides nothing about who may go where; that is jump/access.
package route

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca/trust"
	"github.com/fleetca/fleetca/inventory"
	"github.com/fleetca/fleetca/inventory/sshconfig"
)

// Config is what a Router works with. It must not be changed afterwards.
type Config struct {
	// Inventory has the hosts that may be reached. It must be set.
	Inventory *inventory.Inventory
	// HostCAs sign the certificates that hosts must show. Without any, only
	// hosts for which no certificate is required can be reached.
	HostCAs []ssh.PublicKey
	// RequireCertificate says whether a host must show a certificate; false
	// falls back to KnownHosts. Nil requires one of every host.
	RequireCertificate func(*inventory.Host) bool
	// Revoked says whether a host's key or certificate is revoked. Nil: none is.
	Revoked func(ssh.PublicKey) bool
	// KnownHosts are files in the format of sshd(8). They are read again when
	// they have changed and never written; one that is missing knows nobody.
	// Their @revoked lines bind where a certificate is required, too.
	KnownHosts []string
	// DialTimeout bounds all attempts of one Dial together, 30 seconds if 0.
	// Time that the signer takes, perhaps for a person to confirm, isn't counted.
	DialTimeout time.Duration
	// KeepAlive is the idle time after which TCP asks whether the host is still
	// there, 15 seconds if 0.
	KeepAlive time.Duration
	// Now is the clock that certificates are checked by, time.Now if nil.
	Now func() time.Time
	// Log takes what only operators care for; nil discards it.
	Log *slog.Logger
}

// Destination is a host that was asked for, and where it is.
type Destination struct {
	// Name is the name asked for, in lower case and without a trailing dot: the
	// name that the host's certificate must be valid for.
	Name string
	Host *inventory.Host
	// Address is the name or address to connect to, Port the port.
	Address string
	Port    int
}

// Router resolves names and dials hosts. It is safe for concurrent use.
type Router struct {
	cfg   Config
	names map[string][]*place
	// places are all hosts, also those that no name leads to.
	places []*place
	known  sshconfig.KnownFiles
}

// place is a host with what its settings say about reaching it.
type place struct {
	host    *inventory.Host
	address string
	port    int
}

const (
	defaultPort        = 22
	defaultDialTimeout = 30 * time.Second
	defaultKeepAlive   = 15 * time.Second
)

// New returns a Router. It fails where the settings of a host can't be used;
// the error wraps one *inventory.SettingError for each.
func New(c Config) (*Router, error) {
	if c.Inventory == nil {
		return nil, errors.New("routing: no Inventory given")
	}
	if c.RequireCertificate == nil {
		c.RequireCertificate = func(*inventory.Host) bool { return true }
	}
	if c.Revoked == nil {
		c.Revoked = func(ssh.PublicKey) bool { return false }
	}
	if c.DialTimeout <= 0 {
		c.DialTimeout = defaultDialTimeout
	}
	if c.KeepAlive <= 0 {
		c.KeepAlive = defaultKeepAlive
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	for _, ca := range c.HostCAs {
		if err := trust.Authority(ca); err != nil {
			return nil, fmt.Errorf("routing: host CA: %w", err)
		}
	}
	names, places, err := index(c.Inventory)
	if err != nil {
		return nil, fmt.Errorf("routing: %w", err)
	}
	r := &Router{cfg: c, names: names, places: places}
	for _, path := range c.KnownHosts {
		k, err := sshconfig.LoadKnownHosts(path)
		if err != nil {
			return nil, fmt.Errorf("routing: %w", err)
		}
		r.known = append(r.known, k)
	}
	return r, nil
}
