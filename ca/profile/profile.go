// Package profile turns a request for a certificate into the contents of that
// certificate, under rules that bound how long it may live.
//
// It refuses whatever would make a certificate mean more than was asked for:
// no principals, empty, wildcard or comma-holding principals, white space and
// control characters in anything that ends up in a log or on a terminal,
// lifetimes of zero or beyond the maximum, keys that are weak or are themselves
// certificates, options that OpenSSH would not enforce. It does no I/O and
// signs nothing.
package profile

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"
)

// Kind says whom a certificate is for.
type Kind string

// The two kinds of certificates that OpenSSH knows.
const (
	User Kind = "user"
	Host Kind = "host"
)

// Backdate is how far before its making a certificate becomes valid, so that a
// host whose clock is a little behind accepts it.
const Backdate = time.Minute

// MaxForceCommand is the longest forced command, in bytes.
const MaxForceCommand = 4096

// MaxSourceAddresses is the greatest number of networks in one certificate.
const MaxSourceAddresses = 64

// Request is what somebody wants certified.
type Request struct {
	// Kind is required.
	Kind Kind
	// PublicKey is the key to certify: plain, of a type OpenSSH knows, strong.
	PublicKey ssh.PublicKey
	// KeyID is the identity: what sshd logs and what the jump host goes by.
	// Required for users; hosts default to their first principal.
	KeyID string
	// Principals are the logins (user) or host names (host). At least one.
	// Host names are lower-cased, as ssh lower-cases what it looks up.
	Principals []string
	// TTL is how long the certificate lives from now on. Zero takes the default
	// of the rules; a zero that a person typed is refused by ParseTTL.
	TTL time.Duration
	// SourceAddresses, when any are given, are the only networks from which
	// the certificate may be used. Users only.
	SourceAddresses []netip.Prefix
	// ForceCommand, when given, is run whatever the client asks for. Users only.
	// It also reduces the default extensions to permit-pty, since a forced
	// command alone leaves port, agent and X11 forwarding open.
	ForceCommand string
	// Extensions changes what a user certificate permits. Users only.
	Extensions Extensions
}

// Limits bound the life of one kind of certificate.
type Limits struct {
	// Default is the life of a certificate whose request names none.
	Default time.Duration
	// Max is the longest life that may be asked for.
	Max time.Duration
}

// Rules bound what is certified. The zero value permits nothing.
type Rules struct {
	User Limits
	Host Limits
}

// longest bounds even raised maxima: nothing that is signed lives for ever.
const longest = 10 * 365 * day

// DefaultRules are the limits that hold where nobody raised them: a working day
// for people, and for hosts a quarter, at most the 398 days that web browsers
// grant a server certificate.
func DefaultRules() Rules {
	return Rules{
		User: Limits{Default: 12 * time.Hour, Max: 30 * time.Hour},
		Host: Limits{Default: 90 * day, Max: 398 * day},
	}
}

// For gives the limits of a kind, and an error for a kind that does not exist.
func (r Rules) For(k Kind) (Limits, error) {
	switch k {
	case User:
		return r.User, nil
	case Host:
		return r.Host, nil
	case "":
		return Limits{}, errors.New("kind of certificate not set")
	}
	return Limits{}, fmt.Errorf("unknown kind of certificate %q", string(k))
}

// Check tells whether the rules make sense.
func (r Rules) Check() error {
	for _, k := range []Kind{User, Host} {
		l, err := r.For(k)
		if err != nil {
			return err
		}
		switch {
		case l.Max < time.Second:
			return fmt.Errorf("rules for %s certificates: the maximum life %s is under a second", k, l.Max)
		case l.Max > longest:
			return fmt.Errorf("rules for %s certificates: the maximum life %s is over %s", k, FormatTTL(l.Max), FormatTTL(longest))
		case l.Default < time.Second:
			return fmt.Errorf("rules for %s certificates: the default life %s is under a second", k, l.Default)
		case l.Default > l.Max:
			return fmt.Errorf("rules for %s certificates: the default life %s is over the maximum %s", k, FormatTTL(l.Default), FormatTTL(l.Max))
		}
	}
	return nil
}

