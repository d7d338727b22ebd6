package config

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fleetca/fleetca/inventory"
)

// inventory reads the sources. Every host in them has to be of use: people
// would find out about one that isn't only when they need it.
func (r *reading) inventory(ctx context.Context) {
	v := r.top["inventory"]
	if !v.given() {
		r.missing("inventory", "the sources that name the hosts, as Ansible reads them")
		return
	}
	var sources []string
	for _, item := range v.items() {
		s, ok := item.text()
		if !ok {
			continue
		}
		path := r.resolve(s)
		if _, err := os.Lstat(path); err != nil && strings.Contains(s, ",") {
			sources = append(sources, s) // a list of hosts
			continue
		}
		sources = append(sources, path)
		r.watchInventory(path)
	}
	if len(sources) == 0 {
		if len(v.items()) == 0 {
			v.fail("the list is empty")
		}
		return
	}
	inv, err := r.load(ctx, sources...)
	if err != nil {
		v.fail("%w", err)
		return
	}
	for _, w := range inv.Warnings() {
		v.warn("%s", w)
	}
	if len(inv.Hosts()) == 0 {
		v.warn("there is no host in it")
	}
	r.checkHosts(v, inv)
	r.cfg.Inventory = inv
}

// watchInventory adds a source and the variables that Ansible finds beside it,
// with the folders within.
func (r *reading) watchInventory(path string) {
	beside := filepath.Dir(path)
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		beside = path
	}
	const most = 1000
	for _, root := range []string{path, filepath.Join(beside, "group_vars"), filepath.Join(beside, "host_vars")} {
		r.cfg.files = append(r.cfg.files, root)
		_ = filepath.WalkDir(root, func(folder string, e fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return fs.SkipDir // told when it is read
			case len(r.cfg.files) > most:
				return fs.SkipAll
			case e.IsDir():
				r.cfg.files = append(r.cfg.files, folder)
			}
			return nil
		})
	}
}

func (r *reading) checkHosts(v value, inv *inventory.Inventory) {
	const most = 10
	bad := 0
	for _, h := range inv.Hosts() {
		if _, err := h.Settings(); err != nil {
			if bad++; bad <= most {
				v.fail("host %q can't be used: %w", h.Name, err)
			}
		}
	}
	if bad > most {
		v.fail("%d more hosts can't be used", bad-most)
	}
}

// hosts reads who has to show a certificate, and what the others are checked
// against.
func (r *reading) hosts() {
	required := true
	r.top["require_host_certificate"].boolean(&required)
	r.cfg.RequireHostCertificate = always
	for _, item := range given(r.top["known_hosts"]) {
		if path, ok := r.path(item); ok {
			r.cfg.KnownHosts = append(r.cfg.KnownHosts, path)
			if _, err := r.readFile(path, 64<<20); err != nil {
				item.fail("%w", err)
			}
		}
	}
	special := r.special()
	if r.cfg.Inventory == nil {
		return
	}
	needed, plain := required && len(r.cfg.Inventory.Hosts()) == 0, false
	requires := map[*inventory.Host]bool{}
	for _, h := range r.cfg.Inventory.Hosts() {
		must, said := special[h]
		if !said {
			must = required
		}
		requires[h] = must
		needed, plain = needed || must, plain || !must
	}
	r.cfg.RequireHostCertificate = func(h *inventory.Host) bool {
		must, known := requires[h]
		return must || !known
	}
	v := r.top["host_cas"]
	switch {
	case needed && !v.given():
		r.missing("host_cas", "the files with the public keys of the host CA, unless no host has to show a certificate (require_host_certificate)")
	case needed && len(v.items()) == 0:
		v.fail("the list is empty, and hosts have to show certificates (require_host_certificate)")
	}
	if plain && len(r.cfg.KnownHosts) == 0 {
		r.warn(0, "known_hosts", "is missing: hosts that needn't show a certificate can't be checked, and so not be reached")
	}
}

func given(v value) []value {
	if !v.given() {
		return nil
	}
	return v.items()
}

