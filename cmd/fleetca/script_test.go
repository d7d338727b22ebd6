package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/testenv"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"fleetca": main})
}

// TestScripts runs the commands as people type them, with real OpenSSH beside
// them. Beside testscript's own commands there are:
//
//	exits CODE COMMAND…  runs a command that must end with this exit code
//	mode FILE MODE       compares permissions, such as 0600
//	startagent           runs a real ssh-agent until the script ends
//	startfleet NAME…     runs real sshd hosts, and writes hosts.yaml and ssh_config
//	stophost NAME        stops one of them
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, "home")
			env.Setenv("HOME", home)
			env.Setenv("TZ", "UTC")
			env.Values[fleetKey{}] = &fleetHolder{}
			return os.Mkdir(home, 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": scriptExits, "mode": scriptMode, "startagent": scriptAgent,
			"startfleet": scriptFleet, "stophost": scriptStopHost,
		},
	})
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	code := 0
	err := ts.Exec(args[1], args[2:]...)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

func scriptMode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode FILE MODE")
	}
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%#o", info.Mode().Perm()); got != args[1] {
		ts.Fatalf("%s has mode %s, want %s", args[0], got, args[1])
	}
}

func scriptAgent(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: startagent")
	}
	// A socket's path may have 107 bytes only, so not in the script's folder.
	dir, err := os.MkdirTemp("", "agent")
	ts.Check(err)
	socket := filepath.Join(dir, "s")
	cmd := exec.Command("ssh-agent", "-D", "-a", socket)
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	})
	// It prints its variables once it listens.
	_, err = out.Read(make([]byte, 1))
	ts.Check(err)
	ts.Setenv("SSH_AUTH_SOCK", socket)
}

type fleetKey struct{}

func scriptFleet(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: startfleet NAME…")
	}
	fleet, err := testenv.Start(context.Background(), testenv.Config{Names: args})
	ts.Check(err)
	ts.Defer(func() { ts.Check(fleet.Close()) })
	ts.Check(writeFleet(fleet, ts.MkAbs(".")))
	ts.Value(fleetKey{}).(*fleetHolder).fleet = fleet
}

// fleetHolder is what a script's commands share.
type fleetHolder struct{ fleet *testenv.Fleet }

// writeFleet writes the files that an engineer has: inventory and ssh_config,
// which names the known_hosts.
func writeFleet(fleet *testenv.Fleet, dir string) error {
	known := filepath.Join(dir, "known_hosts")
	config := fmt.Sprintf("UserKnownHostsFile %s\nStrictHostKeyChecking yes\nIdentityAgent none\n", known)
	return errors.Join(
		fleet.Inventory(filepath.Join(dir, "hosts.yaml"), testenv.InventoryConfig{}),
		fleet.KnownHosts(known),
		os.WriteFile(filepath.Join(dir, "ssh_config"), []byte(config), 0o600),
	)
}

func scriptStopHost(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: stophost NAME")
	}
	ts.Check(ts.Value(fleetKey{}).(*fleetHolder).fleet.Host(args[0]).Stop(context.Background()))
}

// testApp writes everything that a command says to out.
func testApp(out io.Writer) *program.App {
	getenv := func(string) string { return "" }
	return &program.App{Stdin: strings.NewReader(""), Stdout: out, Stderr: out, Getenv: getenv, Now: time.Now, Term: terminal.New(getenv)}
}
