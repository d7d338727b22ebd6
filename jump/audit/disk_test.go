package audit

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetca/fleetca/jump/store"
)

// disk opens files that fail when told to.
type disk struct {
	syncs     atomic.Int32
	room      atomic.Int64 // bytes that may be written; counts if full is set
	full      atomic.Bool
	noSync    atomic.Bool // fsync fails, and what was not on disk is lost
	noShrink  atomic.Bool // Truncate fails
	forgetful atomic.Bool // a failed fsync really loses the bytes
}

func (d *disk) open(path string, flags int) (file, error) {
	if d.full.Load() && flags&os.O_CREATE != 0 && d.room.Load() == 0 {
		return nil, syscall.ENOSPC
	}
	f, err := openFile(path, flags)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	return &diskFile{f.(*os.File), d, info.Size()}, nil
}

type diskFile struct {
	*os.File
	disk  *disk
	there int64 // bytes that are safe
}

func (f *diskFile) Write(p []byte) (int, error) {
	if f.disk.full.Load() {
		left := f.disk.room.Add(-int64(len(p)))
		if left < 0 {
			f.disk.room.Store(0)
			n, _ := f.File.Write(p[:int64(len(p))+left])
			return n, syscall.ENOSPC
		}
	}
	return f.File.Write(p)
}

func (f *diskFile) Truncate(size int64) error {
	if f.disk.noShrink.Load() {
		return syscall.EIO
	}
	return f.File.Truncate(size)
}

func (f *diskFile) Sync() error {
	f.disk.syncs.Add(1)
	if f.disk.noSync.Load() {
		if f.disk.forgetful.Load() {
			_ = f.File.Truncate(f.there)
		}
		return syscall.EIO
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	f.there = info.Size()
	return f.File.Sync()
}

// TestFullDisk fills the disk in the middle of a line, wherever that is. What
// was said to be recorded is there, what was refused isn't, and the log goes on
// once there is room.
func TestFullDisk(t *testing.T) {
	for _, noShrink := range []bool{false, true} {
		for _, room := range []int64{0, 1, 100, 300} {
			t.Run(fmt.Sprintf("%d bytes, shrinks %v", room, !noShrink), func(t *testing.T) {
				d := &disk{}
				dir := t.TempDir()
				c := newClock()
				l, err := open(t.Context(), Config{Dir: dir, Now: c.now}, d.open)
				must(t, err)
				record(t, l, "a")
				d.room.Store(room)
				d.full.Store(true)
				d.noShrink.Store(noShrink)
				accepted := []string{"a"}
				for _, u := range []string{"b", "c", "d"} {
					err := l.Record(t.Context(), Event{Event: EventAuth, User: u})
					if err == nil {
						accepted = append(accepted, u)
					} else if !errors.Is(err, syscall.ENOSPC) && !noShrink {
						t.Errorf("record: %v", err)
					}
				}
				if len(accepted) == 4 {
					t.Fatal("the disk never was full")
				}
				d.noShrink.Store(false)
				d.full.Store(false)
				record(t, l, "e")
				if got, want := users(t, l, store.AuditQuery{}), fmt.Sprint(append(accepted, "e")); "["+got+"]" != want {
					t.Errorf("recorded %s, want %s", got, want)
				}
				must(t, l.Close())
				mustVerify(t, dir)
			})
		}
	}
}

// TestFullDiskAtMidnight can't make the file of the new day.
func TestFullDiskAtMidnight(t *testing.T) {
	d := &disk{}
	dir := t.TempDir()
	c := newClock()
	l, err := open(t.Context(), Config{Dir: dir, Now: c.now}, d.open)
	must(t, err)
	record(t, l, "a")
	c.add(time.Minute)
	d.full.Store(true)
	if err := l.Record(t.Context(), Event{Event: EventAuth}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("record: %v", err)
	}
	d.full.Store(false)
	record(t, l, "b")
	must(t, l.Close())
	if r := mustVerify(t, dir); r.Records != 2 || r.Files != 2 {
		t.Errorf("report %+v", r)
	}
}

// TestFailedSync has a disk that takes lines and then can't bring them to rest:
// the kernel tells so once and forgets them.
func TestFailedSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		dir := t.TempDir()
		l, err := open(t.Context(), Config{Dir: dir}, d.open)
		must(t, err)
		record(t, l, "a")
		must(t, l.Sync(t.Context()))
		d.forgetful.Store(true)
		d.noSync.Store(true)
		record(t, l, "b", "c")
		if err := l.Sync(t.Context()); !errors.Is(err, syscall.EIO) {
			t.Errorf("sync: %v", err)
		}
		if err := l.Record(t.Context(), Event{Event: EventAuth}); !errors.Is(err, syscall.EIO) {
			t.Errorf("record: %v", err)
		}
		d.noSync.Store(false)
		time.Sleep(2 * retryEvery) // it mends itself
		synctest.Wait()
		if l.broken != nil || l.durable != 3 {
			t.Errorf("after a while: %v, %d records are durable", l.broken, l.durable)
		}
		record(t, l, "d")
		must(t, l.Close())
		if r := mustVerify(t, dir); r.Records != 4 {
			t.Errorf("report %+v", r)
		}
	})
}

// TestCloseTellsOfTheDisk does not pass over lines that are not safe.
func TestCloseTellsOfTheDisk(t *testing.T) {
	d := &disk{}
	l, err := open(t.Context(), Config{Dir: t.TempDir()}, d.open)
	must(t, err)
	record(t, l, "a")
	d.noSync.Store(true)
	if err := l.Close(); !errors.Is(err, syscall.EIO) {
		t.Errorf("close: %v", err)
	}
}
