package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/provision"
	"github.com/fleetca/fleetca/provision/plan"
	"github.com/fleetca/fleetca/provision/remote"
)

func TestRecap(t *testing.T) {
	step := []provision.StepReport{
		{Name: "write user CA keys", Path: "/etc/ssh/fleetca/user_ca.pub", Before: []byte("old\n"), After: []byte("new \x1b[31m\n")},
		{Name: "reload sshd", Detail: "to read the new settings"},
	}
	full := &plan.Refusal{Reason: plan.DiskFull, Text: "/etc/ssh has 4 KiB left"}
	down := func(host string) error {
		return &remote.UnreachableError{Host: host, Address: "10.0.0.1:22", Err: errors.New("connection refused")}
	}
	report := &provision.Report{
		Hosts: []provision.HostReport{
			{Host: "web01", State: provision.Changed, Phase: provision.Confirm, Steps: step, Notes: []string{"a note\n"}},
			{Host: "web02", State: provision.Changed, Phase: provision.Confirm, Steps: step, Notes: []string{"a note\n"}},
			{Host: "web03", State: provision.Unchanged, Phase: provision.Planned},
			{Host: "db1", State: provision.Failed, Phase: provision.Connect, Err: down("db1")},
			{Host: "db2", State: provision.Failed, Phase: provision.Connect, Err: down("db2")},
			{Host: "db3", State: provision.Failed, Phase: provision.Planned, Err: full},
			{Host: "db4", State: provision.NotStarted},
		},
		Stopped: "3 of 7 hosts failed",
	}
	var out strings.Builder
	r := recap{out: &out, term: terminal.New(func(string) string { return "" }), report: report}
	r.plans()
	r.diffs()
	r.states()
	const want = `web[01-02]:
  write user CA keys  /etc/ssh/fleetca/user_ca.pub
  reload sshd  (to read the new settings)
web[01-02]:
--- a/etc/ssh/fleetca/user_ca.pub
+++ b/etc/ssh/fleetca/user_ca.pub
@@ -1 +1 @@
-old
+new \x1b[31m
1 unchanged: web03
2 changed: web[01-02]
3 failed: db[1-3]
1 not started: db4
note: web[01-02]: a note\n
failed: db[1-2]: connect: connecting to HOST (10.0.0.1:22): connection refused
  hint: fleetca inventory show HOST tells which address and port are used, and why
failed: db3: plan: /etc/ssh has 4 KiB left
  hint: free some space on the host
stopped: 3 of 7 hosts failed
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Every reason that a package gives has a hint.
func TestHints(t *testing.T) {
	for _, reason := range []plan.Reason{
		plan.NotOpenSSH, plan.TooOld, plan.NoSSHD, plan.NoRights, plan.ReadOnly, plan.DiskFull,
		plan.BrokenConfig, plan.NoHostKeys, plan.OtherCA, plan.CannotKeep,
	} {
		if hintFor(&plan.Refusal{Reason: reason}) == "" {
			t.Errorf("no hint for a refusal for %s", reason)
		}
	}
	for _, reason := range []remote.BecomeReason{
		remote.BecomeMissing, remote.BecomeNotAllowed, remote.BecomeNeedsPassword, remote.BecomeWrongPassword, remote.BecomeNeedsTerminal,
	} {
		if hintFor(&remote.BecomeError{Reason: reason}) == "" {
			t.Errorf("no hint for a sudo that is %s", reason)
		}
	}
	for _, reason := range []remote.HostKeyReason{
		remote.HostKeyUnknown, remote.HostKeyChanged, remote.HostKeyRevoked, remote.HostKeyNotPinned,
		remote.HostKeyNoCertificate, remote.HostKeyWeak, remote.HostKeyNotRecorded,
	} {
		if hintFor(&remote.HostKeyError{Reason: reason}) == "" {
			t.Errorf("no hint for a host key that is %s", reason)
		}
	}
	for _, reason := range []string{"busy", "write", "upload", "changed", "refused", "effective", "reload", "rolled_back"} {
		if hintFor(&provision.ScriptError{Reason: reason}) == "" {
			t.Errorf("no hint for a script that says %s", reason)
		}
	}
}
