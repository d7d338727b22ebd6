package config

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// document is one YAML file while it is read, with what was found wrong in it.
type document struct {
	file     string
	problems Errors
	warnings []string
}

// value is a place in a document. The zero value is one that isn't given.
type value struct {
	doc   *document
	node  *yaml.Node
	field string
}

func (d *document) fail(line int, field string, err error) {
	// A file with more mistakes than this is of another kind.
	const most = 200
	if len(d.problems) < most {
		d.problems = append(d.problems, &Problem{File: d.file, Line: line, Field: field, Err: err})
	}
}

func (d *document) warn(line int, field, format string, args ...any) {
	p := Problem{File: d.file, Line: line, Field: field, Err: fmt.Errorf(format, args...)}
	d.warnings = append(d.warnings, p.Error())
}

var yamlLine = regexp.MustCompile(`^(?:yaml: )?line (\d+): `)

// parse gives the top of the document, or a value that isn't given.
func (d *document) parse(data []byte) value {
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	var top yaml.Node
	if err := dec.Decode(&top); err != nil {
		d.fail(yamlProblem(err))
		return value{}
	}
	if err := dec.Decode(new(yaml.Node)); err == nil {
		d.fail(0, "", errors.New("it holds more than one document"))
		return value{}
	}
	if top.Kind != yaml.DocumentNode || len(top.Content) != 1 {
		d.fail(0, "", errors.New("it is empty"))
		return value{}
	}
	return value{doc: d, node: top.Content[0]}
}

// yamlProblem takes the line out of the text of yaml's errors.
func yamlProblem(err error) (line int, field string, problem error) {
	text := err.Error()
	if text == "EOF" {
		return 0, "", errors.New("it is empty")
	}
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1])
		text = text[len(m[0]):]
	}
	return line, "", errors.New(strings.TrimPrefix(text, "yaml: "))
}

func (v value) given() bool { return v.node != nil }

func (v value) fail(format string, args ...any) {
	v.doc.fail(v.node.Line, v.field, fmt.Errorf(format, args...))
}

// warn tells of something that is taken nevertheless.
func (v value) warn(format string, args ...any) { v.doc.warn(v.node.Line, v.field, format, args...) }

// target follows an alias to what it stands for.
func (v value) target() *yaml.Node {
	if v.node.Kind == yaml.AliasNode && v.node.Alias != nil {
		return v.node.Alias
	}
	return v.node
}

func kindName(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return "nothing"
	}
	return "a single value"
}

// section gives the values of a mapping by key. Keys that it doesn't know or
// has seen before are mistakes.
func (v value) section(known ...string) map[string]value {
	n := v.target()
	found := map[string]value{}
	if n.Kind != yaml.MappingNode {
		v.fail("must be a mapping with some of %s, not %s", strings.Join(known, ", "), kindName(n))
		return found
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, content := n.Content[i], n.Content[i+1]
		field := key.Value
		if v.field != "" {
			field = v.field + "." + key.Value
		}
		item := value{doc: v.doc, node: content, field: field}
		_, twice := found[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode:
			v.doc.fail(key.Line, v.field, errors.New("a key must be a word"))
		case key.Tag == "!!merge":
			v.doc.fail(key.Line, v.field, errors.New(`merging with "<<" is not supported`))
		case !slices.Contains(known, key.Value):
			v.doc.fail(key.Line, field, unknownKey(key.Value, known))
		case twice:
			v.doc.fail(key.Line, field, errors.New("is said twice"))
		default:
			found[key.Value] = item
		}
	}
	return found
}

func unknownKey(key string, known []string) error {
	if near := nearest(key, known); near != "" {
		return fmt.Errorf("unknown key %q; did you mean %q?", key, near)
	}
	return fmt.Errorf("unknown key %q; there are %s", key, strings.Join(known, ", "))
}

// items gives the values of a list. One value alone is a list of one.
func (v value) items() []value {
	n := v.target()
	if n.Kind != yaml.SequenceNode {
		return []value{v}
	}
	items := make([]value, len(n.Content))
	for i, item := range n.Content {
		items[i] = value{doc: v.doc, node: item, field: fmt.Sprintf("%s[%d]", v.field, i)}
	}
	return items
}

// list is items for what can't stand alone.
func (v value) list() []value {
	if n := v.target(); n.Kind != yaml.SequenceNode {
		v.fail("must be a list, not %s", kindName(n))
		return nil
	}
	return v.items()
}

// nearest is the word of known that word was most likely meant to be, or "".
func nearest(word string, known []string) string {
	best, distance := "", 1+max(1, min(len(word), 24)/3)
	for _, k := range known {
		if len(word) > 2*len(k)+2 {
			continue
		}
		if d := editDistance(strings.ToLower(word), k); d < distance {
			best, distance = k, d
		}
	}
	if best != "" || len(word) < 3 {
		return best
	}
	for _, k := range known {
		if strings.HasPrefix(k, strings.ToLower(word)) {
			return k
		}
	}
	return ""
}

// editDistance counts insertions, deletions and replacements of bytes, and
// swaps of neighbours.
func editDistance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
