package sshconfig

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// write puts a configuration into a file and returns its path.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// empty is a system file that says nothing.
func empty(t *testing.T) string { return write(t, "") }

func lookup(t *testing.T, text, name string, over Override) (Settings, error) {
	t.Helper()
	c, err := Load(Files{User: write(t, text), System: empty(t)})
	if err != nil {
		return Settings{}, err
	}
	return c.Lookup(name, over)
}

// asDumped prints settings in the words of `ssh -G`.
func asDumped(s Settings) []string {
	yes := map[bool]string{true: "yes", false: "no"}
	strict := map[string]string{"yes": "true", "no": "false", "ask": "ask", "accept-new": "accept-new"}
	timeout := "none"
	if s.ConnectTimeout != 0 {
		timeout = strconv.Itoa(int(s.ConnectTimeout.Seconds()))
	}
	family := s.AddressFamily
	if family == "" {
		family = "any"
	}
	out := []string{
		"hostname " + s.HostName, "port " + strconv.Itoa(s.Port), "user " + s.User,
		"identitiesonly " + yes[s.IdentitiesOnly], "hashknownhosts " + yes[s.HashKnownHosts],
		"stricthostkeychecking " + strict[s.StrictHostKeyChecking],
		"connecttimeout " + timeout, "addressfamily " + family,
		"userknownhostsfile " + orNone(s.UserKnownHostsFiles),
		"globalknownhostsfile " + orNone(s.GlobalKnownHostsFiles),
		"pubkeyauthentication " + map[bool]string{true: "false", false: "true"}[s.NoPublicKey],
	}
	if s.HostKeyAlias != "" {
		out = append(out, "hostkeyalias "+s.HostKeyAlias)
	}
	for _, f := range s.IdentityFiles {
		out = append(out, "identityfile "+f)
	}
	for _, f := range s.CertificateFiles {
		out = append(out, "certificatefile "+f)
	}
	var hops []string
	for _, h := range s.ProxyJump {
		hops = append(hops, h.String())
	}
	if hops != nil {
		out = append(out, "proxyjump "+strings.Join(hops, ","))
	}
	slices.Sort(out)
	return out
}

func orNone(files []string) string {
	if files == nil {
		return "none"
	}
	return strings.Join(files, " ")
}

// dump is what the real ssh says, reduced to what asDumped prints.
func dump(t *testing.T, config, name string, options ...string) ([]string, error) {
	t.Helper()
	args := append([]string{"-G", "-F", config}, options...)
	var stderr bytes.Buffer
	cmd := exec.Command("ssh", append(args, name)...)
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, stderr.String())
	}
	home := currentHome(t)
	ours := strings.Fields(`hostname port user identitiesonly hashknownhosts stricthostkeychecking connecttimeout
		addressfamily userknownhostsfile globalknownhostsfile pubkeyauthentication hostkeyalias identityfile
		certificatefile proxyjump`)
	var out []string
	for l := range strings.Lines(string(text)) {
		keyword, value, _ := strings.Cut(strings.TrimRight(l, "\n"), " ")
		if !slices.Contains(ours, keyword) || keyword == "identityfile" && value == "none" {
			continue
		}
		switch keyword {
		case "identityfile", "certificatefile", "userknownhostsfile", "globalknownhostsfile":
			value = strings.ReplaceAll(value, "~/", home+"/")
		}
		// Not read by this OpenSSH any more, or never built in.
		if keyword == "identityfile" && (strings.HasSuffix(value, "/id_xmss") || strings.HasSuffix(value, "/id_dsa")) {
			continue
		}
		out = append(out, keyword+" "+value)
	}
	slices.Sort(out)
	return out, nil
}

func currentHome(t *testing.T) string {
	t.Helper()
	env, err := currentEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	return env.home
}

