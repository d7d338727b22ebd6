//go:build linux

package testenv_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/fleetca/fleetca/testenv"
	"github.com/fleetca/fleetca/testenv/fleettest"
)

// TestMain becomes the owner of a fleet that is going to be killed, if asked to.
func TestMain(m *testing.M) {
	if kind := os.Getenv("TESTENV_OWNER"); kind != "" {
		ownFleet(kind)
		return
	}
	os.Exit(m.Run())
}

type owned struct {
	Folder, Address, Key string
	Supervisor           int
}

func ownFleet(kind string) {
	start := testenv.Start
	if kind == "namespaced" {
		start = testenv.StartNamespaced
	}
	f, err := start(context.Background(), testenv.Config{Hosts: 2, Parent: os.Getenv("TESTENV_PARENT")})
	if err != nil {
		panic(err)
	}
	supervisor, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(f.Dir()), "fleetca-testenv-"), "-")
	pid, err := strconv.Atoi(supervisor)
	if err != nil {
		panic(err)
	}
	ssh, err := f.Hosts()[0].SSH(context.Background())
	if err != nil {
		panic(err)
	}
	ssh.Args = append(ssh.Args, "setsid sleep "+os.Getenv("TESTENV_MARK")+" >/dev/null 2>&1 </dev/null &")
	if text, err := ssh.CombinedOutput(); err != nil {
		panic(string(text))
	}
	if err := json.NewEncoder(os.Stdout).Encode(owned{Folder: f.Dir(), Supervisor: pid}); err != nil {
		panic(err)
	}
	select {}
}

// startOwner starts a process that owns a fleet and has left a process in the
// background of one of its hosts.
func startOwner(t *testing.T, kind, mark string) (*exec.Cmd, owned) {
	t.Helper()
	c := exec.CommandContext(t.Context(), "/proc/self/exe")
	c.Env = append(os.Environ(), "TESTENV_OWNER="+kind, "TESTENV_MARK="+mark, "TESTENV_PARENT="+t.TempDir())
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var o owned
	if err := json.NewDecoder(bufio.NewReader(out)).Decode(&o); err != nil {
		t.Fatal(err)
	}
	until(t, "the process in the background", func() bool { return sleeps(mark) })
	return c, o
}

func nothingLeft(t *testing.T, o owned, mark string) {
	t.Helper()
	until(t, "the end of the supervisor", func() bool {
		text, err := os.ReadFile("/proc/" + strconv.Itoa(o.Supervisor) + "/stat")
		return err != nil || strings.Contains(string(text), ") Z ")
	})
	if sleeps(mark) {
		t.Error("a process that a session put in the background is left")
	}
	if _, err := os.Lstat(o.Folder); err == nil {
		t.Errorf("the fleet's folder %q is left", o.Folder)
	}
	commands, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range commands {
		if text, err := os.ReadFile(path); err == nil && strings.Contains(string(text), o.Folder) {
			t.Errorf("a process is left: %q", text)
		}
	}
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if strings.HasSuffix(l.Name, "p"+strconv.Itoa(o.Supervisor)) {
			t.Errorf("link %s is left", l.Name)
		}
	}
}

func TestNothingLeft(t *testing.T) {
	for _, kind := range []string{"loopback", "namespaced"} {
		for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
			t.Run(kind+" "+signal.String(), func(t *testing.T) {
				t.Parallel()
				if kind == "namespaced" {
					fleettest.NeedRoot(t)
				}
				mark := newMark()
				c, o := startOwner(t, kind, mark)
				if err := c.Process.Signal(signal); err != nil {
					t.Fatal(err)
				}
				_ = c.Wait()
				nothingLeft(t, o, mark)
			})
		}
	}
}

// The last that can be done to a fleet: its supervisor is killed too. Servers
// end at once; the next fleet removes the rest.
func TestStale(t *testing.T) {
	for _, kind := range []string{"loopback", "namespaced"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			start := fleettest.Start
			if kind == "namespaced" {
				start = fleettest.StartNamespaced
				fleettest.NeedRoot(t)
			}
			mark := newMark()
			c, o := startOwner(t, kind, mark)
			for _, pid := range []int{o.Supervisor, c.Process.Pid} {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
			_ = c.Wait()
			if kind == "namespaced" {
				until(t, "the end of the host", func() bool { return !sleeps(mark) })
			} else {
				until(t, "the end of the servers", func() bool { return !mentioned(o.Folder) })
				// Nothing ties a session's process to its fleet any more.
				endSleep(t, mark)
			}
			start(t, testenv.Config{Parent: filepath.Dir(o.Folder)})
			nothingLeft(t, o, mark)
		})
	}
}

func mentioned(folder string) bool {
	commands, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range commands {
		if text, err := os.ReadFile(path); err == nil && strings.Contains(string(text), folder) {
			return true
		}
	}
	return false
}

func endSleep(t *testing.T, mark string) {
	t.Helper()
	commands, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range commands {
		if text, err := os.ReadFile(path); err == nil && string(text) == "sleep\x00"+mark+"\x00" {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
}
