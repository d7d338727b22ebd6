//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
)

// throughTheJumpHost is the second part: the same fleet behind a jump host that
// records.
func (s *story) throughTheJumpHost() (err error) {
	address, err := freeAddress()
	if err != nil {
		return err
	}
	login := s.fleet.Hosts()[0].Login()
	if err := os.WriteFile(s.file("jump_config"), []byte(s.jumpClientConfig(address)), 0o600); err != nil {
		return err
	}
	if err := s.follow(s.jumpFolder(address)); err != nil {
		return err
	}
	server, err := s.startBackground("fleetjump serve --config jump/jump.yaml 2>jump.log")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	if err := server.Ready(s.ctx, "it listens", says(s.file("jump.log"), "listening")); err != nil {
		return err
	}
	s.title("Alice's certificate is in her ssh-agent and nowhere else")
	agent, err := s.startBackground("ssh-agent -D -a agent >/dev/null")
	if err != nil {
		return err
	}
	// An agent that is told to end says so by its exit status.
	defer func() { _ = agent.Stop() }()
	if err := agent.Ready(s.ctx, "it listens", exists(s.file("agent"))); err != nil {
		return err
	}
	s.agent = s.file("agent")
	defer func() { s.agent = "" }()
	s.prompt("export SSH_AUTH_SOCK=$PWD/agent FLEETJUMP_CONFIG=$PWD/jump/jump.yaml")
	if err := s.show(command{line: "fleetca sign --user alice --principals " + login + " --ttl 1h --agent"}); err != nil {
		return err
	}
	kind, ask := "terminal", "-t "
	if !hostsGiveTerminals() {
		kind, ask = "command", ""
	}
	if err := s.follow(connecting(login, ask)); err != nil {
		return err
	}
	if err := s.lookAtRecordings(login, kind); err != nil {
		return err
	}
	if err := s.follow(refused(login)); err != nil {
		return err
	}
	s.title("The jump host is stopped in order; what it recorded stays readable")
	s.prompt("kill -TERM %1; wait %1")
	if err := server.Stop(); err != nil {
		return err
	}
	return errors.Join(
		s.show(command{line: "tail -n 1 jump.log", want: []string{"msg=stopped"}}),
		s.show(command{line: "fleetjump sessions verify --all", want: []string{"4 sealed, 0 interrupted, 0 running, 0 not recorded, 0 damaged"}}),
	)
}

