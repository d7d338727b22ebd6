package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/inventory"
	"github.com/fleetca/fleetca/jump/route"
	"github.com/fleetca/fleetca/templates"
)

// fleetNames are the names that lead to the chosen hosts.
type fleetNames struct {
	jump   templates.JumpAddress
	names  []route.Name
	others []route.Name // of hosts that aren't chosen
}

// newFleetNames finds them. What can't be reached through the jump host is told
// and left out; the jump host itself is left out silently, since it must never
// be reached through itself.
func newFleetNames(a *program.App, jump templates.JumpAddress, all, chosen []*inventory.Host) (*fleetNames, error) {
	found, err := route.Names(all)
	if err != nil {
		return nil, program.WithCode(program.ExitUsage, err)
	}
	f := &fleetNames{jump: jump}
	named := map[*inventory.Host]bool{}
	shared := map[string]bool{}
	for _, n := range found {
		switch {
		case n.Name == jump.Address || n.Name == jump.Alias:
			named[n.Host] = true
		case !slices.Contains(chosen, n.Host):
			f.others = append(f.others, n)
		case len(n.Shared) > 0:
			if !shared[n.Name] {
				warn(a, "name %q left out: several hosts share it (%s)", n.Name, terminal.FoldNames(n.Shared))
			}
			shared[n.Name] = true
		case !templates.IsClientName(n.Name):
			warn(a, "name %q of host %q left out: ssh could take it for something else", n.Name, n.Host.Name)
		default:
			named[n.Host] = true
			f.names = append(f.names, n)
		}
	}
	var unnamed []string
	for _, h := range chosen {
		if !named[h] {
			unnamed = append(unnamed, h.Name)
		}
	}
	if len(unnamed) > 0 {
		warn(a, "%s left out: the jump host leads to names, not to addresses; fleetca_principals gives names", terminal.FoldNames(unnamed))
	}
	if len(f.names) == 0 {
		return nil, program.WithCode(program.ExitUsage, errors.New("no host is left that has a name to reach it by"))
	}
	return f, nil
}

// blocks gathers hosts with the same settings: names one by one before domains,
// so that what differs within a domain comes first.
func (f *fleetNames) blocks(domains []string) ([]templates.SSHBlock, error) {
	folded, wild, err := f.domains(domains)
	if err != nil {
		return nil, err
	}
	var ports []int // in the order in which they are first needed
	patterns := map[int][]string{}
	for _, n := range f.names {
		if folded[n.Name] {
			continue
		}
		if !slices.Contains(ports, n.Port) {
			ports = append(ports, n.Port)
		}
		patterns[n.Port] = append(patterns[n.Port], n.Name)
		// ssh compares with what was typed, letter by letter.
		if written := n.Host.Name; written != n.Name && strings.EqualFold(written, n.Name) && templates.IsClientName(written) {
			patterns[n.Port] = append(patterns[n.Port], written)
		}
	}
	var blocks []templates.SSHBlock
	for _, port := range ports {
		for _, chunk := range templates.Chunks(patterns[port], templates.MaxPatterns) {
			blocks = append(blocks, templates.SSHBlock{Patterns: chunk, Port: port})
		}
	}
	return append(blocks, wild...), nil
}

// domains gives a block for each domain, and the names that it makes
// unnecessary: those with the port that most hosts of the domain have.
func (f *fleetNames) domains(domains []string) (folded map[string]bool, wild []templates.SSHBlock, err error) {
	suffixes := make([]string, len(domains))
	for i, d := range domains {
		suffix, ok := strings.CutPrefix(strings.ToLower(d), "*")
		if !ok || !strings.HasPrefix(suffix, ".") || !templates.IsClientName(suffix[1:]) {
			return nil, nil, terminal.Hint(fmt.Errorf("--domain %q is not of the form *.DOMAIN", d), "--domain '*.example.com'")
		}
		suffixes[i] = suffix
	}
	// The narrower domain comes first.
	slices.SortFunc(suffixes, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) })
	suffixes = slices.Compact(suffixes)
	for _, n := range f.others {
		if slices.ContainsFunc(suffixes, func(s string) bool { return strings.HasSuffix(n.Name, s) }) {
			return nil, nil, fmt.Errorf("--domain would take in %q too, which --limit or --label leaves out", n.Name)
		}
	}
	members := map[string][]route.Name{}
	for _, n := range f.names {
		if i := slices.IndexFunc(suffixes, func(s string) bool { return strings.HasSuffix(n.Name, s) }); i >= 0 {
			members[suffixes[i]] = append(members[suffixes[i]], n)
		}
	}
	folded = map[string]bool{}
	for _, suffix := range suffixes {
		port := usualPort(members[suffix])
		for _, n := range members[suffix] {
			folded[n.Name] = n.Port == port
		}
		block := templates.SSHBlock{Patterns: []string{"*" + suffix}, Port: port}
		for _, own := range []string{f.jump.Address, f.jump.Alias} {
			if strings.HasSuffix(own, suffix) {
				block.Patterns = append(block.Patterns, "!"+own)
			}
		}
		wild = append(wild, block)
	}
	return folded, wild, nil
}

// usualPort is the port that most have, of equals the lowest.
func usualPort(names []route.Name) int {
	count := map[int]int{}
	for _, n := range names {
		count[n.Port]++
	}
	best := 22
	for _, port := range slices.Sorted(maps.Keys(count)) {
		if count[port] > count[best] {
			best = port
		}
	}
	return best
}
