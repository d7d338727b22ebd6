package ca

import (
	"testing"

	"github.com/fleetca/fleetca/ca/profile"
)

func FuzzSettings(f *testing.F) {
	for _, s := range []string{
		"", settingsText(nil), settingsText([]string{"user_ca", "host_ca"}),
		"keys: {user_ca: agent}\nlimits:\n  user: {default: 8h, max: 1w}\n",
		"limits: {host: {max: 30d}}",
	} {
		if _, err := parseSettings([]byte(s)); err != nil {
			f.Errorf("seed %q does not load: %v", s, err)
		}
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseSettings(data)
		if err != nil {
			return
		}
		if err := s.rules.Check(); err != nil {
			t.Fatalf("%q gives rules that make no sense: %v", data, err)
		}
		for _, k := range []profile.Kind{profile.User, profile.Host} {
			if _, err := s.rules.For(k); err != nil {
				t.Fatal(err)
			}
		}
	})
}
