package sshdconfig_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fleetca/fleetca/provision/sshdconfig"
)

// TestDropInReasons is the table of where a drop-in works and, where not, why.
func TestDropInReasons(t *testing.T) {
	const (
		main = "/etc/ssh/sshd_config"
		ours = "/etc/ssh/sshd_config.d/00-fleetca.conf"
		glob = "Include /etc/ssh/sshd_config.d/*.conf\n"
	)
	for _, test := range []struct {
		name   string
		main   string
		files  map[string]string
		reason string // empty = it works
	}{
		{name: "as Debian ships it", main: "# comment\n" + glob + "UsePAM yes\n"},
		{name: "relative", main: "Include sshd_config.d/*.conf\n"},
		{name: "by its own name", main: "include " + ours + "\n"},
		{name: "no include", main: "UsePAM yes\n", reason: "nothing in /etc/ssh/sshd_config includes /etc/ssh/sshd_config.d/00-fleetca.conf"},
		{name: "other include", main: "Include /etc/ssh/other.d/*.conf\n", reason: "nothing in /etc/ssh/sshd_config includes /etc/ssh/sshd_config.d/00-fleetca.conf"},
		{name: "too late", main: "UsePAM yes\nTRUSTEDUSERCAKEYS /x\n" + glob, reason: "/etc/ssh/sshd_config:2 sets trustedusercakeys before /etc/ssh/sshd_config:3 includes 00-fleetca.conf"},
		{name: "same keyword later", main: glob + "TrustedUserCAKeys /x\n"},
		{name: "a keyword that gathers, earlier", main: "HostCertificate /x\n" + glob},
		{name: "keyword in a Match, earlier", main: "Include /etc/ssh/a.conf\n" + glob, files: map[string]string{"/etc/ssh/a.conf": "Match user x\nTrustedUserCAKeys /x\n"}},
		{name: "keyword in Match all, earlier", main: "Include /etc/ssh/a.conf\n" + glob, files: map[string]string{"/etc/ssh/a.conf": "Match all\nTrustedUserCAKeys /x\n"}, reason: "/etc/ssh/a.conf:2 sets trustedusercakeys before /etc/ssh/sshd_config:2 includes 00-fleetca.conf"},
		{name: "within a Match", main: "Match user x\n" + glob, reason: `/etc/ssh/sshd_config:2 includes 00-fleetca.conf only within "Match user x" of /etc/ssh/sshd_config:1`},
		{name: "within Match all", main: "Match user x\nBanner /x\nMatch all\n" + glob},
		{name: "after a file that ends in a Match", main: "Include /etc/ssh/a.conf\n" + glob, files: map[string]string{"/etc/ssh/a.conf": "Match user x\n"}},
		{name: "in an included file", main: "Include /etc/ssh/a.conf\n", files: map[string]string{"/etc/ssh/a.conf": glob}},
		{name: "in an included file, within a Match", main: "Match user x\nInclude /etc/ssh/a.conf\n", files: map[string]string{"/etc/ssh/a.conf": glob}, reason: `/etc/ssh/a.conf:1 includes 00-fleetca.conf only within "Match user x" of /etc/ssh/sshd_config:1`},
		{name: "first within a Match, then globally", main: "Include /etc/ssh/a.conf\n" + glob, files: map[string]string{"/etc/ssh/a.conf": "Match user x\n" + glob}},
		{name: "another drop-in sorts before", main: glob, files: map[string]string{"/etc/ssh/sshd_config.d/00-a.conf": "TrustedUserCAKeys /x\n"}, reason: "/etc/ssh/sshd_config.d/00-a.conf:1 sets trustedusercakeys before /etc/ssh/sshd_config:1 includes 00-fleetca.conf"},
		{name: "another drop-in sorts after", main: glob, files: map[string]string{"/etc/ssh/sshd_config.d/10-a.conf": "TrustedUserCAKeys /x\n"}},
		{name: "it is there already", main: glob, files: map[string]string{ours: "TrustedUserCAKeys /ours\n", "/etc/ssh/sshd_config.d/10-a.conf": ""}},
		{name: "pattern that leaves it out", main: "Include /etc/ssh/sshd_config.d/[1-9]*.conf\n", reason: "nothing in /etc/ssh/sshd_config includes /etc/ssh/sshd_config.d/00-fleetca.conf"},
		{name: "in a comment", main: "#" + glob, reason: "nothing in /etc/ssh/sshd_config includes /etc/ssh/sshd_config.d/00-fleetca.conf"},
	} {
		t.Run(test.name, func(t *testing.T) {
			files := map[string][]byte{main: []byte(test.main)}
			for name, text := range test.files {
				files[name] = []byte(text)
			}
			config, err := sshdconfig.Resolve(sshdconfig.Source{Main: main, Files: files})
			if err != nil {
				t.Fatal(err)
			}
			got := config.DropIn(ours, "HostCertificate", "TrustedUserCAKeys")
			if got.Reason != test.reason || got.OK != (test.reason == "") {
				t.Errorf("got %v %q, want %q", got.OK, got.Reason, test.reason)
			}
			if got.OK && got.Include.Line == 0 {
				t.Error("it works, but by no Include")
			}
		})
	}
}

