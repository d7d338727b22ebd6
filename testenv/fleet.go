//go:build linux

package testenv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// systemPath is the PATH of what the package starts; sshd and ip are in sbin.
const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// startTimeout bounds the wait for one server where ctx doesn't.
const startTimeout = 60 * time.Second

// Fleet is a running fleet. Its methods may be called from several goroutines.
type Fleet struct {
	hosts  []*Host
	byName map[string]*Host
	groups map[string][]string
	folder string
	client *keyPair
	signer ssh.Signer
	ports  *ports
	net    *network // of a namespaced fleet

	askVersion sync.Once
	newer      bool // than OpenSSH 9.7

	supervisor *client
	command    *exec.Cmd
	stderr     *bytes.Buffer  // of the supervisor; to be read once it has ended
	watching   sync.WaitGroup // goroutines that wait for a server's end
	closing    sync.Once
	closed     error
}

// Start starts a fleet of unprivileged servers on loopback and returns when
// all of them listen. ctx bounds the start only; the fleet runs until Close, or
// until this process ends.
func Start(ctx context.Context, config Config) (*Fleet, error) {
	return start(ctx, config, false)
}

// StartNamespaced starts a fleet of namespaced hosts and returns when all of
// them can be connected to. It fails with an error that wraps [ErrNotRoot] for
// anyone but root. ctx is used as in [Start].
func StartNamespaced(ctx context.Context, config Config) (*Fleet, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("starting namespaced hosts: %w", ErrNotRoot)
	}
	return start(ctx, config, true)
}

// ErrNotRoot says that something needs root.
var ErrNotRoot = errors.New("only root can do that")

func start(ctx context.Context, config Config, namespaced bool) (_ *Fleet, err error) {
	names, groups, err := config.names()
	if err != nil {
		return nil, fmt.Errorf("starting a fleet: %w", err)
	}
	if config.Parent == "" {
		config.Parent = os.TempDir()
	}
	if config.Parent, err = filepath.Abs(config.Parent); err != nil {
		return nil, fmt.Errorf("starting a fleet: %w", err)
	}
	f := &Fleet{groups: groups, byName: map[string]*Host{}, ports: &ports{}}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("starting a fleet: %w", err), f.Close())
		}
	}()
	if err := f.supervise(ctx, config.Parent, namespaced); err != nil {
		return nil, err
	}
	if f.client, err = newKey(Ed25519, "fleet"); err != nil {
		return nil, err
	}
	if f.signer, err = ssh.ParsePrivateKey(f.client.private); err != nil {
		return nil, fmt.Errorf("reading the fleet's key: %w", err)
	}
	if err := f.client.write(f.ClientKey(), "fleet"); err != nil {
		return nil, err
	}
	prepare := f.prepareLoopback
	if namespaced {
		prepare = f.prepareMachine
		if f.net, err = newNetwork(ctx, f.supervisorPID()); err != nil {
			return nil, err
		}
	}
	if err := f.startHosts(ctx, config, names, prepare); err != nil {
		return nil, err
	}
	return f, nil
}

type preparation func(ctx context.Context, h *Host, config HostConfig, keys []*keyPair) (control, error)

func (f *Fleet) startHosts(ctx context.Context, config Config, names []string, prepare preparation) error {
	configs := make([]HostConfig, len(names))
	hasRSA := 0
	for i, name := range names {
		var err error
		if configs[i], err = config.host(name); err != nil {
			return err
		}
		for _, kind := range configs[i].KeyTypes {
			if kind == RSA {
				hasRSA = len(names)
			}
		}
	}
	source, err := newKeySource(ctx, hasRSA)
	if err != nil {
		return err
	}
	for i, name := range names {
		h := &Host{fleet: f, index: i, name: name, folder: filepath.Join(f.folder, "hosts", name)}
		f.hosts = append(f.hosts, h)
		f.byName[name] = h
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, errors.New("the server didn't come up in time"))
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	// More at once only makes each wait longer for its share of the processor.
	g.SetLimit(max(8, 4*runtime.NumCPU()))
	for i, h := range f.hosts {
		g.Go(func() error {
			keys, err := source.keys(i, h.name, configs[i].KeyTypes)
			if err != nil {
				return fmt.Errorf("host %s: %w", h.name, err)
			}
			for _, k := range keys {
				h.keys = append(h.keys, k.public)
			}
			if err := os.MkdirAll(h.folder, 0o755); err != nil {
				return fmt.Errorf("host %s: %w", h.name, err)
			}
			if err := h.writeKnownHosts(); err != nil {
				return fmt.Errorf("host %s: %w", h.name, err)
			}
			if h.control, err = prepare(ctx, h, configs[i], keys); err != nil {
				return fmt.Errorf("host %s: %w", h.name, err)
			}
			return h.Start(ctx)
		})
	}
	return g.Wait()
}

