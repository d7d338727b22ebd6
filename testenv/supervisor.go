//go:build linux

package testenv

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	roleVariable   = "FLEETCA_TESTENV_ROLE"
	roleSupervisor = "supervisor"
	roleMachine    = "machine"
	// supervisorName is argv[0] of a supervisor: with it a process id can be
	// told from one that was used again.
	supervisorName = "fleetca-testenv"
	folderPrefix   = "fleetca-testenv-"
)

// A fleet's supervisor, and the first process of a namespaced host, are this
// program itself: nothing else is sure to exist on the machine, and init is the
// only place that every program which imports the package passes through.
func init() {
	switch os.Getenv(roleVariable) {
	case roleSupervisor:
		superviseFleet()
		os.Exit(0)
	case roleMachine:
		runMachine()
		os.Exit(1)
	}
}

// supervisor keeps the processes of a fleet. Its fields belong to the main
// goroutine, which init functions run on: locked to the first thread, so that
// the kernel's signal at a parent's death (tied to the thread that forked, not
// to the process) comes only when the process dies. Others send work to it.
type supervisor struct {
	work chan func()

	folder   string
	children map[int]*child    // by process id; all that were started and not reaped
	current  map[string]*child // by host: the server or machine
	left     map[string][]process
	machines bool
	disks    []string // what is mounted below folder
}

type child struct {
	process
	port   int
	spec   *os.File           // to a machine: its specification
	answer *os.File           // from a machine: what became of it
	done   chan struct{}      // closed when it has ended
	status syscall.WaitStatus // set before done is closed
}

func superviseFleet() {
	// Cleaning up is started by the other end closing, by nothing else. The
	// signals are caught, not ignored: programs inherit what is ignored, and a
	// shell can't trap it then.
	signal.Notify(make(chan os.Signal, 1), unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGPIPE, unix.SIGQUIT)
	unix.Umask(0o022)
	file := os.NewFile(3, "owner")
	conn, err := net.FileConn(file)
	if err != nil {
		fmt.Fprintf(os.Stderr, "taking the owner's socket: %v\n", err)
		os.Exit(1)
	}
	_ = file.Close()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintf(os.Stderr, "becoming the parent of orphans: %v\n", err)
		os.Exit(1)
	}
	s := &supervisor{
		work:     make(chan func()),
		children: map[int]*child{},
		current:  map[string]*child{},
		left:     map[string][]process{},
	}
	closed := make(chan struct{})
	go func() {
		serve(conn, s.handle)
		close(closed)
	}()
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	for {
		select {
		case f := <-s.work:
			f()
		case <-ended:
			s.reap()
		case <-closed:
			s.end()
			return
		}
	}
}

// do runs f on the main goroutine.
func (s *supervisor) do(f func()) {
	done := make(chan struct{})
	s.work <- func() {
		defer close(done)
		f()
	}
	<-done
}

// reap takes note of all children that have ended, adopted orphans too.
func (s *supervisor) reap() (none bool) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return true
		}
		if pid == 0 {
			return false
		}
		if c := s.children[pid]; c != nil {
			c.status = status
			delete(s.children, pid)
			close(c.done)
		}
	}
}

func (s *supervisor) handle(r request) (answer reply) {
	var err error
	switch r.Op {
	case opHello:
		s.do(func() { err = s.hello(r.Parent, r.Disk != 0) })
		answer.Folder, answer.PID = s.folder, os.Getpid()
	case opSpawn:
		s.do(func() { answer.PID, err = s.spawn(r) })
	case opClone:
		s.do(func() { answer.PID, err = s.clone(r) })
	case opBoot:
		err = s.boot(r)
	case opWait:
		var c *child
		s.do(func() { c = s.current[r.Host] })
		if c == nil {
			err = fmt.Errorf("%q was never started", r.Host)
			break
		}
		<-c.done
		answer.Status = statusText(c.status)
	case opSignal:
		s.do(func() { err = s.signal(r.Host, syscall.Signal(r.Signal)) })
	case opKill:
		var c *child
		s.do(func() { c = s.kill(r.Host) })
		if c != nil {
			<-c.done
		}
	default:
		err = fmt.Errorf("unknown operation %q", r.Op)
	}
	if err != nil {
		answer.Error = err.Error()
	}
	return answer
}

// hello removes what dead supervisors left, and makes the fleet's folder. The
// folder's name carries our process id for the same purpose.
func (s *supervisor) hello(parent string, machines bool) error {
	removeStale(parent)
	folder, err := os.MkdirTemp(parent, folderPrefix+strconv.Itoa(os.Getpid())+"-")
	if err != nil {
		return fmt.Errorf("making the fleet's folder: %w", err)
	}
	s.folder, s.machines = folder, machines
	return nil
}

