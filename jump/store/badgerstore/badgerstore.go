// Package badgerstore keeps recordings in an embedded Badger, tuned for
// appends: batches of all sessions are committed in groups, each one
// transaction, and each group is synced to disk before it is acknowledged.
// docs/storage.md describes the folder, the keys, and what a crash or a full
// disk leaves behind.
//
// It refuses to share its folder with another process, to write where Badger
// could meet a full disk (which kills the process, since Badger's files are
// mapped into memory), to open data of a later version, and to delete or
// repair anything by itself when Badger can't be opened.
package badgerstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"golang.org/x/sync/semaphore"

	"github.com/fleetca/fleetca/jump/store"
)

const mib = 1 << 20

// Config says where and how recordings are kept. Zero fields take the default.
type Config struct {
	// Dir is the folder, made with mode 0700 if it isn't there. Everything in
	// it is this package's.
	Dir string

	// Reserve, CloseReserve and Ballast are bytes: 512, 256 and 128 MiB by
	// default. With less than Reserve free on the file system no new session
	// is taken, with less than CloseReserve only what ends recordings.
	// Ballast is the size of a file that is given up for the latter.
	//
	// CloseReserve, of at least 64 MiB, also sets how much memory and disk
	// Badger takes at once: less than the default makes it slower.
	// Ballast is at least an eighth of CloseReserve.
	Reserve, CloseReserve, Ballast uint64

	// GroupEvery is how long a batch waits for others to be committed with,
	// 100 ms by default and at most.
	GroupEvery time.Duration

	// FreeSpace tells the bytes that are free for us on the file system of
	// dir; statfs by default.
	FreeSpace func(dir string) (uint64, error)

	// Now is the clock for times of blocks; time.Now by default.
	Now func() time.Time

	// Log takes what happens in the background; nothing by default.
	Log *slog.Logger

	// fsync makes a file durable; tests replace it to have a slow or a broken
	// disk. With noSweep the keeper makes no room.
	fsync   func(*os.File) error
	noSweep bool
}

const (
	minCloseReserve = 64 * mib
	maxGroupEvery   = 100 * time.Millisecond
	// queueBytes bounds what is queued and what is being committed.
	queueBytes = 4 * store.MaxBatchBytes
	// groupBytes bounds one transaction.
	groupBytes = 2 * store.MaxBatchBytes
	// eagerBytes is a group that doesn't wait for more.
	eagerBytes = 2 * mib
	// valueThreshold is from how many bytes on a value is in the value log.
	valueThreshold = 512
)