// TestAgainstSSH compares every keyword with what the real ssh makes of it.
func TestAgainstSSH(t *testing.T) {
	included := t.TempDir()
	for name, text := range map[string]string{
		"10-a.conf": "Host a*\n  User included\nHost *\n  Port 2201\n",
		"20-b.conf": "Match host web1\n  HostKeyAlias fromb\n",
		".hidden":   "User hidden\n",
		"plain":     "User plain\n",
		"50-redhat": "Match final all\n\tInclude " + included + "/policy\n\tGSSAPIAuthentication yes\n\tForwardX11Trusted yes\n\tSendEnv LANG LC_*\n",
		// As crypto-policies writes it.
		"policy": "Ciphers aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes256-ctr,aes128-gcm@openssh.com,aes128-ctr\n" +
			"MACs hmac-sha2-256-etm@openssh.com,umac-128-etm@openssh.com,hmac-sha2-512-etm@openssh.com,hmac-sha2-256\n" +
			"KexAlgorithms curve25519-sha256,ecdh-sha2-nistp256,diffie-hellman-group14-sha256\n" +
			"PubkeyAcceptedAlgorithms ecdsa-sha2-nistp256,ecdsa-sha2-nistp256-cert-v01@openssh.com,ssh-ed25519," +
			"ssh-ed25519-cert-v01@openssh.com,rsa-sha2-256,rsa-sha2-512-cert-v01@openssh.com\n" +
			"CASignatureAlgorithms ecdsa-sha2-nistp256,sk-ecdsa-sha2-nistp256@openssh.com,ssh-ed25519,rsa-sha2-256,rsa-sha2-512\n" +
			"RequiredRSASize 2048\nPort 2203\n",
	} {
		if err := os.WriteFile(filepath.Join(included, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	me, err := currentEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	type o = Override
	tests := []struct {
		name, host, config string
		over               Override
		options            []string
	}{
		{"empty", "web1", "", o{}, nil},
		{"upper-case name", "WEB1", "Host web1\n Port 1\nHost WEB1\n Port 2\n", o{}, nil},
		{"hostname", "web1", "HostName web1.example.com", o{}, nil},
		{"hostname token", "web1", "Host web*\n HostName %h.Example.com\n", o{}, nil},
		{"hostname percent", "fe80::1", "HostName %h%%lo\n", o{}, nil},
		{"hostname twice", "web1", "HostName one\nHostName two\n", o{}, nil},
		{"ipv6 is shortened", "FE80:0:0::1", "", o{}, nil},
		{"port and user", "web1", "Port 2222\nUser deploy\n", o{}, nil},
		{"equals", "web1", "Port=2222\nUser = deploy\nHostName\t=x\n", o{}, nil},
		{"quotes", "web1", "Port \"2222\"\nIdentityFile \"/a b\"\nIdentityFile '/c d'\nIdentityFile /e\\ f\n", o{}, nil},
		{"quote inside", "web1", "IdentityFile /a\" \"b\nIdentityFile /c\\\"d\nIdentityFile /e\\nf\n", o{}, nil},
		{"comments", "web1", "# one\nUser x # two\n  # three\nHostKeyAlias a#b\nPort 2 #\n", o{}, nil},
		{"crlf and blanks", "web1", "Port 22\r\n\tUser\tdeploy \t\r\n\r\n  HostName x\f\n", o{}, nil},
		{"no newline at the end", "web1", "Port 2222", o{}, nil},
		{"case", "web1", "PORT 2222\nidentitiesONLY YES\n", o{}, nil},
		{"first wins", "web1", "Host web1\n Port 1\nHost *\n Port 2\n User u\n", o{}, nil},
		{"patterns", "web1", "Host db* web?\n Port 1\nHost web\n Port 2\n", o{}, nil},
		{"question mark is one", "web", "Host web?\n Port 1\n", o{}, nil},
		{"patterns by tabs", "web1", "Host db1\tweb1\n Port 1\n", o{}, nil},
		{"negated", "web1", "Host * !web1\n Port 1\nHost !web1 *\n Port 2\nHost !db *\n Port 3\n", o{}, nil},
		{"only negated", "web1", "Host !db\n Port 1\n", o{}, nil},
		{"quoted pattern", "web1", "Host \"web1\"\n Port 1\n", o{}, nil},
		{"comma is no separator", "web1", "Host db1,web1\n Port 1\n", o{}, nil},
		{"host keyword in a comment line", "web1", "Host db1 # web1\n Port 1\n", o{}, nil},

		{"match all", "web1", "Host db1\n Port 1\nMatch all\n Port 2\n", o{}, nil},
		{"match final all", "web1", "Match final all\n Port 2\nHost *\n User u\n", o{}, nil},
		{"match final all loses", "web1", "Match final all\n Port 2\nHost *\n Port 3\n", o{}, nil},
		{"match canonical all", "web1", "Match canonical all\n Port 2\nMatch all\n User u\n", o{}, nil},
		{"match canonical all in a final pass", "web1", "Match canonical all\n Port 2\nMatch final all\n User u\n", o{}, nil},
		{"match not final all", "web1", "Match !final all\n Port 2\nMatch final !all\n User u\n", o{}, nil},
		{"match host all", "web1", "Match host web1 all\n Port 2\nMatch host db1 all\n User u\n", o{}, nil},
		{"match all, comment", "web1", "Match final all # here\n Port 2\n", o{}, nil},
		{"red hat's", "web1", "Host *\n Include " + included + "/50-redhat\n", o{}, nil},
		{"match not all", "web1", "Match !all\n Port 2\n", o{}, nil},
		{"match host", "web1", "Match host web*,db*\n Port 2\n", o{}, nil},
		{"match host is the resolved one", "web1", "HostName x.example.com\nMatch host web1\n Port 2\nMatch host *.EXAMPLE.com\n Port 3\n", o{}, nil},
		{"match originalhost", "web1", "HostName x\nMatch originalhost WEB1\n Port 2\n", o{}, nil},
		{"match negated", "web1", "Match !host db*\n Port 2\n", o{}, nil},
		{"match list negated", "web1", "Match host *,!web1\n Port 2\nMatch host web*\n Port 3\n", o{}, nil},
		{"match two", "web1", "User u\nMatch host web1 user u\n Port 2\n", o{}, nil},
		{"match two, one fails", "web1", "User u\nMatch host web1 user v\n Port 2\nMatch user u host db\n Port 3\n", o{}, nil},
		{"match user", "web1", "Match user deploy\n Port 2\n", o{User: "deploy"}, []string{"-o", "User=deploy"}},
		{"match user default", "web1", "Match user " + me.user + "\n Port 2\n", o{}, nil},
		{"match localuser", "web1", "User x\nMatch localuser " + me.user + "\n Port 2\n", o{}, nil},
		{"match quotes and comment", "web1", "Match host \"web1,db1\" # here\n Port 2\n", o{}, nil},
		{"match equals", "web1", "Match host=web1\n Port 2\n", o{}, nil},
		{"match final", "web1", "Match final\n Port 2\nHost *\n User u\n", o{}, nil},
		{"match final host", "web1", "HostName w.example.com\nMatch final host w.example.com\n Port 2\n", o{}, nil},
		{"match final loses", "web1", "Port 1\nMatch final\n Port 2\n User u\n", o{}, nil},
		{"match final sees hosts by the resolved name", "web1", "Host w\n Port 3\nHost web1\n HostName w\nMatch final\n User u\n", o{}, nil},
		{"match not final", "web1", "Match !final\n Port 2\nMatch final\n Port 3\n", o{}, nil},
		{"match canonical", "web1", "Match canonical\n Port 2\nMatch !canonical\n User u\n", o{}, nil},
		{"match exec that can't matter", "web1", "Match host db1 exec \"touch /\"\n Port 2\n", o{}, nil},
		{"match exec after the failing one", "web1", "Match user nobody-here exec false\n Port 2\nMatch all\n Port 3\n", o{}, nil},

		{"include", "abc", "Include " + included + "/*.conf\nPort 1\nUser u\n", o{}, nil},
		{"include match", "web1", "Include " + included + "/*.conf\n", o{}, nil},
		{"include hides hidden files", "web1", "Include " + included + "/*\n", o{}, nil},
		{"include hidden", "web1", "Include " + included + "/.h*\n", o{}, nil},
		{"include in a block", "abc", "Host web*\n Include " + included + "/10-a.conf\nHost *\n User u\n", o{}, nil},
		{"include in a match that fails", "web1", "Match host db\n Include " + included + "/*.conf\nMatch all\n User u\n", o{}, nil},
		{"block goes on after include", "web1", "Host db1\n Include " + included + "/plain\n Port 1\nHost web1\n Include " + included + "/20-b.conf\n Port 2\n", o{}, nil},
		{"include nothing", "web1", "Include " + included + "/nothing*\nPort 2\n", o{}, nil},
		{"include two", "web1", "Include " + included + "/plain " + included + "/10-a.conf\n", o{}, nil},
		{"include quoted", "web1", "Include \"" + included + "/plain\"\n", o{}, nil},

		{"identity files", "web1", "IdentityFile ~/.ssh/a\nIdentityFile /b\nIdentityFile ~/.ssh/a\n", o{}, nil},
		{"identity files of blocks", "web1", "Host web1\n IdentityFile /a\nHost *\n IdentityFile /b\n", o{}, nil},
		{"identity none", "web1", "IdentityFile none\n", o{}, nil},
		{"identity override", "web1", "IdentityFile /b\n", o{IdentityFile: "/a"}, []string{"-o", "IdentityFile=/a"}},
		{"certificate files", "web1", "CertificateFile ~/a-cert.pub\nCertificateFile /b\n", o{}, nil},
		{"identities only", "web1", "IdentitiesOnly yes\n", o{}, nil},
		{"identities only true", "web1", "IdentitiesOnly True\nIdentitiesOnly no\n", o{}, nil},

		{"jump", "web1", "ProxyJump bastion\n", o{}, nil},
		{"jumps", "web1", "ProxyJump u@one:2201,two,ssh://v@three:2203 # home\n", o{}, nil},
		{"jump none", "web1", "ProxyJump none\nProxyJump x\n", o{}, nil},
		{"jump first wins", "web1", "ProxyJump a\nProxyJump b\n", o{}, nil},
		{"jump before command", "web1", "ProxyJump a\nProxyCommand nc %h %p\n", o{}, nil},
		{"command none", "web1", "ProxyCommand none\nProxyJump a\n", o{}, nil},
		{"jump override", "web1", "ProxyJump a\n", o{ProxyJump: "b,c:2"}, []string{"-J", "b,c:2"}},
		{"jump override none", "web1", "ProxyCommand nc %h\n", o{ProxyJump: "none"}, []string{"-o", "ProxyJump=none"}},
		{"jump ipv6", "web1", "ProxyJump u@[::1]:2201\n", o{}, nil},

		{"known hosts", "web1", "UserKnownHostsFile ~/a /b\nGlobalKnownHostsFile /c /d\n", o{}, nil},
		{"known hosts none", "web1", "UserKnownHostsFile none\nGlobalKnownHostsFile none\n", o{}, nil},
		{"known hosts first wins", "web1", "UserKnownHostsFile /a /b\nUserKnownHostsFile /c\n", o{}, nil},
		{"alias", "web1", "HostKeyAlias Other\n", o{}, nil},
		{"strict yes", "web1", "StrictHostKeyChecking yes\n", o{}, nil},
		{"strict off", "web1", "StrictHostKeyChecking off\n", o{}, nil},
		{"strict accept-new", "web1", "StrictHostKeyChecking accept-new\n", o{}, nil},
		{"strict ask", "web1", "StrictHostKeyChecking ask\n", o{}, nil},
		{"hash", "web1", "HashKnownHosts yes\n", o{}, nil},
		{"timeout", "web1", "ConnectTimeout 7\n", o{}, nil},
		{"timeout units", "web1", "ConnectTimeout 1m30S\n", o{}, nil},
		{"timeout none", "web1", "ConnectTimeout none\nConnectTimeout 3\n", o{}, nil},
		{"family", "web1", "AddressFamily inet6\n", o{}, nil},
		{"no public key", "web1", "PubkeyAuthentication no\n", o{}, nil},

		{
			"overrides", "web1", "HostName x\nPort 1\nUser u\n",
			o{HostName: "10.0.0.1", Port: 2222, User: "v"},
			[]string{"-o", "HostName=10.0.0.1", "-o", "Port=2222", "-o", "User=v"},
		},
		{"override is seen by match", "web1", "Match host 10.*\n Port 2\n", o{HostName: "10.0.0.1"}, []string{"-o", "HostName=10.0.0.1"}},
		{"harmless ones", "web1", "ControlMaster auto\nControlPath ~/.ssh/%C\nControlPersist 60s\nSendEnv LANG LC_*\n" +
			"ForwardAgent yes\nServerAliveInterval 5\nGSSAPIAuthentication yes\nLogLevel QUIET\nCompression yes\nPort 3\n", o{}, nil},
		{"ignored unknown", "web1", "IgnoreUnknown use*,odd\nUseThing 5\nOdd x y\nPort 3\n", o{}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want, err := dump(t, write(t, tt.config), tt.host, tt.options...)
			if err != nil {
				t.Fatalf("ssh itself refuses: %v", err)
			}
			s, err := lookup(t, tt.config, tt.host, tt.over)
			if err != nil {
				t.Fatal(err)
			}
			if got := asDumped(s); !slices.Equal(got, want) {
				t.Errorf("got\n%s\nssh says\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// TestRefusedAsSSH holds what ssh refuses too.
func TestRefusedAsSSH(t *testing.T) {
	for _, config := range []string{
		"Port 0\n", "Port 70000\n", "Port ssh-not-a-service\n", "Port\n", "Port 1 2\n", "NoSuchKeyword 1\n",
		"IdentityFile \"/a\n", "StrictHostKeyChecking perhaps\n", "ConnectTimeout 5x\n", "AddressFamily 5\n",
		"IdentitiesOnly perhaps\n", "HostName %x\n", "Match\n", "Match host\n", "Match all host web1\n",
		"Match host web1 final all\n", "Match all all\n",
		"Match weather fine\n", "UserKnownHostsFile none /a\n", "UserKnownHostsFile \"\"\n",
		"ProxyJump :22\n", "ProxyJump a:b\n", "ProxyJump @x\n", "Include \"\"\n", "IdentityAgent ${NO_SUCH_VARIABLE_HERE}\n",
		"IdentityAgent $1x-\n", "HostName -x\n",
	} {
		if _, err := dump(t, write(t, config), "web1"); err == nil && config != "HostName -x\n" {
			t.Errorf("%q: ssh takes it", config)
		}
		_, err := lookup(t, config, "web1", Override{})
		var at *Error
		if !errors.As(err, &at) {
			t.Errorf("%q: %v, want an *Error", config, err)
			continue
		}
		if at.Line != 1 || !strings.HasSuffix(at.File, "/config") || at.Keyword != strings.Fields(config)[0] {
			t.Errorf("%q: error is at %s:%d %s", config, at.File, at.Line, at.Keyword)
		}
	}
}

// TestNotHonoured holds what ssh takes and we can't: it must be said, with its
// place, and only for the hosts it is about.
func TestNotHonoured(t *testing.T) {
	for _, tt := range []struct{ setting, reason string }{
		{"ProxyCommand nc %h %p", "programs are not run here"},
		{"ProxyCommand ssh -i /key -W %h:%p x", "programs are not run here"},
		{"KnownHostsCommand /bin/true %H", "can't be honoured"},
		{"BindAddress 127.0.0.1", "can't be honoured"},
		{"BindInterface lo", "can't be honoured"},
		{"CanonicalizeHostname yes", "can't be honoured"},
		{"CanonicalizeHostname always", "can't be honoured"},
		{"CheckHostIP yes", "can't be honoured"},
		{"RevokedHostKeys /etc/hosts", "can't be honoured"},
		{"PKCS11Provider /lib/x.so", "can't be honoured"},
		{"PubkeyAcceptedAlgorithms ssh-rsa", "can't be honoured"},
		{"CASignatureAlgorithms ssh-rsa", "can't be honoured"},
		{"User %u", "tokens in a login"},
		{"IdentityFile ~/%C", "not supported"},
		{"IdentityFile ${NO_SUCH_VARIABLE_HERE}/x", "is not set"},
		{"Match exec true", "can't be decided here"},
		{"Match exec true host web1", "can't be decided here"},
		{"Match host web1 !exec false", "can't be decided here"},
		{"Match tagged x", "can't be decided here"},
		{"Match localnetwork 10.0.0.0/8", "can't be decided here"},
	} {
		_, err := lookup(t, "# first line\nHost web*\n  "+tt.setting+"\n", "web1", Override{})
		var at *Error
		if !errors.As(err, &at) {
			t.Errorf("%q: %v, want an *Error", tt.setting, err)
			continue
		}
		if at.Line != 3 || at.Keyword != strings.Fields(tt.setting)[0] || !strings.Contains(err.Error(), tt.reason) {
			t.Errorf("%q: %v", tt.setting, err)
		}
		if !strings.HasPrefix(tt.setting, "Match") {
			if _, err := lookup(t, "Host web*\n  "+tt.setting+"\n", "db1", Override{}); err != nil {
				t.Errorf("%q refused for another host: %v", tt.setting, err)
			}
		}
	}
	for _, fine := range []string{
		"CanonicalizeHostname no", "CheckHostIP no", "KnownHostsCommand none", "PubkeyAcceptedAlgorithms +ssh-rsa",
		"PubkeyAcceptedAlgorithms ssh-rsa,ssh-ed25519", "PubkeyAcceptedKeyTypes rsa-sha2-*", "CASignatureAlgorithms ssh-ed25519",
	} {
		if _, err := lookup(t, fine+"\n", "web1", Override{}); err != nil {
			t.Errorf("%q: %v", fine, err)
		}
	}
}

// TestTokens compares expanded file names with those that ssh tries.
func TestTokens(t *testing.T) {
	t.Setenv("FLEETCA_TEST_KEYS", "/keys")
	config := "HostName 127.0.0.1\nPort 1\nUser deploy\nHostKeyAlias alias\n" +
		"IdentityFile /i/%h/%n/%p/%r/%u/%d/%i/%k/%L/%l/%%\n" +
		"IdentityFile ${FLEETCA_TEST_KEYS}/%h\n" +
		"IdentityFile ~/x\nIdentityFile ~root/y\nIdentityFile ~\n" +
		"IdentityFile /$FLEETCA_TEST_KEYS\n" +
		"CertificateFile /c/%n-${FLEETCA_TEST_KEYS}\n"
	s, err := lookup(t, config, "web1", Override{})
	if err != nil {
		t.Fatal(err)
	}
	// The connection fails; what is wanted is the list of files before it.
	log, _ := exec.Command("ssh", "-v", "-F", write(t, config), "-o", "BatchMode=yes", "-o", "ProxyCommand=false", "web1").CombinedOutput()
	var files, certs []string
	for l := range strings.Lines(string(log)) {
		if rest, ok := strings.CutPrefix(l, "debug1: identity file "); ok {
			if path, _, ok := strings.Cut(rest, " type "); ok && !strings.HasSuffix(path, "-cert") {
				files = append(files, path)
			}
		}
		if rest, ok := strings.CutPrefix(l, "debug1: certificate file "); ok {
			path, _, _ := strings.Cut(rest, " type ")
			certs = append(certs, path)
		}
	}
	if !slices.Equal(s.IdentityFiles, files) || len(files) == 0 {
		t.Errorf("identity files %q, ssh says %q", s.IdentityFiles, files)
	}
	if !slices.Equal(s.CertificateFiles, certs) || len(certs) == 0 {
		t.Errorf("certificate files %q, ssh says %q", s.CertificateFiles, certs)
	}
}

func TestIdentityAgent(t *testing.T) {
	t.Setenv("SSH_AUTH_SOCK", "/run/agent.sock")
	t.Setenv("MY_AGENT", "/run/mine.sock")
	home := currentHome(t)
	for _, tt := range []struct{ config, want string }{
		{"", "/run/agent.sock"},
		{"IdentityAgent SSH_AUTH_SOCK", "/run/agent.sock"},
		{"IdentityAgent none", ""},
		{"IdentityAgent $MY_AGENT", "/run/mine.sock"},
		{"IdentityAgent $NOT_SET_ANYWHERE", ""},
		{"IdentityAgent ${MY_AGENT}", "/run/mine.sock"},
		{"IdentityAgent ~/agent", home + "/agent"},
		{"IdentityAgent /run/%r", "/run/deploy"},
		{"IdentityAgent \"~/Library/Group Containers/agent.sock\"", home + "/Library/Group Containers/agent.sock"},
	} {
		s, err := lookup(t, tt.config+"\nUser deploy\n", "web1", Override{})
		if err != nil || s.IdentityAgent != tt.want {
			t.Errorf("%q: %q, %v; want %q", tt.config, s.IdentityAgent, err, tt.want)
		}
	}
}

func TestKnownHostsTokens(t *testing.T) {
	s, err := lookup(t, "UserKnownHostsFile ~/kh/%h %n.known\nGlobalKnownHostsFile ~/%h\nHostName x\n", "web1", Override{})
	home := currentHome(t)
	if err != nil || !slices.Equal(s.UserKnownHostsFiles, []string{home + "/kh/x", "web1.known"}) {
		t.Errorf("user files %q, %v", s.UserKnownHostsFiles, err)
	}
	if !slices.Equal(s.GlobalKnownHostsFiles, []string{home + "/%h"}) {
		t.Errorf("global files %q", s.GlobalKnownHostsFiles)
	}
}

func TestPreferredAuthentications(t *testing.T) {
	s, err := lookup(t, "PreferredAuthentications publickey,password\n", "web1", Override{})
	if err != nil || s.NoPublicKey || s.NoPassword || !s.NoKeyboardInteractive {
		t.Errorf("%+v, %v", s, err)
	}
	s, err = lookup(t, "PasswordAuthentication no\nChallengeResponseAuthentication no\n", "web1", Override{})
	if err != nil || s.NoPublicKey || !s.NoPassword || !s.NoKeyboardInteractive {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestProxyCommand holds which commands are taken for a jump host.
func TestProxyCommand(t *testing.T) {
	for _, tt := range []struct{ config, want string }{
		{"ProxyCommand ssh -W %h:%p bastion", "bastion"},
		{"ProxyCommand=ssh -q -W %h:%p -p 2222 u@bastion\nProxyJump x", "u@bastion:2222"},
		{"ProxyJump x\nProxyCommand ssh -W %h:%p bastion", "x"},
		{"ProxyCommand none\nProxyCommand ssh -W %h:%p bastion", ""},
		{"ProxyCommand NONE", ""},
	} {
		s, err := lookup(t, tt.config+"\n", "web1", Override{})
		var hops []string
		for _, h := range s.ProxyJump {
			hops = append(hops, h.String())
		}
		if got := strings.Join(hops, ","); err != nil || got != tt.want {
			t.Errorf("%q: %q, %v; want %q", tt.config, got, err, tt.want)
		}
	}
	if _, err := lookup(t, "ProxyCommand ssh -W %h:%p -p 99999 bastion\n", "web1", Override{}); err == nil {
		t.Error("a port that can't be is taken")
	}
}

func TestJumpTokens(t *testing.T) {
	s, err := lookup(t, "HostName x.example.com\nProxyJump %r@jump-%n:2022\nUser u\n", "web1", Override{})
	if err != nil {
		t.Fatal(err)
	}
	if want := (Hop{User: "%r", Host: "jump-web1", Port: 2022}); len(s.ProxyJump) != 1 || s.ProxyJump[0].Host != want.Host {
		t.Errorf("got %v", s.ProxyJump)
	}
}
