//go:build linux

package fleettest_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/fleetca/fleetca/testenv"
	"github.com/fleetca/fleetca/testenv/fleettest"
)

// TestFailing fails where TestLogIsShown asks for it.
func TestFailing(t *testing.T) {
	f := fleettest.Start(t, testenv.Config{Names: []string{"web"}})
	if os.Getenv("FLEETTEST_FAIL") != "" {
		t.Errorf("the folder is %s", f.Dir())
	}
}

func TestLogIsShown(t *testing.T) {
	for _, fail := range []string{"", "1"} {
		c := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.v", "-test.run", "^TestFailing$")
		c.Env = append(os.Environ(), "FLEETTEST_FAIL="+fail)
		text, err := c.CombinedOutput()
		if (err != nil) != (fail != "") {
			t.Fatalf("%v\n%s", err, text)
		}
		if shown := strings.Contains(string(text), "log of host web:\n        Server listening on 127.0.0.1"); shown != (fail != "") {
			t.Errorf("with failure %q the log is shown: %v\n%s", fail, shown, text)
		}
	}
}
