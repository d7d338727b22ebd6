//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/creack/pty"
)

// The kernel ends what runs in the background with the thread that started it
// (prctl(2), PR_SET_PDEATHSIG): that has to be one that lives as long as the
// demo does.
func init() { runtime.LockOSThread() }

// patience is how long something may take that should take a moment.
const patience = 30 * time.Second

// background is a program that runs beside the story.
type background struct {
	line string
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of the program, once done is closed
}

// start shows a command and leaves it running. It ends with the demo, however
// that ends.
func (s *story) startBackground(line string) (*background, error) {
	s.prompt(line + " &")
	// The shell makes way for the program: signals go to that.
	cmd := s.command("exec " + line)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = patience
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	b := &background{line: line, cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(b.done)
		b.err = cmd.Wait()
	}()
	return b, nil
}

// ready waits until the program has done what it must before others go on.
func (b *background) ready(ctx context.Context, what string, is func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for !is() {
		select {
		case <-b.done:
			return fmt.Errorf("%s: it ended before %s: %w", b.line, what, b.err)
		case <-ctx.Done():
			return fmt.Errorf("%s: waiting until %s: %w", b.line, what, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// stop asks the program to end and returns how it did. It may be called again.
func (b *background) stop() error {
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%s: %w", b.line, err)
	}
	<-b.done
	if b.err != nil {
		return fmt.Errorf("%s: %w", b.line, b.err)
	}
	return nil
}

// exists tells whether the file is there.
func exists(path string) func() bool {
	return func() bool {
		_, err := os.Stat(path)
		return err == nil
	}
}

// says tells whether the file has the text in it.
func says(path, text string) func() bool {
	return func() bool {
		content, err := os.ReadFile(path)
		return err == nil && strings.Contains(string(content), text)
	}
}

// onTerminal runs a command on a terminal of its own, and copies what is
// written there.
func onTerminal(cmd *exec.Cmd, out io.Writer) error {
	master, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 80})
	if err != nil {
		return err
	}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, _ = io.Copy(out, master) // ends with EIO when nobody has the terminal any more
	}()
	err = cmd.Wait()
	<-copied
	return errors.Join(err, master.Close())
}

// hostsGiveTerminals tells whether the hosts' sshd can. Without root it can't
// where new terminals don't belong to the group tty, as in some containers: it
// would have to change that (pty_setowner in sshpty.c).
func hostsGiveTerminals() bool {
	if os.Geteuid() == 0 {
		return true
	}
	master, tty, err := pty.Open()
	if err != nil {
		return false
	}
	defer master.Close()
	defer tty.Close()
	group, err := user.LookupGroup("tty")
	if err != nil {
		return false
	}
	info, err := tty.Stat()
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && strconv.FormatUint(uint64(stat.Gid), 10) == group.Gid
}
