//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/provision"
)

// floorHost is all that the floor needs to know of a host.
type floorHost struct {
	Addr, Login, Config, PIDFile, Key string
}

func (b *bench) writeFloor() error {
	var hosts []floorHost
	for _, h := range b.fleet.Hosts() {
		hosts = append(hosts, floorHost{h.Addr(), h.Login(), h.ConfigPath(), h.PIDFile(), b.fleet.ClientKey()})
	}
	data, err := json.Marshal(hosts)
	if err != nil {
		return err
	}
	return os.WriteFile(b.path("floor.json"), data, 0o600)
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
	spec := fmt.Sprintf("-T -f %s -C user=%s,host=127.0.0.1,addr=127.0.0.1", h.Config, h.Login)
	first, err := h.dial(ctx)
	if err != nil {
		return err
	}
	defer first.Close()
	for _, command := range []string{
		sshd + " " + spec,
		fmt.Sprintf("%s -t -f %s && %s %s && kill -HUP $(cat %s)", sshd, h.Config, sshd, spec, h.PIDFile),
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
