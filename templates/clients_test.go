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

func sshConfig() SSHConfig {
	return SSHConfig{
		Jump: JumpAddress{Address: "jump.example.com", Port: 3023}, KnownHosts: "/srv/my keys/known_hosts",
		Blocks: []SSHBlock{{Patterns: []string{"web1", "web2"}, Port: 22}, {Patterns: []string{"*.example.com", "!jump.example.com"}, Port: 2222}},
	}
}

// settings is what ssh reads of the configuration for a host.
func settings(t *testing.T, config, host string) map[string]string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("ssh", "-F", file, "-G", host).Output()
	if err != nil {
		t.Fatalf("ssh -G %s: %v for\n%s", host, err, config)
	}
	all := map[string]string{}
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		all[key] = value
	}
	return all
}

// TestSSHConfig holds that values reach ssh as they were, for the hosts that
// they are for.
func TestSSHConfig(t *testing.T) {
	c := sshConfig()
	c.Login, c.IdentityFile, c.CertificateFile = "ann", "/srv/my keys/id", "/srv/my keys/id-cert.pub"
	c.ControlPath, c.ControlPersist = "/srv/my keys/%C", "1h30m"
	text, err := c.Render()
	if err != nil {
		t.Fatal(err)
	}
	common := map[string]string{
		"stricthostkeychecking": "true", "identitiesonly": "yes", "identityfile": c.IdentityFile, "certificatefile": c.CertificateFile,
	}
	fleet := map[string]string{
		"proxycommand": "ssh -A -p 3023 %r@jump.example.com -s proxy:%h:%p", "user": "ann", "controlmaster": "auto", "controlpersist": "5400",
	}
	for host, want := range map[string]map[string]string{
		"web1":             {"port": "22"},
		"web2":             {"port": "22"},
		"db.example.com":   {"port": "2222", "hostname": "db.example.com"},
		"jump.example.com": {"port": "3023", "proxycommand": "", "controlmaster": "false"},
		"elsewhere":        {"port": "22", "proxycommand": "", "identitiesonly": "no", "stricthostkeychecking": "ask"},
	} {
		got := settings(t, text, host)
		for _, more := range []map[string]string{fleet, common} {
			for key, value := range more {
				if _, set := want[key]; !set && host != "elsewhere" && (host != "jump.example.com" || key != "user" && key != "controlpersist") {
					want[key] = value
				}
			}
		}
		for key, value := range want {
			if got[key] != value {
				t.Errorf("%s: %s is %q, want %q", host, key, got[key], value)
			}
		}
		if ours := strings.Contains(got["userknownhostsfile"], c.KnownHosts); ours != (host != "elsewhere") {
			t.Errorf("%s: known hosts are %q", host, got["userknownhostsfile"])
		}
	}
	for line := range strings.Lines(text) {
		if len(line) > 1000 {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
}

func TestSSHConfigRefuses(t *testing.T) {
	for name, change := range map[string]func(*SSHConfig){
		"no hosts":             func(c *SSHConfig) { c.Blocks = nil },
		"no port":              func(c *SSHConfig) { c.Blocks[0].Port = 0 },
		"a pattern":            func(c *SSHConfig) { c.Blocks[0].Patterns[0] = "web*" },
		"everything":           func(c *SSHConfig) { c.Blocks[0].Patterns[0] = "*" },
		"a line":               func(c *SSHConfig) { c.Blocks[0].Patterns[0] = "web1\nProxyCommand id" },
		"an option":            func(c *SSHConfig) { c.Blocks[0].Patterns[0] = "-oProxyCommand=id" },
		"a command":            func(c *SSHConfig) { c.Jump.Address = "jump;id" },
		"jump's option":        func(c *SSHConfig) { c.Jump.Address = "-oProxyCommand=id" },
		"a zone":               func(c *SSHConfig) { c.Jump.Address = "fe80::1%eth0" },
		"jump's port":          func(c *SSHConfig) { c.Jump.Port = 65536 },
		"an alias":             func(c *SSHConfig) { c.Jump.Alias = "a b" },
		"a relative path":      func(c *SSHConfig) { c.KnownHosts = "known_hosts" },
		"no known hosts":       func(c *SSHConfig) { c.KnownHosts = "" },
		"a path with a line":   func(c *SSHConfig) { c.KnownHosts = "/a\n  ProxyCommand id" },
		"a path with a quote":  func(c *SSHConfig) { c.IdentityFile = `/a" "/b` },
		"a path that expands":  func(c *SSHConfig) { c.CertificateFile = "/%d/x" },
		"a login":              func(c *SSHConfig) { c.Login = "$(id)" },
		"a login's option":     func(c *SSHConfig) { c.Login = "-x" },
		"control without time": func(c *SSHConfig) { c.ControlPath = "/x" },
		"a time":               func(c *SSHConfig) { c.ControlPath, c.ControlPersist = "/x", "1h\n  ProxyCommand id" },
	} {
		c := sshConfig()
		change(&c)
		if text, err := c.Render(); err == nil {
			t.Errorf("%s: became\n%s", name, text)
		}
	}
}

func TestSSHKnownHosts(t *testing.T) {
	k := SSHKnownHosts{
		Jump: JumpAddress{Address: "2001:db8::1", Port: 22}, HostCAs: []string{"ssh-ed25519 A", "ssh-ed25519 B"}, JumpCAs: []string{"ssh-ed25519 C"},
		Blocks: sshConfig().Blocks,
	}
	text, err := k.Render()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
	}
	if want := []string{
		"@cert-authority 2001:db8::1 ssh-ed25519 A",
		"@cert-authority 2001:db8::1 ssh-ed25519 B",
		"@cert-authority web1,web2 ssh-ed25519 C",
		"@cert-authority *.example.com,[*.example.com]:2222,!jump.example.com,![jump.example.com]:2222 ssh-ed25519 C",
	}; !slices.Equal(lines, want) {
		t.Errorf("got\n%s", text)
	}
	k.Jump.Alias = "jump"
	if text, err = k.Render(); err != nil || !strings.Contains(text, "@cert-authority jump ssh-ed25519 A\n") {
		t.Errorf("with an alias: %v\n%s", err, text)
	}
	for name, change := range map[string]func(*SSHKnownHosts){
		"no host CA": func(k *SSHKnownHosts) { k.HostCAs = nil },
		"no jump CA": func(k *SSHKnownHosts) { k.JumpCAs = nil },
		"no hosts":   func(k *SSHKnownHosts) { k.Blocks = nil },
		"a line":     func(k *SSHKnownHosts) { k.JumpCAs = []string{"ssh-ed25519 C\n@cert-authority * D"} },
	} {
		bad := k
		change(&bad)
		if text, err := bad.Render(); err == nil {
			t.Errorf("%s: became\n%s", name, text)
		}
	}
}

func TestChunks(t *testing.T) {
	for _, c := range []struct {
		words []string
		most  int
		want  string
	}{
		{nil, 5, ""},
		{[]string{"ab", "cd", "ef"}, 5, "ab cd|ef"},
		{[]string{"abcdefgh", "c"}, 5, "abcdefgh|c"},
		{[]string{"a", "b", "c"}, 5, "a b c"},
	} {
		var got []string
		for _, chunk := range Chunks(c.words, c.most) {
			got = append(got, strings.Join(chunk, " "))
		}
		if strings.Join(got, "|") != c.want {
			t.Errorf("%q in %d became %q", c.words, c.most, got)
		}
	}
}

func TestAnsibleConfig(t *testing.T) {
	c := AnsibleConfig{Jump: JumpAddress{Address: "10.1.1.1", Port: 3023, Alias: "jump"}, KnownHosts: "~/.ssh/known"}
	text, err := c.RenderVars()
	if err != nil {
		t.Fatal(err)
	}
	var vars map[string]string
	if err := yaml.Unmarshal([]byte(text), &vars); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	want := `-o HostKeyAlias={{ inventory_hostname | lower }} -o UserKnownHostsFile=~/.ssh/known -o StrictHostKeyChecking=yes ` +
		`-o ProxyCommand="ssh -A -p 3023 -o HostKeyAlias=jump -o UserKnownHostsFile=~/.ssh/known -o StrictHostKeyChecking=yes ` +
		`%r@10.1.1.1 -s proxy:{{ inventory_hostname }}:%p"`
	if len(vars) != 1 || vars["ansible_ssh_common_args"] != want {
		t.Errorf("got %q", vars)
	}
	for _, scp := range []bool{false, true} {
		c.SCP = scp
		text, err := c.Render()
		if err != nil || strings.Contains(text, "\nscp_if_ssh = True\n") != scp || !strings.HasPrefix(text, ClientMark) {
			t.Errorf("scp %t: %v\n%s", scp, err, text)
		}
	}
	for name, change := range map[string]func(*AnsibleConfig){
		"jump":       func(c *AnsibleConfig) { c.Jump.Address = `a" -o x="` },
		"Jinja":      func(c *AnsibleConfig) { c.KnownHosts = "/{{ x }}" },
		"a quote":    func(c *AnsibleConfig) { c.KnownHosts = `/a"b` },
		"a space":    func(c *AnsibleConfig) { c.KnownHosts = "/a b" },
		"a relative": func(c *AnsibleConfig) { c.KnownHosts = "known_hosts" },
	} {
		bad := c
		change(&bad)
		for _, render := range []func() (string, error){bad.Render, bad.RenderVars} {
			if text, err := render(); err == nil {
				t.Errorf("%s: became\n%s", name, text)
			}
		}
	}
}
