package route

import (
	"fmt"
	"time"
)

// UnknownHostError says that the inventory has no host of this name.
type UnknownHostError struct {
	Name string // as asked for: untrusted
}

func (e *UnknownHostError) Error() string {
	return fmt.Sprintf("host %.255q is not in the inventory", e.Name)
}

// AmbiguousHostError says that several hosts of the inventory share the name.
type AmbiguousHostError struct {
	Name  string
	Hosts []string // inventory names, sorted
}

func (e *AmbiguousHostError) Error() string {
	return fmt.Sprintf("host %q is ambiguous: it may be any of %q", e.Name, e.Hosts)
}

// PortError says that the inventory doesn't give the host this port.
type PortError struct {
	Name    string
	Port    int   // that was asked for
	Allowed []int // sorted
}

func (e *PortError) Error() string {
	return fmt.Sprintf("port %d of host %q is not in the inventory", e.Port, e.Name)
}

// AddressError says that an address was asked for in place of a name.
type AddressError struct {
	Name string // as asked for: untrusted
}

func (e *AddressError) Error() string {
	return fmt.Sprintf("%.255q is an address: hosts are reached by their names in the inventory", e.Name)
}

// UnreachableError says that no SSH connection came about in time.
type UnreachableError struct {
	Host    string // inventory name
	Address string // host:port that was tried
	// Silent says that nothing came back, not even a refusal.
	Silent bool
	// Said is what the host sent instead of an SSH version, if anything:
	// untrusted.
	Said     string
	Attempts int
	Waited   time.Duration
	Err      error // of the last attempt
}

func (e *UnreachableError) Error() string { return "not finished" }

func (e *UnreachableError) Unwrap() error { return e.Err }

// Problem is what is wrong with a host key.
type Problem string

// The problems of a HostKeyError.
const (
	PlainKey    Problem = "plain_key"     // no certificate where one is required
	OtherCA     Problem = "other_ca"      // signed by somebody else
	WrongName   Problem = "wrong_name"    // valid, but for other names
	Expired     Problem = "expired"       //
	NotYetValid Problem = "not_yet_valid" // or a clock is wrong
	Revoked     Problem = "revoked"       // by Config.Revoked or a @revoked line
	Unknown     Problem = "unknown"       // not in known_hosts
	Changed     Problem = "changed"       // known_hosts has another key
	Invalid     Problem = "invalid"       // no use for other reasons: a user certificate, no principals, a short key …
)

// HostKeyError says that the host couldn't prove that it is the one asked for.
type HostKeyError struct {
	Host    string // inventory name
	Name    string // the name that was asked for
	Problem Problem
	// Type and Fingerprint of the key shown; of a certificate, of the key in it.
	// Empty where the host has no key of a type that is accepted.
	Type, Fingerprint string
	// CA is the fingerprint of the key that signed the certificate shown.
	CA string
	// Names are the certificate's principals: untrusted.
	Names []string
	// ValidAfter and ValidBefore bound the certificate's life, zero if it has no
	// such bound.
	ValidAfter, ValidBefore time.Time
	// Known are the places of the lines that decided, "file:line".
	Known []string
	Err   error
}

func (e *HostKeyError) Error() string { return "not finished" }

func (e *HostKeyError) Unwrap() error { return e.Err }

// LoginRefusedError says that the host is the right one and answers, but
// doesn't let this login in.
type LoginRefusedError struct {
	Host, Login string
	// Methods are those that the host would take.
	Methods []string
	// Partial says that the certificate was accepted, but the host wants another
	// proof beside it, which can't be given here.
	Partial bool
	// Dropped says that the host ended the connection instead of an answer, as
	// sshd does where PAM refuses the account.
	Dropped bool
	// Banner is what the host said before: untrusted.
	Banner string
	Err    error
}

func (e *LoginRefusedError) Error() string { return "not finished" }

func (e *LoginRefusedError) Unwrap() error { return e.Err }

// NoCertificateError says that the agent doesn't hold the certificate.
type NoCertificateError struct {
	// HoldsKey says that it holds the certificate's key, but not the
	// certificate, as agents do that can't hold any.
	HoldsKey bool
	// Keys is how many keys and certificates it holds at all. Agents that are
	// locked say none.
	Keys int
}

func (e *NoCertificateError) Error() string { return "not finished" }

// AgentError says that the agent doesn't do what was asked, or speaks nonsense.
type AgentError struct {
	Op string // "listing keys" or "signing"
	// Refused says that the agent answered, and said no: confirmation denied,
	// a key constrained to other destinations, a locked agent …
	Refused bool
	Err     error
}

func (e *AgentError) Error() string { return "not finished" }

func (e *AgentError) Unwrap() error { return e.Err }
