//go:build linux

package testenv

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]string{
		"OpenSSH_9.2, OpenSSL 3.0.19 27 Jan 2026\n":                     "9 2 true",
		"unknown option -- V\nOpenSSH_7.4p1 Debian-10, OpenSSL 1.0.2\n": "7 4 true",
		"OpenSSH_10.0p2 Debian-7, OpenSSL 3.5.1 1 Jul 2025\n":           "10 0 true",
		"":                                  "0 0 false",
		"OpenSSH_99999999999999999999999.1": "0 0 false",
	} {
		major, minor, ok := parseVersion([]byte(text))
		if got := fmt.Sprint(major, minor, ok); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}

func TestParseRoutes(t *testing.T) {
	table := "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n" +
		"eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n" +
		"eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
	if got := fmt.Sprint(parseRoutes(table)); got != "[0.0.0.0/0 192.0.2.0/24]" {
		t.Errorf("got %s", got)
	}
}

func FuzzParseRoutes(f *testing.F) {
	for _, seed := range []string{"", "eth0\t000200C0\t0\t0\t0\t0\t0\t00FFFFFF\n", "a b c d e f g h\n", "a 0102 c d e f g FF00FF00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, table string) {
		for _, p := range parseRoutes(table) {
			if !p.IsValid() {
				t.Errorf("%q: got an invalid prefix", table)
			}
		}
	})
}

func TestExpand(t *testing.T) {
	for pattern, want := range map[string]string{
		"web[08:11]":        "web08 web09 web10 web11 in web",
		"web-[1:2].example": "web-1.example web-2.example in web",
		"db":                "db in ",
		"a[2:1]":            " in a",
	} {
		names, group, err := expand(pattern)
		if got := strings.Join(names, " ") + " in " + group; err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", pattern, got, err, want)
		}
	}
}

func TestSystemAccounts(t *testing.T) {
	a, err := systemAccounts("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	names := func(text string) (names []string) {
		for row := range strings.Lines(text) {
			name, _, _ := strings.Cut(row, ":")
			names = append(names, name)
		}
		return names
	}
	if !slices.Equal(names(a.passwd), names(a.shadow)) || !slices.Equal(names(a.group), names(a.gshadow)) {
		t.Errorf("the files name different accounts: %+v", a)
	}
	for _, name := range []string{Root, Admin, Operator, "sshd", "nobody"} {
		if n := strings.Count("\n"+a.passwd, "\n"+name+":"); n != 1 {
			t.Errorf("account %s is there %d times", name, n)
		}
	}
}
