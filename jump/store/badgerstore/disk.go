package badgerstore

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"golang.org/x/sys/unix"

	"github.com/fleetca/fleetca/jump/store"
)

// disk knows what room there is and what Badger may take of it, so that
// Badger never meets a full disk. Its files are mapped into memory and made
// without blocks; writing one where the disk has no block left is SIGBUS, which
// ends the process. Two things prevent it:
//
//   - The files that are written at every commit get all their blocks when
//     they are new, by fallocate, so that later writes to them can't fail
//     whoever else fills the disk.
//   - Before each group of commits, what Badger may take next for new files
//     must be free: the next files, tables of full memtables, compactions.
//
// It is safe for concurrent use.
type disk struct {
	cfg  Config
	dir  string // Badger's
	size sizes

	busy atomic.Int32 // what of ours makes Badger write tables just now
	held atomic.Int64 // how often Badger was about to write a table

	mu       sync.Mutex
	db       *badger.DB // nil before attach
	vlog     logFiles
	mem      logFiles
	ballast  uint64    // bytes of the ballast file; 0: it was given up
	needed   uint64    // what need returned last
	lastFree uint64    // at the last look of the guard
	fell     time.Time // when free space was last seen to fall
	used     uint64    // by the whole store, as of the last look
	level    store.Level
}

func newDisk(c Config, dir string) (*disk, error) {
	z, err := chooseSizes(c, dir)
	if err != nil {
		return nil, err
	}
	d := &disk{
		cfg: c, dir: dir, size: z,
		vlog: logFiles{dir: dir, ext: ".vlog", format: "%06d.vlog", blocks: z.vlogLog},
		mem:  logFiles{dir: dir, ext: ".mem", format: "%05d.mem", blocks: z.memLog},
	}
	if fi, err := os.Stat(d.ballastPath()); err == nil && uint64(fi.Size()) >= c.Ballast {
		d.ballast = uint64(fi.Size())
	}
	return d, nil
}

// freeSpace is statfs: what is free for us, without what is kept for root.
func freeSpace(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("looking for free space of %q: %w", dir, err)
	}
	if st.Files > 0 && st.Ffree < 64 {
		return 0, nil // no room for another file is no room
	}
	return st.Bavail * uint64(st.Bsize), nil
}

// free is 0 when it can't be told: then nothing may be written.
func (d *disk) free() uint64 {
	n, err := d.cfg.FreeSpace(d.cfg.Dir)
	if err != nil {
		d.cfg.Log.Error("free space of the recording store is unknown", "error", err)
		return 0
	}
	return n
}

// need is what Badger may take for new files before the next look: the next
// value log and memtable log, tables for memtables that are full or may become
// so, and compactions. It must be called with mu held.
func (d *disk) need() uint64 {
	pending := d.mem.behind() + 1
	d.needed = d.size.vlogLog + d.size.memLog + (pending+1)*d.size.mem + d.compaction()
	return d.needed
}

// needFor is what Badger may take for new files if no more than w is written
// before the next look. It must be called with mu held.
func (d *disk) needFor(w written) uint64 {
	n := d.backlog() + mib
	if d.vlog.written+w.values >= d.size.vlog {
		n += d.size.vlogLog
	}
	if d.mem.written+w.keys >= d.size.mem {
		n += d.size.memLog + d.size.mem + d.compaction()
	}
	return n
}

// written counts bytes, of values in value logs and of all else in memtables.
// It is never less than what Badger counts.
type written struct{ values, keys uint64 }

func (w *written) add(o written) {
	w.values += o.values
	w.keys += o.keys
}

// mostWritten is what a batch may write: each item has up to four keys and one
// value, which is in the value log or is short.
func mostWritten(b store.Batch) written {
	return written{values: uint64(b.Size()), keys: uint64(b.Items()) * (4*entryOverhead + 4*64 + 512)}
}

// entryOverhead is at least what a log or a memtable takes for an entry beside
// its key and value.
const entryOverhead = 128

// wrote counts what was written, and takes in new files, which what was
// written may be in.
func (d *disk) wrote(w written) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.vlog.written += w.values
	d.mem.written += w.keys
	vlog, mem := d.vlog.number, d.mem.number
	_, err := d.followLocked()
	if d.vlog.number != vlog {
		d.vlog.written = w.values
	}
	if d.mem.number != mem {
		d.mem.written = w.keys
	}
	return err
}

