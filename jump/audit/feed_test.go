package audit

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetca/fleetca/jump/store"
)

// stored are the users of the records in the store.
func stored(t *testing.T, s store.Store) string {
	t.Helper()
	var all []string
	for r, err := range s.Audit(t.Context(), store.AuditQuery{}) {
		must(t, err)
		all = append(all, r.Identity)
	}
	return strings.Join(all, " ")
}

// TestStoreIsFilledUp gives a store what it missed: all of it if it is new, and
// what came after its last record if a crash lost some.
func TestStoreIsFilledUp(t *testing.T) {
	dir := t.TempDir()
	c := newClock()
	l := openLog(t, Config{Dir: dir, Now: c.now})
	var want []string
	for i := range 3 * feedRecords {
		if i%200 == 0 {
			c.add(24 * time.Hour)
		}
		want = append(want, fmt.Sprint(i))
		record(t, l, want[i])
	}
	must(t, l.Close())

	s := newStore(t)
	lines := fileLines(t, dir, "2026-11-22")
	var batch store.Batch
	for _, line := range lines[:150] {
		r, err := parse([]byte(line))
		must(t, err)
		batch.Audit = append(batch.Audit, r.stored())
	}
	must(t, s.Write(t.Context(), batch, nil))
	must(t, s.Sync(t.Context()))
	for name, s := range map[string]store.Store{"a new store": newStore(t), "a store that is behind": s} {
		l = openLog(t, Config{Dir: dir, Now: c.now, Store: s})
		if got := users(t, l, store.AuditQuery{}); got != strings.Join(want, " ") {
			t.Errorf("%s: query: %s", name, got)
		}
		if got := stored(t, s); got != strings.Join(want, " ") {
			t.Errorf("%s: stored: %s", name, got)
		}
		report, err := l.Verify(t.Context())
		must(t, err)
		if report.Count != 0 {
			t.Errorf("%s: %v", name, report.Problems)
		}
		must(t, l.Close())
	}
}

// TestFullStore goes on without the store, answers queries from the files, and
// gives the store the rest once it takes it.
func TestFullStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		l, err := Open(t.Context(), Config{Dir: t.TempDir(), Store: s})
		must(t, err)
		record(t, l, "a", "b")
		if got := users(t, l, store.AuditQuery{}); got != "a b" || stored(t, s) != got {
			t.Errorf("query: %s; stored: %s", got, stored(t, s))
		}
		s.SetLevel(store.Full)
		record(t, l, "c", "d")
		for range 2 {
			if got := users(t, l, store.AuditQuery{}); got != "a b c d" {
				t.Errorf("query while the store is full: %s", got)
			}
		}
		if got := users(t, l, store.AuditQuery{Identity: "[a-d]"}) + users(t, l, store.AuditQuery{Identity: "?", Limit: 2}); got != "a b" {
			t.Errorf("query: %s", got)
		}
		if got := stored(t, s); got != "a b" {
			t.Errorf("stored in a full store: %s", got)
		}
		s.SetLevel(store.Plenty)
		time.Sleep(2 * retryEvery)
		synctest.Wait()
		if got := stored(t, s); got != "a b c d" {
			t.Errorf("stored later: %s", got)
		}
		// What comes last is stored too.
		record(t, l, "e")
		must(t, l.Close())
		if got := stored(t, s); got != "a b c d e" {
			t.Errorf("stored after Close: %s", got)
		}
	})
}

// TestHangingStore holds up neither records nor Close for long.
func TestHangingStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		l, err := Open(t.Context(), Config{Dir: t.TempDir(), Store: s})
		must(t, err)
		s.Hold()
		record(t, l, "a")
		time.Sleep(time.Minute)
		record(t, l, "b")
		must(t, l.Sync(t.Context()))
		began := time.Now()
		must(t, l.Close())
		if took := time.Since(began); took > lastFeed {
			t.Errorf("Close took %v", took)
		}
		mustVerify(t, l.dir)
	})
}

