package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetca/fleetca/jump/store"
	"github.com/fleetca/fleetca/jump/store/memstore"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// clock is set by hand.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2026, 11, 21, 23, 59, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func newStore(t *testing.T) *memstore.Store {
	t.Helper()
	s := memstore.New()
	t.Cleanup(func() {
		s.Release()
		must(t, s.Close())
	})
	return s
}

// openLog opens a log that is closed with the test, if not before.
func openLog(t *testing.T, c Config) *Log {
	t.Helper()
	l, err := Open(t.Context(), c)
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// record writes events by their users' names.
func record(t *testing.T, l *Log, users ...string) {
	t.Helper()
	for _, u := range users {
		must(t, l.Record(t.Context(), Event{Event: EventAuth, User: u}))
	}
}

func fileLines(t *testing.T, dir, day string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, day+extension))
	must(t, err)
	return slices.Collect(strings.SplitSeq(strings.TrimSuffix(string(b), "\n"), "\n"))
}

// users are those of the records that a query finds, in order.
func users(t *testing.T, l *Log, q store.AuditQuery) string {
	t.Helper()
	var all []string
	for r, err := range l.Query(t.Context(), q) {
		must(t, err)
		all = append(all, r.User)
	}
	return strings.Join(all, " ")
}

func mustVerify(t *testing.T, dir string) Report {
	t.Helper()
	r, err := Verify(dir)
	must(t, err)
	if r.Count != 0 {
		t.Errorf("problems: %v", r.Problems)
	}
	return r
}

// TestDaysAndRestarts keeps one chain over files and processes.
func TestDaysAndRestarts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "audit")
	c := newClock()
	config := Config{Dir: dir, ServerID: "jump1", Now: c.now}
	l := openLog(t, config)
	record(t, l, "a", "b")
	c.add(time.Minute)
	record(t, l, "c")
	must(t, l.Close())
	l = openLog(t, config)
	record(t, l, "d")
	c.add(24 * time.Hour)
	l2, err := Open(t.Context(), config)
	if err == nil {
		t.Error("opened twice")
		must(t, l2.Close())
	}
	must(t, l.Close())
	l = openLog(t, config)
	record(t, l, "e")
	c.add(-48 * time.Hour) // a clock put back does not write to old files
	record(t, l, "f")
	must(t, l.Close())

	for day, want := range map[string]int{"2026-11-21": 2, "2026-11-22": 2, "2026-11-23": 2} {
		if n := len(fileLines(t, dir, day)); n != want {
			t.Errorf("%s has %d lines, want %d", day, n, want)
		}
		info, err := os.Stat(filepath.Join(dir, day+extension))
		must(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", day, info.Mode())
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v, %v", info.Mode(), err)
	}
	r := mustVerify(t, dir)
	if r.Files != 3 || r.Records != 6 || r.First != 1 || r.Last != 6 || len(r.LastHash) != 64 || r.Aside != nil {
		t.Errorf("report %+v", r)
	}
	first := fileLines(t, dir, "2026-11-21")[0]
	want := `{"event":"auth","time":"2026-11-21T23:59:00Z","user":"a","server_id":"jump1","seq":1,"prev":"` + strings.Repeat("0", 64) + `"}`
	if first != want {
		t.Errorf("first line\n%s\nwant\n%s", first, want)
	}
	l = openLog(t, config)
	if got := users(t, l, store.AuditQuery{}); got != "a b c d e f" {
		t.Errorf("query: %s", got)
	}
}

