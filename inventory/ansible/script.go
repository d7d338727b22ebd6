package ansible

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// errNotProgram means that the system can't run the file: an inventory on a
// file system that marks every file executable.
var errNotProgram = errors.New("not a program")

// script runs the file with --list and, for want of _meta, with --host NAME
// for each host.
func (l Loader) script(ctx context.Context, s *source) error {
	path, err := filepath.Abs(s.file)
	if err != nil {
		return err
	}
	out, err := l.run(ctx, s, path, "--list")
	if err != nil {
		return err
	}
	output := &source{file: s.file + " --list", builder: s.builder}
	top, err := parseJSON(output.file, out)
	if err != nil {
		return err
	}
	m, ok := top.value.(*mapping)
	if !ok {
		return fmt.Errorf("%s: printed a %s where a mapping of groups is wanted", output.file, kindOf(top.value))
	}
	ask, err := output.listing(m)
	if err != nil || len(ask) == 0 {
		return err
	}
	return l.askHosts(ctx, s, path, ask)
}

// askHosts runs the program once for each host, a few at a time.
func (l Loader) askHosts(ctx context.Context, s *source, path string, names []string) error {
	answers := make([]*mapping, len(names))
	running, ctx := errgroup.WithContext(ctx)
	running.SetLimit(2 * runtime.NumCPU())
	for i, name := range names {
		running.Go(func() error {
			if strings.HasPrefix(name, "-") {
				return fmt.Errorf("%s: host name %q would pass for an option", s.file, name)
			}
			out, err := l.run(ctx, s, path, "--host", name)
			if err != nil || len(bytes.TrimSpace(out)) == 0 {
				return err
			}
			file := s.file + " --host " + name
			n, _, err := parseData(file, out, nil)
			if err != nil {
				return err
			}
			m, ok := n.value.(*mapping)
			if !ok {
				return fmt.Errorf("%s: printed a %s where a mapping of variables is wanted", file, kindOf(n.value))
			}
			answers[i] = m
			return nil
		})
	}
	if err := running.Wait(); err != nil {
		return err
	}
	for i, m := range answers {
		if m == nil {
			continue
		}
		answer := &source{file: s.file + " --host " + names[i], builder: s.builder}
		if err := answer.setAll(names[i], m); err != nil {
			return err
		}
	}
	return nil
}

// run gives what the program prints. It ends the program and its children when
// ctx ends, when it takes too long, or when it prints too much.
func (l Loader) run(ctx context.Context, s *source, path string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, l.ScriptTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	stdout := &limited{limit: maxBytes, full: cancel}
	stderr := &limited{limit: 64 << 10}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	name := strings.Join(append([]string{s.file}, args...), " ")
	err := cmd.Run()
	said := lastLine(stderr.kept.Bytes())
	switch {
	case errors.Is(err, syscall.ENOEXEC) && cmd.Process == nil:
		return nil, errNotProgram
	case stdout.overflow:
		return nil, fmt.Errorf("running %s: printed more than %d MiB", name, maxBytes>>20)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, fmt.Errorf("running %s: took longer than %s", name, l.ScriptTimeout)
	case ctx.Err() != nil:
		return nil, fmt.Errorf("running %s: %w", name, ctx.Err())
	case err != nil && said != "":
		return nil, fmt.Errorf("running %s: %w: %q", name, err, said)
	case err != nil:
		return nil, fmt.Errorf("running %s: %w", name, err)
	}
	if said != "" && args[0] == "--list" {
		s.builder.Warn(s.at(0), "the program said: %q", said)
	}
	return stdout.kept.Bytes(), nil
}

func lastLine(text []byte) string {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}

// limited keeps the first bytes written to it and drops the rest, so that the
// program doesn't block on a full pipe.
type limited struct {
	kept     bytes.Buffer // not embedded: its ReadFrom would go around Write
	limit    int
	full     func()
	overflow bool
}

func (w *limited) Write(p []byte) (int, error) {
	if room := w.limit - w.kept.Len(); len(p) > room {
		w.overflow = true
		w.kept.Write(p[:room])
		if w.full != nil {
			w.full()
		}
		return len(p), nil
	}
	return w.kept.Write(p)
}
