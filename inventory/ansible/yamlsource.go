package ansible

import (
	"fmt"
	"strings"

	"github.com/fleetca/fleetca/inventory"
)

// source fills a builder from one file.
type source struct {
	file    string
	builder *inventory.Builder
}

func (s *source) at(line int) inventory.Position {
	return inventory.Position{File: s.file, Line: line}
}

func (s *source) errorf(line int, format string, args ...any) error {
	return fmt.Errorf("%s: %w", s.at(line), fmt.Errorf(format, args...))
}

// yamlInventory reads a mapping of groups: Ansible's YAML inventory.
func (s *source) yamlInventory(top *mapping) error {
	if plugin, ok := top.get("plugin"); ok && !falsy(plugin.value.value) {
		return s.errorf(plugin.line, "this configures Ansible's inventory plugin %q, which only Ansible can run; "+
			"use an executable that runs `ansible-inventory -i FILE --list`", fmt.Sprint(plugin.value.plain()))
	}
	for _, e := range top.entries {
		if _, err := s.yamlGroup(e, 0); err != nil {
			return err
		}
	}
	return nil
}

// yamlGroup adds a group with all that is below it. It reports false for what
// is no group, which Ansible passes over with a warning.
func (s *source) yamlGroup(group entry, depth int) (added bool, err error) {
	name := group.name
	if depth > maxDepth {
		return false, s.errorf(group.line, "groups nested deeper than %d levels", maxDepth)
	}
	body, isMapping := group.value.value.(*mapping)
	if !isMapping && group.value.value != nil {
		s.builder.Warn(s.at(group.line), "%q is skipped: a group must be a mapping, not a %s", name, kindOf(group.value.value))
		return false, nil
	}
	if _, ok := group.key.(string); !ok {
		return false, s.errorf(group.line, "the group name %s must be a string; put it in quotes", name)
	}
	if err := s.builder.AddGroup(name); err != nil {
		return false, s.errorf(group.line, "%w", err)
	}
	if !isMapping {
		return true, nil
	}
	sections, err := s.sections(name, body)
	if err != nil {
		return false, err
	}
	for i, e := range body.entries {
		section := sections[i]
		if section == nil {
			continue
		}
		switch e.name {
		case "vars":
			err = s.setAll(name, section)
		case "children":
			err = s.children(name, section, depth)
		case "hosts":
			err = s.yamlHosts(name, section)
		default:
			s.builder.Warn(s.at(e.line), "group %q: the key %q is skipped; there are hosts, children and vars", name, e.name)
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// sections checks the entries of a group before any is used, as Ansible does.
// A string stands for a mapping with this one key. What is skipped is nil.
func (s *source) sections(group string, body *mapping) ([]*mapping, error) {
	sections := make([]*mapping, len(body.entries))
	for i, e := range body.entries {
		known := e.name == "vars" || e.name == "children" || e.name == "hosts"
		switch v := e.value.value.(type) {
		case *mapping:
			sections[i] = v
		case nil:
		case string:
			if known {
				sections[i] = &mapping{}
				if _, err := sections[i].set(v, e.value.line, node{line: e.value.line}); err != nil {
					return nil, s.errorf(e.line, "%w", err)
				}
				continue
			}
			s.builder.Warn(s.at(e.line), "group %q: the key %q is skipped; it is no mapping", group, e.name)
		default:
			if known {
				return nil, s.errorf(e.line, "group %q: %s must be a mapping, not a %s; %s", group, e.name, kindOf(v), mappingAdvice)
			}
			s.builder.Warn(s.at(e.line), "group %q: the key %q is skipped; it is no mapping", group, e.name)
		}
	}
	return sections, nil
}

const mappingAdvice = `write "name:" on lines of their own, without dashes`

func (s *source) setAll(entity string, vars *mapping) error {
	for _, e := range vars.entries {
		if err := s.builder.Set(entity, e.name, inventory.Variable{Value: e.value.plain(), Position: s.at(e.line)}); err != nil {
			return s.errorf(e.line, "%w", err)
		}
	}
	return nil
}

func (s *source) children(group string, section *mapping, depth int) error {
	for _, child := range section.entries {
		if _, err := s.yamlGroup(child, depth+1); err != nil {
			return err
		}
		if err := s.builder.AddChild(group, child.name); err != nil {
			return s.errorf(child.line, "%w", err)
		}
	}
	return nil
}

func (s *source) yamlHosts(group string, section *mapping) error {
	for _, e := range section.entries {
		pattern, ok := e.key.(string)
		if !ok {
			return s.errorf(e.line, "group %q: the host name %s must be a string; put it in quotes", group, e.name)
		}
		vars, ok := e.value.value.(*mapping)
		if !ok {
			if !falsy(e.value.value) {
				return s.errorf(e.line, "host %q: its variables must be a mapping, not a %s", pattern, kindOf(e.value.value))
			}
			vars = &mapping{}
		}
		names, port, err := expandHosts(pattern)
		if err != nil {
			return s.errorf(e.line, "group %q: %w", group, err)
		}
		for _, name := range names {
			if err := s.builder.AddHost(name, group, port, s.at(e.line)); err != nil {
				return s.errorf(e.line, "group %q: %w", group, err)
			}
			if err := s.setAll(name, vars); err != nil {
				return err
			}
		}
	}
	return nil
}

// expandHosts reads "name", "name:port" and ranges. What is no address is a
// name as it is.
func expandHosts(pattern string) (names []string, port int, err error) {
	host, port, ok := inventory.ParseAddress(pattern)
	if !ok {
		host, port = pattern, 0
	}
	if !strings.Contains(host, "[") {
		return []string{host}, port, nil
	}
	names, err = inventory.Expand(host)
	return names, port, err
}
