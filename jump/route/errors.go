package route

import (
	"fmt"
	"slices"
	"strings"
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

func (e *UnreachableError) Error() string {
	text := fmt.Sprintf("connecting to %s (%s): ", e.Host, e.Address)
	switch {
	case e.Silent:
		text += "nothing came back"
	case e.Err != nil:
		text += e.Err.Error()
	default:
		text += "no connection"
	}
	if e.Said != "" {
		text += fmt.Sprintf(", it said %.300q", e.Said)
	}
	if e.Attempts > 1 {
		text += fmt.Sprintf(" (%d attempts in %s)", e.Attempts, e.Waited.Round(100*time.Millisecond))
	}
	return text
}

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

// plainKeyText is what people know from other recording proxies and search for.
const plainKeyText = "ssh: handshake failed: remote host presented a public key, expected a host certificate"

func (e *HostKeyError) Error() string {
	var text string
	switch e.Problem {
	case PlainKey:
		return plainKeyText
	case OtherCA:
		text = "its certificate is not signed by a trusted host CA"
		if e.CA != "" {
			text += " but by " + e.CA
		}
	case WrongName:
		text = fmt.Sprintf("its certificate is not for %q but for %.300q", e.Name, strings.Join(e.Names, ","))
	case Expired:
		text = "its certificate has expired" + when(" on ", e.ValidBefore)
	case NotYetValid:
		text = "its certificate is not valid" + when(" before ", e.ValidAfter) + ", or a clock is wrong"
	case Revoked:
		text = "its key or certificate is revoked"
	case Unknown:
		text = "known_hosts has no key of it"
	case Changed:
		text = "known_hosts has another key of it"
	default:
		text = "its key or certificate is not accepted"
		if e.Err != nil {
			text += ": " + e.Err.Error()
		}
	}
	if len(e.Known) > 0 {
		text += " (" + strings.Join(e.Known[:min(len(e.Known), 3)], ", ") + ")"
	}
	if e.Fingerprint != "" {
		text += ", it showed " + e.Type + " " + e.Fingerprint
	}
	return "host key of " + e.Host + ": " + text
}

func when(before string, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return before + t.UTC().Format(time.RFC3339)
}

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
	// Unproven says that it was us who refused: the host lets in anybody
	// without looking at the certificate, so that nothing in it, such as its
	// forced command, would bind there.
	Unproven bool
	// Banner is what the host said before: untrusted.
	Banner string
	Err    error
}

func (e *LoginRefusedError) Error() string {
	text := fmt.Sprintf("logging in to %s as %q: ", e.Host, e.Login)
	switch {
	case e.Unproven:
		text += "the host asks for no proof, so what the certificate says would not bind"
	case e.Partial:
		text += fmt.Sprintf("the host takes the certificate but wants more beside it (%.200q)", strings.Join(e.Methods, ", "))
	case e.Dropped:
		text += "the host ended the connection instead of an answer"
	case len(e.Methods) > 0 && !slices.Contains(e.Methods, "publickey"):
		text += fmt.Sprintf("the host takes no certificates, only %.200q", strings.Join(e.Methods, ", "))
	default:
		text += "the host refuses the certificate"
	}
	if e.Banner != "" {
		text += fmt.Sprintf(", it said %.300q", e.Banner)
	}
	return text
}

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

func (e *NoCertificateError) Error() string {
	switch {
	case e.HoldsKey:
		return "the agent holds the certificate's key, but not the certificate"
	case e.Keys == 0:
		return "the agent holds no keys, or is locked"
	}
	return fmt.Sprintf("the agent does not hold the certificate (%d other keys)", e.Keys)
}

// AgentError says that the agent doesn't do what was asked, or speaks nonsense.
type AgentError struct {
	Op string // "listing keys" or "signing"
	// Refused says that the agent answered, and said no: confirmation denied,
	// a key constrained to other destinations, a locked agent …
	Refused bool
	Err     error
}

func (e *AgentError) Error() string { return e.Op + " by the agent: " + e.Err.Error() }

func (e *AgentError) Unwrap() error { return e.Err }
