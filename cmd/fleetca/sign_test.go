package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/testenv"
	"github.com/fleetca/fleetca/testenv/fleettest"
)

// fleetca runs a command within this process and gives its standard output.
func fleetca(t *testing.T, env map[string]string, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	getenv := func(name string) string { return env[name] }
	a := &program.App{
		Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr,
		Getenv: getenv, Now: time.Now, Term: terminal.New(getenv),
	}
	if code := program.Run(t.Context(), config, a, new(cli), args); code != 0 {
		t.Fatalf("fleetca %q: exit code %d\n%s", args, code, stderr.String())
	}
	return stdout.String()
}

func writeText(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestPrintedLinesWork takes what init, export and sign print, puts it word for
// word into sshd_config, known_hosts and ssh_config, and logs in.
func TestPrintedLinesWork(t *testing.T) {
	dir := t.TempDir()
	env := map[string]string{"FLEETCA_DIR": filepath.Join(dir, "ca")}
	fleetca(t, env, "init", "--no-passphrase")
	userCA := filepath.Join(dir, "user_ca.pub")
	writeText(t, userCA, fleetca(t, env, "export", "--user-ca"))
	fleet := fleettest.Start(t, testenv.Config{
		Names: []string{"web1"}, Host: testenv.HostConfig{Top: "TrustedUserCAKeys " + userCA},
	})
	host := fleet.Host("web1")
	etc := filepath.Dir(host.ConfigPath())

	var lines strings.Builder
	keys, err := filepath.Glob(filepath.Join(host.File(etc), "ssh_host_*_key.pub"))
	if err != nil || len(keys) != 3 {
		t.Fatalf("host keys %q, %v", keys, err)
	}
	for _, key := range keys {
		lines.WriteString(fleetca(t, env, "sign", "--host", "web1,web1.example.com", key))
	}
	writeText(t, host.File(filepath.Join(etc, "sshd_config.d", "certs.conf")), lines.String())
	if err := host.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}

	_, port, err := net.SplitHostPort(host.Addr())
	if err != nil {
		t.Fatal(err)
	}
	known := filepath.Join(dir, "known_hosts")
	writeText(t, known, fleetca(t, env, "export", "--host-ca", "--domain", "*.example.com"))
	login := func(lines string) (string, error) {
		config := filepath.Join(dir, "ssh_config")
		writeText(t, config, lines+"IdentitiesOnly yes\nIdentityAgent none\nBatchMode yes\nStrictHostKeyChecking yes\n"+
			"HostKeyAlias web1.example.com\nUserKnownHostsFile "+known+"\nGlobalKnownHostsFile /dev/null\n")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		out, err := exec.CommandContext(ctx, "ssh", "-F", config, "-p", port, "-l", host.Login(), "127.0.0.1", "echo in").CombinedOutput()
		return string(out), err
	}
	alice := filepath.Join(dir, "alice with a space")
	out, err := login(fleetca(t, env, "sign", "--user", "alice", "--principals", host.Login(), "-o", alice))
	if err != nil || out != "in\n" {
		t.Errorf("refused: %v\n%s", err, out)
	}
	mallory := filepath.Join(dir, "mallory")
	out, err = login(fleetca(t, env, "sign", "--user", "mallory", "--principals", "nobody-else", "-o", mallory))
	if err == nil || !strings.Contains(out, "Permission denied") {
		t.Errorf("accepted without the principal: %v\n%s", err, out)
	}
}
