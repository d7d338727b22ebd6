package facts

import (
	"strconv"
	"strings"
)

// SSHVersion reads the version from a server's identification string, such as
// "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u10". openssh is false for other
// software, whose numbers aren't comparable and are given as zeroes, and for
// strings that are no identification.
func SSHVersion(ident string) (major, minor int, openssh bool) {
	proto, rest, ok := strings.Cut(ident, "-")
	if !ok || proto != "SSH" {
		return 0, 0, false
	}
	// Protocol 1.99 is how servers spoke that still offered version 1.
	_, software, ok := strings.Cut(rest, "-")
	if !ok {
		return 0, 0, false
	}
	software, ok = strings.CutPrefix(software, "OpenSSH_")
	if !ok {
		return 0, 0, false
	}
	software = strings.TrimPrefix(software, "for_Windows_")
	first, after, ok := strings.Cut(software, ".")
	if !ok {
		return 0, 0, false
	}
	end := strings.IndexFunc(after, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(after)
	}
	if major, ok = number(first); !ok {
		return 0, 0, false
	}
	if minor, ok = number(after[:end]); !ok {
		return 0, 0, false
	}
	return major, minor, true
}

// number reads a short decimal number without a sign.
func number(s string) (int, bool) {
	if s == "" || len(s) > 4 || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	return n, err == nil
}
