//go:build linux

package testenv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// machine is a namespaced host.
type machine struct {
	*Host
	config HostConfig
	spec   *machineSpec
	ended  *ending // of the host's first process
}

const (
	initScript   = "/etc/init.d/ssh"
	dropbearPID  = "/run/dropbear.pid"
	defaultDisk  = 64
	systemDisk   = "system"
	userDisk     = "user"
	connectWait  = time.Second
	nameOfFiller = "filler"
)

func (f *Fleet) prepareMachine(_ context.Context, h *Host, config HostConfig, keys []*keyPair) (control, error) {
	if h.index >= maxHosts {
		return nil, fmt.Errorf("a namespaced fleet has at most %d hosts", maxHosts)
	}
	if strings.ContainsAny(h.folder, ",:\\") {
		return nil, fmt.Errorf("mounts can't be made below a folder with that name: %q", h.folder)
	}
	h.login = withDefault(config.System.Login, Admin)
	if h.home = "/home/" + h.login; h.login == Root {
		h.home = "/root"
	}
	address := f.net.address(h.index)
	h.addr = net.JoinHostPort(address.String(), "22")
	h.configPath, h.pidFile = defaultConfigPath, "/run/sshd.pid"
	files, err := etcFiles(h, config, address.String(), f.client.authorized("fleet"))
	if err != nil {
		return nil, err
	}
	spec := &machineSpec{
		Name:        h.name,
		Address:     address.String() + "/" + strconv.Itoa(f.net.prefix().Bits()),
		Gateway:     f.net.prefix().Addr().String(),
		System:      h.disk(systemDisk),
		User:        h.disk(userDisk),
		Clear:       etcClear,
		Files:       append(files, sshFiles(h, config, keys)...),
		Start:       []string{initScript, "start"},
		Hide:        config.System.Hide,
		ReadOnlyEtc: config.System.ReadOnlyEtc,
	}
	if config.System.NoSudo {
		spec.Hide = append(append([]string(nil), spec.Hide...), "/usr/bin/sudo")
	}
	if config.System.Busybox {
		if spec.Busybox, err = lookSystem("busybox", "busybox"); err != nil {
			return nil, err
		}
	}
	if config.System.Dropbear {
		if err := spec.useDropbear(keys); err != nil {
			return nil, err
		}
		h.pidFile = dropbearPID
	} else if _, err := lookSystem("sshd", "openssh-server"); err != nil {
		return nil, err
	}
	return &machine{Host: h, config: config, spec: spec}, nil
}

func (m *machineSpec) useDropbear(keys []*keyPair) error {
	dropbear, err := lookSystem("dropbear", "dropbear-bin")
	if err != nil {
		return err
	}
	convert, err := lookSystem("dropbearconvert", "dropbear-bin")
	if err != nil {
		return err
	}
	m.Start = []string{dropbear, "-p", "22", "-P", dropbearPID}
	for _, k := range keys {
		to := "/etc/dropbear/dropbear_" + k.kind + "_host_key"
		m.Once = append(m.Once, []string{convert, "openssh", "dropbear", hostKeyPath("/etc/ssh", k.kind), to})
		m.Start = append(m.Start, "-r", to)
	}
	m.Once = append(m.Once, []string{"/bin/rm", "-r", "/etc/ssh"})
	return nil
}

func (h *Host) disk(name string) string { return filepath.Join(h.folder, "disks", name) }

func (m *machine) start(ctx context.Context) error {
	if !m.ended.running() {
		if err := m.boot(ctx); err != nil {
			return err
		}
	} else if err := m.run(ctx, m.spec.Start...); err != nil {
		return err
	}
	return m.reachable(ctx)
}

