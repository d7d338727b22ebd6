package ansible

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"

	"github.com/fleetca/fleetca/inventory"
)

// Limits of what one source may hold.
const (
	maxBytes = 64 << 20
	maxNodes = 2 << 20
	maxDepth = 64
)

// node is a value as YAML or JSON gives it, with the line it stands on. The
// value is a scalar (see inventory.Variable), []node or *mapping.
type node struct {
	line  int
	value any
}

// mapping keeps the order of its keys, which decides the order of groups and
// hosts.
type mapping struct {
	entries []entry
	index   map[string]int
}

type entry struct {
	key   any    // a scalar
	name  string // the key as JSON would write it
	line  int    // of the key
	value node
}

// set adds a key, or gives a key that is there a new value in its old place,
// as a Python dict does. It reports whether the key was there.
func (m *mapping) set(key any, line int, value node) (duplicate bool, err error) {
	name, err := keyName(key)
	if err != nil {
		return false, err
	}
	if m.index == nil {
		m.index = map[string]int{}
	}
	id := keyID(key, name)
	if i, ok := m.index[id]; ok {
		m.entries[i].line, m.entries[i].value = line, value
		return true, nil
	}
	m.index[id] = len(m.entries)
	m.entries = append(m.entries, entry{key: key, name: name, line: line, value: value})
	return false, nil
}

// get finds the value of a key that is a string.
func (m *mapping) get(name string) (entry, bool) {
	i, ok := m.index[keyID(name, name)]
	if !ok {
		return entry{}, false
	}
	return m.entries[i], true
}

// keyID is equal for keys that are equal in Python, where True is 1 and 1 is 1.0.
func keyID(key any, name string) string {
	switch k := key.(type) {
	case bool:
		if k {
			return "number 1"
		}
		return "number 0"
	case int64, *big.Int, float64:
		return "number " + strings.TrimSuffix(name, ".0")
	case string, inventory.Unsafe:
		return "text " + name
	}
	return fmt.Sprintf("%T %s", key, name)
}

// keyName writes a key as Python's json.dumps does.
func keyName(key any) (string, error) {
	switch k := key.(type) {
	case string:
		return k, nil
	case inventory.Unsafe:
		return string(k), nil
	case nil:
		return "null", nil
	case bool:
		return strconv.FormatBool(k), nil
	case int64:
		return strconv.FormatInt(k, 10), nil
	case *big.Int:
		return k.String(), nil
	case float64:
		return floatText(k), nil
	case inventory.Date:
		return string(k), nil
	}
	return "", fmt.Errorf("a %s can't be a key", kindOf(key))
}

// floatText writes a float as Python's repr does.
func floatText(f float64) string {
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	text := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return text
}

// kindOf names the kind of a value for error messages.
func kindOf(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case bool:
		return "truth value"
	case int64, *big.Int, float64:
		return "number"
	case string, inventory.Unsafe:
		return "string"
	case inventory.Date:
		return "date"
	case inventory.Vault:
		return "vaulted value"
	case []node, []any:
		return "list"
	case *mapping, map[string]any:
		return "mapping"
	}
	return fmt.Sprintf("%T", value)
}

// falsy is what Python takes for false.
func falsy(value any) bool {
	switch v := value.(type) {
	case nil:
		return true
	case bool:
		return !v
	case int64:
		return v == 0
	case *big.Int:
		return v.Sign() == 0
	case float64:
		return v == 0
	case string:
		return v == ""
	case inventory.Unsafe:
		return v == ""
	case []node:
		return len(v) == 0
	case *mapping:
		return len(v.entries) == 0
	}
	return false
}

// plain is the value without lines, as a Variable carries it.
func (n node) plain() any {
	switch v := n.value.(type) {
	case []node:
		list := make([]any, len(v))
		for i := range v {
			list[i] = v[i].plain()
		}
		return list
	case *mapping:
		values := make(map[string]any, len(v.entries))
		for _, e := range v.entries {
			values[e.name] = e.value.plain()
		}
		return values
	}
	return n.value
}

// unsafe marks every string inside as no template, as Ansible's wrap_var does.
func (n node) unsafe() node {
	switch v := n.value.(type) {
	case string:
		n.value = inventory.Unsafe(v)
	case []node:
		list := make([]node, len(v))
		for i := range v {
			list[i] = v[i].unsafe()
		}
		n.value = list
	case *mapping:
		marked := &mapping{index: v.index, entries: make([]entry, len(v.entries))}
		for i, e := range v.entries {
			e.value = e.value.unsafe()
			marked.entries[i] = e
		}
		n.value = marked
	}
	return n
}

// variables are a mapping's entries as variables said in the file.
func (m *mapping) variables(file string) map[string]inventory.Variable {
	vars := make(map[string]inventory.Variable, len(m.entries))
	for _, e := range m.entries {
		vars[e.name] = inventory.Variable{
			Value:    e.value.plain(),
			Position: inventory.Position{File: file, Line: e.line},
		}
	}
	return vars
}
