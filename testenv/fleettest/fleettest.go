//go:build linux

// Package fleettest starts fleets for tests: what fails ends the test, what was
// started ends with it, and the servers' logs are shown when it has failed.
// It refuses nothing by itself; what a fleet can't do is said in testenv.
package fleettest

import (
	"context"
	"os"
	"testing"

	"github.com/fleetca/fleetca/testenv"
)

// Start starts unprivileged servers.
func Start(t testing.TB, config testenv.Config) *testenv.Fleet {
	t.Helper()
	return start(t, config, testenv.Start)
}

// StartNamespaced starts namespaced hosts. Without root the test is skipped,
// but fails where $CI is true.
func StartNamespaced(t testing.TB, config testenv.Config) *testenv.Fleet {
	t.Helper()
	NeedRoot(t)
	return start(t, config, testenv.StartNamespaced)
}

func start(t testing.TB, config testenv.Config, with func(context.Context, testenv.Config) (*testenv.Fleet, error)) *testenv.Fleet {
	t.Helper()
	f, err := with(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, h := range f.Hosts() {
				t.Logf("log of host %s:\n%s", h.Name(), h.Log())
			}
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// NeedRoot skips the test if it isn't run by root; where $CI is true it fails.
func NeedRoot(t testing.TB) {
	t.Helper()
	switch {
	case os.Geteuid() == 0:
	case os.Getenv("CI") == "true":
		t.Fatal("this test needs root")
	default:
		t.Skip("this test needs root")
	}
}
