//go:build linux

// Package background runs programs beside the demo and the benchmarks, for as
// long as these live: however they end, SIGKILL included, the programs are told
// to end as well. It refuses to restart anything.
package background

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// patience is how long something may take that should take a moment.
const patience = 30 * time.Second

// Program is one that was started.
type Program struct {
	line  string
	leash io.Closer
	done  chan struct{}
	err   error // of the program, once done is closed
}

// A shell waits for the program, and at the other end of a pipe for us: the
// kernel's own way (PR_SET_PDEATHSIG) doesn't work for ssh-agent, which is
// set-group-ID.
const keeper = `exec 3<&0
%s 3<&- &
p=$!
{ read -r x <&3; kill $p; } 2>/dev/null &
exec 3<&-
wait $p`

// Start runs a line of shell with one simple command, which writes to out.
func Start(line, dir string, env []string, out *os.File) (*Program, error) {
	cmd := exec.Command("sh", "-c", fmt.Sprintf(keeper, line))
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, out, out
	// Ctrl-C on the terminal is for us: what runs here is stopped in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	leash, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &Program{line: line, leash: leash, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.err = cmd.Wait()
	}()
	return p, nil
}

// Ready waits until the program has done what it must before others go on.
func (p *Program) Ready(ctx context.Context, what string, is func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for !is() {
		select {
		case <-p.done:
			return fmt.Errorf("%s: it ended before %s: %w", p.line, what, p.err)
		case <-ctx.Done():
			return fmt.Errorf("%s: waiting until %s: %w", p.line, what, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// Stop asks the program to end, with SIGTERM, and returns how it did. It may be
// called again.
func (p *Program) Stop() error {
	_ = p.leash.Close()
	<-p.done
	if p.err != nil {
		return fmt.Errorf("%s: %w", p.line, p.err)
	}
	return nil
}
