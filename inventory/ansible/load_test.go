package ansible

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleetca/fleetca/inventory"
)

func write(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRefused lists what is refused, and the part of the error that helps.
func TestRefused(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"a.yaml", "all:\n  hosts:\n    web1: [x]\n", `a.yaml:3: host "web1": its variables must be a mapping, not a list`},
		{"b.yaml", "all:\n  hosts:\n    - web1\n", `b.yaml:2: group "all": hosts must be a mapping, not a list`},
		{"c.yaml", "all:\n  hosts:\n    5:\n", "c.yaml:3: group \"all\": the host name 5 must be a string"},
		{"d.yaml", "all:\n  hosts:\n    web[1:3:\n", "d.yaml:3: "},
		{"e.yaml", "all:\n  hosts: {a: b\n", "e.yaml:"},
		{"f.yaml", "plugin: aws_ec2\n", `f.yaml:1: this configures Ansible's inventory plugin "aws_ec2"`},
		{"g.yaml", "a: {children: {b: {children: {a: }}}}\n", "makes a loop"},
		{"h.yaml", "a: {children: {a: }}\n", "can't be a child of itself"},
		{"i.yaml", "5: {hosts: {a: }}\n", "the group name 5 must be a string"},
		{"l.yaml", "a: " + strings.Repeat("[", 200) + strings.Repeat("]", 200), "nested deeper than"},
		{"m.yaml", "a: {hosts: {'web[0:999999]': }}\n", "more than 100000 hosts"},
		{"n.yaml", "a: {hosts: {'w[0:999][0:999]': }}\n", "more than 100000 hosts"},
		{"o.yaml", "a: {hosts: {\"a\\nb\": }}\n", "control character"},
		{"p.yaml", "- a\n- b\n", "must be a mapping of groups, not a list"},
		{"q.yaml", "a: {vars: {ansible_group_priority: x}}\n", "ansible_group_priority of group \"a\" is not a whole number"},
		{"r.yaml", "a: {children: {b: [c]}}\n", `its child "b" is neither a group nor a host`},
		{"s.yaml", "$ANSIBLE_VAULT;1.1;AES256\n6162\n", "encrypted with ansible-vault"},
		{"t.yaml", "a: {hosts: {b: &x {c: *x}}}\n", "t.yaml:1: "},
		{"u.yaml", "a: 1\n---\nb: 2\n", "more than one YAML document"},
		{"v.yaml", "a: \xff\n", "not UTF-8"},
		{"a.ini", "web1 x\n", `a.ini:1: host "web1": "x" is not of the form key=value`},
		{"b.ini", "\n[web:children]\nnowhere\n", `b.ini:3: [web:children] names the group "nowhere", which is not declared`},
		{"c.ini", "[web:vars]\na=1\n", "c.ini:1: [web:vars] is for a group that is not declared"},
		{"d.ini", "[web:hosts2]\n", "neither hosts, children nor vars"},
		{"e.ini", "[web group]\n", "is not a section"},
		{"f.ini", "web1 a='x\n", "f.ini:1: "},
		{"g.ini", "[web]\n[web:vars]\nfoo\n", "not of the form key=value"},
		{"h.ini", "all:\n  hosts:\n", "is this a YAML file?"},
		{"i.ini", "---\n", "is this a YAML file?"},
		{"j.ini", "a x=\"{[]: 1}\"\n", `j.ini:1: host "a": variable "x": a list can't be a key`},
		{"k.ini", "web1 a=\xff\n", "line 1: not UTF-8"},
		{"l.ini", "web[3:1:0]\n", `l.ini:1: host range "web[3:1:0]"`},
		{"hosts", "all:\n  hosts: {a: b\n", "reading YAML"},
		{"hosts2", "web1 x\n", "not of the form key=value"},
		{"x.toml", "[all.hosts]\n", "TOML"},
		{"x.json", `{"a": {"hosts": 5}, "_meta": {}}`, "x.json:1: group \"a\": its hosts must be a list, not a number"},
		{"y.json", "{\"a\": [\"b\"],\n\"_meta\": {\"hostvars\": {\"b\": null}}}", `y.json:2: host "b": its variables must be a mapping`},
		{"z.json", `{"a": [1]}`, "the name of a host must be a string, not a number"},
		{"shebang", "#!/bin/sh\n", "is not executable"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Load(t.Context(), write(t, test.name, test.text, 0o600))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
}

// TestBombs reads small files that stand for billions of values.
func TestBombs(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'j'; c++ {
		bomb += fmt.Sprintf("%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n", c, c, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1)
	}
	mergeBomb := "a: &a {x: 1}\n"
	for c := 'b'; c <= 'z'; c++ {
		mergeBomb += fmt.Sprintf("%c: &%c {<<: [*%c, *%c]}\n", c, c, c-1, c-1)
	}
	for _, text := range []string{bomb, mergeBomb} {
		_, err := parseYAMLWithin(20_000, "bomb", []byte(text), nil)
		if err == nil || !strings.Contains(err.Error(), "more than 20000 values, aliases followed") {
			t.Errorf("got %v", err)
		}
	}
}

func TestSources(t *testing.T) {
	if _, err := Load(t.Context()); err == nil {
		t.Error("no source is no error")
	}
	if _, err := Load(t.Context(), filepath.Join(t.TempDir(), "nothing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := Load(t.Context(), "web[1:3],"); err == nil || !strings.Contains(err.Error(), "ranges work in files only") {
		t.Errorf("a range in a list: %v", err)
	}
	if _, err := Load(t.Context(), "/no/such,file"); err == nil || !strings.Contains(err.Error(), "there is no file") {
		t.Errorf("a path with a comma: %v", err)
	}
	inv, err := Load(t.Context(), "web1, web2:2222,")
	if err != nil {
		t.Fatal(err)
	}
	h, ok := inv.Host("web2")
	if !ok || h.Vars["ansible_port"].Value != int64(2222) {
		t.Errorf("a list of hosts: %v", h)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Load(ctx, "testdata/basic.yaml"); !errors.Is(err, context.Canceled) {
		t.Errorf("after its context: %v", err)
	}
	if inv, err := Load(t.Context(), write(t, "empty.yaml", "---\n{}\n", 0o600)); err != nil || len(inv.Hosts()) != 0 {
		t.Errorf("an empty inventory: %v", err)
	}
	// Every file of some file systems is marked executable.
	if _, err := Load(t.Context(), write(t, "marked.yaml", "all: {hosts: {a: }}\n", 0o755)); err != nil {
		t.Errorf("an executable YAML file: %v", err)
	}
}

func TestPositions(t *testing.T) {
	inv, err := Load(t.Context(), "testdata/vars/hosts.yaml", "testdata/hosts.ini", "testdata/folder")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ host, variable, want string }{
		{"web1", "k", "testdata/vars/hosts.yaml:7"},
		{"web1", "h", "testdata/vars/host_vars/web1:1"},
		{"web1", "b", "testdata/vars/group_vars/web/b.json:1"},
		{"web1", "d", "testdata/vars/group_vars/web/b.json:1"},
		{"db1", "ansible_port", "testdata/hosts.ini:19"},
		{"a2", "from", "testdata/folder/03-third.sh --list:1"},
		{"a4", "hv", "testdata/folder/host_vars/a4.yml:1"},
		{"port.example.com", "ansible_port", "testdata/hosts.ini:4"},
		{"port.example.com", "nothing", "inventory"},
	} {
		h, ok := inv.Host(test.host)
		if !ok {
			t.Fatalf("no host %q", test.host)
		}
		if got := h.Position(test.variable).String(); got != test.want {
			t.Errorf("%s of %s: said in %s, want %s", test.variable, test.host, got, test.want)
		}
	}
}

func TestWarnings(t *testing.T) {
	inv, err := Load(t.Context(), write(t, "w.yaml", "a:\n  hostz: {b: }\n  hosts: {c: }\n  hosts: {d: }\n", 0o600))
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(inv.Warnings(), "\n")
	for _, want := range []string{`w.yaml:2: group "a": the key "hostz" is skipped`, `w.yaml:4: the key "hosts" is said twice`} {
		if !strings.Contains(got, want) {
			t.Errorf("no warning %q in %s", want, got)
		}
	}
}

func TestVaultedVariables(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"hosts.yaml":              "web: {hosts: {web1: {ansible_user: !vault 'x'}}}\n",
		"group_vars/web/vault":    "$ANSIBLE_VAULT;1.1;AES256\n6162\n",
		"group_vars/web/main.yml": "x: 1\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	inv, err := Load(t.Context(), filepath.Join(dir, "hosts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	h, _ := inv.Host("web1")
	if h.Vars["x"].Value != int64(1) || !strings.Contains(strings.Join(inv.Warnings(), "\n"), "vault: skipped") {
		t.Errorf("variables %v, warnings %q", h.Vars, inv.Warnings())
	}
	if _, err := h.Settings(); err == nil || !strings.Contains(err.Error(), "hosts.yaml:1: ansible_user of host \"web1\": is encrypted with ansible-vault") {
		t.Errorf("a vaulted user: %v", err)
	}
}

func TestPrograms(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"fails", "#!/bin/sh\necho no such cloud >&2\nexit 3\n", `exit status 3: "no such cloud"`},
		{"endless", "#!/bin/sh\nexec yes\n", "printed more than"},
		{"slow", "#!/bin/sh\nsleep 600 &\nwait\n", "took longer than"},
		{"text", "#!/bin/sh\necho hello\n", "reading JSON"},
		{"list", "#!/bin/sh\necho '[]'\n", "printed a list"},
		{"no interpreter", "#!/no/such/program\n", "no such file"},
		{"bad host", "#!/bin/sh\n[ $1 = --list ] && echo '{\"a\": [\"b\"]}' || echo '[1]'\n", "printed a list where a mapping of variables"},
		{"option", "#!/bin/sh\n[ $1 = --list ] && echo '{\"a\": [\"--b\"]}'\n", "would pass for an option"},
	} {
		t.Run(test.name, func(t *testing.T) {
			loader := Loader{}
			if test.name == "slow" {
				loader.ScriptTimeout = 50 * time.Millisecond
			}
			_, err := loader.Load(t.Context(), write(t, "program", test.text, 0o700))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
}

// TestCommands runs Ansible's own programs once each, so that the oracle's
// shortcut through their insides is proven too.
func TestCommands(t *testing.T) {
	source := absolute(t, []string{"testdata/basic.yaml"})[0]
	out, err := ansibleCommand(t, ansibleProgram(t, "ansible-inventory"), "-i", source, "--list", "--export").Output()
	if err != nil {
		t.Fatal(err)
	}
	inv, err := Load(t.Context(), "testdata/basic.yaml")
	if err != nil {
		t.Fatal(err)
	}
	compare(t, "listing", recode(t, Listing(inv, nil)), decode(t, out))

	out, err = ansibleCommand(t, ansibleProgram(t, "ansible"), "all", "-i", source, "--limit", "web:&prod:!canary", "--list-hosts").Output()
	if err != nil {
		t.Fatal(err)
	}
	hosts, err := inv.Select(inventory.Selection{Patterns: []string{"web:&prod:!canary"}})
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("  hosts (%d):\n", len(hosts))
	for _, h := range hosts {
		want += "    " + h.Name + "\n"
	}
	if string(out) != want {
		t.Errorf("ansible lists\n%s, we\n%s", out, want)
	}
}

// TestExample holds that the example shows every variable that fleetca uses,
// and that each host in it is usable. Ansible reads it in TestOracle.
func TestExample(t *testing.T) {
	const example = "../../inventory.example.yaml"
	inv, err := Load(t.Context(), example)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range inv.Hosts() {
		if _, err := h.Settings(); err != nil {
			t.Error(err)
		}
	}
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	manual, err := os.ReadFile("../../docs/inventory.md")
	if err != nil {
		t.Fatal(err)
	}
	older := []string{"ansible_ssh_host", "ansible_ssh_port", "ansible_ssh_user", "ansible_private_key_file", "ansible_sudo_user", "ansible_ssh_args", "ansible_ssh_extra_args", "ansible_connection"}
	for _, name := range inventory.SettingVariables() {
		if !strings.Contains(string(text), name) && !slices.Contains(older, name) {
			t.Errorf("the example doesn't show %s", name)
		}
		if !strings.Contains(string(manual), "`"+name+"`") {
			t.Errorf("docs/inventory.md doesn't tell of %s", name)
		}
	}
}
