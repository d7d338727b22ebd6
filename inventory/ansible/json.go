package ansible

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/fleetca/fleetca/inventory"
)

// jsonReader reads tokens and counts lines.
type jsonReader struct {
	decoder *json.Decoder
	data    []byte
	offset  int64 // up to which lines are counted
	line    int
	left    int
}

// parseJSON reads one JSON value. {"__ansible_vault": …} and
// {"__ansible_unsafe": …} stand for what they stand for in Ansible.
func parseJSON(file string, data []byte) (node, error) {
	r := &jsonReader{decoder: json.NewDecoder(bytes.NewReader(data)), data: data, line: 1, left: maxNodes}
	r.decoder.UseNumber()
	n, err := r.start(data)
	if err != nil {
		r.count()
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return node{}, fmt.Errorf("%s: reading JSON: %w", inventory.Position{File: file, Line: r.line}, err)
	}
	return n, nil
}

func (r *jsonReader) start(data []byte) (node, error) {
	if !utf8.Valid(data) {
		return node{}, errors.New("not UTF-8")
	}
	n, err := r.value(0)
	if err != nil {
		return node{}, err
	}
	if _, err := r.decoder.Token(); !errors.Is(err, io.EOF) {
		return node{}, errors.New("more after the value")
	}
	return n, nil
}

// count brings the line up to what was read.
func (r *jsonReader) count() int {
	end := min(r.decoder.InputOffset(), int64(len(r.data)))
	r.line += bytes.Count(r.data[r.offset:end], []byte{'\n'})
	r.offset = end
	return r.line
}

func (r *jsonReader) value(depth int) (node, error) {
	token, err := r.decoder.Token()
	if err != nil {
		return node{}, err
	}
	return r.finish(token, depth)
}

func (r *jsonReader) finish(token json.Token, depth int) (node, error) {
	n := node{line: r.count()}
	if r.left--; r.left < 0 {
		return n, fmt.Errorf("more than %d values", maxNodes)
	}
	if depth > maxDepth {
		return n, fmt.Errorf("nested deeper than %d levels", maxDepth)
	}
	switch t := token.(type) {
	case json.Number:
		value, err := jsonNumber(string(t))
		n.value = value
		return n, err
	case json.Delim:
		if t == '[' {
			return r.list(n, depth)
		}
		return r.object(n, depth)
	default:
		n.value = t
		return n, nil
	}
}

func (r *jsonReader) list(n node, depth int) (node, error) {
	list := []node{}
	for r.decoder.More() {
		item, err := r.value(depth + 1)
		if err != nil {
			return n, err
		}
		list = append(list, item)
	}
	n.value = list
	_, err := r.decoder.Token()
	return n, err
}

func (r *jsonReader) object(n node, depth int) (node, error) {
	m := &mapping{}
	for r.decoder.More() {
		token, err := r.decoder.Token()
		if err != nil {
			return n, err
		}
		key, ok := token.(string)
		if !ok {
			return n, errors.New("a key is not a string")
		}
		line := r.count()
		value, err := r.value(depth + 1)
		if err != nil {
			return n, err
		}
		if _, err := m.set(key, line, value); err != nil {
			return n, err
		}
	}
	if _, err := r.decoder.Token(); err != nil {
		return n, err
	}
	for _, e := range m.entries {
		switch e.name {
		case "__ansible_vault":
			text, ok := e.value.value.(string)
			if !ok {
				return n, errors.New("__ansible_vault is not a string")
			}
			n.value = inventory.Vault(text)
			return n, nil
		case "__ansible_unsafe":
			marked := e.value.unsafe()
			n.value = marked.value
			return n, nil
		}
	}
	n.value = m
	return n, nil
}

// jsonNumber tells whole numbers from others as Python does: by their look.
func jsonNumber(text string) (any, error) {
	if !strings.ContainsAny(text, ".eE") {
		if len(text) > 4096 {
			return nil, errors.New("a number has more than 4096 digits")
		}
		n, ok := new(big.Int).SetString(text, 10)
		if !ok {
			return nil, fmt.Errorf("%q is not a number", text)
		}
		return integer(n), nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil && !math.IsInf(f, 0) {
		return nil, err
	}
	return f, nil
}
