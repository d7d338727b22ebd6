package ansible

import "github.com/fleetca/fleetca/inventory"

// isListing tells JSON as programs and `ansible-inventory --list` print it
// from a YAML-shaped inventory written in JSON: it has _meta, or lists where
// the other has mappings.
func isListing(top *mapping) bool {
	if _, ok := top.get("_meta"); ok {
		return true
	}
	for _, e := range top.entries {
		switch v := e.value.value.(type) {
		case []node:
			return true
		case *mapping:
			for _, key := range []string{"hosts", "children"} {
				if section, ok := v.get(key); ok {
					if _, isList := section.value.value.([]node); isList {
						return true
					}
				}
			}
		}
	}
	return false
}

// listing reads what a program printed for --list. Without _meta.hostvars it
// reports the hosts whose variables have to be asked for one by one.
func (s *source) listing(top *mapping) (ask []string, err error) {
	var meta *mapping
	var hosts []entry
	for _, e := range top.entries {
		if e.name != "_meta" {
			found, err := s.listedGroup(e)
			if err != nil {
				return nil, err
			}
			hosts = append(hosts, found...)
			continue
		}
		body, ok := e.value.value.(*mapping)
		if !ok {
			return nil, s.errorf(e.line, "_meta must be a mapping, not a %s", kindOf(e.value.value))
		}
		if vars, ok := body.get("hostvars"); ok {
			if meta, ok = vars.value.value.(*mapping); !ok {
				return nil, s.errorf(vars.line, "hostvars must be a mapping, not a %s", kindOf(vars.value.value))
			}
		}
	}
	done := map[string]bool{}
	for _, h := range hosts {
		if done[h.name] {
			continue
		}
		done[h.name] = true
		if meta == nil {
			ask = append(ask, h.name)
			continue
		}
		vars, ok := meta.get(h.name)
		if !ok {
			continue
		}
		m, ok := vars.value.value.(*mapping)
		if !ok {
			return nil, s.errorf(vars.line, "host %q: its variables must be a mapping, not a %s", h.name, kindOf(vars.value.value))
		}
		if err := s.setAll(h.name, m); err != nil {
			return nil, err
		}
	}
	return ask, nil
}

// listedGroup reads one group: a list of hosts, or hosts, vars and children;
// a mapping with none of these is a host with variables.
func (s *source) listedGroup(e entry) (hosts []entry, err error) {
	if err := s.builder.AddGroup(e.name); err != nil {
		return nil, s.errorf(e.line, "%w", err)
	}
	body, isMapping := e.value.value.(*mapping)
	if !isMapping {
		return s.listedHosts(e.name, entry{line: e.line, value: e.value})
	}
	members, hasHosts := body.get("hosts")
	vars, hasVars := body.get("vars")
	children, hasChildren := body.get("children")
	if !hasHosts && !hasVars && !hasChildren {
		self := node{line: e.line, value: e.name}
		members, hasHosts = entry{line: e.line, value: node{line: e.line, value: []node{self}}}, true
		vars, hasVars = entry{line: e.line, value: e.value}, true
	}
	if hasHosts {
		if hosts, err = s.listedHosts(e.name, members); err != nil {
			return nil, err
		}
	}
	if hasVars {
		m, ok := vars.value.value.(*mapping)
		if !ok {
			return nil, s.errorf(vars.line, "group %q: vars must be a mapping, not a %s", e.name, kindOf(vars.value.value))
		}
		if err := s.setAll(e.name, m); err != nil {
			return nil, err
		}
	}
	if !hasChildren {
		return hosts, nil
	}
	names, ok := children.value.value.([]node)
	if m, isMapping := children.value.value.(*mapping); isMapping {
		ok = true
		for _, c := range m.entries {
			names = append(names, node{line: c.line, value: c.key})
		}
	}
	if !ok {
		return nil, s.errorf(children.line, "group %q: children must be a list, not a %s", e.name, kindOf(children.value.value))
	}
	for _, n := range names {
		name, ok := n.value.(string)
		if !ok {
			return nil, s.errorf(n.line, "group %q: the name of a child must be a string, not a %s", e.name, kindOf(n.value))
		}
		if err := s.builder.AddGroup(name); err != nil {
			return nil, s.errorf(n.line, "group %q: %w", e.name, err)
		}
		if err := s.builder.AddChild(e.name, name); err != nil {
			return nil, s.errorf(n.line, "%w", err)
		}
	}
	return hosts, nil
}

func (s *source) listedHosts(group string, members entry) ([]entry, error) {
	list, ok := members.value.value.([]node)
	if !ok {
		return nil, s.errorf(members.line, "group %q: its hosts must be a list, not a %s", group, kindOf(members.value.value))
	}
	var hosts []entry
	for _, n := range list {
		name, ok := n.value.(string)
		if !ok {
			return nil, s.errorf(n.line, "group %q: the name of a host must be a string, not a %s", group, kindOf(n.value))
		}
		if err := s.builder.AddHost(name, group, 0, inventory.Position{File: s.file, Line: n.line}); err != nil {
			return nil, s.errorf(n.line, "%w", err)
		}
		hosts = append(hosts, entry{name: name, line: n.line})
	}
	return hosts, nil
}
