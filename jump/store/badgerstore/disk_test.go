package badgerstore

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fleetca/fleetca/jump/store"
	"github.com/fleetca/fleetca/jump/store/storetest"
)

// TestSlowDisk checks that what writers offer to a disk that has stopped stays
// with them, and goes on when it does.
func TestSlowDisk(t *testing.T) {
	c := small(t.TempDir())
	var stuck sync.Mutex
	c.fsync = func(f *os.File) error {
		stuck.Lock()
		defer stuck.Unlock()
		return f.Sync()
	}
	s := openStore(t, c)
	var sessions []store.Session
	for range 100 {
		sessions = append(sessions, openEntry())
	}
	if err := writeNow(t, s, store.Batch{Sessions: sessions}); err != nil {
		t.Fatal(err)
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	stuck.Lock()
	data := make([]byte, 3*mib) // shared by all, so that only copies count
	var taken atomic.Int64
	var wg sync.WaitGroup
	var committed sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, e := range sessions {
		wg.Go(func() {
			for n := range uint32(4) {
				committed.Add(1)
				err := s.Write(ctx, store.Batch{Blocks: []store.Block{{Session: e.ID, Number: n, Data: data}}}, func(err error) {
					defer committed.Done()
					if err != nil {
						t.Error(err)
					}
				})
				if err != nil {
					committed.Done()
					if !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
					return
				}
				taken.Add(1)
			}
		})
	}
	waitFor(t, "writers that wait", func() bool { return taken.Load() >= 5 })
	// A read is not held up.
	if _, err := s.Session(t.Context(), sessions[0].ID); err != nil {
		t.Error(err)
	}
	if n := taken.Load(); n > queueBytes/(3*mib) {
		t.Errorf("%d batches of 3 MiB were taken, the queue holds %d MiB", n, queueBytes/mib)
	}
	if after := heap(); after > before+48*mib {
		t.Errorf("memory went from %d to %d MiB, with a queue of %d MiB", before/mib, after/mib, queueBytes/mib)
	}
	ctx2, cancel2 := context.WithCancel(t.Context())
	cancel2()
	if err := s.Write(ctx2, store.Batch{Blocks: []store.Block{{Session: sessions[0].ID, Data: data}}}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a writer that doesn't want to wait: %v", err)
	}
	cancel() // 1.2 GiB needn't be written
	wg.Wait()
	stuck.Unlock()
	committed.Wait()
	closeStore(t, s)
}

func TestBrokenDisk(t *testing.T) {
	c := small(t.TempDir())
	var broken atomic.Bool
	c.fsync = func(f *os.File) error {
		if broken.Load() {
			return unix.EIO
		}
		return f.Sync()
	}
	s := openStore(t, c)
	e := openEntry()
	if err := writeNow(t, s, store.Batch{Sessions: []store.Session{e}}); err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	err := writeNow(t, s, store.Batch{Blocks: contentBlocks(e.ID, 0, 1, 10)})
	if !errors.Is(err, store.ErrFailed) || !errors.Is(err, unix.EIO) {
		t.Fatalf("a failed sync: %v", err)
	}
	broken.Store(false)
	if err := s.Write(t.Context(), store.Batch{Blocks: contentBlocks(e.ID, 0, 1, 10)}, nil); !errors.Is(err, store.ErrFailed) {
		t.Fatalf("after a failed sync: %v", err)
	}
	if err := s.Sync(t.Context()); !errors.Is(err, store.ErrFailed) {
		t.Fatalf("Sync after a failed sync: %v", err)
	}
	closeStore(t, s)
	s = openStore(t, c)
	if got, err := s.Session(t.Context(), e.ID); err != nil || got.State != store.Interrupted {
		t.Fatalf("opened again: %+v, %v", got, err)
	}
	if err := writeNow(t, s, store.Batch{Sessions: []store.Session{openEntry()}}); err != nil {
		t.Fatal(err)
	}
}

// TestLevels moves what is free, as told by FreeSpace.
func TestLevels(t *testing.T) {
	c := small(t.TempDir())
	var free atomic.Uint64
	free.Store(200 * mib)
	c.FreeSpace = func(string) (uint64, error) { return free.Load(), nil }
	s := openStore(t, c)
	ballast := func() bool {
		_, err := os.Stat(filepath.Join(c.Dir, "ballast"))
		return err == nil
	}
	e := openEntry()
	if err := writeNow(t, s, store.Batch{Sessions: []store.Session{e}, Blocks: contentBlocks(e.ID, 0, 2, 10)}); err != nil {
		t.Fatal(err)
	}
	if s.Space().Level != store.Plenty || !ballast() {
		t.Fatalf("space %+v, ballast %v", s.Space(), ballast())
	}
	try := func(b store.Batch, want error) {
		t.Helper()
		if err := writeNow(t, s, b); !errors.Is(err, want) {
			t.Errorf("at level %s: got %v, want %v", s.Space().Level, err, want)
		}
	}
	fresh := func() store.Batch { return store.Batch{Sessions: []store.Session{openEntry()}} }
	free.Store(90 * mib)
	try(fresh(), store.ErrFull)
	try(store.Batch{Blocks: contentBlocks(e.ID, 2, 1, 10)}, nil)
	free.Store(63 * mib)
	try(store.Batch{Blocks: contentBlocks(e.ID, 3, 1, 10)}, store.ErrFull)
	if !ballast() {
		t.Error("the ballast was given up though it wasn't needed")
	}
	// Closing goes on while the logs have room, then takes the ballast.
	free.Store(10 * mib)
	try(store.Batch{Blocks: contentBlocks(e.ID, 3, 1, 10)}, store.ErrFull)
	try(store.Batch{Blocks: contentBlocks(e.ID, 3, 1, 10), Closing: true}, nil)
	if !ballast() {
		t.Error("the ballast was given up though it wasn't needed")
	}
	free.Store(0)
	try(store.Batch{Blocks: contentBlocks(e.ID, 4, 1, 10)}, store.ErrFull)
	if !ballast() {
		t.Error("the ballast was given up for what doesn't end a recording")
	}
	try(store.Batch{Blocks: contentBlocks(e.ID, 4, 1, 10), Closing: true}, store.ErrFull)
	if ballast() {
		t.Error("the ballast wasn't given up")
	}
	free.Store(60 * mib)
	e.State, e.Ended = store.Ended, time.Now()
	try(store.Batch{Sessions: []store.Session{e}, Blocks: contentBlocks(e.ID, 4, 1, 10), Closing: true}, nil)
	// What the ballast is to get back isn't free.
	free.Store(70 * mib)
	try(fresh(), store.ErrFull)
	if s.Space().Level != store.Full || ballast() {
		t.Errorf("with 70 MiB free and no ballast: %+v, ballast %v", s.Space(), ballast())
	}
	free.Store(200 * mib)
	waitFor(t, "the ballast", ballast)
	try(fresh(), nil)
	// Free space that can't be told is none.
	s.disk.mu.Lock()
	s.disk.cfg.FreeSpace = func(string) (uint64, error) { return 0, errors.New("no statfs") }
	s.disk.mu.Unlock()
	try(fresh(), store.ErrFull)
	if got, err := s.Session(t.Context(), e.ID); err != nil || got.State != store.Ended {
		t.Errorf("%+v, %v", got, err)
	}
	s.disk.mu.Lock()
	s.disk.cfg.FreeSpace = c.FreeSpace
	s.disk.mu.Unlock()
}

// TestBadgerIsHeld checks that Badger still says so before it writes a table,
// when it compacts and when it drops, and that it waits for room then.
func TestBadgerIsHeld(t *testing.T) {
	c := small(t.TempDir())
	var free atomic.Uint64
	free.Store(1 << 40)
	c.FreeSpace = func(string) (uint64, error) { return free.Load(), nil }
	log := new(logBuffer)
	c.Log = textLog(log)
	c.noSweep = true
	s := openStore(t, c)
	e := openEntry()
	if err := writeNow(t, s, store.Batch{Sessions: []store.Session{e}, Blocks: contentBlocks(e.ID, 0, 100, 1000)}); err != nil {
		t.Fatal(err)
	}
	if err := writeNow(t, s, store.Batch{Remove: []string{e.ID}}); err != nil {
		t.Fatal(err)
	}
	// Others take all between the look before a drop and its first table.
	var looks atomic.Int64
	s.disk.mu.Lock()
	s.disk.cfg.FreeSpace = func(string) (uint64, error) {
		if s.disk.held.Load() > 0 && looks.Add(1) == 1 {
			free.Store(0)
		}
		return free.Load(), nil
	}
	s.disk.mu.Unlock()
	s.disk.held.Store(0)
	done := make(chan error, 1)
	go func() { done <- s.drop([]string{e.ID}) }()
	waitFor(t, "Badger being held", func() bool { return strings.Contains(log.String(), "waits for room to write a table") })
	select {
	case err := <-done:
		t.Fatalf("Badger was not held: %v", err)
	default:
	}
	free.Store(1 << 40)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	// The table of the memtable, and that of the compaction it goes into.
	if n := s.disk.held.Load(); n < 2 {
		t.Errorf("Badger was held %d times by a drop, expected twice at least", n)
	}
}

// TestRemovedIsCollected checks that removing recordings gives their room back,
// also when the removal was by the process before.
func TestRemovedIsCollected(t *testing.T) {
	c := small(t.TempDir())
	s := openStore(t, c)
	var ids []string
	const size = 120 * mib
	for range size / (4 * mib) {
		e := openEntry()
		ids = append(ids, e.ID)
		for n := range uint32(2) {
			b := store.Batch{Blocks: storetest.Blocks(e.ID, 2*n, 2, mib)}
			if n == 0 {
				b.Sessions = []store.Session{e}
			}
			if err := writeNow(t, s, b); err != nil {
				t.Fatal(err)
			}
		}
	}
	full := measured(s)
	if full < size {
		t.Fatalf("the store takes %d MiB", full/mib)
	}
	if err := writeNow(t, s, store.Batch{Remove: ids[:len(ids)/2]}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the room of half of the sessions", func() bool { return measured(s) < full-size*2/5 })
	closeStore(t, s)
	without := c
	without.noSweep = true
	s = openStore(t, without)
	if err := writeNow(t, s, store.Batch{Remove: ids[len(ids)/2 : len(ids)-1]}); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	s = openStore(t, c)
	waitFor(t, "the room of all sessions but one", func() bool { return measured(s) < full-size*4/5 })
	got, err := s.Session(t.Context(), ids[len(ids)-1])
	if err != nil || got.Blocks != 4 {
		t.Fatalf("the one that is left: %+v, %v", got, err)
	}
	n := uint32(0)
	for k, err := range s.Blocks(t.Context(), got.ID, 0) {
		if err != nil || !bytes.Equal(k.Data, storetest.Blocks(got.ID, n, 1, mib)[0].Data) {
			t.Fatalf("block %d: %v", n, err)
		}
		n++
	}
	if marks, err := s.marked(removedPrefix); err != nil || len(marks) > 0 {
		t.Errorf("%d marks of removed sessions are left, %v", len(marks), err)
	}
}

func measured(s *Store) uint64 {
	s.disk.measure()
	return s.Space().Used
}
