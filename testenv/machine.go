//go:build linux

package testenv

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// machineSpec is what the first process of a namespaced host needs to know.
type machineSpec struct {
	Name    string `json:"name"`
	Address string `json:"address"` // with the length of its network's prefix
	Gateway string `json:"gateway"`
	// System and User are the folders on which the host's two disks are mounted.
	System string `json:"system"`
	User   string `json:"user"`
	// Clear are removed, then Files are written, when the host is started the
	// first time.
	Clear []string      `json:"clear"`
	Files []machineFile `json:"files"`
	// Once is run after that, Start each time the host is started.
	Once        [][]string `json:"once"`
	Start       []string   `json:"start"`
	Hide        []string   `json:"hide"`
	Busybox     string     `json:"busybox,omitempty"` // its path, if it is to be /bin/sh
	ReadOnlyEtc bool       `json:"read_only_etc"`
}

// machineFile is a file, or a folder if Content is nil.
type machineFile struct {
	Path    string `json:"path"`
	Mode    uint32 `json:"mode"`
	UID     int    `json:"uid"`
	GID     int    `json:"gid"`
	Content []byte `json:"content"`
}

type machineAnswer struct {
	Error string `json:"error"`
}

// runMachine is the first process of a namespaced host: it sets the host up,
// starts its server, takes what is sent to syslog, and reaps. When it dies the
// kernel kills the whole host.
func runMachine() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	specification, answers := os.NewFile(3, "specification"), os.NewFile(4, "answer")
	var spec machineSpec
	err := json.NewDecoder(specification).Decode(&spec)
	_ = specification.Close()
	if err == nil {
		err = spec.setUp()
	}
	var answer machineAnswer
	if err != nil {
		answer.Error = err.Error()
	}
	_ = json.NewEncoder(answers).Encode(answer)
	_ = answers.Close()
	if err != nil {
		return
	}
	for range ended {
		for {
			pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if pid <= 0 && err != syscall.EINTR {
				break
			}
		}
	}
}

func (m *machineSpec) setUp() error {
	if err := m.mount(); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(m.Name)); err != nil {
		return fmt.Errorf("setting the host's name: %w", err)
	}
	if err := takeLog(); err != nil {
		return err
	}
	if err := m.fill(); err != nil {
		return err
	}
	if err := m.hide(); err != nil {
		return err
	}
	for _, argv := range [][]string{
		{"ip", "link", "set", "dev", "lo", "up"},
		{"ip", "address", "add", m.Address, "dev", "eth0"},
		{"ip", "link", "set", "dev", "eth0", "up"},
		{"ip", "route", "add", "default", "via", m.Gateway},
	} {
		if err := runHere(argv); err != nil {
			return err
		}
	}
	if m.Busybox != "" {
		shell, err := filepath.EvalSymlinks("/bin/sh")
		if err != nil {
			return fmt.Errorf("looking for /bin/sh: %w", err)
		}
		if err := mount(m.Busybox, shell, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	if m.ReadOnlyEtc {
		if err := mount("", "/etc", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			return err
		}
	}
	return runHere(m.Start)
}

func mount(source, target, kind string, flags uintptr, options string) error {
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		return fmt.Errorf("mounting %q on %q: %w", withDefault(source, kind), target, err)
	}
	return nil
}

