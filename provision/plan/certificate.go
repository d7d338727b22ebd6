package plan

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca/profile"
	"github.com/fleetca/fleetca/ca/trust"
)

// Certificate is a host certificate that has to be signed before the plan can
// be carried out.
type Certificate struct {
	// Key is the host key that sshd uses, and that stays on the host.
	Key ssh.PublicKey
	// Name is the file's name in our folder.
	Name string
	// Reason says why one is needed: "none yet", "expires in 3d" …
	Reason string
}

// whyCertificate returns why cert has to be replaced by one for key and names,
// or "". Text of the host is never part of it.
func whyCertificate(cert *ssh.Certificate, key, hostCA ssh.PublicKey, names []string, now time.Time) string {
	switch {
	case cert == nil:
		return "none yet"
	case !trust.Same(cert.Key, key):
		return "the host has a new key"
	case !sameNames(cert.ValidPrincipals, names):
		return "its names have changed"
	}
	switch err := trust.HostCertificate(cert, []ssh.PublicKey{hostCA}, names[0], now); {
	case errors.Is(err, trust.ErrUnknownAuthority):
		return "signed by another CA"
	case errors.Is(err, trust.ErrExpired):
		return "expired"
	case errors.Is(err, trust.ErrNotYetValid):
		return "not valid yet"
	case err != nil:
		return "not a sound host certificate"
	}
	// Both bounds are our own CA's from here on.
	after, before := time.Unix(int64(cert.ValidAfter), 0), time.Unix(int64(cert.ValidBefore), 0)
	if left := before.Sub(now); left < before.Sub(after)/3 {
		return fmt.Sprintf("expires in %s", profile.FormatTTL(left.Truncate(time.Minute)))
	}
	return ""
}

func sameNames(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}
