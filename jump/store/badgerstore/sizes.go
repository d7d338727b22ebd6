package badgerstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/renameio/v2"
)

// sizes are what Badger takes at once, in bytes.
type sizes struct {
	mem     uint64 // a memtable, and so about the table that it is written to
	memLog  uint64 // the log of a memtable, as far as it is ever written
	vlog    uint64 // a value log file that is full
	vlogLog uint64 // the same, as far as it is ever written
}

const (
	minMem = 4 * mib // a batch of store.MaxBatchItems must fit into 15 % of it
	maxMem = 16 * mib
)

func sizesFor(mem uint64) sizes {
	vlog := 4 * mem
	return sizes{
		mem: mem, vlog: vlog,
		// Badger looks whether a file is full before it writes a transaction
		// to it (memtable) or after (value log). A transaction takes at most
		// 15 % of a memtable, and groupBytes of values.
		memLog:  mem + mem/2,
		vlogLog: vlog + groupBytes + mib,
	}
}

// chooseSizes takes the memtables as big as the reserve allows, but not smaller
// than those whose logs a crash left behind: Badger would not get such a log
// back into a smaller memtable, and end the process. So what is chosen is
// written down, before Badger makes a log of that size.
func chooseSizes(c Config, badgerDir string) (sizes, error) {
	mem := min(max(c.CloseReserve/16, minMem), maxMem)
	path := filepath.Join(c.Dir, "memtable")
	raw, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return sizes{}, err
	}
	was, err := strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64)
	if err != nil {
		was = maxMem
	}
	logs, err := filepath.Glob(filepath.Join(globEscape(badgerDir), "*.mem"))
	if err != nil {
		return sizes{}, err
	}
	if len(logs) > 0 {
		mem = min(max(mem, was), maxMem)
	}
	if said := fmt.Sprintf("%d\n", mem); string(raw) != said {
		if err := renameio.WriteFile(path, []byte(said), 0o600); err != nil {
			return sizes{}, err
		}
	}
	return sizesFor(mem), nil
}

// globEscape keeps filepath.Glob from taking a folder's name for a pattern.
func globEscape(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}