// Certificate is the unsigned certificate that req asks for. The serial is the
// caller's to choose and must not be zero: OpenSSH can't revoke serial zero.
func (r Rules) Certificate(req Request, serial uint64, now time.Time) (*ssh.Certificate, error) {
	limits, err := r.For(req.Kind)
	if err != nil {
		return nil, err
	}
	if serial == 0 {
		return nil, errors.New("serial number is zero")
	}
	key, err := CheckKey(req.PublicKey)
	if err != nil {
		return nil, err
	}
	principals, err := checkPrincipals(req.Kind, req.Principals)
	if err != nil {
		return nil, err
	}
	id := req.KeyID
	if id == "" && req.Kind == Host {
		id = principals[0]
	}
	if err := CheckKeyID(id); err != nil {
		return nil, err
	}
	ttl, err := limits.life(req.Kind, req.TTL)
	if err != nil {
		return nil, err
	}
	critical, extensions, err := options(req)
	if err != nil {
		return nil, err
	}
	if now.Unix() < int64(Backdate/time.Second) {
		return nil, fmt.Errorf("clock shows %s, before the epoch", now.UTC().Format(time.RFC3339))
	}
	certType := uint32(ssh.UserCert)
	if req.Kind == Host {
		certType = ssh.HostCert
	}
	return &ssh.Certificate{
		Key:             key,
		Serial:          serial,
		CertType:        certType,
		KeyId:           id,
		ValidPrincipals: principals,
		ValidAfter:      uint64(now.Add(-Backdate).Unix()),
		ValidBefore:     uint64(now.Add(ttl).Unix()),
		Permissions:     ssh.Permissions{CriticalOptions: critical, Extensions: extensions},
	}, nil
}

// life is the time to live that a request gets.
func (l Limits) life(k Kind, asked time.Duration) (time.Duration, error) {
	ttl := asked
	if ttl == 0 {
		ttl = l.Default
	}
	switch {
	case ttl < time.Second:
		return 0, fmt.Errorf("life of %s is under a second", ttl)
	case ttl%time.Second != 0:
		return 0, fmt.Errorf("life of %s is not in whole seconds", ttl)
	case ttl > l.Max:
		return 0, &TooLongError{Kind: k, Asked: ttl, Max: l.Max}
	}
	return ttl, nil
}

// TooLongError says that a request asked for a life beyond the maximum.
type TooLongError struct {
	Kind       Kind
	Asked, Max time.Duration
}

func (e *TooLongError) Error() string {
	return fmt.Sprintf("life of %s is over the maximum of %s for %s certificates",
		FormatTTL(e.Asked), FormatTTL(e.Max), e.Kind)
}

// options makes the critical options and extensions of a certificate.
func options(req Request) (critical, extensions map[string]string, err error) {
	if req.Kind == Host {
		// OpenSSH defines none for hosts, and a client refuses a host
		// certificate with a critical option.
		switch {
		case len(req.SourceAddresses) > 0:
			return nil, nil, errors.New("a host certificate can't have source addresses")
		case req.ForceCommand != "":
			return nil, nil, errors.New("a host certificate can't have a forced command")
		case !req.Extensions.zero():
			return nil, nil, errors.New("a host certificate can't have extensions")
		}
		return nil, nil, nil
	}
	critical = map[string]string{}
	if len(req.SourceAddresses) > 0 {
		list, err := sourceAddresses(req.SourceAddresses)
		if err != nil {
			return nil, nil, err
		}
		critical["source-address"] = list
	}
	if req.ForceCommand != "" {
		if err := checkForceCommand(req.ForceCommand); err != nil {
			return nil, nil, err
		}
		critical["force-command"] = req.ForceCommand
	}
	extensions, err = req.Extensions.permitted(req.ForceCommand != "")
	if err != nil {
		return nil, nil, err
	}
	return critical, extensions, nil
}