// mount makes the machine's files read-only and puts the host's own over them.
func (m *machineSpec) mount() error {
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	readOnly := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(-1, "/", unix.AT_RECURSIVE, readOnly); err != nil {
		return fmt.Errorf("making the machine's files read-only (Linux 5.12 can): %w", err)
	}
	for _, disk := range []string{m.System, m.User} {
		if err := unix.MountSetattr(-1, disk, 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}); err != nil {
			return fmt.Errorf("making the host's disk writable: %w", err)
		}
	}
	for _, folder := range []string{"/etc", "/var"} {
		if err := overlay(folder, m.System+folder); err != nil {
			return err
		}
	}
	for _, b := range []struct {
		from, to string
		mode     os.FileMode
	}{
		{m.System + "/root", "/root", 0o700},
		{m.User + "/home", "/home", 0o755},
		{m.User + "/tmp", "/tmp", 0o777 | os.ModeSticky}, // the last: the disks are below the machine's
	} {
		if err := os.MkdirAll(b.from, b.mode); err != nil {
			return fmt.Errorf("making folder: %w", err)
		}
		if err := os.Chmod(b.from, b.mode); err != nil {
			return fmt.Errorf("making folder: %w", err)
		}
		if b.to == "/tmp" {
			// What fill and hide need later must be found still.
			if err := m.keepDisk(); err != nil {
				return err
			}
		}
		if err := mount(b.from, b.to, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	if err := mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	return mountDevices()
}

// keepDisk mounts /run, where the system disk stays within reach.
func (m *machineSpec) keepDisk() error {
	disk, err := unix.OpenTree(-1, m.System, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("keeping the host's disk: %w", err)
	}
	defer unix.Close(disk)
	if err := mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return err
	}
	m.System = "/run/testenv"
	for folder, mode := range map[string]os.FileMode{m.System: 0o700, "/run/lock": 0o777 | os.ModeSticky} {
		if err := os.Mkdir(folder, mode); err != nil {
			return fmt.Errorf("making folder: %w", err)
		}
		if err := os.Chmod(folder, mode); err != nil {
			return fmt.Errorf("making folder: %w", err)
		}
	}
	if err := unix.MoveMount(disk, "", -1, m.System, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("keeping the host's disk: %w", err)
	}
	return nil
}

// overlay puts changes to folder below disk.
func overlay(folder, disk string) error {
	for _, f := range []string{"/upper", "/work"} {
		if err := os.MkdirAll(disk+f, 0o755); err != nil {
			return fmt.Errorf("making folder: %w", err)
		}
	}
	return mount("overlay", folder, "overlay", 0, "lowerdir="+folder+",upperdir="+disk+"/upper,workdir="+disk+"/work")
}

// mountDevices gives the host a /dev with the usual few devices, terminals of
// its own, and room for its own /dev/log.
func mountDevices() error {
	devices := []string{"null", "zero", "full", "random", "urandom", "tty"}
	const held = "/run/devices"
	if err := os.Mkdir(held, 0o700); err != nil {
		return fmt.Errorf("making folder: %w", err)
	}
	if err := mount("/dev", held, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if err := mount("tmpfs", "/dev", "tmpfs", unix.MS_NOSUID, "mode=755"); err != nil {
		return err
	}
	for _, name := range devices {
		if err := os.WriteFile("/dev/"+name, nil, 0o666); err != nil {
			return fmt.Errorf("making device: %w", err)
		}
		if err := mount(held+"/"+name, "/dev/"+name, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	if err := unix.Unmount(held, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmounting %q: %w", held, err)
	}
	for _, folder := range []string{"/dev/pts", "/dev/shm"} {
		if err := os.Mkdir(folder, 0o755); err != nil {
			return fmt.Errorf("making folder: %w", err)
		}
	}
	if err := os.Remove(held); err != nil {
		return fmt.Errorf("removing folder: %w", err)
	}
	if err := mount("devpts", "/dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620,gid=5"); err != nil {
		return err
	}
	if err := mount("tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"); err != nil {
		return err
	}
	for from, to := range map[string]string{
		"/dev/ptmx": "pts/ptmx", "/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0",
		"/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(to, from); err != nil {
			return fmt.Errorf("making link: %w", err)
		}
	}
	return nil
}

var syslogPriority = regexp.MustCompile(`^<\d+>`)

// takeLog appends what is sent to syslog to the host's log, which is standard
// output. The goroutine ends with the process, as its host does.
func takeLog() error {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "/dev/log", Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("listening for syslog: %w", err)
	}
	if err := os.Chmod("/dev/log", 0o666); err != nil {
		return fmt.Errorf("opening syslog to all: %w", err)
	}
	go func() {
		message := make([]byte, 64<<10)
		for {
			n, err := conn.Read(message)
			if err != nil {
				return
			}
			row := syslogPriority.ReplaceAll(message[:n], nil)
			_, _ = os.Stdout.Write(append(row, '\n'))
		}
	}()
	return nil
}

// fill writes the host's files when it is started the first time.
func (m *machineSpec) fill() error {
	done := m.System + "/filled"
	if _, err := os.Lstat(done); err == nil {
		return nil
	}
	for _, path := range m.Clear {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("clearing the host: %w", err)
		}
	}
	for _, f := range m.Files {
		if err := f.write(); err != nil {
			return fmt.Errorf("filling the host: %w", err)
		}
	}
	for _, argv := range m.Once {
		if err := runHere(argv); err != nil {
			return err
		}
	}
	if err := os.WriteFile(done, nil, 0o600); err != nil {
		return fmt.Errorf("filling the host: %w", err)
	}
	return nil
}