func TestRefusals(t *testing.T) {
	if _, err := Open(t.Context(), Config{}); err == nil || err.Error() != "opening audit log: Dir not set" {
		t.Errorf("no Dir: %v", err)
	}
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o777))
	if _, err := Open(t.Context(), Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "others than its owner") {
		t.Errorf("a folder for all: %v", err)
	}
	must(t, os.Chmod(dir, 0o700))
	must(t, os.Symlink("/dev/null", filepath.Join(dir, "2026-11-21.jsonl")))
	if _, err := Open(t.Context(), Config{Dir: dir}); err == nil {
		t.Error("a link was taken for a file")
	}
	link := filepath.Join(dir, "2026-11-21.jsonl")
	must(t, os.Remove(link))
	must(t, os.WriteFile(link, nil, 0o600))
	must(t, os.Chmod(link, 0o620))
	if _, err := Open(t.Context(), Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "others than its owner") {
		t.Errorf("a file for all: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	if _, err := Open(t.Context(), Config{Dir: file}); err == nil {
		t.Error("a file was taken for a folder")
	}
	l := openLog(t, Config{Dir: t.TempDir()})
	if err := l.Record(t.Context(), Event{}); err == nil {
		t.Error("an event without a name was taken")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Record(ctx, Event{Event: EventAuth}); !errors.Is(err, context.Canceled) {
		t.Errorf("ended ctx: %v", err)
	}
	must(t, l.Close())
	must(t, l.Close())
	if err := l.Record(t.Context(), Event{Event: EventAuth}); !errors.Is(err, ErrClosed) {
		t.Errorf("after close: %v", err)
	}
	if report := mustVerify(t, l.dir); report.Records != 0 {
		t.Errorf("refused events are in the log: %+v", report)
	}
}

func TestConcurrentRecords(t *testing.T) {
	const writers, each = 8, 50
	s := newStore(t)
	c := newClock()
	l := openLog(t, Config{Dir: t.TempDir(), Store: s, Now: c.now})
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if err := l.Record(t.Context(), Event{Event: EventExec, User: fmt.Sprint(w), Command: fmt.Sprint(i)}); err != nil {
					t.Error(err)
				}
				switch i {
				case 10:
					must(t, l.Sync(t.Context()))
				case 20 + w:
					c.add(6 * time.Hour)
				case 30:
					_ = users(t, l, store.AuditQuery{Identity: fmt.Sprint(w)})
				}
			}
		})
	}
	wg.Wait()
	report, err := l.Verify(t.Context())
	must(t, err)
	if report.Count != 0 || report.Records != writers*each || report.Files != 3 {
		t.Errorf("report %+v", report)
	}
	next := map[string]int{}
	for r, err := range l.Query(t.Context(), store.AuditQuery{}) {
		must(t, err)
		if r.Command != fmt.Sprint(next[r.User]) {
			t.Fatalf("user %s: command %s, want %d", r.User, r.Command, next[r.User])
		}
		next[r.User]++
	}
}

// TestHeal opens what a crash may leave.
func TestHeal(t *testing.T) {
	day := "2026-11-21"
	for name, tc := range map[string]struct {
		damage func(lines string) string
		torn   string
		keeps  int
	}{
		"half a line":           {func(s string) string { return s + `{"event":"au` }, `{"event":"au`, 3},
		"without its newline":   {func(s string) string { return s[:len(s)-1] }, "", 2},
		"zeros":                 {func(s string) string { return s + strings.Repeat("\x00", 5000) }, strings.Repeat("\x00", 5000), 3},
		"zeros with an end":     {func(s string) string { return s + "\x00\x00\n" }, "\x00\x00\n", 3},
		"nothing but half":      {func(string) string { return "{" }, "{", 0},
		"a very long torn line": {func(s string) string { return s + strings.Repeat("x", 3<<20) }, strings.Repeat("x", 3<<20), 3},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c := newClock()
			config := Config{Dir: dir, Now: c.now}
			l := openLog(t, config)
			record(t, l, "a", "b", "c")
			must(t, l.Close())
			path := filepath.Join(dir, day+extension)
			whole, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(path, []byte(tc.damage(string(whole))), 0o600))

			l = openLog(t, config)
			record(t, l, "d")
			must(t, l.Close())
			report := mustVerify(t, dir)
			if len(report.Aside) != 1 || report.Records != uint64(tc.keeps)+2 {
				t.Errorf("report %+v", report)
			}
			aside, err := os.ReadFile(path + asideExtension)
			must(t, err)
			if tc.torn != "" && string(aside) != tc.torn+"\n" {
				t.Errorf("put aside: %.100q", aside)
			}
			lines := fileLines(t, dir, day)
			r, err := parse([]byte(lines[tc.keeps]))
			must(t, err)
			if r.Event.Event != EventDamage || r.Path != day+extension || r.Target != day+extension+asideExtension ||
				r.Len == nil || int(*r.Len) != len(aside)-1 {
				t.Errorf("told as %s", lines[tc.keeps])
			}
			if !bytes.HasPrefix(whole, []byte(strings.Join(lines[:tc.keeps], "\n"))) {
				t.Error("whole lines were changed")
			}
		})
	}
}

