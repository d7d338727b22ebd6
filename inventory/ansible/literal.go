package ansible

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// errNoLiteral means that a text is no Python literal, and so a string.
var errNoLiteral = errors.New("no literal")

// parseValue types the value of a variable in an INI file as Ansible does, by
// Python's ast.literal_eval: numbers, quoted strings, True, False, None, and
// lists, tuples and dictionaries of them. Anything else is a string. Sets,
// complex numbers and "..." stay strings too, because JSON has nothing for
// them. An error is only for what Python itself fails on.
func parseValue(text string) (any, error) {
	p := literalParser{text: strings.TrimLeft(text, " \t"), left: 100_000}
	value, err := p.whole()
	switch {
	case errors.Is(err, errNoLiteral):
		return text, nil
	case err != nil:
		return nil, err
	}
	return value, nil
}

type literalParser struct {
	text  string
	at    int
	depth int
	left  int // how many more values there may be
	// unusable is why Python would fail on the literal, if it is one to its end.
	unusable error
}

func (p *literalParser) whole() (any, error) {
	if strings.ContainsRune(p.text, 0) || !utf8.ValidString(p.text) {
		return nil, errNoLiteral
	}
	if feeds := strings.TrimLeft(p.text, "\f"); feeds != p.text && strings.HasPrefix(feeds, " ") {
		return nil, errNoLiteral // Python takes this for an indented line
	}
	value, err := p.tuple(0)
	if err != nil {
		return nil, err
	}
	p.space()
	if p.at < len(p.text) && p.text[p.at] != '#' {
		return nil, errNoLiteral
	}
	return value, p.unusable
}

// space skips blanks, and inside brackets line ends and comments too.
func (p *literalParser) space() {
	for p.at < len(p.text) {
		switch c := p.text[p.at]; {
		case c == ' ' || c == '\t' || c == '\f':
		case p.depth > 0 && (c == '\n' || c == '\r'):
		case p.depth > 0 && c == '#':
			if i := strings.IndexByte(p.text[p.at:], '\n'); i >= 0 {
				p.at += i
			} else {
				p.at = len(p.text) - 1
			}
		default:
			return
		}
		p.at++
	}
}

// peek is the next character that is no space; zero at the end.
func (p *literalParser) peek() byte {
	p.space()
	if p.at == len(p.text) {
		return 0
	}
	return p.text[p.at]
}

func (p *literalParser) take(c byte) bool {
	if p.peek() == c && p.at < len(p.text) {
		p.at++
		return true
	}
	return false
}

// tuple reads values with commas between them up to the closing bracket (or
// the end, if closing is zero). One value without a comma is that value.
func (p *literalParser) tuple(closing byte) (any, error) {
	items, comma, err := p.items(closing)
	if err != nil {
		return nil, err
	}
	if len(items) == 1 && !comma {
		return items[0], nil
	}
	if len(items) == 0 && closing == 0 {
		return nil, errNoLiteral
	}
	return items, nil
}

// items reads up to the closing bracket, which it leaves in place.
func (p *literalParser) items(closing byte) (items []any, comma bool, err error) {
	items = []any{}
	for {
		next := p.peek()
		if next == closing || closing == 0 && (next == 0 || next == '#') {
			return items, comma, nil
		}
		if len(items) > 0 && !comma {
			return nil, false, errNoLiteral
		}
		item, err := p.value()
		if err != nil {
			return nil, false, err
		}
		items = append(items, item)
		comma = p.take(',')
	}
}

func (p *literalParser) value() (any, error) {
	if p.left--; p.left < 0 {
		return nil, errors.New("the value holds too many items")
	}
	switch c := p.peek(); {
	case c == '+' || c == '-':
		p.at++
		return p.signed(c == '-')
	case c == '(' || c == '[' || c == '{':
		return p.bracketed(c)
	case c >= '0' && c <= '9' || c == '.':
		return p.number()
	case c == '\'' || c == '"':
		return p.strings()
	}
	rest := p.text[p.at:]
	for word, value := range map[string]any{"True": true, "False": false, "None": nil} {
		if strings.HasPrefix(rest, word) && !startsWord(rest[len(word):]) {
			p.at += len(word)
			return value, nil
		}
	}
	if stringPrefix.MatchString(rest) {
		return p.strings()
	}
	return nil, errNoLiteral
}