// TestDropInAgainstSSHD puts a drop-in where DropIn was asked about one and
// looks whether sshd takes its value.
func TestDropInAgainstSSHD(t *testing.T) {
	o := newOracle(t)
	took, refused := 0, 0
	for seed := range uint64(120) {
		g := &tree{r: rand.New(rand.NewPCG(seed, 11)), dir: filepath.Join(o.dir, fmt.Sprint(seed)), files: map[string]string{}}
		main, ours := g.dir+"/sshd_config", g.dir+"/drop.d/20-ours.conf"
		g.file(main, 0, false)
		lines := strings.SplitAfter(g.files[main], "\n")
		at := g.r.IntN(len(lines) + 1)
		include := "Include " + g.dir + "/drop.d/*.conf\n"
		g.files[main] = strings.Join(lines[:at], "") + "\n" + include + strings.Join(lines[at:], "")
		for _, name := range []string{"100-x.conf", "30-x.conf"} {
			if g.r.IntN(2) == 0 {
				g.file(g.dir+"/drop.d/"+name, 3, at == len(lines))
			}
		}
		texts := map[string][]byte{}
		for name, text := range g.files {
			o.write(t, strings.TrimPrefix(name, o.dir+"/"), text)
			texts[name] = []byte(text)
		}
		config, err := sshdconfig.Resolve(sshdconfig.Source{Main: main, Files: texts})
		if err != nil {
			t.Fatal(err)
		}
		answer := config.DropIn(ours, "Banner")
		o.write(t, strings.TrimPrefix(ours, o.dir+"/"), "Banner /ours\n")
		effective, err := o.effective(main, "")
		if err != nil {
			continue
		}
		texts[ours] = []byte("Banner /ours\n")
		if after, err := sshdconfig.Resolve(sshdconfig.Source{Main: main, Files: texts}); err != nil {
			t.Fatal(err)
		} else if again := after.DropIn(ours, "Banner"); again.OK != answer.OK || again.Reason != answer.Reason {
			t.Errorf("seed %d: %+v before it was there, %+v after", seed, answer, again)
		}
		if len(counting(&sshdconfig.Config{Settings: config.InMatch("banner")}, "banner", "Match all")) > 0 {
			continue // it would be overridden, which DropIn doesn't answer
		}
		if won := effective["banner"][0] == "/ours"; won != answer.OK {
			t.Errorf("seed %d: DropIn says %v (%s), in sshd %v\n%q", seed, answer.OK, answer.Reason, won, g.files)
		}
		if answer.OK {
			took++
		} else {
			refused++
		}

		o.write(t, strings.TrimPrefix(ours, o.dir+"/"), "")
		blocked, err := sshdconfig.WithBlock([]byte(g.files[main]), []byte("Banner /block\n"))
		if err != nil {
			t.Fatal(err)
		}
		o.write(t, strings.TrimPrefix(main, o.dir+"/"), string(blocked))
		effective, err = o.effective(main, "")
		if err != nil {
			t.Fatalf("seed %d: with a block: %v", seed, err)
		}
		if got := effective["banner"][0]; got != "/block" {
			t.Errorf("seed %d: with a block at the top banner is %q\n%s", seed, got, blocked)
		}
	}
	if took < 10 || refused < 10 {
		t.Errorf("compared %d that work and %d that don't: too few", took, refused)
	}
}