// freeAddress is the usual one of a jump host, or another one if that is taken.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:3023")
	if err != nil {
		l, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// jumpClientConfig is all that people behind a jump host need to have.
func (s *story) jumpClientConfig(address string) string {
	host, port, _ := net.SplitHostPort(address)
	var b strings.Builder
	fmt.Fprintf(&b, "Host jump\n\tHostName %s\n\tPort %s\n\tHostKeyAlias jump.example.com\n", host, port)
	fmt.Fprintf(&b, "Host web* db*\n\tProxyCommand ssh -F jump_config -A %%r@jump -s proxy:%%h:%%p\n")
	for _, h := range s.fleet.Hosts() {
		if _, port, _ := net.SplitHostPort(h.Addr()); port != "22" {
			fmt.Fprintf(&b, "Host %s\n\tPort %s\n", h.Name(), port)
		}
	}
	fmt.Fprintf(&b, "Host *\n\tUserKnownHostsFile ca_only\n\tGlobalKnownHostsFile none\n\tStrictHostKeyChecking yes\n\tBatchMode yes\n")
	return b.String()
}

func (s *story) jumpFolder(address string) []step {
	return []step{
		{"A jump host that records: all that it needs, in one folder", []command{
			{line: "fleetca jump init --inventory hosts.yaml --name jump.example.com --listen " + address + " --admin alice --everyone --out jump"},
			{line: "ls -F jump"},
			{line: "fleetjump config check --config jump/jump.yaml", want: []string{"is good"}},
		}},
		{"People trust what the jump host shows for a host; this is all of their configuration", []command{
			{line: "fleetca export --jump-ca --domain '*' >>ca_only"},
			{line: "cat jump_config"},
		}},
		{"The jump host runs", nil},
	}
}

// connecting shows the three ways in, and a file copied. The options ask for a
// terminal.
func connecting(login, terminal string) []step {
	ssh := func(options, host, command string) string {
		return fmt.Sprintf("ssh -F jump_config %s%s %s", options, host, command)
	}
	return []step{
		{"Three ways through it, with the plain ssh client: ProxyCommand, -J, login%host", []command{
			{line: ssh("", login+"@web01", `'echo Hello from $(hostname), without a terminal'`), want: []string{"Hello from "}},
			{
				line:     ssh(terminal+"-A -J jump ", login+"@web02", `'for c in 31 32 34; do printf "\033[${c}mcolour %s\033[0m\n" $c; sleep 0.4; done'`),
				want:     []string{"\x1b[31mcolour 31", "\x1b[34mcolour 34"},
				terminal: true,
			},
			{line: ssh("-A ", login+"%db1@jump", `'echo Hello from $(hostname); exit 7'`), exit: 7, want: []string{"Hello from "}},
		}},
		{"scp and sftp go the same way", []command{
			{line: "scp -q -F jump_config jump.log " + login + "@web01:"},
		}},
	}
}

// lookAtRecordings shows the list, and all that can be done with the session on
// web02, which is of that kind.
func (s *story) lookAtRecordings(login, kind string) error {
	if err := s.follow([]step{{"What was recorded: on the jump host, and over SSH for those whose role allows it", []command{
		{line: "fleetjump sessions ls", want: []string{"command", kind, "sftp"}},
		{line: "ssh -F jump_config jump sessions ls --user alice --host web02", want: []string{"web02"}},
	}}}); err != nil {
		return err
	}
	id, err := s.sessionID("web02")
	if err != nil {
		return err
	}
	return s.follow([]step{
		{"A session is replayed, as it was; the keys are those of asciinema, and more", []command{
			{line: "fleetjump play " + id, want: []string{"colour 31", "colour 34"}, terminal: true},
			{line: "ssh -F jump_config jump play --speed 0 " + id, want: []string{"colour 31", "colour 34"}},
		}},
		{"It plays in asciinema, and can be searched as text", []command{
			{line: "fleetjump sessions export " + id + " >session.cast"},
			{line: "asciinema cat session.cast", want: []string{"\x1b[31mcolour 31"}, terminal: true},
			{line: "fleetjump sessions export --format text " + id + " | grep 'colour 3[24]'", want: []string{"colour 32\n", "colour 34\n"}},
		}},
		{"Nobody changed anything: every block is hashed, and so is every line of the audit log", []command{
			{line: "fleetjump sessions verify " + id, want: []string{"intact and sealed"}},
			{line: "fleetjump audit --verify", want: []string{"the last one's hash is"}},
			{line: "fleetjump audit --file '*jump.log'", want: []string{"write", "jump.log"}},
		}},
		{"Who may do what, and why", []command{
			{line: "fleetjump access check --identity alice --login " + login + " --host web01 --action shell", want: []string{"yes", "role admins"}},
			{
				line: "fleetjump access check --identity bob --login root --principal " + login + " --host web01 --action shell", exit: 1,
				want: []string{`login "root" is not among the principals`},
			},
		}},
	})
}

// refused shows what people see who are not let through.
func refused(login string) []step {
	return []step{{"Who is refused reads why, on their own terminal", []command{
		{
			line: "ssh -F jump_config root@web01 id", exit: 255,
			want: []string{
				`fleetjump: login "root" is not among the principals of the certificate of "alice" ("` + login + `")`,
				"hint: ask for a certificate that lists this login as a principal",
			},
		},
		{
			line: "ssh -F jump_config " + login + "@web99 id", exit: 255,
			want: []string{`fleetjump: host "web99" is not in the inventory`, "hint: "},
		},
		{
			line: "ssh -F jump_config -J jump " + login + "@web01 id", exit: 255,
			want: []string{"fleetjump: no agent was forwarded", "hint: ssh -A -J"},
		},
		{line: "fleetjump audit --event session.reject", want: []string{"root", "web99", "no agent was forwarded"}},
	}}}
}

// sessionID is the ID of the latest session on a host, as people would copy it
// from the list.
func (s *story) sessionID(host string) (string, error) {
	out, err := s.command("fleetjump sessions ls --json --limit 1 --host " + host + " 2>/dev/null").Output()
	if err != nil {
		return "", fmt.Errorf("listing sessions: %w", err)
	}
	var session struct{ ID string }
	if err := json.Unmarshal(out, &session); err != nil {
		return "", fmt.Errorf("listing sessions: %w", err)
	}
	const shown = 12
	if len(session.ID) < shown {
		return "", fmt.Errorf("listing sessions: %q is no ID", session.ID)
	}
	return session.ID[:shown], nil
}
