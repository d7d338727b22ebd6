package ansible

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/fleetca/fleetca/inventory"
)

var (
	iniSection   = regexp.MustCompile(`^\[([^:\]\s]+)(?::([\p{L}\p{N}_]+))?\]\s*(?:#.*)?$`)
	iniGroupName = regexp.MustCompile(`^([^:\]\s]+)\s*(?:#.*)?$`)
)

// pending is a group that was named before it was declared.
type pending struct {
	line    int
	section string // "vars" or "children"
	parents []string
}

// iniReader reads one INI inventory.
type iniReader struct {
	*source
	line    int
	group   string
	section string
	pending map[string]*pending
	order   []string // of pending
}

// ini reads Ansible's INI format.
func (s *source) ini(data []byte) error {
	r := &iniReader{source: s, group: "ungrouped", section: "hosts", pending: map[string]*pending{}}
	lines, err := iniLines(data)
	if err != nil {
		return fmt.Errorf("%s: %w", s.file, err)
	}
	for i, line := range lines {
		r.line = i + 1
		line = strings.TrimFunc(line, isPythonSpace)
		if line == "" || line[0] == ';' || line[0] == '#' {
			continue
		}
		if err := r.read(line); err != nil {
			return fmt.Errorf("%s: %w", s.at(r.line), err)
		}
	}
	for _, name := range r.order {
		switch p := r.pending[name]; {
		case p == nil:
		case p.section == "vars":
			return s.errorf(p.line, "[%s:vars] is for a group that is not declared", name)
		default:
			return s.errorf(p.line, "[%s:children] names the group %q, which is not declared", p.parents[len(p.parents)-1], name)
		}
	}
	return nil
}

// iniLines splits where Python's splitlines does. Only comment lines may hold
// bytes that are not UTF-8.
func iniLines(data []byte) ([]string, error) {
	if !utf8.Valid(data) {
		var kept [][]byte
		for i, line := range bytes.Split(data, []byte{'\n'}) {
			if len(line) > 0 && (line[0] == ';' || line[0] == '#') {
				line = nil
			}
			if !utf8.Valid(line) {
				return nil, fmt.Errorf("line %d: not UTF-8", i+1)
			}
			kept = append(kept, line)
		}
		data = bytes.Join(kept, []byte{'\n'})
	}
	text := strings.ReplaceAll(string(data), "\r\n", "\n")
	text = strings.Map(func(c rune) rune {
		switch c {
		case '\r', '\v', '\f', 0x1c, 0x1d, 0x1e, 0x85, 0x2028, 0x2029:
			return '\n'
		}
		return c
	}, text)
	return strings.Split(text, "\n"), nil
}

func isPythonSpace(c rune) bool {
	return unicode.IsSpace(c) || c >= 0x1c && c <= 0x1f
}

func (r *iniReader) read(line string) error {
	if m := iniSection.FindStringSubmatch(line); m != nil {
		return r.startSection(m[1], m[2])
	}
	if strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]") {
		return fmt.Errorf("%q is not a section; it must be [group], [group:vars] or [group:children], without spaces", line)
	}
	switch r.section {
	case "hosts":
		return r.hosts(line)
	case "vars":
		name, text, ok := strings.Cut(line, "=")
		if !ok {
			return fmt.Errorf("[%s:vars] holds %q, which is not of the form key=value", r.group, line)
		}
		value, err := parseValue(strings.TrimFunc(text, isPythonSpace))
		if err != nil {
			return fmt.Errorf("variable %q: %w", strings.TrimSpace(name), err)
		}
		return r.builder.Set(r.group, strings.TrimFunc(name, isPythonSpace), r.variable(value))
	default:
		return r.child(line)
	}
}

func (r *iniReader) variable(value any) inventory.Variable {
	return inventory.Variable{Value: value, Position: r.at(r.line)}
}

func (r *iniReader) startSection(group, section string) error {
	if section == "" {
		section = "hosts"
	}
	if section != "hosts" && section != "children" && section != "vars" {
		return fmt.Errorf("section [%s:%s] is neither hosts, children nor vars", group, section)
	}
	r.group, r.section = group, section
	if !r.builder.HasGroup(group) {
		if section == "vars" && r.pending[group] == nil {
			r.await(group, &pending{line: r.line, section: "vars"})
		}
		if err := r.builder.AddGroup(group); err != nil {
			return err
		}
	}
	if p := r.pending[group]; p != nil && section != "vars" {
		if p.section == "children" {
			return r.settle(group)
		}
		delete(r.pending, group)
	}
	return nil
}

func (r *iniReader) await(group string, p *pending) {
	r.pending[group] = p
	r.order = append(r.order, group)
}

// settle makes a group that is declared now a child of those that named it.
func (r *iniReader) settle(group string) error {
	p := r.pending[group]
	delete(r.pending, group)
	for _, parent := range p.parents {
		if err := r.builder.AddChild(parent, group); err != nil {
			return err
		}
		if above := r.pending[parent]; above != nil && above.section == "children" {
			if err := r.settle(parent); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *iniReader) child(line string) error {
	m := iniGroupName.FindStringSubmatch(line)
	if m == nil {
		return fmt.Errorf("[%s:children] holds %q, which is not the name of a group", r.group, line)
	}
	if r.builder.HasGroup(m[1]) {
		return r.builder.AddChild(r.group, m[1])
	}
	p := r.pending[m[1]]
	if p == nil {
		p = &pending{line: r.line, section: "children"}
		r.await(m[1], p)
	}
	p.parents = append(p.parents, r.group)
	return nil
}

// hosts reads "name[range]:port key=value …".
func (r *iniReader) hosts(line string) error {
	words, err := splitLine(line)
	if err != nil {
		return fmt.Errorf("host line %q: %w", line, err)
	}
	if len(words) == 0 {
		return fmt.Errorf("host line %q names no host", line)
	}
	names, port, err := expandHosts(words[0])
	if err != nil {
		return err
	}
	if strings.HasSuffix(strings.TrimSpace(words[0]), ":") && port == 0 {
		return fmt.Errorf("the host name %q ends in a colon, which is for a port; is this a YAML file?", words[0])
	}
	if strings.TrimSpace(words[0]) == "---" {
		return fmt.Errorf("%q is no host name; is this a YAML file?", words[0])
	}
	type assignment struct {
		name  string
		value any
	}
	var vars []assignment
	for _, word := range words[1:] {
		name, text, ok := strings.Cut(word, "=")
		if !ok {
			return fmt.Errorf("host %q: %q is not of the form key=value", words[0], word)
		}
		value, err := parseValue(text)
		if err != nil {
			return fmt.Errorf("host %q: variable %q: %w", words[0], name, err)
		}
		vars = append(vars, assignment{name, value})
	}
	for _, name := range names {
		if err := r.builder.AddHost(name, r.group, port, r.at(r.line)); err != nil {
			return err
		}
		for _, v := range vars {
			if err := r.builder.Set(name, v.name, r.variable(v.value)); err != nil {
				return err
			}
		}
	}
	return nil
}
