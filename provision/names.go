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
	names := []string{strings.ToLower(name)}
	for _, more := range append([]string{s.Address}, s.Principals...) {
		more = strings.ToLower(strings.TrimSuffix(more, "."))
		if more == "" || slices.Contains(names, more) {
			continue
		}
		names = append(names, more)
	}
	// An address is a principal only where somebody asked for it: whoever gets
	// the address next would inherit the certificate's word for it.
	names = slices.DeleteFunc(names, func(n string) bool {
		_, err := netip.ParseAddr(n)
		return err == nil && !slices.Contains(s.Principals, n) && n != strings.ToLower(name)
	})
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