func (c Config) complete() (Config, error) {
	if c.Dir == "" {
		return c, errors.New("opening a recording store: Dir is not set")
	}
	set := func(v *uint64, d uint64) {
		if *v == 0 {
			*v = d
		}
	}
	set(&c.Reserve, 512*mib)
	set(&c.CloseReserve, 256*mib)
	set(&c.Ballast, 128*mib)
	if c.GroupEvery == 0 {
		c.GroupEvery = maxGroupEvery
	}
	switch {
	case c.CloseReserve < minCloseReserve:
		return c, fmt.Errorf("opening a recording store: CloseReserve is %d, less than %d", c.CloseReserve, minCloseReserve)
	case c.Reserve < c.CloseReserve:
		return c, fmt.Errorf("opening a recording store: Reserve is %d, less than CloseReserve, %d", c.Reserve, c.CloseReserve)
	case c.Ballast < c.CloseReserve/8:
		return c, fmt.Errorf("opening a recording store: Ballast is %d, less than an eighth of CloseReserve, %d", c.Ballast, c.CloseReserve)
	case c.GroupEvery < 0 || c.GroupEvery > maxGroupEvery:
		return c, fmt.Errorf("opening a recording store: GroupEvery is %v, not within 0 and %v", c.GroupEvery, maxGroupEvery)
	}
	if c.FreeSpace == nil {
		c.FreeSpace = freeSpace
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.fsync == nil {
		c.fsync = (*os.File).Sync
	}
	return c, nil
}

// Store is a store.Store in a folder. Make it with Open.
type Store struct {
	cfg       Config
	lock      *os.File
	db        *badger.DB
	disk      *disk
	admission store.Admission
	room      *semaphore.Weighted

	mu      sync.Mutex // queue
	queue   []item
	queued  int       // bytes in queue
	firstAt time.Time // when queue was last empty no more
	soon    bool      // something in queue shouldn't wait
	closing bool
	failure error

	wake       chan struct{} // tells the committer of changes to the queue; holds one
	committing sync.Mutex    // held while a group, or a sweep of the keeper, writes
	totals     map[string]totals
	unswept    atomic.Bool // removed sessions still have blocks

	keep    chan struct{} // tells the keeper that there is something to do; holds one
	stop    chan struct{} // ends the keeper
	running sync.WaitGroup

	unguard  chan struct{} // ends the guard of the disk, after the rest
	guarding sync.WaitGroup

	reading sync.RWMutex // held for reading while a read uses db, for writing to close it
	closed  bool
	once    sync.Once
	end     error // what Close returned
}

var _ store.Store = (*Store)(nil)

// Open opens the store in c.Dir, or makes it. Sessions that were open when
// the process before ended are Interrupted then.
//
// The error wraps store.ErrLocked if another process has the store open, and
// store.ErrFull if there isn't the room that opening takes.
func Open(ctx context.Context, c Config) (*Store, error) {
	c, err := c.complete()
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the recording store: %w", err)
	}
	// What others made may be open to all.
	if err := os.Chmod(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the recording store private: %w", err)
	}
	lock, err := acquire(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("opening recording store %q: %w", c.Dir, err)
	}
	s := &Store{
		cfg: c, lock: lock,
		room:   semaphore.NewWeighted(queueBytes),
		wake:   make(chan struct{}, 1),
		totals: make(map[string]totals),
		keep:   make(chan struct{}, 1),
		stop:   make(chan struct{}), unguard: make(chan struct{}),
	}
	if err := s.open(ctx); err != nil {
		_ = lock.Close() // the error before tells more
		return nil, fmt.Errorf("opening recording store %q: %w", c.Dir, err)
	}
	s.running.Go(s.commitGroups)
	s.running.Go(s.keeper)
	s.guarding.Go(func() { s.disk.guardUntil(s.unguard) })
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	dir := filepath.Join(s.cfg.Dir, "badger")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var err error
	if s.disk, err = newDisk(s.cfg, dir); err != nil {
		return err
	}
	if err := s.disk.roomToOpen(); err != nil {
		return err
	}
	opts := s.disk.size.options(dir, &badgerLog{log: s.cfg.Log, hold: s.disk.hold})
	db, err := badger.Open(opts)
	if err != nil {
		// Killed between making a file and giving it its size, Badger leaves
		// an empty file behind, fails to open with it, and has given it its
		// size by then (dgraph-io/badger issue 2207). So once more; after
		// that it is something else, which a person has to look at.
		s.cfg.Log.Warn("recording store did not open, trying once more", "dir", dir, "error", err)
		if db, err = badger.Open(opts); err != nil {
			return fmt.Errorf("%w; nothing was deleted or changed by this attempt", err)
		}
	}
	s.db = db
	if err = s.disk.attach(db); err == nil {
		if err = s.checkSchema(); err == nil {
			err = s.interrupt(ctx)
		}
	}
	if err != nil {
		return errors.Join(err, s.disk.detach(), db.Close())
	}
	return nil
}

// options tunes Badger: little memory and disk at once, values apart from
// keys, nothing compressed twice, and no sync but ours.
func (z sizes) options(dir string, log badger.Logger) badger.Options {
	return badger.DefaultOptions(dir).
		WithLogger(log).
		WithMetricsEnabled(false).
		WithSyncWrites(false).
		WithDetectConflicts(false).
		WithCompression(0).
		WithMemTableSize(int64(z.mem)).
		WithNumMemtables(2).
		WithNumLevelZeroTables(4).
		WithNumLevelZeroTablesStall(8).
		WithNumCompactors(2).
		WithBlockCacheSize(8 * mib).
		WithIndexCacheSize(8 * mib).
		WithValueThreshold(valueThreshold).
		WithValueLogFileSize(int64(z.vlog)).
		WithVerifyValueChecksum(true)
}

// Space implements store.Store.
func (s *Store) Space() store.Space { return s.disk.space() }

// Close implements store.Store. It returns an error that wraps store.ErrFull
// when there isn't even the room that Badger takes to close: what was
// acknowledged is safe then, and is read from its log when the store is opened
// again, by another process.
func (s *Store) Close() error {
	s.once.Do(func() {
		s.mu.Lock()
		s.closing = true
		s.mu.Unlock()
		s.poke()
		close(s.stop)
		s.running.Wait()
		// Wait for readers; they look at closed before they use db.
		s.reading.Lock()
		s.closed = true
		s.reading.Unlock()
		s.end = s.closeBadger()
		close(s.unguard)
		s.guarding.Wait()
	})
	return s.end
}

func (s *Store) closeBadger() error {
	if err := s.disk.roomToClose(); err != nil {
		// Badger would write its table to a mapped file and be killed. It
		// stays open, and the lock with it, until the process ends.
		return fmt.Errorf("closing recording store %q: %w", s.cfg.Dir, err)
	}
	s.disk.busy.Add(1)
	s.disk.letGo() // the guard must not ask a closed Badger
	err := s.db.Close()
	if err2 := s.disk.detach(); err == nil {
		err = err2
	}
	if err2 := s.disk.protect(); err == nil {
		err = err2
	}
	if err2 := s.lock.Close(); err == nil {
		err = err2
	}
	if err != nil && !errors.Is(err, fs.ErrClosed) {
		return fmt.Errorf("closing recording store %q: %w", s.cfg.Dir, err)
	}
	return nil
}
