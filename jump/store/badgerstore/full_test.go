package badgerstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fleetca/fleetca/jump/store"
)

const diskSize = 192 // MiB

// load is what the writers of a filler write: big blocks fill value logs,
// small ones memtables and tables too.
type load struct {
	most   int    // bytes of a block
	batch  uint32 // blocks of a batch
	blocks uint32 // of a session
}

var loads = map[string]load{
	"fill":       {most: 60_000, batch: 2, blocks: 60},
	"fill_small": {most: 1500, batch: 60, blocks: 1800},
}

// filler is the writers of fillChild and what was acknowledged to them.
type filler struct {
	load
	s    *Store
	stop chan struct{}

	mu       sync.Mutex
	blocks   map[string]uint32 // acknowledged
	ended    map[string]bool
	unsealed int  // recordings that couldn't be closed in order
	full     bool // said and not taken back
	err      error
}

// fillChild records as fast as it can. When the store is full it closes its
// recordings and waits for room. It says "full", and "again" when a session
// could begin after that. Told "remove" it removes all ended sessions, told
// "stop" it checks all that is stored, and closes.
func fillChild(dir string, l load) error {
	cfg := childConfig(dir)
	s, err := Open(context.Background(), cfg)
	if err != nil {
		return err
	}
	f := &filler{load: l, s: s, stop: make(chan struct{}), blocks: map[string]uint32{}, ended: map[string]bool{}}
	say("opened")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(f.write)
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan() && in.Text() != "stop"; {
		if in.Text() == "remove" {
			// Twice: what ends meanwhile goes too.
			for range 2 {
				if _, err := store.Retain(context.Background(), s, store.Policy{Bytes: 1}, time.Now().Add(store.MinimumAge), nil); err != nil {
					return err
				}
			}
			say("removed")
		}
	}
	close(f.stop)
	wg.Wait()
	if f.err == nil {
		f.err = f.check()
	}
	if f.err != nil {
		return f.err
	}
	say("checked unsealed=%d", f.unsealed)
	err = s.Close()
	say("closed %v", err)
	return err
}

func (f *filler) write() {
	for {
		select {
		case <-f.stop:
			return
		case <-time.After(time.Millisecond):
		}
		if err := f.session(); err != nil {
			f.mu.Lock()
			if f.err == nil {
				f.err = err
				say("failed %v", err)
			}
			f.mu.Unlock()
			return
		}
	}
}

// try writes a batch and waits for it; false: there is no room for it.
func (f *filler) try(b store.Batch) (bool, error) {
	done := make(chan error, 1)
	err := f.s.Write(context.Background(), b, func(err error) { done <- err })
	if err == nil {
		err = <-done
	}
	if errors.Is(err, store.ErrFull) {
		return false, nil
	}
	return err == nil, err
}

func (f *filler) session() error {
	e := openEntry()
	ok, err := f.try(store.Batch{Sessions: []store.Session{e}})
	if err != nil {
		return err
	}
	f.tell(ok)
	if !ok {
		return nil
	}
	for e.Blocks < f.load.blocks {
		b := contentBlocks(e.ID, e.Blocks, f.batch, f.most)
		ok, err := f.try(store.Batch{Blocks: b})
		if err != nil {
			return err
		}
		if !ok {
			f.tell(false)
			break
		}
		for _, k := range b {
			e.Blocks++
			e.StoredBytes += uint64(len(k.Data))
			e.Bytes += uint64(k.Raw)
		}
		f.mu.Lock()
		f.blocks[e.ID] = e.Blocks
		f.mu.Unlock()
	}
	// The last block, as a seal would be, and the end.
	last := contentBlocks(e.ID, e.Blocks, 1, f.most)
	e.Blocks++
	e.StoredBytes += uint64(len(last[0].Data))
	e.Bytes += uint64(last[0].Raw)
	e.State, e.Ended = store.Ended, time.Now()
	ok, err = f.try(store.Batch{Sessions: []store.Session{e}, Blocks: last, Closing: true})
	f.mu.Lock()
	defer f.mu.Unlock()
	if ok {
		f.blocks[e.ID], f.ended[e.ID] = e.Blocks, true
		if len(f.ended) == 20 {
			say("stored")
		}
	} else if err == nil {
		f.unsealed++
	}
	return err
}