func startsWord(rest string) bool {
	return rest != "" && (rest[0] == '_' || rest[0] >= '0' && rest[0] <= '9' || rest[0]|0x20 >= 'a' && rest[0]|0x20 <= 'z' || rest[0] >= 0x80)
}

// signed reads the number behind a sign. Python takes one sign, and no
// brackets around the number count.
func (p *literalParser) signed(negative bool) (any, error) {
	for brackets := 0; ; brackets++ {
		if !p.take('(') {
			n, err := p.unsigned()
			for ; brackets > 0 && err == nil; brackets-- {
				p.depth--
				if !p.take(')') {
					err = errNoLiteral
				}
			}
			if err != nil || !negative {
				return n, err
			}
			return negate(n), nil
		}
		if p.depth++; p.depth > deepest {
			return nil, errNoLiteral
		}
	}
}

func (p *literalParser) unsigned() (any, error) {
	if c := p.peek(); c >= '0' && c <= '9' || c == '.' {
		return p.number()
	}
	return nil, errNoLiteral
}

func negate(number any) any {
	switch n := number.(type) {
	case int64:
		return integer(new(big.Int).Neg(big.NewInt(n)))
	case *big.Int:
		return integer(new(big.Int).Neg(n))
	case float64:
		return -n
	}
	return number
}

// deepest is how deep brackets may nest.
const deepest = 60

func (p *literalParser) bracketed(open byte) (any, error) {
	p.at++
	if p.depth++; p.depth > deepest {
		return nil, errNoLiteral
	}
	var value any
	var err error
	closing := map[byte]byte{'(': ')', '[': ']', '{': '}'}[open]
	switch open {
	case '(':
		value, err = p.tuple(closing)
	case '[':
		value, _, err = p.items(closing)
	default:
		value, err = p.dict()
	}
	if err != nil {
		return nil, err
	}
	if p.peek() != closing || p.at == len(p.text) {
		return nil, errNoLiteral
	}
	p.at++
	p.depth--
	return value, nil
}

// dict reads "key: value" pairs. A set has no colons, and stays a string.
func (p *literalParser) dict() (any, error) {
	dict := &mapping{}
	for comma := true; p.peek() != '}'; {
		if !comma {
			return nil, errNoLiteral
		}
		key, err := p.value()
		if err != nil {
			return nil, err
		}
		if !p.take(':') {
			return nil, errNoLiteral
		}
		value, err := p.value()
		if err != nil {
			return nil, err
		}
		if _, err := dict.set(key, 0, node{value: value}); err != nil {
			p.unusable = err
		}
		comma = p.take(',')
	}
	return node{value: dict}.plain(), nil
}

// numberForm is a decimal or other number up to the end of the word.
var numberForm = longest(`^(?:` +
	`0[xX](?:_?[0-9a-fA-F])+|0[oO](?:_?[0-7])+|0[bB](?:_?[01])+` +
	`|(?:[0-9](?:_?[0-9])*)?\.[0-9](?:_?[0-9])*(?:[eE][-+]?[0-9](?:_?[0-9])*)?` +
	`|[0-9](?:_?[0-9])*\.(?:[eE][-+]?[0-9](?:_?[0-9])*)?` +
	`|[0-9](?:_?[0-9])*[eE][-+]?[0-9](?:_?[0-9])*` +
	`|0(?:_?0)*|[1-9](?:_?[0-9])*)`)

func longest(expression string) *regexp.Regexp {
	re := regexp.MustCompile(expression)
	re.Longest()
	return re
}

func (p *literalParser) number() (any, error) {
	text := numberForm.FindString(p.text[p.at:])
	rest := p.text[p.at+len(text):]
	if text == "" || startsWord(rest) || strings.HasPrefix(rest, ".") {
		return nil, errNoLiteral
	}
	p.at += len(text)
	digits := strings.ReplaceAll(text, "_", "")
	if base := prefixedBase(digits); base != 10 {
		n, ok := new(big.Int).SetString(digits[2:], base)
		if !ok || len(digits) > 4096 {
			return nil, errNoLiteral
		}
		return integer(n), nil
	}
	if strings.ContainsAny(digits, ".eE") {
		f, err := strconv.ParseFloat(digits, 64)
		if err != nil && !math.IsInf(f, 0) {
			return nil, errNoLiteral
		}
		return f, nil
	}
	n, ok := new(big.Int).SetString(digits, 10)
	if !ok || len(digits) > 4096 {
		return nil, errNoLiteral
	}
	return integer(n), nil
}

