package facts_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/provision/facts"
	"github.com/fleetca/fleetca/provision/sshdconfig"
)

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
