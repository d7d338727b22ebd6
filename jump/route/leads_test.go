package route

import "testing"

// TestLeadsTo: a connection that a host makes is known to end at a host's sshd
// however its target is written.
func TestLeadsTo(t *testing.T) {
	r := newRouter(t, Config{Inventory: fleetOf(t, map[string]map[string]any{
		"web1":     {"ansible_host": "10.0.0.1", "fleetca_principals": []any{"www", "shop"}},
		"web2":     {"ansible_host": "10.0.0.2", "ansible_port": int64(2222), "fleetca_principals": []any{"shop"}},
		"db1":      {"ansible_host": "db1.internal.", "ansible_port": int64(2022)},
		"v6":       {"ansible_host": "2001:db8::1"},
		"10.0.0.5": {},
	})})
	from, err := r.Resolve("web2", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		port int
		want string // "": leads elsewhere
	}{
		{"web1", 22, "web1"},
		{"WEB1.", 22, "web1"},
		{"www", 22, "web1"},
		{"web1", 80, ""},
		{"shop", 2222, "web2"}, // shared, and yet it leads to one of them
		{"shop", 22, "web1"},
		{"db1.internal", 2022, "db1"},
		{"db1.internal", 22, ""},
		{"10.0.0.1", 22, "web1"},
		{"10.0.0.1", 443, ""},
		{"10.1", 22, "web1"},
		{"012.0.0.1", 22, "web1"},
		{"0xa000001", 22, "web1"},
		{"167772161", 22, "web1"},
		{"::ffff:10.0.0.1", 22, "web1"},
		{"[::ffff:a00:1]", 22, "web1"},
		{"10.0.0.2", 22, ""},
		{"10.0.0.2", 2222, "web2"},
		{"10.0.0.5", 22, "10.0.0.5"}, // which no name leads to
		{"2001:db8::1", 22, "v6"},
		{"[2001:0DB8:0:0::1]", 22, "v6"},
		{"2001:db8::1%eth0", 22, "v6"},
		{"2001:db8::2", 22, ""},

		{"localhost", 2222, "web2"},
		{"localhost", 22, "web2"},
		{"LOCALHOST.", 22, "web2"},
		{"a.localhost", 22, "web2"},
		{"localhost", 8080, ""},
		{"ip6-loopback", 22, "web2"},
		{"", 22, "web2"},
		{"web2", 22, "web2"},
		{"127.0.0.1", 2222, "web2"},
		{"127.255.0.7", 22, "web2"},
		{"127.1", 22, "web2"},
		{"2130706433", 22, "web2"},
		{"017700000001", 22, "web2"},
		{"0", 22, "web2"},
		{"0.0.0.0", 22, "web2"},
		{"::", 22, "web2"},
		{"::1", 22, "web2"},
		{"[::1%lo]", 22, "web2"},
		{"127.0.0.1", 5432, ""},

		{"localhost.example.com", 22, ""},
		{"example.com", 22, ""},
		{"99999999999999999999", 22, ""}, // getaddrinfo takes it for no address
		{"10.0.0.256", 22, ""},
		{"08.0.0.1", 22, ""},
	} {
		if got, known := r.LeadsTo(from, tt.name, tt.port); got != tt.want || known != (tt.want != "") {
			t.Errorf("%q %d: %q %v, want %q", tt.name, tt.port, got, known, tt.want)
		}
	}
}

// FuzzParseAddress: it never takes what strictly isn't an address for one.
func FuzzParseAddress(f *testing.F) {
	for _, seed := range []string{"127.0.0.1", "127.1", "0x7f.1", "0177.1", "2130706433", "::1", "::ffff:1.2.3.4", "1.2.3.4.5", "1..2", "", ".", "0x", "08", "256.1", "1_0", "0b1", "+1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, ok := parseAddress(text)
		if ok && (!a.IsValid() || a.Is4In6() || a.Zone() != "" || !isAddress(text)) {
			t.Errorf("%q: %v", text, a)
		}
		if again, same := parseAddress(a.String()); ok && (!same || again != a) {
			t.Errorf("%q: %v, then %v", text, a, again)
		}
	})
}