// special reads the settings of single hosts. Two that disagree about a host
// are a mistake: whichever won, somebody would be wrong.
func (r *reading) special() map[*inventory.Host]bool {
	said := map[*inventory.Host]bool{}
	v := r.top["hosts"]
	if !v.given() {
		return said
	}
	for _, item := range v.list() {
		keys := item.section("hosts", "labels", "require_host_certificate")
		must := true
		if !keys["require_host_certificate"].given() {
			item.fail("it says nothing about these hosts: require_host_certificate is missing")
		}
		keys["require_host_certificate"].boolean(&must)
		if !keys["hosts"].given() && !keys["labels"].given() {
			item.fail("it says neither hosts nor labels")
			continue
		}
		for _, h := range r.choose(keys["hosts"], keys["labels"], false) {
			if before, ok := said[h]; ok && before != must {
				item.fail("it disagrees with an entry above about host %q", h.Name)
				break
			}
			said[h] = must
		}
	}
	return said
}

// choose gives the hosts that patterns and labels select. What selects nothing
// is a mistake with strict, and where it would widen the choice; otherwise a
// warning.
func (r *reading) choose(patterns, labels value, strict bool) []*inventory.Host {
	sel := inventory.Selection{Labels: r.labels(labels)}
	for _, item := range given(patterns) {
		if s, ok := item.text(); ok {
			sel.Patterns = append(sel.Patterns, r.known(item, s, strict)...)
		}
	}
	inv := r.cfg.Inventory
	if inv == nil || len(inv.Hosts()) == 0 {
		return nil // told already
	}
	at := patterns
	if !at.given() {
		at = labels
	}
	if patterns.given() && len(sel.Patterns) == 0 {
		if len(patterns.items()) == 0 {
			patterns.fail("the list is empty")
		}
		return nil
	}
	hosts, err := inv.Select(sel)
	switch {
	case errors.Is(err, inventory.ErrNoMatch) && !strict || r.onlyEmptyGroups(sel):
		at.warn("%w", err)
	case err != nil:
		at.fail("%w", err)
	}
	return hosts
}

// known gives those of the patterns in text that name something.
func (r *reading) known(v value, text string, strict bool) []string {
	var known []string
	words := inventory.SplitPatterns(text)
	if len(words) == 0 {
		v.fail("%q holds no pattern", text)
	}
	for _, word := range words {
		bare := strings.TrimLeft(word, "!&")
		if bare == "" || strings.HasPrefix(bare, "@") {
			v.fail("%q is not a pattern of hosts", word)
			continue
		}
		if r.cfg.Inventory == nil || len(r.cfg.Inventory.Hosts()) == 0 {
			continue
		}
		if _, isGroup := r.cfg.Inventory.Group(bare); isGroup {
			known = append(known, word)
			continue
		}
		_, err := r.cfg.Inventory.Select(inventory.Selection{Patterns: []string{bare}})
		switch {
		case err == nil:
			known = append(known, word)
		case errors.Is(err, inventory.ErrNoMatch) && !strict && word == bare:
			v.warn("%w", err)
		default:
			// A misspelt exclusion would let more hosts in.
			v.fail("%w", err)
		}
	}
	return known
}

// onlyEmptyGroups tells whether the selection names groups that exist and have
// no hosts for now, as groups of an inventory that a program prints may.
func (r *reading) onlyEmptyGroups(sel inventory.Selection) bool {
	if len(sel.Patterns) == 0 || len(sel.Labels) > 0 {
		return false
	}
	return !slices.ContainsFunc(sel.Patterns, func(p string) bool {
		g, ok := r.cfg.Inventory.Group(p)
		return !ok || len(g.AllHosts()) > 0
	})
}

// labels reads a mapping of labels into the form that Select takes.
func (r *reading) labels(v value) []string {
	if !v.given() {
		return nil
	}
	var labels []string
	n := v.target()
	if kind := kindName(n); kind != "a mapping" || len(n.Content) == 0 {
		v.fail("must be a mapping such as {env: prod}, not %s", kind)
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := value{doc: v.doc, node: n.Content[i], field: v.field}
		name, ok := key.text()
		if !ok {
			continue
		}
		if strings.ContainsAny(name, "=, ") {
			key.fail("%q can't be the key of a label", name)
			continue
		}
		item := value{doc: v.doc, node: n.Content[i+1], field: v.field + "." + name}
		if text, ok := item.text(); ok {
			labels = append(labels, name+"="+text)
		}
	}
	return labels
}
