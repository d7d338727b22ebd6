//go:build linux

package testenv_test

import (
	"testing"
	"time"

	"github.com/fleetca/fleetca/testenv"
	"github.com/fleetca/fleetca/testenv/fleettest"
)

func TestLogin(t *testing.T) {
	f := fleettest.Start(t, testenv.Config{Names: []string{"web[01:03]", "db"}})
	for _, h := range f.Hosts() {
		login(t, h)
	}
}

func login(t *testing.T, h *testenv.Host, options ...string) {
	t.Helper()
	c, err := h.SSH(t.Context(), options...)
	if err != nil {
		t.Fatal(err)
	}
	c.Args = append(c.Args, "echo in $HOME")
	text, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("logging in to %s: %v\n%s", h.Name(), err, text)
	}
	if want := "in " + h.Home() + "\n"; string(text) != want {
		t.Fatalf("logging in to %s: got %q, want %q", h.Name(), text, want)
	}
}

func TestHundred(t *testing.T) {
	before := time.Now()
	f := fleettest.Start(t, testenv.Config{Hosts: 100})
	t.Logf("%d hosts started in %v", len(f.Hosts()), time.Since(before).Round(time.Millisecond))
	login(t, f.Host("host100"))
}
