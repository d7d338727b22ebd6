package templates

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func jumpUnit() JumpUnit {
	return JumpUnit{
		Name: "jump.example.com", Binary: "/usr/local/bin/fleetjump", Folder: "/etc/fleetjump", Source: "/srv/out",
		State: "/var/lib/fleetjump", User: "fleetjump", StopSeconds: 90,
	}
}

// TestJumpConfig holds that values come out of YAML as they went in.
func TestJumpConfig(t *testing.T) {
	for _, c := range []JumpConfig{
		{Name: "jump.example.com", Listen: []string{":3023"}, State: "state"},
		{Name: "jump", Listen: []string{"[::1]:22", ":3023"}, State: "/var/lib/x", Admins: []string{"ann@example.com"}},
		{Name: "jump", Listen: []string{":1"}, State: `a "b" \c: #d`, Admins: []string{`"], x: [`, "*", "é\u200b", "- a", "{{.}}", "null"}, Everyone: true},
	} {
		text, err := c.Render()
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Name    string
			Listen  []string
			Socket  string   `yaml:"admin_socket"`
			HostKey string   `yaml:"host_key"`
			UserCAs []string `yaml:"user_cas"`
			Roles   []struct {
				Name       string
				Identities []string
			}
			Store    struct{ Dir string }
			AuditDir string `yaml:"audit_dir"`
		}
		if err := yaml.Unmarshal([]byte(text), &got); err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if got.Name != c.Name || !slices.Equal(got.Listen, c.Listen) || got.Socket != c.State+"/admin.sock" || got.Store.Dir != c.State+"/store" ||
			got.AuditDir != c.State+"/audit" || got.HostKey != JumpHostKeyFile || !slices.Equal(got.UserCAs, []string{UserCAFile}) {
			t.Errorf("%+v became %+v in\n%s", c, got, text)
		}
		var roles []string
		for _, r := range got.Roles {
			roles = append(roles, r.Name)
			if r.Name == "admins" && !slices.Equal(r.Identities, c.Admins) {
				t.Errorf("admins %q became %q", c.Admins, r.Identities)
			}
		}
		// Nothing is open that nobody asked for.
		if slices.Contains(roles, "admins") != (len(c.Admins) > 0) || slices.Contains(roles, "everyone") != c.Everyone || len(roles) > 2 {
			t.Errorf("%+v came to the roles %q", c, roles)
		}
	}
	for _, c := range []JumpConfig{
		{},
		{Name: "a\nroles: []", Listen: []string{":1"}, State: "s"},
		{Name: "a", Listen: []string{"\x1b"}, State: "s"},
		{Name: "a", Listen: []string{":1"}, State: "s\n"},
		{Name: "a", Listen: []string{":1"}, State: "s", Admins: []string{"\xff"}},
	} {
		if text, err := c.Render(); err == nil {
			t.Errorf("%+v became\n%s", c, text)
		}
	}
}

func TestJumpUnit(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(*JumpUnit)
		want    []string
		wantNot []string
	}{
		"plain":           {func(*JumpUnit) {}, []string{"StateDirectory=fleetjump", "CapabilityBoundingSet=\n", "cp -r /srv/out /etc/fleetjump"}, []string{"ReadWritePaths", "CAP_"}},
		"low port":        {func(u *JumpUnit) { u.LowPort = true }, []string{"AmbientCapabilities=CAP_NET_BIND_SERVICE"}, nil},
		"state elsewhere": {func(u *JumpUnit) { u.State = "/etc/fleetjump/state" }, []string{"ReadWritePaths=/etc/fleetjump/state\n"}, []string{"StateDirectory="}},
		"odd source":      {func(u *JumpUnit) { u.Source = "/srv/my $out" }, []string{"cp -r '/srv/my $out' /etc"}, nil},
	} {
		u := jumpUnit()
		c.change(&u)
		text, err := u.Render()
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range append(c.want, "\nUser=fleetjump\n", "\nNoNewPrivileges=yes\n", "\nProtectSystem=strict\n", "\nSystemCallFilter=@system-service\n",
			"\nExecStart=/usr/local/bin/fleetjump serve --config /etc/fleetjump/jump.yaml\n", "\nTimeoutStopSec=90\n") {
			if !strings.Contains(text, w) {
				t.Errorf("%s: no %q in\n%s", name, w, text)
			}
		}
		for _, w := range c.wantNot {
			if strings.Contains(text, w) {
				t.Errorf("%s: %q in\n%s", name, w, text)
			}
		}
		checkUnit(t, text)
	}
	for name, change := range map[string]func(*JumpUnit){
		"relative":      func(u *JumpUnit) { u.Folder = "etc" },
		"a specifier":   func(u *JumpUnit) { u.Folder = "/etc/%i" },
		"a space":       func(u *JumpUnit) { u.State = "/srv/a b" },
		"a line":        func(u *JumpUnit) { u.Binary = "/bin/x\nUser=root" },
		"a variable":    func(u *JumpUnit) { u.Binary = "/bin/$x" },
		"in a home":     func(u *JumpUnit) { u.Folder = "/home/ann/jump" },
		"in /tmp":       func(u *JumpUnit) { u.State = "/tmp" },
		"a user":        func(u *JumpUnit) { u.User = "a b" },
		"no time":       func(u *JumpUnit) { u.StopSeconds = 0 },
		"a comment":     func(u *JumpUnit) { u.Source = "/a\n[Service]" },
		"a name's line": func(u *JumpUnit) { u.Name = "a\nb" },
	} {
		u := jumpUnit()
		change(&u)
		if text, err := u.Render(); err == nil {
			t.Errorf("%s: became\n%s", name, text)
		}
	}
}

// checkUnit holds that every line is a section, a comment or a setting, each in
// its section, and asks systemd where there is one.
func checkUnit(t *testing.T, text string) {
	t.Helper()
	sections := map[string]bool{"[Unit]": true, "[Service]": true, "[Install]": true}
	section := ""
	for _, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		switch key, _, ok := strings.Cut(line, "="); {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			if !sections[line] {
				t.Errorf("section %q is unknown or twice there", line)
			}
			section, sections[line] = line, false
		case !ok || section == "" || strings.Trim(key, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") != "":
			t.Errorf("%q is not a setting", line)
		}
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Error("CI checks units by systemd-analyze, and there is none")
		}
		return
	}
	// It wants the programs to exist.
	text = strings.ReplaceAll(text, "ExecStart=/usr/local/bin/fleetjump", "ExecStart=/bin/true")
	unit := filepath.Join(t.TempDir(), "fleetjump.service")
	if err := os.WriteFile(unit, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(analyze, "verify", "--man=no", unit).CombinedOutput()
	if err != nil || strings.Contains(string(out), unit+":") {
		t.Errorf("systemd-analyze: %v\n%s", err, out)
	}
}
