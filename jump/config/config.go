// Package config reads jump.yaml and everything that it names: keys,
// certificates, CAs, revoked keys, the inventory. What it returns has been
// checked and is ready for use.
//
// It refuses what it doesn't understand whole: an unknown key, a value out of
// range, a missing or broken file, an authority that is a certificate or
// serves two purposes, a role that denies nothing because of a misspelt
// pattern. All mistakes are told at once, each with file, line and field. It
// writes nothing.
package config

import (
	"slices"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca/krl"
	"github.com/fleetca/fleetca/inventory"
	"github.com/fleetca/fleetca/jump/access"
)

// Config is a jump.yaml that was read. It never changes: a new version of the
// file gives a new Config.
type Config struct {
	// Path is the absolute path of jump.yaml.
	Path string
	// Name is the jump host's name, in lower case; its certificate names it.
	Name string
	// Cluster is what may follow "@" in proxy:HOST:PORT@CLUSTER: Name if
	// nothing else is said.
	Cluster string
	// Listen are the addresses to listen on, such as ":3023".
	Listen []string
	// AdminSocket is the path of the admin socket, or "" for none.
	AdminSocket string

	// HostSigner signs with the jump host's own key and shows its certificate.
	HostSigner ssh.Signer
	// JumpCA signs the certificates that the jump host shows on behalf of hosts.
	JumpCA ssh.Signer
	// UserCAs are the authorities for people; there is at least one. HostCAs
	// are those for hosts; there is at least one unless no host has to show a
	// certificate. All are plain keys.
	UserCAs, HostCAs []ssh.PublicKey
	// Revoked are the revoked keys and certificates; nil if no file is named.
	Revoked *krl.List

	Inventory *inventory.Inventory
	Rules     access.Rules
	// RequireHostCertificate tells whether a host must show a certificate. It
	// is never nil; for nil and for hosts of other inventories it says yes.
	RequireHostCertificate func(host *inventory.Host) bool
	// KnownHosts are the files that hosts which needn't show a certificate are
	// checked against.
	KnownHosts []string

	// DialTimeout is for reaching a host, retries included. LoginTimeout is for
	// a client to prove who it is. DrainTimeout is what running sessions get
	// when the jump host stops. KeepAlive is the pause between questions
	// whether the other side is still there.
	DialTimeout, LoginTimeout, DrainTimeout, KeepAlive time.Duration

	Store Store
	// AuditDir is the folder of the audit files.
	AuditDir string
	// MaxStream is how many bytes of each stream of a command are kept.
	MaxStream uint64
	// AcceptEnv are patterns, with '*' and '?', of the environment variables
	// that are passed on to hosts.
	AcceptEnv []string
	Limits    Limits

	files []string
}

// Store says where recordings go. Sizes are in bytes.
type Store struct {
	Dir string
	// Below Reserve of free space no session begins, below CloseReserve
	// running recordings are closed. Ballast is the size of the file that is
	// given up for that.
	Reserve, CloseReserve, Ballast uint64
	// RetainFor is how long recordings are kept, RetainBytes how much of them.
	// Zero is without limit.
	RetainFor   time.Duration
	RetainBytes uint64
}

// Limits bound what clients may use at once.
type Limits struct {
	// Connections are all outer connections, PerIdentity those of one person,
	// Unauthenticated those that have not proven yet who they are.
	Connections, PerIdentity, Unauthenticated int
	// ChannelsPerConnection are all open channels of a connection,
	// SessionsPerConnection those of them that are sessions.
	ChannelsPerConnection, SessionsPerConnection int
}

// Files are the absolute paths of all files and folders that were read: when one
// of them, or what is directly in a folder, changes, Load may give something
// else. Some need not exist.
func (c *Config) Files() []string { return slices.Clone(c.files) }

// The defaults of jump.yaml.
const (
	DefaultListen       = ":3023"
	DefaultDialTimeout  = 30 * time.Second
	DefaultLoginTimeout = time.Minute
	DefaultDrainTimeout = time.Minute
	DefaultKeepAlive    = 30 * time.Second

	DefaultReserve      = 512 << 20
	DefaultCloseReserve = 256 << 20
	DefaultBallast      = 128 << 20
	DefaultMaxStream    = 4 << 20
)

// DefaultLimits are the limits if nothing is said.
func DefaultLimits() Limits {
	return Limits{
		Connections: 1000, PerIdentity: 250, Unauthenticated: 100,
		ChannelsPerConnection: 128, SessionsPerConnection: 64,
	}
}

// DefaultAcceptEnv are the variables that change how programs speak to people,
// and nothing else.
func DefaultAcceptEnv() []string { return []string{"LANG", "LC_*", "COLORTERM", "NO_COLOR"} }
