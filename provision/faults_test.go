package provision_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/inventory/ansible"
	"github.com/fleetca/fleetca/provision"
	"github.com/fleetca/fleetca/provision/plan"
	"github.com/fleetca/fleetca/provision/remote"
	"github.com/fleetca/fleetca/testenv"
	"github.com/fleetca/fleetca/testenv/fleettest"
)

const killAt = "FLEETCA_TEST_KILL_AT"

// TestMain is also the process that kills itself in the middle of a run.
func TestMain(m *testing.M) {
	if phase := os.Getenv(killAt); phase != "" {
		if err := runUntilKilled(provision.Phase(phase)); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// fault makes a run fail on a real host with sudo, at the default paths.
type fault struct {
	name string
	host testenv.HostConfig
	vars map[string]any
	// at is called with every event of the run.
	at func(t *testing.T, h *testenv.Host, e provision.Event)
	// change changes how the run is made.
	change func(*provision.Config, *remote.Config)
	state  provision.State
	// check looks at the error.
	check func(err error) bool
	// litter are files that the fault itself has left.
	litter []string
	// heal ends the fault, so that the host can be looked at.
	heal func(t *testing.T, h *testenv.Host)
}

func reason(want string) func(error) bool {
	return func(err error) bool {
		var script *provision.ScriptError
		return errors.As(err, &script) && script.Reason == want
	}
}

func refusal(want plan.Reason) func(error) bool {
	return func(err error) bool {
		var refused *plan.Refusal
		return errors.As(err, &refused) && refused.Reason == want
	}
}

func become(want remote.BecomeReason) func(error) bool {
	return func(err error) bool {
		var failed *remote.BecomeError
		return errors.As(err, &failed) && failed.Reason == want
	}
}

// put writes a file on the host when the phase begins.
func put(phase provision.Phase, path, text string) func(*testing.T, *testenv.Host, provision.Event) {
	return func(t *testing.T, h *testenv.Host, e provision.Event) {
		if e.Phase == phase && e.State == "" && e.Step == nil {
			if err := os.WriteFile(h.File(path), []byte(text), 0o644); err != nil {
				t.Error(err)
			}
		}
	}
}

// do runs a function when the phase begins.
func do(phase provision.Phase, f func(t *testing.T, h *testenv.Host) error) func(*testing.T, *testenv.Host, provision.Event) {
	return func(t *testing.T, h *testenv.Host, e provision.Event) {
		if e.Phase == phase && e.State == "" && e.Step == nil {
			if err := f(t, h); err != nil {
				t.Error(err)
			}
		}
	}
}

const (
	brokenDropIn = "/etc/ssh/sshd_config.d/99-broken.conf"
	ourDropIn    = "/etc/ssh/sshd_config.d/00-fleetca.conf"
)

var operator = testenv.HostConfig{System: testenv.System{Login: testenv.Operator}}

func quickRollback(c *provision.Config, _ *remote.Config) { c.RollbackAfter = 6 * time.Second }

func givenPassword(password string) func(*provision.Config, *remote.Config) {
	return func(_ *provision.Config, r *remote.Config) {
		r.BecomePassword = func(context.Context) ([]byte, error) { return []byte(password), nil }
	}
}

var faults = []fault{
	{
		name: "sshd -t refuses the candidate", at: put(provision.Commit, brokenDropIn, "Bogus yes\n"),
		state: provision.Failed, check: reason("refused"), litter: []string{brokenDropIn},
	},
	{
		name: "the candidate changes more than it should", at: put(provision.Commit, brokenDropIn, "MaxAuthTries 2\n"),
		state: provision.Failed, check: reason("effective"), litter: []string{brokenDropIn},
	},
	{
		name: "somebody writes our file meanwhile", at: put(provision.Commit, ourDropIn, "MaxAuthTries 2\n"),
		state: provision.Failed, check: reason("changed"), litter: []string{ourDropIn},
	},
	{
		name: "verification fails", change: quickRollback,
		at: do(provision.Verify, func(t *testing.T, h *testenv.Host) error {
			return errors.Join(os.Remove(h.File(ourDropIn)), h.Reload(t.Context()))
		}),
		state: provision.RolledBack, check: func(err error) bool { return strings.Contains(err.Error(), "verifying from outside") },
	},
	{
		name: "verification fails on a full disk", change: quickRollback,
		at: do(provision.Verify, func(t *testing.T, h *testenv.Host) error {
			return errors.Join(h.FillDisk("/etc"), os.Remove(h.File(ourDropIn)), h.Reload(t.Context()))
		}),
		state: provision.RolledBack, check: func(err error) bool { return strings.Contains(err.Error(), "verifying from outside") },
		heal: free("/etc"),
	},
	{
		name: "somebody breaks the configuration meanwhile", change: quickRollback,
		at: do(provision.Verify, func(t *testing.T, h *testenv.Host) error {
			return errors.Join(
				os.Remove(h.File(ourDropIn)), h.Reload(t.Context()),
				os.WriteFile(h.File(brokenDropIn), []byte("Bogus yes\n"), 0o644),
			)
		}),
		state: provision.RolledBack, check: func(err error) bool { return strings.Contains(err.Error(), "verifying from outside") },
		litter: []string{brokenDropIn},
	},
	{
		name: "network cut after the reload", change: quickRollback,
		at:    do(provision.Verify, func(t *testing.T, h *testenv.Host) error { return h.Partition(t.Context()) }),
		state: provision.RollingBack, check: func(err error) bool { return strings.Contains(err.Error(), "by itself within 6s") },
		heal: func(t *testing.T, h *testenv.Host) {
			if err := h.Heal(t.Context()); err != nil {
				t.Error(err)
			}
		},
	},
	{
		name: "disk full", at: do(provision.Connect, fill("/etc")),
		state: provision.Failed, check: refusal(plan.DiskFull), heal: free("/etc"),
	},
	{
		name: "disk fills up before the commit", at: do(provision.Commit, fill("/etc")),
		state: provision.Failed, check: reason("write"), heal: free("/etc"),
	},
	{
		name: "home is full", at: do(provision.Connect, fill("/home")),
		state: provision.Failed, check: func(err error) bool { return strings.Contains(err.Error(), "uploading") }, heal: free("/home"),
	},
	{
		name: "the reload fails", vars: map[string]any{"fleetca_reload": "echo out of order; false"},
		state: provision.RolledBack, check: reason("reload"),
	},
	{
		name: "the reload kills sshd", change: quickRollback, vars: map[string]any{"fleetca_reload": "kill -9 $(cat /run/sshd.pid)"},
		state: provision.RolledBack, check: func(err error) bool { return strings.Contains(err.Error(), "verifying from outside") },
	},
	{
		name: "sudo wants a password", host: operator,
		state: provision.Failed, check: become(remote.BecomeNeedsPassword),
	},
	{
		name: "the sudo password is wrong", host: operator, change: givenPassword("not it"),
		state: provision.Failed, check: become(remote.BecomeWrongPassword),
	},
	{
		name: "no sudo", host: testenv.HostConfig{System: testenv.System{NoSudo: true}},
		state: provision.Failed, check: become(remote.BecomeMissing),
	},
	{
		name: "no sftp", host: testenv.HostConfig{SFTP: testenv.NoSFTP},
		state: provision.Failed, check: func(err error) bool { return errors.Is(err, remote.ErrNoSFTP) },
	},
	{
		name: "read-only /etc", host: testenv.HostConfig{System: testenv.System{ReadOnlyEtc: true}},
		state: provision.Failed, check: refusal(plan.ReadOnly),
	},
	{
		name: "dropbear", host: testenv.HostConfig{System: testenv.System{Dropbear: true}},
		state: provision.Failed, check: refusal(plan.NotOpenSSH),
	},
	{
		name: "not asked to become root", vars: map[string]any{"ansible_become": false},
		state: provision.Failed, check: refusal(plan.NoRights),
	},
	{
		name: "the present configuration is broken", at: put(provision.Connect, brokenDropIn, "Bogus yes\n"),
		state: provision.Failed, check: refusal(plan.BrokenConfig), litter: []string{brokenDropIn},
	},
}

func fill(path string) func(*testing.T, *testenv.Host) error {
	return func(_ *testing.T, h *testenv.Host) error { return h.FillDisk(path) }
}

func free(path string) func(*testing.T, *testenv.Host) {
	return func(t *testing.T, h *testenv.Host) {
		if err := h.FreeDisk(path); err != nil {
			t.Error(err)
		}
	}
}

// Each fault ends with the host reachable with its old credentials, nothing
// half written, and a word for what happened; once it is mended a run succeeds.
func TestFaults(t *testing.T) {
	fleettest.NeedRoot(t)
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w, host := namespaced(t, f.host, f.vars)
			before := snapshot(t, host)
			w.observe = func(e provision.Event) {
				if f.at != nil {
					f.at(t, host, e)
				}
			}
			var changes []func(*provision.Config, *remote.Config)
			if f.change != nil {
				changes = append(changes, f.change)
			}
			report := w.provision(t.Context(), changes...)
			got := report.Hosts[0]
			if got.State != f.state || !f.check(got.Err) {
				t.Errorf("ended %s after %s: %v", got.State, got.Phase, got.Err)
			}
			if f.heal != nil {
				f.heal(t, host)
			}
			for _, path := range f.litter {
				if err := os.Remove(host.File(path)); err != nil {
					t.Error(err)
				}
			}
			w.asBefore(host, before)
			noStaging(t, host)
		})
	}
}

