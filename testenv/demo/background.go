//go:build linux

package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"github.com/creack/pty"

	"github.com/fleetca/fleetca/testenv/background"
)

// startBackground shows a command and leaves it running.
func (s *story) startBackground(line string) (*background.Program, error) {
	s.prompt(line + " &")
	return background.Start(line, s.dir, s.environment(), os.Stdout)
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
