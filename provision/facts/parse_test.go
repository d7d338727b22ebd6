package facts_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fleetca/fleetca/provision/facts"
)

const pub = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPE2Yg2zs9s2ZsBPTVrJ0GIAD/b10mMIUJxmBo4nWHAe"

// honest is what a small host would print, to be bent in the tests.
const honest = `fleetca-probe 1 ` + nonce + `
config /etc/ssh/sshd_config
sshd /usr/sbin/sshd
uid 0
kernel Linux
release 6.1.0
hostname web1
selinux 1
writable yes
followed /etc/ssh/sshd_config.d/*.conf
included /etc/ssh/sshd_config.d/a.conf
peer 192.0.2.1 50000 2001:db8::1 22
begin messages

` + nonce + ` end messages
status 0
begin effective
port 22
hostkey /etc/ssh/key
acceptenv A
acceptenv B

` + nonce + ` end effective
hostkey /etc/ssh/key
hostkey-source pub
hostkey-public ` + pub + ` a comment
run armed
pid 42
pid-found pidfile
pid-command sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups
unit ssh.service
systemd yes
unit-file ssh.service
unit-file ssh.socket
unit-enabled ssh.socket
init /etc/init.d/ssh
tool sync /usr/bin/sync
link /etc/ssh/link
target x
begin ls
-rw-r--r-- 1 0 0 8 Nov 21 14:24 /etc/ssh/sshd_config
-rw-r----- 1 0 7 0 May  5  2026 /etc/ssh/sshd_config.d/a.conf
drwx------. 2 0 0 4096 Nov 21 14:24 /etc/ssh/fleetca/run
crw-rw-rw- 1 0 0 1, 3 Nov 21 14:24 /dev/null

` + nonce + ` end ls
begin files
==> /etc/ssh/sshd_config <==
Port 22

==> /etc/ssh/sshd_config.d/a.conf <==

==> /dev/null <==

` + nonce + ` end files
begin df
Filesystem     1024-blocks  Used Available Capacity Mounted on
map auto         264212084    52      1024      14% /a b

` + nonce + ` end df
end ` + nonce + `
`

func TestParseHonest(t *testing.T) {
	f, err := facts.Parse([]byte(honest), nonce)
	if err != nil {
		t.Fatal(err)
	}
	if f.FreeBytes != 1<<20 || f.SELinux != "enforcing" || !f.Run.Exists || f.Reload.Unit != "ssh.service" ||
		f.Peer.ServerAddress != "2001:db8::1" || f.HostKeys[0].Comment != "a comment" ||
		!slices.Equal(f.Effective["acceptenv"], []string{"A", "B"}) {
		t.Errorf("got %+v", f)
	}
	if a := f.Files["/etc/ssh/sshd_config.d/a.conf"]; a.GID != 7 || a.Mode != 0o640 || !a.Read || len(a.Content) != 0 {
		t.Errorf("got %+v", a)
	}
	texts, err := f.Texts()
	if err != nil || string(texts["/etc/ssh/sshd_config"]) != "Port 22\n" || len(texts) != 2 {
		t.Errorf("got %q, %v", texts, err)
	}
}

