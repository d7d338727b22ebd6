package route

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// LeadsTo tells whether a connection from a host of the inventory to a name or
// an address, and a port, ends at the sshd of a host of the inventory, and which:
// such a connection would bypass whoever records what goes to hosts. It knows
// names, aliases and addresses of the inventory, in every notation that
// getaddrinfo(3) takes, and that loopback is the host itself. It asks no name
// service, so names and addresses that the inventory doesn't have stay unknown;
// so does what the host's own services pass on.
func (r *Router) LeadsTo(from Destination, name string, port int) (host string, known bool) {
	wanted := strings.TrimSuffix(strings.TrimPrefix(canonical(name), "["), "]")
	if !isAddress(wanted) {
		local := isLocalName(wanted)
		for _, p := range r.names[wanted] {
			if p.port == port {
				return p.host.Name, true
			}
			local = local || p.host == from.Host
		}
		return from.itself(port, local)
	}
	address, ok := parseAddress(wanted)
	if !ok {
		return "", false // nor does the host make a connection of it
	}
	if host, known := from.itself(port, address.IsLoopback() || address.IsUnspecified()); known {
		return host, true
	}
	for _, p := range r.places {
		if there, ok := parseAddress(canonical(p.address)); ok && there == address && p.port == port {
			return p.host.Name, true
		}
	}
	return "", false
}

// itself is about a connection from a host to itself. sshd's own port counts,
// too, since the inventory may have the one of a router before it.
func (d Destination) itself(port int, local bool) (string, bool) {
	if local && d.Host != nil && (port == d.Port || port == defaultPort) {
		return d.Host.Name, true
	}
	return "", false
}

// isLocalName knows the names that a host has for itself everywhere (RFC 6761
// §6.3, and hosts(5) as distributions write it).
func isLocalName(name string) bool {
	local := []string{
		"", "localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback",
		"localhost4", "localhost4.localdomain4", "localhost6", "localhost6.localdomain6",
	}
	return slices.Contains(local, name) || strings.HasSuffix(name, ".localhost")
}

// parseAddress reads an address as getaddrinfo(3) does: IPv6 with or without a
// zone, IPv4 in the notations of inet_aton(3).
func parseAddress(text string) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(text); err == nil {
		return a.WithZone("").Unmap(), true
	}
	parts := strings.Split(text, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var value uint64
	for i, part := range parts {
		bits := 8
		if i == len(parts)-1 {
			bits = 8 * (5 - len(parts)) // the last number takes what is left
		}
		n, err := strconv.ParseUint(octal(part), 0, 64)
		if err != nil || n >= 1<<bits {
			return netip.Addr{}, false
		}
		value = value<<bits | n
	}
	return netip.AddrFrom4([4]byte{byte(value >> 24), byte(value >> 16), byte(value >> 8), byte(value)}), true
}

// octal keeps strconv from the notations that only Go has.
func octal(part string) string {
	if !isNumber(part) {
		return ""
	}
	return part
}
