package profile_test

import (
	"testing"
	"time"

	"github.com/fleetca/fleetca/ca/profile"
)

var ttlSeeds = []string{
	"8h", "30d", "90d", "1w", "1h30m", "1d12h", "90s", "10m", "1w2d3h4m5s", "3650d", "0001h",
}

var ttlBad = []string{
	"", "0", "0s", "0h0m", "8", "h", "8x", "-1h", "+1h", " 8h", "8h ", "8H", "1.5h", "30m1h", "1h1h",
	"3651d", "99999999999999999999h", "9223372036854775807w", "1h30", "٣h", "1d\n",
}

func TestParseTTL(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"8h": 8 * time.Hour, "30d": 720 * time.Hour, "1w": 168 * time.Hour,
		"1h30m": 90 * time.Minute, "1d12h": 36 * time.Hour, "5s": 5 * time.Second,
		"1w2d3h4m5s": 168*time.Hour + 48*time.Hour + 3*time.Hour + 4*time.Minute + 5*time.Second,
	} {
		if got, err := profile.ParseTTL(in); err != nil || got != want {
			t.Errorf("ParseTTL(%q) = %s, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range ttlBad {
		if got, err := profile.ParseTTL(in); err == nil {
			t.Errorf("ParseTTL(%q) = %s, want an error", in, got)
		}
	}
}

func TestFormatTTL(t *testing.T) {
	for d, want := range map[time.Duration]string{
		8 * time.Hour: "8h", 90 * 24 * time.Hour: "90d", 90 * time.Minute: "1h30m",
		0: "0s", time.Millisecond: "0s", 61 * time.Second: "1m1s", -time.Hour: "-1h",
	} {
		if got := profile.FormatTTL(d); got != want {
			t.Errorf("FormatTTL(%d) = %q, want %q", d, got, want)
		}
	}
}

func FuzzParseTTL(f *testing.F) {
	n := 0
	for _, s := range ttlSeeds {
		if _, err := profile.ParseTTL(s); err != nil {
			f.Errorf("seed %q: %v", s, err)
		}
		f.Add(s)
		n++
	}
	if n < 10 {
		f.Fatalf("only %d seeds", n)
	}
	for _, s := range ttlBad {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := profile.ParseTTL(s)
		if err != nil {
			return
		}
		if d <= 0 || d%time.Second != 0 {
			t.Fatalf("ParseTTL(%q) = %d", s, d)
		}
		again, err := profile.ParseTTL(profile.FormatTTL(d))
		if err != nil || again != d {
			t.Fatalf("ParseTTL(%q) = %s, written %q, read back %s, %v", s, d, profile.FormatTTL(d), again, err)
		}
	})
}

// FuzzNames holds that what passes never carries what the allow-lists exist to
// keep out, and that host names are canonical after one pass.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"root", `CORP\alice`, "web1.Example.com", "::1", "192.0.2.1", "*", "a,b", "a b", "a\nb", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		unsafe := func() bool {
			for _, r := range s {
				if r <= ' ' || r > '~' || r == ',' || r == '*' || r == '?' || r == '"' || r == '\'' {
					return true
				}
			}
			return s == "" || s[0] == '-'
		}
		if (profile.CheckUserPrincipal(s) == nil || profile.CheckKeyID(s) == nil) && unsafe() {
			t.Fatalf("%q passes", s)
		}
		if name, err := profile.HostPrincipal(s); err == nil {
			if unsafe() {
				t.Fatalf("%q passes as host", s)
			}
			again, err := profile.HostPrincipal(name)
			if err != nil || again != name {
				t.Fatalf("%q gives %q, which gives %q, %v", s, name, again, err)
			}
		}
	})
}