func checkForceCommand(cmd string) error {
	switch {
	case len(cmd) > MaxForceCommand:
		return fmt.Errorf("forced command of %d bytes is over the maximum of %d", len(cmd), MaxForceCommand)
	case !utf8.ValidString(cmd):
		return fmt.Errorf("forced command %q is not UTF-8", cmd)
	case strings.TrimSpace(cmd) == "":
		// sshd would run an empty command: the login shell, which is the
		// opposite of what was meant.
		return fmt.Errorf("forced command %q is blank", cmd)
	case strings.ContainsFunc(cmd, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("forced command %q holds a newline or another unprintable character", cmd)
	}
	return nil
}

// sourceAddresses joins networks as sshd wants them.
func sourceAddresses(nets []netip.Prefix) (string, error) {
	if len(nets) > MaxSourceAddresses {
		return "", fmt.Errorf("%d source addresses are over the maximum of %d", len(nets), MaxSourceAddresses)
	}
	canonical := make([]netip.Prefix, 0, len(nets))
	for _, n := range nets {
		switch {
		case !n.IsValid():
			return "", errors.New("invalid source address")
		case n.Addr().Is4In6():
			// sshd compares an IPv4 client with IPv4 networks only.
			return "", fmt.Errorf("source address %q is IPv4 written as IPv6", n)
		case n != n.Masked():
			// sshd refuses the whole certificate over such an entry.
			return "", fmt.Errorf("source address %q has bits set beyond its mask; the network is %q", n, n.Masked())
		}
		canonical = append(canonical, n)
	}
	slices.SortFunc(canonical, netip.Prefix.Compare)
	canonical = slices.Compact(canonical)
	texts := make([]string, len(canonical))
	for i, n := range canonical {
		texts[i] = n.String()
	}
	return strings.Join(texts, ","), nil
}

// ParseSourceAddress reads a network (192.0.2.0/24) or a single address.
func ParseSourceAddress(s string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("source address %q is neither an address nor a network such as 192.0.2.0/24", s)
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// Extensions says how the extensions of a user certificate differ from the
// default, which is what ssh-keygen gives: every permit-* extension. The
// zero value is that default.
type Extensions struct {
	// None starts from no extension at all.
	None bool
	// Enable and Disable name extensions to add and to leave out.
	Enable, Disable []string
}

// defaultExtensions are what ssh-keygen puts into a user certificate.
var defaultExtensions = []string{
	"permit-X11-forwarding",
	"permit-agent-forwarding",
	"permit-port-forwarding",
	"permit-pty",
	"permit-user-rc",
}

// KnownExtensions lists the names that Enable and Disable take.
func KnownExtensions() []string {
	return append(slices.Clone(defaultExtensions), "no-touch-required")
}

func (e Extensions) zero() bool { return !e.None && len(e.Enable) == 0 && len(e.Disable) == 0 }

// permitted gives the extensions of a certificate.
func (e Extensions) permitted(forced bool) (map[string]string, error) {
	on := map[string]string{}
	switch {
	case e.None:
	case forced:
		on["permit-pty"] = ""
	default:
		for _, name := range defaultExtensions {
			on[name] = ""
		}
	}
	known := KnownExtensions()
	for _, name := range slices.Concat(e.Enable, e.Disable) {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("unknown extension %q (known: %s)", name, strings.Join(known, ", "))
		}
	}
	for _, name := range e.Enable {
		if slices.Contains(e.Disable, name) {
			return nil, fmt.Errorf("extension %q is both enabled and disabled", name)
		}
		on[name] = ""
	}
	for _, name := range e.Disable {
		delete(on, name)
	}
	return maps.Clone(on), nil
}
