package plan

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// trustedKeys returns the keys that sshd takes from a TrustedUserCAKeys file,
// and the number of the first line it can't read, or 0. sshd stops at that
// line, silently: keys after it are not trusted today, so they must not become
// trusted by being copied.
func trustedKeys(text []byte) (keys []ssh.PublicKey, brokenLine int) {
	for i, line := range bytes.Split(text, []byte("\n")) {
		line = bytes.TrimLeft(line, " \t")
		line = bytes.TrimRight(line, "\r")
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		key, err := trustedKey(string(line))
		if err != nil {
			return keys, i + 1
		}
		keys = append(keys, key)
	}
	return keys, 0
}

// trustedKey reads "type base64 comment". Options before the type, which
// authorized_keys allows, sshd refuses here; so does this.
func trustedKey(line string) (ssh.PublicKey, error) {
	fields := strings.Fields(line)
	if len(fields) < 2 {
		return nil, fmt.Errorf("no public key")
	}
	blob, err := base64.StdEncoding.DecodeString(fields[1])
	if err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	key, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	if key.Type() != fields[0] {
		return nil, fmt.Errorf("a key of type %q is marked as %q", key.Type(), fields[0])
	}
	if _, ok := key.(*ssh.Certificate); ok {
		return nil, fmt.Errorf("a certificate is not an authority")
	}
	return key, nil
}

// userCAFile is the text of the TrustedUserCAKeys file: our user CAs first,
// then every other key that the host trusts today.
func userCAFile(ours, present []ssh.PublicKey) []byte {
	var b bytes.Buffer
	b.WriteString("# User CA keys, written by fleetca.\n")
	seen := map[string]bool{}
	write := func(keys []ssh.PublicKey) {
		for _, key := range keys {
			if blob := string(key.Marshal()); !seen[blob] {
				seen[blob] = true
				b.Write(ssh.MarshalAuthorizedKey(key))
			}
		}
	}
	write(ours)
	before := b.Len()
	write(present)
	if b.Len() > before {
		rest := bytes.Clone(b.Bytes()[before:])
		b.Truncate(before)
		b.WriteString("# Trusted by this host before, kept.\n")
		b.Write(rest)
	}
	return b.Bytes()
}
