package ansible

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/fleetca/fleetca/inventory"
)

// parseData reads a file that is JSON or YAML, in Ansible's order: what is
// valid JSON is JSON, which matters for numbers such as 1e5. A document
// without content is null. Warnings tell of duplicate keys.
func parseData(file string, data []byte, warn func(inventory.Position, string, ...any)) (n node, isJSON bool, err error) {
	if n, err := parseJSON(file, data); err == nil {
		return n, true, nil
	}
	n, err = parseYAML(file, data, warn)
	return n, false, err
}

var yamlErrorLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(?:unmarshal errors:\s*)?`)

// parseYAML reads one YAML document as PyYAML does with Ansible's loader.
func parseYAML(file string, data []byte, warn func(inventory.Position, string, ...any)) (node, error) {
	return parseYAMLWithin(maxNodes, file, data, warn)
}

// parseYAMLWithin bounds how many values there may be, aliases followed.
func parseYAMLWithin(limit int, file string, data []byte, warn func(inventory.Position, string, ...any)) (node, error) {
	if !utf8.Valid(data) {
		return node{}, fmt.Errorf("%s: not UTF-8", file)
	}
	// The two versions are read alike, but the library refuses the later one.
	if rest, ok := bytes.CutPrefix(data, []byte("%YAML 1.2")); ok {
		data = append([]byte("%YAML 1.1"), rest...)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document, second yaml.Node
	err := decoder.Decode(&document)
	if errors.Is(err, io.EOF) {
		return node{line: 1}, nil
	}
	if err == nil {
		switch err = decoder.Decode(&second); {
		case err == nil:
			return node{}, fmt.Errorf("%s:%d: more than one YAML document", file, second.Line)
		case errors.Is(err, io.EOF):
			err = nil
		}
	}
	if err != nil {
		position := inventory.Position{File: file}
		if m := yamlErrorLine.FindStringSubmatch(err.Error()); m != nil {
			position.Line, _ = strconv.Atoi(m[1])
		}
		return node{}, fmt.Errorf("%s: reading YAML: %s", position, yamlErrorLine.ReplaceAllString(err.Error(), ""))
	}
	c := constructor{file: file, warn: warn, limit: limit, left: limit, open: map[*yaml.Node]bool{}}
	if len(document.Content) == 0 {
		return node{line: 1}, nil
	}
	return c.construct(document.Content[0], 0)
}

// constructor turns YAML nodes into values by the rules of YAML 1.1.
type constructor struct {
	file        string
	warn        func(inventory.Position, string, ...any)
	limit, left int                 // of nodes, aliases followed
	open        map[*yaml.Node]bool // collections being constructed
}

func (c *constructor) errorf(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s: %s", inventory.Position{File: c.file, Line: n.Line}, fmt.Sprintf(format, args...))
}

func (c *constructor) spend(n *yaml.Node, depth int) error {
	c.left--
	if c.left < 0 {
		return c.errorf(n, "more than %d values, aliases followed", c.limit)
	}
	if depth > maxDepth {
		return c.errorf(n, "nested deeper than %d levels", maxDepth)
	}
	return nil
}

func (c *constructor) construct(n *yaml.Node, depth int) (node, error) {
	if err := c.spend(n, depth); err != nil {
		return node{}, err
	}
	if n.Kind == yaml.AliasNode {
		line := n.Line
		value, err := c.construct(n.Alias, depth+1)
		value.line = line
		return value, err
	}
	if c.open[n] {
		return node{}, c.errorf(n, "a value holds itself")
	}
	c.open[n] = true
	defer delete(c.open, n)

	tag := ""
	if n.Style&yaml.TaggedStyle != 0 {
		tag = n.ShortTag()
	}
	if tag == "!unsafe" {
		bare := *n
		bare.Style &^= yaml.TaggedStyle
		if n.Kind == yaml.ScalarNode {
			return node{line: n.Line, value: inventory.Unsafe(n.Value)}, nil
		}
		value, err := c.construct(&bare, depth)
		return value.unsafe(), err
	}
	switch n.Kind {
	case yaml.MappingNode:
		if tag != "" && tag != "!!map" && tag != "!!python/dict" {
			return node{}, c.errorf(n, "the tag %q on a mapping is not supported", tag)
		}
		return c.mapping(n, depth)
	case yaml.SequenceNode:
		if tag != "" && tag != "!!seq" {
			return node{}, c.errorf(n, "the tag %q on a list is not supported", tag)
		}
		list := make([]node, 0, len(n.Content))
		for _, item := range n.Content {
			value, err := c.construct(item, depth+1)
			if err != nil {
				return node{}, err
			}
			list = append(list, value)
		}
		return node{line: n.Line, value: list}, nil
	case yaml.ScalarNode:
		value, err := scalar(n, tag)
		if err != nil {
			return node{}, c.errorf(n, "%s", err)
		}
		return node{line: n.Line, value: value}, nil
	}
	return node{}, c.errorf(n, "unexpected kind of YAML node")
}

// mapping constructs the pairs in order: those that "<<" brings come first, so
// that the mapping's own keys win.
func (c *constructor) mapping(n *yaml.Node, depth int) (node, error) {
	merged, own, err := c.flatten(n, depth, nil)
	if err != nil {
		return node{}, err
	}
	m := &mapping{}
	said := map[string]bool{}
	for i, pair := range append(merged, own...) {
		key, err := c.key(pair[0], depth+1)
		if err != nil {
			return node{}, err
		}
		value, err := c.construct(pair[1], depth+1)
		if err != nil {
			return node{}, err
		}
		duplicate, err := m.set(key.value, key.line, value)
		if err != nil {
			return node{}, c.errorf(pair[0], "%s", err)
		}
		if i < len(merged) {
			continue
		}
		if name := fmt.Sprint(key.value); !said[name] {
			said[name] = true
		} else if duplicate && c.warn != nil {
			c.warn(inventory.Position{File: c.file, Line: key.line}, "the key %q is said twice; the last one counts", name)
		}
	}
	return node{line: n.Line, value: m}, nil
}

// key takes the "=" of YAML 1.1, which nothing else may be, for text.
func (c *constructor) key(n *yaml.Node, depth int) (node, error) {
	if n.Kind == yaml.ScalarNode && n.Style == 0 && n.Value == "=" {
		return node{line: n.Line, value: n.Value}, nil
	}
	return c.construct(n, depth)
}

type pair [2]*yaml.Node

// flatten separates a mapping's own pairs from those of its merge keys.
func (c *constructor) flatten(n *yaml.Node, depth int, within []*yaml.Node) (merged, own []pair, err error) {
	for _, outer := range within {
		if outer == n {
			return nil, nil, c.errorf(n, "a value holds itself")
		}
	}
	within = append(within, n)
	if len(within) > maxDepth {
		return nil, nil, c.errorf(n, "nested deeper than %d levels", maxDepth)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if err := c.spend(key, depth); err != nil {
			return nil, nil, err
		}
		if key.Kind != yaml.ScalarNode || key.ShortTag() != "!!merge" {
			own = append(own, pair{key, value})
			continue
		}
		pairs, err := c.merge(value, depth, within)
		if err != nil {
			return nil, nil, err
		}
		merged = append(merged, pairs...)
	}
	return merged, own, nil
}

func (c *constructor) merge(value *yaml.Node, depth int, within []*yaml.Node) ([]pair, error) {
	target := follow(value)
	switch target.Kind {
	case yaml.MappingNode:
		merged, own, err := c.flatten(target, depth, within)
		return append(merged, own...), err
	case yaml.SequenceNode:
		var pairs []pair
		for i := len(target.Content) - 1; i >= 0; i-- { // an earlier mapping wins
			item := follow(target.Content[i])
			if item.Kind != yaml.MappingNode {
				return nil, c.errorf(item, "a merge key (<<) needs mappings")
			}
			merged, own, err := c.flatten(item, depth, within)
			if err != nil {
				return nil, err
			}
			pairs = append(append(pairs, merged...), own...)
		}
		return pairs, nil
	}
	return nil, c.errorf(value, "a merge key (<<) needs a mapping or a list of mappings")
}

func follow(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// scalar gives a scalar the type its tag or, for a plain one, its look says.
func scalar(n *yaml.Node, tag string) (any, error) {
	const quoted = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle
	if tag == "" {
		if n.Style&quoted != 0 {
			return n.Value, nil
		}
		tag = resolve(n.Value)
	}
	switch tag {
	case "!!str", "!!python/unicode":
		return n.Value, nil
	case "!vault", "!vault-encrypted":
		return inventory.Vault(n.Value), nil
	case "!!null":
		return nil, nil
	case "!!bool":
		return parseBool(n.Value)
	case "!!int":
		return parseInt(n.Value)
	case "!!float":
		return parseFloat(n.Value)
	case "!!timestamp":
		return parseTimestamp(n.Value)
	case "!!binary":
		text := strings.Join(strings.Fields(n.Value), "")
		data, err := base64.StdEncoding.DecodeString(text)
		if err != nil || !utf8.Valid(data) {
			return nil, errors.New("!!binary is not the base64 form of UTF-8 text")
		}
		return string(data), nil
	}
	return nil, fmt.Errorf("the tag %q is not supported", tag)
}