// namespaced starts one host as people have them.
func namespaced(t *testing.T, config testenv.HostConfig, vars map[string]any) (*world, *testenv.Host) {
	t.Helper()
	all := map[string]any{"ansible_become": true}
	for k, v := range vars {
		all[k] = v
	}
	w := newWorld(t, fleettest.StartNamespaced(t, testenv.Config{Names: []string{"web01"}, Host: config}), all)
	return w, w.fleet.Host("web01")
}

// asBefore waits until the host is as it was, and logs in with the credentials
// and the known_hosts from before the run.
func (w *world) asBefore(host *testenv.Host, before string) {
	w.t.Helper()
	var now string
	if !eventually(func() bool { now = snapshot(w.t, host); return now == before }) {
		w.t.Errorf("the host is not as it was:\n%s\nbefore:\n%s", now, before)
	}
	var out []byte
	var err error
	if !eventually(func() bool {
		var cmd *exec.Cmd
		if cmd, err = host.SSH(w.t.Context()); err != nil {
			return false
		}
		cmd.Args = append(cmd.Args, "echo still here")
		out, err = cmd.CombinedOutput()
		return err == nil && strings.Contains(string(out), "still here")
	}) {
		w.t.Errorf("the old credentials don't work any more: %v\n%s", err, out)
	}
}

