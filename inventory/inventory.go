// Package inventory holds a fleet as Ansible describes one: hosts, groups, the
// variables that reach each host, and the selection of some of the hosts. What
// it computes is what Ansible computes from the same declarations; where the
// two differ, docs/inventory.md says so.
//
// It reads no file, runs no program and renders no template: package
// inventory/ansible reads sources into a Builder. It offers no implicit
// localhost, and it refuses Jinja expressions and vaulted values in the
// variables that fleetca itself uses instead of passing their text on.
package inventory

import (
	"fmt"
	"slices"
)

// Position is where something was said. A zero Line means that only the file
// is known.
type Position struct {
	File string
	Line int
}

// String gives "hosts.yaml:12", or only the file where the line isn't known.
func (p Position) String() string {
	switch {
	case p.File == "":
		return "inventory"
	case p.Line == 0:
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// Variable is the value of a variable and where it was said.
//
// A value is one of nil, bool, int64, *big.Int, float64, string, Date, Vault,
// Unsafe, []any and map[string]any. Nobody changes a value once it is built.
type Variable struct {
	Value    any
	Position Position
}

// Date is a YAML timestamp, in the ISO 8601 form that Ansible prints.
type Date string

// Vault is the ciphertext of a value that ansible-vault encrypted. It is
// carried along, never decrypted.
type Vault string

// Unsafe is a string that Ansible doesn't treat as a template (!unsafe).
type Unsafe string

// Host is one host of an inventory.
type Host struct {
	Name string
	// Groups are the groups that the host is in, directly or through their
	// children, sorted, without "all": Ansible's group_names.
	Groups []string
	// Vars are the variables in effect: groups by precedence, then the host's own.
	Vars map[string]Variable
	// Own are the variables said for this host alone, in sources and host_vars.
	Own map[string]Variable
}

// Position is where the variable's value in effect was said; zero if it wasn't.
func (h *Host) Position(variable string) Position { return h.Vars[variable].Position }

// Group is a group of hosts.
type Group struct {
	Name string
	// Hosts and Children are direct members, in the order they were added.
	Hosts    []*Host
	Children []*Group
	Parents  []*Group
	// Vars are the variables of this group alone, group_vars included.
	Vars map[string]Variable
	// Depth is the longest way from "all"; Priority is
	// ansible_group_priority, 1 unless said. Groups of greater depth win, then
	// of greater priority, then of later name.
	Depth    int
	Priority int

	vars     map[string]Variable // as the sources say, without group_vars
	hostSet  map[*Host]bool
	childSet map[*Group]bool
}

// AllHosts are the hosts of the group and of all groups below it, in Ansible's
// order: the group's own, then those of its children, level by level.
func (g *Group) AllHosts() []*Host {
	var hosts []*Host
	seenHosts := map[*Host]bool{}
	for _, below := range g.descendants() {
		for _, h := range below.Hosts {
			if !seenHosts[h] {
				seenHosts[h] = true
				hosts = append(hosts, h)
			}
		}
	}
	return hosts
}

// descendants are the group itself and all below it, breadth first.
func (g *Group) descendants() []*Group {
	ordered := []*Group{g}
	seen := map[*Group]bool{g: true}
	for i := 0; i < len(ordered); i++ {
		for _, child := range ordered[i].Children {
			if !seen[child] {
				seen[child] = true
				ordered = append(ordered, child)
			}
		}
	}
	return ordered
}

// ancestors are all groups above the group, in no particular order.
func (g *Group) ancestors() map[*Group]bool {
	seen := map[*Group]bool{}
	todo := slices.Clone(g.Parents)
	for len(todo) > 0 {
		parent := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if !seen[parent] {
			seen[parent] = true
			todo = append(todo, parent.Parents...)
		}
	}
	return seen
}

// Inventory is a built inventory. It never changes, so any number of
// goroutines may use it.
type Inventory struct {
	groups     []*Group
	groupNames map[string]*Group
	hosts      []*Host // in the order they were first named
	hostNames  map[string]*Host
	ordered    []*Host // in inventory order
	warnings   []string
}

// Hosts are all hosts in inventory order, which is the order of `ansible all
// --list-hosts`.
func (inv *Inventory) Hosts() []*Host { return slices.Clone(inv.ordered) }

// Host finds a host by its inventory name.
func (inv *Inventory) Host(name string) (*Host, bool) {
	h, ok := inv.hostNames[name]
	return h, ok
}

// Groups are all groups in the order they were first named; "all" and
// "ungrouped" come first.
func (inv *Inventory) Groups() []*Group { return slices.Clone(inv.groups) }

// Group finds a group by its name.
func (inv *Inventory) Group(name string) (*Group, bool) {
	g, ok := inv.groupNames[name]
	return g, ok
}

// Warnings are what Ansible too would only warn about, such as a key that is
// skipped. They hold untrusted text.
func (inv *Inventory) Warnings() []string { return slices.Clone(inv.warnings) }
