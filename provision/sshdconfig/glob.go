package sshdconfig

import (
	"errors"
	"strings"
)

var errClass = errors.New("character classes by name are not supported")

// glob is a pattern as glob(3) reads it without flags: '*' and '?' match
// neither '/' nor a leading '.', '[…]' matches one byte, a backslash takes
// the next byte as it is.
type glob struct{ elements [][]token }

type token struct {
	kind byte // 'c' this byte, '?' any byte, '*' any bytes, '[' a set
	c    byte
	set  *[256]bool
}

func compileGlob(pattern string) (*glob, error) {
	// glob(3) opens folders under names without the escapes but doesn't
	// shorten them: "//" and "/./" stay, and so do the results' names.
	g := &glob{}
	for element := range strings.SplitSeq(pattern, "/") {
		tokens, err := compileElement(element)
		if err != nil {
			return nil, err
		}
		g.elements = append(g.elements, tokens)
	}
	return g, nil
}

func compileElement(s string) ([]token, error) {
	if strings.Contains(s, "[[:") || strings.Contains(s, "[[=") || strings.Contains(s, "[[.") {
		return nil, errClass
	}
	var tokens []token
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '*', '?':
			tokens = append(tokens, token{kind: c})
		case '[':
			set, end, ok := compileSet(s, i)
			if !ok {
				tokens = append(tokens, token{kind: 'c', c: c})
				continue
			}
			tokens = append(tokens, token{kind: '[', set: set})
			i = end
		case '\\':
			if i+1 < len(s) {
				i++
			}
			tokens = append(tokens, token{kind: 'c', c: s[i]})
		default:
			tokens = append(tokens, token{kind: 'c', c: c})
		}
	}
	return tokens, nil
}

// compileSet reads the set that opens at s[i]; ok is false if it never
// closes, and then '[' is a byte like any other.
func compileSet(s string, i int) (set *[256]bool, end int, ok bool) {
	set = new([256]bool)
	at := i + 1
	negated := at < len(s) && (s[at] == '!' || s[at] == '^')
	if negated {
		at++
	}
	for first := true; ; first = false {
		low, next, ok := setByte(s, at)
		if !ok {
			return nil, 0, false
		}
		if s[at] == ']' && !first {
			break
		}
		high := low
		if at = next; at+1 < len(s) && s[at] == '-' && s[at+1] != ']' {
			if high, at, ok = setByte(s, at+1); !ok {
				return nil, 0, false
			}
		}
		for c := int(low); c <= int(high); c++ {
			set[c] = true
		}
	}
	if negated {
		for c := range set {
			set[c] = !set[c]
		}
	}
	return set, at, true
}

func setByte(s string, at int) (c byte, next int, ok bool) {
	if at < len(s) && s[at] == '\\' {
		at++
	}
	if at >= len(s) {
		return 0, 0, false
	}
	return s[at], at + 1, true
}

func (g *glob) match(name string) bool {
	parts := strings.Split(name, "/")
	if len(parts) != len(g.elements) {
		return false
	}
	for i, part := range parts {
		tokens := g.elements[i]
		if strings.HasPrefix(part, ".") && len(tokens) > 0 && tokens[0].kind != 'c' {
			return false
		}
		if !matchElement(tokens, part) {
			return false
		}
	}
	return true
}

// matchElement goes back to the last '*' only, so it takes at most the
// product of both lengths.
func matchElement(tokens []token, s string) bool {
	t, i := 0, 0
	star, from := -1, 0
	for i < len(s) {
		switch {
		case t < len(tokens) && tokens[t].kind == '*':
			star, from = t, i
			t++
		case t < len(tokens) && tokens[t].one(s[i]):
			t++
			i++
		case star >= 0:
			from++
			t, i = star+1, from
		default:
			return false
		}
	}
	for t < len(tokens) && tokens[t].kind == '*' {
		t++
	}
	return t == len(tokens)
}

func (t token) one(c byte) bool {
	switch t.kind {
	case 'c':
		return t.c == c
	case '?':
		return true
	case '[':
		return t.set[c]
	default:
		return false
	}
}
