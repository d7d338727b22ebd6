package facts

import (
	"fmt"
	"strings"
)

const (
	maxEffectiveLines = 10_000
	maxLine           = 64 << 10
)

// ParseEffective reads the output of sshd -T: a keyword in lower case and a
// value a line.
func ParseEffective(out []byte) (Effective, error) {
	e := Effective{}
	number := 0
	for line := range strings.Lines(string(out)) {
		number++
		if number > maxEffectiveLines {
			return nil, fmt.Errorf("reading output of sshd -T: more than %d lines", maxEffectiveLines)
		}
		if len(line) > maxLine {
			return nil, fmt.Errorf("reading output of sshd -T: line %d is longer than %d bytes", number, maxLine)
		}
		// Some settings are printed with nothing behind them.
		keyword, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if !isKeyword(keyword) {
			return nil, fmt.Errorf("reading output of sshd -T: line %d is no setting: %q", number, clip(line))
		}
		e[keyword] = append(e[keyword], value)
	}
	if len(e) == 0 {
		return nil, fmt.Errorf("reading output of sshd -T: it is empty")
	}
	return e, nil
}

func isKeyword(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// clip shortens what a host said for an error text.
func clip(s string) string {
	const most = 80
	s = strings.TrimRight(s, "\n")
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
