package inventory

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// small has web[1-3] in web, db1 in db, both in prod, and lone.
func small(t testing.TB) *Inventory {
	t.Helper()
	b := NewBuilder()
	var errs []error
	for _, g := range []string{"web", "db", "prod", "none"} {
		errs = append(errs, b.AddGroup(g))
	}
	for _, pair := range [][2]string{{"web1", "web"}, {"web2", "web"}, {"web3", "web"}, {"db1", "db"}, {"lone", "ungrouped"}} {
		errs = append(errs, b.AddHost(pair[0], pair[1], 0, Position{}))
	}
	errs = append(errs, b.AddChild("prod", "web"), b.AddChild("prod", "db"),
		b.Set("web", "fleetca_labels", Variable{Value: map[string]any{"env": "prod", "role": "web"}}),
		b.Set("db", "fleetca_labels", Variable{Value: "env=prod,role=db"}),
		b.Set("web3", "fleetca_labels", Variable{Value: map[string]any{"env": "lab"}}))
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	inv, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

// The patterns themselves are compared with Ansible in inventory/ansible.
func TestSelect(t *testing.T) {
	inv := small(t)
	readFile := func(name string) ([]byte, error) {
		if name != "retry" {
			return nil, os.ErrNotExist
		}
		return []byte("web1\n\n lone\n!lone\n"), nil
	}
	for _, test := range []struct {
		selection Selection
		want      string // hosts, or after "!" a part of the error
		noMatch   bool
	}{
		{Selection{}, "lone web1 web2 web3 db1", false},
		{Selection{Patterns: []string{"web:!web3", "lone"}}, "lone web1 web2", false},
		{Selection{Patterns: []string{"@retry"}, ReadFile: readFile}, "web1", false},
		{Selection{Patterns: []string{"@retry"}}, "!limit files can't be read here", false},
		{Selection{Patterns: []string{"@other"}, ReadFile: readFile}, "!reading limit file", false},
		{Selection{Labels: []string{"env=prod"}}, "web1 web2 db1", false},
		{Selection{Labels: []string{"env=prod", "role=web"}}, "web1 web2", false},
		{Selection{Patterns: []string{"web2"}, Labels: []string{"env=prod"}}, "web2", false},
		{Selection{Labels: []string{"env=qa"}}, `!no host matches label "env=qa"`, true},
		{Selection{Labels: []string{"env"}}, "!not of the form key=value", false},
		{Selection{Patterns: []string{"wbe"}}, `!no host matches pattern "wbe"`, true},
		{Selection{Patterns: []string{"web:!wbe1"}}, `!no host matches pattern "wbe1"`, true},
		{Selection{Patterns: []string{"web:&db"}}, `!no host matches limit "web:&db"`, true},
		{Selection{Patterns: []string{"none"}}, `!no host matches limit "none"`, true},
		{Selection{Patterns: []string{"web:!none"}}, "web1 web2 web3", false},
		{Selection{Patterns: []string{"web[7]"}}, "!it has 3 hosts", true},
		{Selection{Patterns: []string{"web[99999999999]"}}, "!too large", false},
		{Selection{Patterns: []string{""}}, "!holds no pattern", true},
		{Selection{Patterns: []string{"~("}}, "!missing closing", false},
		{Selection{Patterns: []string{"web,!"}}, "!without a pattern", false},
		{Selection{Patterns: []string{"localhost"}}, "!no host matches", true},
	} {
		hosts, err := inv.Select(test.selection)
		var names []string
		for _, h := range hosts {
			names = append(names, h.Name)
		}
		part, wantErr := strings.CutPrefix(test.want, "!")
		if wantErr && (err == nil || !strings.Contains(err.Error(), part) || errors.Is(err, ErrNoMatch) != test.noMatch) {
			t.Errorf("%+v: got %q, %v, want %q", test.selection, names, err, test.want)
		}
		if !wantErr && (err != nil || strings.Join(names, " ") != test.want) {
			t.Errorf("%+v: got %q, %v, want %q", test.selection, names, err, test.want)
		}
	}
	empty, err := NewBuilder().Build()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := empty.Select(Selection{}); !errors.Is(err, ErrNoMatch) {
		t.Errorf("an empty inventory: %v", err)
	}
}

func TestBuilder(t *testing.T) {
	b := NewBuilder()
	if err := b.AddHost("a", "nowhere", 0, Position{}); err == nil {
		t.Error("a host in no group is taken")
	}
	if err := b.Set("nobody", "x", Variable{}); err == nil {
		t.Error("a variable of nobody is taken")
	}
	if err := b.AddHost("", "all", 0, Position{}); err == nil {
		t.Error("an empty name is taken")
	}
	if err := b.AddGroup("a\x1b[0m"); err == nil {
		t.Error("a name with an escape is taken")
	}
	if _, err := b.Build(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Build(); err == nil {
		t.Error("a spent builder builds")
	}
}

func TestHostLimit(t *testing.T) {
	b := NewBuilder()
	for i := range MaxHosts {
		if err := b.AddHost(fmt.Sprint("h", i), "all", 0, Position{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.AddHost("one more", "all", 0, Position{}); err == nil {
		t.Error("there is no limit")
	}
}

func TestDepthLimit(t *testing.T) {
	b := NewBuilder()
	var last error
	for i := range MaxDepth + 2 {
		if err := b.AddGroup(fmt.Sprint("g", i)); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			last = b.AddChild(fmt.Sprint("g", i-1), fmt.Sprint("g", i))
		}
	}
	if last == nil {
		t.Error("there is no limit")
	}
}

// FuzzPattern: selecting never fails in another way than with an error, a
// selection is in inventory order and without duplicates, and a pattern with
// its exclusion selects nothing.
func FuzzPattern(f *testing.F) {
	for _, s := range []string{"all", "web:&prod:!web3", "w*[0:1]", "~web[12]", "web[-1]", "[a-c]*", "[!w]*", "[]w]*", "web[", "::1", "[::1]:22", "a,b", "!web", "&web", "web[1:]", "lone", "*[0]", "we?1", "**b*", "[z-a]", "[--0]"} {
		f.Add(s)
	}
	inv := small(f)
	order := map[*Host]int{}
	for i, h := range inv.Hosts() {
		order[h] = i
	}
	f.Fuzz(func(t *testing.T, pattern string) {
		hosts, err := inv.Select(Selection{Patterns: []string{pattern}})
		if err != nil {
			return
		}
		if !slices.IsSortedFunc(hosts, func(a, b *Host) int { return order[a] - order[b] }) {
			t.Errorf("%q: not in order", pattern)
		}
		if len(hosts) == 0 || len(hosts) > len(order) {
			t.Errorf("%q: %d hosts", pattern, len(hosts))
		}
		single := SplitPatterns(pattern)
		if len(single) != 1 || strings.ContainsAny(single[0][:1], "!&@") {
			return
		}
		if rest, err := inv.Select(Selection{Patterns: []string{single[0] + ",!" + single[0]}}); err == nil && !strings.Contains(pattern, ",") {
			for _, h := range rest {
				if slices.Contains(hosts, h) {
					t.Errorf("%q excluded still selects %q", pattern, h.Name)
				}
			}
		}
	})
}

// FuzzRange: names that a range stands for hold no range, and there are as
// many as their bounds say for the simple form.
func FuzzRange(f *testing.F) {
	for _, s := range []string{"web", "web[1:3]", "web[01:12:3].x", "a[a:c]b[1:2]", "[1:3", "w[3:1]", "w[1:3:-1]", "w[ab:cd]", "w[0:99999999]", "w[0:999][0:999]", "w[0:9999][0:9999][0:9999][1:0]", "|[1:2]", "w[-1:1]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		names, err := Expand(name)
		if err != nil {
			return
		}
		if len(names) > MaxHosts {
			t.Fatalf("%q stands for %d names", name, len(names))
		}
		for _, n := range names {
			again, err := Expand(n)
			if err != nil || len(again) != 1 || again[0] != n {
				t.Fatalf("%q gives %q, which is no plain name", name, n)
			}
		}
	})
}

// FuzzAddress: a host that was split off is an address without a port.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"web", "web:22", "[::1]:22", "::1", "web[1:3]:22", "192.0.2.[1:9]", "a:b:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		host, port, ok := ParseAddress(text)
		if !ok {
			return
		}
		if port < 0 || host == "" || !strings.Contains(text, host) {
			t.Errorf("%q: host %q, port %d", text, host, port)
		}
	})
}
