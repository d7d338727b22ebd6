package jump_test

import (
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// puttySession is a saved session of PuTTY's.
type puttySession struct {
	host, logical, login string
	port                 int
	agent                bool // is offered
	proxy                string
}

// putty makes PuTTY's settings for all ways in, and returns what is done with its
// programs. Its agent, Pageant, isn't in Debian's putty-tools; ssh-agent holds
// the certificate, which PuTTY takes from there as from Pageant.
func (s *stand) putty(t *testing.T) []operation {
	t.Helper()
	p := s.p
	put := func(folder, name, text string) {
		dir := filepath.Join(p.home, ".putty", folder)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, ca := range map[string]authority{"fleet": s.hostCA, "jump": s.jumpCA} {
		put("sshhostcas", name, fmt.Sprintf("PublicKey=%s\nValidity=%s\nPermitRSASHA1=0\nPermitRSASHA256=1\nPermitRSASHA512=1\n",
			base64.StdEncoding.EncodeToString(ca.PublicKey().Marshal()), "web* || *.example.com"))
	}
	host, text, _ := net.SplitHostPort(s.fleet.Hosts()[0].Addr())
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	inJump := "plink -load outer -batch -s proxy:%host:%port"
	for name, c := range map[string]puttySession{
		direct:      {host: host, port: port, logical: "web1", login: s.login},
		"outer":     {host: "127.0.0.1", port: s.port, logical: "jump.example.com", login: s.login, agent: true},
		"login":     {host: "127.0.0.1", port: s.port, logical: "jump.example.com", login: s.login + "%web1", agent: true},
		"subsystem": {host: "web1", port: port, login: s.login, proxy: inJump},
		"jump":      {host: "web1", port: port, login: s.login, agent: true, proxy: "plink -load outer -batch -nc %host:%port"},
	} {
		var b strings.Builder
		fmt.Fprintf(&b, "Protocol=ssh\nHostName=%s\nPortNumber=%d\nUserName=%s\nLogHost=%s\n", c.host, c.port, c.login, c.logical)
		if c.agent {
			b.WriteString("AgentFwd=1\n")
		}
		if c.proxy != "" {
			fmt.Fprintf(&b, "ProxyMethod=5\nProxyTelnetCommand=%s\n", c.proxy)
		}
		put("sessions", name, b.String())
	}
	noAgent := map[string]refused{}
	for _, road := range []string{"jump", "login"} {
		noAgent[road] = refused{"they never offer an agent", "no agent was forwarded"}
	}
	return []operation{
		{
			client: "PuTTY", what: "`plink`: command, stdin, stdout and stderr apart, exit status", recorded: "`command`",
			script: `printf 'in\000\377' | plink -batch -load $WAY 'cat; echo err >&2; exit 7' || echo "exit $?"`,
		},
		{
			client: "PuTTY", what: "`plink` with a key converted by `puttygen`, and its certificate", recorded: "`command`",
			script: `puttygen ../../id -O private -o ../id.ppk --certificate ../../id-cert.pub --new-passphrase /dev/null
				plink -batch -i ../id.ppk -load $WAY 'echo in' ; rm ../id.ppk`,
		},
		{
			client: "PuTTY", what: "`pscp`, `pscp -scp`: folders, modes, times", recorded: "`scp`, `sftp`", times: times, not: noAgent,
			script: `for f in -sftp -scp; do
				mkdir $THERE/to$f; touch -d @1600000000 tree 'tree/sub folder'
				pscp $f -batch -q -p -r tree $WAY:$THERE/to$f; pscp $f -batch -q -p -unsafe $WAY:$THERE/to$f/tree/large back$f; done`,
		},
		{
			client: "PuTTY", what: "`psftp`: put, get, chmod, move, remove", recorded: "`sftp`", not: noAgent,
			script: `printf 'cd %s\nput -r tree\nmv tree/run.sh ran.sh\nchmod 700 ran.sh\nrm tree/empty\nget tree/large back\nls\n' $THERE >../batch
				psftp -batch -b ../batch -load $WAY | sed 's/ [A-Z][a-z][a-z]  *[0-9]* [0-9][0-9]:[0-9][0-9] / /'; rm ../batch`,
		},
	}
}

// paramiko is what is done with Paramiko, which takes a host certificate for the
// bare key in it: it is told the keys of the host and of the jump host.
func (s *stand) paramiko(t *testing.T) []operation {
	t.Helper()
	program, err := filepath.Abs("testdata/paramiko_client.py")
	if err != nil {
		t.Fatal(err)
	}
	h := s.fleet.Hosts()[0]
	_, port, _ := net.SplitHostPort(h.Addr())
	shown, ok := s.settings.HostSigner.PublicKey().(*ssh.Certificate)
	if !ok {
		t.Fatal("the jump host has no certificate")
	}
	s.p.put("known_keys", fmt.Appendf(nil, "web1 %sjump.example.com %s",
		ssh.MarshalAuthorizedKey(h.PublicKeys()[0]), ssh.MarshalAuthorizedKey(shown.Key)))
	script := func(task string) string {
		return fmt.Sprintf(`port=%d; test $WAY = direct && port=%s
			/usr/bin/python3 %s $port $LOGIN ../.. web1 $WAY %s $THERE`, s.port, port, program, task)
	}
	inner := map[string]refused{}
	for _, road := range []string{"subsystem", "jump"} {
		inner[road] = refused{"it checks the bare key of a host certificate, and the jump host makes new ones at each start", "does not match"}
	}
	return []operation{
		{client: "Paramiko", what: "certificate in a file, agent forwarded: command, stdin, stdout and stderr apart, exit status", recorded: "`command`", script: script("run"), not: inner},
		{client: "Paramiko", what: "SFTP: put, get, chmod, rename, write in the middle", recorded: "`sftp`", script: script("files"), not: inner},
	}
}

// TestBareHostKey: a client that knows no host certificates is shown the jump
// host's bare key; one that trusts the CA isn't.
func TestBareHostKey(t *testing.T) {
	w := newWorld(t, worldConfig{hosts: []string{"web1"}})
	p := w.person(personConfig{})
	args := append([]string{"-v"}, append(p.ways()["login"]("web1"), "echo in")...)
	if r := p.run(p.ssh(args...)); r.stdout != "in\n" || !strings.Contains(r.stderr, "Server host certificate") {
		t.Errorf("got %+v", r)
	}
	shown, ok := w.settings.HostSigner.PublicKey().(*ssh.Certificate)
	if !ok {
		t.Fatal("the jump host has no certificate")
	}
	p.put("known_hosts", fmt.Appendf(nil, "jump.example.com %s", ssh.MarshalAuthorizedKey(shown.Key)))
	r := p.run(p.ssh(append([]string{"-o", "HostKeyAlgorithms=ssh-ed25519"}, args...)...))
	if r.stdout != "in\n" || strings.Contains(r.stderr, "Server host certificate") {
		t.Errorf("got %+v", r)
	}
	r = p.run(p.ssh(append([]string{"-o", "HostKeyAlgorithms=ssh-rsa"}, args...)...))
	if r.code != 255 || !strings.Contains(r.stderr, "no matching host key type") {
		t.Errorf("got %+v", r)
	}
}

// TestAgentLate: a client that offers its agent before it is ready to open it, as
// Paramiko does, is asked again.
func TestAgentLate(t *testing.T) {
	w := newWorld(t, worldConfig{hosts: []string{"web1"}})
	joe := w.attacker("joe", nil)
	conn, channels, requests, err := ssh.NewClientConn(joe.dial(), "jump.example.com", &ssh.ClientConfig{
		User: w.login + "%web1", Auth: []ssh.AuthMethod{ssh.PublicKeys(joe)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		t.Fatal(err)
	}
	c := ssh.NewClient(conn, nil, requests)
	t.Cleanup(func() { _ = c.Close() })
	asked := make(chan int, 1)
	go func() {
		n := 0
		for nc := range channels {
			if n++; n < 3 {
				_ = nc.Reject(ssh.Prohibited, "")
				continue
			}
			if ch, requests, err := nc.Accept(); err == nil {
				go ssh.DiscardRequests(requests)
				go func() { _ = agent.ServeAgent(joe.keyring(), ch) }()
			}
		}
		asked <- n
	}()
	v := &visit{Client: c}
	if out, err := v.exec("echo in"); err != nil || out != "in\n" {
		t.Errorf("got %q, %v", out, err)
	}
	_ = c.Close()
	if n := <-asked; n != 3 {
		t.Errorf("the agent was asked for %d times", n)
	}
}
