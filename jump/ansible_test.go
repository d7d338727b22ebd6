package jump_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/inventory/ansible"
	"github.com/fleetca/fleetca/testenv"
	"github.com/fleetca/fleetca/testenv/fleettest"
)

// namespaced starts hosts with systems of their own, where the login needs sudo
// with a password.
func namespaced(w *world) {
	t, ctx := w.t, context.Background()
	w.fleet = fleettest.StartNamespaced(t, testenv.Config{Names: []string{"web[1:2]"}, Host: testenv.HostConfig{
		KeyTypes: []string{testenv.Ed25519}, System: testenv.System{Login: testenv.Operator},
		Top: "TrustedUserCAKeys /etc/ssh/user_ca.pub\nHostCertificate /etc/ssh/host-cert.pub\nMaxStartups 100\n",
	}})
	for _, h := range w.fleet.Hosts() {
		w.login = h.Login()
		cert := w.hostCA.sign(t, h.PublicKeys()[0], ssh.HostCert, h.Name(), []string{h.Name()}, nil)
		for name, key := range map[string]ssh.PublicKey{"user_ca.pub": w.userCA.PublicKey(), "host-cert.pub": cert} {
			if err := os.WriteFile(h.File("/etc/ssh/"+name), ssh.MarshalAuthorizedKey(key), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := h.Reload(ctx); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(w.dir, "hosts.yaml")
	if err := w.fleet.Inventory(path, testenv.InventoryConfig{}); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.inventory, err = ansible.Load(ctx, path); err != nil {
		t.Fatal(err)
	}
}

// playbook runs the playbook by one way, and returns what it said and what
// it left.
func (s *stand) playbook(t *testing.T, name, road, settings string, firstTime bool) outcome {
	t.Helper()
	if firstTime {
		s.fresh(t)
		s.clearHosts(t)
		s.prepareAnsible(t)
	}
	out := s.ansible(road, settings, fmt.Sprintf("ansible-playbook -i hosts.ini %s -e first_time=%v", name, firstTime))
	s.persisted(t, road)
	h := s.fleet.Host("web1")
	text, err := h.Exec(context.Background(), "stat", "-c", "%a %U %s", "/etc/written-by-ansible")
	out.files = fmt.Sprintf("%s%sas root: %s %v", snapshot(t, s.here(), false), snapshot(t, h.File(h.Home()+"/work"), false), text, err)
	return out
}

func (s *stand) clearHosts(t *testing.T) {
	t.Helper()
	h := s.fleet.Host("web1")
	for _, argv := range [][]string{
		{"rm", "-rf", h.Home() + "/work", "/etc/written-by-ansible"},
		{"install", "-d", "-m", "700", "-o", h.Login(), h.Home() + "/work"},
	} {
		if _, err := h.Exec(context.Background(), argv...); err != nil {
			t.Fatal(err)
		}
	}
}

// clock is what Ansible says of when a command ran.
var clock = regexp.MustCompile(`"(delta|start|end)": "[^"]*"`)

// ansible runs a command of Ansible's with settings of its environment.
func (s *stand) ansible(road, settings, command string) outcome {
	flags := "-A -F " + s.config(road)
	if road == "subsystem" {
		flags = "-F " + s.config(road)
	}
	cmd := s.p.command("bash", "-c", fmt.Sprintf("env %s %s", settings, command))
	cmd.Dir = s.here()
	cmd.Env = append(cmd.Env, "ANSIBLE_NOCOLOR=1", "ANSIBLE_SSH_COMMON_ARGS="+flags, "ANSIBLE_RETRIES=0", "ANSIBLE_DEPRECATION_WARNINGS=0")
	out := outcome{result: s.p.run(cmd)}
	out.stdout = clock.ReplaceAllString(out.stdout, `"$1": ""`)
	return out
}

// prepareAnsible writes the playbook and its inventory. Of twenty names each
// leads to one of the hosts.
func (s *stand) prepareAnsible(t *testing.T) {
	t.Helper()
	put := func(name, content string) {
		if err := os.WriteFile(filepath.Join(s.here(), name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"site.yml", "files.yml"} {
		text, err := os.ReadFile("testdata/ansible/" + name)
		if err != nil {
			t.Fatal(err)
		}
		put(name, string(text))
	}
	// Ansible can't do with a name that isn't UTF-8.
	if err := os.Rename(filepath.Join(s.here(), "tree/sub folder/\xe4 b\xffc"), filepath.Join(s.here(), "tree/sub folder/\u00e4 b")); err != nil {
		t.Fatal(err)
	}
	put("motd.j2", "this is {{ inventory_hostname }}\n")
	put("hosts.ini", "web1\n[all:vars]\nansible_python_interpreter=/usr/bin/python3\nansible_become_password=\""+testenv.OperatorPassword+"\"\n")
	var many strings.Builder
	for i := range 20 {
		fmt.Fprintf(&many, "n%d ansible_host=web%d ansible_python_interpreter=/usr/bin/python3\n", i, i%2+1)
	}
	put("many.ini", many.String())
}

// TestAnsible: Debian's Ansible comes to the same through the jump host as
// directly, with all its ways of copying files.
func TestAnsible(t *testing.T) {
	s := newStand(t, worldConfig{fleet: namespaced})
	t.Run("signals", s.signals) // it needs such hosts
	m := matrix{versions: map[string]string{"ansible-core": version(t, `core ([0-9.]+)`, "ansible", "--version")}}
	site := s.playbook(t, "site.yml", direct, "", true)
	if site.code != 0 || !strings.Contains(site.stdout, "changed=8 ") || !strings.Contains(site.stdout, `"msg": "root"`) {
		t.Fatalf("directly: %+v", site)
	}
	again := s.playbook(t, "site.yml", direct, "", false)
	if again.code != 0 || !strings.Contains(again.stdout, "changed=0 ") {
		t.Fatalf("directly, for the second time: %+v", again)
	}
	files := s.playbook(t, "files.yml", direct, "", true)
	if files.code != 0 || !strings.Contains(files.stdout, `"msg": "7 in \nroot"`) {
		t.Fatalf("directly: %+v", files)
	}
	for _, c := range []struct{ what, env, recorded string }{
		{"ping, setup, file, copy, template, fetch, synchronize, script, command, become with a password, by sftp and ControlPersist (the defaults)", "", "`command`, `sftp`, `terminal`"},
		{"copy, fetch, command, become: `scp_if_ssh = True`", "ANSIBLE_SCP_IF_SSH=True", "`command`, `sftp`, `terminal`"},
		{"the same with `scp_extra_args = -O`", "ANSIBLE_SCP_IF_SSH=True ANSIBLE_SCP_EXTRA_ARGS=-O", "`command`, `scp`, `terminal`"},
		{"the same with `pipelining = True`", "ANSIBLE_PIPELINING=True", "`command`, `sftp`"},
	} {
		r := row{client: "ansible-core", what: c.what, recorded: c.recorded, ways: map[string]string{}}
		for _, road := range roads {
			t.Run(c.what+" by "+road, func(t *testing.T) {
				if c.env == "" {
					same(t, s.playbook(t, "site.yml", road, c.env, true), site)
					if road == "subsystem" {
						same(t, s.playbook(t, "site.yml", road, c.env, false), again)
					}
				} else {
					same(t, s.playbook(t, "files.yml", road, c.env, true), files)
				}
				if k := kinds(s.ended(t)); k != c.recorded {
					t.Errorf("recorded as %s, want %s", k, c.recorded)
				}
				r.ways[road] = "yes"
			})
		}
		m.rows = append(m.rows, r)
	}
	m.rows = append(m.rows, s.forks(t))
	for _, r := range m.rows {
		if len(r.ways) < len(roads) {
			return // only some were asked for
		}
	}
	m.check(t, "ansible")
}

// forks has twenty hosts asked at once, each on a connection of its own.
func (s *stand) forks(t *testing.T) row {
	r := row{client: "ansible-core", what: "`forks = 20`: raw on 20 connections at once, without ControlPersist", recorded: "`terminal`", ways: map[string]string{}}
	for _, road := range roads {
		t.Run("forks by "+road, func(t *testing.T) {
			s.fresh(t)
			s.prepareAnsible(t)
			out := s.ansible(road, "ANSIBLE_SSH_ARGS=-oControlMaster=no", "ansible -i many.ini all -f 20 -m raw -a 'echo po$((1))ng'")
			if out.code != 0 || strings.Count(out.stdout, "po1ng\r\n") != 20 {
				t.Errorf("got %+v", out)
			}
			if all := s.ended(t); len(all) != 20 || kinds(all) != r.recorded {
				t.Errorf("%d sessions, %s", len(all), kinds(all))
			}
			r.ways[road] = "yes"
		})
	}
	return r
}

func same(t *testing.T, got, want outcome) {
	t.Helper()
	if got != want {
		t.Errorf("got %d\n%s\n%s\nwant %d\n%s\n%s", got.code, got.stdout, got.stderr, want.code, want.stdout, want.stderr)
		if got.files != want.files {
			t.Errorf("got files\n%s\nwant\n%s", got.files, want.files)
		}
	}
}

// persisted ends the connections that Ansible has left open.
func (s *stand) persisted(t *testing.T, road string) {
	t.Helper()
	sockets, err := filepath.Glob(filepath.Join(s.p.home, ".ansible", "cp", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, socket := range sockets {
		_ = s.p.run(s.p.command("ssh", "-F", s.config(road), "-S", socket, "-O", "exit", "web1"))
	}
}