// supervise starts the supervisor and says hello to it.
func (f *Fleet) supervise(ctx context.Context, parent string, namespaced bool) error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("making a socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "supervisor"), os.NewFile(uintptr(fds[1]), "owner")
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	_ = ours.Close()
	if err != nil {
		return fmt.Errorf("using a socket pair: %w", err)
	}
	f.stderr = &bytes.Buffer{}
	f.command = &exec.Cmd{
		Path:        "/proc/self/exe",
		Args:        []string{supervisorName},
		Dir:         "/",
		Env:         []string{roleVariable + "=" + roleSupervisor, "PATH=" + systemPath},
		Stderr:      f.stderr,
		ExtraFiles:  []*os.File{theirs},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	r := request{Op: opHello, Parent: parent}
	if namespaced {
		// What it mounts for its machines is seen by nobody else and ends with it.
		f.command.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
		r.Disk = 1
	}
	if err := f.command.Start(); err != nil {
		_ = conn.Close()
		f.command = nil
		return fmt.Errorf("starting the fleet's supervisor: %w", err)
	}
	f.supervisor = newClient(conn)
	answer, err := f.supervisor.call(ctx, r)
	if err != nil {
		return err
	}
	f.folder = answer.Folder
	return nil
}

func (f *Fleet) supervisorPID() int { return f.command.Process.Pid }

// Close kills everything that the fleet runs, sessions and what they left in
// the background too, and removes its files. Later calls return the same.
func (f *Fleet) Close() error {
	f.closing.Do(func() { f.closed = f.close() })
	return f.closed
}

func (f *Fleet) close() error {
	if f.supervisor == nil {
		return nil
	}
	f.supervisor.close()
	f.watching.Wait()
	ended := time.AfterFunc(30*time.Second, func() { _ = f.command.Process.Kill() })
	err := f.command.Wait()
	ended.Stop()
	f.ports.release()
	if text := strings.TrimSpace(f.stderr.String()); text != "" {
		err = errors.Join(err, errors.New(text))
	}
	if err != nil {
		return fmt.Errorf("ending the fleet's supervisor: %w", err)
	}
	if _, err := os.Lstat(f.folder); f.folder != "" && err == nil {
		return fmt.Errorf("ending the fleet: its folder %q is still there", f.folder)
	}
	return nil
}

// Hosts returns the hosts in the order of Config.
func (f *Fleet) Hosts() []*Host { return append([]*Host(nil), f.hosts...) }

// Host returns the host of that name, or nil.
func (f *Fleet) Host(name string) *Host { return f.byName[name] }

// Dir is the fleet's folder. Files put there are removed by Close.
func (f *Fleet) Dir() string { return f.folder }

// ClientKey is the path of the private key that all hosts let in; its public
// half stands beside it.
func (f *Fleet) ClientKey() string { return filepath.Join(f.folder, "client_key") }

// Signer signs with the key that all hosts let in.
func (f *Fleet) Signer() ssh.Signer { return f.signer }

// KnownHosts writes a known_hosts file of all hosts' keys, each under the
// host's address and under its name.
func (f *Fleet) KnownHosts(path string) error {
	var b strings.Builder
	for _, h := range f.hosts {
		address, port, err := net.SplitHostPort(h.addr)
		if err != nil {
			return fmt.Errorf("writing known_hosts: %w", err)
		}
		names := h.name
		if port == "22" {
			names += "," + address
		} else {
			names += ",[" + h.name + "]:" + port + ",[" + address + "]:" + port
		}
		for _, key := range h.keys {
			b.WriteString(names + " " + string(ssh.MarshalAuthorizedKey(key)))
		}
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("writing known_hosts: %w", err)
	}
	return nil
}
