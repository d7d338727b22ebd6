package inventory

import (
	"regexp"
	"strconv"
	"strings"
)

// The expressions are those of Ansible's parsing/utils/addresses.py, so that
// both take the same text for a host, a port or a range. RE2 has no
// lookbehind: a label's last character is spelled out instead.
const (
	numericRange      = `\[(?:[0-9]+:[0-9]+)(?::[0-9]+)?\]`
	hexadecimalRange  = `\[(?:[0-9a-f]+:[0-9a-f]+)(?::[0-9]+)?\]`
	alphanumericRange = `\[(?:[a-z]:[a-z]|[0-9]+:[0-9]+)(?::[0-9]+)?\]`

	part4 = `(?:[01]?[0-9]{1,2}|2[0-4][0-9]|25[0-5]|` + numericRange + `)`
	part6 = `(?:[0-9a-f]{1,4}|` + hexadecimalRange + `)`

	word  = `[\p{L}\p{N}_]`
	end   = `(?:[\p{L}\p{N}]|` + alphanumericRange + `)`
	label = `(?:` + end + `|(?:` + word + `|` + alphanumericRange + `)(?:[\p{L}\p{N}_-]|` + alphanumericRange + `)*` + end + `)`
)

var (
	bracketedHostPort = regexp.MustCompile(`^\[(.+)\]:([0-9]+)$`)
	hostPort          = regexp.MustCompile(`^((?:[^:\[\]]|\[[^\]]*\])*):([0-9]+)$`)

	addressForms = []*regexp.Regexp{
		regexp.MustCompile(`(?i)^(?:` + part4 + `\.){3}` + part4 + `$`),
		// Only the last alternative is anchored at its end, in Ansible too.
		regexp.MustCompile(`(?i)^(?:` + strings.ReplaceAll(strings.Join([]string{
			`(?:{0}:){7}{0}`,
			`(?:{0}:){1,6}:`,
			`(?:{0}:)(?::{0}){1,6}`,
			`(?:{0}:){2}(?::{0}){1,5}`,
			`(?:{0}:){3}(?::{0}){1,4}`,
			`(?:{0}:){4}(?::{0}){1,3}`,
			`(?:{0}:){5}(?::{0}){1,2}`,
			`(?:{0}:){6}(?::{0})`,
			`:(?::{0}){1,6}`,
			`{0}?::`,
			`(?:0:){6}(?:{0}\.){3}{0}`,
			`::(?:ffff:)?(?:{0}\.){3}{0}`,
			`(?:0:){5}ffff:(?:{0}\.){3}{0}$`,
		}, "|"), "{0}", part6) + `)`),
		regexp.MustCompile(`(?i)^` + label + `(?:\.` + label + `)*$`),
	}
)

// ParseAddress splits "host", "host:22" or "[2001:db8::1]:22" into the host,
// which may hold ranges, and the port (zero: none said). It reports false for
// what Ansible doesn't take for an address; Ansible then uses the text as it is.
func ParseAddress(text string) (host string, port int, ok bool) {
	host = text
	for _, form := range []*regexp.Regexp{bracketedHostPort, hostPort} {
		m := form.FindStringSubmatch(host)
		if m == nil {
			continue
		}
		n, err := strconv.Atoi(m[2])
		if err != nil {
			return "", 0, false
		}
		host, port = m[1], n
	}
	if host == "" {
		return "", 0, false
	}
	for _, form := range addressForms {
		if form.MatchString(host) {
			return host, port, true
		}
	}
	return "", 0, false
}