// boot starts the host's first process, plugs it into the network, and lets it
// set up the host.
func (m *machine) boot(ctx context.Context) error {
	size := m.config.System.DiskMiB
	if size == 0 {
		size = defaultDisk
	}
	if err := m.fleet.net.unplug(ctx, m.index); err != nil {
		return err
	}
	answer, err := m.fleet.supervisor.call(ctx, request{Op: opClone, Host: m.name, Log: m.logPath(), Disk: size, Argv: []string{m.spec.System, m.spec.User}})
	if err != nil {
		return err
	}
	m.ended = m.fleet.watch(m.name)
	m.pid.Store(int64(answer.PID))
	if err := m.fleet.net.plug(ctx, m.index, answer.PID); err != nil {
		return err
	}
	_, err = m.fleet.supervisor.call(ctx, request{Op: opBoot, Host: m.name, Spec: m.spec})
	return err
}

// reachable waits until the server has written its pid file, which it does
// after it has begun to listen, and the network carries packets to the host. A
// port where nothing listens tells the latter: a connection to the server would
// stand in its log, and newer ones hold it against us.
func (m *machine) reachable(ctx context.Context) error {
	dialer := net.Dialer{Timeout: connectWait}
	closed := net.JoinHostPort(m.fleet.net.address(m.index).String(), "1")
	return poll(ctx, m.ended, func() (bool, error) {
		if m.server() == 0 {
			return false, nil
		}
		conn, err := dialer.DialContext(ctx, "tcp", closed)
		if err == nil {
			return true, conn.Close()
		}
		return errors.Is(err, unix.ECONNREFUSED), nil
	})
}

func (m *machine) run(ctx context.Context, argv ...string) error {
	_, err := m.Exec(ctx, argv...)
	return err
}

// server returns the process id that stands in the pid file, as the host
// counts them, or 0 if that process doesn't run.
func (m *machine) server() (pid int) {
	text, err := os.ReadFile(m.File(m.pidFile))
	if err != nil {
		return 0
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	if _, err := os.Lstat(m.File("/proc/" + strconv.Itoa(pid))); err != nil {
		return 0
	}
	return pid
}

func (m *machine) stop(ctx context.Context) error {
	if !m.ended.running() {
		return nil
	}
	argv := []string{initScript, "stop"}
	if m.config.System.Dropbear {
		argv = []string{"/bin/sh", "-c", "kill $(cat " + dropbearPID + ")"}
	}
	if err := m.run(ctx, argv...); err != nil {
		return err
	}
	return poll(ctx, m.ended, func() (bool, error) { return m.server() == 0, nil })
}

func (m *machine) reload(ctx context.Context) error {
	if m.config.System.Dropbear {
		return fmt.Errorf("reloading dropbear: %w", ErrUnsupported)
	}
	pid := m.server()
	if !m.ended.running() || pid == 0 {
		return errors.New("the server isn't running")
	}
	before, err := os.Stat(m.File(m.pidFile))
	if err != nil {
		return fmt.Errorf("looking at the pid file: %w", err)
	}
	if err := m.run(ctx, initScript, "reload"); err != nil {
		return err
	}
	// sshd writes the file anew once it listens again.
	return poll(ctx, m.ended, func() (bool, error) {
		if _, err := os.Lstat(m.File("/proc/" + strconv.Itoa(pid))); err != nil {
			return false, errors.New("the server has ended")
		}
		now, err := os.Stat(m.File(m.pidFile))
		return err == nil && !(os.SameFile(now, before) && now.ModTime().Equal(before.ModTime())) && m.server() == pid, nil
	})
}

func (m *machine) kill(ctx context.Context) error {
	if _, err := m.fleet.supervisor.call(ctx, request{Op: opKill, Host: m.name}); err != nil {
		return err
	}
	if err := m.ended.wait(ctx); err != nil {
		return err
	}
	return m.fleet.net.unplug(ctx, m.index)
}

// needMachine returns the process id of a namespaced host's first process.
func (h *Host) needMachine() (int, error) {
	if h.fleet.net == nil {
		return 0, fmt.Errorf("host %s is an unprivileged one: %w", h.name, ErrUnsupported)
	}
	return int(h.pid.Load()), nil
}

// File returns the path, on this machine, of a file on the host. For a
// namespaced host it holds until the next Kill, and links on its way must be
// relative; for others it is the path itself.
func (h *Host) File(path string) string {
	pid, err := h.needMachine()
	if err != nil {
		return path
	}
	return "/proc/" + strconv.Itoa(pid) + "/root" + path
}

// Command returns a command that runs as root within the namespaces of a
// namespaced host, as if from its console.
func (h *Host) Command(ctx context.Context, argv ...string) (*exec.Cmd, error) {
	pid, err := h.needMachine()
	if err != nil {
		return nil, err
	}
	c := exec.CommandContext(ctx, "nsenter", append([]string{
		"--target", strconv.Itoa(pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--",
	}, argv...)...)
	c.Env = []string{"PATH=" + systemPath, "HOME=/root", "USER=root", "LOGNAME=root", "SHELL=/bin/sh", "LANG=C.UTF-8"}
	c.WaitDelay = 5 * time.Second
	return c, nil
}

// Exec runs a command as root within a namespaced host and returns its standard
// output. If it fails, the error holds what it wrote to standard error, and
// wraps an *exec.ExitError.
func (h *Host) Exec(ctx context.Context, argv ...string) ([]byte, error) {
	c, err := h.Command(ctx, argv...)
	if err != nil {
		return nil, err
	}
	out, err := c.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return out, fmt.Errorf("running %q on host %s: %w: %s", argv, h.name, err, strings.TrimSpace(string(out)+string(exit.Stderr)))
		}
		return out, fmt.Errorf("running %q on host %s: %w", argv, h.name, err)
	}
	return out, nil
}

