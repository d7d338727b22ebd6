package config

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/fleetca/fleetca/inventory"
	"github.com/fleetca/fleetca/inventory/ansible"
	"github.com/fleetca/fleetca/jump/access"
)

// FuzzLoad holds that no jump.yaml makes Load panic, that every mistake comes
// as Errors, and that what is returned without one is complete.
func FuzzLoad(f *testing.F) {
	example, err := os.ReadFile("../../jump.example.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		string(example), minimal,
		"roles: &r\n- &a {name: a, permit: *r}\n- *a\n",
		"a: &a [*a]\nroles: *a\n",
		"? {a: b}\n: c\n",
		"hosts: [{hosts: 'web[0:1]', labels: {a: }, require_host_certificate: !!bool no}]",
		"store: {dir: \"\\0\", reserve: 9223372036854775807B}\nname: !!binary aaaa\n",
		"--- !!map\n%", "\xef\xbb\xbfname: x\n",
	} {
		f.Add([]byte(seed))
	}
	dir := newFolder(f)
	fixed, err := ansible.Load(f.Context(), dir.path("hosts.yaml"))
	if err != nil {
		f.Fatal(err)
	}
	// Whatever the file names, no program runs.
	l := Loader{Now: clock, inventory: func(context.Context, ...string) (*inventory.Inventory, error) { return fixed, nil }}
	f.Fuzz(func(t *testing.T, data []byte) {
		dir.write(t, "jump.yaml", string(data))
		c, warnings, err := l.Load(t.Context(), dir.path("jump.yaml"))
		if err != nil {
			if all := Errors(nil); c != nil || !errors.As(err, &all) || len(all) == 0 {
				t.Fatalf("%T with %v: %v", err, c, err)
			}
			if strings.Contains(err.(Errors)[0].Error(), "\n") {
				t.Errorf("a mistake of several lines: %q", err)
			}
			return
		}
		for _, w := range warnings {
			if strings.Contains(w, "\n") {
				t.Errorf("a warning of several lines: %q", w)
			}
		}
		complete(t, c)
	})
}

func complete(t *testing.T, c *Config) {
	if c.Name == "" || c.HostSigner == nil || c.JumpCA == nil || len(c.UserCAs) == 0 || c.Inventory == nil ||
		c.RequireHostCertificate == nil || c.Store.Dir == "" || c.AuditDir == "" || len(c.Listen) == 0 {
		t.Fatalf("incomplete: %+v", c)
	}
	if c.DialTimeout <= 0 || c.LoginTimeout <= 0 || c.DrainTimeout <= 0 || c.KeepAlive <= 0 ||
		c.Limits.Connections <= 0 || c.Limits.PerIdentity <= 0 || c.Limits.Unauthenticated <= 0 ||
		c.Limits.ChannelsPerConnection <= 0 || c.Limits.SessionsPerConnection <= 0 {
		t.Fatalf("without limits: %+v", c)
	}
	if len(c.HostCAs) == 0 && slices.ContainsFunc(c.Inventory.Hosts(), c.RequireHostCertificate) {
		t.Fatal("certificates of no CA are required")
	}
	for _, r := range c.Rules.Roles {
		if r.Name == "" || !r.Deny && (r.Recording == "" || r.Recordings == access.None && !r.ReadAudit && (r.Hosts == nil || len(r.Logins) == 0 || len(r.Permit) == 0)) {
			t.Errorf("incomplete role: %+v", r)
		}
	}
}
