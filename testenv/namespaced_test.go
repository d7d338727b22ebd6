//go:build linux

package testenv_test

import (
	"testing"
	"time"

	"github.com/fleetca/fleetca/testenv"
	"github.com/fleetca/fleetca/testenv/fleettest"
)

func TestNamespacedLogin(t *testing.T) {
	before := time.Now()
	f := fleettest.StartNamespaced(t, testenv.Config{Names: []string{"web[1:4]"}})
	t.Logf("%d hosts started in %v", len(f.Hosts()), time.Since(before).Round(time.Millisecond))
	for _, h := range f.Hosts() {
		login(t, h)
		t.Log(h.Log())
	}
}
