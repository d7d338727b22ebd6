package facts_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/provision/facts"
	"github.com/fleetca/fleetca/provision/sshdconfig"
	"github.com/fleetca/fleetca/templates"
)

const nonce = "0123456789abcdefNONCE"

// shells are what /bin/sh is on the hosts out there.
var shells = map[string][]string{
	"dash":    {"dash", "-s"},
	"bash":    {"bash", "--posix", "-s"},
	"busybox": {"busybox", "sh", "-s"},
}

// site is a folder that stands in for /etc/ssh.
type site struct {
	t      testing.TB
	dir    string
	config string
}

func newSite(t testing.TB, folder string) *site {
	t.Helper()
	root := t.TempDir()
	// The probe also runs as a plain user, who has to get here.
	if err := os.Chmod(filepath.Dir(root), 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		// As root, sshd looks for this folder even when it only tests.
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := &site{t: t, dir: filepath.Join(root, folder)}
	s.config = filepath.Join(s.dir, "sshd_config")
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) write(name, text string, mode fs.FileMode) string {
	s.t.Helper()
	name = s.path(name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Chmod(name, mode); err != nil {
		s.t.Fatal(err)
	}
	return name
}

// key makes a host key and returns its public half.
func (s *site) key(name string, options ...string) ssh.PublicKey {
	s.t.Helper()
	args := append([]string{"-q", "-N", "", "-C", "made for a test", "-f", s.path(name)}, options...)
	if out, err := exec.Command("ssh-keygen", args...).CombinedOutput(); err != nil {
		s.t.Fatalf("making a key: %v\n%s", err, out)
	}
	text, err := os.ReadFile(s.path(name) + ".pub")
	if err != nil {
		s.t.Fatal(err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return key
}

func (s *site) script(files ...string) string {
	s.t.Helper()
	script, err := templates.Probe{Nonce: nonce, ConfigFile: s.config, Login: "root", Files: files}.Render()
	if err != nil {
		s.t.Fatal(err)
	}
	return script
}

// probe runs the script and gives its output.
func (s *site) probe(shell []string, uid int, script string) []byte {
	s.t.Helper()
	cmd := exec.Command(shell[0], shell[1:]...)
	cmd.Stdin = strings.NewReader(script)
	cmd.Env = append(os.Environ(), "FLEETCA_PEER=192.0.2.1 1024 192.0.2.2 22", "TIME_STYLE=full-iso", "LC_ALL=C.UTF-8")
	if uid != os.Getuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("probe in %s: %v\n%s", shell[0], err, stderr.Bytes())
	}
	if stderr.Len() > 0 {
		s.t.Errorf("probe in %s said on stderr: %s", shell[0], stderr.Bytes())
	}
	return out
}

func (s *site) parse(out []byte) *facts.Facts {
	s.t.Helper()
	f, err := facts.Parse(out, nonce)
	if err != nil {
		s.t.Fatalf("%v\n%s", err, out)
	}
	return f
}

// users are those that the probe is tried as: everybody as oneself, root also
// as nobody.
func users() []int {
	if os.Getuid() == 0 {
		return []int{0, 65534}
	}
	return []int{os.Getuid()}
}

// everywhere runs the probe in every shell as every user.
func (s *site) everywhere(check func(t *testing.T, uid int, out []byte, f *facts.Facts), files ...string) {
	t := s.t.(*testing.T)
	t.Helper()
	script := s.script(files...)
	for name, shell := range shells {
		for _, uid := range users() {
			t.Run(fmt.Sprintf("%s as %d", name, uid), func(t *testing.T) {
				out := s.probe(shell, uid, script)
				f, err := facts.Parse(out, nonce)
				if err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				check(t, uid, out, f)
				if t.Failed() {
					t.Logf("the probe printed\n%s", out)
				}
			})
		}
	}
}

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

// snapshot is what there is in a folder and when it changed.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(&b, name, info.Mode(), info.Size(), info.ModTime().UnixNano(), info.Sys().(*syscall.Stat_t).Ctim)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// sameFile holds what the probe says of a file against the file.
func sameFile(t *testing.T, uid int, name string, got facts.File) {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	if !got.Exists || !got.Regular || got.Mode != info.Mode() || got.Size != info.Size() ||
		got.UID != int(owner.Uid) || got.GID != int(owner.Gid) {
		t.Errorf("%s is %v %d of %d:%d, got %+v", name, info.Mode(), info.Size(), owner.Uid, owner.Gid, got)
	}
	readable := uid == os.Getuid() || info.Mode()&0o004 != 0
	if got.Read != readable {
		t.Errorf("%s: read is %v", name, got.Read)
	}
	if want := content[:min(len(content), facts.MaxContent)]; got.Read && !bytes.Equal(got.Content, want) {
		t.Errorf("%s is %q, got %q", name, want, got.Content)
	}
	if got.Truncated != (got.Read && len(content) > facts.MaxContent) {
		t.Errorf("%s: truncated is %v", name, got.Truncated)
	}
}

func sameKeys(t *testing.T, f *facts.Facts, keys map[string]ssh.PublicKey, source facts.Source) {
	t.Helper()
	if len(f.HostKeys) != len(keys) {
		t.Errorf("%d host keys, want %d", len(f.HostKeys), len(keys))
	}
	for _, k := range f.HostKeys {
		want := keys[k.Path]
		if want == nil || k.PublicKey == nil || !bytes.Equal(k.PublicKey.Marshal(), want.Marshal()) ||
			k.Comment != "made for a test" || k.Source != source {
			t.Errorf("host key %+v", k)
		}
	}
}

// noPrivateKey looks for any line of the private keys in what left the host,
// except those that are in the public key too.
func noPrivateKey(t *testing.T, out []byte, names ...string) {
	t.Helper()
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		key, err := ssh.ParsePrivateKey(text)
		if err != nil {
			t.Fatal(err)
		}
		public := ssh.MarshalAuthorizedKey(key.PublicKey())
		for line := range bytes.Lines(text) {
			line = bytes.TrimSpace(line)
			if len(line) > 10 && !bytes.Contains(public, line) && bytes.Contains(out, line) {
				t.Fatalf("a line of the private key %s left the host", name)
			}
		}
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

// TestHostKeys is the table of states that a host key can be in.
func TestHostKeys(t *testing.T) {
	s := newSite(t, "ssh")
	good := s.key("good", "-t", "ed25519")
	remove := func(name string) {
		if err := os.Remove(s.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	rename := func(from, to string) {
		if err := os.Rename(s.path(from), s.path(to)); err != nil {
			t.Fatal(err)
		}
	}
	noPub := s.key("nopub", "-t", "ecdsa")
	remove("nopub.pub")
	swapped := s.key("swapped", "-t", "ed25519")
	s.key("other", "-t", "ed25519")
	rename("other.pub", "swapped.pub")
	swappedRSA := s.key("swappedrsa", "-t", "rsa", "-b", "2048")
	s.key("otherrsa", "-t", "rsa", "-b", "2048")
	rename("otherrsa.pub", "swappedrsa.pub")
	pem := s.key("pem", "-t", "rsa", "-b", "2048", "-m", "PEM")
	pemEC := s.key("pemec", "-t", "ecdsa", "-m", "PEM")
	junkPub := s.key("junkpub", "-t", "ed25519")
	s.write("junkpub.pub", "junk\n", 0o644)
	crlf := s.key("crlf", "-t", "ed25519")
	text, err := os.ReadFile(s.path("crlf.pub"))
	if err != nil {
		t.Fatal(err)
	}
	s.write("crlf.pub", strings.TrimSuffix(string(text), "\n")+"\r\n", 0o644)
	agent := s.key("agent", "-t", "ed25519")
	remove("agent")
	self := s.key("self", "-t", "ed25519")
	rename("self.pub", "self")
	s.key("locked", "-t", "ed25519")
	if out, err := exec.Command("ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", s.path("locked")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.write("junk", "-----BEGIN junk\n", 0o600)
	folder := s.path("folder")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	order := []string{"good", "nopub", "swapped", "swappedrsa", "pem", "pemec", "junkpub", "crlf", "agent", "self", "locked", "junk", "missing", "folder", "good"}
	config := ""
	for _, name := range order {
		config += "HostKey " + s.path(name) + "\n"
	}
	s.write("sshd_config", config, 0o600)
	want := map[string]struct {
		key    ssh.PublicKey
		source facts.Source
		words  string // of the problem
	}{
		"good":       {good, facts.FromPub, ""},
		"nopub":      {noPub, facts.FromKey, ""},
		"swapped":    {swapped, facts.FromKey, ""},
		"swappedrsa": {swappedRSA, facts.FromKey, ""},
		// A 2048-bit modulus happens to lie in step in this format too.
		"pem":     {pem, facts.FromPub, ""},
		"pemec":   {pemEC, facts.FromKey, ""},
		"junkpub": {junkPub, facts.FromKey, ""},
		"crlf":    {crlf, facts.FromPub, ""},
		"agent":   {agent, facts.Unchecked, ""},
		"self":    {self, facts.FromPath, ""},
		"locked":  {nil, "", "incorrect passphrase"},
		"junk":    {nil, "", "Load key"},
		"missing": {nil, "", "neither the key nor its .pub file can be read"},
		"folder":  {nil, "", "neither the key nor its .pub file can be read"},
	}
	s.everywhere(func(t *testing.T, uid int, out []byte, f *facts.Facts) {
		if uid != os.Getuid() {
			return
		}
		if len(f.HostKeys) != len(want) {
			t.Errorf("%d host keys, want %d", len(f.HostKeys), len(want))
		}
		for i, k := range f.HostKeys {
			w := want[filepath.Base(k.Path)]
			switch {
			case filepath.Base(k.Path) != order[i]:
				t.Errorf("host key %d is %s", i, k.Path)
			case w.key == nil && (k.PublicKey != nil || k.Problem == "" || !strings.Contains(k.Problem, w.words)):
				t.Errorf("host key %+v, want problem %q", k, w.words)
			case w.key != nil && (k.PublicKey == nil || !bytes.Equal(k.PublicKey.Marshal(), w.key.Marshal()) || k.Source != w.source):
				t.Errorf("host key %+v, want %+v", k, w)
			}
		}
		noPrivateKey(t, out, s.path("good"), s.path("pem"), s.path("nopub"), s.path("swappedrsa"))
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

// TestIncludes holds the probe's own reading of Includes against sshdconfig's:
// what the one doesn't follow, the other must miss.
func TestIncludes(t *testing.T) {
	s := newSite(t, "ssh")
	s.key("key", "-t", "ed25519")
	for _, name := range []string{"a.conf", "b.conf", "c d.conf", "100.conf", "20.conf", "x[1].conf", "{a}.conf"} {
		s.write(name, "Include "+s.path("deep/*")+"\n", 0o644)
	}
	s.write("deep/1", "include="+s.path("deeper/1")+"\n", 0o644)
	s.write("deeper/1", "MaxSessions 3", 0o644)
	dir := s.dir
	for _, test := range []struct {
		line     string
		followed bool
	}{
		{"Include " + dir + "/a.conf", true},
		{"  INCLUDE\t" + dir + "/[ab].conf   " + dir + "/c*  # comment", true},
		{"include = \"" + dir + "/c d.conf\"", true},
		{"Include=" + dir + "/c\\ d.conf", true},
		{"Include '" + dir + "/c'\" d.conf\"", true},
		{"Include " + dir + "/*.conf", true},
		{"Include " + dir + "/[!a].con?", true},
		{"Include " + dir + "/?.con?", true},
		{"Include nothing/here", true},
		{"Match user x\n Include " + dir + "/b.conf", true},
		{"#Include " + dir + "/a.conf", true},
		{"Includes " + dir + "/a.conf", true},
		{"Include " + dir + "/{a}.conf", false},
		{"Include " + dir + "/[^a].conf", false},
		{"Include " + dir + "/\\\\a.conf", false},
		{"\"Include\" " + dir + "/a.conf", false},
		{"=Include " + dir + "/a.conf", false},
	} {
		t.Run(test.line[:10], func(t *testing.T) {
			s.t = t
			s.write("sshd_config", "HostKey "+s.path("key")+"\n"+test.line, 0o644)
			script := s.script()
			for _, shell := range shells {
				f := s.parse(s.probe(shell, os.Getuid(), script))
				texts, err := f.Texts()
				if err != nil {
					t.Fatal(err)
				}
				config, err := sshdconfig.Resolve(sshdconfig.Source{Main: s.config, Files: texts, Followed: f.Followed})
				if !test.followed {
					if err == nil || !strings.Contains(err.Error(), "which was not read") {
						t.Errorf("%s: %q: got %v", shell[0], test.line, err)
					}
					continue
				}
				if err != nil {
					t.Fatalf("%s: %q: %v", shell[0], test.line, err)
				}
				// Without the probe's list all of the folder is on offer, so
				// this finds what the probe has missed.
				all := map[string][]byte{s.config: texts[s.config]}
				for _, pattern := range []string{"*.conf", "deep/*", "deeper/*"} {
					names, err := filepath.Glob(filepath.Join(dir, pattern))
					if err != nil {
						t.Fatal(err)
					}
					for _, name := range names {
						if all[name], err = os.ReadFile(name); err != nil {
							t.Fatal(err)
						}
					}
				}
				full, err := sshdconfig.Resolve(sshdconfig.Source{Main: s.config, Files: all})
				if err != nil {
					t.Fatal(err)
				}
				if got, want := fmt.Sprint(config.Includes), fmt.Sprint(full.Includes); got != want {
					t.Errorf("%s: %q: got %s, want %s", shell[0], test.line, got, want)
				}
			}
		})
	}
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