func noStaging(t *testing.T, host *testenv.Host) {
	t.Helper()
	if left, _ := filepath.Glob(filepath.Join(host.File(host.Home()), ".fleetca*")); len(left) > 0 {
		t.Errorf("left in the login's home: %q", left)
	}
}

// eventually waits for a condition, for as long as any rollback of these tests
// takes and then some.
func eventually(condition func() bool) bool {
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			return false
		}
	}
	return true
}

// The defaults of Debian, sudo with and without password, busybox as sh.
func TestAsPeopleHaveThem(t *testing.T) {
	fleettest.NeedRoot(t)
	for name, tt := range map[string]struct {
		host   testenv.HostConfig
		vars   map[string]any
		change func(*provision.Config, *remote.Config)
	}{
		"sudo without password": {},
		"sudo with password":    {host: operator, change: givenPassword(testenv.OperatorPassword)},
		"root":                  {host: testenv.HostConfig{System: testenv.System{Login: testenv.Root}}, vars: map[string]any{"ansible_become": false}},
		"busybox":               {host: testenv.HostConfig{System: testenv.System{Busybox: true}}},
		"init script":           {vars: map[string]any{"fleetca_reload": "service ssh reload"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, host := namespaced(t, tt.host, tt.vars)
			changes := []func(*provision.Config, *remote.Config){}
			if tt.change != nil {
				changes = append(changes, tt.change)
			}
			w.must(provision.Changed, changes...)
			w.mustLogin(host, w.userCertificate("alice", w.userCA, host.Login()))
			signed := w.ledger.len()
			w.must(provision.Unchanged, changes...)
			if n := w.ledger.len(); n != signed {
				t.Errorf("the second run signed %d certificates", n-signed)
			}
			noStaging(t, host)
		})
	}
}