func TestBlock(t *testing.T) {
	const marks = "# BEGIN fleetca: written by fleetca, which replaces everything up to the END line\n%s# END fleetca\n"
	for _, text := range []string{
		"", "Port 22", "Port 22\n", "\n\n", "\r\nPort 22\r\nMatch user x\r\n", "Match all\n", "\xef\xbb\xbfPort 22\n",
		"# BEGIN fleetcafoo\n", "# begin fleetca\n",
	} {
		out, err := sshdconfig.WithBlock([]byte(text), []byte("Banner /x"))
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if want := fmt.Sprintf(marks, "Banner /x\n") + text; string(out) != want {
			t.Errorf("%q: got %q, want %q", text, out, want)
		}
		again, err := sshdconfig.WithBlock(out, []byte("Banner /x"))
		if err != nil || string(again) != string(out) {
			t.Errorf("%q: the second time %q, %v", text, again, err)
		}
		replaced, err := sshdconfig.WithBlock(out, []byte("Port 1\n"))
		if err != nil || string(replaced) != fmt.Sprintf(marks, "Port 1\n")+text {
			t.Errorf("%q: replaced %q, %v", text, replaced, err)
		}
		back, err := sshdconfig.WithoutBlock(out)
		if err != nil || string(back) != text {
			t.Errorf("%q: taken out again %q, %v", text, back, err)
		}
		if inner, found, err := sshdconfig.Block(out); err != nil || !found || string(inner) != "Banner /x\n" {
			t.Errorf("%q: block is %q, %v, %v", text, inner, found, err)
		}
		if inner, found, err := sshdconfig.Block([]byte(text)); err != nil || found || inner != nil {
			t.Errorf("%q: without a block there is %q, %v, %v", text, inner, found, err)
		}
	}
}

func TestBlockMoved(t *testing.T) {
	// Somebody moved the block down, and an editor changed the line ends.
	text := "Port 22\r\n# BEGIN fleetca: old words\r\nBanner /old\r\n  # END fleetca  \r\nMatch user x\r\n"
	out, err := sshdconfig.WithBlock([]byte(text), []byte("Banner /new\n"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(out), "# BEGIN fleetca") || !strings.HasSuffix(string(out), "# END fleetca\nPort 22\r\nMatch user x\r\n") {
		t.Errorf("got %q", out)
	}
	// The END line lost its newline at the end of the file.
	back, err := sshdconfig.WithoutBlock([]byte("Port 22\n# BEGIN fleetca\n# END fleetca"))
	if err != nil || string(back) != "Port 22\n" {
		t.Errorf("got %q, %v", back, err)
	}
}

func TestBlockRefusals(t *testing.T) {
	for _, test := range []struct{ text, block, want string }{
		{"Port 22\n# BEGIN fleetca\n", "Port 1\n", "damaged fleetca markers: the block that line 2 begins has no end"},
		{"# END fleetca\n", "Port 1\n", "damaged fleetca markers: line 1 ends a block that isn't open"},
		{"# BEGIN fleetca\n# BEGIN fleetca\n# END fleetca\n", "Port 1\n", "damaged fleetca markers: line 2 begins a block again after line 1"},
		{"# BEGIN fleetca\n# END fleetca\n# END fleetca\n", "Port 1\n", "damaged fleetca markers: line 3 ends a block that isn't open"},
		{"# BEGIN fleetca\n# END fleetca\n\n# BEGIN fleetca\n# END fleetca\n", "Port 1\n", "damaged fleetca markers: line 4 begins a block again after line 1"},
		{"", "Port 1\nMatch all\n", `adding a block to sshd_config: block:2: "match" doesn't belong in it`},
		{"", "Include /x\n", `adding a block to sshd_config: block:1: "include" doesn't belong in it`},
		{"", "Banner \"x\n", "adding a block to sshd_config: block:1: quotes don't end"},
		{"", "# END fleetca\n", `adding a block to sshd_config: it holds the marker line "# END fleetca"`},
		{"", "a\x00", `reading sshd configuration "block": NUL byte in line 1`},
	} {
		if _, err := sshdconfig.WithBlock([]byte(test.text), []byte(test.block)); err == nil || err.Error() != test.want {
			t.Errorf("%q in %q: got %v, want %s", test.block, test.text, err, test.want)
		}
	}
}

func TestResolveRefusals(t *testing.T) {
	deep := map[string]string{"/m": "Include /0\n"}
	for i := range 16 {
		deep[fmt.Sprintf("/%d", i)] = fmt.Sprintf("Include /%d\n", i+1)
	}
	for _, test := range []struct {
		name     string
		files    map[string]string
		followed []string
		want     string
	}{
		{name: "no main file", want: `file "/m" was not given`},
		{name: "not followed", files: map[string]string{"/m": "\nInclude /x/*\n"}, followed: []string{"/y/*"}, want: `/m:2 includes "/x/*", which was not read`},
		{name: "nothing followed", files: map[string]string{"/m": "Include y\n"}, followed: []string{}, want: `/m:1 includes "/etc/ssh/y", which was not read`},
		{name: "includes itself", files: map[string]string{"/m": "Include /m\n"}, want: "/m:1: Includes are nested more than 16 deep"},
		{name: "too deep", files: deep, want: "/15:1: Includes are nested more than 16 deep"},
		{name: "fork bomb", files: map[string]string{"/m": strings.Repeat("Include /a\n", 400), "/a": strings.Repeat("Port 22\n", 400)}, want: "more than 100000 settings"},
		{name: "class", files: map[string]string{"/m": "Include /[[:alpha:]]\n"}, want: "character classes by name are not supported"},
		{name: "NUL in an included file", files: map[string]string{"/m": "Include /a\n", "/a": "\n\nx\x00"}, want: `"/a": NUL byte in line 3`},
	} {
		files := map[string][]byte{}
		for name, text := range maps.All(test.files) {
			files[name] = []byte(text)
		}
		_, err := sshdconfig.Resolve(sshdconfig.Source{Main: "/m", Files: files, Followed: test.followed})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %s", test.name, err, test.want)
		}
	}
}

