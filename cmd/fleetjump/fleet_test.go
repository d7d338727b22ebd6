package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/jump/store"
	"github.com/fleetca/fleetca/templates"
	"github.com/fleetca/fleetca/testenv"
	"github.com/fleetca/fleetca/testenv/fleettest"
)

// eventually polls a condition, since what is waited for is in other processes.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting: %s", what)
		}
	}
}

// output gathers what a process writes, and when.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
	at []arrival
}

type arrival struct {
	total int
	when  time.Time
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer func() { o.at = append(o.at, arrival{o.b.Len(), time.Now()}) }()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func (o *output) Len() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Len()
}

// since is when there were more than n bytes.
func (o *output) since(n int) (time.Time, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, a := range o.at {
		if a.total > n {
			return a.when, true
		}
	}
	return time.Time{}, false
}

// process is a program that runs, with its input open.
type process struct {
	t         testing.TB
	cmd       *exec.Cmd
	in        io.WriteCloser
	out, errs output
	done      chan struct{}
}

func begin(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.out, &p.errs
	// What a killed program leaves behind may hold its outputs.
	cmd.WaitDelay = 5 * time.Second
	var err error
	if p.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-p.done
	})
	return p
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// ends waits for the program and returns its exit code.
func (p *process) ends() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(60 * time.Second):
		p.t.Fatalf("%q does not end\nstdout %.2000q\nstderr %.2000q", p.cmd.Args, p.out.String(), p.errs.String())
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// says waits until the program has written text to its output.
func (p *process) says(text string) {
	p.t.Helper()
	p.waitFor(&p.out, text)
}

// logs waits until it has written text to its standard error.
func (p *process) logs(text string) {
	p.t.Helper()
	p.waitFor(&p.errs, text)
}

func (p *process) waitFor(o *output, text string) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("%q of %q", text, p.cmd.Args), func() bool {
		if strings.Contains(o.String(), text) {
			return true
		}
		if !p.running() && !strings.Contains(o.String(), text) {
			p.t.Fatalf("%q ended before it said %q\nstdout %.2000q\nstderr %.2000q", p.cmd.Args, text, p.out.String(), p.errs.String())
		}
		return false
	})
}

// fleetSite is a jump host's folder in front of a fleet of real sshd hosts.
type fleetSite struct {
	*site
	t      testing.TB
	dir    string
	userCA ssh.Signer
	fleet  *testenv.Fleet
	login  string
}

const (
	openRoles  = `  - {name: open, identities: ["*"], logins: ["*"], hosts: [all], permit: all, recordings: all, read_audit: true, remove_recordings: true}`
	shellRoles = `  - {name: shells, identities: ["*"], logins: ["*"], hosts: [all], permit: [shell]}`
)