func (f *filler) tell(ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ok == f.full {
		f.full = !ok
		say("%s", map[bool]string{true: "again", false: "full"}[ok])
	}
}

// check holds what is stored against what was acknowledged; only Retain has
// removed anything.
func (f *filler) check() error {
	for e, err := range f.s.Sessions(context.Background(), store.Query{}) {
		if err != nil {
			return err
		}
		if f.ended[e.ID] && e.State != store.Ended {
			return fmt.Errorf("session %s is %s, its end was acknowledged", e.ID, e.State)
		}
		if e.State == store.Open {
			// Its end found no room, so its entry counts nothing yet.
			e = store.Interrupt(e, blocksOf(f.s, e.ID))
		}
		if err := checkRecording(context.Background(), f.s, e, f.blocks[e.ID], f.most); err != nil {
			return err
		}
	}
	return nil
}

func blocksOf(s store.Store, id string) func(func(store.Block) bool) {
	return func(yield func(store.Block) bool) {
		for k, err := range s.Blocks(context.Background(), id, 0) {
			if err != nil || !yield(k) {
				return
			}
		}
	}
}

// openChild opens a store and closes it.
func openChild(dir string) error {
	cfg := childConfig(dir)
	s, err := Open(context.Background(), cfg)
	if err != nil {
		return err
	}
	return s.Close()
}

// closeChild opens a store, leaves something to write out at Close, and closes
// when it is told to.
func closeChild(dir string) error {
	cfg := childConfig(dir)
	s, err := Open(context.Background(), cfg)
	if err != nil {
		return err
	}
	f := &filler{load: loads["fill"], s: s, blocks: map[string]uint32{}, ended: map[string]bool{}}
	for range 10 {
		if err := f.session(); err != nil {
			return err
		}
	}
	say("ready")
	_, _ = os.Stdin.Read(make([]byte, 1))
	return s.Close()
}

// smallDisk mounts one. Tests that need it need root.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=0700", diskSize))
	if errors.Is(err, unix.EPERM) && os.Getenv("CI") != "true" {
		t.Skip("mounting a small disk needs root")
	}
	if err != nil {
		t.Fatalf("mounting a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmounting the small disk: %v", err)
		}
	})
	return dir
}

// others is another program that takes all that is free, again and again, with
// up to 500 MiB a second. The reserve of small being a quarter of the default's,
// that stands for the fastest disks.
type others struct {
	path string
	stop chan struct{}
	done chan struct{}
}

func fillByOthers(t *testing.T, disk string) *others {
	t.Helper()
	o := &others{path: filepath.Join(disk, "others"), stop: make(chan struct{}), done: make(chan struct{})}
	f, err := os.Create(o.path)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(o.done)
		defer f.Close()
		for chunk := make([]byte, mib); ; {
			select {
			case <-o.stop:
				return
			default:
			}
			if _, err := f.Write(chunk); err != nil && len(chunk) > 4096 {
				chunk = chunk[:len(chunk)/2]
			}
			time.Sleep(2 * time.Millisecond)
		}
	}()
	return o
}

// leave stops taking; free gives all back.
func (o *others) leave() {
	close(o.stop)
	<-o.done
}

func (o *others) free(t *testing.T) {
	t.Helper()
	if err := os.Remove(o.path); err != nil {
		t.Fatal(err)
	}
}

func (c *child) end(t *testing.T, codes ...int) {
	t.Helper()
	for c.out.Scan() {
		t.Log(c.out.Text())
	}
	err := c.cmd.Wait()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if !slices.Contains(codes, c.cmd.ProcessState.ExitCode()) {
		t.Fatalf("the child ended with %v, expected one of %v\n%s", c.cmd.ProcessState, codes, c.stderr.String())
	}
}

