package facts

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// hostKey takes the lines about one host key: its path, then where the public
// key comes from and the key, or what is wrong.
func (p *parser) hostKey(word, value string) error {
	keys := &p.facts.HostKeys
	if word == "hostkey" {
		at, err := absolute(value)
		if err != nil {
			return err
		}
		if len(*keys) >= maxHostKeys {
			return fmt.Errorf("more than %d host keys", maxHostKeys)
		}
		*keys = append(*keys, HostKey{Path: at})
		return nil
	}
	if len(*keys) == 0 {
		return errors.New("no host key before it")
	}
	k := &(*keys)[len(*keys)-1]
	if k.Problem != "" || k.PublicKey != nil {
		return errors.New("the host key before it is complete")
	}
	switch word {
	case "hostkey-problem":
		k.Problem = printable(value)
		if k.Problem == "" {
			k.Problem = "ssh-keygen can't read it"
		}
	case "hostkey-source":
		switch s := Source(value); s {
		case FromPub, FromKey, FromPath, Unchecked:
			k.Source = s
		default:
			return errors.New("unknown source")
		}
	case "hostkey-public":
		key, comment, err := publicKey(value)
		if err != nil {
			k.Problem = err.Error()
			return nil
		}
		k.PublicKey, k.Comment = key, printable(comment)
	}
	return nil
}

// publicKey reads one line of a .pub file.
func publicKey(text string) (ssh.PublicKey, string, error) {
	key, comment, options, _, err := ssh.ParseAuthorizedKey([]byte(text))
	switch {
	case err != nil:
		return nil, "", fmt.Errorf("it is no public key: %w", err)
	case len(options) > 0:
		return nil, "", errors.New("it is no public key: something stands before it")
	}
	if _, is := key.(*ssh.Certificate); is {
		return nil, "", errors.New("it is a certificate, not a public key")
	}
	return key, comment, nil
}

// keys checks that the probe spoke of sshd's host keys, all of them and no
// others.
func (p *parser) keys() error {
	var said, want []string
	for i, k := range p.facts.HostKeys {
		if k.Problem == "" && k.PublicKey == nil {
			p.facts.HostKeys[i].Problem = "the probe says nothing about it"
		}
		said = append(said, k.Path)
	}
	for _, at := range p.facts.Effective["hostkey"] {
		if !slices.Contains(want, at) {
			want = append(want, at)
		}
	}
	if !slices.Equal(said, want) {
		return fmt.Errorf("host keys %q, but sshd uses %q", said, want)
	}
	return nil
}

// certificates reads the effective HostCertificate files.
func (p *parser) certificates() {
	for _, at := range p.facts.Effective["hostcertificate"] {
		c := HostCertificate{Path: at}
		file := p.facts.Files[at]
		switch {
		case !file.Exists:
			c.Problem = "the file is missing"
		case !file.Read:
			c.Problem = "the file can't be read"
		default:
			cert, err := certificate(file.Content)
			if err != nil {
				c.Problem = err.Error()
			}
			c.Certificate = cert
		}
		p.facts.HostCertificates = append(p.facts.HostCertificates, c)
	}
}

// certificate reads a certificate file as sshd does: the first line that holds
// a key counts.
func certificate(text []byte) (*ssh.Certificate, error) {
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		key, _, _, _, err := ssh.ParseAuthorizedKey(line)
		if err != nil {
			continue
		}
		cert, ok := key.(*ssh.Certificate)
		if !ok {
			return nil, errors.New("it is a plain key, not a certificate")
		}
		return cert, nil
	}
	return nil, errors.New("there is no certificate in it")
}

// printable makes text fit to be kept for people: control characters become
// question marks, and what isn't UTF-8 its replacement.
func printable(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || (r >= 0x7f && r < 0xa0) {
			return '?'
		}
		return r
	}, s))
}
