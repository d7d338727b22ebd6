package main

import (
	"bytes"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/fleetca/fleetca/ca"
	"github.com/fleetca/fleetca/ca/keyring"
	"github.com/fleetca/fleetca/ca/profile"
	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/cmd/terminal"
)

// newKey is a key that was made for the certificate.
type newKey struct{ private crypto.Signer }

// destination is where a certificate goes, and its key if one was made.
type destination struct {
	keyFile  string // "" if no key was made, or if it goes into the agent
	certFile string // "" for stdout or the agent
	// besides is the private key that a given public key belongs to, as far
	// as its name tells.
	besides string
	key     *newKey
	agent   agent.ExtendedAgent
	confirm bool
	json    bool
}

// destination works out the files from the flags.
func (c *signCmd) destination() (*destination, error) {
	out := &destination{confirm: c.Confirm, json: c.JSON}
	var err error
	switch {
	case c.Agent:
	case c.PublicKey == "" && c.Output == "-":
		return nil, errors.New("--output -: a private key is not written to stdout")
	case c.PublicKey == "":
		name := c.Output
		if name == "" {
			if name, err = c.fileName(); err != nil {
				return nil, err
			}
		}
		if out.keyFile, err = filepath.Abs(name); err != nil {
			return nil, err
		}
		out.certFile = out.keyFile + "-cert.pub"
	case c.Output == "-" || c.PublicKey == "-" && c.Output == "":
	case c.PublicKey == "-":
		out.certFile, err = filepath.Abs(c.Output)
	default:
		if out.besides, err = filepath.Abs(strings.TrimSuffix(c.PublicKey, ".pub")); err != nil {
			return nil, err
		}
		out.certFile = out.besides + "-cert.pub"
		if c.Output != "" {
			out.certFile, err = filepath.Abs(c.Output)
		}
	}
	return out, err
}

// fileName is the name of a key that is made: that of the host or the person.
func (c *signCmd) fileName() (string, error) {
	name := c.User
	if name == "" && len(c.Host) > 0 {
		name = strings.ToLower(c.Host[0])
	}
	if name == "" || strings.HasPrefix(name, ".") || strings.ContainsAny(name, `/\:`) {
		return "", terminal.Hint(fmt.Errorf("%q makes no good file name", name), "say with --output FILE where the key shall go")
	}
	return name, nil
}

