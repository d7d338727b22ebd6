package transfer

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseSCP(t *testing.T) {
	for _, test := range []struct {
		command string
		want    SCP
	}{
		{"scp -t /tmp", SCP{Path: "/tmp"}},
		{"scp -f /etc/hosts", SCP{Source: true, Path: "/etc/hosts"}},
		{"scp -v -r -p -d -t dir/", SCP{Recursive: true, Preserve: true, Directory: true, Path: "dir/"}},
		{"scp -prt x", SCP{Recursive: true, Preserve: true, Path: "x"}},
		{"scp -qrf  x", SCP{Source: true, Recursive: true, Path: "x"}},
		{"scp -t -- -x", SCP{Path: "-x"}},
		{"scp -f -- '-x y'", SCP{Source: true, Path: "-x y"}},
		{"scp -t 'a b'", SCP{Path: "a b"}},
		{`scp -t "it's (1); done & gone"`, SCP{Path: "it's (1); done & gone"}},
		{`scp -t 'a;b|c&d<e>f$g` + "`" + `h(i)j"k*l'`, SCP{Path: "a;b|c&d<e>f$g`h(i)j\"k*l"}},
		{`scp -t a\ b\;c\'d\$e`, SCP{Path: "a b;c'd$e"}},
		{`scp -t /srv/"my files"/'the rest'`, SCP{Path: "/srv/my files/the rest"}},
		{"scp -f logs/*.gz", SCP{Source: true, Path: "logs/*.gz", Glob: true}},
		{"scp -f log[0-9]?", SCP{Source: true, Path: "log[0-9]?", Glob: true}},
		{"scp -t '*'", SCP{Path: "*"}},
		{"scp -t ~/x", SCP{Path: "~/x"}},
		{"scp -f ~joe/x~", SCP{Source: true, Path: "~joe/x~"}},
		{"scp -t ~", SCP{Path: "~"}},
		{"scp -t \xff\xfe/ü", SCP{Path: "\xff\xfe/ü"}},
		{"scp -t a=b:c,d+e@f%g_h", SCP{Path: "a=b:c,d+e@f%g_h"}},
	} {
		if got, ok := ParseSCP(test.command); !ok || got != test.want {
			t.Errorf("%q: %+v %v, want %+v", test.command, got, ok, test.want)
		}
	}
}

func TestParseSCPRefuses(t *testing.T) {
	for reason, commands := range map[string][]string{
		"more commands": {
			"scp -t x; sh", "scp -t x;sh", "scp -t x & sh", "scp -t x&", "scp -t x | sh", "scp -t x || sh", "scp -t x\nsh",
			"scp -t x\r\nsh", "(scp -t x)", "{ scp -t x; }", "scp -t x #", "! scp -t x", "time scp -t x", "exec scp -t x",
		},
		"expansion": {
			"scp -t $(sh)", "scp -t `sh`", "scp -t $HOME", `scp -t "$(sh)"`, "scp -t \"`sh`\"", "scp -t ${x}", "scp -t $'x'",
			"scp -t {a,b}", "scp -t (sh)", "scp -t x(sh)", "scp -t !!", "scp -t a!b", "scp -t 'a!b'", "scp -t <(sh)", "scp -t a^b",
		},
		"redirection": {"scp -t x > y", "scp -t x>y", "scp -t x <y", "scp -t x 2>&1", "scp -t x >&y"},
		"quotes that shells read differently": {
			`scp -t 'x\''; sh; #'`, `scp -t "a\"; sh; \"b"`, `scp -t "a\\"`, `scp -t 'a\b'`, `scp -t a\nb`, `scp -t a\`, "scp -t a\\\nb",
			"scp -t 'a\nb'", "scp -t 'a\tb'", "scp -t 'a", `scp -t "a`, "scp -t a'", "scp -t 'a\x00b'", "scp -t 'a\x7fb'",
		},
		"another program": {
			"", "scp", "sh", "/usr/bin/scp -t x", "./scp -t x", "scpx -t x", "SCP -t x", "'scp' -t x", `s\cp -t x`, "PATH=. scp -t x", "sudo scp -t x", "scp\t-t\tx",
		},
		"other options": {
			"scp x y", "scp -r x", "scp -t", "scp -f", "scp -t -f x", "scp -f -t x", "scp -tf x", "scp -t -t x", "scp -S sh -t x", "scp -t -Ssh x",
			"scp -oProxyCommand=sh -t x", "scp -t -o ProxyCommand=sh x", "scp -t -D sh x", "scp -tD x", "scp -3 -t x", "scp -t - x", "scp -t -",
			"scp -'t' x", `scp "-t" x`, "scp '-S' -t x", "scp --t x", "scp -- -t x", "scp -t -- ", "scp -t -x",
		},
		"other arguments": {"scp -t x y", "scp -f x y", "scp -t x -S", "scp -t x -- y", "scp -t ''", `scp -t ""`, "scp -t -- -- x"},
		"wildcards": {
			"scp -t x*", "scp -t x?", "scp -t [x]", "scp -f *", "scp -f *x", "scp -f ?", "scp -f [-]S", "scp -f ~*", "scp -f ~[x]/y", "scp -f ~'joe'",
		},
		"length": {"scp -t " + strings.Repeat("x", maxCommand)},
	} {
		for _, command := range commands {
			if s, ok := ParseSCP(command); ok {
				t.Errorf("%s: %q is taken for %+v", reason, command, s)
			}
		}
	}
}

