package ansible

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fleetca/fleetca/inventory"
)

// The looks of plain scalars, as PyYAML's resolver has them. YAML 1.1 in its
// reading: "yes" is true, 010 is 8, 1:30 is 90, and 1e5 is text.
var (
	boolForm  = regexp.MustCompile(`^(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$`)
	floatForm = regexp.MustCompile(`^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+][0-9]+)?` +
		`|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?` +
		`|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*` +
		`|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$`)
	intForm = regexp.MustCompile(`^(?:[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)` +
		`|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+)$`)
	nullForm      = regexp.MustCompile(`^(?:~|null|Null|NULL|)$`)
	timestampForm = regexp.MustCompile(`^(?:[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]` +
		`|[0-9][0-9][0-9][0-9]-[0-9][0-9]?-[0-9][0-9]?(?:[Tt]|[ \t]+)[0-9][0-9]?:[0-9][0-9]:[0-9][0-9](?:\.[0-9]*)?` +
		`(?:[ \t]*(?:Z|[-+][0-9][0-9]?(?::[0-9][0-9])?))?)$`)
	timestampParts = regexp.MustCompile(`^([0-9]{4})-([0-9][0-9]?)-([0-9][0-9]?)` +
		`(?:(?:[Tt]|[ \t]+)([0-9][0-9]?):([0-9][0-9]):([0-9][0-9])(?:\.([0-9]*))?` +
		`(?:[ \t]*(Z|([-+])([0-9][0-9]?)(?::([0-9][0-9]))?))?)?$`)
)

// resolve gives the tag of a plain scalar.
func resolve(text string) string {
	if len(text) > 4096 {
		return "!!str"
	}
	switch {
	case boolForm.MatchString(text):
		return "!!bool"
	case floatForm.MatchString(text):
		return "!!float"
	case intForm.MatchString(text):
		return "!!int"
	case nullForm.MatchString(text):
		return "!!null"
	case timestampForm.MatchString(text):
		return "!!timestamp"
	case text == "=":
		return "!!value"
	}
	return "!!str"
}

func parseBool(text string) (any, error) {
	switch strings.ToLower(text) {
	case "yes", "true", "on":
		return true, nil
	case "no", "false", "off":
		return false, nil
	}
	return nil, fmt.Errorf("%q is not a truth value", text)
}

// parseInt gives an int64 or, beyond it, a *big.Int.
func parseInt(text string) (any, error) {
	bad := fmt.Errorf("%q is not a whole number", text)
	digits := strings.ReplaceAll(text, "_", "")
	negative := strings.HasPrefix(digits, "-")
	if negative || strings.HasPrefix(digits, "+") {
		digits = digits[1:]
	}
	n, ok := new(big.Int), digits != "" && len(digits) <= 4096
	switch {
	case !ok:
	case strings.HasPrefix(digits, "0b"):
		ok = setDigits(n, digits[2:], 2)
	case strings.HasPrefix(digits, "0x"):
		ok = setDigits(n, digits[2:], 16)
	case digits[0] == '0':
		ok = setDigits(n, digits, 8)
	case strings.Contains(digits, ":"):
		for part := range strings.SplitSeq(digits, ":") {
			var digit big.Int
			ok = ok && setDigits(&digit, part, 10)
			n.Mul(n, big.NewInt(60)).Add(n, &digit)
		}
	default:
		ok = setDigits(n, digits, 10)
	}
	if !ok {
		return nil, bad
	}
	if negative {
		n.Neg(n)
	}
	return integer(n), nil
}

func setDigits(n *big.Int, digits string, base int) bool {
	if digits == "" || digits[0] == '-' || digits[0] == '+' {
		return false
	}
	_, ok := n.SetString(digits, base)
	return ok
}

func integer(n *big.Int) any {
	if n.IsInt64() {
		return n.Int64()
	}
	return n
}

func parseFloat(text string) (any, error) {
	digits := strings.ToLower(strings.ReplaceAll(text, "_", ""))
	sign := 1.0
	if strings.HasPrefix(digits, "-") {
		sign = -1
	}
	digits = strings.TrimLeft(digits, "+-")
	switch digits {
	case ".inf":
		return sign * math.Inf(1), nil
	case ".nan":
		return math.NaN(), nil
	}
	value, base := 0.0, 1.0
	parts := strings.Split(digits, ":")
	slices.Reverse(parts) // from the right, so that rounding comes out as in PyYAML
	for _, part := range parts {
		if strings.ContainsAny(part, "xp") {
			return nil, fmt.Errorf("%q is not a number", text)
		}
		f, err := strconv.ParseFloat(part, 64)
		if err != nil && !errors.Is(err, strconv.ErrRange) {
			return nil, fmt.Errorf("%q is not a number", text)
		}
		value += f * base
		base *= 60
	}
	return sign * value, nil
}

// parseTimestamp gives the date or time as Python's isoformat writes it.
func parseTimestamp(text string) (any, error) {
	bad := fmt.Errorf("%q is not a date", text)
	m := timestampParts.FindStringSubmatch(text)
	if m == nil {
		return nil, bad
	}
	number := func(i int) int { n, _ := strconv.Atoi(m[i]); return n }
	year, month, day, hour, minute, second := number(1), number(2), number(3), number(4), number(5), number(6)
	t := time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC)
	if year < 1 || t.Month() != time.Month(month) || t.Day() != day || t.Hour() != hour || t.Minute() != minute || t.Second() != second {
		return nil, bad
	}
	if m[4] == "" {
		return inventory.Date(t.Format("2006-01-02")), nil
	}
	iso := t.Format("2006-01-02T15:04:05")
	if fraction := (m[7] + "000000")[:6]; fraction != "000000" {
		iso += "." + fraction
	}
	switch {
	case m[9] != "":
		h, min := number(10), number(11)
		if h*60+min >= 24*60 {
			return nil, bad
		}
		h, min = h+min/60, min%60
		if h+min == 0 {
			m[9] = "+"
		}
		iso += fmt.Sprintf("%s%02d:%02d", m[9], h, min)
	case m[8] != "":
		iso += "+00:00"
	}
	return inventory.Date(iso), nil
}