func (s *supervisor) spawn(r request) (int, error) {
	log, err := os.OpenFile(r.Log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return 0, fmt.Errorf("opening log: %w", err)
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, fmt.Errorf("opening standard input: %w", err)
	}
	defer null.Close()
	c, err := s.start(r.Host, r.Argv[0], r.Argv, &os.ProcAttr{
		Dir:   "/",
		Env:   []string{"PATH=" + systemPath},
		Files: []*os.File{null, log, log},
		Sys:   &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return 0, err
	}
	c.port = r.Port
	return c.pid, nil
}

// start runs on the main goroutine, as reap does: no child can end unnoticed
// between being started and being entered here.
func (s *supervisor) start(host, path string, argv []string, attributes *os.ProcAttr) (*child, error) {
	p, err := os.StartProcess(path, argv, attributes)
	if err != nil {
		return nil, fmt.Errorf("starting %q: %w", argv, err)
	}
	c := &child{done: make(chan struct{}), process: process{pid: p.Pid}}
	if found, ok := readProcess(p.Pid); ok {
		c.process = found
	}
	_ = p.Release()
	s.children[c.pid] = c
	s.current[host] = c
	return c, nil
}

// signal signals the host's server. Its sessions are noted before, since they
// live on when it ends, and then nothing ties them to it.
func (s *supervisor) signal(host string, signal syscall.Signal) error {
	c := s.current[host]
	if c == nil || s.children[c.pid] != c {
		return fmt.Errorf("signalling the server of %q: it isn't running", host)
	}
	s.left[host] = append(s.left[host], below(c.pid)...)
	if err := syscall.Kill(c.pid, signal); err != nil {
		return fmt.Errorf("signalling the server of %q: %w", host, err)
	}
	return nil
}

// kill kills all processes of a host and returns the server if it was running.
func (s *supervisor) kill(host string) *child {
	var roots []process
	c := s.current[host]
	if c != nil && s.children[c.pid] == c {
		roots = append(roots, c.process)
	}
	for _, p := range s.left[host] {
		if p.alive() {
			roots = append(roots, p)
		}
	}
	delete(s.left, host)
	if c != nil && c.port != 0 {
		for _, p := range below(os.Getpid()) {
			if p.servedOn(c.port) {
				roots = append(roots, p)
			}
		}
	}
	killTrees(roots)
	return c
}

// end kills everything below this process and removes all traces. Since
// orphans become our children, no children means no processes.
func (s *supervisor) end() {
	signal.Reset(unix.SIGCHLD)
	deadline := time.Now().Add(20 * time.Second)
	for !s.reap() && time.Now().Before(deadline) {
		for _, p := range below(os.Getpid()) {
			if !p.zombie {
				_ = unix.Kill(p.pid, unix.SIGKILL)
			}
		}
		time.Sleep(2 * time.Millisecond)
	}
	if s.machines {
		removeLinks(os.Getpid())
	}
	if s.folder != "" {
		for _, disk := range s.disks {
			_ = unix.Unmount(disk, unix.MNT_DETACH)
		}
		if err := os.RemoveAll(s.folder); err != nil {
			fmt.Fprintf(os.Stderr, "removing the fleet's folder: %v\n", err)
		}
	}
}

func statusText(status syscall.WaitStatus) string {
	if status.Signaled() {
		return "killed by " + unix.SignalName(status.Signal())
	}
	return "exit status " + strconv.Itoa(status.ExitStatus())
}

// supervises says whether pid is a running supervisor.
func supervises(pid int) bool {
	argv, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	return err == nil && strings.HasPrefix(string(argv), supervisorName+"\x00")
}

var staleFolder = regexp.MustCompile(`^` + folderPrefix + `(\d+)-\d+$`)

// removeStale removes what supervisors killed by SIGKILL left behind. A second
// supervisor that does the same at the same time is harmless.
func removeStale(parent string) {
	entries, _ := os.ReadDir(parent)
	for _, e := range entries {
		m := staleFolder.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		pid, err := strconv.Atoi(m[1])
		if err != nil || supervises(pid) {
			continue
		}
		folder := filepath.Join(parent, e.Name())
		for _, p := range processTable() {
			argv, _ := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/cmdline")
			if strings.Contains(string(argv), folder+"/") {
				_ = unix.Kill(p.pid, unix.SIGKILL)
			}
		}
		_ = os.RemoveAll(folder)
	}
	for _, pid := range linkOwners() {
		if !supervises(pid) {
			removeLinks(pid)
		}
	}
}

// run runs a command to its end. Only the owner's process and a supervisor
// that has stopped reaping may call it.
func run(c *exec.Cmd) error {
	if text, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("running %q: %w: %s", c.Args, err, strings.TrimSpace(string(text)))
	}
	return nil
}