// checkAll opens a store and checks that each recording in it is whole.
func checkAll(t *testing.T, dir string, l load) {
	t.Helper()
	s, err := Open(t.Context(), small(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	n := 0
	for e, err := range s.Sessions(t.Context(), store.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		if err := checkRecording(t.Context(), s, e, e.Blocks, l.most); err != nil {
			t.Error(err)
		}
		n++
	}
	if n == 0 {
		t.Error("nothing is stored")
	}
}

// eachLoad runs a test on a small disk for each load.
func eachLoad(t *testing.T, test func(t *testing.T, disk, name string, l load)) {
	for name, l := range loads {
		t.Run(name, func(t *testing.T) { test(t, smallDisk(t), name, l) })
	}
}

// TestDiskFilledByUs records until the disk is full, makes room by removing
// recordings, and goes on, some times over.
func TestDiskFilledByUs(t *testing.T) {
	eachLoad(t, func(t *testing.T, disk, name string, l load) {
		dir := filepath.Join(disk, "store")
		c := startChild(t, name, dir)
		for range 4 {
			c.await(t, "full")
			c.tell(t, "remove")
			c.await(t, "again")
		}
		c.await(t, "full")
		c.tell(t, "stop")
		if said := c.await(t, "checked"); said != "checked unsealed=0" {
			t.Errorf("with the disk to ourselves every recording can be closed, but: %s", said)
		}
		c.end(t, 0)
		checkAll(t, dir, l)
	})
}

// TestDiskFilledByOthers fills the disk to the last byte while a store records.
func TestDiskFilledByOthers(t *testing.T) {
	eachLoad(t, func(t *testing.T, disk, name string, l load) {
		dir := filepath.Join(disk, "store")
		c := startChild(t, name, dir)
		c.await(t, "opened")
		for range 8 {
			time.Sleep(time.Duration(rand.N(200)) * time.Millisecond) // a moment at random, not a condition
			o := fillByOthers(t, disk)
			c.await(t, "full")
			time.Sleep(time.Duration(rand.N(400)) * time.Millisecond)
			o.leave()
			o.free(t)
			c.tell(t, "remove")
			c.await(t, "again")
		}
		c.tell(t, "stop")
		t.Log(c.await(t, "checked"))
		c.end(t, 0)
		checkAll(t, dir, l)
	})
}

// TestKilledOnFullDisk kills a store on a full disk, and opens it there.
func TestKilledOnFullDisk(t *testing.T) {
	eachLoad(t, func(t *testing.T, disk, name string, l load) {
		dir := filepath.Join(disk, "store")
		for range 5 {
			c := startChild(t, name, dir)
			c.await(t, "stored")
			o := fillByOthers(t, disk)
			awaitFull(t, disk)
			time.Sleep(time.Duration(rand.N(100)) * time.Millisecond)
			if err := c.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = c.cmd.Wait()
			for range 2 {
				again := startChild(t, "open", dir)
				again.end(t, 0, 28)
				if code := again.cmd.ProcessState.ExitCode(); code == 28 && !strings.Contains(again.stderr.String(), "MiB are free, of") {
					t.Errorf("the store doesn't say what it needs: %s", again.stderr.String())
				}
			}
			o.leave()
			o.free(t)
			checkAll(t, dir, l)
			s, err := Open(t.Context(), small(dir))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := store.Retain(t.Context(), s, store.Policy{Bytes: 1}, time.Now().Add(store.MinimumAge), nil); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestClosedOnFullDisk closes a store on a disk that others have filled: with
// the ballast, and without.
func TestClosedOnFullDisk(t *testing.T) {
	for _, ballast := range []bool{true, false} {
		t.Run(fmt.Sprintf("ballast=%v", ballast), func(t *testing.T) {
			disk := smallDisk(t)
			dir := filepath.Join(disk, "store")
			c := startChild(t, "close", dir)
			c.await(t, "ready")
			if !ballast {
				if err := os.Remove(filepath.Join(dir, "ballast")); err != nil {
					t.Fatal(err)
				}
			}
			o := fillByOthers(t, disk)
			awaitFull(t, disk)
			o.leave()
			c.tell(t, "close")
			if ballast {
				c.end(t, 0)
			} else {
				c.end(t, 28)
			}
			o.free(t)
			checkAll(t, dir, loads["fill"])
		})
	}
}

func awaitFull(t *testing.T, disk string) {
	t.Helper()
	waitFor(t, "a full disk", func() bool {
		free, err := freeSpace(disk)
		return err == nil && free < 64<<10
	})
}

// waitFor waits for a condition, up to a minute.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited a minute for %s", what)
		}
	}
}
