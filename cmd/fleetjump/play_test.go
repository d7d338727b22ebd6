package main

import (
	"bytes"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// screen is a person's terminal with the program in it.
type screen struct {
	t           *testing.T
	cmd         *exec.Cmd
	master, tty *os.File
	before      *unix.Termios
	drawn       chan byte
	seen        []byte
}

func newScreen(t *testing.T, cmd *exec.Cmd) *screen {
	t.Helper()
	master, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := pty.Setsize(master, &pty.Winsize{Cols: 100, Rows: 30}); err != nil {
		t.Fatal(err)
	}
	s := &screen{t: t, cmd: cmd, master: master, tty: tty, drawn: make(chan byte)}
	t.Cleanup(func() {
		tty.Close()
		master.Close()
	})
	s.before = s.modes()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go s.read()
	return s
}

// modes are the terminal's, such as echo.
func (s *screen) modes() *unix.Termios {
	s.t.Helper()
	modes, err := unix.IoctlGetTermios(int(s.tty.Fd()), unix.TCGETS)
	if err != nil {
		s.t.Fatal(err)
	}
	return modes
}

func (s *screen) read() {
	defer close(s.drawn)
	buf := make([]byte, 1024)
	for {
		n, err := s.master.Read(buf)
		for _, b := range buf[:n] {
			select {
			case s.drawn <- b:
			case <-s.t.Context().Done():
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// until returns what is drawn up to and with text.
func (s *screen) until(text string) string {
	s.t.Helper()
	timeout := time.After(20 * time.Second)
	for !bytes.HasSuffix(s.seen, []byte(text)) {
		select {
		case b := <-s.drawn:
			s.seen = append(s.seen, b)
		case <-timeout:
			_ = s.cmd.Process.Kill()
			s.t.Fatalf("waiting for %q after %q", text, s.seen)
		}
	}
	seen := string(s.seen)
	s.seen = nil
	return seen
}

func (s *screen) press(keys string) {
	s.t.Helper()
	if _, err := s.master.WriteString(keys); err != nil {
		s.t.Fatal(err)
	}
}

// ends waits for the program, and looks whether the terminal is as before.
func (s *screen) ends(code int) string {
	s.t.Helper()
	_ = s.cmd.Wait()
	if got := s.cmd.ProcessState.ExitCode(); got != code {
		s.t.Errorf("%q: exit code %d, want %d", s.cmd.Args, got, code)
	}
	if now := s.modes(); !reflect.DeepEqual(now, s.before) {
		s.t.Errorf("%q: the terminal's modes are %+v, were %+v", s.cmd.Args, now, s.before)
	}
	if _, err := s.tty.WriteString("\x00"); err != nil {
		s.t.Fatal(err)
	}
	return s.until("\x00")
}

// shows runs the program up to where the recording waits for an hour. The
// terminal is raw by then.
func (s *screen) shows() {
	s.t.Helper()
	s.until("begun\r\n")
	if reflect.DeepEqual(s.modes(), s.before) {
		s.t.Error("the terminal is not raw")
	}
}

// TestPlayOnTerminal plays with and without a server: by keys, and ended in
// every way.
func TestPlayOnTerminal(t *testing.T) {
	s := newSite(t)
	s.record(t)
	play := func() *screen { return newScreen(t, command(t, "play", s.id, "--config", s.file)) }
	all := func(t *testing.T) {
		v := play()
		v.shows()
		v.press(".")
		v.until("z\n")
		v.press("q")
		v.ends(0)

		v = play()
		v.shows()
		v.press("\x03") // a byte like any other: the terminal is raw
		v.ends(0)

		v = play()
		v.shows()
		if err := v.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if got := v.ends(130); !strings.Contains(got, "interrupted") || !strings.Contains(got, "\x1b[?25h") {
			t.Errorf("after SIGTERM: %q", got)
		}

		v = newScreen(t, command(t, "sessions", "export", "--format", "raw", s.id, "--config", s.file))
		if got := v.ends(2); !strings.Contains(got, "not for terminals") {
			t.Errorf("raw on a terminal: %q", got)
		}
		v = newScreen(t, command(t, "sessions", "ls", "--config", s.file))
		if got := v.ends(0); !strings.Contains(got, "STARTED (") || !strings.Contains(got, s.id[:12]) {
			t.Errorf("ls on a terminal: %q", got)
		}
	}
	t.Run("alone", all)
	server := s.serve(t)
	t.Run("server", all)

	v := play()
	v.shows()
	if err := server.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if got := v.ends(1); !strings.Contains(got, resetTerminal) || !strings.Contains(got, "hint: was the server stopped meanwhile?") {
		t.Errorf("after the server was killed: %q", got)
	}
}