// TestParseRefusals bends honest output in one place each.
func TestParseRefusals(t *testing.T) {
	for _, test := range []struct{ old, new, want string }{
		{"uid 0\n", "", `no line "uid"`},
		{"uid 0\n", "uid -1\n", "value is no number"},
		{"uid 0\n", "uid 99999999999999999999\n", "value is no number"},
		{"uid 0\n", "uid 0\nuid 0\n", `second line "uid 0"`},
		{"uid 0\n", "uid 0\nsurprise\n", `unknown word`},
		{"uid 0\n", "uid 0\n" + strings.Repeat("x", 70000) + "\n", "a line is longer than"},
		{"uid 0\n", "uid 0\n" + strings.Repeat("tool a /b\n", 6000), "more than 5000 lines"},
		{"uid 0\n", "uid 0\nend wrong\n", `wrong end mark "wrong"`},
		{"uid 0\n", "uid 0\nodd /etc/a?\n", "control characters"},
		{"config /etc", "config etc", "value is no absolute path"},
		{"hostname web1", "hostname \x1b[31m", "value isn't plain text"},
		{"hostname web1", "hostname \xff", "value isn't plain text"},
		{"selinux 1", "selinux 2", "unknown value"},
		{"writable yes", "writable no", `value isn't "yes"`},
		{"peer 192.0.2.1 50000 ", "peer ", "not four words"},
		{"peer 192.0.2.1 50000", "peer 192.0.2.1 70000", "bad port"},
		{"included /etc", "included \x07/etc", "no absolute path"},
		{"included /etc/ssh/sshd_config.d/a.conf\n", strings.Repeat("included /etc/ssh/sshd_config.d/a.conf\n", 2), "said twice"},
		{"begin messages", "begin massages", "unknown section"},
		{"begin df", "begin ls", "second section"},
		{nonce + " end df\n", "", "the section has no end"},
		{"port 22\nhost", "port 22\n\x1b[2J\nhost", "output of sshd -T: line 2 is no setting"},
		{"port 22\nhostkey /etc/ssh/key\nacceptenv A\nacceptenv B\n", "", "it is empty"},
		{"hostkey /etc/ssh/key\nhostkey-source", "hostkey /etc/ssh/other\nhostkey-source", `host keys ["/etc/ssh/other"], but sshd uses ["/etc/ssh/key"]`},
		{"hostkey /etc/ssh/key\nhostkey-source pub\nhostkey-public " + pub + " a comment\n", "", "but sshd uses"},
		{"hostkey-source pub", "hostkey-source guess", "unknown source"},
		{"hostkey /etc/ssh/key\nhostkey-source pub\n", "hostkey-source pub\n", "no host key before it"},
		{"hostkey-public " + pub, "hostkey-public " + pub + "\nhostkey-public " + pub, "is complete"},
		{"pid 42", "pid 0", "no such process"},
		{"pid-found pidfile", "pid-found luck", "unknown value"},
		{"unit ssh.service", "unit nginx.service", "not a unit of sshd"},
		{"unit ssh.service", "unit ssh;reboot.service", "not a unit of sshd"},
		{"target x\n", "", "without its target"},
		{"link /etc/ssh/link\n", "", "no link"},
		{"link /etc/ssh/link\n", "link /a\nlink /b\n", "has no target"},
		{"-rw-r--r-- 1 0 0 8", "-rw-r--r-- 1 0 0 -8", "bad size"},
		{"-rw-r--r-- 1 0 0 8", "-rw-r--r-- 1 root 0 8", "owner: value is no number"},
		{"-rw-r--r-- 1 0 0 8", "-rw-r--q-- 1 0 0 8", "bad mode"},
		{"-rw-r--r-- 1 0 0 8", "-rw-r--r-- 1 0 0 9", "changed while"},
		{"-rw-r--r-- 1 0 0 8", "-rw-r--r-- 1 0 0 7", "changed while"},
		{"-rw-r--r-- 1 0 0 8 Nov 21 14:24 /etc/ssh/sshd_config\n", "", "ls didn't see"},
		{"-rw-r--r-- 1 0 0 8 Nov 21 14:24 /etc", "-rw-r--r-- 1 0 0 8 Nov 21 14:24 etc", "no absolute path"},
		{"==> /etc/ssh/sshd_config.d/a.conf", "==> /etc/ssh/sshd_config", "is in it twice"},
		{"==> /dev/null <==\n", "==> /dev/null <==\nmore\n", "goes on after its end"},
	} {
		if !strings.Contains(honest, test.old) {
			t.Fatalf("%q isn't in the honest output", test.old)
		}
		_, err := facts.Parse([]byte(strings.Replace(honest, test.old, test.new, 1)), nonce)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%.40q for %.40q: got %v, want %s", test.new, test.old, err, test.want)
		}
	}
	if _, err := facts.Parse(make([]byte, 17<<20), nonce); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("endless output: %v", err)
	}
	if _, err := facts.Parse([]byte(honest), ""); err == nil {
		t.Error("no nonce is taken")
	}
	changed := strings.Replace(honest, "0 0 8 Nov", "0 0 9 Nov", 1)
	if _, err := facts.Parse([]byte(changed), nonce); !errors.Is(err, facts.ErrChanged) {
		t.Errorf("got %v", err)
	}
}

// TestParseProblems is about what is odd on a host but no reason to stop
// reading.
func TestParseProblems(t *testing.T) {
	for _, test := range []struct{ old, new, want string }{
		{"hostkey-public ssh", "hostkey-public junk", "it is no public key"},
		{"hostkey-public ", "hostkey-public from=\"*\" ", "something stands before it"},
		{"hostkey-public " + pub + " a comment\n", "", "says nothing about it"},
		{"hostkey-public " + pub + " a comment\n", "hostkey-problem \x1b[31mred\n", "?[31mred"},
	} {
		f, err := facts.Parse([]byte(strings.Replace(honest, test.old, test.new, 1)), nonce)
		if err != nil {
			t.Errorf("%q: %v", test.new, err)
			continue
		}
		if k := f.HostKeys[0]; k.PublicKey != nil || !strings.Contains(k.Problem, test.want) {
			t.Errorf("%q: host key %+v", test.new, k)
		}
	}
	f, err := facts.Parse([]byte(strings.Replace(strings.Replace(strings.Replace(honest, "status 0", "status 255", 1),
		"begin messages\n", "begin messages\nsshd: bad\r\n", 1),
		"hostkey /etc/ssh/key\nhostkey-source pub\nhostkey-public "+pub+" a comment\n", "", 1)), nonce)
	if err != nil || f.Effective != nil || f.EffectiveProblem != "sshd: bad" {
		t.Errorf("got %+v, %v", f, err)
	}
}

