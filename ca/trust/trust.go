// Package trust verifies user and host certificates against the authorities
// that are trusted.
//
// It refuses what OpenSSH or x/crypto would let pass on their own: certificates
// without principals, or with a principal that holds a wildcard, a comma, white
// space or a control character; a host certificate in place of a user
// certificate and the other way round; an authority that is itself a
// certificate; SHA-1 signatures; and restrictions that the caller did not say
// it enforces. An empty list of authorities trusts nobody.
package trust

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca/profile"
)

// Reasons for refusing a certificate that callers tell apart.
var (
	// ErrUnknownAuthority means that no trusted authority signed it, or that a
	// trusted key's signature is not good.
	ErrUnknownAuthority = errors.New("not signed by a trusted authority")
	// ErrName means that it is valid, but not for the name in question.
	ErrName = errors.New("not valid for this name")
	// ErrExpired means that its time is over.
	ErrExpired = errors.New("expired")
	// ErrNotYetValid means that its time has not come, or that a clock is wrong.
	ErrNotYetValid = errors.New("not yet valid")
)

// HostCertificate returns nil if cert is a host certificate that one of cas
// signed, that is valid at now and names the host. Names are compared without
// regard to case. Errors wrap the sentinels above where they fit.
func HostCertificate(cert *ssh.Certificate, cas []ssh.PublicKey, name string, now time.Time) error {
	if cert == nil {
		return errors.New("host certificate not given")
	}
	if cert.CertType != ssh.HostCert {
		return errors.New("host certificate expected, got a user certificate")
	}
	if name == "" {
		return errors.New("no host name given to check the certificate for")
	}
	same := func(p string) bool { return strings.EqualFold(p, name) }
	if err := check(cert, cas, same, nil, now); err != nil {
		return fmt.Errorf("host certificate for %q: %w", name, err)
	}
	return nil
}

// Use is how a user certificate is about to be used.
type Use struct {
	// Login is the principal that the certificate must list. Required unless
	// AnyLogin is set.
	Login string
	// AnyLogin says that this is only about who somebody is: the caller decides
	// later which logins the certificate's principals are good for.
	AnyLogin bool
	// Source is the client's address. It must be set if the certificate is
	// bound to source addresses.
	Source netip.Addr
	// ForceCommand says that the caller runs the certificate's forced command
	// and nothing else. Unset refuses certificates that have one.
	ForceCommand bool
}

// UserCertificate returns nil if cert is a user certificate that one of cas
// signed, that is valid at now and permits the use. What its extensions permit
// is the caller's to obey. Errors wrap the sentinels above where they fit.
func UserCertificate(cert *ssh.Certificate, cas []ssh.PublicKey, use Use, now time.Time) error {
	if cert == nil {
		return errors.New("user certificate not given")
	}
	if cert.CertType != ssh.UserCert {
		return errors.New("user certificate expected, got a host certificate")
	}
	switch {
	case use.Login == "" && !use.AnyLogin:
		return errors.New("no login given to check the certificate for")
	case use.Login != "" && use.AnyLogin:
		return errors.New("both one login and any given to check the certificate for")
	}
	enforced := []string{"source-address"}
	if use.ForceCommand {
		enforced = append(enforced, "force-command")
	}
	same := func(p string) bool { return use.AnyLogin || p == use.Login }
	err := check(cert, cas, same, enforced, now)
	if err == nil {
		err = checkSource(cert, use.Source)
	}
	switch {
	case err != nil && use.AnyLogin:
		return fmt.Errorf("certificate of %q: %w", cert.KeyId, err)
	case err != nil:
		return fmt.Errorf("certificate of %q for login %q: %w", cert.KeyId, use.Login, err)
	}
	return nil
}

// Authority returns nil if key may sign certificates: a plain, strong key.
func Authority(key ssh.PublicKey) error {
	if _, err := profile.CheckKey(key); err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	return nil
}

// Same tells whether two public keys are one.
func Same(a, b ssh.PublicKey) bool {
	return a != nil && b != nil && bytes.Equal(a.Marshal(), b.Marshal())
}

