package remote

import (
	"errors"
	"fmt"
	"strings"
)

// ErrNoSFTP is wrapped by Upload's errors where the host offers no SFTP.
var ErrNoSFTP = errors.New("the server offers no sftp")

// ErrClosed is wrapped where a Dialer or Conn is used after Close.
var ErrClosed = errors.New("closed")

// errTimeout is the cause of a context that Config.Timeout has ended.
var errTimeout = errors.New("timed out")

// maxQuote bounds what an error text holds of a host's own words.
const maxQuote = 300

// quoted makes text from a host safe and short enough for an error.
func quoted(b []byte) string {
	b = []byte(strings.TrimSpace(string(b[max(0, len(b)-4*maxQuote):])))
	if len(b) > maxQuote {
		return fmt.Sprintf("…%q", b[len(b)-maxQuote:])
	}
	return fmt.Sprintf("%q", b)
}

// UnreachableError says that no SSH connection came about.
type UnreachableError struct {
	Host    string // inventory name
	Address string // host:port that was tried
	// Silent says that nothing came back in time, not even a refusal.
	Silent bool
	// Said is what the server sent instead of an SSH version, if anything.
	Said     []byte
	Attempts int
	Err      error
}

func (e *UnreachableError) Error() string {
	text := fmt.Sprintf("connecting to %s (%s): %v", e.Host, e.Address, e.Err)
	if len(e.Said) > 0 {
		text += ", the server said " + quoted(e.Said)
	}
	if e.Attempts > 1 {
		text += fmt.Sprintf(" (%d attempts)", e.Attempts)
	}
	return text
}

func (e *UnreachableError) Unwrap() error { return e.Err }

// JumpError says that a jump host on the way is at fault. It wraps what went
// wrong there, such as an *AuthError whose Host is the jump host's name.
type JumpError struct {
	Host string // inventory name of the host that was to be reached
	Hop  string // the jump host as configured
	Err  error
}

func (e *JumpError) Error() string {
	return fmt.Sprintf("reaching %s through jump host %s: %v", e.Host, e.Hop, e.Err)
}

func (e *JumpError) Unwrap() error { return e.Err }

// AuthError says that the host let nobody in with what there was to offer.
type AuthError struct {
	Host, User string
	// Allowed are the methods that the server would take.
	Allowed []string
	// Tried says what was offered, in order: "agent SHA256:…", "password" …
	Tried []string
	// PasswordRefused says that the password that was asked for is wrong there.
	PasswordRefused bool
	// Err gathers what kept keys from being used: files that can't be read,
	// an agent that doesn't answer. Nil if all was in order.
	Err error
}