// Partition cuts a namespaced host off the network, as if its cable were
// pulled: nothing is refused, packets just vanish.
func (h *Host) Partition(ctx context.Context) error { return h.setLink(ctx, "down") }

// Heal ends what Partition began.
func (h *Host) Heal(ctx context.Context) error { return h.setLink(ctx, "up") }

func (h *Host) setLink(ctx context.Context, state string) error {
	if _, err := h.needMachine(); err != nil {
		return err
	}
	if err := ip(ctx, "link set dev "+h.fleet.net.link(h.index)+" "+state); err != nil {
		return fmt.Errorf("taking the link of host %s %s: %w", h.name, state, err)
	}
	return nil
}

// Delay adds d to the round trip to a namespaced host; zero ends it. It fails
// with an error that wraps [ErrUnsupported] where the kernel has no sch_netem.
func (h *Host) Delay(ctx context.Context, d time.Duration) error {
	if _, err := h.needMachine(); err != nil {
		return err
	}
	tc, err := lookSystem("tc", "iproute2")
	if err != nil {
		return err
	}
	args := func(link string) []string {
		half := strconv.FormatInt((d/2).Microseconds(), 10) + "us"
		return []string{tc, "qdisc", "replace", "dev", link, "root", "netem", "delay", half, "limit", "100000"}
	}
	inside, err := h.Command(ctx, args("eth0")...)
	if err != nil {
		return err
	}
	link := args(h.fleet.net.link(h.index))
	for _, c := range []*exec.Cmd{exec.CommandContext(ctx, link[0], link[1:]...), inside} {
		if err := run(c); err != nil {
			text := err.Error()
			if strings.Contains(text, "qdisc kind is unknown") || strings.Contains(text, "No such file or directory") {
				err = fmt.Errorf("%w: the kernel has no sch_netem: %w", ErrUnsupported, err)
			}
			return fmt.Errorf("delaying packets of host %s: %w", h.name, err)
		}
	}
	return nil
}

// FillDisk fills the disk of a namespaced host on which path is, to the last
// byte: one disk holds /home and /tmp, the other /etc, /var and /root.
func (h *Host) FillDisk(path string) error {
	file, err := h.filler(path)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("filling the disk of host %s: %w", h.name, err)
	}
	defer f.Close()
	for block := make([]byte, 1<<20); len(block) > 0; {
		if _, err := f.Write(block); errors.Is(err, unix.ENOSPC) {
			block = block[:len(block)/2]
		} else if err != nil {
			return fmt.Errorf("filling the disk of host %s: %w", h.name, err)
		}
	}
	return nil
}

