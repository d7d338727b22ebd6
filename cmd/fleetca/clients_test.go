package main

import (
	"bufio"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestClients runs what the commands set up, with the real ssh and Ansible
// through a real fleetjump to real sshd hosts. Beside the commands of
// TestScripts there are:
//
//	startjump DIR     runs the jump host of this folder, whose port is $JUMP_PORT
//	athome COMMAND…   runs a command whose home folder is $HOME
//
// and $LOGIN, the login on hosts.
//
// ssh takes the home folder from the account, whatever $HOME says. So athome
// runs commands in namespaces of their own, as root with $HOME for /root.
func TestClients(t *testing.T) {
	if err := exec.Command("unshare", namespaces("true")...).Run(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("CI runs this, and unshare can't: %v", err)
		}
		t.Skipf("unshare can't: %v", err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "clients"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, "home")
			env.Setenv("HOME", home)
			env.Setenv("TZ", "UTC")
			account, err := user.Current()
			if err != nil {
				return err
			}
			env.Setenv("LOGIN", account.Username)
			env.Values[fleetKey{}] = &fleetHolder{}
			return os.Mkdir(home, 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": scriptExits, "mode": scriptMode, "startagent": scriptAgent,
			"startfleet": scriptFleet, "stophost": scriptStopHost,
			"startjump": scriptJump, "athome": scriptHome,
		},
	})
}

// namespaces are the arguments of unshare for a command that may mount.
func namespaces(command ...string) []string {
	if os.Getuid() == 0 {
		return append([]string{"--mount", "--"}, command...)
	}
	return append([]string{"--user", "--map-root-user", "--mount", "--"}, command...)
}

func scriptHome(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: athome COMMAND…")
	}
	script := []string{"sh", "-c", `mount --bind "$HOME" /root && cd /root && HOME=/root exec "$@"`, "athome"}
	err := ts.Exec("unshare", namespaces(append(script, args...)...)...)
	if (err != nil) != neg {
		ts.Fatalf("athome %q: %v", args, err)
	}
}

var listening = regexp.MustCompile(`msg=listening address=127\.0\.0\.1:(\d+)`)

func scriptJump(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: startjump DIR")
	}
	binary := ts.MkAbs("fleetjump")
	build := exec.Command("go", "build", "-o", binary, "../fleetjump")
	if out, err := build.CombinedOutput(); err != nil {
		ts.Fatalf("building fleetjump: %v\n%s", err, out)
	}
	cmd := exec.Command(binary, "serve", "--config", filepath.Join(ts.MkAbs(args[0]), "jump.yaml"))
	log, err := cmd.StderrPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	var said strings.Builder
	done := make(chan struct{})
	port := make(chan string, 1)
	go func() {
		defer close(done)
		defer close(port)
		for lines, sent := bufio.NewScanner(log), false; lines.Scan(); {
			said.WriteString(lines.Text() + "\n")
			if m := listening.FindStringSubmatch(lines.Text()); m != nil && !sent {
				port <- m[1]
				sent = true
			}
		}
	}()
	ts.Defer(func() {
		_ = cmd.Process.Kill()
		<-done
		_ = cmd.Wait()
		ts.Logf("the jump host's log:\n%s", said.String())
	})
	p, ok := <-port
	if !ok {
		ts.Fatalf("the jump host doesn't listen")
	}
	ts.Setenv("JUMP_PORT", p)
}
