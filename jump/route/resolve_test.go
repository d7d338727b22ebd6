package route

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/fleetca/fleetca/inventory"
)

func TestResolve(t *testing.T) {
	r := newRouter(t, Config{Inventory: fleetOf(t, map[string]map[string]any{
		"web01.example.com": {"fleetca_principals": []any{"web01", "www", "shop"}},
		"web02.example.com": {"fleetca_principals": []any{"WEB02", "shop"}, "ansible_port": int64(2222)},
		"DB1":               {"ansible_host": "db1.internal.", "ansible_port": int64(2022)},
		"db2":               {"ansible_host": "10.0.0.9", "fleetca_principals": []any{"db1"}},
		"10.0.0.5":          {"fleetca_principals": []any{"legacy"}},
		"gate-a":            {"ansible_host": "gate.example.com", "ansible_port": int64(2201)},
		"gate-b":            {"ansible_host": "gate.example.com", "ansible_port": int64(2202)},
		"twin":              {},
		"TWIN":              {"ansible_port": int64(23)},
		"deadbeef":          {},
		"3com":              {},
		"a.b.c.d.5":         {},
	})})
	for _, tt := range []struct {
		name string
		port int
		want string // name host address:port, or the error
	}{
		{"web01.example.com", 0, "web01.example.com web01.example.com web01.example.com:22"},
		{"WEB01.Example.COM", 0, "web01.example.com web01.example.com web01.example.com:22"},
		{"web01.example.com.", 22, "web01.example.com web01.example.com web01.example.com:22"},
		{"web01", 22, "web01 web01.example.com web01.example.com:22"},
		{"www", 0, "www web01.example.com web01.example.com:22"},
		{"web02", 2222, "web02 web02.example.com web02.example.com:2222"},
		{"web02", 22, `port 22 of host "web02" is not in the inventory`},
		{"web02", 65536 + 2222, `port 67758 of host "web02" is not in the inventory`},
		{"web02", -1, `port -1 of host "web02" is not in the inventory`},
		{"shop", 0, `host "shop" is ambiguous: it may be any of ["web01.example.com" "web02.example.com"]`},
		{"shop", 2222, "shop web02.example.com web02.example.com:2222"},
		{"shop", 1, `port 1 of host "shop" is not in the inventory`},
		{"db1", 0, "db1 DB1 db1.internal.:2022"}, // its own name before another's alias
		{"db1.internal", 0, "db1.internal DB1 db1.internal.:2022"},
		{"db2", 0, "db2 db2 10.0.0.9:22"},
		{"legacy", 0, "legacy 10.0.0.5 10.0.0.5:22"},
		{"gate.example.com", 0, `host "gate.example.com" is ambiguous: it may be any of ["gate-a" "gate-b"]`},
		{"gate.example.com", 2202, "gate.example.com gate-b gate.example.com:2202"},
		{"twin", 0, `host "twin" is ambiguous: it may be any of ["TWIN" "twin"]`},
		{"deadbeef", 0, "deadbeef deadbeef deadbeef:22"},
		{"3com", 0, "3com 3com 3com:22"},
		{"a.b.c.d.5", 0, "a.b.c.d.5 a.b.c.d.5 a.b.c.d.5:22"},

		{"", 0, `host "" is not in the inventory`},
		{".", 0, `host "." is not in the inventory`},
		{"web01..", 0, `host "web01.." is not in the inventory`},
		{"web0", 0, `host "web0" is not in the inventory`},
		{"all", 0, `host "all" is not in the inventory`},
		{"web*", 0, `host "web*" is not in the inventory`},
		{"web01 ", 0, `host "web01 " is not in the inventory`},
		{"web01\x00", 0, `host "web01\x00" is not in the inventory`},
		{"\x1b]0;x", 0, "is an address"},
		{"localhost", 0, `host "localhost" is not in the inventory`},
		{"web01.example.com/../x", 0, `host "web01.example.com/../x" is not in the inventory`},
		{"３com", 0, `host "３com" is not in the inventory`},
		{"wWw\u212a", 0, "host \"wWw\u212a\" is not in the inventory"},

		{"10.0.0.5", 0, `"10.0.0.5" is an address: hosts are reached by their names in the inventory`},
		{"10.0.0.5.", 0, "is an address"},
		{"10.0.0.9", 22, "is an address"},
		{"127.1", 0, "is an address"},
		{"127.0.1", 0, "is an address"},
		{"2130706433", 0, "is an address"},
		{"99999999999999999999999", 0, "is an address"},
		{"017700000001", 0, "is an address"},
		{"0177.0.0.1", 0, "is an address"},
		{"0x7f000001", 0, "is an address"},
		{"0X7F.0.0.1", 0, "is an address"},
		{"0x7f.1", 0, "is an address"},
		{"0x", 0, "is an address"},
		{"::1", 0, "is an address"},
		{"[::1]", 0, "is an address"},
		{"::ffff:10.0.0.5", 0, "is an address"},
		{"fe80::1%eth0", 0, "is an address"},
		{"web01%eth0", 0, "is an address"},
		{"web01:22", 0, "is an address"},
	} {
		d, err := r.Resolve(tt.name, tt.port)
		got := fmt.Sprint(err)
		if err == nil {
			got = fmt.Sprintf("%s %s %s:%d", d.Name, d.Host.Name, d.Address, d.Port)
		}
		if got != tt.want && !(strings.HasSuffix(tt.want, "is an address") && strings.Contains(got, "is an address")) {
			t.Errorf("%q port %d:\n got %s\nwant %s", tt.name, tt.port, got, tt.want)
		}
		var address *AddressError
		if strings.Contains(tt.want, "is an address") != errors.As(err, &address) {
			t.Errorf("%q: %T", tt.name, err)
		}
	}
	var port *PortError
	if _, err := r.Resolve("shop", 1); !errors.As(err, &port) || !slices.Equal(port.Allowed, []int{22, 2222}) {
		t.Errorf("ports: %v", err)
	}
}