// Two runs at once: the second says so and touches nothing, the first is not
// disturbed.
func TestTwoRunsAtOnce(t *testing.T) {
	fleettest.NeedRoot(t)
	w, _ := namespaced(t, testenv.HostConfig{}, nil)
	reached, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w.observe = func(e provision.Event) {
		if e.Phase == provision.Verify && e.State == "" {
			once.Do(func() { close(reached) })
			<-release
		}
	}
	first := make(chan *provision.Report, 1)
	go func() { first <- w.provision(t.Context()) }()
	<-reached
	w.observe = nil
	second := w.provision(t.Context())
	close(release)
	if got := second.Hosts[0]; got.State != provision.Failed || !reason("busy")(got.Err) {
		t.Errorf("the second run ended %s: %v", got.State, got.Err)
	}
	if got := (<-first).Hosts[0]; got.State != provision.Changed {
		t.Errorf("the first run ended %s: %v", got.State, got.Err)
	}
	w.must(provision.Unchanged)
}

// fleetca is killed at every phase: the host ends as it was, and the next run
// succeeds.
func TestKilled(t *testing.T) {
	fleettest.NeedRoot(t)
	for _, phase := range []provision.Phase{
		provision.Connect, provision.Gather, provision.Planned, provision.Upload,
		provision.Commit, "armed", provision.Verify, provision.Confirm,
	} {
		t.Run(string(phase), func(t *testing.T) {
			t.Parallel()
			w, host := namespaced(t, testenv.HostConfig{}, nil)
			before := snapshot(t, host)
			w.save()
			child := exec.CommandContext(t.Context(), os.Args[0])
			child.Env = append(os.Environ(), killAt+"="+string(phase), "FLEETCA_TEST_DIR="+w.dir)
			var out strings.Builder
			child.Stdout, child.Stderr = &out, &out
			if err := child.Start(); err != nil {
				t.Fatal(err)
			}
			if phase == "armed" {
				// The commit itself is under way on the host.
				armed := func() bool {
					_, err := os.Stat(host.File("/etc/ssh/fleetca/run/watch"))
					return err == nil
				}
				if !eventually(armed) {
					t.Error("the run never armed its rollback")
				}
				_ = child.Process.Kill()
			}
			_ = child.Wait()
			status, ok := child.ProcessState.Sys().(syscall.WaitStatus)
			if !ok || status.Signal() != syscall.SIGKILL {
				t.Fatalf("the run was not killed: %v\n%s", child.ProcessState, &out)
			}
			w.asBefore(host, before)
			w.must(provision.Changed)
			w.mustLogin(host, w.userCertificate("alice", w.userCA, host.Login()))
		})
	}
}

// save makes new authorities that the process that will be killed can read.
func (w *world) save() {
	w.t.Helper()
	for name, to := range map[string]*ssh.Signer{"host_ca": &w.hostCA, "user_ca": &w.userCA} {
		private, signer := newKey(w.t)
		*to = signer
		block, err := ssh.MarshalPrivateKey(private, name)
		if err != nil {
			w.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(w.dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
}

func runUntilKilled(at provision.Phase) error {
	dir := os.Getenv("FLEETCA_TEST_DIR")
	inv, err := ansible.Load(context.Background(), filepath.Join(dir, "hosts.yaml"))
	if err != nil {
		return err
	}
	w := &world{t: &testing.B{}, dir: dir, hosts: slices.Clone(inv.Hosts()), ledger: &ledger{}}
	for name, to := range map[string]*ssh.Signer{"host_ca": &w.hostCA, "user_ca": &w.userCA} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if *to, err = ssh.ParsePrivateKey(data); err != nil {
			return err
		}
	}
	w.observe = func(e provision.Event) {
		if e.Phase == at && e.State == "" && e.Step == nil {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // the signal is on its way
		}
	}
	report := w.provision(context.Background(), func(c *provision.Config, _ *remote.Config) { c.RollbackAfter = 5 * time.Second })
	return report.Err()
}
