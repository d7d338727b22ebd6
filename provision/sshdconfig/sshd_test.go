package sshdconfig_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fleetca/fleetca/provision/sshdconfig"
)

// oracle asks the real sshd what a configuration means.
type oracle struct {
	sshd, key string
	dir       string
}

func newOracle(t *testing.T) *oracle {
	t.Helper()
	sshd, err := exec.LookPath("sshd")
	if err != nil {
		sshd = "/usr/sbin/sshd"
	}
	o := &oracle{sshd: sshd, dir: t.TempDir()}
	o.key = filepath.Join(o.dir, "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", o.key).CombinedOutput(); err != nil {
		t.Fatalf("making a host key: %v\n%s", err, out)
	}
	if os.Getuid() == 0 {
		// As root, sshd looks for this folder even when it only tests.
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// effective is sshd -T, for the connection unless it is empty.
func (o *oracle) effective(main, connection string) (map[string][]string, error) {
	args := []string{"-T", "-f", main, "-o", "HostKey=" + o.key}
	if connection != "" {
		args = append(args, "-C", connection)
	}
	cmd := exec.Command(o.sshd, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("sshd -T: %w: %s", err, stderr.String())
	}
	values := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		keyword, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		values[keyword] = append(values[keyword], value)
	}
	return values, nil
}

func (o *oracle) write(t *testing.T, name, text string) string {
	t.Helper()
	name = filepath.Join(o.dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// values are our global values of a keyword as sshd -T prints them.
func values(settings []sshdconfig.Setting) []string {
	var all []string
	for _, s := range settings {
		switch s.Keyword {
		case "acceptenv", "allowusers", "denyusers", "allowgroups", "denygroups":
			all = append(all, s.Args...)
		default:
			all = append(all, s.Value())
		}
	}
	return all
}

// TestLinesAgainstSSHD holds how single lines are read against sshd: each
// line alone makes a file.
func TestLinesAgainstSSHD(t *testing.T) {
	o := newOracle(t)
	for _, line := range []string{
		"Banner /plain", "banner /lower", "BANNER /upper", "bAnNeR /mixed",
		"Banner=/equals", "Banner = /equals", "Banner =/equals", "Banner= /equals", "Banner\t=\t/tabs",
		"=Banner /leading equals ends", "=Banner /leading",
		`"Banner" /quoted`, `Ban"ner" /joined`, `"Banner"/close`, `Ban"ner /ignored`, `"Banner /ignored`,
		`"Banner"/=literal`, `Banner"/x"`,
		" Banner /space", "\tBanner /tab", "\r Banner /cr", "Banner \t /many \t ",
		"Banner /crlf\r\n", "Banner /ff\f", "Banner /vt\v", "\fBanner /ff", "Banner /a\rb",
		`Banner "/two words"`, `Banner '/two words'`, `Banner /two\ words`, `Banner "/esc\"aped"`,
		`Banner '/esc\'aped'`, `Banner /back\\slash`, `Banner /odd\x`, `Banner "/in\ side"`,
		`Banner /mid"dle of"it`, `Banner ""`, `Banner "/x`, `Banner '/x`, `Banner /x'y`,
		"Banner /comment # here", "Banner /hash#inside", "Banner /hash #", `Banner "/#quoted"`, "Banner #none",
		"Banner /two words", "Banner", "Banner ", "Banner=", "Banner = ", "Banner\t", `Banner"`,
		"#Banner /x", " # Banner /x", "##", "#", "", " ", "\t\r", "=", "==", "= =", `""`, `"" Banner /x`, `"`,
		"ForceCommand /bin/echo  two  spaces # kept", `ForceCommand "/bin/a b" 'c'`, "ForceCommand=x=y", `ForceCommand "x`,
		"VersionAddendum some text", "AcceptEnv A B=C", "AcceptEnv A B # C", `AcceptEnv "A" 'B' C\ D`,
		"PubkeyAcceptedKeyTypes ssh-ed25519", "DSAAuthentication no", "KeepAlive no",
		"ChallengeResponseAuthentication yes", "SkeyAuthentication yes", "HostbasedAcceptedKeyTypes ssh-ed25519",
		"Nonsense x", "Match", "Match all extra", "Match user", "Match nonsense x", "Match user=x", `Match user "a b"`,
		"Match user x # comment", "Match all # comment", "Match user x address 10.0.0.0/8,!10.0.0.1", "Match,user x",
		"Include", "Include /nothing/here", `Include ""`, "Include /nothing/here # comment",
	} {
		main := o.write(t, "sshd_config", line)
		want, oracleErr := o.effective(main, "user=u,host=h,addr=10.0.0.1,laddr=10.0.0.2,lport=22")
		config, err := sshdconfig.Resolve(sshdconfig.Source{Main: main, Files: map[string][]byte{main: []byte(line)}})
		if err != nil {
			t.Errorf("%q: %v", line, err)
			continue
		}
		if config.Err() != nil && oracleErr == nil {
			t.Errorf("%q: we say %v, sshd takes it", line, config.Err())
		}
		if oracleErr != nil {
			// Unknown keywords and bad values are sshd's to judge; lines that
			// it can't even split must be known here.
			for _, words := range []string{"invalid quotes", "no argument after", "Bad Match condition"} {
				if strings.Contains(oracleErr.Error(), words) && config.Err() == nil {
					t.Errorf("%q: we see no problem, sshd says %v", line, oracleErr)
				}
			}
			continue
		}
		for _, s := range config.Settings {
			if got := values(config.Global(s.Keyword)); !slices.Equal(got, want[s.Keyword]) {
				t.Errorf("%q: %s is %q here, %q in sshd", line, s.Keyword, got, want[s.Keyword])
			}
		}
		if len(config.Settings) == 0 {
			if b := want["banner"]; !slices.Equal(b, []string{"none"}) {
				t.Errorf("%q: nothing here, banner %q in sshd", line, b)
			}
		}
	}
}

// tree makes up a configuration: a main file, files that it includes, Match
// blocks in both.
type tree struct {
	r     *rand.Rand
	dir   string
	files map[string]string
	count int
}

// pool are keywords whose values sshd -T prints as they were given. The
// second ones may stand within a Match.
var pool = []struct {
	keyword string
	match   bool
	value   func(n int) string
}{
	{"TrustedUserCAKeys", true, pathValue},
	{"RevokedKeys", true, pathValue},
	{"Banner", true, pathValue},
	{"AuthorizedPrincipalsFile", true, pathValue},
	{"ChrootDirectory", true, pathValue},
	{"PidFile", false, pathValue},
	{"HostCertificate", false, pathValue},
	{"MaxAuthTries", true, number},
	{"MaxSessions", true, number},
	{"LoginGraceTime", false, number},
	{"Port", false, func(n int) string { return fmt.Sprint(2000 + n) }},
	{"AcceptEnv", true, func(n int) string { return fmt.Sprintf("A%d B%d_*", n, n) }},
	{"AllowUsers", true, func(n int) string { return fmt.Sprintf("u%d v%d", n, n) }},
	{"DenyGroups", true, func(n int) string { return fmt.Sprintf("g%d", n) }},
	{"AuthorizedKeysFile", true, func(n int) string { return fmt.Sprintf(".ssh/k%d .ssh/l%d", n, n) }},
	{"ForceCommand", true, func(n int) string { return fmt.Sprintf("/bin/echo %d", n) }},
	{"PasswordAuthentication", true, yesNo},
	{"KbdInteractiveAuthentication", true, yesNo},
	{"ChallengeResponseAuthentication", false, yesNo},
	{"TCPKeepAlive", false, yesNo},
	{"KeepAlive", false, yesNo},
	{"FingerprintHash", false, func(n int) string { return []string{"MD5", "SHA256"}[n%2] }},
	{"StreamLocalBindMask", true, func(n int) string { return fmt.Sprintf("01%d7", n%8) }},
	{"IPQoS", true, func(n int) string { return []string{"cs0 cs1", "af11 af12", "ef cs7"}[n%3] }},
	{"Subsystem", false, func(n int) string { return fmt.Sprintf("s%d /bin/s%d -x", n, n) }},
}

func pathValue(n int) string { return fmt.Sprintf("/made/up/%d", n) }
func number(n int) string    { return fmt.Sprint(1 + n%50) }
func yesNo(n int) string     { return []string{"yes", "no"}[n%2] }

func (g *tree) setting(within bool) string {
	for {
		p := pool[g.r.IntN(len(pool))]
		if within && !p.match {
			continue
		}
		g.count++
		keyword, value := p.keyword, p.value(g.count)
		switch g.r.IntN(6) {
		case 0:
			keyword = strings.ToUpper(keyword)
		case 1:
			keyword = strings.ToLower(keyword)
		}
		if g.r.IntN(4) == 0 && keyword[0] != 'F' && keyword[0] != 'f' && !strings.Contains(value, " ") {
			value = `"` + value + `"`
		}
		separator := []string{" ", "\t", "=", " = ", "  "}[g.r.IntN(5)]
		if strings.EqualFold(keyword, "ForceCommand") {
			return keyword + separator + value
		}
		return keyword + separator + value + []string{"", "", " # note", "\t", "\r"}[g.r.IntN(5)]
	}
}

// file makes up a file and returns where it is. Settings that can't stand
// within a Match are left out where an Include may be within one.
func (g *tree) file(name string, depth int, within bool) {
	var text strings.Builder
	for range 1 + g.r.IntN(8) {
		text.WriteString(strings.Repeat(" ", g.r.IntN(3)))
		switch n := g.r.IntN(12); {
		case n == 0:
			text.WriteString("# comment")
		case n == 1:
		case n == 2 && depth < 3:
			text.WriteString(g.include(depth, within))
		case n <= 4:
			within = true
			text.WriteString([]string{"Match User alice", "match all", "Match user bob,alice", "Match User *,!alice"}[g.r.IntN(4)])
		default:
			text.WriteString(g.setting(within))
		}
		text.WriteString([]string{"\n", "\r\n"}[g.r.IntN(2)])
	}
	g.files[name] = strings.TrimSuffix(text.String(), []string{"", "\n"}[g.r.IntN(2)])
}

func (g *tree) include(depth int, within bool) string {
	g.count++
	folder := fmt.Sprintf("%s/d%d", g.dir, g.count)
	for _, name := range []string{"100-a.conf", "20-b.conf", "30-c.conf", ".hidden.conf", "other"} {
		if g.r.IntN(2) == 0 {
			g.file(folder+"/"+name, depth+1, within)
		}
	}
	pattern := folder + []string{"/*.conf", "/*", "/[12]*.con?", "/20-b.conf", "/nothing*"}[g.r.IntN(5)]
	if g.r.IntN(3) == 0 {
		pattern = `"` + pattern + `" ` + folder + "/30-c.conf"
	}
	return "Include " + pattern
}

// TestTreesAgainstSSHD holds what whole configurations mean against sshd: what
// counts for everybody, and what for a user that Match blocks name.
func TestTreesAgainstSSHD(t *testing.T) {
	o := newOracle(t)
	refused := 0
	for seed := range uint64(150) {
		g := &tree{
			r: rand.New(rand.NewPCG(seed, 7)), dir: filepath.Join(o.dir, fmt.Sprint(seed)),
			files: map[string]string{},
		}
		main := g.dir + "/sshd_config"
		g.file(main, 0, false)
		texts := map[string][]byte{}
		for name, text := range g.files {
			o.write(t, strings.TrimPrefix(name, o.dir+"/"), text)
			texts[name] = []byte(text)
		}
		config, err := sshdconfig.Resolve(sshdconfig.Source{Main: main, Files: texts})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		want, err := o.effective(main, "")
		if err != nil {
			// Such as a setting after "Match all" in a file that is included
			// within a Match of others.
			refused++
			continue
		}
		if err := config.Err(); err != nil {
			t.Errorf("seed %d: we say %v, sshd takes it", seed, err)
		}
		compare(t, fmt.Sprintf("seed %d", seed), g.files, want, func(keyword string) []sshdconfig.Setting {
			return counting(config, keyword, "Match all")
		})

		const user = "alice"
		want, err = o.effective(main, "user="+user+",host=h,addr=10.0.0.1,laddr=10.0.0.2,lport=22")
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		compare(t, fmt.Sprintf("seed %d for %s", seed, user), g.files, want, func(keyword string) []sshdconfig.Setting {
			return counting(config, keyword, "Match all", "Match user alice", "Match user bob,alice")
		})
	}
	if refused > 100 {
		t.Errorf("sshd refused %d of 150 made-up trees, so little was compared", refused)
	}
}

// counting is what counts for connections that the given Match lines match:
// sshd reads the configuration again for each connection, this time only what
// is within Match blocks, and puts the result over the global one. sshd -T
// does so too, without -C for a connection that only "Match all" matches.
func counting(c *sshdconfig.Config, keyword string, matches ...string) []sshdconfig.Setting {
	var within []sshdconfig.Setting
	for _, s := range c.InMatch(keyword) {
		if !slices.ContainsFunc(s.Match, func(m *sshdconfig.Match) bool { return !slices.Contains(matches, m.String()) }) {
			s.Match = nil
			within = append(within, s)
		}
	}
	again := sshdconfig.Config{Settings: within}
	if found := again.Global(keyword); len(found) > 0 {
		return found
	}
	return c.Global(keyword)
}

func compare(t *testing.T, name string, files map[string]string, want map[string][]string, of func(string) []sshdconfig.Setting) {
	t.Helper()
	for _, p := range pool {
		keyword := sshdconfig.Canonical(p.keyword)
		settings := of(keyword)
		if len(settings) == 0 {
			continue // a default, which isn't ours to know
		}
		got := values(settings)
		if !slices.Equal(got, want[keyword]) {
			t.Errorf("%s: %s is %q here, %q in sshd\n%q", name, keyword, got, want[keyword], files)
		}
	}
}

// TestRelativeInclude shows that sshd looks for relative Includes in its own
// folder, not beside its main file.
func TestRelativeInclude(t *testing.T) {
	o := newOracle(t)
	o.write(t, "extra.conf", "Banner /beside\n")
	up := "../.." + o.dir + "/extra.conf"
	for _, test := range []struct{ include, want string }{
		{"extra.conf", "none"},
		{up, "/beside"},
	} {
		text := []byte("Include " + test.include + "\n")
		main := o.write(t, "sshd_config", string(text))
		values, err := o.effective(main, "")
		if err != nil {
			t.Fatal(err)
		}
		config, err := sshdconfig.Resolve(sshdconfig.Source{Main: main, Files: map[string][]byte{
			main: text, o.dir + "/extra.conf": []byte("Banner /beside\n"), "/etc/ssh/" + up: []byte("Banner /beside\n"),
		}})
		if err != nil {
			t.Fatal(err)
		}
		got := "none"
		if b := config.Global("banner"); len(b) > 0 {
			got = b[0].Value()
		}
		if got != test.want || values["banner"][0] != test.want {
			t.Errorf("Include %s: banner %q here, %q in sshd, want %q", test.include, got, values["banner"][0], test.want)
		}
	}
}