// check looks, before anything is signed, whether the files may be written.
// Certificates replace certificates, and nothing else.
func (d *destination) check() error {
	if d.keyFile != "" {
		if _, err := os.Lstat(d.keyFile); err == nil {
			return keyExists(d.keyFile)
		}
	}
	if d.certFile == "" {
		return nil
	}
	info, err := os.Stat(d.certFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().IsRegular() && info.Size() < 1<<20 {
		data, err := os.ReadFile(d.certFile)
		if err != nil {
			return err
		}
		if key, _, _, _, err := ssh.ParseAuthorizedKey(data); err == nil {
			if _, ok := key.(*ssh.Certificate); ok {
				return nil
			}
		}
	}
	return program.WithCode(program.ExitUsage, fmt.Errorf("%q exists and is not a certificate; it is left alone", d.certFile))
}

func keyExists(path string) error {
	return program.WithCode(program.ExitUsage, terminal.Hint(fmt.Errorf("%q exists; a private key is never overwritten", path),
		"sign its public key, or say with --output FILE where a new one shall go"))
}

// write puts the certificate, and the key if one was made, where they belong.
// The key comes first: a certificate without its key is of no use, and a crash
// in between leaves only a key without certificate.
func (d *destination) write(a *program.App, cert *ssh.Certificate) error {
	if d.agent != nil {
		return d.add(a.Now(), cert)
	}
	if d.keyFile != "" {
		err := keyring.Write(d.keyFile, d.key.private, cert.KeyId, nil)
		if errors.Is(err, fs.ErrExist) {
			return keyExists(d.keyFile)
		}
		if err != nil {
			return err
		}
	}
	line := []byte(certLine(cert))
	if d.certFile == "" {
		if d.json {
			return nil // the JSON holds it
		}
		_, err := a.Stdout.Write(line)
		return err
	}
	err := renameio.WriteFile(d.certFile, line, 0o644, renameio.IgnoreUmask())
	if err != nil {
		err = fmt.Errorf("writing certificate %q: %w", d.certFile, err)
		if d.keyFile != "" {
			err = errors.Join(err, os.Remove(d.keyFile))
		}
	}
	return err
}

func certLine(cert *ssh.Certificate) string {
	return authorizedLine(cert) + " " + cert.KeyId + "\n"
}

// add puts key and certificate into the agent, which forgets them in the moment
// that the certificate expires.
func (d *destination) add(now time.Time, cert *ssh.Certificate) error {
	life := time.Unix(int64(cert.ValidBefore), 0).Sub(now)
	err := d.agent.Add(agent.AddedKey{
		PrivateKey: d.key.private, Certificate: cert, Comment: "fleetca " + cert.KeyId,
		LifetimeSecs: uint32(max(life/time.Second, 1)), ConfirmBeforeUse: d.confirm,
	})
	if err != nil {
		return terminal.Hint(fmt.Errorf("adding the certificate to ssh-agent: %w", err),
			"some agents (GNOME Keyring, old gpg-agent) hold no certificates; OpenSSH's ssh-agent does")
	}
	// Some agents say yes and keep only the key.
	keys, err := d.agent.List()
	if err != nil {
		return fmt.Errorf("listing the keys in ssh-agent: %w", err)
	}
	for _, k := range keys {
		if bytes.Equal(k.Marshal(), cert.Marshal()) {
			return nil
		}
	}
	return terminal.Hint(errors.New("ssh-agent took the certificate and does not show it"),
		"some agents (GNOME Keyring, old gpg-agent) hold no certificates; OpenSSH's ssh-agent does")
}

// signed is the JSON of one certificate that was issued.
type signed struct {
	ca.Entry
	Certificate     string `json:"certificate"`
	CertificateFile string `json:"certificate_file,omitempty"`
	KeyFile         string `json:"key_file,omitempty"`
	InAgent         bool   `json:"in_agent,omitempty"`
}

// report tells what was issued: the lines to configure on stdout, or JSON.
func (c *signCmd) report(a *program.App, d *destination, cert *ssh.Certificate) error {
	entry := ca.Describe(cert)
	if c.JSON {
		return json.NewEncoder(a.Stdout).Encode(signed{
			Entry: entry, Certificate: authorizedLine(cert),
			CertificateFile: d.certFile, KeyFile: d.keyFile, InAgent: d.agent != nil,
		})
	}
	fmt.Fprintf(a.Stderr, "%s certificate for %s, serial %d, for %s, valid for %s until %s\n",
		entry.Kind, terminal.Clean(entry.KeyID), entry.Serial, terminal.Clean(strings.Join(entry.Principals, ",")),
		left(a.Now(), entry.ValidBefore), entry.ValidBefore.Format(time.RFC3339))
	if d.agent != nil {
		fmt.Fprintln(a.Stderr, "key and certificate are in ssh-agent until then")
		return nil
	}
	key := d.keyFile
	if key == "" {
		key = d.besides
	}
	if d.certFile == "" || key == "" {
		return nil
	}
	if entry.Kind == profile.Host {
		fmt.Fprintln(a.Stderr, "put both files on the host, and these lines into its sshd_config, with the paths there:")
		fmt.Fprintf(a.Stdout, "HostKey %s\nHostCertificate %s\n", configPath(key), configPath(d.certFile))
		return nil
	}
	fmt.Fprintln(a.Stderr, "ssh -i finds the certificate beside the key; or in ssh_config:")
	fmt.Fprintf(a.Stdout, "IdentityFile %s\nCertificateFile %s\n", configPath(key), configPath(d.certFile))
	return nil
}

// configPath quotes a path as sshd_config and ssh_config read it.
func configPath(path string) string {
	if strings.ContainsAny(path, " \t\"'#=") {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(terminal.Clean(path)) + `"`
	}
	return terminal.Clean(path)
}
