package route

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fleetca/fleetca/inventory/ansible"
)

// TestNames holds that the names are those that Resolve finds, and all of them.
func TestNames(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hosts.yaml")
	if err := os.WriteFile(file, []byte(`all:
  hosts:
    Web1: {ansible_host: web1.internal., ansible_port: 2222, fleetca_principals: [WWW, db1, web1]}
    web2: {ansible_host: 10.0.0.2, fleetca_principals: [www]}
    db1:
    10.0.0.7: {fleetca_principals: [seven]}
    0x7f.1:
`), 0o600); err != nil {
		t.Fatal(err)
	}
	inv, err := ansible.Load(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	names, err := Names(inv.Hosts())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range names {
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s=%s:%d %s", n.Name, n.Host.Name, n.Port, strings.Join(n.Shared, "+"))))
	}
	want := []string{
		"web1=Web1:2222", "web1.internal=Web1:2222", "www=Web1:2222 Web1+web2",
		"web2=web2:22", "www=web2:22 Web1+web2", "db1=db1:22", "seven=10.0.0.7:22",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	r, err := New(Config{Inventory: inv})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		d, err := r.Resolve(n.Name, 0)
		if (err != nil) != (len(n.Shared) > 0) || err == nil && (d.Host != n.Host || d.Port != n.Port) {
			t.Errorf("%q resolves to %+v, %v", n.Name, d, err)
		}
		delete(r.names, n.Name)
	}
	for name := range r.names {
		t.Errorf("Resolve finds %q too", name)
	}
}