// shells are those that a login may have. The first two are always there.
func shells(t *testing.T) []string {
	t.Helper()
	var found []string
	for i, name := range []string{"sh", "bash", "dash", "busybox", "zsh", "ksh", "mksh", "yash", "csh", "tcsh", "fish"} {
		path, err := exec.LookPath(name)
		if err == nil {
			found = append(found, path)
		} else if i < 2 {
			t.Fatal(err)
		}
	}
	return found
}

// pieces are what command lines are made of, to find one that is taken for an
// scp and in which some shell sees more.
var pieces = []string{
	"a", "b/c", " ", " ", "'", "'", `"`, `"`, `\`, `\`, ";", "&", "|", "$x", "$(touch y)", "`touch y`", "(", ")", "{", "}", "<", ">", "#",
	"~", "*", "?", "[", "]", "!", "^", "%", "=", "touch y", ";touch y;", ",", ":", "@", "\xc3\xbc", "\xff", "-S", "--", "~root", "+", "\\'", "'\\''",
}

// TestShells runs random command lines that are taken for an scp in real shells,
// with a program that shows its arguments in place of scp, and nothing else to
// run: the shells must start that with that path, and do nothing more.
func TestShells(t *testing.T) {
	bin, work := t.TempDir(), t.TempDir()
	shown := filepath.Join(t.TempDir(), "shown")
	script := "#!/bin/sh\nfor a; do printf '%s\\0' \"$a\"; done >>" + shown + "\nprintf '\\n' >>" + shown + "\n"
	if err := os.WriteFile(filepath.Join(bin, "scp"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "touch"), []byte("#!/bin/sh\necho touched >>"+shown+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(7, 7))
	var accepted []string
	for tries := 0; len(accepted) < 60; tries++ {
		if tries > 1e6 {
			t.Fatalf("only %d lines were accepted", len(accepted))
		}
		var b strings.Builder
		b.WriteString([]string{"scp -t ", "scp -r -f ", "scp -t -- "}[r.IntN(3)])
		special := false
		for range 2 + r.IntN(9) {
			piece := pieces[r.IntN(len(pieces))]
			special = special || len(piece) == 1 && strings.Contains(`'"\`, piece)
			b.WriteString(piece)
		}
		if s, ok := ParseSCP(b.String()); ok && special && !s.Glob {
			accepted = append(accepted, b.String())
		}
	}
	for _, shell := range shells(t) {
		for _, command := range accepted {
			s, _ := ParseSCP(command)
			if strings.HasPrefix(s.Path, "~") || strings.HasPrefix(s.Path, "=") {
				continue // becomes a folder, or a program's path in zsh
			}
			if err := os.WriteFile(shown, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			args := []string{"-c", command}
			if filepath.Base(shell) == "busybox" {
				args = append([]string{"sh"}, args...)
			}
			cmd := exec.CommandContext(t.Context(), shell, args...)
			cmd.Dir = work
			cmd.Env = []string{"PATH=" + bin, "HOME=" + work, "LC_ALL=C.UTF-8"}
			out, err := cmd.CombinedOutput()
			got, readErr := os.ReadFile(shown)
			if readErr != nil {
				t.Fatal(readErr)
			}
			words := strings.Split(strings.TrimSuffix(string(got), "\x00\n"), "\x00")
			if err != nil || len(out) > 0 || bytes.Count(got, []byte("\n")) != 1 || words[len(words)-1] != s.Path ||
				slices.ContainsFunc(words[:len(words)-1], func(w string) bool { return !strings.HasPrefix(w, "-") }) {
				t.Errorf("%s %q: %v %q, ran %q, want path %q", shell, command, err, out, got, s.Path)
			}
		}
	}
}

func FuzzParseSCP(f *testing.F) {
	for _, seed := range []string{
		"scp -t x", "scp -r -p -f '/tmp/a b'", `scp -t -- "x"`, "scp -f logs/*.gz", `scp -qd -t a\ b`, "scp -t ~/x",
	} {
		if _, ok := ParseSCP(seed); !ok {
			f.Errorf("seed %q does not load", seed)
		}
		f.Add(seed)
	}
	for _, p := range pieces {
		f.Add("scp -t x" + p)
	}
	f.Fuzz(func(t *testing.T, command string) {
		s, ok := ParseSCP(command)
		if !ok {
			return
		}
		if s.Path == "" || strings.ContainsFunc(command, control) || !strings.HasPrefix(command, "scp ") && !strings.HasPrefix(strings.TrimLeft(command, " "), "scp ") {
			t.Fatalf("%q is taken for %+v", command, s)
		}
		if s.Glob && !s.Source {
			t.Fatalf("%q has wildcards", command)
		}
		// Written with quotes it is the same again.
		if strings.ContainsAny(s.Path, `'\!`) || s.Glob || s.Path[0] == '~' {
			return
		}
		option := "-t"
		if s.Source {
			option = "-f"
		}
		again, ok := ParseSCP(fmt.Sprintf("scp %s -- '%s'", option, s.Path))
		if !ok || again.Path != s.Path || again.Source != s.Source {
			t.Fatalf("%q: %+v, quoted: %+v %v", command, s, again, ok)
		}
	})
}
