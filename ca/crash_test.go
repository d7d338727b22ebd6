package ca_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fleetca/fleetca/ca"
)

// initEnv makes the test binary make CA folders until it is killed.
const initEnv = "FLEETCA_TEST_INIT_INTO"

func TestMain(m *testing.M) {
	if dir := os.Getenv(initEnv); dir != "" {
		fmt.Fprintln(os.Stderr, initForEver(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func initForEver(dir string) error {
	for i := 0; ; i++ {
		path := filepath.Join(dir, fmt.Sprintf("ca%d", i))
		if _, err := ca.Init(context.Background(), ca.InitConfig{Path: path, NoPassphrase: true}); err != nil {
			return err
		}
		fmt.Println(path)
	}
}

// TestKilledWhileMaking kills inits at whatever they are doing: each CA folder
// that is there is whole, and what else is left has a name that says so.
func TestKilledWhileMaking(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	whole, left := 0, 0
	for round := range 10 {
		dir := t.TempDir()
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), initEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if n == round%4 {
				if err := cmd.Process.Kill(); err != nil {
					t.Error(err)
				}
			}
		}
		_ = cmd.Wait() // it was killed
		for _, name := range names(t, dir) {
			if strings.HasPrefix(name, ".ca") && strings.Contains(name, ".new-") {
				left++
				continue
			}
			f, err := ca.OpenFolder(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			for _, role := range ca.Roles() {
				if _, err := f.Signer(role, ca.Unlock{}); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			whole++
		}
	}
	if whole < 10 {
		t.Errorf("only %d CA folders were made", whole)
	}
	t.Logf("%d whole CA folders, %d unfinished ones set aside", whole, left)
}
