//go:build linux

package testenv

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// network is a bridge with a /24 network out of 198.18.0.0/15, which RFC 2544
// sets aside for tests. The bridge's name carries the network's number and the
// supervisor's process id: fca042p31337; the links to hosts are fca042h001.
type network struct {
	number int
	bridge string
}

const (
	networks    = 512
	networkHost = 10 // the last byte of the first host's address
	maxHosts    = 256 - networkHost - 1
)

var bridgeName = regexp.MustCompile(`^fca(\d{3})p(\d+)$`)

func (n *network) prefix() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{198, byte(18 + n.number/256), byte(n.number % 256), 1}), 24)
}

func (n *network) address(host int) netip.Addr {
	a := n.prefix().Addr().As4()
	a[3] = byte(networkHost + host)
	return netip.AddrFrom4(a)
}

func (n *network) link(host int) string { return fmt.Sprintf("fca%03dh%03d", n.number, host) }

// newNetwork takes a network that nothing on this machine uses. Two fleets that
// take the same number at the same moment both see the other's bridge, give up
// theirs and try again.
func newNetwork(ctx context.Context, owner int) (*network, error) {
	for range 100 {
		n := &network{number: rand.N(networks)}
		n.bridge = fmt.Sprintf("fca%03dp%d", n.number, owner)
		free, err := n.free()
		if err != nil {
			return nil, err
		}
		if !free {
			continue
		}
		if err := ip(ctx, "link add name "+n.bridge+" type bridge"); err != nil {
			return nil, fmt.Errorf("making a bridge: %w", err)
		}
		alone, err := n.alone()
		if err != nil {
			return nil, err
		}
		if !alone {
			if err := ip(ctx, "link delete dev "+n.bridge); err != nil {
				return nil, fmt.Errorf("giving up a bridge: %w", err)
			}
			continue
		}
		if err := ip(ctx, "address add "+n.prefix().String()+" dev "+n.bridge, "link set dev "+n.bridge+" up"); err != nil {
			return nil, fmt.Errorf("setting up a bridge: %w", err)
		}
		return n, nil
	}
	return nil, errors.New("finding a free network: all that were tried in 198.18.0.0/15 are in use")
}

// free says whether the network overlaps no address and no route but the
// default one.
func (n *network) free() (bool, error) {
	wanted := n.prefix().Masked()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return false, fmt.Errorf("listing addresses: %w", err)
	}
	for _, a := range addresses {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Masked().Overlaps(wanted) {
			return false, nil
		}
	}
	table, err := os.ReadFile("/proc/net/route")
	if err != nil {
		return false, fmt.Errorf("listing routes: %w", err)
	}
	for _, p := range parseRoutes(string(table)) {
		if p.Bits() > 0 && p.Overlaps(wanted) {
			return false, nil
		}
	}
	return true, nil
}

// parseRoutes reads /proc/net/route: destination and mask are the second and
// eighth fields, in hexadecimal, in the byte order of the machine.
func parseRoutes(table string) []netip.Prefix {
	var routes []netip.Prefix
	for row := range strings.Lines(table) {
		fields := strings.Fields(row)
		if len(fields) < 8 {
			continue
		}
		to, err1 := hex.DecodeString(fields[1])
		mask, err2 := hex.DecodeString(fields[7])
		if err1 != nil || err2 != nil || len(to) != 4 || len(mask) != 4 {
			continue
		}
		var address, bits [4]byte
		binary.NativeEndian.PutUint32(address[:], binary.BigEndian.Uint32(to))
		binary.NativeEndian.PutUint32(bits[:], binary.BigEndian.Uint32(mask))
		ones, _ := net.IPMask(bits[:]).Size()
		routes = append(routes, netip.PrefixFrom(netip.AddrFrom4(address), ones).Masked())
	}
	return routes
}

// alone says whether no other fleet's bridge has the number.
func (n *network) alone() (bool, error) {
	links, err := net.Interfaces()
	if err != nil {
		return false, fmt.Errorf("listing links: %w", err)
	}
	return !slices.ContainsFunc(links, func(l net.Interface) bool {
		m := bridgeName.FindStringSubmatch(l.Name)
		return m != nil && l.Name != n.bridge && m[1] == fmt.Sprintf("%03d", n.number)
	}), nil
}

// plug gives the machine with that process id its eth0. The hardware address
// stays the same over restarts, so nobody keeps an old one.
func (n *network) plug(ctx context.Context, host, pid int) error {
	hardware := fmt.Sprintf("02:fc:a0:%02x:%02x:%02x", n.number>>8, n.number&0xff, host)
	if err := ip(ctx,
		fmt.Sprintf("link add name %s type veth peer name eth0 address %s netns %d", n.link(host), hardware, pid),
		"link set dev "+n.link(host)+" master "+n.bridge+" up"); err != nil {
		return fmt.Errorf("connecting the host to its network: %w", err)
	}
	return nil
}

// unplug removes the host's link if it is still there: a machine's network ends
// some time after its last process.
func (n *network) unplug(ctx context.Context, host int) error {
	if _, err := net.InterfaceByName(n.link(host)); err != nil {
		return nil
	}
	err := ip(ctx, "link delete dev "+n.link(host))
	if _, gone := net.InterfaceByName(n.link(host)); gone != nil {
		return nil
	}
	return err
}

// linkOwners returns the process ids in the names of all fleets' bridges.
func linkOwners() []int {
	links, _ := net.Interfaces()
	var owners []int
	for _, l := range links {
		if m := bridgeName.FindStringSubmatch(l.Name); m != nil {
			if pid, err := strconv.Atoi(m[2]); err == nil {
				owners = append(owners, pid)
			}
		}
	}
	return owners
}

// removeLinks removes the bridges of that owner and the links to their hosts.
func removeLinks(owner int) {
	links, _ := net.Interfaces()
	for _, bridge := range links {
		m := bridgeName.FindStringSubmatch(bridge.Name)
		if m == nil || m[2] != strconv.Itoa(owner) {
			continue
		}
		var remove []string
		for _, l := range links {
			if strings.HasPrefix(l.Name, "fca"+m[1]+"h") {
				remove = append(remove, "link delete dev "+l.Name)
			}
		}
		// Links whose host is dead vanish by themselves at any moment.
		_ = ip(context.Background(), remove...)
		_ = ip(context.Background(), "link delete dev "+bridge.Name)
	}
}

// ip runs ip(8) on each of the rows, also after one of them has failed.
func ip(ctx context.Context, rows ...string) error {
	if len(rows) == 0 {
		return nil
	}
	c := exec.CommandContext(ctx, "ip", "-force", "-batch", "-")
	c.Env = []string{"PATH=" + systemPath}
	path, err := lookSystem("ip", "iproute2")
	if err != nil {
		return err
	}
	c.Path, c.Err = path, nil
	c.Stdin = strings.NewReader(lines(rows...))
	return run(c)
}
