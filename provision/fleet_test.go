package provision_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/provision"
	"github.com/fleetca/fleetca/provision/remote"
	"github.com/fleetca/fleetca/testenv"
	"github.com/fleetca/fleetca/testenv/fleettest"
)

const everyStep = "write user CA keys, install host certificate for ssh_host_rsa_key, " +
	"install host certificate for ssh_host_ecdsa_key, install host certificate for ssh_host_ed25519_key, " +
	"write sshd drop-in, reload sshd"

// snapshot is the state of every file below a host's stand-in for /etc/ssh.
func snapshot(t testing.TB, host *testenv.Host) string {
	t.Helper()
	var b strings.Builder
	root := host.File(filepath.Dir(host.ConfigPath()))
	if _, err := os.Stat(root); errors.Is(err, fs.ErrNotExist) {
		return "" // not OpenSSH's
	}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		var sum [32]byte
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			sum = sha256.Sum256(data)
		}
		rel, _ := filepath.Rel(root, path)
		fmt.Fprintf(&b, "%s %s %x\n", rel, info.Mode(), sum[:4])
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// rollbacks are the processes that wait to put the host back.
func rollbacks(t testing.TB, host *testenv.Host) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, file := range files {
		// Processes come and go; those that are gone are not ours.
		line, _ := os.ReadFile(file)
		if bytes.Contains(line, []byte(filepath.Dir(host.ConfigPath())+"/fleetca/run")) {
			found = append(found, string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
		}
		// Its sleep has no path in its arguments, but the host's HOME.
		env, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "environ"))
		if bytes.HasPrefix(line, []byte("sleep\x00")) && bytes.Contains(env, []byte("HOME="+host.Home())) {
			found = append(found, "sleep of "+host.Name())
		}
	}
	return found
}

