//go:build linux

package fleettest

import (
	"os"
	"os/exec"
	"testing"
)

// Agent runs a real ssh-agent on socket, whose path may have 107 bytes, and
// returns when it listens. env is added to its environment.
func Agent(t testing.TB, socket string, env ...string) {
	t.Helper()
	cmd := exec.Command("ssh-agent", "-D", "-a", socket)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	// It prints its variables once it listens.
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}
