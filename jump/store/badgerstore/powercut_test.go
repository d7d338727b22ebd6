package badgerstore

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/fleetca/fleetca/jump/store"
)

// shadow keeps, of each log, what it held when it was last synced: all that a
// machine without power has for certain.
type shadow struct {
	dir string

	mu   sync.Mutex
	keep []string // files that must still be there when something is synced
	lost []string // those that weren't
}

func (s *shadow) fsync(f *os.File) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range s.keep {
		if _, err := os.Stat(name); err != nil {
			s.lost = append(s.lost, name)
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return copyUsed(f, filepath.Join(s.dir, filepath.Base(f.Name())))
}

// copyUsed copies a log up to where it may have content.
func copyUsed(f *os.File, to string) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := io.Copy(out, io.NewSectionReader(f, 0, fi.Size()/2+9*mib)); err != nil {
		return err
	}
	return out.Truncate(fi.Size())
}

// cut makes what is left of a store after the power went: tables and
// bookkeeping, which Badger syncs itself, as they are, logs as they were synced.
func (s *shadow) cut(t *testing.T, dir, to string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.MkdirAll(filepath.Join(to, "badger"), 0o700); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "badger"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		from := filepath.Join(dir, "badger", e.Name())
		if ext := filepath.Ext(e.Name()); ext == ".vlog" || ext == ".mem" {
			from = filepath.Join(s.dir, e.Name())
		}
		raw, err := os.ReadFile(from)
		if errors.Is(err, fs.ErrNotExist) {
			continue // never synced: lost
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, "badger", e.Name()), raw, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestPowerCut checks that what was acknowledged is in files that were synced,
// also when logs became full meanwhile and when one was collected.
func TestPowerCut(t *testing.T) {
	c := small(t.TempDir())
	sh := &shadow{dir: t.TempDir()}
	c.fsync = sh.fsync
	c.noSweep = true // so that nothing moves while the power goes
	s := openStore(t, c)
	blocks := map[string]uint32{}
	var ids []string
	var audit uint64
	record := func(batches int) {
		t.Helper()
		e := openEntry()
		ids = append(ids, e.ID)
		for n := range uint32(batches) {
			b := store.Batch{Blocks: contentBlocks(e.ID, 3*n, 3, mib)}
			if n == 0 {
				b.Sessions = []store.Session{e}
			}
			if err := writeNow(t, s, b); err != nil {
				t.Fatal(err)
			}
			blocks[e.ID] = 3*n + 3
		}
	}
	check := func(when string) {
		t.Helper()
		to := small(t.TempDir())
		s.committing.Lock() // the power goes between two groups
		sh.cut(t, c.Dir, to.Dir)
		s.committing.Unlock()
		left := openStore(t, to)
		defer closeStore(t, left)
		if r, err := left.LastAudit(t.Context()); audit > 0 && (err != nil || r.Sequence != audit) {
			t.Errorf("%s: last audit record is %d, expected %d: %v", when, r.Sequence, audit, err)
		}
		for id, n := range blocks {
			e, err := left.Session(t.Context(), id)
			if err == nil {
				err = checkRecording(t.Context(), left, e, n, mib)
			}
			if err != nil {
				t.Errorf("%s: %v", when, err)
			}
		}
	}
	for range 6 {
		record(6)
	}
	if s.disk.vlog.number < 3 {
		t.Fatalf("only %d value logs were used", s.disk.vlog.number)
	}
	check("after value logs were full")

	// Memtables: many small entries.
	for range 60 {
		var b store.Batch
		for range store.MaxBatchItems {
			audit++
			b.Audit = append(b.Audit, store.AuditRecord{Sequence: audit, Line: make([]byte, 300)})
		}
		if err := writeNow(t, s, b); err != nil {
			t.Fatal(err)
		}
	}
	if s.disk.mem.number < 2 {
		t.Fatalf("only %d memtables were used", s.disk.mem.number)
	}
	check("after memtables were full")

	// Two of three recordings go, so that some value log is half empty at
	// least, and what stays is moved.
	var removed []string
	for i, id := range ids {
		if i%3 > 0 {
			removed = append(removed, id)
			delete(blocks, id)
		}
	}
	if err := writeNow(t, s, store.Batch{Remove: removed}); err != nil {
		t.Fatal(err)
	}
	if err := s.drop(removed); err != nil {
		t.Fatal(err)
	}
	// What is collected must not go before the copy of what is still needed
	// is on disk.
	sh.keep, _ = filepath.Glob(filepath.Join(c.Dir, "badger", "*.vlog"))
	if err := s.collectOne(); err != nil {
		t.Fatal(err)
	}
	if len(sh.keep) < 3 || len(sh.lost) > 0 {
		t.Errorf("of %d value logs some went too early: %q", len(sh.keep), sh.lost)
	}
	left, _ := filepath.Glob(filepath.Join(c.Dir, "badger", "*.vlog"))
	if len(left) >= len(sh.keep) {
		t.Errorf("nothing was collected: %q", left)
	}
	sh.keep = nil
	check("after a value log was collected")
}

// TestFollow holds Badger to what logFiles relies on: logs are numbered in a
// row and only the last one is written, so that all that is written is synced.
func TestFollow(t *testing.T) {
	c := small(t.TempDir())
	synced := map[string]bool{}
	var mu sync.Mutex
	c.fsync = func(f *os.File) error {
		mu.Lock()
		defer mu.Unlock()
		synced[filepath.Base(f.Name())] = true
		return f.Sync()
	}
	s := openStore(t, c)
	e := openEntry()
	if err := writeNow(t, s, store.Batch{Sessions: []store.Session{e}}); err != nil {
		t.Fatal(err)
	}
	var group []store.Block
	for n := range uint32(60) {
		group = append(group, store.Block{Session: e.ID, Number: n, Data: make([]byte, mib)})
	}
	for some := range slices.Chunk(group, 3) {
		if err := s.Write(t.Context(), store.Batch{Blocks: some}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(c.Dir, "badger"))
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	logs := 0
	for _, f := range entries {
		ext := filepath.Ext(f.Name())
		if ext != ".vlog" && ext != ".mem" {
			continue
		}
		logs++
		if !synced[f.Name()] {
			t.Errorf("%s was written and not synced", f.Name())
		}
	}
	if logs < 5 {
		t.Errorf("%d logs, expected value logs of 16 MiB for 60 MiB", logs)
	}
}

// TestSmallerAfterCrash opens what a crash left with the default's memtables
// while the configuration asks for smaller ones, twice.
func TestSmallerAfterCrash(t *testing.T) {
	sh := &shadow{dir: t.TempDir()}
	c := Config{Dir: t.TempDir(), fsync: sh.fsync}
	s := openStore(t, c)
	var audit uint64
	for range 40 {
		var b store.Batch
		for range store.MaxBatchItems {
			audit++
			b.Audit = append(b.Audit, store.AuditRecord{Sequence: audit, Line: make([]byte, 400)})
		}
		if err := writeNow(t, s, b); err != nil {
			t.Fatal(err)
		}
	}
	to := small(t.TempDir())
	sh.cut(t, c.Dir, to.Dir)
	if err := os.Link(filepath.Join(c.Dir, "memtable"), filepath.Join(to.Dir, "memtable")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []uint64{16 * mib, 4 * mib} {
		left := openStore(t, to)
		if left.disk.size.mem != want {
			t.Errorf("memtables of %d MiB, expected %d", left.disk.size.mem/mib, want/mib)
		}
		if r, err := left.LastAudit(t.Context()); err != nil || r.Sequence != audit {
			t.Errorf("last audit record %d, expected %d: %v", r.Sequence, audit, err)
		}
		closeStore(t, left)
	}
}