func TestProvision(t *testing.T) {
	w := newWorld(t, fleettest.Start(t, testenv.Config{Names: []string{"web[01:03]"}}), nil)
	host := w.fleet.Host("web02")
	before := snapshot(t, host)

	checked := w.must(provision.WouldChange, func(c *provision.Config, _ *remote.Config) { c.Check, c.Authority = true, nil })
	if got := steps(checked.Hosts[1]); got != everyStep {
		t.Errorf("the check plans %s\nwant %s", got, everyStep)
	}
	if after := snapshot(t, host); after != before {
		t.Errorf("the check changed files:\n%s\nbefore:\n%s", after, before)
	}
	if w.ledger.len() != 0 {
		t.Errorf("the check signed %d certificates", w.ledger.len())
	}

	first := w.must(provision.Changed)
	if got := steps(first.Hosts[1]); got != everyStep {
		t.Errorf("the first run did %s\nwant %s", got, everyStep)
	}
	if w.ledger.len() != 9 {
		t.Errorf("%d certificates in the ledger for 3 hosts with 3 keys", w.ledger.len())
	}
	if err := first.Err(); err != nil {
		t.Errorf("the report has an error: %v", err)
	}
	alice := w.userCertificate("alice", w.userCA, host.Login())
	for _, h := range w.fleet.Hosts() {
		w.mustLogin(h, alice)
	}
	changed := snapshot(t, host)
	for _, gone := range []string{"fleetca/run", ".fleetca-"} {
		if strings.Contains(changed, gone) {
			t.Errorf("the run left %s behind:\n%s", gone, changed)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(host.Home(), ".fleetca*")); len(left) > 0 {
		t.Errorf("the run left its staging folder behind: %q", left)
	}
	if left := rollbacks(t, host); len(left) > 0 {
		t.Errorf("the run left its rollback behind: %q", left)
	}

	second := w.must(provision.Unchanged)
	if n := w.ledger.len(); n != 9 {
		t.Errorf("the second run signed %d certificates", n-9)
	}
	if got := steps(second.Hosts[1]); got != "" {
		t.Errorf("the second run planned %s", got)
	}
	if again := snapshot(t, host); again != changed {
		t.Errorf("the second run changed files:\n%s\nbefore:\n%s", again, changed)
	}
}

// A stranger's certificate, or one for another login, opens nothing.
func TestOnlyTheUserCALogsIn(t *testing.T) {
	w := newWorld(t, fleettest.Start(t, testenv.Config{}), nil)
	w.must(provision.Changed)
	host := w.fleet.Hosts()[0]
	for name, key := range map[string]string{
		"stranger": w.userCertificate("stranger", newSigner(t), host.Login()),
		"other":    w.userCertificate("other", w.userCA, "somebody-else"),
	} {
		if out, err := w.login(host, key, "true"); err == nil || !strings.Contains(out, "Permission denied") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// A host's present configuration goes on working: a CA it trusted, Match
// blocks, another name for the drop-in folder, none at all.
func TestKeepsWhatWorks(t *testing.T) {
	other := newSigner(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "old_ca.pub")
	if err := os.WriteFile(file, ssh.MarshalAuthorizedKey(other.PublicKey()), 0o644); err != nil {
		t.Fatal(err)
	}
	trusts := "TrustedUserCAKeys " + file
	tests := map[string]struct {
		host testenv.HostConfig
		step string
	}{
		"trusts another CA in a drop-in's reach": {testenv.HostConfig{Bottom: trusts}, "write sshd drop-in"},
		"trusts another CA before the include":   {testenv.HostConfig{Top: trusts}, "write sshd_config block"},
		"no drop-ins":                            {testenv.HostConfig{NoDropIns: true, Bottom: trusts}, "write sshd_config block"},
		"ends in a match block": {
			testenv.HostConfig{NoDropIns: true, Bottom: trusts + "\nMatch User nobody\n\tX11Forwarding no"}, "write sshd_config block",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, fleettest.Start(t, testenv.Config{Host: tt.host}), nil)
			host := w.fleet.Hosts()[0]
			old := w.userCertificate("old", other, host.Login())
			report := w.must(provision.Changed)
			if got := steps(report.Hosts[0]); !strings.Contains(got, tt.step) {
				t.Errorf("did %s, want %s", got, tt.step)
			}
			w.mustLogin(host, old)
			w.mustLogin(host, w.userCertificate("new", w.userCA, host.Login()))
			w.must(provision.Unchanged)
		})
	}
}

// What a run replaces is kept, byte for byte, with mode.
func TestBackup(t *testing.T) {
	w := newWorld(t, fleettest.Start(t, testenv.Config{Host: testenv.HostConfig{NoDropIns: true}}), nil)
	host := w.fleet.Hosts()[0]
	if err := os.Chmod(host.ConfigPath(), 0o640); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(host.ConfigPath())
	if err != nil {
		t.Fatal(err)
	}
	w.must(provision.Changed)
	backups, _ := filepath.Glob(filepath.Join(filepath.Dir(host.ConfigPath()), "fleetca", "backup", "*", "sshd_config"))
	if len(backups) != 1 {
		t.Fatalf("backups: %q", backups)
	}
	kept, err := os.ReadFile(backups[0])
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, before) {
		t.Errorf("the backup differs:\n%s", kept)
	}
	for _, name := range []string{backups[0], host.ConfigPath()} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o640 {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
	}
}

// Less than a third of a certificate's life left: it is renewed, and nothing
// else is done.
func TestRenewal(t *testing.T) {
	w := newWorld(t, fleettest.Start(t, testenv.Config{Host: testenv.HostConfig{KeyTypes: []string{testenv.Ed25519}}}), nil)
	short := func(c *provision.Config, _ *remote.Config) { c.DefaultTTL = time.Hour }
	w.must(provision.Changed, short)
	w.must(provision.Unchanged, short)
	later := func(c *provision.Config, _ *remote.Config) {
		c.Now = func() time.Time { return time.Now().Add(50 * time.Minute) }
	}
	report := w.must(provision.Changed, later)
	if got, want := steps(report.Hosts[0]), "install host certificate for ssh_host_ed25519_key, reload sshd"; got != want {
		t.Errorf("did %s, want %s", got, want)
	}
	w.must(provision.Unchanged)
}

