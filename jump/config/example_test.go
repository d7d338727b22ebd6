package config

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/fleetca/fleetca/jump/access"
)

// exampleFolder is a folder with what jump.example.yaml names.
func exampleFolder(t *testing.T) *folder {
	f := newFolder(t)
	f.server = f.key(t, "ssh_host_ed25519_key")
	f.write(t, "ssh_host_ed25519_key-cert.pub", certLine(f.certificate(t, nil)))
	f.write(t, "known_hosts", "")
	inv, err := os.ReadFile("../../inventory.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, "inventory.yaml", string(inv))
	return f
}

func example(t *testing.T) string {
	data, err := os.ReadFile("../../jump.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestExample(t *testing.T) {
	c, warnings := exampleFolder(t).good(t, example(t))
	if len(warnings) > 0 {
		t.Errorf("warnings: %q", warnings)
	}
	// What its comments promise.
	cert := access.Certificate{Principals: []string{"root", "web"}}
	for _, q := range []struct {
		identity, login, host string
		action                access.Action
		want                  access.Code
	}{
		{"ann@example.com", "web", "web01.example.com", access.Shell, access.CodeAllowed},
		{"bob@web.example.com", "root", "web01.example.com", access.SCP, access.CodeAllowed},
		{"ann@example.com", "web", "web03.example.com", access.Shell, access.CodeHost},
		{"ann@example.com", "web", "web01.example.com", access.X11, access.CodeAction},
		{"eva@example.com", "web", "web01.example.com", access.Shell, access.CodeHost},
		{"zoe", "web", "web01.example.com", access.Shell, access.CodeNoRole},
	} {
		d := c.Rules.Decide(access.Request{Identity: q.identity, Certificate: cert, Login: q.login, Host: q.host, Action: q.action})
		if d.Code != q.want {
			t.Errorf("%+v: %+v", q, d)
		}
	}
	deploy := access.Certificate{Principals: []string{"deploy"}}
	d := c.Rules.Decide(access.Request{Identity: "ci", Certificate: deploy, Login: "app", Host: "db1.example.com", Action: access.Exec})
	if !d.Allowed || d.Recording != access.BestEffort {
		t.Errorf("deploy: %+v", d)
	}
	if r := c.Rules.Reading("eva@example.com", nil); r.Scope != access.All || !r.Audit || r.Remove {
		t.Errorf("auditor: %+v", r)
	}
}

var commented = regexp.MustCompile(`(?m)^( *)#([a-z_]+:.*|  [a-z_]+: [0-9]+)$`)

// TestExampleDefaults holds that the example's commented lines show the
// defaults, and that it has every key.
func TestExampleDefaults(t *testing.T) {
	f := exampleFolder(t)
	text := example(t)
	was, _ := f.good(t, text)
	for _, key := range topKeys {
		if !regexp.MustCompile(`(?m)^#?` + key + `:`).MatchString(text) {
			t.Errorf("the example lacks %s", key)
		}
	}
	// Those that aren't defaults stay as they are.
	for _, line := range []string{"#revoked_keys: revoked.krl", "    #remove_recordings: true", "#known_hosts: [known_hosts]"} {
		if !strings.Contains(text, line) {
			t.Errorf("the example lacks %q", line)
		}
		text = strings.Replace(text, line, "", 1)
	}
	from, to, ok := strings.Cut(text, "#hosts:\n")
	if !ok {
		t.Fatal("the example lacks hosts")
	}
	text = from + strings.TrimPrefix(strings.TrimPrefix(to, "#  - hosts: [lab]\n"), "#    require_host_certificate: false\n")
	got, _ := f.good(t, commented.ReplaceAllString(text, "$1$2"))
	if got.Name != was.Name || got.Cluster != was.Cluster || !reflect.DeepEqual(got.Listen, was.Listen) || got.Store != was.Store ||
		got.MaxStream != was.MaxStream || got.Limits != was.Limits || !reflect.DeepEqual(got.AcceptEnv, was.AcceptEnv) ||
		got.DialTimeout != was.DialTimeout || got.LoginTimeout != was.LoginTimeout ||
		got.DrainTimeout != was.DrainTimeout || got.KeepAlive != was.KeepAlive {
		t.Errorf("what the example shows as defaults is not what they are:\n%+v\n%+v", got, was)
	}
}
