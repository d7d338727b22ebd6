//go:build linux

// Command demo shows fleetca at work on a fleet of real sshd hosts on this
// machine: a title a step, the command, its output. With root the hosts are
// what people have (port 22, default paths, a login that needs sudo), otherwise
// they are unprivileged servers on loopback.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/term"

	"github.com/fleetca/fleetca/testenv"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// story tells the demo.
type story struct {
	ctx   context.Context // of the one run that this program is
	dir   string
	path  string
	step  int
	fleet *testenv.Fleet
}

func run(ctx context.Context) (err error) {
	if len(os.Args) != 2 {
		return errors.New("usage: demo PATH_OF_FLEETCA")
	}
	binary, err := filepath.Abs(os.Args[1])
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "fleetca-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := &story{ctx: ctx, dir: dir, path: filepath.Dir(binary) + ":" + os.Getenv("PATH")}
	s.title("A fleet of real sshd hosts that know nothing of certificates")
	if err := s.start(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.fleet.Close()) }()
	return s.tell()
}

// start brings the fleet up and writes what an engineer would have already:
// inventory, known_hosts and ssh_config.
func (s *story) start() (err error) {
	config := testenv.Config{Names: []string{"web[01:03]", "db1"}}
	begin := testenv.Start
	if os.Geteuid() == 0 {
		begin = testenv.StartNamespaced
	}
	if s.fleet, err = begin(s.ctx, config); err != nil {
		return err
	}
	vars := map[string]any{}
	if os.Geteuid() == 0 {
		vars["ansible_become"] = true
	}
	if err := s.fleet.Inventory(s.file("hosts.yaml"), testenv.InventoryConfig{Vars: vars}); err != nil {
		return err
	}
	if err := s.fleet.KnownHosts(s.file("known_hosts")); err != nil {
		return err
	}
	provisioner := fmt.Sprintf("UserKnownHostsFile %s\nStrictHostKeyChecking yes\n", s.file("known_hosts"))
	if err := os.WriteFile(s.file("provisioner_config"), []byte(provisioner), 0o600); err != nil {
		return err
	}
	return os.WriteFile(s.file("ssh_config"), []byte(s.clientConfig()), 0o600)
}

// clientConfig is for people: where the hosts are, and that nothing but the
// host CA is believed.
func (s *story) clientConfig() string {
	var b strings.Builder
	for _, h := range s.fleet.Hosts() {
		address, port, _ := net.SplitHostPort(h.Addr())
		fmt.Fprintf(&b, "Host %s\n\tHostName %s\n\tPort %s\n\tHostKeyAlias %s\n", h.Name(), address, port, h.Name())
	}
	fmt.Fprintf(&b, "Host *\n\tUserKnownHostsFile ca_only\n\tGlobalKnownHostsFile none\n\tStrictHostKeyChecking yes\n\tIdentitiesOnly yes\n\tBatchMode yes\n")
	return b.String()
}

func (s *story) tell() error {
	login := s.fleet.Hosts()[0].Login()
	steps := []struct {
		title    string
		commands []string
		exit     int
	}{
		{"The inventory is Ansible's", []string{"cat hosts.yaml", "fleetca inventory graph --inventory hosts.yaml"}, 0},
		{"Three authorities: for people, for hosts, for a jump host", []string{"fleetca init --no-passphrase"}, 0},
		{"What would change? Nothing is touched (exit code 3: there is something)", []string{
			"fleetca provision --inventory hosts.yaml --ssh-config provisioner_config --check --diff --limit web01",
		}, 3},
		{"Provision: the whole fleet, verified from outside on new connections", []string{
			"fleetca provision --inventory hosts.yaml --ssh-config provisioner_config",
		}, 0},
		{"People trust the host CA, and nothing else", []string{
			"fleetca export --host-ca --format known_hosts --domain '*' >ca_only",
			"cat ca_only",
		}, 0},
		{"Alice gets a certificate for an hour", []string{
			"fleetca sign --user alice --principals " + login + " --ttl 1h --output alice",
		}, 0},
		{"She logs in with the plain ssh client, strictly checking host certificates", []string{
			fmt.Sprintf("ssh -F ssh_config -i alice %s@web01 'echo Hello from $(hostname)'", login),
			fmt.Sprintf("ssh -F ssh_config -i alice %s@db1 'echo Hello from $(hostname)'", login),
		}, 0},
		{"A second run finds nothing to do, and signs nothing", []string{
			"fleetca provision --inventory hosts.yaml --ssh-config provisioner_config",
		}, 0},
		{"Everything that was ever signed is in the ledger", []string{"fleetca certs list"}, 0},
	}
	for _, step := range steps {
		s.title(step.title)
		for _, command := range step.commands {
			if err := s.show(command, step.exit); err != nil {
				return err
			}
		}
	}
	s.title("The fleet is stopped, and nothing is left behind")
	return nil
}

func (s *story) file(name string) string { return filepath.Join(s.dir, name) }

func (s *story) title(text string) {
	s.step++
	fmt.Printf("\n%s\n", paint("1", fmt.Sprintf("%d. %s", s.step, text)))
}

// show prints a command and runs it in the demo's folder.
func (s *story) show(command string, exit int) error {
	fmt.Println(paint("36", "$ "+command))
	cmd := exec.CommandContext(s.ctx, "sh", "-c", command)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "PATH="+s.path, "FLEETCA_DIR="+s.file("ca"), "SSH_AUTH_SOCK=")
	err := cmd.Run()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != exit {
		return fmt.Errorf("%s: %w", command, errors.Join(err, s.ctx.Err()))
	}
	return nil
}

func paint(style, text string) string {
	if os.Getenv("NO_COLOR") != "" || !term.IsTerminal(int(os.Stdout.Fd())) {
		return text
	}
	return "\x1b[" + style + "m" + text + "\x1b[0m"
}