func check(cert *ssh.Certificate, cas []ssh.PublicKey, same func(string) bool, enforced []string, now time.Time) error {
	if cert.SignatureKey == nil || cert.Signature == nil || cert.Key == nil {
		return fmt.Errorf("%w: it carries no signature", ErrUnknownAuthority)
	}
	trusted := slices.ContainsFunc(cas, func(ca ssh.PublicKey) bool {
		return Authority(ca) == nil && Same(ca, cert.SignatureKey)
	})
	if !trusted {
		return fmt.Errorf("%w (signed by %s)", ErrUnknownAuthority, ssh.FingerprintSHA256(cert.SignatureKey))
	}
	if _, err := profile.CheckKey(cert.Key); err != nil {
		return err
	}
	if cert.Signature.Format == ssh.KeyAlgoRSA {
		return fmt.Errorf("%w: it is signed with SHA-1", ErrUnknownAuthority)
	}
	principal, err := find(cert.ValidPrincipals, same)
	if err != nil {
		return err
	}
	if err := checkTime(cert, now); err != nil {
		return err
	}
	// What is left to CheckCert: critical options and the signature itself.
	checker := ssh.CertChecker{
		SupportedCriticalOptions: enforced,
		Clock:                    func() time.Time { return now },
	}
	for name := range cert.CriticalOptions {
		if !slices.Contains(enforced, name) {
			return fmt.Errorf("critical option %q can't be honoured here", name)
		}
	}
	if err := checker.CheckCert(principal, cert); err != nil {
		return fmt.Errorf("%w: %w", ErrUnknownAuthority, err)
	}
	return nil
}

// find gives the principal that matches. One bad principal spoils the whole
// certificate: an authority that signs such things is not to be trusted with
// the rest, and some versions of OpenSSH read them differently.
func find(principals []string, same func(string) bool) (string, error) {
	if len(principals) == 0 {
		return "", errors.New("it has no principals, which would make it valid for every name")
	}
	found := ""
	for _, p := range principals {
		if p == "" || !utf8.ValidString(p) || strings.ContainsAny(p, "*?,") ||
			strings.ContainsFunc(p, func(r rune) bool { return !unicode.IsPrint(r) || unicode.IsSpace(r) }) {
			return "", fmt.Errorf("its principal %q is refused", p)
		}
		if found == "" && same(p) {
			found = p
		}
	}
	if found == "" {
		return "", fmt.Errorf("%w (it names %q)", ErrName, principals)
	}
	return found, nil
}

// checkTime compares as unsigned numbers, so that no bound wraps around.
func checkTime(cert *ssh.Certificate, now time.Time) error {
	t := now.Unix()
	switch {
	case t < 0:
		return fmt.Errorf("%w: the clock shows a time before the epoch", ErrNotYetValid)
	case uint64(t) < cert.ValidAfter:
		return fmt.Errorf("%w: its time begins at %s", ErrNotYetValid, formatTime(cert.ValidAfter))
	case uint64(t) >= cert.ValidBefore:
		return fmt.Errorf("%w: its time ended at %s", ErrExpired, formatTime(cert.ValidBefore))
	}
	return nil
}

func formatTime(t uint64) string {
	if t > 1<<40 {
		return "a time beyond all calendars"
	}
	return time.Unix(int64(t), 0).UTC().Format(time.RFC3339)
}

func checkSource(cert *ssh.Certificate, source netip.Addr) error {
	list, bound := cert.CriticalOptions["source-address"]
	if !bound {
		return nil
	}
	if !source.IsValid() {
		return errors.New("it is bound to source addresses and the client's address is not known")
	}
	source = source.Unmap().WithZone("")
	for text := range strings.SplitSeq(list, ",") {
		network, err := profile.ParseSourceAddress(text)
		if err != nil {
			return err
		}
		if network.Contains(source) {
			return nil
		}
	}
	return fmt.Errorf("it is not valid from %s (only from %q)", source, list)
}