// TestHealLargeFile has more in the file than is read for its end, before and
// after the last whole line.
func TestHealLargeFile(t *testing.T) {
	for _, torn := range []int{0, 100, 2 * tail} {
		dir := t.TempDir()
		s := newStore(t)
		c := newClock()
		config := Config{Dir: dir, Now: c.now, Store: s}
		l := openLog(t, config)
		for range 300 {
			must(t, l.Record(t.Context(), Event{Event: EventExec, User: "a", Command: strings.Repeat("\n", maxValue/2)}))
		}
		must(t, l.Close())
		path := filepath.Join(dir, "2026-11-21.jsonl")
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		must(t, err)
		_, err = f.Write(make([]byte, torn))
		must(t, err)
		must(t, f.Close())
		if info, err := os.Stat(path); err != nil || info.Size() < tail {
			t.Fatalf("the file has only %d bytes, %v", info.Size(), err)
		}
		l = openLog(t, config)
		record(t, l, "b")
		report, err := l.Verify(t.Context())
		must(t, err)
		if want := 301 + uint64(min(torn, 1)); report.Count != 0 || report.Records != want {
			t.Errorf("%d torn bytes: %d records, want %d; %v", torn, report.Records, want, report.Problems)
		}
		if got := users(t, l, store.AuditQuery{FromSequence: 300, Event: EventAuth}); got != "b" {
			t.Errorf("%d torn bytes: found %q", torn, got)
		}
	}
}

// TestHealOverDays has a crash just after a file was made, or with it.
func TestHealOverDays(t *testing.T) {
	for _, left := range []string{"", "{"} {
		dir := t.TempDir()
		c := newClock()
		config := Config{Dir: dir, Now: c.now}
		l := openLog(t, config)
		record(t, l, "a")
		must(t, l.Close())
		must(t, os.WriteFile(filepath.Join(dir, "2026-11-22.jsonl"), []byte(left), 0o600))
		c.add(time.Hour)
		l = openLog(t, config)
		record(t, l, "b")
		must(t, l.Close())
		if r := mustVerify(t, dir); r.Records != 2+uint64(len(left)) || r.Files != 2 {
			t.Errorf("left %q: %+v", left, r)
		}
	}
}

// TestSyncTime checks that lines are on disk after 100 ms, and that an idle log
// does nothing.
func TestSyncTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		l, err := open(t.Context(), Config{Dir: t.TempDir()}, d.open)
		must(t, err)
		for range 50 {
			record(t, l, "a")
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		if n := d.syncs.Load(); n != 0 {
			t.Errorf("%d syncs after 50 ms", n)
		}
		time.Sleep(50 * time.Millisecond)
		synctest.Wait()
		if n := d.syncs.Load(); n != 1 || l.durable != 50 {
			t.Errorf("%d syncs after 100 ms, %d records are durable", n, l.durable)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := d.syncs.Load(); n != 1 {
			t.Errorf("%d syncs after an idle hour", n)
		}
		record(t, l, "b")
		began := time.Now()
		must(t, l.Sync(t.Context()))
		if time.Since(began) != 0 || d.syncs.Load() != 2 {
			t.Errorf("Sync took %v and made %d syncs", time.Since(began), d.syncs.Load()-1)
		}
		must(t, l.Close())
	})
}
