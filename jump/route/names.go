package route

import (
	"cmp"
	"slices"

	"github.com/fleetca/fleetca/inventory"
)

// Name is a name by which people reach a host through the jump host.
type Name struct {
	Name string // in lower case
	Host *inventory.Host
	Port int
	// Shared are the inventory names of all hosts that the name could mean,
	// sorted, where these are several: without a port Resolve then refuses it.
	Shared []string
}

// Names are the names that Resolve would find in an inventory of these hosts:
// a host's own first, then its aliases, in the order of the hosts. A name that
// several hosts share is there once for each of them. Addresses are left out.
// The error is a *inventory.SettingError.
func Names(hosts []*inventory.Host) ([]Name, error) {
	own := map[string]bool{}
	for _, h := range hosts {
		own[canonical(h.Name)] = true
	}
	var all []Name
	meant := map[string][]string{}
	for _, h := range hosts {
		s, err := h.Settings()
		if err != nil {
			return nil, err
		}
		var mine []string
		for i, name := range slices.Concat([]string{h.Name, s.Address}, s.Principals) {
			name = canonical(name)
			if name == "" || isAddress(name) || len(name) > maxName || slices.Contains(mine, name) || i > 0 && own[name] {
				continue
			}
			mine = append(mine, name)
			meant[name] = append(meant[name], h.Name)
			all = append(all, Name{Name: name, Host: h, Port: cmp.Or(s.Port, defaultPort)})
		}
	}
	for i, n := range all {
		if hosts := meant[n.Name]; len(hosts) > 1 {
			all[i].Shared = slices.Sorted(slices.Values(hosts))
		}
	}
	return all, nil
}
