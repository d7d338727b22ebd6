//go:build linux

package testenv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// loopback is an sshd on 127.0.0.1, run by the current user.
type loopback struct {
	*Host
	config HostConfig
	sshd   string
	// penalises says that this sshd knows PerSourcePenalties (9.8 and later).
	penalises bool
	port      int
	ended     *ending // of the last server started
}

// portTries is how often another port is tried if one turns out to be taken.
const portTries = 20

func (f *Fleet) prepareLoopback(_ context.Context, h *Host, config HostConfig, keys []*keyPair) (control, error) {
	if !config.System.zero() {
		return nil, errors.New("config.System is for namespaced hosts")
	}
	sshd, err := lookSystem("sshd", "openssh-server")
	if err != nil {
		return nil, err
	}
	me, err := user.Current()
	if err != nil {
		return nil, fmt.Errorf("looking up who we are: %w", err)
	}
	if os.Geteuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			return nil, fmt.Errorf("making sshd's folder: %w", err)
		}
	}
	etc := filepath.Join(h.folder, "etc", "ssh")
	h.login, h.home = me.Username, filepath.Join(h.folder, "home")
	h.configPath, h.pidFile = filepath.Join(etc, "sshd_config"), filepath.Join(h.folder, "run", "sshd.pid")
	folders := []string{etc, h.home, filepath.Dir(h.pidFile)}
	if !config.NoDropIns {
		folders = append(folders, filepath.Join(etc, "sshd_config.d"))
	}
	for _, folder := range folders {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return nil, fmt.Errorf("making folder: %w", err)
		}
	}
	for _, k := range keys {
		if err := k.write(hostKeyPath(etc, k.kind), "root@"+h.name); err != nil {
			return nil, err
		}
	}
	authorized := filepath.Join(h.folder, "authorized_keys")
	if err := os.WriteFile(authorized, []byte(f.client.authorized("fleet")), 0o600); err != nil {
		return nil, fmt.Errorf("writing authorized keys: %w", err)
	}
	return &loopback{Host: h, config: config, sshd: sshd, penalises: f.penalises(sshd)}, nil
}

func (l *loopback) text() string {
	etc := filepath.Dir(l.configPath)
	rows := []string{l.config.Top}
	if !l.config.NoDropIns {
		rows = append(rows, "Include "+etc+"/sshd_config.d/*.conf")
	}
	rows = append(rows, "Port "+strconv.Itoa(l.port), "ListenAddress 127.0.0.1")
	for _, kind := range l.config.KeyTypes {
		rows = append(rows, "HostKey "+hostKeyPath(etc, kind))
	}
	rows = append(rows,
		"PidFile "+l.pidFile,
		"AuthorizedKeysFile "+filepath.Join(l.folder, "authorized_keys"),
		// The folder for temporary files is writable for all.
		"StrictModes no",
		"PasswordAuthentication no",
		"KbdInteractiveAuthentication no",
		"UsePAM "+usePAM(),
		"PermitRootLogin prohibit-password",
		"PrintMotd no",
		"PrintLastLog no",
		"LogLevel "+withDefault(l.config.LogLevel, "VERBOSE"),
		"MaxStartups "+withDefault(l.config.MaxStartups, "1000"),
		// Not the person's home: its start-up files may take long, and tests
		// would leave files there. sshd still starts sessions in that one.
		"SetEnv HOME="+l.home,
	)
	if l.penalises {
		// All tests come from one address.
		rows = append(rows, "PerSourcePenalties no")
	}
	if l.config.SFTP != NoSFTP {
		rows = append(rows, "Subsystem sftp "+withDefault(l.config.SFTP, "internal-sftp -d "+l.home))
	}
	return lines(append(rows, l.config.Bottom)...)
}

func withDefault(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

// usePAM says whether sshd should ask PAM: without it sshd refuses a locked
// account, as root is on some systems, even by key; with it only root's sshd
// can work.
func usePAM() string {
	if os.Geteuid() != 0 {
		return "no"
	}
	shadow, err := os.ReadFile("/etc/shadow")
	if err == nil && (strings.HasPrefix(string(shadow), "root:!") || strings.Contains(string(shadow), "\nroot:!")) {
		return "yes"
	}
	return "no"
}

func (l *loopback) start(ctx context.Context) error {
	if l.running() {
		return errors.New("the server is running")
	}
	if l.port != 0 {
		return l.startOnce(ctx)
	}
	for range portTries {
		port, err := l.fleet.ports.take()
		if err != nil {
			return err
		}
		l.port, l.addr = port, net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		if err := os.WriteFile(l.configPath, []byte(l.text()), 0o644); err != nil {
			return fmt.Errorf("writing sshd_config: %w", err)
		}
		from := len(l.Log())
		err = l.startOnce(ctx)
		if err == nil || !strings.Contains(l.Log()[from:], "Address already in use") {
			return err
		}
	}
	return fmt.Errorf("no free port in %d tries", portTries)
}

func (l *loopback) startOnce(ctx context.Context) error {
	_ = os.Remove(l.pidFile)
	answer, err := l.fleet.supervisor.call(ctx, request{
		Op: opSpawn, Host: l.name, Port: l.port, Log: l.logPath(),
		Argv: []string{l.sshd, "-D", "-f", l.configPath, "-E", l.logPath()},
	})
	if err != nil {
		return err
	}
	l.ended = l.fleet.watch(l.name)
	return l.listening(ctx, answer.PID, nil)
}

// listening waits until sshd has written its pid file, which it does after it
// has begun to listen; a connection to find out would stand in its log, and
// might find another's server. A file that was there before doesn't count.
func (l *loopback) listening(ctx context.Context, pid int, before os.FileInfo) error {
	return poll(ctx, l.ended, func() (bool, error) {
		now, err := os.Stat(l.pidFile)
		if err != nil || before != nil && os.SameFile(now, before) && now.ModTime().Equal(before.ModTime()) {
			return false, nil
		}
		text, err := os.ReadFile(l.pidFile)
		return err == nil && string(text) == strconv.Itoa(pid)+"\n", nil
	})
}

func (l *loopback) running() bool { return l.ended.running() }

func (l *loopback) signal(ctx context.Context, signal syscall.Signal) error {
	_, err := l.fleet.supervisor.call(ctx, request{Op: opSignal, Host: l.name, Signal: int(signal)})
	return err
}

func (l *loopback) stop(ctx context.Context) error {
	if !l.running() {
		return nil
	}
	if err := l.signal(ctx, syscall.SIGTERM); err != nil && l.running() {
		return err
	}
	return l.ended.wait(ctx)
}

func (l *loopback) reload(ctx context.Context) error {
	if !l.running() {
		return errors.New("the server isn't running")
	}
	before, err := os.Stat(l.pidFile)
	if err != nil {
		return fmt.Errorf("looking at the pid file: %w", err)
	}
	text, err := os.ReadFile(l.pidFile)
	if err != nil {
		return fmt.Errorf("reading the pid file: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("reading the pid file: %w", err)
	}
	if err := l.signal(ctx, syscall.SIGHUP); err != nil {
		return err
	}
	return l.listening(ctx, pid, before)
}

func (l *loopback) kill(ctx context.Context) error {
	if _, err := l.fleet.supervisor.call(ctx, request{Op: opKill, Host: l.name}); err != nil {
		return err
	}
	return l.ended.wait(ctx)
}
