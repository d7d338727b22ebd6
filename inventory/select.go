package inventory

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ErrNoMatch is wrapped by the errors of Select about a pattern or a label
// that matches no host.
var ErrNoMatch = errors.New("no host matches")

// Selection says which hosts of an inventory are meant. The zero value means
// all of them.
type Selection struct {
	// Patterns are values of --limit, each one or more of Ansible's patterns;
	// several values are joined as if a comma stood between them.
	Patterns []string
	// Labels are of the form key=value, matched against fleetca_labels; a host
	// must have all of them.
	Labels []string
	// ReadFile reads the file of a pattern "@file", which holds one pattern a
	// line. Nil refuses such patterns.
	ReadFile func(name string) ([]byte, error)
}

// Select gives the selected hosts in inventory order, as `ansible all --limit`
// does. Unlike Ansible it refuses a pattern that names neither a host nor a
// group: a misspelt exclusion must not widen what is touched. That error, and
// the one for a selection that comes out empty, wraps ErrNoMatch.
func (inv *Inventory) Select(s Selection) ([]*Host, error) {
	hosts := inv.Hosts()
	if len(s.Patterns) > 0 {
		patterns, err := expandPatterns(s)
		if err != nil {
			return nil, err
		}
		chosen, err := inv.evaluate(patterns)
		if err != nil {
			return nil, err
		}
		hosts = slices.DeleteFunc(hosts, func(h *Host) bool { return !chosen[h] })
		if len(hosts) == 0 {
			return nil, fmt.Errorf("%w limit %q", ErrNoMatch, strings.Join(s.Patterns, ","))
		}
	}
	for _, label := range s.Labels {
		key, value, ok := strings.Cut(label, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("label %q is not of the form key=value", label)
		}
		var having []*Host
		for _, h := range hosts {
			r := reader{host: h}
			labels := r.labels("fleetca_labels")
			if r.err != nil {
				return nil, r.err
			}
			if got, ok := labels[key]; ok && got == value {
				having = append(having, h)
			}
		}
		if len(having) == 0 {
			return nil, fmt.Errorf("%w label %q", ErrNoMatch, strings.Join(s.Labels, ","))
		}
		hosts = having
	}
	if len(hosts) == 0 {
		return nil, fmt.Errorf("%w: the inventory is empty", ErrNoMatch)
	}
	return hosts, nil
}

// expandPatterns splits the values and reads limit files. The lines of a file
// are single patterns: they are not split.
func expandPatterns(s Selection) ([]string, error) {
	var patterns []string
	for _, value := range s.Patterns {
		for _, p := range SplitPatterns(value) {
			name, isFile := strings.CutPrefix(p, "@")
			if !isFile {
				patterns = append(patterns, p)
				continue
			}
			if s.ReadFile == nil {
				return nil, fmt.Errorf("limit file %q: limit files can't be read here", name)
			}
			data, err := s.ReadFile(name)
			if err != nil {
				return nil, fmt.Errorf("reading limit file: %w", err)
			}
			for line := range strings.SplitSeq(string(data), "\n") {
				if line = strings.TrimSpace(line); line != "" {
					patterns = append(patterns, line)
				}
			}
		}
	}
	if len(patterns) == 0 {
		return nil, fmt.Errorf("%w: the limit %q holds no pattern", ErrNoMatch, strings.Join(s.Patterns, ","))
	}
	return patterns, nil
}

// evaluate applies unions, then intersections, then exclusions.
func (inv *Inventory) evaluate(patterns []string) (map[*Host]bool, error) {
	chosen := map[*Host]bool{}
	for _, p := range orderPatterns(patterns) {
		if h, ok := inv.hostNames[p]; ok {
			chosen[h] = true
			continue
		}
		operator := p[0]
		if operator == '!' || operator == '&' {
			p = p[1:]
		}
		if p == "" {
			return nil, fmt.Errorf("the limit holds %q without a pattern", string(operator))
		}
		hosts, err := inv.match(p)
		if err != nil {
			return nil, err
		}
		matched := make(map[*Host]bool, len(hosts))
		for _, h := range hosts {
			matched[h] = true
		}
		switch operator {
		case '!':
			for h := range matched {
				delete(chosen, h)
			}
		case '&':
			for h := range chosen {
				if !matched[h] {
					delete(chosen, h)
				}
			}
		default:
			for h := range matched {
				chosen[h] = true
			}
		}
	}
	return chosen, nil
}

// match gives the hosts of one pattern in the order that a subscript counts.
func (inv *Inventory) match(pattern string) ([]*Host, error) {
	expression, subscript, err := splitSubscript(pattern)
	if err != nil {
		return nil, err
	}
	matches, err := matcher(expression)
	if err != nil {
		return nil, err
	}
	var hosts []*Host
	isGroup := false
	for _, g := range inv.groups {
		if matches(g.Name) {
			isGroup = true
			hosts = append(hosts, g.AllHosts()...)
		}
	}
	if !isGroup || expression[0] == '~' || strings.ContainsAny(expression, ".?*[") {
		for _, h := range inv.hosts {
			if matches(h.Name) {
				hosts = append(hosts, h)
			}
		}
	}
	if len(hosts) == 0 && !isGroup && pattern != "all" {
		return nil, fmt.Errorf("%w pattern %q", ErrNoMatch, pattern)
	}
	if subscript == nil || len(hosts) == 0 {
		return hosts, nil
	}
	return subscript.apply(hosts, pattern)
}

// subscript is the [n], [a:b] or [a:] behind a pattern, both ends included.
type subscript struct {
	start, end int
	isRange    bool
}

var subscriptForm = regexp.MustCompile(`^(.+)\[(?:(-?[0-9]+)|([0-9]+)([:-])([0-9]*))\]$`)

// splitSubscript doesn't look into regular expressions, where brackets mean
// something else.
func splitSubscript(pattern string) (expression string, s *subscript, err error) {
	m := subscriptForm.FindStringSubmatch(pattern)
	if pattern[0] == '~' || m == nil {
		return pattern, nil, nil
	}
	atoi := func(text string) int {
		n, convErr := strconv.ParseInt(text, 10, 32)
		if convErr != nil && err == nil {
			err = fmt.Errorf("pattern %q: the index %q is too large", pattern, text)
		}
		return int(n)
	}
	if m[2] != "" {
		return m[1], &subscript{start: atoi(m[2])}, err
	}
	s = &subscript{start: atoi(m[3]), end: -1, isRange: true}
	if m[5] != "" {
		s.end = atoi(m[5])
	}
	return m[1], s, err
}

// apply counts as Ansible does, duplicates included: a host that a glob finds
// by its group and by its name counts twice.
func (s *subscript) apply(hosts []*Host, pattern string) ([]*Host, error) {
	if s.isRange && s.end != 0 { // Ansible reads [n:0] as [n]
		end := s.end + 1
		if s.end < 0 || end > len(hosts) {
			end = len(hosts)
		}
		return hosts[min(s.start, end):end], nil
	}
	i := s.start
	if i < 0 {
		i += len(hosts)
	}
	if i < 0 || i >= len(hosts) {
		return nil, fmt.Errorf("%w pattern %q: it has %d hosts before the index", ErrNoMatch, pattern, len(hosts))
	}
	return hosts[i : i+1], nil
}
