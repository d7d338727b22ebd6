package jump_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/jump/access"
	"github.com/fleetca/fleetca/jump/config"
	"github.com/fleetca/fleetca/jump/store"
	"github.com/fleetca/fleetca/jump/store/memstore"
)

// failing is a store that can be made to take nothing.
type failing struct {
	store.Store
	fail chan struct{} // closed: no more writes
	err  error
}

func (f *failing) Write(ctx context.Context, b store.Batch, committed func(error)) error {
	select {
	case <-f.fail:
		if !b.Closing {
			return f.err
		}
	default:
	}
	return f.Store.Write(ctx, b, committed)
}

// TestStoreFull: strict sessions end with the reason, best_effort ones go on, new
// strict ones are refused.
func TestStoreFull(t *testing.T) {
	strict, best := openRole(), openRole()
	strict.Identities = []string{"joe"}
	best.Name, best.Identities, best.Recording = "best", []string{"ann"}, access.BestEffort
	f := &failing{Store: memstore.New(), fail: make(chan struct{}), err: store.ErrFull}
	w := newWorld(t, worldConfig{roles: []access.Role{strict, best}, store: f})
	results := make(chan string, 2)
	run := func(who string) {
		p := w.person(personConfig{identity: who})
		go func() {
			go_ := filepath.Join(w.dir, "go")
			r := p.run(p.ssh(append(p.ways()["jump"]("web1"), "echo begun; while ! test -e "+go_+"; do sleep 0.05; done; echo more; sleep 1; echo end")...))
			results <- fmt.Sprintf("%s %d %q %q", who, r.code, r.stdout, r.stderr)
		}()
	}
	run("joe")
	run("ann")
	w.eventually("both have begun", func() bool { return len(w.events("session.start")) == 2 })
	close(f.fail)
	if err := os.WriteFile(filepath.Join(w.dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r := <-results
		switch {
		case strings.HasPrefix(r, "joe") && (!strings.Contains(r, "joe 255") || !strings.Contains(r, "recording store full") || strings.Contains(r, "end\\n")):
			t.Errorf("strict: %s", r)
		case strings.HasPrefix(r, "ann") && (!strings.Contains(r, "ann 0") || !strings.Contains(r, "more\\nend\\n")):
			t.Errorf("best effort: %s", r)
		}
	}
	p := w.person(personConfig{})
	for name, way := range p.ways() {
		if r := p.run(p.ssh(append(way("web1"), "echo no")...)); r.code != 255 || r.stdout != "" || !strings.Contains(r.stderr, "recording store full") {
			t.Errorf("%s: got %+v", name, r)
		}
	}
}

// TestShellWithoutTerminal: a shell is recorded whole, with or without a terminal.
func TestShellWithoutTerminal(t *testing.T) {
	w := newWorld(t, worldConfig{})
	p := w.person(personConfig{})
	cmd := p.ssh(append([]string{"-T"}, p.ways()["jump"]("web1")...)...)
	cmd.Stdin = strings.NewReader("head -c 6000000 /dev/zero\necho and now the deed\n")
	r := p.run(cmd)
	if len(r.stdout) < 6_000_000 || w.raw(w.sessions(1)[0].ID) != r.stdout {
		t.Errorf("%d bytes shown, %d recorded", len(r.stdout), len(w.raw(w.sessions(1)[0].ID)))
	}
}

// TestAskedIsRecorded: what was asked for is recorded beside what ran.
func TestAskedIsRecorded(t *testing.T) {
	w := newWorld(t, worldConfig{})
	p := w.person(personConfig{change: func(c *ssh.Certificate) {
		c.CriticalOptions = map[string]string{"force-command": `sh -c "$SSH_ORIGINAL_COMMAND"`}
	}, extra: "SetEnv LC_SECRET=hidden"})
	r := p.run(p.ssh(append(p.ways()["jump"]("web1"), "echo the deed")...))
	s := w.sessions(1)[0]
	if r.stdout != "the deed\n" || !strings.Contains(s.Command, "SSH_ORIGINAL_COMMAND") {
		t.Errorf("got %+v, %+v", r, s)
	}
	for _, kind := range []string{"session.start", "exec"} {
		if e := w.events(kind); len(e) != 1 || e[0].Asked != "echo the deed" {
			t.Errorf("%s: %+v", kind, e)
		}
	}
	all := w.exported(s.ID)
	for _, want := range []string{"echo the deed", "SSH_ORIGINAL_COMMAND", "LC_SECRET", "hidden"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not recorded: %s", want, all)
		}
	}
}

// TestRetention: what is too old goes, and that stands in the audit.
func TestRetention(t *testing.T) {
	st := memstore.New()
	t.Cleanup(func() { _ = st.Close() })
	begun := time.Now().Add(-48 * time.Hour)
	old := store.Session{
		ID: store.NewID(begun), Identity: "joe", Login: "root", Host: "web1", Kind: store.KindTerminal, Mode: "strict",
		Started: begun, State: store.Open,
	}
	put := func(s store.Session) {
		done := make(chan error, 1)
		if err := st.Write(context.Background(), store.Batch{Sessions: []store.Session{s}, Soon: true}, func(err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	put(old)
	old.State, old.Ended = store.Ended, begun.Add(time.Minute)
	put(old)
	w := newWorld(t, worldConfig{store: st, settings: func(c *config.Config) { c.Store.RetainFor = 24 * time.Hour }})
	w.eventually("it is gone", func() bool {
		_, err := st.Session(context.Background(), old.ID)
		return errors.Is(err, store.ErrNotFound)
	})
	if e := w.events("recording.remove"); len(e) != 1 || e[0].SID != old.ID || !strings.Contains(e[0].Reason, "joe") || e[0].User != "" {
		t.Errorf("audit: %+v", e)
	}
}

// TestUnwritableAudit: what can't be audited doesn't happen, and the person reads
// so.
func TestUnwritableAudit(t *testing.T) {
	w := newWorld(t, worldConfig{})
	p := w.person(personConfig{})
	if err := w.audit.Close(); err != nil {
		t.Fatal(err)
	}
	for name, way := range p.ways() {
		r := p.run(p.ssh(append(way("web1"), "echo unseen")...))
		if r.code != 255 || r.stdout != "" || !strings.Contains(r.stderr, "audit") {
			t.Errorf("%s: got %+v", name, r)
		}
	}
}

// TestNotRecorded: a role may say that nothing is recorded; that is audited.
func TestNotRecorded(t *testing.T) {
	role := openRole()
	role.Recording = access.Off
	w := newWorld(t, worldConfig{roles: []access.Role{role}})
	p := w.person(personConfig{})
	if r := p.run(p.ssh(append(p.ways()["jump"]("web1"), "echo something private")...)); r.stdout != "something private\n" {
		t.Fatalf("got %+v", r)
	}
	s := w.sessions(1)[0]
	e := w.events("session.start")
	if s.Mode != "off" || s.Blocks != 0 || len(e) != 1 || e[0].Mode != "off" || e[0].Command != "echo something private" {
		t.Errorf("session %+v, audit %+v", s, e)
	}
}
