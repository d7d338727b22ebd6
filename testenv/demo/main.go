//go:build linux

// Command demo shows fleetca and fleetjump at work on a fleet of real sshd hosts
// on this machine: a title a step, the command, its output. With root the hosts
// are what people have (port 22, default paths, a login that needs sudo),
// otherwise they are unprivileged servers on loopback. It fails if a command
// doesn't print what it should.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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
	agent string // socket of an ssh-agent, once there is one
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

// command is a line that is shown, run, and held to what it should do.
type command struct {
	line string
	exit int
	// want must be in what it prints, or the demo fails.
	want []string
	// terminal runs it on a terminal of its own.
	terminal bool
}

type step struct {
	title    string
	commands []command
}

func (s *story) tell() error {
	if err := s.follow(s.provisioning()); err != nil {
		return err
	}
	if err := s.throughTheJumpHost(); err != nil {
		return err
	}
	s.title("The fleet is stopped, and nothing is left behind")
	return nil
}

func (s *story) follow(steps []step) error {
	for _, step := range steps {
		s.title(step.title)
		for _, c := range step.commands {
			if err := s.show(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// provisioning is the first part.
func (s *story) provisioning() []step {
	login := s.fleet.Hosts()[0].Login()
	const provision = "fleetca provision --inventory hosts.yaml --ssh-config provisioner_config"
	return []step{
		{"The inventory is Ansible's", []command{
			{line: "cat hosts.yaml"},
			{line: "fleetca inventory graph --inventory hosts.yaml"},
		}},
		{"Three authorities: for people, for hosts, for a jump host", []command{{line: "fleetca init --no-passphrase"}}},
		{"What would change? Nothing is touched (exit code 3: there is something)", []command{
			{line: provision + " --check --diff --limit web01", exit: 3},
		}},
		{"Provision: the whole fleet, verified from outside on new connections", []command{
			{line: provision, want: []string{"4 changed"}},
		}},
		{"People trust the host CA, and nothing else", []command{
			{line: "fleetca export --host-ca --format known_hosts --domain '*' >ca_only"},
			{line: "cat ca_only", want: []string{"@cert-authority * "}},
		}},
		{"Alice gets a certificate for an hour", []command{
			{line: "fleetca sign --user alice --principals " + login + " --ttl 1h --output alice"},
		}},
		{"She logs in with the plain ssh client, strictly checking host certificates", []command{
			{line: fmt.Sprintf("ssh -F ssh_config -i alice %s@web01 'echo Hello from $(hostname)'", login), want: []string{"Hello from "}},
			{line: fmt.Sprintf("ssh -F ssh_config -i alice %s@db1 'echo Hello from $(hostname)'", login), want: []string{"Hello from "}},
		}},
		{"A second run finds nothing to do, and signs nothing", []command{{line: provision, want: []string{"4 unchanged"}}}},
		{"Everything that was ever signed is in the ledger", []command{{line: "fleetca certs list", want: []string{"alice"}}}},
	}
}

func (s *story) file(name string) string { return filepath.Join(s.dir, name) }

func (s *story) title(text string) {
	s.step++
	fmt.Printf("\n%s\n", paint("1", fmt.Sprintf("%d. %s", s.step, text)))
}

// show prints a command and runs it in the demo's folder.
func (s *story) show(c command) error {
	_, err := s.output(c)
	return err
}

// output shows a command, and returns what it printed.
func (s *story) output(c command) (string, error) {
	s.prompt(c.line)
	var printed bytes.Buffer
	cmd := s.command(c.line)
	run := func() error {
		cmd.Stdout = io.MultiWriter(os.Stdout, &printed)
		cmd.Stderr = cmd.Stdout // one writer, so that nothing is written at once
		return cmd.Run()
	}
	if c.terminal {
		run = func() error { return onTerminal(cmd, io.MultiWriter(os.Stdout, &printed)) }
	}
	err := run()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != c.exit {
		return "", fmt.Errorf("%s: exit code %d wanted: %w", c.line, c.exit, errors.Join(err, s.ctx.Err()))
	}
	for _, want := range c.want {
		if !strings.Contains(printed.String(), want) {
			return "", fmt.Errorf("%s: it should have printed %q", c.line, want)
		}
	}
	return printed.String(), nil
}

func (s *story) prompt(line string) { fmt.Println(paint("36", "$ "+line)) }

// command is a shell's command in the demo's folder.
func (s *story) command(line string) *exec.Cmd {
	cmd := exec.CommandContext(s.ctx, "sh", "-c", line)
	cmd.Dir, cmd.Env = s.dir, s.environment()
	return cmd
}

func (s *story) environment() []string {
	return append(os.Environ(), "PATH="+s.path, "FLEETCA_DIR="+s.file("ca"), "FLEETJUMP_CONFIG="+s.file("jump/jump.yaml"),
		"SSH_AUTH_SOCK="+s.agent, "TERM=xterm-256color")
}

func paint(style, text string) string {
	if os.Getenv("NO_COLOR") != "" || !term.IsTerminal(int(os.Stdout.Fd())) {
		return text
	}
	return "\x1b[" + style + "m" + text + "\x1b[0m"
}
