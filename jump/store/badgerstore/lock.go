package badgerstore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fleetca/fleetca/jump/store"
)

// acquire locks the folder for this process until the file is closed or the
// process ends, however it does. The lock is flock's; what the file says is
// only for messages.
func acquire(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = lockedBy(f)
	}
	if err == nil {
		err = sign(f)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// sign writes who has the lock.
func sign(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	// On a full disk the file stays empty; the lock holds all the same.
	_, _ = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	return nil
}

func lockedBy(f *os.File) error {
	raw, _ := io.ReadAll(io.LimitReader(f, 32))
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || pid <= 0 {
		return fmt.Errorf("%w: a server that is running has it open", store.ErrLocked)
	}
	name := "process"
	// Up to 15 bytes of what the process calls itself.
	if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil {
		name = fmt.Sprintf("%q, process", strings.TrimSuffix(string(comm), "\n"))
	}
	return fmt.Errorf("%w: a server that is running has it open (%s %d)", store.ErrLocked, name, pid)
}
