package sshconfig

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestUserBeforeSystem(t *testing.T) {
	c, err := Load(Files{User: write(t, "Host web1\n User u\n IdentityFile /a\n"), System: write(t, "User s\nPort 2222\nIdentityFile /b\n")})
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Lookup("web1", Override{})
	if err != nil || s.User != "u" || s.Port != 2222 || !slices.Equal(s.IdentityFiles, []string{"/a", "/b"}) {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestFiles(t *testing.T) {
	home := t.TempDir()
	env, err := currentEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	env.home = home
	if _, err := load(Files{System: empty(t)}, env); err != nil {
		t.Errorf("missing default file: %v", err)
	}
	if _, err := load(Files{User: filepath.Join(home, "none"), System: empty(t)}, env); !os.IsNotExist(errors.Unwrap(err)) {
		t.Errorf("missing named file: %v", err)
	}
	if _, err := load(Files{User: empty(t), System: filepath.Join(home, "none")}, env); err == nil {
		t.Error("missing named system file is taken")
	}
	if err := os.Mkdir(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(home, ".ssh", "config")
	if err := os.WriteFile(path, []byte("Include extra\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, ".ssh", "extra"), []byte("Include config\nPort 5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := load(Files{System: empty(t)}, env); err == nil || !strings.Contains(err.Error(), "including one another") {
		t.Errorf("a loop of includes: %v", err)
	}
	if err := os.WriteFile(filepath.Join(home, ".ssh", "extra"), []byte("Port 5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := load(Files{System: empty(t)}, env)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := c.Lookup("web1", Override{}); err != nil || s.Port != 5 {
		t.Errorf("relative include: %+v, %v", s, err)
	}
	for _, loose := range []string{path, filepath.Join(home, ".ssh", "extra")} {
		if err := os.Chmod(loose, 0o622); err != nil {
			t.Fatal(err)
		}
		if _, err := load(Files{System: empty(t)}, env); err == nil || !strings.Contains(err.Error(), "written by others") {
			t.Errorf("loose mode of %s: %v", filepath.Base(loose), err)
		}
		if err := os.Chmod(loose, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := load(Files{User: empty(t), System: write(t, "Include ~/x\n")}, env); err == nil || !strings.Contains(err.Error(), "can't include from a home folder") {
		t.Errorf("system file includes ~: %v", err)
	}
}

func TestOddNames(t *testing.T) {
	for _, name := range []string{"", "-oProxyCommand=x", "a b", "a\nb", "$(x)", "a;b"} {
		if _, err := lookup(t, "", name, Override{}); err == nil {
			t.Errorf("%q is taken as a destination", name)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	var text strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&text, "Host host%d\n  HostName 10.0.0.%d\n  User u\n", i, i%256)
	}
	r := reader{user: true}
	f, err := r.parse("bench", []byte(text.String()), 0)
	if err != nil {
		b.Fatal(err)
	}
	c := &Config{files: []*file{f}, env: environment{user: "u", home: "/h", getenv: os.LookupEnv}}
	for b.Loop() {
		if _, err := c.Lookup("host999", Override{}); err != nil {
			b.Fatal(err)
		}
	}
}
