package facts_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/provision/facts"
	"github.com/fleetca/fleetca/provision/sshdconfig"
)

func TestPlainHost(t *testing.T) {
	s := newSite(t, "ssh")
	keys := map[string]ssh.PublicKey{}
	for name, options := range map[string][]string{
		"ed25519": {"-t", "ed25519"}, "rsa": {"-t", "rsa", "-b", "2048"}, "ecdsa": {"-t", "ecdsa"},
		"ecdsa521": {"-t", "ecdsa", "-b", "521"}, "rsa4096": {"-t", "rsa", "-b", "4096"},
	} {
		keys[s.path(name)] = s.key(name, options...)
	}
	text := "# comment\nPort 2222\n"
	for name := range keys {
		text += "HostKey " + name + "\n"
	}
	ca := s.write("ca.pub", "ssh-ed25519 AAAA junk\n", 0o640)
	text += "Include " + s.path("conf.d/*.conf") + "\nTrustedUserCAKeys " + ca + "\nPidFile " + s.path("pid") + "\n"
	s.write("sshd_config", text, 0o600)
	s.write("conf.d/10.conf", "Banner none", 0o644)
	s.write("conf.d/.hidden.conf", "Nonsense", 0o644)
	s.write("fleetca/user_ca.pub", "ours\n", 0o644)
	s.write("fleetca/run/armed", "x", 0o600)
	s.write("fleetca/run/old/sshd_config", "old\n", 0o600)
	extra := s.write("extra", "more", 0o4755)
	before := snapshot(t, s.dir)
	s.everywhere(func(t *testing.T, uid int, out []byte, f *facts.Facts) {
		root := uid == os.Getuid()
		if f.UID != uid || f.ConfigFile != s.config || f.Dir != s.dir || f.SSHD == "" || f.Kernel != "Linux" || f.Hostname == "" {
			t.Errorf("got %+v", f)
		}
		if f.OS.ID == "" || f.FreeBytes <= 0 || f.Writable != root {
			t.Errorf("os %+v, free %d, writable %v", f.OS, f.FreeBytes, f.Writable)
		}
		if f.Peer != (facts.Peer{ClientAddress: "192.0.2.1", ClientPort: 1024, ServerAddress: "192.0.2.2", ServerPort: 22}) {
			t.Errorf("peer %+v", f.Peer)
		}
		if f.Tools["ssh-keygen"] == "" || f.Tools["sha256sum"] == "" || f.Tools["nonsense"] != "" {
			t.Errorf("tools %v", f.Tools)
		}
		names := []string{"extra", "fleetca/user_ca.pub", "sshd_config", "fleetca/run/armed", "fleetca/run/old/sshd_config"}
		if root {
			names = append(names, "ca.pub", "conf.d/10.conf")
		}
		for _, name := range names {
			sameFile(t, uid, s.path(name), f.Files[s.path(name)])
		}
		if _, ok := f.Files[s.path("conf.d/.hidden.conf")]; ok {
			t.Error("the probe looked at what sshd doesn't include")
		}
		if dir := f.Files[s.path("fleetca")]; !dir.Exists || dir.Regular || dir.Mode != 0o755 {
			t.Errorf("folder %+v", dir)
		}
		if !f.Run.Exists || !slices.Equal(f.Run.Entries, []string{"armed", "old", "old/sshd_config"}) {
			t.Errorf("run %+v", f.Run)
		}
		if f.Reload.PID != 0 && f.Reload.Found != "parents" {
			t.Errorf("reload %+v", f.Reload)
		}
		if noPrivateKey(t, out, slices.Collect(maps.Keys(keys))...); !root {
			if f.Effective != nil || f.EffectiveProblem == "" || len(f.HostKeys) != 0 {
				t.Errorf("nobody learned %v, %v, problem %q", f.Effective, f.HostKeys, f.EffectiveProblem)
			}
			if _, err := f.Texts(); err == nil || !strings.Contains(err.Error(), "permission denied") {
				t.Errorf("got %v", err)
			}
			return
		}
		sameKeys(t, f, keys, facts.FromPub)
		texts, err := f.Texts()
		if err != nil {
			t.Fatal(err)
		}
		config, err := sshdconfig.Resolve(sshdconfig.Source{Main: s.config, Files: texts, Followed: f.Followed})
		if err != nil {
			t.Fatal(err)
		}
		if b := config.Global("banner"); len(b) != 1 || b[0].Value() != "none" || !slices.Equal(f.Effective["banner"], []string{"none"}) || f.Effective.First("banner") != "" {
			t.Errorf("banner %v, effective %q", b, f.Effective["banner"])
		}
		if f.Effective.First("trustedusercakeys") != ca || f.Effective.First("port") != "2222" {
			t.Errorf("effective %v", f.Effective)
		}
	}, extra)
	if after := snapshot(t, s.dir); after != before {
		t.Errorf("the probe changed something:\n%s\nwas\n%s", after, before)
	}
}

