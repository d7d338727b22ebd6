package provision_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fleetca/fleetca/provision"
	"github.com/fleetca/fleetca/provision/remote"
	"github.com/fleetca/fleetca/testenv"
	"github.com/fleetca/fleetca/testenv/fleettest"
)

// stage is the login's staging folder, between upload and commit.
func stage(t *testing.T, host *testenv.Host) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(host.File(host.Home()), ".fleetca-upload-*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("staging folders: %q, %v", found, err)
	}
	return found[0]
}

// Whoever can write to the login's home can't get anything else onto the host
// than what was sent: not by other text, and not by a link to a file that can
// be changed later.
func TestStagedFilesTampered(t *testing.T) {
	fleettest.NeedRoot(t)
	t.Run("text", func(t *testing.T) {
		t.Parallel()
		w, host := namespaced(t, testenv.HostConfig{}, nil)
		before := snapshot(t, host)
		w.observe = func(e provision.Event) {
			do(provision.Commit, func(t *testing.T, h *testenv.Host) error {
				return os.WriteFile(filepath.Join(stage(t, h), "user_ca.pub"), []byte("# nobody\n"), 0o644)
			})(t, host, e)
		}
		if got := w.provision(t.Context()).Hosts[0]; got.State != provision.Failed || !reason("upload")(got.Err) {
			t.Errorf("ended %s: %v", got.State, got.Err)
		}
		w.asBefore(host, before)
	})
	t.Run("link", func(t *testing.T) {
		t.Parallel()
		w, host := namespaced(t, testenv.HostConfig{}, nil)
		w.observe = func(e provision.Event) {
			do(provision.Commit, func(t *testing.T, h *testenv.Host) error {
				file := filepath.Join(stage(t, h), "user_ca.pub")
				return errors.Join(
					os.Rename(file, filepath.Join(h.File(h.Home()), "mine")),
					os.Symlink(filepath.Join(h.Home(), "mine"), file),
				)
			})(t, host, e)
		}
		w.must(provision.Changed)
		info, err := os.Lstat(host.File("/etc/ssh/fleetca/user_ca.pub"))
		if err != nil || !info.Mode().IsRegular() || info.Mode().Perm() != 0o644 {
			t.Errorf("the installed file is %v, %v", info.Mode(), err)
		}
	})
}

// The power fails on the host while the rollback is armed. Until the run has to
// be taken for dead the next one leaves the host alone, then it puts it back,
// and goes on.
func TestHostDies(t *testing.T) {
	fleettest.NeedRoot(t)
	w, host := namespaced(t, testenv.HostConfig{}, nil)
	w.observe = func(e provision.Event) {
		do(provision.Verify, func(t *testing.T, h *testenv.Host) error {
			return errors.Join(h.Kill(t.Context()), h.Start(t.Context()))
		})(t, host, e)
	}
	quick := func(c *provision.Config, r *remote.Config) { c.RollbackAfter, r.Timeout = 6*time.Second, 5*time.Second }
	first := w.provision(t.Context(), quick)
	// sshd came back with the new settings, so this run may have been able to
	// prove and confirm its work; what died with the host is the watch.
	if got := first.Hosts[0]; got.State != provision.Changed {
		t.Errorf("ended %s: %v", got.State, got.Err)
	}
	w.observe = nil
	w.must(provision.Unchanged)
}