func TestPositionsAndMatches(t *testing.T) {
	config, err := sshdconfig.Resolve(sshdconfig.Source{Main: "/m", Files: map[string][]byte{
		"/m": []byte("Port 22\nInclude /a\nMatch User \"a b\" Address 10.0.0.0/8 # x\n\tTrustedUserCAKeys /u\nInclude /b\nRevokedKeys /r\n"),
		"/a": []byte("Match Group wheel\nTrustedUserCAKeys /w\n"),
		"/b": []byte("TrustedUserCAKeys /b\nMatch invalid-user\nTrustedUserCAKeys /i\n"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range config.InMatch("TRUSTEDUSERCAKEYS") {
		words := []string{s.Position.String(), s.Value()}
		for _, m := range s.Match {
			words = append(words, m.Position.String(), m.String())
		}
		got = append(got, strings.Join(words, " | "))
	}
	want := []string{
		"/a:2 | /w | /a:1 | Match group wheel",
		"/m:4 | /u | /m:3 | Match user a b address 10.0.0.0/8",
		"/b:1 | /b | /m:3 | Match user a b address 10.0.0.0/8",
		"/b:3 | /i | /m:3 | Match user a b address 10.0.0.0/8 | /b:2 | Match invalid-user",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if len(config.Global("trustedusercakeys")) != 0 || len(config.Includes) != 2 || len(config.Matches) != 3 {
		t.Errorf("got %+v", config)
	}
}

// seeds are real and odd configurations for the fuzz tests.
func seeds(f *testing.F) {
	f.Helper()
	paths, err := filepath.Glob("testdata/*.conf")
	if err != nil || len(paths) < 3 {
		f.Fatalf("seeds: %v, %v", paths, err)
	}
	for _, name := range paths {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		if _, err := sshdconfig.Parse(name, text); err != nil {
			f.Fatalf("seed %s: %v", name, err)
		}
		f.Add(text)
	}
}

func FuzzParse(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := sshdconfig.Parse("/m", text)
		if err != nil {
			return
		}
		if string(file.Bytes()) != string(text) {
			t.Errorf("%q came back as %q", text, file.Bytes())
		}
		lines := strings.Count(string(text), "\n") + 1
		last := 0
		for _, d := range file.Directives() {
			if d.Line <= last || d.Line > lines || d.Keyword == "" {
				t.Errorf("%q: %+v after line %d", text, d, last)
			}
			last = d.Line
		}
	})
}

func FuzzResolve(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		config, err := sshdconfig.Resolve(sshdconfig.Source{Main: "/m", Files: map[string][]byte{
			"/m": text, "/a.conf": []byte("Match user x\nBanner /x\n"), "/b.conf": text,
		}})
		if err != nil {
			return
		}
		for _, s := range config.Settings {
			if len(config.Global(s.Keyword)) == 0 && s.Global() {
				t.Errorf("%q: %s counts nowhere", text, s.Position)
			}
		}
		if d := config.DropIn("/etc/ssh/sshd_config.d/00-fleetca.conf", "TrustedUserCAKeys"); d.OK != (d.Reason == "") {
			t.Errorf("%q: %+v", text, d)
		}
	})
}

func FuzzBlock(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		rest, err := sshdconfig.WithoutBlock(text)
		if err != nil {
			return
		}
		out, err := sshdconfig.WithBlock(text, []byte("Banner /x\n"))
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if again, err := sshdconfig.WithBlock(out, []byte("Banner /x\n")); err != nil || string(again) != string(out) {
			t.Errorf("%q: not the same the second time: %q, %v", text, again, err)
		}
		if back, err := sshdconfig.WithoutBlock(out); err != nil || string(back) != string(rest) {
			t.Errorf("%q: taken out again %q, %v", text, back, err)
		}
	})
}
