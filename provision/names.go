package provision

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/fleetca/fleetca/ca/profile"
	"github.com/fleetca/fleetca/inventory"
)

// Names are the principals of a host's certificates: its inventory name, its
// address where that is a name and not a number, and fleetca_principals. All
// of them come from the inventory, none from the host.
func Names(name string, s inventory.Settings) []string {
	lower := func(n string) string { return strings.ToLower(strings.TrimSuffix(n, ".")) }
	names := []string{lower(name)}
	add := func(n string) {
		if n = lower(n); n != "" && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	// A number is a principal only where somebody asked for it: whoever gets the
	// address next would inherit the certificate's word for it.
	if _, err := netip.ParseAddr(s.Address); err != nil {
		add(s.Address)
	}
	for _, n := range s.Principals {
		add(n)
	}
	return names
}

// TTL is the life of a host's certificates.
func TTL(h *inventory.Host, s inventory.Settings, byDefault time.Duration) (time.Duration, error) {
	if s.CertTTL == "" {
		return byDefault, nil
	}
	ttl, err := profile.ParseTTL(s.CertTTL)
	if err != nil {
		return 0, fmt.Errorf("%s: fleetca_cert_ttl: %w", h.Position("fleetca_cert_ttl"), err)
	}
	return ttl, nil
}