func TestParseEffective(t *testing.T) {
	e, err := facts.ParseEffective([]byte("port 22\nport 23\nbanner none\nversionaddendum\nsubsystem sftp  /x y\n"))
	if err != nil {
		t.Fatal(err)
	}
	if e.First("port") != "22" || e.First("banner") != "" || e.First("nothing") != "" || e.First("versionaddendum") != "" ||
		!slices.Equal(e["port"], []string{"22", "23"}) || e.First("subsystem") != "sftp  /x y" {
		t.Errorf("got %v", e)
	}
	for _, bad := range []string{"", "\n", "Port 22\n", "port 22\n\nx y\n", " port 22", strings.Repeat("a b\n", 10_001), "a " + strings.Repeat("b", 70_000)} {
		if _, err := facts.ParseEffective([]byte(bad)); err == nil {
			t.Errorf("%.20q is taken", bad)
		}
	}
	// What the real sshd prints is taken.
	s := newSite(t, "ssh")
	s.key("key", "-t", "ed25519")
	s.write("sshd_config", "HostKey "+s.path("key")+"\n", 0o644)
	out, err := exec.Command("/usr/sbin/sshd", "-T", "-f", s.config).Output()
	if err != nil {
		t.Fatal(err)
	}
	if e, err := facts.ParseEffective(out); err != nil || e.First("hostkey") != s.path("key") {
		t.Errorf("got %v, %v", e, err)
	}
}

func TestSSHVersion(t *testing.T) {
	for _, test := range []struct {
		ident        string
		major, minor int
		openssh      bool
	}{
		{"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u10", 9, 2, true},
		{"SSH-2.0-OpenSSH_10.0", 10, 0, true},
		{"SSH-1.99-OpenSSH_3.9p1", 3, 9, true},
		{"SSH-2.0-OpenSSH_7.4", 7, 4, true},
		{"SSH-2.0-OpenSSH_7.2p2-hpn14v5", 7, 2, true},
		{"SSH-2.0-OpenSSH_for_Windows_9.5", 9, 5, true},
		{"SSH-2.0-OpenSSH_8.4p1 OpenSSH_9.9", 8, 4, true},
		{"SSH-2.0-dropbear_2022.83", 0, 0, false},
		{"SSH-2.0-Go", 0, 0, false},
		{"SSH-2.0-OpenSSH_", 0, 0, false},
		{"SSH-2.0-OpenSSH_9", 0, 0, false},
		{"SSH-2.0-OpenSSH_-9.2", 0, 0, false},
		{"SSH-2.0-OpenSSH_99999.2", 0, 0, false},
		{"SSH-2.0-NotOpenSSH_9.2", 0, 0, false},
		{"OpenSSH_9.2", 0, 0, false},
		{"HTTP/1.1 400 Bad Request", 0, 0, false},
		{"", 0, 0, false},
	} {
		major, minor, openssh := facts.SSHVersion(test.ident)
		if major != test.major || minor != test.minor || openssh != test.openssh {
			t.Errorf("%q: got %d.%d %v", test.ident, major, minor, openssh)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(honest))
	s := newSite(f, "ssh")
	for _, key := range []string{"ed25519", "rsa", "ecdsa"} {
		s.key(key, "-t", key)
	}
	for _, config := range []string{
		"HostKey " + s.path("ed25519") + "\nHostKey " + s.path("rsa") + "\nHostKey " + s.path("ecdsa") + "\n",
		"HostKey " + s.path("ed25519") + "\r\nInclude " + s.path("*.pub") + "\n", "Nonsense",
	} {
		s.write("sshd_config", config, 0o644)
		for _, shell := range shells {
			out := s.probe(shell, os.Getuid(), s.script(filepath.Join(s.dir, "rsa.pub")))
			s.parse(out)
			f.Add(out)
		}
	}
	f.Fuzz(func(t *testing.T, out []byte) {
		got, err := facts.Parse(out, nonce)
		if err != nil {
			return
		}
		if got.ConfigFile == "" || got.UID < 0 || got.Followed == nil || (got.Effective == nil) != (got.EffectiveProblem != "") {
			t.Errorf("half a host: %+v", got)
		}
		for _, k := range got.HostKeys {
			if (k.PublicKey == nil) != (k.Problem != "") {
				t.Errorf("half a host key: %+v", k)
			}
		}
		for name, file := range got.Files {
			if len(file.Content) > facts.MaxContent || (file.Read && !file.Exists) {
				t.Errorf("%q: %+v", name, file)
			}
		}
	})
}

func FuzzParseEffective(f *testing.F) {
	f.Add([]byte("port 22\nport 23\nbanner none\nversionaddendum\n"))
	f.Fuzz(func(t *testing.T, out []byte) {
		if e, err := facts.ParseEffective(out); err == nil && len(e) == 0 {
			t.Errorf("%q is taken for nothing", out)
		}
	})
}

func FuzzSSHVersion(f *testing.F) {
	f.Add("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u10")
	f.Add("SSH-2.0-OpenSSH_for_Windows_9.5")
	f.Add("SSH-2.0-dropbear_2022.83")
	f.Fuzz(func(t *testing.T, ident string) {
		if major, minor, openssh := facts.SSHVersion(ident); !openssh && (major != 0 || minor != 0) || major < 0 || minor < 0 {
			t.Errorf("%q: %d.%d %v", ident, major, minor, openssh)
		}
	})
}
