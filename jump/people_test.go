package jump_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/testenv/fleettest"
)

// client is one person with an ssh-agent and an ssh configuration.
type client struct {
	w      *world
	home   string
	config string
	socket string
	key    string
}

// personConfig says what a person has. Zero is what people should have.
type personConfig struct {
	identity   string
	principals []string
	change     func(*ssh.Certificate)
	ca         *authority
	plain      bool // no certificate at all
	keyOnly    bool // the agent has the key, the certificate is only in a file
	noAgent    bool // no key in the agent; ssh uses the files
	extra      string
}

func (w *world) person(c personConfig) *client {
	t := w.t
	t.Helper()
	home, err := os.MkdirTemp("", "p") // short, since it holds a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	p := &client{w: w, home: home, socket: filepath.Join(home, "agent"), key: filepath.Join(home, "id"), config: filepath.Join(home, "config")}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "test")
	if err != nil {
		t.Fatal(err)
	}
	pub, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	p.put("id", pem.EncodeToMemory(block))
	p.put("id.pub", ssh.MarshalAuthorizedKey(pub))
	if c.identity == "" {
		c.identity = "joe"
	}
	if c.principals == nil {
		c.principals = []string{w.login}
	}
	ca := w.userCA
	if c.ca != nil {
		ca = *c.ca
	}
	fleettest.Agent(t, p.socket)
	if c.keyOnly {
		p.addKey()
	}
	if !c.plain {
		p.put("id-cert.pub", ssh.MarshalAuthorizedKey(ca.sign(t, pub, ssh.UserCert, c.identity, c.principals, c.change)))
	}
	if !c.keyOnly && !c.noAgent {
		p.addKey()
	}
	p.put("known_hosts", slices.Concat(
		[]byte("@cert-authority * "), ssh.MarshalAuthorizedKey(w.hostCA.PublicKey()),
		[]byte("@cert-authority * "), ssh.MarshalAuthorizedKey(w.jumpCA.PublicKey())))
	var b strings.Builder
	fmt.Fprintf(&b, "Host jump *%%*\n  HostName 127.0.0.1\n  Port %d\n  HostKeyAlias jump.example.com\n", w.port)
	for _, h := range w.fleet.Hosts() {
		_, port, _ := net.SplitHostPort(h.Addr())
		fmt.Fprintf(&b, "Host %s\n  Port %s\n", h.Name(), port)
	}
	fmt.Fprintf(&b, "Host *\n  User %s\n  IdentityFile %s\n  IdentityAgent %s\n  UserKnownHostsFile %s\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  LogLevel INFO\n  %s\n",
		w.login, p.key, p.socket, filepath.Join(home, "known_hosts"), c.extra)
	p.put("config", []byte(b.String()))
	return p
}

func (p *client) put(name string, content []byte) {
	p.w.t.Helper()
	if err := os.WriteFile(filepath.Join(p.home, name), content, 0o600); err != nil {
		p.w.t.Fatal(err)
	}
}

func (p *client) addKey() {
	p.w.t.Helper()
	cmd := exec.Command("ssh-add", "-q", p.key)
	cmd.Env = p.env()
	if out, err := cmd.CombinedOutput(); err != nil {
		p.w.t.Fatalf("ssh-add: %v\n%s", err, out)
	}
}

func (p *client) env() []string {
	return []string{"SSH_AUTH_SOCK=" + p.socket, "HOME=" + p.home, "PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "TERM=xterm"}
}

// proxyCommand is what people write for the first way in.
func (p *client) proxyCommand(flags string) string {
	return fmt.Sprintf("ProxyCommand=ssh -F %s %s %%r@jump -s proxy:%%h:%%p", p.config, flags)
}

// command is a stock program with this person's environment.
func (p *client) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = p.env()
	cmd.Dir = p.home
	return cmd
}

// ssh is the plain client with the person's configuration.
func (p *client) ssh(args ...string) *exec.Cmd {
	return p.command("ssh", append([]string{"-F", p.config}, args...)...)
}

// ways are the options that lead to a host, and the destination's name.
func (p *client) ways() map[string]func(host string) []string {
	return map[string]func(string) []string{
		"subsystem":       func(h string) []string { return []string{"-o", p.proxyCommand("-A"), h} },
		"subsystem inner": func(h string) []string { return []string{"-A", "-o", p.proxyCommand(""), h} },
		"jump":            func(h string) []string { return []string{"-A", "-J", "jump", h} },
		"login":           func(h string) []string { return []string{"-A", p.w.login + "%" + h + "@jump"} },
	}
}

// result is what a program printed and how it ended.
type result struct {
	stdout, stderr string
	code           int
}

func (p *client) run(cmd *exec.Cmd) result {
	p.w.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if err := cmd.Start(); err != nil {
		p.w.t.Fatal(err)
	}
	kill := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer kill()
	err := cmd.Wait()
	r := result{stdout: stdout.String(), stderr: stderr.String()}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		r.code = exit.ExitCode()
	} else if err != nil {
		p.w.t.Fatalf("%v: %v", cmd.Args, err)
	}
	if ctx.Err() != nil {
		p.w.t.Fatalf("%v did not end in time\nstdout %q\nstderr %q", cmd.Args, r.stdout, r.stderr)
	}
	return r
}
