package badgerstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/fleetca/fleetca/jump/store"
	"github.com/fleetca/fleetca/jump/store/storetest"
)

// small is for tests: it needs little room.
func small(dir string) Config {
	return Config{Dir: dir, Reserve: 96 * mib, CloseReserve: 64 * mib, Ballast: 16 * mib}
}

// textLog writes warnings, or all if BADGERSTORE_DEBUG is set.
func textLog(w io.Writer) *slog.Logger {
	level := slog.LevelWarn
	if os.Getenv("BADGERSTORE_DEBUG") != "" {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// logBuffer is a buffer for textLog that can be read meanwhile.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func openStore(t testing.TB, c Config) *Store {
	t.Helper()
	s, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestContract(t *testing.T) {
	for name, config := range map[string]func(string) Config{
		"small":   small,
		"default": func(dir string) Config { return Config{Dir: dir} },
	} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) (store.Store, func() store.Store) {
				c := config(t.TempDir())
				s, err := Open(t.Context(), c)
				if err != nil {
					t.Fatal(err)
				}
				return s, func() store.Store {
					closeStore(t, s)
					if s, err = Open(t.Context(), c); err != nil {
						t.Fatal(err)
					}
					return s
				}
			})
		})
	}
}

func TestConfigIsChecked(t *testing.T) {
	for field, c := range map[string]Config{
		"Dir":          {},
		"CloseReserve": {Dir: "x", CloseReserve: mib},
		"Reserve":      {Dir: "x", Reserve: 100 * mib},
		"Ballast":      {Dir: "x", Ballast: mib},
		"GroupEvery":   {Dir: "x", GroupEvery: time.Second},
	} {
		if _, err := Open(t.Context(), c); err == nil || !strings.Contains(err.Error(), ": "+field+" is ") {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestOneProcessOnly(t *testing.T) {
	c := small(t.TempDir())
	s := openStore(t, c)
	_, err := Open(t.Context(), c)
	if !errors.Is(err, store.ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) ||
		!strings.Contains(err.Error(), "a server that is running") {
		t.Fatalf("in the same process: %v", err)
	}
	other := startChild(t, "open", c.Dir)
	other.end(t, 1)
	if said := other.stderr.String(); !strings.Contains(said, fmt.Sprintf("process %d", os.Getpid())) {
		t.Fatalf("in another process: %s", said)
	}
	closeStore(t, s)
	closeStore(t, openStore(t, c))
}

func TestFilesArePrivate(t *testing.T) {
	c := small(filepath.Join(t.TempDir(), "a", "store"))
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, c)
	e := openEntry()
	for n := range uint32(30) { // beyond one value log
		b := store.Batch{Blocks: storetest.Blocks(e.ID, n, 1, mib)}
		if n == 0 {
			b.Sessions = []store.Session{e}
		}
		if err := writeNow(t, s, b); err != nil {
			t.Fatal(err)
		}
	}
	check := func() {
		t.Helper()
		err := filepath.WalkDir(c.Dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			fi, err := d.Info()
			if want := fs.FileMode(0o600); err == nil && !d.IsDir() && fi.Mode().Perm() != want {
				t.Errorf("%s has mode %v", path, fi.Mode())
			}
			if err == nil && d.IsDir() && fi.Mode().Perm() != 0o700 {
				t.Errorf("%s has mode %v", path, fi.Mode())
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	check()
	closeStore(t, s)
	check()
}

// TestOpenIsRetriedOnce makes what a crash between making a file and giving it
// its size leaves behind, and something that no second try gets over.
func TestOpenIsRetriedOnce(t *testing.T) {
	c := small(t.TempDir())
	s := openStore(t, c)
	e := openEntry()
	if err := writeNow(t, s, store.Batch{Sessions: []store.Session{e}, Blocks: contentBlocks(e.ID, 0, 5, 1000)}); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	for _, name := range []string{"00042.mem", "000042.vlog"} {
		if err := os.WriteFile(filepath.Join(c.Dir, "badger", name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		log := new(logBuffer)
		c.Log = textLog(log)
		s = openStore(t, c)
		if said := log.String(); !strings.Contains(said, "trying once more") || !strings.Contains(said, "Create a new file") {
			t.Errorf("%s: logged %q", name, said)
		}
		got, err := s.Session(t.Context(), e.ID)
		if err == nil {
			err = checkRecording(t.Context(), s, got, 5, 1000)
		}
		if err != nil {
			t.Error(err)
		}
		closeStore(t, s)
	}
	manifest := filepath.Join(c.Dir, "badger", "MANIFEST")
	if err := os.WriteFile(manifest, []byte("no manifest"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), c)
	if err == nil || !strings.Contains(err.Error(), "nothing was deleted") {
		t.Fatalf("a broken manifest: %v", err)
	}
	if raw, err := os.ReadFile(manifest); err != nil || string(raw) != "no manifest" {
		t.Errorf("the broken manifest is %q now, %v", raw, err)
	}
}

func TestOtherVersionsAreRefused(t *testing.T) {
	for name, change := range map[string]func(*badger.Txn) error{
		"later":   func(txn *badger.Txn) error { return txn.Set([]byte(schemaKey), []byte("2")) },
		"not our": func(txn *badger.Txn) error { return txn.Delete([]byte(schemaKey)) },
	} {
		c := small(t.TempDir())
		s := openStore(t, c)
		if err := writeNow(t, s, store.Batch{Sessions: []store.Session{openEntry()}}); err != nil {
			t.Fatal(err)
		}
		if err := s.db.Update(change); err != nil {
			t.Fatal(err)
		}
		closeStore(t, s)
		if _, err := Open(t.Context(), c); err == nil || !strings.Contains(err.Error(), "version") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNothingIsLeftRunning(t *testing.T) {
	c := small(t.TempDir())
	closeStore(t, openStore(t, c)) // what is started once and stays
	count := func() int { return runtime.NumGoroutine() }
	before := count()
	for range 3 {
		s := openStore(t, c)
		e := openEntry()
		if err := writeNow(t, s, store.Batch{Sessions: []store.Session{e}, Blocks: contentBlocks(e.ID, 0, 50, 1000)}); err != nil {
			t.Fatal(err)
		}
		for range s.Blocks(t.Context(), e.ID, 0) {
			break
		}
		closeStore(t, s)
	}
	for end := time.Now().Add(10 * time.Second); count() > before; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			stacks := make([]byte, mib)
			t.Fatalf("%d goroutines, %d before\n%s", count(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}
