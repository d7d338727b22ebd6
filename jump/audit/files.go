package audit

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fleetca/fleetca/jump/store"
)

const (
	extension = ".jsonl"
	// tornReason is told about it.
	tornReason = "the last line was torn, as by a crash, and was put aside"
	// asideExtension is added to the name of a file for what was torn off it.
	asideExtension = ".torn"
)

// lockDir opens the folder, making it if needed, and locks it against other
// processes.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	info, err := d.Stat()
	switch {
	case err != nil:
	case !info.IsDir():
		err = fmt.Errorf("%q is not a folder", dir)
	case info.Mode().Perm()&0o022 != 0:
		err = fmt.Errorf("%q has mode %#o: others than its owner may write to it", dir, info.Mode().Perm())
	default:
		err = unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("%q is in use by another process", dir)
		}
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// openFile opens a file of the log for appending.
func openFile(path string, flags int) (file, error) {
	f, err := os.OpenFile(path, flags|os.O_WRONLY|os.O_APPEND|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err // not f: a nil *os.File is no nil file
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%q is not a plain file", path)
	case info.Mode().Perm()&0o022 != 0:
		err = fmt.Errorf("%q has mode %#o: others than its owner may write to it", path, info.Mode().Perm())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// openRead opens a file of the log for reading.
func openRead(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%q is not a plain file", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// syncDir makes a new file's name durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// days lists the days of which there is a file, oldest first.
func days(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var days []string
	for _, e := range entries {
		day, found := strings.CutSuffix(e.Name(), extension)
		if _, err := time.Parse(time.DateOnly, day); found && err == nil {
			days = append(days, day)
		}
	}
	slices.Sort(days)
	return days, nil
}

// end is where a file, and with it the log, goes on.
type end struct {
	record Record // the last whole one; Sequence is 0 if there is none
	whole  int64  // where it ends
	size   int64  // of the file
	seen   Record // the one whose sequence number was asked for
}

// tail is how much of a file is read for its end, as a rule.
const tail = 2 * maxLine

// readEnd looks for the last whole record of a file, and for one more, which is
// expected near it.
func readEnd(path string, sequence uint64) (end, error) {
	f, err := openRead(path)
	if err != nil {
		return end{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return end{}, err
	}
	e, err := readEndFrom(f, max(0, info.Size()-tail), sequence)
	if err == nil && e.record.Sequence == 0 && info.Size() > tail {
		e, err = readEndFrom(f, 0, sequence)
	}
	return e, err
}

func readEndFrom(f *os.File, from int64, sequence uint64) (end, error) {
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return end{}, err
	}
	var e end
	for t, err := range texts(f, from) {
		if err != nil {
			return end{}, err
		}
		e.size = t.next
		// The first line is not from its beginning, as a rule.
		if !t.ended || t.long || from > 0 && t.offset == from {
			continue
		}
		// Lines that can't be read and have readable ones after them are no
		// work of a crash. Verify reports them.
		if r, err := parse(t.data); err == nil {
			e.record, e.whole = r, t.next
			if r.Sequence == sequence {
				e.seen = r
			}
		}
	}
	return e, nil
}

// resume finds the end of the log, repairs it, and returns what is to be told
// about that.
func (l *Log) resume(ctx context.Context) ([]Event, error) {
	last, err := l.lastStored(ctx)
	if err != nil {
		return nil, err
	}
	all, err := days(l.dir)
	if err != nil {
		return nil, err
	}
	var damage []Event
	var seen Record
	for i, day := range slices.Backward(all) {
		path := filepath.Join(l.dir, day+extension)
		e, err := readEnd(path, last.Sequence)
		if err != nil {
			return nil, err
		}
		if e.whole < e.size {
			event, err := putAside(path, e.whole, e.size)
			if err != nil {
				return nil, err
			}
			damage = append(damage, event)
		}
		if i == len(all)-1 {
			if l.file, err = l.open(path, 0); err != nil {
				return nil, err
			}
			l.day, l.size, l.synced = day, e.whole, e.whole
		}
		if e.record.Sequence > 0 {
			l.sequence, l.head, seen = e.record.Sequence, sha256.Sum256(e.record.Line), e.seen
			break
		}
	}
	damage = append(damage, l.compare(last, seen)...)
	l.durable = l.sequence
	l.feeder = feeder{next: last.Sequence + 1, fed: last.Sequence}
	if last.Sequence == l.sequence {
		// It has all there is: go on where the file does.
		l.feeder.day, l.feeder.offset = l.day, l.size
	}
	return damage, nil
}

// lastStored is the last record that the store has, or an empty one.
func (l *Log) lastStored(ctx context.Context) (store.AuditRecord, error) {
	if l.store == nil {
		return store.AuditRecord{}, nil
	}
	last, err := l.store.LastAudit(ctx)
	if errors.Is(err, store.ErrNotFound) {
		return store.AuditRecord{}, nil
	}
	return last, err
}

// compare looks whether the files hold what the store was given out of them.
// If they end too early, the log goes on after the store's last record, so that
// no number is used twice; the files miss the lines between for good.
func (l *Log) compare(last store.AuditRecord, seen Record) []Event {
	switch {
	case last.Sequence > l.sequence:
		reason := fmt.Sprintf("the files end at record %d, but the store has seen %d", l.sequence, last.Sequence)
		l.sequence, l.head = last.Sequence, sha256.Sum256(last.Line)
		return []Event{{Event: EventDamage, Reason: reason}}
	case seen.Sequence > 0 && string(seen.Line) != string(last.Line):
		return []Event{{
			Event:  EventDamage,
			Reason: fmt.Sprintf("record %d in the files is not what the store was given", last.Sequence),
		}}
	}
	return nil
}

// putAside moves what follows the first whole bytes of a file into another
// file. Killed between the two steps, it leaves the bytes in both, and the next
// Open puts them aside once more.
func putAside(path string, whole, size int64) (Event, error) {
	aside := path + asideExtension
	from, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return Event{}, err
	}
	defer from.Close()
	to, err := os.OpenFile(aside, os.O_CREATE|os.O_WRONLY|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return Event{}, err
	}
	_, err = io.Copy(to, io.NewSectionReader(from, whole, size-whole))
	if err == nil {
		_, err = to.WriteString("\n")
	}
	if err = errors.Join(err, to.Sync(), to.Close()); err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err == nil {
		err = from.Truncate(whole)
	}
	if err == nil {
		err = from.Sync()
	}
	if err != nil {
		return Event{}, fmt.Errorf("putting %d torn bytes of %q aside: %w", size-whole, path, err)
	}
	torn := uint64(size - whole)
	return Event{
		Event: EventDamage, Path: filepath.Base(path), Target: filepath.Base(aside), Len: &torn,
		Reason: tornReason,
	}, nil
}

// gone says whether an error means that a file was removed meanwhile.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) }