// Files are right, but the running sshd hasn't read them.
func TestReloadOnly(t *testing.T) {
	w := newWorld(t, fleettest.Start(t, testenv.Config{}), nil)
	host := w.fleet.Hosts()[0]
	w.must(provision.Changed)
	dropIn := filepath.Join(filepath.Dir(host.ConfigPath()), "sshd_config.d", "00-fleetca.conf")
	for _, move := range [][2]string{{dropIn, dropIn + ".away"}, {dropIn + ".away", dropIn}} {
		if err := os.Rename(move[0], move[1]); err != nil {
			t.Fatal(err)
		}
		if move[1] != dropIn {
			if err := host.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	report := w.must(provision.Changed)
	if got := steps(report.Hosts[0]); got != "reload sshd" {
		t.Errorf("did %s", got)
	}
}

// The names of a certificate come from the inventory alone.
func TestPrincipals(t *testing.T) {
	w := newWorld(t, fleettest.Start(t, testenv.Config{Names: []string{"web01"}}), map[string]any{
		"fleetca_principals": []string{"WWW.example.com"},
	})
	w.must(provision.Changed)
	for _, e := range w.ledger.entries {
		if got := strings.Join(e.Principals, ","); got != "web01,www.example.com" {
			t.Errorf("a certificate for %s", got)
		}
	}
}

func TestStops(t *testing.T) {
	fleet := fleettest.Start(t, testenv.Config{Names: []string{"web[1:4]"}})
	if err := fleet.Host("web1").Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	quick := func(c *provision.Config, r *remote.Config) { r.Timeout, c.Forks = 300*time.Millisecond, 1 }
	states := func(r *provision.Report) string {
		var s []string
		for _, h := range r.Hosts {
			s = append(s, string(h.State))
		}
		return strings.Join(s, " ")
	}
	t.Run("fail fast", func(t *testing.T) {
		w := newWorld(t, fleet, nil)
		report := w.provision(t.Context(), quick, func(c *provision.Config, _ *remote.Config) { c.MaxFailPercent = 0 })
		if got := states(report); got != "failed not_started not_started not_started" {
			t.Error(got)
		}
		if report.Stopped == "" || report.Err() == nil || report.Interrupted {
			t.Errorf("stopped %q, interrupted %v, error %v", report.Stopped, report.Interrupted, report.Err())
		}
	})
	t.Run("batches", func(t *testing.T) {
		for percent, want := range map[int]string{
			40: "failed not_started not_started not_started", // half of the first batch
			50: "failed changed changed changed",
		} {
			report := newWorld(t, fleet, nil).provision(t.Context(), quick, func(c *provision.Config, _ *remote.Config) {
				c.MaxFailPercent, c.Batches = percent, provision.Batches{{Number: 2}}
			})
			if got := states(report); got != want {
				t.Errorf("at most %d%%: %s, want %s", percent, got, want)
			}
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		w := newWorld(t, fleet, nil)
		ctx, cancel := context.WithCancel(t.Context())
		var begun atomic.Int32
		w.observe = func(e provision.Event) {
			// The second host is under way: it is brought to its end.
			if e.Phase == provision.Gather && begun.Add(1) == 1 {
				cancel()
			}
		}
		report := w.provision(ctx, quick)
		if got := states(report); got != "failed changed not_started not_started" {
			t.Error(got)
		}
		if !report.Interrupted {
			t.Error("the report doesn't say that it was interrupted")
		}
	})
}

func TestHundredHosts(t *testing.T) {
	w := newWorld(t, fleettest.Start(t, testenv.Config{Names: []string{"host[001:100]"}}), nil)
	begun := time.Now()
	w.must(provision.Changed)
	t.Logf("100 hosts changed in %s", time.Since(begun))
	begun = time.Now()
	w.must(provision.Unchanged)
	t.Logf("100 hosts unchanged in %s", time.Since(begun))
}