// newFleetSite makes one whose jump.yaml has more at its end.
func newFleetSite(t testing.TB, more string, names ...string) *fleetSite {
	t.Helper()
	s := &fleetSite{t: t, dir: checkFolder(t)}
	s.site = &site{file: filepath.Join(s.dir, templates.JumpConfigFile)}
	s.userCA = s.key("user_ca")
	hostCA := s.key("host_ca")
	s.fleet = fleettest.Start(t, testenv.Config{
		Names: names, Host: testenv.HostConfig{KeyTypes: []string{testenv.Ed25519}},
		PerHost: func(name string, h *testenv.HostConfig) {
			h.Top += fmt.Sprintf("TrustedUserCAKeys %s\nHostCertificate %s\nMaxStartups 100\n", s.path("user_ca.pub"), s.path(name+"-cert.pub"))
		},
	})
	for _, h := range s.fleet.Hosts() {
		s.login = h.Login()
		s.put(h.Name()+"-cert.pub", certificate(t, hostCA, h.PublicKeys()[0], ssh.HostCert, h.Name(), h.Name()))
		if err := h.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.fleet.Inventory(s.path("hosts.yaml"), testenv.InventoryConfig{}); err != nil {
		t.Fatal(err)
	}
	s.configure(openRoles, more)
	return s
}

func (s *fleetSite) path(name string) string { return filepath.Join(s.dir, name) }

func (s *fleetSite) put(name string, content []byte) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), content, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *fleetSite) key(name string) ssh.Signer {
	s.t.Helper()
	text, err := os.ReadFile(s.path(name))
	if err != nil {
		s.t.Fatal(err)
	}
	key, err := ssh.ParsePrivateKey(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return key
}

// configure writes jump.yaml as people do: in place.
func (s *fleetSite) configure(roles, more string) {
	s.t.Helper()
	s.put(templates.JumpConfigFile, []byte(`name: jump
listen: ["127.0.0.1:0"]
admin_socket: state/admin.sock
host_key: `+templates.JumpHostKeyFile+`
jump_ca: `+templates.JumpCAFile+`
user_cas: [user_ca.pub]
host_cas: [host_ca.pub]
inventory: [hosts.yaml]
audit_dir: state/audit
roles:
`+roles+"\n"+more))
}

const usualStore = "store: {dir: state/store}\n"

// server is "fleetjump serve".
type server struct {
	*process
	port string
}

var listeningOn = regexp.MustCompile(`msg=listening address=127\.0\.0\.1:(\d+)`)

// start starts a server, which is killed at the end of the test if it still
// runs then.
func (s *fleetSite) start(t testing.TB) *server {
	t.Helper()
	srv := &server{process: begin(t, command(t, "serve", "--config", s.file))}
	t.Cleanup(func() {
		if log := srv.errs.String(); t.Failed() || strings.Contains(log, "DATA RACE") || strings.Contains(log, "goroutine ") {
			t.Errorf("the server's log:\n%s", log)
		}
	})
	srv.logs("msg=listening")
	srv.port = listeningOn.FindStringSubmatch(srv.errs.String())[1]
	return srv
}

// kill is kill -9.
func (srv *server) kill() {
	srv.t.Helper()
	if !srv.running() {
		srv.t.Fatalf("the server has ended by itself:\n%s", srv.errs.String())
	}
	srv.signal(syscall.SIGKILL)
	srv.ends()
}

func certificate(t testing.TB, ca ssh.Signer, key ssh.PublicKey, kind uint32, id string, principals ...string) []byte {
	t.Helper()
	cert := &ssh.Certificate{
		Key: key, Serial: uint64(time.Now().UnixNano()), CertType: kind, KeyId: id, ValidPrincipals: principals,
		ValidAfter: uint64(time.Now().Add(-time.Minute).Unix()), ValidBefore: uint64(time.Now().Add(time.Hour).Unix()),
	}
	if kind == ssh.UserCert {
		cert.Extensions = map[string]string{"permit-pty": "", "permit-agent-forwarding": "", "permit-port-forwarding": ""}
	}
	if err := cert.SignCert(rand.Reader, ca); err != nil {
		t.Fatal(err)
	}
	return ssh.MarshalAuthorizedKey(cert)
}

// person has a certificate, an agent and the usual ssh.
type person struct {
	s    *fleetSite
	t    testing.TB
	home string
}

func (s *fleetSite) person(t testing.TB, identity string) *person {
	t.Helper()
	home, err := os.MkdirTemp("", "p") // short, since it holds a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	p := &person{s: s, t: t, home: home}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	pub, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	p.put("id", pem.EncodeToMemory(block))
	p.put("id-cert.pub", certificate(t, s.userCA, pub, ssh.UserCert, identity, s.login))
	known := ""
	for _, ca := range []string{"host_ca", templates.JumpCAFile} {
		known += "@cert-authority * " + string(ssh.MarshalAuthorizedKey(s.key(ca).PublicKey()))
	}
	p.put("known_hosts", []byte(known))
	agent := begin(t, exec.Command("ssh-agent", "-D", "-a", p.path("agent")))
	agent.says("SSH_AUTH_SOCK") // it listens by then
	if out, err := p.command("ssh-add", "-q", p.path("id")).CombinedOutput(); err != nil {
		t.Fatalf("ssh-add: %v\n%s", err, out)
	}
	return p
}

func (p *person) path(name string) string { return filepath.Join(p.home, name) }

func (p *person) put(name string, content []byte) {
	p.t.Helper()
	if err := os.WriteFile(p.path(name), content, 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// at points the person's ssh at a server.
func (p *person) at(srv *server) *person {
	p.t.Helper()
	text := fmt.Sprintf("Host jump *%%*\n  HostName 127.0.0.1\n  Port %s\n  HostKeyAlias jump\n", srv.port)
	for _, h := range p.s.fleet.Hosts() {
		text += fmt.Sprintf("Host %s\n  Port %s\n", h.Name(), h.Addr()[strings.LastIndexByte(h.Addr(), ':')+1:])
	}
	// The key exchange is pinned because the usual one takes most of the time.
	p.put("config", fmt.Appendf([]byte(text), "Host *\n  User %s\n  IdentityFile %s\n  IdentityAgent %s\n  UserKnownHostsFile %s\n"+
		"  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  KexAlgorithms curve25519-sha256\n",
		p.s.login, p.path("id"), p.path("agent"), p.path("known_hosts")))
	return p
}

func (p *person) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = p.home
	cmd.Env = []string{"SSH_AUTH_SOCK=" + p.path("agent"), "HOME=" + p.home, "PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "TERM=xterm"}
	return cmd
}

func (p *person) ssh(args ...string) *process {
	p.t.Helper()
	return begin(p.t, p.command("ssh", append([]string{"-F", p.path("config")}, args...)...))
}

// way is one of the three ways to a host, as options and destination.
func (p *person) way(n int, host string) []string {
	switch n % 3 {
	case 0:
		return []string{"-o", fmt.Sprintf("ProxyCommand=ssh -F %s -A %%r@jump -s proxy:%%h:%%p", p.path("config")), host}
	case 1:
		return []string{"-A", "-J", "jump", host}
	}
	return []string{"-A", p.s.login + "%" + host + "@jump"}
}

// terminal runs a command on a terminal of a host. What the terminal shows is
// the output, byte for byte.
func (p *person) terminal(way int, host, command string) *process {
	p.t.Helper()
	return p.ssh(append(append([]string{"-tt"}, p.way(way, host)...), command)...)
}

// run runs the program beside the server, as its own process would.
func (s *fleetSite) run(t testing.TB, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return fleetjump(t, append(args, "--config", s.file)...)
}

// list is what "sessions ls" lists.
func (s *fleetSite) list(t testing.TB) []store.Session {
	t.Helper()
	code, out, errs := s.run(t, "sessions", "ls", "--json", "--limit", "0")
	if code != 0 {
		t.Fatalf("sessions ls: %d %s", code, errs)
	}
	var all []store.Session
	for d := json.NewDecoder(strings.NewReader(out)); ; {
		var e store.Session
		if err := d.Decode(&e); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatalf("sessions ls: %v in %.300q", err, out)
		}
		all = append(all, e)
	}
}

// find finds the session that ran the command.
func (s *fleetSite) find(t testing.TB, command string) (store.Session, bool) {
	t.Helper()
	for _, e := range s.list(t) {
		if e.Command == command {
			return e, true
		}
	}
	return store.Session{}, false
}

// raw is the recorded output of a session.
func (s *fleetSite) raw(t testing.TB, id string) string {
	t.Helper()
	code, out, errs := s.run(t, "sessions", "export", "--format", "raw", id)
	if code != 0 {
		t.Errorf("sessions export %s: %d %s", id, code, errs)
	}
	return out
}

// intact verifies all recordings and the audit log.
func (s *fleetSite) intact(t testing.TB) {
	t.Helper()
	if code, out, errs := s.run(t, "sessions", "verify", "--all"); code != 0 || !strings.Contains(errs, ", 0 damaged") {
		t.Errorf("sessions verify --all: %d %q %q", code, out, errs)
	}
	if code, out, errs := s.run(t, "audit", "--verify", "--json"); code != 0 || !strings.Contains(out, `"problem_count":0`) {
		t.Errorf("audit --verify: %d %q %q", code, out, errs)
	}
}

// ended waits until a session has, and returns it.
func (s *fleetSite) ended(t testing.TB, command string) store.Session {
	t.Helper()
	var e store.Session
	eventually(t, "the end of session "+command, func() bool {
		var ok bool
		e, ok = s.find(t, command)
		return ok && e.State != store.Open
	})
	return e
}