// FreeDisk ends what FillDisk began.
func (h *Host) FreeDisk(path string) error {
	file, err := h.filler(path)
	if err != nil {
		return err
	}
	if err := os.Remove(file); err != nil {
		return fmt.Errorf("freeing the disk of host %s: %w", h.name, err)
	}
	return nil
}

// filler is the path of the file that fills a disk, which the host can't see.
// The disks are mounted where only the supervisor sees them.
func (h *Host) filler(path string) (string, error) {
	if _, err := h.needMachine(); err != nil {
		return "", err
	}
	disk := systemDisk
	switch first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/"); first {
	case "etc", "var", "root":
	case "home", "tmp":
		disk = userDisk
	default:
		return "", fmt.Errorf("host %s has no disk for %q: %w", h.name, path, ErrUnsupported)
	}
	return "/proc/" + strconv.Itoa(h.fleet.supervisorPID()) + "/root" + filepath.Join(h.disk(disk), nameOfFiller), nil
}

// clone starts a machine's first process in namespaces of its own. Its disks
// are mounted when it is started the first time: they live on over a Kill.
func (s *supervisor) clone(r request) (int, error) {
	for _, disk := range r.Argv {
		var of unix.Stat_t
		var parent unix.Stat_t
		if err := os.MkdirAll(disk, 0o755); err != nil {
			return 0, fmt.Errorf("making disk: %w", err)
		}
		if err := errors.Join(unix.Stat(disk, &of), unix.Stat(filepath.Dir(disk), &parent)); err != nil {
			return 0, fmt.Errorf("making disk: %w", err)
		}
		if of.Dev != parent.Dev {
			continue
		}
		if err := mount("tmpfs", disk, "tmpfs", 0, "mode=755,size="+strconv.Itoa(r.Disk)+"m"); err != nil {
			return 0, err
		}
		s.disks = append(s.disks, disk)
	}
	log, err := os.OpenFile(r.Log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return 0, fmt.Errorf("opening log: %w", err)
	}
	defer log.Close()
	specR, specW, err := os.Pipe()
	if err != nil {
		return 0, fmt.Errorf("making a pipe: %w", err)
	}
	defer specR.Close()
	answerR, answerW, err := os.Pipe()
	if err != nil {
		return 0, errors.Join(fmt.Errorf("making a pipe: %w", err), specW.Close())
	}
	defer answerW.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, errors.Join(fmt.Errorf("opening standard input: %w", err), specW.Close(), answerR.Close())
	}
	defer null.Close()
	c, err := s.start(r.Host, "/proc/self/exe", []string{supervisorName + ": " + r.Host}, &os.ProcAttr{
		Dir:   "/",
		Env:   []string{roleVariable + "=" + roleMachine, "PATH=" + systemPath},
		Files: []*os.File{null, log, log, specR, answerW},
		Sys: &syscall.SysProcAttr{
			Setsid:    true,
			Pdeathsig: syscall.SIGKILL,
			Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET |
				syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		},
	})
	if err != nil {
		return 0, errors.Join(err, specW.Close(), answerR.Close())
	}
	c.spec, c.answer = specW, answerR
	return c.pid, nil
}

// boot gives the waiting machine its specification and waits until it is up.
func (s *supervisor) boot(r request) error {
	var c *child
	s.do(func() { c = s.current[r.Host] })
	if c == nil || c.spec == nil {
		return fmt.Errorf("%q was never started", r.Host)
	}
	err := json.NewEncoder(c.spec).Encode(r.Spec)
	if err := errors.Join(err, c.spec.Close()); err != nil {
		return fmt.Errorf("giving the machine its specification: %w", err)
	}
	var answer machineAnswer
	err = json.NewDecoder(c.answer).Decode(&answer)
	_ = c.answer.Close()
	if errors.Is(err, io.EOF) {
		return errors.New("the machine died while it was set up")
	}
	if err != nil {
		return fmt.Errorf("reading the machine's answer: %w", err)
	}
	if answer.Error != "" {
		return errors.New(answer.Error)
	}
	return nil
}