// compaction is what compactions may write before what they replace is
// deleted: at most the whole tree, and at most what two of them take in.
func (d *disk) compaction() uint64 {
	if d.db == nil {
		return 0
	}
	var all uint64
	for _, l := range d.db.Levels() {
		all += uint64(max(0, l.Size))
	}
	return min(all, 8*d.size.mem)
}

// backlog is what Badger is about to write without being asked again.
func (d *disk) backlog() uint64 {
	n := d.mem.behind() * d.size.mem
	if d.db == nil {
		return n
	}
	for _, l := range d.db.Levels() {
		if l.Score >= 1 {
			return n + d.compaction()
		}
	}
	return n
}

// space looks at the disk.
func (d *disk) space() store.Space {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.look(d.needed)
}

// look must be called with mu held. What the ballast is to get back is not
// free for anything else.
func (d *disk) look(need uint64) store.Space {
	free := d.free()
	left := free - min(free, d.cfg.Ballast-min(d.cfg.Ballast, d.ballast))
	sp := store.Space{Free: free, Used: d.used}
	switch {
	case left < max(d.cfg.CloseReserve, need):
		sp.Level = store.Full
	case left < d.cfg.Reserve:
		sp.Level = store.Low
	}
	if sp.Level != d.level {
		d.cfg.Log.Warn("room for recordings has changed", "level", sp.Level.String(), "was", d.level.String(), "free", free)
		d.level = sp.Level
	}
	return sp
}

// admit looks at the disk before a group is committed, and returns what
// decides on each of its batches. For those that end recordings the ballast is
// given up if need be.
func (d *disk) admit(group []item) func(store.Batch) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	need := d.need()
	sp := d.look(need)
	if sp.Level < store.Full && d.ensure() == nil {
		return func(store.Batch) error { return nil }
	}
	closing := false
	var closings written
	for _, i := range group {
		if i.batch.Ends() {
			closing = true
			closings.add(mostWritten(i.batch))
		}
	}
	free, bare := sp.Free, d.ensure()
	need = d.needFor(closings)
	if closing && (free < need || bare != nil) {
		free, bare = d.release(), d.ensure()
	}
	return func(b store.Batch) error {
		switch {
		case !b.Ends():
			return fmt.Errorf("%w: only what ends recordings is taken", store.ErrFull)
		case free < need:
			return fmt.Errorf("%w: %d MiB are free, of %d MiB needed to end recordings", store.ErrFull, free/mib, need/mib)
		case bare != nil:
			return fmt.Errorf("%w: %w", store.ErrFull, bare)
		}
		return nil
	}
}

// ensure gives logs their blocks that were left without when they were made.
// It must be called with mu held.
func (d *disk) ensure() error {
	for _, l := range []*logFiles{&d.vlog, &d.mem} {
		if l.bare {
			if err := l.ensure(); err != nil {
				return err
			}
		}
	}
	return nil
}

// roomToOpen says whether Badger can be opened: it writes tables for all
// memtable logs that it finds, and new logs.
func (d *disk) roomToOpen() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var mems, tables uint64
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch fi, err := e.Info(); {
		case err != nil:
			return err
		case filepath.Ext(e.Name()) == ".mem":
			mems++
		case filepath.Ext(e.Name()) == ".sst":
			tables += uint64(fi.Size())
		}
	}
	need := d.size.vlogLog + d.size.memLog + (mems+1)*d.size.mem + min(tables, 8*d.size.mem) + 2*mib
	free := d.free()
	if free < need {
		free = d.release()
	}
	if free < need {
		return fmt.Errorf("%w: %d MiB are free, of %d MiB that opening it takes", store.ErrFull, free/mib, need/mib)
	}
	return nil
}

// roomToClose says whether Badger can be closed, for which it writes tables.
func (d *disk) roomToClose() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	need := (d.mem.behind()+1)*d.size.mem + d.compaction()/4 + mib
	free := d.free()
	if free < need {
		free = d.release()
	}
	if free < need {
		return fmt.Errorf("%w: %d MiB are free, of %d MiB that closing it takes", store.ErrFull, free/mib, need/mib)
	}
	return nil
}

// roomToCollect says whether removed sessions can be swept and value logs
// collected. That makes room in the end, so the ballast is given up for it.
func (d *disk) roomToCollect() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	need := d.need()
	sp := d.look(need)
	if sp.Level == store.Full && !d.calm() {
		return errNotCalm
	}
	free := sp.Free
	if free < need {
		free = d.release()
	}
	if free < need {
		return fmt.Errorf("%w: %d MiB are free, of %d MiB needed to make room", store.ErrFull, free/mib, need/mib)
	}
	return nil
}