func prefixedBase(digits string) int {
	if len(digits) < 3 || digits[0] != '0' {
		return 10
	}
	switch digits[1] | 0x20 {
	case 'x':
		return 16
	case 'o':
		return 8
	case 'b':
		return 2
	}
	return 10
}

var stringPrefix = regexp.MustCompile(`^(?:[rR][bB]?|[bB][rR]?|[uU])?['"]`)

// strings reads one string literal and those that follow it directly.
func (p *literalParser) strings() (any, error) {
	var all strings.Builder
	kind := byte(0)
	for {
		p.space()
		prefix := stringPrefix.FindString(p.text[p.at:])
		if prefix == "" {
			break
		}
		p.at += len(prefix) - 1
		letters := strings.ToLower(prefix[:len(prefix)-1])
		k := byte('s')
		if strings.Contains(letters, "b") {
			k = 'b'
		}
		if kind != 0 && kind != k {
			return nil, errNoLiteral
		}
		kind = k
		body, err := p.quoted()
		if err != nil {
			return nil, err
		}
		if !strings.Contains(letters, "r") {
			body, err = unescape(body, k == 'b')
			if errors.Is(err, errNoLiteral) {
				return nil, err
			}
			if err != nil {
				p.unusable = err
			}
		}
		all.WriteString(body)
	}
	// Ansible turns bytes into text.
	if !utf8.ValidString(all.String()) {
		p.unusable = errors.New("the value is not UTF-8")
	}
	return all.String(), nil
}

// quoted reads from the opening quote to the closing one and gives what is
// between them.
func (p *literalParser) quoted() (string, error) {
	quote := p.text[p.at : p.at+1]
	if strings.HasPrefix(p.text[p.at:], strings.Repeat(quote, 3)) {
		quote = strings.Repeat(quote, 3)
	}
	p.at += len(quote)
	for i := p.at; i < len(p.text); i++ {
		switch {
		case p.text[i] == '\\':
			i++
		case strings.HasPrefix(p.text[i:], quote):
			body := p.text[p.at:i]
			p.at = i + len(quote)
			return body, nil
		case len(quote) == 1 && (p.text[i] == '\n' || p.text[i] == '\r'):
			return "", errNoLiteral
		}
	}
	return "", errNoLiteral
}

var simpleEscapes = map[byte]string{
	'\n': "", '\\': `\`, '\'': `'`, '"': `"`, 'a': "\a", 'b': "\b", 'f': "\f", 'n': "\n", 'r': "\r", 't': "\t", 'v': "\v",
}

// unescape evaluates backslashes. Unknown ones stay as they are, as in Python.
func unescape(body string, isBytes bool) (string, error) {
	var out strings.Builder
	for i := 0; i < len(body); i++ {
		c := body[i]
		if isBytes && c >= 0x80 {
			return "", errNoLiteral
		}
		if c != '\\' {
			out.WriteByte(c)
			continue
		}
		i++
		c = body[i]
		if text, ok := simpleEscapes[c]; ok {
			out.WriteString(text)
			continue
		}
		digits, base := 0, 16
		switch {
		case c >= '0' && c <= '7':
			for digits < 3 && i+digits < len(body) && body[i+digits] >= '0' && body[i+digits] <= '7' {
				digits++
			}
			base, i = 8, i-1
		case c == 'x':
			digits = 2
		case c == 'u' && !isBytes:
			digits = 4
		case c == 'U' && !isBytes:
			digits = 8
		case c == 'N' && !isBytes:
			if !strings.HasPrefix(body[i+1:], "{") {
				return "", errNoLiteral
			}
			return "", errors.New(`characters by name (\N{…}) are not supported`)
		default:
			out.WriteByte('\\')
			i--
			continue
		}
		if i+digits >= len(body) {
			return "", errNoLiteral
		}
		n, err := strconv.ParseUint(body[i+1:i+1+digits], base, 32)
		if err != nil || n > utf8.MaxRune {
			return "", errNoLiteral
		}
		i += digits
		switch {
		case isBytes:
			out.WriteByte(byte(n))
		case !utf8.ValidRune(rune(n)):
			return "", fmt.Errorf("the character U+%04X is half of a pair", n)
		default:
			out.WriteRune(rune(n))
		}
	}
	return out.String(), nil
}