func (f *machineFile) write() error {
	mode := os.FileMode(f.Mode)
	if f.Content == nil {
		if err := os.MkdirAll(f.Path, mode); err != nil {
			return err
		}
	} else {
		if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
			return err
		}
		// What was there may be a link to somewhere else.
		if err := os.Remove(f.Path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := os.WriteFile(f.Path, f.Content, mode); err != nil {
			return err
		}
	}
	if err := os.Chmod(f.Path, mode); err != nil {
		return err
	}
	return os.Chown(f.Path, f.UID, f.GID)
}

// hide takes files away: by removing them where the host's own files are, and
// elsewhere by an overlay in which they are marked as deleted.
func (m *machineSpec) hide() error {
	byFolder := map[string][]string{}
	for _, path := range m.Hide {
		folder, err := filepath.EvalSymlinks(filepath.Dir(path))
		if err != nil {
			return fmt.Errorf("hiding %q: %w", path, err)
		}
		own := false
		for _, f := range []string{"/etc/", "/var/", "/home/", "/root/", "/run/"} {
			own = own || strings.HasPrefix(folder+"/", f)
		}
		if own {
			if err := os.RemoveAll(path); err != nil {
				return fmt.Errorf("hiding %q: %w", path, err)
			}
			continue
		}
		byFolder[folder] = append(byFolder[folder], filepath.Base(path))
	}
	for folder, names := range byFolder {
		disk := m.System + "/hide" + folder
		for _, name := range names {
			if err := os.MkdirAll(disk+"/upper", 0o755); err != nil {
				return fmt.Errorf("hiding %q: %w", name, err)
			}
			// A character device 0:0 is how an overlay marks what is deleted.
			err := unix.Mknod(disk+"/upper/"+name, unix.S_IFCHR, 0)
			if err != nil && !errors.Is(err, unix.EEXIST) {
				return fmt.Errorf("hiding %q: %w", name, err)
			}
		}
		if err := overlay(folder, disk); err != nil {
			return err
		}
	}
	return nil
}

// runHere runs a command to its end, on the main goroutine, before anything
// else reaps.
func runHere(argv []string) error {
	path := argv[0]
	if !filepath.IsAbs(path) {
		var err error
		if path, err = lookSystem(path, "iproute2"); err != nil {
			return err
		}
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fmt.Errorf("opening standard input: %w", err)
	}
	defer null.Close()
	p, err := os.StartProcess(path, argv, &os.ProcAttr{
		Dir:   "/",
		Env:   []string{"PATH=" + systemPath, "HOME=/root"},
		Files: []*os.File{null, os.Stdout, os.Stderr},
	})
	if err != nil {
		return fmt.Errorf("running %q: %w", argv, err)
	}
	state, err := p.Wait()
	if err != nil {
		return fmt.Errorf("running %q: %w", argv, err)
	}
	if !state.Success() {
		return fmt.Errorf("running %q: %s", argv, state)
	}
	return nil
}