// TestOddNames puts everything into folders and files whose names hold blanks,
// quotes and what a shell might run.
func TestOddNames(t *testing.T) {
	s := newSite(t, `it's an "odd" $(touch x) *\ folder;&`)
	keys := map[string]ssh.PublicKey{s.path("my key"): s.key("my key", "-t", "ed25519")}
	// sshd_config can't name a double quote inside double quotes before 8.7.
	quote := func(name string) string {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
	}
	short := filepath.Join(filepath.Dir(s.dir), "it's short")
	if err := os.MkdirAll(short, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"a b.conf": "Banner \"/a b\"\n", "é.conf": "MaxSessions 7\n", "c'$x`y.conf": "MaxAuthTries 3"} {
		if err := os.WriteFile(filepath.Join(short, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s.write("sshd_config", "HostKey "+quote(s.path("my key"))+"\r\nInclude \""+short+"/*.conf\" '"+
		strings.ReplaceAll(short, "'", `\'`)+"/none' # \"comment\r\nTrustedUserCAKeys "+quote(s.path("it's ca"))+"\r\n", 0o644)
	s.write("it's ca", "", 0o644)
	s.write("fleetca/run/a b'c", "x\n", 0o644)
	s.everywhere(func(t *testing.T, uid int, _ []byte, f *facts.Facts) {
		if uid != os.Getuid() {
			return
		}
		sameKeys(t, f, keys, facts.FromPub)
		sameFile(t, uid, s.path("it's ca"), f.Files[s.path("it's ca")])
		sameFile(t, uid, s.path("fleetca/run/a b'c"), f.Files[s.path("fleetca/run/a b'c")])
		texts, err := f.Texts()
		if err != nil {
			t.Fatal(err)
		}
		if len(texts) != 4 {
			t.Errorf("texts %v", texts)
		}
		config, err := sshdconfig.Resolve(sshdconfig.Source{Main: s.config, Files: texts, Followed: f.Followed})
		if err != nil {
			t.Fatal(err)
		}
		for _, keyword := range []string{"maxsessions", "maxauthtries", "trustedusercakeys", "hostkey"} {
			if got := config.Global(keyword); len(got) != 1 || got[0].Args[0] != f.Effective.First(keyword) {
				t.Errorf("%s is %v, in sshd %q", keyword, got, f.Effective[keyword])
			}
		}
	})
}

// TestOddFiles reads files that text tools would damage.
func TestOddFiles(t *testing.T) {
	s := newSite(t, "ssh")
	s.key("key", "-t", "ed25519")
	long := strings.Repeat("# a long line\n", facts.MaxContent/14+10)
	names := []string{"empty", "nonewline", "nul", "binary", "long", "exact", "fake", "escapes", "crlf"}
	s.write("empty", "", 0o644)
	s.write("nonewline", "x", 0o600)
	s.write("nul", "a\x00b\n\x00", 0o640)
	s.write("binary", "\xff\xfe\n\n\n", 0o2644)
	s.write("long", long, 0o644)
	s.write("exact", long[:facts.MaxContent], 0o644)
	s.write("fake", "\n==> "+s.path("long")+" <==\nmine\n\nend "+"0123456789abcdef\n==> /dev/null <==\n", 0o644)
	s.write("escapes", "\x1b]0;title\x07", 0o644)
	s.write("crlf", "a\r\n\r\n", 0o1644)
	for from, to := range map[string]string{"link": "crlf", "dangling": "nowhere"} {
		if err := os.Symlink(to, s.path(from)); err != nil {
			t.Fatal(err)
		}
	}
	s.write("sshd_config", "HostKey "+s.path("key")+"\nInclude "+s.path("long")+"\nRevokedKeys "+s.path("nul")+"\n", 0o644)
	var files []string
	for _, name := range append(names, "link", "dangling", "nothing", ".") {
		files = append(files, filepath.Join(s.dir, name))
	}
	s.everywhere(func(t *testing.T, uid int, _ []byte, f *facts.Facts) {
		for _, name := range append(names, "link") {
			sameFile(t, uid, s.path(name), f.Files[s.path(name)])
		}
		if got := f.Files[s.path("link")].Link; got != "crlf" {
			t.Errorf("link to %q", got)
		}
		if got := f.Files[s.path("dangling")]; got.Link != "nowhere" || got.Exists {
			t.Errorf("dangling link %+v", got)
		}
		if _, ok := f.Files[s.path("nothing")]; ok {
			t.Error("there is something where nothing is")
		}
		if _, err := f.Texts(); err == nil || !strings.Contains(err.Error(), "longer than") {
			t.Errorf("got %v", err)
		}
	}, files...)
}

// TestRefusedConfiguration gathers what it can where sshd refuses to start.
func TestRefusedConfiguration(t *testing.T) {
	s := newSite(t, "ssh")
	s.key("key", "-t", "ed25519")
	s.write("sshd_config", "HostKey "+s.path("key")+"\nNonsense yes\n", 0o644)
	s.everywhere(func(t *testing.T, uid int, _ []byte, f *facts.Facts) {
		if f.Effective != nil || !strings.Contains(f.EffectiveProblem, "Bad configuration option: Nonsense") {
			t.Errorf("effective %v, problem %q", f.Effective, f.EffectiveProblem)
		}
		sameFile(t, uid, s.config, f.Files[s.config])
	})
	s.write("sshd_config", "HostKey "+s.path("key")+"\nRSAAuthentication yes\n", 0o644)
	s.everywhere(func(t *testing.T, uid int, _ []byte, f *facts.Facts) {
		if uid == os.Getuid() && (f.Effective == nil || !strings.Contains(f.Warnings, "Deprecated option RSAAuthentication")) {
			t.Errorf("effective %v, problem %q, warnings %q", f.Effective, f.EffectiveProblem, f.Warnings)
		}
	})
	if err := os.Remove(s.config); err != nil {
		t.Fatal(err)
	}
	s.everywhere(func(t *testing.T, _ int, _ []byte, f *facts.Facts) {
		if _, err := f.Texts(); err == nil || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("got %v", err)
		}
		if f.Effective != nil || f.EffectiveProblem == "" {
			t.Errorf("effective %v, problem %q", f.Effective, f.EffectiveProblem)
		}
	})
}

// TestOddFileNames refuses a host whose files can't be told apart in a list.
func TestOddFileNames(t *testing.T) {
	s := newSite(t, "ssh")
	s.key("key", "-t", "ed25519")
	s.write("sshd_config", "HostKey "+s.path("key")+"\nInclude "+s.path("conf.d/*")+"\n", 0o644)
	s.write("conf.d/a\nend "+nonce, "Banner none\n", 0o644)
	for name, shell := range shells {
		if _, err := facts.Parse(s.probe(shell, os.Getuid(), s.script()), nonce); err == nil || !strings.Contains(err.Error(), "control characters") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestReadOnly mounts the folder read-only, in a mount namespace of its own.
func TestReadOnly(t *testing.T) {
	s := newSite(t, "ssh")
	s.key("key", "-t", "ed25519")
	s.write("sshd_config", "HostKey "+s.path("key")+"\n", 0o644)
	flags := "-m"
	if os.Getuid() != 0 {
		flags = "-rm"
	}
	for name, shell := range shells {
		inside := append([]string{
			"unshare", flags, "sh", "-c", `mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"`, s.dir,
		}, shell...)
		for _, run := range [][]string{shell, inside} {
			f := s.parse(s.probe(run, os.Getuid(), s.script()))
			if f.Writable != (len(run) == len(shell)) {
				t.Errorf("%s in %s: writable is %v", name, run[0], f.Writable)
			}
		}
	}
}

func TestCertificates(t *testing.T) {
	s := newSite(t, "ssh")
	s.key("ca", "-t", "ed25519")
	key := s.key("key", "-t", "ed25519")
	out, err := exec.Command("ssh-keygen", "-q", "-s", s.path("ca"), "-h", "-I", "web1", "-n", "web1", s.path("key.pub")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.write("junk-cert.pub", "junk\n", 0o644)
	text := "HostKey " + s.path("key") + "\n"
	names := []string{"key-cert.pub", "key.pub", "junk-cert.pub", "missing-cert.pub"}
	for _, name := range names {
		text += "HostCertificate " + s.path(name) + "\n"
	}
	s.write("sshd_config", text, 0o644)
	problems := []string{"", "plain key", "no certificate in it", "missing"}
	s.everywhere(func(t *testing.T, uid int, _ []byte, f *facts.Facts) {
		if uid != os.Getuid() {
			return
		}
		if len(f.HostCertificates) != len(names) {
			t.Fatalf("got %+v", f.HostCertificates)
		}
		for i, c := range f.HostCertificates {
			if c.Path != s.path(names[i]) || !strings.Contains(c.Problem, problems[i]) || (c.Certificate == nil) != (problems[i] != "") {
				t.Errorf("certificate %d is %+v", i, c)
			}
		}
		if c := f.HostCertificates[0].Certificate; c == nil || !bytes.Equal(c.Key.Marshal(), key.Marshal()) {
			t.Errorf("certificate %+v", c)
		}
	})
}

// TestTruncated cuts real output at every byte: none of it may pass.
func TestTruncated(t *testing.T) {
	s := newSite(t, "ssh")
	s.key("key", "-t", "ed25519")
	s.write("sshd_config", "HostKey "+s.path("key")+"\n", 0o644)
	out := s.probe(shells["dash"], os.Getuid(), s.script())
	s.parse(out)
	for i := range out {
		if _, err := facts.Parse(out[:i], nonce); !errors.Is(err, facts.ErrIncomplete) {
			t.Fatalf("cut after %d of %d bytes: %v", i, len(out), err)
		}
	}
	chatty := append([]byte("Welcome!\n\x1b[31m"), out...)
	s.parse(append(chatty, "logout\n"...))
	if _, err := facts.Parse(out, "another0nonce0000"); !errors.Is(err, facts.ErrIncomplete) {
		t.Errorf("with another nonce: %v", err)
	}
	script := s.script()
	for i := 0; i < len(script); i += 97 {
		cmd := exec.CommandContext(context.Background(), "dash", "-s")
		cmd.Stdin = strings.NewReader(script[:i])
		if got, _ := cmd.Output(); len(got) > 0 {
			t.Fatalf("the script cut after %d bytes printed %q", i, got)
		}
	}
}