// As above, but fleetca dies too: nobody confirms, and nobody watches.
func TestHostAndRunDie(t *testing.T) {
	fleettest.NeedRoot(t)
	w, host := namespaced(t, testenv.HostConfig{}, nil)
	before := snapshot(t, host)
	quick := func(c *provision.Config, r *remote.Config) { c.RollbackAfter, r.Timeout = 6*time.Second, time.Second }
	w.observe = func(e provision.Event) {
		do(provision.Verify, func(t *testing.T, h *testenv.Host) error { return h.Kill(t.Context()) })(t, host, e)
	}
	if got := w.provision(t.Context(), quick).Hosts[0]; got.State != provision.RollingBack {
		t.Errorf("ended %s: %v", got.State, got.Err)
	}
	w.observe = nil
	if err := host.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.provision(t.Context()).Hosts[0]; got.State != provision.Failed || !reason("busy")(got.Err) {
		t.Errorf("a run that may still live was not respected: ended %s: %v", got.State, got.Err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(host.File("/etc/ssh/fleetca/run"), old, old); err != nil {
		t.Fatal(err)
	}
	report := w.provision(t.Context(), func(c *provision.Config, _ *remote.Config) {
		c.Observe = func(e provision.Event) {
			if e.Phase == provision.Planned && e.State == "" && e.Step == nil && e.Note == "" {
				if now := snapshot(t, host); now != before {
					t.Errorf("the plan was made on what the dead run left:\n%s", now)
				}
			}
		}
	})
	if got := report.Hosts[0]; got.State != provision.Changed || !strings.Contains(strings.Join(got.Notes, " "), "had died") {
		t.Errorf("ended %s with notes %q: %v", got.State, got.Notes, got.Err)
	}
	w.mustLogin(host, w.userCertificate("alice", w.userCA, host.Login()))
}

// The proof takes longer than the host waits: it has put itself back, and the
// run says so.
func TestConfirmedTooLate(t *testing.T) {
	fleettest.NeedRoot(t)
	w, host := namespaced(t, testenv.HostConfig{}, nil)
	before := snapshot(t, host)
	w.observe = func(e provision.Event) {
		do(provision.Confirm, func(t *testing.T, h *testenv.Host) error {
			if !eventually(func() bool {
				_, err := os.Stat(h.File("/etc/ssh/fleetca"))
				return errors.Is(err, fs.ErrNotExist)
			}) {
				return errors.New("the host never put itself back")
			}
			return nil
		})(t, host, e)
	}
	report := w.provision(t.Context(), func(c *provision.Config, _ *remote.Config) { c.RollbackAfter = 5 * time.Second })
	if got := report.Hosts[0]; got.State != provision.RolledBack || !reason("rolled_back")(got.Err) {
		t.Errorf("ended %s: %v", got.State, got.Err)
	}
	w.asBefore(host, before)
}

// The disk fills up while the change waits for its proof: the proof and the
// confirmation need no space.
func TestDiskFullAtTheEnd(t *testing.T) {
	fleettest.NeedRoot(t)
	w, host := namespaced(t, testenv.HostConfig{}, nil)
	w.observe = func(e provision.Event) {
		do(provision.Verify, fill("/etc"))(t, host, e)
	}
	w.must(provision.Changed)
	free("/etc")(t, host)
	w.observe = nil
	w.must(provision.Unchanged)
	w.mustLogin(host, w.userCertificate("alice", w.userCA, host.Login()))
}

// Long after a run died somebody has gone on from its configuration: recovery
// leaves theirs alone.
func TestRecoveryKeepsLaterEdits(t *testing.T) {
	fleettest.NeedRoot(t)
	w, host := namespaced(t, testenv.HostConfig{NoDropIns: true}, nil)
	quick := func(c *provision.Config, r *remote.Config) { c.RollbackAfter, r.Timeout = 6*time.Second, time.Second }
	w.observe = func(e provision.Event) {
		do(provision.Verify, func(t *testing.T, h *testenv.Host) error { return h.Kill(t.Context()) })(t, host, e)
	}
	if got := w.provision(t.Context(), quick).Hosts[0]; got.State != provision.RollingBack {
		t.Fatalf("ended %s: %v", got.State, got.Err)
	}
	w.observe = nil
	if err := host.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	file := host.File("/etc/ssh/sshd_config")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const edit = "MaxAuthTries 4 # by hand\n"
	if err := os.WriteFile(file, append(text, edit...), 0o644); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(host.File("/etc/ssh/fleetca/run"), old, old); err != nil {
		t.Fatal(err)
	}
	report := w.provision(t.Context())
	if got := report.Hosts[0]; got.Err != nil {
		t.Errorf("ended %s: %v", got.State, got.Err)
	}
	if text, err := os.ReadFile(file); err != nil || !strings.HasSuffix(string(text), edit) {
		t.Errorf("the edit is gone: %v\n%s", err, text)
	}
	w.must(provision.Unchanged)
}