func (e *AuthError) Error() string {
	tried := "nothing to offer"
	if len(e.Tried) > 0 {
		tried = "tried " + strings.Join(e.Tried, ", ")
	}
	text := fmt.Sprintf("logging in to %s as %q: %s; the server takes %s",
		e.Host, e.User, tried, strings.Join(e.Allowed, ", "))
	if len(e.Allowed) == 0 {
		text = fmt.Sprintf("logging in to %s as %q: %s", e.Host, e.User, tried)
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

func (e *AuthError) Unwrap() error { return e.Err }

// HostKeyReason says why a host key was refused.
type HostKeyReason string

// The reasons of a HostKeyError.
const (
	HostKeyUnknown       HostKeyReason = "unknown"        // nothing is known of the host
	HostKeyChanged       HostKeyReason = "changed"        // another key is known
	HostKeyRevoked       HostKeyReason = "revoked"        // @revoked in known_hosts
	HostKeyNotPinned     HostKeyReason = "not pinned"     // the inventory names other fingerprints
	HostKeyNoCertificate HostKeyReason = "no certificate" // HostCertificateOnly, and no valid one was shown
	HostKeyWeak          HostKeyReason = "weak"           // an RSA key that is too short
	HostKeyNotRecorded   HostKeyReason = "not recorded"   // a new key that could not be written to known_hosts
)

// HostKeyError says that the host couldn't prove who it is.
type HostKeyError struct {
	Host   string // inventory name
	Name   string // the name it was looked up by in known_hosts
	Reason HostKeyReason
	// Type and Fingerprint of the key that was shown; of a certificate, of the
	// key in it. Empty if the host offered none of the types that were asked for.
	Type, Fingerprint string
	// Known are the places of the keys that were expected: "file:line".
	Known []string
	Err   error
}

func (e *HostKeyError) Error() string {
	shown := "showed no host key that could be accepted"
	if e.Fingerprint != "" {
		shown = fmt.Sprintf("showed host key %s %s", e.Type, e.Fingerprint)
	}
	var why string
	switch e.Reason {
	case HostKeyUnknown:
		why = fmt.Sprintf("which is not in known_hosts under %q", e.Name)
	case HostKeyChanged:
		why = fmt.Sprintf("but known_hosts has another one for %q", e.Name)
	case HostKeyRevoked:
		why = "which known_hosts marks as revoked"
	case HostKeyNotPinned:
		why = "which is not among the fingerprints in the inventory"
	case HostKeyNoCertificate:
		why = "and no valid certificate of the host CA"
	case HostKeyWeak:
		why = "which is too short"
	case HostKeyNotRecorded:
		why = "which is new and could not be written to known_hosts"
	}
	text := fmt.Sprintf("host key of %s: it %s, %s", e.Host, shown, why)
	if len(e.Known) > 0 {
		text += " (" + strings.Join(e.Known[:min(len(e.Known), 3)], ", ") + ")"
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

func (e *HostKeyError) Unwrap() error { return e.Err }

// BecomeReason says why another user's rights weren't had.
type BecomeReason string

// The reasons of a BecomeError.
const (
	BecomeMissing       BecomeReason = "missing"        // no sudo on the host
	BecomeNotAllowed    BecomeReason = "not allowed"    // not in sudoers, or not for this
	BecomeNeedsPassword BecomeReason = "needs password" // and none was given
	BecomeWrongPassword BecomeReason = "wrong password"
	BecomeNeedsTerminal BecomeReason = "needs terminal" // requiretty in sudoers
	BecomeOther         BecomeReason = "other"
)

// BecomeError says that sudo on the host didn't run the script. Nothing of the
// script was run.
type BecomeError struct {
	Host, User string // the host's inventory name; the user to become
	Reason     BecomeReason
	Output     []byte // sudo's own words: untrusted
	Err        error
}

func (e *BecomeError) Error() string {
	var why string
	switch e.Reason {
	case BecomeMissing:
		why = "there is no sudo"
	case BecomeNotAllowed:
		why = "sudo doesn't allow it to this login"
	case BecomeNeedsPassword:
		why = "sudo wants a password and none was given"
	case BecomeWrongPassword:
		why = "sudo refused the password"
	case BecomeNeedsTerminal:
		why = "sudo insists on a terminal (requiretty in sudoers)"
	default:
		why = "sudo failed"
	}
	text := fmt.Sprintf("becoming %s on %s: %s", e.User, e.Host, why)
	if len(e.Output) > 0 {
		text += ": " + quoted(e.Output)
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

func (e *BecomeError) Unwrap() error { return e.Err }

// ScriptError says that a script didn't run to its end, or that its end isn't
// known.
type ScriptError struct {
	Host string
	// Started says that the shell had begun to read the script. If false,
	// nothing of it was run.
	Started bool
	// EndUnknown says that the script may have run, may be running still, or
	// may have been cut off, since the connection or the caller went away.
	EndUnknown bool
	Signal     string // of the shell's end, as SSH names it
	Output     []byte // the end of stderr: untrusted
	Err        error
}

func (e *ScriptError) Error() string {
	text := "running a script on " + e.Host
	switch {
	case e.Signal != "":
		text += ": the shell was ended by signal " + fmt.Sprintf("%.20q", e.Signal)
	case e.EndUnknown && e.Started:
		text += ": its end is not known"
	case e.EndUnknown:
		text += ": it is not known whether it started"
	case !e.Started:
		text += ": the login's shell didn't start it"
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	if len(e.Output) > 0 {
		text += ", stderr " + quoted(e.Output)
	}
	return text
}

func (e *ScriptError) Unwrap() error { return e.Err }

// ErrTooMuchOutput is wrapped by a ScriptError where the host sent more than
// Config.MaxOutput.
var ErrTooMuchOutput = errors.New("more output than is accepted")
