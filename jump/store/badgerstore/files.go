package badgerstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// logFiles follows one row of numbered files that Badger appends to, value
// logs or memtable logs: the last of them is the one being written. It needs
// no lock of Badger's: that Badger goes on to the next number when a file is
// full, and at no other time but when it is opened or drops data, is all that
// it relies on, and TestFollow holds it to that.
type logFiles struct {
	dir, ext, format string
	blocks           uint64 // bytes of a file that get their blocks at once

	number  uint64     // of the last file
	written uint64     // bytes written to it, or more
	files   []*os.File // written since the last sync, the last file last
	bare    bool       // the last file hasn't got its blocks
}

// follow looks for files that are newer than the last one known. A new file
// that can't get its blocks is left bare.
func (l *logFiles) follow() (changed bool, err error) {
	for {
		next, err := l.after(l.number)
		if err != nil || next == 0 {
			return changed, err
		}
		f, err := os.OpenFile(l.path(next), os.O_RDWR, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue // come and gone
		}
		if err != nil {
			return changed, err
		}
		l.files, l.number, l.written, changed = append(l.files, f), next, 0, true
		if err := f.Chmod(0o600); err != nil {
			return changed, err
		}
		if err := l.ensure(); err != nil && !noRoom(err) {
			return changed, err
		}
	}
}

// after is the number of a file later than n, 0 if there is none.
func (l *logFiles) after(n uint64) (uint64, error) {
	if n > 0 {
		if _, err := os.Stat(l.path(n + 1)); err == nil {
			return n + 1, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return 0, err
		}
		if _, err := os.Stat(l.path(n)); err == nil {
			return 0, nil
		}
		// Several have come and gone since: what is the last one now?
	}
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return 0, err
	}
	var last uint64
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), l.ext)
		if !ok {
			continue
		}
		if m, err := strconv.ParseUint(name, 10, 64); err == nil && fmt.Sprintf(l.format, m) == e.Name() {
			last = max(last, m)
		}
	}
	if last <= n {
		return 0, nil
	}
	return last, nil
}

func (l *logFiles) path(n uint64) string { return filepath.Join(l.dir, fmt.Sprintf(l.format, n)) }

// ensure gives the last file its blocks if it has none. On a file system that
// can't, the checks of free space before each group have to do.
func (l *logFiles) ensure() error {
	if len(l.files) == 0 {
		return fmt.Errorf("no *%s file in %q", l.ext, l.dir)
	}
	err := allocate(l.files[len(l.files)-1], l.blocks)
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = nil
	}
	l.bare = err != nil
	return err
}

func noRoom(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// behind counts the files before the last one that are still there: of
// memtable logs, those whose table isn't written yet.
func (l *logFiles) behind() uint64 {
	var n uint64
	for n < l.number {
		if _, err := os.Stat(l.path(l.number - n - 1)); err != nil {
			break
		}
		n++
	}
	return n
}

// take returns the files to sync and forgets those that aren't written
// anymore, which the caller closes.
func (l *logFiles) take() (current *os.File, before []*os.File) {
	n := len(l.files)
	current, before = l.files[n-1], l.files[:n-1:n-1]
	l.files = []*os.File{current}
	return current, before
}

func (l *logFiles) close() error {
	var all error
	for _, f := range l.files {
		all = errors.Join(all, f.Close())
	}
	l.files = nil
	return all
}

// follow takes in files that Badger has made since.
func (d *disk) follow() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, err := d.followLocked()
	return err
}

func (d *disk) followLocked() (changed bool, err error) {
	vlogs, err := d.vlog.follow()
	if err == nil {
		changed, err = d.mem.follow()
	}
	if err != nil {
		return false, fmt.Errorf("following Badger's logs: %w", err)
	}
	return vlogs || changed, nil
}

// sync makes durable what Badger has written. It is not badger.DB.Sync, which
// passes over a log that was full in the meantime, and syncs the memtable's
// log, which refers to values, before the values. A machine that stops in here
// leaves at most values that nothing refers to.
func (d *disk) sync() error {
	d.mu.Lock()
	_, err := d.followLocked()
	if err != nil {
		d.mu.Unlock()
		return err
	}
	vlog, oldVlogs := d.vlog.take()
	mem, oldMems := d.mem.take()
	d.mu.Unlock()

	done := append(oldVlogs, oldMems...)
	defer func() {
		for _, f := range done {
			_ = f.Close()
		}
	}()
	order := append(append(oldVlogs[:len(oldVlogs):len(oldVlogs)], vlog), append(oldMems, mem)...)
	for _, f := range order {
		if err := d.cfg.fsync(f); err != nil {
			return fmt.Errorf("syncing %q: %w", f.Name(), err)
		}
	}
	if len(done) == 0 {
		return nil
	}
	// New files: their names have to be durable too.
	folder, err := os.Open(d.dir)
	if err == nil {
		err = errors.Join(folder.Sync(), folder.Close())
	}
	if err != nil {
		return fmt.Errorf("syncing %q: %w", d.dir, err)
	}
	return nil
}
