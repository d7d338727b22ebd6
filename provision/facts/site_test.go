package facts_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/provision/facts"
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
