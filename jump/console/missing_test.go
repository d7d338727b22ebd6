package console

import (
	"strings"
	"testing"
	"time"

	"github.com/fleetca/fleetca/jump/access"
	"github.com/fleetca/fleetca/jump/audit"
	"github.com/fleetca/fleetca/jump/recording"
	"github.com/fleetca/fleetca/jump/store"
)

// TestMissing finds recordings that the audit log tells were made, and that
// somebody took out of the store without a word.
func TestMissing(t *testing.T) {
	f := newFixture(t)
	alice, bob, _ := f.three()
	gone := f.add(3*time.Minute, store.Session{Identity: "alice", Kind: store.KindTerminal}, output(0, "what was done"))
	removed := f.add(4*time.Minute, store.Session{Identity: "bob", Kind: store.KindTerminal}, output(0, "x"))
	f.must(auditor, "sessions rm "+removed.ID)
	old := f.add(5*time.Minute, store.Session{Identity: "bob", Kind: store.KindTerminal}, output(0, "x"))
	f.record(audit.Event{Event: audit.EventRemove, SID: old.ID, Reason: "retention"})
	// A forwarding, one that a crash may have taken, and ones without a recording.
	port, cut, off, effort := store.NewID(began), store.NewID(began), store.NewID(began), store.NewID(began)
	f.record(audit.Event{Event: audit.EventPort, User: "bob", SID: port, Recording: strings.Repeat("ab", 32)})
	f.record(audit.Event{Event: audit.EventSessionStart, User: "bob", SID: cut, Mode: recording.Strict})
	f.record(audit.Event{Event: audit.EventSessionStart, User: "bob", SID: effort, Mode: recording.BestEffort})
	f.record(audit.Event{Event: audit.EventSessionStart, User: "bob", SID: off, Mode: recording.Off})
	f.record(audit.Event{Event: audit.EventSessionEnd, User: "bob", SID: off, Mode: recording.Off})
	f.write(store.Batch{Remove: []string{gone.ID, old.ID}})

	check := func(caller Caller, line, summary string, want ...string) {
		t.Helper()
		out, errs, code := f.run(caller, line)
		if code != 1 || !strings.Contains(errs, summary) || strings.Count(out, "\n") != len(want) {
			t.Errorf("%s: %d\n%s%s", line, code, out, errs)
		}
		for _, id := range want {
			if !strings.Contains(out, id) {
				t.Errorf("%s: lacks %s:\n%s", line, id, out)
			}
		}
	}
	check(auditor, "sessions verify --all", "0 damaged, 2 missing\nfleetjump: 2 recordings missing\n",
		gone.ID+"  missing: the audit log tells that it was made", port)
	check(auditor, "audit --verify", "fleetjump: 2 recordings missing\n", "recording "+gone.ID+" is missing", port)
	check(auditor, "audit --verify --json", "2 recordings missing", `"missing_recordings":["`)
	check(Caller{Identity: "alice", Scope: access.Own}, "sessions verify --all", "1 recording missing", gone.ID)
	if _, errs, code := f.run(Caller{Identity: "ann", Scope: access.Own}, "sessions verify --all"); code != 0 || strings.Contains(errs, "missing") {
		t.Errorf("somebody else: %d %s", code, errs)
	}
	if _, errs, code := f.run(auditor, "sessions verify --all --since 2026-11-21T15:00"); code != 0 {
		t.Errorf("--since: %d %s", code, errs)
	}
	out, _, _ := f.run(auditor, "sessions verify --all --json")
	if !strings.Contains(out, `{"id":"`+gone.ID+`","condition":"missing","intact":false`) || !strings.Contains(out, alice.ID) || !strings.Contains(out, bob.ID) {
		t.Errorf("--json: %s", out)
	}
}
