//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/provision"
)

// floorHost is all that the floor needs to know of a host. Bare is the main
// configuration as it was before.
type floorHost struct {
	Addr, Login, Bare, PIDFile, Key string
}

func (b *bench) writeFloor() error {
	var hosts []floorHost
	for _, h := range b.fleet.Hosts() {
		bare := filepath.Join(filepath.Dir(h.ConfigPath()), "bare")
		text, err := os.ReadFile(h.ConfigPath())
		if err != nil {
			return err
		}
		// Without the Include the settings of the floor's drop-in don't count.
		var kept []string
		for line := range strings.Lines(string(text)) {
			if !strings.HasPrefix(line, "Include") {
				kept = append(kept, line)
			}
		}
		if err := os.WriteFile(bare, []byte(strings.Join(kept, "")), 0o600); err != nil {
			return err
		}
		hosts = append(hosts, floorHost{h.Addr(), h.Login(), bare, h.PIDFile(), b.fleet.ClientKey()})
	}
	data, err := json.Marshal(hosts)
	if err != nil {
		return err
	}
	return os.WriteFile(b.path("floor.json"), data, 0o600)
}

// layOut puts the certificates and settings in place, unmeasured, so that the
// reload and the second connection cost sshd what they cost it with fleetca:
// it verifies each certificate whenever it loads it.
func (b *bench) layOut() error {
	ca, err := os.ReadFile(b.path("ca/host_ca"))
	if err != nil {
		return err
	}
	signer, err := ssh.ParsePrivateKey(ca)
	if err != nil {
		return err
	}
	for _, h := range b.fleet.Hosts() {
		dir := filepath.Dir(h.ConfigPath())
		var settings strings.Builder
		if err := os.Mkdir(filepath.Join(dir, "fleetca"), 0o755); err != nil {
			return err
		}
		for _, key := range h.PublicKeys() {
			cert := &ssh.Certificate{
				Key: key, Serial: 1, CertType: ssh.HostCert, KeyId: h.Name(), ValidPrincipals: []string{h.Name()},
				ValidBefore: ssh.CertTimeInfinity,
			}
			if err := cert.SignCert(rand.Reader, signer); err != nil {
				return err
			}
			file := filepath.Join(dir, "fleetca", key.Type()+"-cert.pub")
			if err := os.WriteFile(file, ssh.MarshalAuthorizedKey(cert), 0o644); err != nil {
				return err
			}
			fmt.Fprintf(&settings, "HostCertificate %s\n", file)
		}
		if err := os.WriteFile(filepath.Join(dir, "sshd_config.d", "00-fleetca.conf"), []byte(settings.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// runFloor does on each host what no safe way can do without: a connection on
// which the effective configuration is read, a candidate is checked and sshd is
// reloaded; then a second connection that proves the first one's work.
func runFloor(ctx context.Context, file string, forks int) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var hosts []floorHost
	if err := json.Unmarshal(data, &hosts); err != nil {
		return err
	}
	if forks == 0 {
		forks = provision.DefaultForks()
	}
	var (
		mu   sync.Mutex
		errs []error
		wg   sync.WaitGroup
	)
	slots := make(chan struct{}, forks)
	for _, h := range hosts {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := h.floor(ctx); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf("%s: %w", h.Addr, err))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (h floorHost) floor(ctx context.Context) error {
	const sshd = "/usr/sbin/sshd"
	spec := fmt.Sprintf("-T -f %s -C user=%s,host=127.0.0.1,addr=127.0.0.1", h.Bare, h.Login)
	first, err := h.dial(ctx)
	if err != nil {
		return err
	}
	defer first.Close()
	for _, command := range []string{
		sshd + " " + spec,
		fmt.Sprintf("%s -t -f %s && %s %s && kill -HUP $(cat %s)", sshd, h.Bare, sshd, spec, h.PIDFile),
	} {
		if err := exec1(first, command); err != nil {
			return err
		}
	}
	second, err := h.dial(ctx)
	if err != nil {
		return err
	}
	defer second.Close()
	return exec1(second, "true")
}

// dial tries again while sshd is restarting itself.
func (h floorHost) dial(ctx context.Context) (*ssh.Client, error) {
	pem, err := os.ReadFile(h.Key)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(pem)
	if err != nil {
		return nil, err
	}
	config := &ssh.ClientConfig{
		User: h.Login,
		// As fleetca connects: the host key's type decides what sshd spends.
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(signer)},
		// The floor measures what a connection costs; whom it reaches is known.
		HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	}
	var dialer net.Dialer
	for {
		conn, err := dialer.DialContext(ctx, "tcp", h.Addr)
		if err == nil {
			c, chans, reqs, handshake := ssh.NewClientConn(conn, h.Addr, config)
			if handshake == nil {
				return ssh.NewClient(c, chans, reqs), nil
			}
			err = handshake
			conn.Close()
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func exec1(c *ssh.Client, command string) error {
	session, err := c.NewSession()
	if err != nil {
		return err
	}
	defer session.Close()
	if out, err := session.CombinedOutput(command); err != nil {
		return fmt.Errorf("%s: %w\n%s", command, err, out)
	}
	return nil
}
