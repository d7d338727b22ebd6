package route

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"github.com/fleetca/fleetca/inventory"
)

// maxName bounds the names that are looked up at all (RFC 1035 §2.3.4 allows
// 255 octets).
const maxName = 255

// index makes the table of names and the list of all places. A host's own name comes before the same word
// as another's alias: who adds an alias can't take a host's place.
func index(inv *inventory.Inventory) (map[string][]*place, []*place, error) {
	names, aliases := map[string][]*place{}, map[string][]*place{}
	var all []*place
	var problems []error
	for _, h := range inv.Hosts() {
		s, err := h.Settings()
		if err != nil {
			problems = append(problems, err)
			continue
		}
		p := &place{host: h, address: cmp.Or(s.Address, h.Name), port: cmp.Or(s.Port, defaultPort)}
		all = append(all, p)
		enter(names, h.Name, p)
		for _, alias := range append([]string{s.Address}, s.Principals...) {
			enter(aliases, alias, p)
		}
	}
	for alias, places := range aliases {
		if _, taken := names[alias]; !taken {
			names[alias] = places
		}
	}
	return names, all, errors.Join(problems...)
}

func enter(into map[string][]*place, name string, p *place) {
	name = canonical(name)
	if name == "" || isAddress(name) || slices.Contains(into[name], p) {
		return
	}
	into[name] = append(into[name], p)
}

// canonical is the form in which names are compared. Letters beyond ASCII are
// left alone: some of them have ASCII letters for their lower case.
func canonical(name string) string {
	lower := strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, name)
	return strings.TrimSuffix(lower, ".")
}

// isAddress says whether anything between a client and the network would take
// the name for an address: IPv6 with or without brackets and zone, or IPv4 in
// any of inet_aton(3)'s notations, which are one to four numbers, decimal, octal
// or hexadecimal.
func isAddress(name string) bool {
	if strings.ContainsAny(name, ":[]%") {
		return true
	}
	parts := strings.Split(name, ".")
	return len(parts) <= 4 && !slices.ContainsFunc(parts, func(part string) bool { return !isNumber(part) })
}

// isNumber has no bound on the size: some cut off what overflows.
func isNumber(part string) bool {
	if hex, ok := strings.CutPrefix(strings.ToLower(part), "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return part != "" && strings.Trim(part, "0123456789") == ""
}

// Resolve finds the host of a name, without regard to case: the inventory's
// name or one of its aliases, which are fleetca_principals and, where it is a
// name, ansible_host. A name in the inventory comes before the same word as
// another host's alias. Port 0 means the inventory's port; of several hosts
// that share an alias, the port may tell which is meant.
//
// Errors are an *AddressError, *UnknownHostError, *AmbiguousHostError or
// *PortError.
func (r *Router) Resolve(name string, port int) (Destination, error) {
	wanted := canonical(name)
	if isAddress(wanted) {
		return Destination{}, &AddressError{Name: name}
	}
	places := r.names[wanted]
	if len(wanted) > maxName || len(places) == 0 {
		return Destination{}, &UnknownHostError{Name: name}
	}
	fits := places
	if port != 0 {
		fits = nil
		for _, p := range places {
			if p.port == port {
				fits = append(fits, p)
			}
		}
	}
	switch len(fits) {
	case 0:
		e := &PortError{Name: wanted, Port: port}
		for _, p := range places {
			e.Allowed = append(e.Allowed, p.port)
		}
		slices.Sort(e.Allowed)
		e.Allowed = slices.Compact(e.Allowed)
		return Destination{}, e
	case 1:
		p := fits[0]
		return Destination{Name: wanted, Host: p.host, Address: p.address, Port: p.port}, nil
	}
	e := &AmbiguousHostError{Name: wanted}
	for _, p := range fits {
		e.Hosts = append(e.Hosts, p.host.Name)
	}
	slices.Sort(e.Hosts)
	return Destination{}, e
}
