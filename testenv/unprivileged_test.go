//go:build linux

package testenv_test

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/fleetca/fleetca/testenv"
	"github.com/fleetca/fleetca/testenv/fleettest"
)

// The unprivileged part of these tests, run by someone who isn't root: the
// account of a namespaced host.
func TestUnprivileged(t *testing.T) {
	t.Parallel()
	f := fleettest.StartNamespaced(t, testenv.Config{Host: testenv.HostConfig{System: testenv.System{DiskMiB: 512}}})
	h := f.Hosts()[0]
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	copied, err := os.OpenFile(h.File("/home/admin/tests"), os.O_WRONLY|os.O_CREATE, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(copied, self)
	if err := copied.Close(); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	c, err := h.Command(t.Context(), "setpriv", "--reuid", testenv.Admin, "--regid", testenv.Admin, "--init-groups", "--no-new-privs",
		"/home/admin/tests", "-test.v", "-test.run",
		"^(TestLogin|TestNothingIsIgnoredInSessions|TestReload|TestStopAndKill|TestSFTP|TestRefusedConfigs|TestHundred|TestNothingLeft)$/loopback")
	if err != nil {
		t.Fatal(err)
	}
	c.Env = []string{"PATH=/usr/bin:/bin", "HOME=/home/admin", "CI=true"}
	text, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, test := range []string{"TestLogin", "TestReload", "TestStopAndKill", "TestSFTP", "TestHundred", "TestNothingLeft"} {
		if !bytes.Contains(text, []byte("--- PASS: "+test+" ")) {
			t.Errorf("%s didn't pass as someone else than root:\n%s", test, text)
		}
	}
	if left := must(t, h, "ls", "/tmp"); left != "" {
		t.Errorf("left in /tmp: %s", left)
	}
}

func TestInventory(t *testing.T) {
	t.Parallel()
	f := fleettest.Start(t, testenv.Config{Names: []string{"web[01:03]", "db"}})
	path := filepath.Join(t.TempDir(), "hosts.yaml")
	if err := f.Inventory(path, testenv.InventoryConfig{
		Vars: map[string]any{"ansible_python_interpreter": "/usr/bin/python3", "note": "a: \"b\" # c"},
		HostVars: func(h *testenv.Host) map[string]any {
			return map[string]any{"fleetca_principals": []string{h.Name() + ".example.com"}, "fleetca_labels": map[string]string{"env": "prod"}}
		},
	}); err != nil {
		t.Fatal(err)
	}
	text := ansible(t, "ansible-inventory", "-i", path, "--list")
	var list struct {
		Meta struct {
			HostVars map[string]map[string]any `json:"hostvars"`
		} `json:"_meta"`
		Web struct{ Hosts []string }
	}
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if strings.Join(list.Web.Hosts, " ") != "web01 web02 web03" {
		t.Errorf("group web has %v", list.Web.Hosts)
	}
	for _, h := range f.Hosts() {
		vars := list.Meta.HostVars[h.Name()]
		address := vars["ansible_host"].(string) + ":" + strconv.Itoa(int(vars["ansible_port"].(float64)))
		if address != h.Addr() || vars["ansible_user"] != h.Login() || vars["fleetca_sshd_config"] != h.ConfigPath() ||
			vars["ansible_ssh_private_key_file"] != f.ClientKey() || vars["note"] != "a: \"b\" # c" ||
			vars["fleetca_principals"].([]any)[0] != h.Name()+".example.com" {
			t.Errorf("%s has the variables %v", h.Name(), vars)
		}
	}
	known := filepath.Join(t.TempDir(), "known_hosts")
	if err := f.KnownHosts(known); err != nil {
		t.Fatal(err)
	}
	text = ansible(t, "ansible", "-i", path, "db", "-m", "ping", "--ssh-common-args=-o UserKnownHostsFile="+known)
	if !bytes.Contains(text, []byte(`"ping": "pong"`)) {
		t.Errorf("ansible -m ping: %s", text)
	}
}

func TestNamespacedInventory(t *testing.T) {
	t.Parallel()
	f := fleettest.StartNamespaced(t, testenv.Config{})
	path := filepath.Join(t.TempDir(), "hosts.yaml")
	if err := f.Inventory(path, testenv.InventoryConfig{HostVars: func(*testenv.Host) map[string]any {
		return map[string]any{"ansible_become": true, "ansible_user": nil}
	}}); err != nil {
		t.Fatal(err)
	}
	var vars map[string]any
	if err := json.Unmarshal(ansible(t, "ansible-inventory", "-i", path, "--host", "host1"), &vars); err != nil {
		t.Fatal(err)
	}
	// What has its default value isn't said.
	if len(vars) != 3 || vars["ansible_host"].(string)+":22" != f.Hosts()[0].Addr() || vars["ansible_become"] != true {
		t.Errorf("got the variables %v", vars)
	}
}

func ansible(t *testing.T, argv ...string) []byte {
	t.Helper()
	c := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	home := t.TempDir()
	empty := filepath.Join(home, "ansible.cfg")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// No connection may be left open behind the test.
	c.Env = append(os.Environ(), "HOME="+home, "ANSIBLE_LOCAL_TEMP="+home, "ANSIBLE_REMOTE_TEMP="+home, "ANSIBLE_SSH_ARGS=-o ControlMaster=no",
		"ANSIBLE_CONFIG="+empty)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	text, err := c.Output()
	if err != nil {
		t.Fatalf("%q: %v\n%s%s", argv, err, text, stderr.Bytes())
	}
	return text
}