// errNotCalm means that making room has to wait.
var errNotCalm = fmt.Errorf("%w, and others are filling the disk", store.ErrFull)

// attach takes over the files of an open Badger.
func (d *disk) attach(db *badger.DB) error {
	d.mu.Lock()
	d.db = db
	// The only mapped file that isn't a log or a table. It is sparse too.
	f, err := os.OpenFile(filepath.Join(d.dir, "DISCARD"), os.O_RDWR, 0)
	if err == nil {
		err = allocate(f, mib)
		_ = f.Close()
	}
	d.mu.Unlock()
	if err != nil {
		return fmt.Errorf("giving Badger's files their blocks: %w", err)
	}
	if err := d.follow(); err != nil {
		return err
	}
	d.measure()
	d.watch()
	return d.protect()
}

// letGo ends the use of Badger, which is about to be closed.
func (d *disk) letGo() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.db = nil
}

// detach lets go of Badger's files.
func (d *disk) detach() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.db = nil
	return errors.Join(d.vlog.close(), d.mem.close())
}

// watch keeps the ballast: it is made again when there is room for it, and
// given up when what Badger is about to write would not fit otherwise.
func (d *disk) watch() {
	d.mu.Lock()
	defer d.mu.Unlock()
	sp := d.look(d.need())
	switch {
	case d.ballast == 0 && sp.Level < store.Full:
		d.restore()
	case d.ballast > 0 && sp.Free < d.backlog():
		d.release()
	}
}

func (d *disk) ballastPath() string { return filepath.Join(d.cfg.Dir, "ballast") }

// release gives the ballast up and returns what is free then. It must be
// called with mu held.
func (d *disk) release() uint64 {
	if err := os.Remove(d.ballastPath()); err == nil {
		d.cfg.Log.Warn("ballast of the recording store was given up")
	} else if !errors.Is(err, fs.ErrNotExist) {
		d.cfg.Log.Error("ballast of the recording store can't be given up", "error", err)
	}
	d.ballast = 0
	return d.free()
}

// restore makes the ballast file. It must be called with mu held.
func (d *disk) restore() {
	f, err := os.OpenFile(d.ballastPath(), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err == nil {
		if err = allocate(f, d.cfg.Ballast); errors.Is(err, unix.EOPNOTSUPP) {
			err = fill(f, d.cfg.Ballast)
		}
		if err == nil {
			err = f.Truncate(int64(d.cfg.Ballast))
		}
		_ = f.Close()
	}
	if err != nil {
		// Another took the room meanwhile. Half a ballast would be counted
		// as a whole one.
		_ = os.Remove(d.ballastPath())
		d.cfg.Log.Warn("ballast of the recording store can't be made", "error", err)
		return
	}
	d.ballast = d.cfg.Ballast
}

// fill writes what can't be allocated.
func fill(f *os.File, n uint64) error {
	chunk := make([]byte, mib)
	for i := range chunk {
		chunk[i] = byte(i * 7) // not what a file system makes a hole of
	}
	for at := uint64(0); at < n; at += mib {
		if _, err := f.WriteAt(chunk[:min(mib, n-at)], int64(at)); err != nil {
			return err
		}
	}
	return f.Sync()
}

// allocate gives the first n bytes of a file their blocks and leaves its size
// and content alone.
func allocate(f *os.File, n uint64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, int64(min(n, math.MaxInt64)))
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// protect makes files private that Badger makes readable for all; the folder
// is private at any time.
func (d *disk) protect() error {
	return filepath.WalkDir(d.dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			var fi fs.FileInfo
			if fi, err = e.Info(); err == nil && fi.Mode().Perm()&^0o600 != 0 {
				err = os.Chmod(path, 0o600)
			}
		}
		if errors.Is(err, fs.ErrNotExist) { // Badger deletes files at any time
			return nil
		}
		return err
	})
}

// measure counts what the store takes on the disk.
func (d *disk) measure() {
	var used uint64
	err := filepath.WalkDir(d.cfg.Dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil
		}
		var st unix.Stat_t
		if unix.Lstat(path, &st) == nil {
			used += uint64(st.Blocks) * 512
		}
		return nil
	})
	if err != nil {
		d.cfg.Log.Warn("size of the recording store is unknown", "error", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.used = used
}
