package krl

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"

	"golang.org/x/crypto/ssh"
)

// minRSA is the shortest RSA key, in bits, that OpenSSH takes at all. Its lists
// may hold shorter ones; they are passed over, for no login can use them.
const minRSA = 1024

// readText reads one public key a line, as sshkey_in_file of OpenSSH does. A
// certificate stands for its key. Everything else is an error, on which sshd
// refuses every key.
func (l *List) readText(data []byte) error {
	for n := 1; len(data) > 0; n++ {
		var line []byte
		line, data, _ = bytes.Cut(data, []byte{'\n'})
		line = bytes.TrimLeft(line, " \t")
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		key, err := parseLine(line)
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		if cert, ok := key.(*ssh.Certificate); ok {
			key = cert.Key
		}
		if rsa := rsaBits(key); rsa > 0 && rsa < minRSA {
			continue
		}
		l.keys[string(key.Marshal())] = struct{}{}
	}
	return nil
}

// parseLine reads "type base64 comment".
func parseLine(line []byte) (ssh.PublicKey, error) {
	if bytes.IndexByte(line, 0) >= 0 {
		return nil, errors.New("NUL in a line")
	}
	kind, rest, _ := bytes.Cut(bytes.ReplaceAll(line, []byte{'\t'}, []byte{' '}), []byte{' '})
	encoded, _, _ := bytes.Cut(bytes.TrimLeft(rest, " "), []byte{' '})
	if len(encoded) == 0 {
		return nil, errors.New("neither a public key nor a binary list")
	}
	// Carriage returns are passed over in here, in OpenSSH as in package base64.
	blob, err := base64.StdEncoding.DecodeString(string(encoded))
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	key, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	if key.Type() != string(kind) {
		return nil, fmt.Errorf("public key: says that it is %q and is %q", kind, key.Type())
	}
	return key, nil
}

// rsaBits is the length of an RSA key and 0 of all others.
func rsaBits(key ssh.PublicKey) int {
	if key.Type() != ssh.KeyAlgoRSA {
		return 0
	}
	var w struct {
		Kind string
		E, N []byte
	}
	if ssh.Unmarshal(key.Marshal(), &w) != nil {
		return 0
	}
	return new(big.Int).SetBytes(w.N).BitLen()
}