func TestSettingsThatCannotBeUsed(t *testing.T) {
	_, err := New(Config{Inventory: fleetOf(t, map[string]map[string]any{
		"web1": {"ansible_port": "{{ port }}"}, "web2": {}, "web3": {"fleetca_prinzipals": []any{"x"}},
	})})
	var setting *inventory.SettingError
	if !errors.As(err, &setting) || !strings.Contains(err.Error(), "web1") || !strings.Contains(err.Error(), "web3") {
		t.Errorf("got %v", err)
	}
	if _, err := New(Config{}); err == nil || !strings.Contains(err.Error(), "Inventory") {
		t.Errorf("no inventory: %v", err)
	}
}

// FuzzResolve holds that nothing is resolved but what the inventory has, and
// never what the system would take for an address.
func FuzzResolve(f *testing.F) {
	for _, s := range []string{"web1", "WEB1.", "127.0.0.1", "0x7f.1", "::1", "1.2.3.4.5", "", "a", "0", "web1\n", "ünï"} {
		f.Add(s, 22)
	}
	r := newRouter(f, Config{Inventory: fleetOf(f, map[string]map[string]any{
		"web1": {"fleetca_principals": []any{"a", "b.c"}}, "127.0.0.1": {}, "0": {}, "1.2.3.4.5": {},
	})})
	f.Fuzz(func(t *testing.T, name string, port int) {
		d, err := r.Resolve(name, port)
		if err != nil {
			_ = err.Error()
			return
		}
		if !slices.Contains([]string{"web1", "a", "b.c", "1.2.3.4.5"}, d.Name) || !strings.EqualFold(strings.TrimSuffix(name, "."), d.Name) || d.Port != 22 {
			t.Errorf("%q gives %+v", name, d)
		}
	})
}