func TestQuery(t *testing.T) {
	s := newStore(t)
	c := newClock()
	for name, s := range map[string]store.Store{"files": nil, "store": s} {
		l := openLog(t, Config{Dir: t.TempDir(), Store: s, Now: c.now})
		first := c.now()
		for _, e := range []Event{
			{Event: EventSCP, User: "joe", Host: "web01", Path: "/tmp/a\nb", SHA256: "abc", SID: "s1"},
			{Event: EventSFTP, User: "ann", Login: "root", Host: "db01", Path: "/etc/shadow"},
			{Event: EventExec, User: "joe\x1b", Login: "root", Host: "WEB02"},
		} {
			must(t, l.Record(t.Context(), e))
			c.add(time.Hour)
		}
		for i, tc := range []struct {
			q    store.AuditQuery
			want string
		}{
			{store.AuditQuery{}, `joe ann joe\x1b`},
			{store.AuditQuery{Identity: "joe"}, "joe"},
			{store.AuditQuery{Identity: "joe\x1b"}, `joe\x1b`},
			{store.AuditQuery{Path: "/tmp/a\nb"}, "joe"},
			{store.AuditQuery{Path: "/etc/*"}, "ann"},
			{store.AuditQuery{Host: "web*"}, `joe joe\x1b`},
			{store.AuditQuery{Login: "root", Limit: 1}, "ann"},
			{store.AuditQuery{SHA256: "ABC"}, "joe"},
			{store.AuditQuery{Session: "s1"}, "joe"},
			{store.AuditQuery{Event: "s*p"}, "joe ann"},
			{store.AuditQuery{FromSequence: 3}, `joe\x1b`},
			{store.AuditQuery{Since: first.Add(time.Hour)}, `ann joe\x1b`},
			{store.AuditQuery{Until: first.Add(time.Hour)}, "joe"},
			{store.AuditQuery{Identity: "nobody"}, ""},
		} {
			if got := users(t, l, tc.q); got != tc.want {
				t.Errorf("%s: query %d: got %q, want %q", name, i, got, tc.want)
			}
		}
		for range l.Query(t.Context(), store.AuditQuery{}) {
			break // a caller may stop
		}
	}
}

// TestFilesEndEarly opens a log whose newest file was cut off or taken back to
// an older state, while the store has seen more.
func TestFilesEndEarly(t *testing.T) {
	dir := t.TempDir()
	s := newStore(t)
	c := newClock()
	config := Config{Dir: dir, Store: s, Now: c.now}
	l := openLog(t, config)
	record(t, l, "a", "b", "c")
	must(t, l.Close())
	path := filepath.Join(dir, "2026-11-21.jsonl")
	lines := fileLines(t, dir, "2026-11-21")
	must(t, os.WriteFile(path, []byte(lines[0]+"\n"), 0o600))

	l = openLog(t, config)
	record(t, l, "d")
	var damage []string
	for r, err := range l.Query(t.Context(), store.AuditQuery{Event: EventDamage}) {
		must(t, err)
		damage = append(damage, r.Reason)
	}
	if want := "the files end at record 1, but the store has seen 3"; len(damage) != 1 || damage[0] != want {
		t.Errorf("damage %q", damage)
	}
	report, err := l.Verify(t.Context())
	must(t, err)
	got := fmt.Sprint(report.Problems)
	for _, want := range []string{
		"2026-11-21.jsonl:2: records 2 to 3 are missing",
		"2026-11-21.jsonl:2: record 2 is in the store but not in the files",
		"2026-11-21.jsonl:2: record 3 is in the store but not in the files",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not told: %s", want, got)
		}
	}
	if got := stored(t, s); got != "a b c  d" {
		t.Errorf("the store lost something: %s", got)
	}
}

// TestLastLineEdited opens a log whose last line is not the one that the store
// was given, which no chain shows.
func TestLastLineEdited(t *testing.T) {
	dir := t.TempDir()
	s := newStore(t)
	c := newClock()
	config := Config{Dir: dir, Store: s, Now: c.now}
	l := openLog(t, config)
	record(t, l, "a", "mallory")
	must(t, l.Close())
	path := filepath.Join(dir, "2026-11-21.jsonl")
	lines := fileLines(t, dir, "2026-11-21")
	must(t, os.WriteFile(path, []byte(lines[0]+"\n"+strings.Replace(lines[1], "mallory", "alice", 1)+"\n"), 0o600))
	mustVerify(t, dir) // the files alone don't tell
	l = openLog(t, config)
	if got := users(t, l, store.AuditQuery{Event: EventDamage}); got != "" {
		t.Errorf("users of the damage: %q", got)
	}
	found := 0
	for r, err := range l.Query(t.Context(), store.AuditQuery{Event: EventDamage}) {
		must(t, err)
		found++
		if r.Reason != "record 2 in the files is not what the store was given" {
			t.Errorf("reason %q", r.Reason)
		}
	}
	report, err := l.Verify(t.Context())
	must(t, err)
	if found != 1 || report.Count != 1 || report.Problems[0].Line != 2 {
		t.Errorf("%d events, problems %v", found, report.Problems)
	}
}
