package inventory

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

var errTooMany = fmt.Errorf("stands for more than %d hosts", MaxHosts)

// Expand gives the host names that a name with ranges stands for:
// "web[01:03]" is web01, web02 and web03; "[a:c]" and a step ("[0:8:2]") work
// too, and a name may hold several ranges. A name without "[" is itself.
func Expand(name string) ([]string, error) {
	left := 2 * MaxHosts // names, and what leads to them
	names, err := expand(nil, name, &left)
	if err != nil {
		return nil, fmt.Errorf("host range %q: %w", name, err)
	}
	return names, nil
}

// expand replaces the first range and goes on with the rest. left bounds the
// steps, not the names: an empty range at the end makes any number of steps
// come to nothing.
func expand(names []string, line string, left *int) ([]string, error) {
	if *left--; *left < 0 {
		return nil, errTooMany
	}
	if !strings.Contains(line, "[") {
		if len(names) >= MaxHosts {
			return nil, errTooMany
		}
		return append(names, line), nil
	}
	// Ansible finds the three parts like this, and so agrees about stray brackets.
	parts := strings.Split(strings.Replace(strings.Replace(line, "[", "|", 1), "]", "|", 1), "|")
	if len(parts) != 3 {
		return nil, errors.New("brackets don't pair up")
	}
	values, err := rangeValues(parts[1])
	if err != nil {
		return nil, err
	}
	for _, value := range values {
		names, err = expand(names, parts[0]+value+parts[2], left)
		if err != nil {
			return nil, err
		}
	}
	return names, nil
}

// rangeValues expands what stands between the brackets.
func rangeValues(text string) ([]string, error) {
	bounds := strings.Split(text, ":")
	if len(bounds) != 2 && len(bounds) != 3 {
		return nil, errors.New("must be [begin:end] or [begin:end:step]")
	}
	begin, end, step := bounds[0], bounds[1], 1
	if begin == "" {
		begin = "0"
	}
	if end == "" {
		return nil, errors.New("has no end")
	}
	if len(bounds) == 3 {
		n, err := number(bounds[2])
		if err != nil || n == 0 {
			return nil, fmt.Errorf("the step %q is not a whole number above zero", bounds[2])
		}
		step = n
	}
	width := 0
	if begin[0] == '0' && len(begin) > 1 {
		width = len(begin)
		if width != len(end) {
			return nil, errors.New("begin and end must be equally long when begin has a leading zero")
		}
	}
	// Python looks up both bounds as substrings of the alphabet, hence "ab:cd" is a, b, c.
	if i, j := strings.Index(letters, begin), strings.Index(letters, end); i >= 0 && j >= 0 {
		if i > j {
			return nil, errors.New("begins after its end")
		}
		return letterRange(i, j, step), nil
	}
	return numberRange(begin, end, step, width)
}

func letterRange(i, j, step int) []string {
	var values []string
	for ; step > 0 && i <= j; i += step { // a negative step gives nothing, as a Python slice does
		values = append(values, letters[i:i+1])
	}
	return values
}

func numberRange(begin, end string, step, width int) ([]string, error) {
	first, err := number(begin)
	if err != nil {
		return nil, fmt.Errorf("%q is neither a number nor a letter", begin)
	}
	last, err := number(end)
	if err != nil {
		return nil, fmt.Errorf("%q is neither a number nor a letter", end)
	}
	var values []string
	for n := first; step > 0 && n <= last || step < 0 && n > last+1; n += step {
		if len(values) >= MaxHosts {
			return nil, errTooMany
		}
		values = append(values, zeroFill(strconv.Itoa(n), width))
	}
	return values, nil
}

// number reads what Python's int() reads, within bounds that can't overflow.
func number(text string) (int, error) {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 32)
	return int(n), err
}

func zeroFill(text string, width int) string {
	sign := ""
	if strings.HasPrefix(text, "-") {
		sign, text = "-", text[1:]
	}
	if missing := width - len(sign) - len(text); missing > 0 {
		text = strings.Repeat("0", missing) + text
	}
	return sign + text
}
