package profile

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

const (
	// MaxPrincipals is the most principals that OpenSSH reads from a certificate.
	MaxPrincipals = 256
	// MaxUserPrincipal is the longest login or role, in bytes.
	MaxUserPrincipal = 128
	// MaxHostPrincipal is the longest DNS name.
	MaxHostPrincipal = 253
	// MaxKeyID is the longest key ID, in bytes. The longest host name fits, since
	// hosts are known by it.
	MaxKeyID = 253
)

// CheckKeyID tells whether id may name an identity. It allows one word of
// letters, digits and ._-@:+/=~#%. sshd logs key IDs unquoted, so white space
// would let an ID pass for more of the line than it is.
func CheckKeyID(id string) error {
	switch {
	case id == "":
		return errors.New("key ID is empty")
	case len(id) > MaxKeyID:
		return fmt.Errorf("key ID of %d bytes is over the maximum of %d", len(id), MaxKeyID)
	case id[0] == '-':
		return fmt.Errorf("key ID %q begins with a dash", id)
	}
	if r, bad := firstOutside(id, "._-@:+/=~#%"); bad {
		return fmt.Errorf("key ID %q holds %q; allowed are letters, digits and ._-@:+/=~#%%", id, r)
	}
	return nil
}

// CheckUserPrincipal tells whether p may be a principal of a user certificate:
// a login or a role that AuthorizedPrincipalsFile maps to one.
func CheckUserPrincipal(p string) error {
	switch {
	case p == "":
		return errors.New("principal is empty")
	case len(p) > MaxUserPrincipal:
		return fmt.Errorf("principal of %d bytes is over the maximum of %d", len(p), MaxUserPrincipal)
	case p[0] == '-':
		return fmt.Errorf("principal %q begins with a dash", p)
	}
	if r, bad := firstOutside(p, `._-@:+/\`); bad {
		return fmt.Errorf(`principal %q holds %q; allowed are letters, digits and ._-@:+/\`, p, r)
	}
	return nil
}

// HostPrincipal gives the principal of a host certificate for a host's name:
// a DNS name in lower case or an IP address in its canonical form. Names with a
// port are refused, because ssh looks a certificate up by the bare name.
func HostPrincipal(name string) (string, error) {
	if a, err := netip.ParseAddr(name); err == nil {
		if a.Zone() != "" {
			return "", fmt.Errorf("host name %q has a zone", name)
		}
		return a.String(), nil
	}
	switch {
	case name == "":
		return "", errors.New("host name is empty")
	case len(name) > MaxHostPrincipal:
		return "", fmt.Errorf("host name of %d bytes is over the maximum of %d", len(name), MaxHostPrincipal)
	}
	if r, bad := firstOutside(name, "._-"); bad {
		return "", fmt.Errorf("host name %q holds %q; allowed are letters, digits and ._-", name, r)
	}
	for label := range strings.SplitSeq(name, ".") {
		switch {
		case label == "":
			return "", fmt.Errorf("host name %q has an empty label", name)
		case len(label) > 63:
			return "", fmt.Errorf("host name %q has a label of over 63 bytes", name)
		case label[0] == '-' || label[len(label)-1] == '-':
			return "", fmt.Errorf("host name %q has a label that begins or ends with a dash", name)
		}
	}
	return strings.ToLower(name), nil
}

// firstOutside finds the first character that is neither an ASCII letter or
// digit nor one of allowed.
func firstOutside(s, allowed string) (rune, bool) {
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		case strings.ContainsRune(allowed, r):
		default:
			return r, true
		}
	}
	return 0, false
}

// checkPrincipals gives the principals in canonical form, each once, in order.
func checkPrincipals(k Kind, names []string) ([]string, error) {
	if len(names) == 0 {
		// Some versions of OpenSSH take a certificate without principals as
		// valid for everybody and everything.
		return nil, errors.New("no principals: a certificate must name whom it is for")
	}
	if len(names) > MaxPrincipals {
		return nil, fmt.Errorf("%d principals are over OpenSSH's maximum of %d", len(names), MaxPrincipals)
	}
	var out []string
	for _, name := range names {
		var err error
		if k == Host {
			name, err = HostPrincipal(name)
		} else {
			err = CheckUserPrincipal(name)
		}
		if err != nil {
			return nil, err
		}
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out, nil
}
