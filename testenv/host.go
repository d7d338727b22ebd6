//go:build linux

package testenv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

// ErrUnsupported says that a host of this kind can't do that, or that this
// machine can't.
var ErrUnsupported = errors.New("not supported")

// Host is one host of a fleet. Its methods may be called from several
// goroutines; those that change it wait for each other.
type Host struct {
	fleet  *Fleet
	index  int
	name   string
	folder string
	keys   []ssh.PublicKey

	// Set by the preparation, not changed after Start of the fleet has returned.
	addr       string
	login      string
	home       string
	configPath string
	pidFile    string
	pid        atomic.Int64 // of a namespaced host's first process

	changing sync.Mutex
	control  control
}

// control is what differs between kinds of hosts. Calls never overlap.
type control interface {
	start(ctx context.Context) error
	stop(ctx context.Context) error
	reload(ctx context.Context) error
	kill(ctx context.Context) error
}

// Name is the host's name in the inventory.
func (h *Host) Name() string { return h.name }

// Addr is where the host listens, as host:port.
func (h *Host) Addr() string { return h.addr }

// Login is the account to log in to.
func (h *Host) Login() string { return h.login }

// Home is the login's home folder, a path on the host.
func (h *Host) Home() string { return h.home }

// Dir is the host's folder in the fleet's folder, a path on this machine.
func (h *Host) Dir() string { return h.folder }

// ConfigPath is the main sshd_config, a path on the host.
func (h *Host) ConfigPath() string { return h.configPath }

// PIDFile is sshd's pid file, a path on the host.
func (h *Host) PIDFile() string { return h.pidFile }

// PublicKeys are the host keys that the host was started with.
func (h *Host) PublicKeys() []ssh.PublicKey { return append([]ssh.PublicKey(nil), h.keys...) }

func (h *Host) logPath() string { return filepath.Join(h.folder, "log") }

// Log returns what the server has logged: sshd's log, and on a namespaced
// host all that went to syslog.
func (h *Host) Log() string {
	text, err := os.ReadFile(h.logPath())
	if err != nil {
		return ""
	}
	return string(text)
}

// logTail returns the last lines of the log from that offset on, for errors.
func (h *Host) logTail(from int) string {
	text := h.Log()
	text = text[min(from, len(text)):]
	rows := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(rows[max(0, len(rows)-12):], "\n")
}

func (h *Host) change(ctx context.Context, doing string, f func(context.Context) error) error {
	h.changing.Lock()
	defer h.changing.Unlock()
	from := len(h.Log())
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, errors.New("that took too long"))
	defer cancel()
	if err := f(ctx); err != nil {
		err = fmt.Errorf("%s host %s: %w", doing, h.name, err)
		if tail := h.logTail(from); tail != "" {
			err = fmt.Errorf("%w\nits log:\n%s", err, tail)
		}
		return err
	}
	return nil
}

// Start starts the server after Stop, or the whole host after Kill, and
// returns when it can be connected to.
func (h *Host) Start(ctx context.Context) error { return h.change(ctx, "starting", h.control.start) }

// Stop ends the server in order. Its sessions live on.
func (h *Host) Stop(ctx context.Context) error { return h.change(ctx, "stopping", h.control.stop) }

// Restart is Stop and Start.
func (h *Host) Restart(ctx context.Context) error {
	return h.change(ctx, "restarting", func(ctx context.Context) error {
		if err := h.control.stop(ctx); err != nil {
			return err
		}
		return h.control.start(ctx)
	})
}

// Reload makes the server read its configuration again and returns when it
// has: by a bare SIGHUP on unprivileged hosts, which ends a server whose
// configuration is bad, and by the init script on namespaced ones, which checks
// the configuration first. Either way that is an error.
func (h *Host) Reload(ctx context.Context) error { return h.change(ctx, "reloading", h.control.reload) }

// Kill kills the host as a power cut would: the server, its sessions and all
// that these started. Its files stay.
func (h *Host) Kill(ctx context.Context) error { return h.change(ctx, "killing", h.control.kill) }

func (h *Host) knownHosts() string { return filepath.Join(h.folder, "known_hosts") }

func (h *Host) writeKnownHosts() error {
	var text strings.Builder
	for _, key := range h.keys {
		text.WriteString(h.name + " " + string(ssh.MarshalAuthorizedKey(key)))
	}
	if err := os.WriteFile(h.knownHosts(), []byte(text.String()), 0o600); err != nil {
		return fmt.Errorf("writing known_hosts: %w", err)
	}
	return nil
}

// SSH returns a command that runs the plain ssh client against the host, with
// the fleet's key and known_hosts of its plain keys only, and with nothing of
// the user's or the machine's configuration. Of options given twice ssh takes
// the first, so those in arguments are put before ours. The host's name is
// added after them; arguments for the remote side are for the caller to append
// to Args.
func (h *Host) SSH(ctx context.Context, options ...string) (*exec.Cmd, error) {
	address, port, err := net.SplitHostPort(h.addr)
	if err != nil {
		return nil, fmt.Errorf("reading the address of host %s: %w", h.name, err)
	}
	args := append([]string{"-F", "none"}, options...)
	args = append(args, "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-i", h.fleet.ClientKey(),
		"-o", "UserKnownHostsFile="+h.knownHosts(), "-o", "GlobalKnownHostsFile=none",
		"-o", "StrictHostKeyChecking=yes", "-o", "HostKeyAlias="+h.name,
		"-o", "HostName="+address, "-p", port, "-l", h.login, h.name)
	return exec.CommandContext(ctx, "ssh", args...), nil
}

// ending is how a server ended, once done is closed. A nil one stands for a
// server that was never started.
type ending struct {
	done chan struct{}
	err  error
}

// watch returns the ending of the host's running server. Its goroutine ends
// with the server, at the latest when the fleet is closed.
func (f *Fleet) watch(host string) *ending {
	e := &ending{done: make(chan struct{})}
	last := f.supervisor.send(request{Op: opWait, Host: host})
	f.watching.Go(func() {
		defer close(e.done)
		if answer, ok := <-last; ok {
			e.err = fmt.Errorf("the server has ended: %s%s", answer.Status, answer.Error)
		} else {
			e.err = errSupervisorGone
		}
	})
	return e
}

func (e *ending) running() bool {
	if e == nil {
		return false
	}
	select {
	case <-e.done:
		return false
	default:
		return true
	}
}

func (e *ending) wait(ctx context.Context) error {
	if e == nil {
		return nil
	}
	select {
	case <-e.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// poll calls ready again and again until it says yes or fails, or the server
// has ended.
func poll(ctx context.Context, server *ending, ready func() (bool, error)) error {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		if ok, err := ready(); ok || err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-server.done:
			return server.err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
