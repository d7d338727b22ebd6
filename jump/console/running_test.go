package console

import (
	"context"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/fleetca/fleetca/jump/live"
	"github.com/fleetca/fleetca/jump/store"
)

// TestOpenButNotRunning takes a session that is open in the store, but that no
// server runs, for what it is: interrupted.
func TestOpenButNotRunning(t *testing.T) {
	f := newFixture(t)
	left := f.add(0, store.Session{Identity: "alice", Host: "web01", Kind: store.KindTerminal, State: store.Open}, output(0, "x"))
	runs := f.add(time.Minute, store.Session{Identity: "alice", Host: "web02", Kind: store.KindTerminal, State: store.Open}, output(0, "x"))
	over := f.live.Add(live.Entry{Session: runs, End: func(string) {}})
	// Its start is being audited: it isn't in the registry yet.
	starts := f.add(2*time.Hour, store.Session{Identity: "alice", Host: "web03", Kind: store.KindTerminal, State: store.Open}, output(0, "x"))

	for state, want := range map[string][]store.Session{"open": {runs, starts}, "interrupted": {left}, "ended": nil} {
		out := f.must(auditor, "sessions ls --json --state "+state)
		if strings.Count(out, "\n") != len(want) {
			t.Errorf("%s: %s", state, out)
		}
		for _, s := range want {
			if !strings.Contains(out, s.ID) || !strings.Contains(out, `"state":"`+state+`"`) {
				t.Errorf("%s: lacks %s: %s", state, s.Host, out)
			}
		}
	}
	for _, id := range []string{left.ID, short(left.ID)} {
		if out := f.must(auditor, "sessions show "+id); !strings.Contains(out, "exit       interrupted") || !strings.Contains(out, "verified   interrupted: intact") {
			t.Errorf("show: %s", out)
		}
	}
	if _, errs, code := f.run(auditor, "sessions verify --all"); code != 0 || !strings.Contains(errs, "1 interrupted, 2 running") {
		t.Errorf("verify: %d %s", code, errs)
	}
	f.refused(auditor, "sessions rm "+left.ID+" "+runs.ID, 1, "is running")
	f.refused(auditor, "sessions rm "+starts.ID, 1, "is running")
	f.must(auditor, "sessions rm "+left.ID)

	// It left the registry without having been closed in the store.
	over()
	if out := f.must(auditor, "sessions ls --host web02"); !strings.Contains(out, "interrupted") {
		t.Errorf("ls: %s", out)
	}
	f.cfg.Live = nil // where no server runs, no session does
	f.must(auditor, "sessions rm "+runs.ID+" "+starts.ID)
	if out, _, _ := f.run(auditor, "sessions ls"); out != "" {
		t.Errorf("left: %s", out)
	}
}

// endsMeanwhile is a store in which sessions end, in order, between being
// listed and being read.
type endsMeanwhile struct {
	store.Store
	f  *fixture
	id string
}

func (e endsMeanwhile) Sessions(ctx context.Context, q store.Query) iter.Seq2[store.Session, error] {
	return func(yield func(store.Session, error) bool) {
		for s, err := range e.Store.Sessions(ctx, q) {
			if s.ID == e.id && s.State == store.Open {
				ended := s
				ended.State, ended.ExitStatus = store.Ended, status(7)
				e.f.write(store.Batch{Sessions: []store.Session{ended}})
			}
			if !yield(s, err) {
				return
			}
		}
	}
}

// TestEndedMeanwhile never takes a session for interrupted that has just ended.
func TestEndedMeanwhile(t *testing.T) {
	f := newFixture(t)
	s := f.add(0, store.Session{Identity: "alice", Host: "web01", Kind: store.KindTerminal, State: store.Open}, output(0, "x"))
	f.cfg.Store = endsMeanwhile{f.store, f, s.ID}
	if out := f.must(auditor, "sessions ls"); strings.Contains(out, "interrupted") || !strings.Contains(out, "7") {
		t.Errorf("ls: %s", out)
	}
}
