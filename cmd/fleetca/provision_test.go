package main

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/testenv"
	"github.com/fleetca/fleetca/testenv/fleettest"
)

// Ctrl-C in the middle of a fleet: no further host is started, the one under
// way is brought to its end, and the recap says which is which.
func TestProvisionInterrupted(t *testing.T) {
	fleet := fleettest.Start(t, testenv.Config{Names: []string{"web[01:03]"}})
	dir := t.TempDir()
	if err := writeFleet(fleet, dir); err != nil {
		t.Fatal(err)
	}
	fleetca := func(args ...string) *exec.Cmd {
		// testscript's Main answers to the name.
		link := filepath.Join(dir, "fleetca")
		if _, err := os.Lstat(link); err != nil {
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(self, link); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.CommandContext(t.Context(), link, args...)
		cmd.Env = append(os.Environ(), "FLEETCA_DIR="+filepath.Join(dir, "ca"))
		return cmd
	}
	if out, err := fleetca("init", "--no-passphrase").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := fleetca("provision", "-i", filepath.Join(dir, "hosts.yaml"), "--ssh-config", filepath.Join(dir, "ssh_config"), "--json", "--forks", "1")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	var out strings.Builder
	for interrupted := false; lines.Scan(); {
		out.WriteString(lines.Text() + "\n")
		if !interrupted {
			// The first line is a step of the first host's plan.
			interrupted = true
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != program.ExitInterrupted {
		t.Errorf("exit code %d, want %d", code, program.ExitInterrupted)
	}
	for _, want := range []string{"1 changed: web01\n", "2 not started: web[02-03]\n", "interrupted"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("stderr lacks %q:\n%s", want, &stderr)
		}
	}
	if !strings.Contains(out.String(), `"host":"web03","state":"not_started"`) {
		t.Errorf("stdout doesn't tell of the hosts that were left out:\n%s", &out)
	}
}

func TestCompletion(t *testing.T) {
	for words, want := range map[string]string{
		"prov":                      "provision",
		"completion ":               "bash zsh fish",
		"certs ":                    "list show",
		"provision --chec":          "--check",
		"--color ":                  "auto always never",
		"--color never inventory g": "graph",
	} {
		var out strings.Builder
		a := testApp(&out)
		if code := program.Run(context.Background(), config, a, new(cli), append([]string{"complete", "--"}, strings.Split(words, " ")...)); code != 0 {
			t.Fatalf("%q: exit code %d", words, code)
		}
		if got := strings.Join(strings.Fields(out.String()), " "); got != want {
			t.Errorf("%q: %q, want %q", words, got, want)
		}
	}
}
