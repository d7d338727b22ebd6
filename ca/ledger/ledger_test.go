package ledger_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fleetca/fleetca/ca"
	"github.com/fleetca/fleetca/ca/ledger"
	"github.com/fleetca/fleetca/ca/profile"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func entry(serial uint64) ca.Entry {
	return ca.Entry{
		Time: noon, Serial: serial, Kind: profile.User, KeyID: "alice", Principals: []string{"root", "deploy"},
		ValidAfter: noon.Add(-time.Minute), ValidBefore: noon.Add(12 * time.Hour),
		Key: "SHA256:key", KeyType: "ssh-ed25519", CA: "SHA256:ca",
		CriticalOptions: map[string]string{"force-command": `echo "<hi>"`}, Extensions: []string{"permit-pty"},
		By: "tester@here",
	}
}

func open(t testing.TB, path string) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(ledger.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// read gives the serials and the damaged lines of a ledger.
func read(t testing.TB, path string) (serials []uint64, damaged []*ledger.DamagedError) {
	t.Helper()
	for e, err := range ledger.List(path) {
		var d *ledger.DamagedError
		switch {
		case err == nil:
			serials = append(serials, e.Serial)
		case errors.As(err, &d):
			damaged = append(damaged, d)
		default:
			t.Fatal(err)
		}
	}
	return serials, damaged
}

func TestAppendAndList(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	l := open(t, path)
	if err := l.Append(t.Context(), entry(1), entry(1<<63-1)); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(t.Context()); err != nil {
		t.Fatal(err)
	}
	var got []ca.Entry
	for e, err := range ledger.List(path) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e)
	}
	if len(got) != 2 || got[1].Serial != 1<<63-1 {
		t.Fatalf("entries %+v", got)
	}
	a, _ := json.Marshal(got[0])
	b, _ := json.Marshal(entry(1))
	if !bytes.Equal(a, b) {
		t.Errorf("read back %s, wrote %s", a, b)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(raw, []byte("\n")); n != 2 {
		t.Errorf("%d lines for 2 entries", n)
	}
	if !bytes.Contains(raw, []byte(`"serial":"9223372036854775807"`)) || !bytes.Contains(raw, []byte(`"valid_before":"2026-11-22T00:00:00Z"`)) {
		t.Errorf("ledger reads %s", raw)
	}
}

func TestListWithoutFile(t *testing.T) {
	for e, err := range ledger.List(filepath.Join(t.TempDir(), "none")) {
		t.Errorf("got %v, %v", e, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	loose := filepath.Join(dir, "loose")
	if err := os.WriteFile(loose, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(loose, 0o622); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(loose, link); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"": "Path not set", loose: "mode 0622", link: "too many levels of symbolic links",
		dir: "is a directory", fifo: "not a plain file", filepath.Join(dir, "no", "ledger"): "no such file",
	} {
		l, err := ledger.Open(ledger.Config{Path: path})
		if err == nil {
			_ = l.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%q): %v, want %q", path, err, want)
		}
	}
}

func TestAppendRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	l := open(t, path)
	bad := entry(2)
	bad.Serial = 0
	if err := l.Append(t.Context(), entry(1), bad); err == nil {
		t.Error("serial zero recorded")
	}
	long := entry(3)
	long.By = strings.Repeat("x", 1<<20)
	if err := l.Append(t.Context(), long); err == nil {
		t.Error("a line that List would refuse was recorded")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(t.Context(), entry(4)); !errors.Is(err, ledger.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if serials, damaged := read(t, path); len(serials)+len(damaged) != 0 {
		t.Errorf("recorded %d, damaged %v", serials, damaged)
	}
}

// TestTornLine cuts a ledger at every byte of its last line, as a crash might,
// and holds that the line before and the line after stay whole.
func TestTornLine(t *testing.T) {
	dir := t.TempDir()
	whole := filepath.Join(dir, "whole")
	l := open(t, whole)
	if err := l.Append(t.Context(), entry(1), entry(2)); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	first := bytes.IndexByte(data, '\n') + 1
	for cut := first; cut <= len(data); cut++ {
		path := filepath.Join(dir, fmt.Sprintf("cut%d", cut))
		if err := os.WriteFile(path, data[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		torn := cut > first && cut < len(data)
		if _, damaged := read(t, path); (len(damaged) == 1) != torn {
			t.Fatalf("cut at %d: damaged %v before the next write", cut, damaged)
		}
		l, err := ledger.Open(ledger.Config{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Append(t.Context(), entry(3)); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		serials, damaged := read(t, path)
		want := []uint64{1, 3}
		if cut >= len(data)-1 { // whole, or only the newline was lost
			want, torn = []uint64{1, 2, 3}, false
		}
		if !slices.Equal(serials, want) || (len(damaged) == 1) != torn {
			t.Fatalf("cut at %d: serials %d, damaged %v; want %d", cut, serials, damaged, want)
		}
		if torn && (damaged[0].Line != 2 || !strings.HasPrefix(string(data[first:cut]), damaged[0].Text[:1])) {
			t.Fatalf("cut at %d: damaged %+v", cut, damaged[0])
		}
		after, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(after, data[:cut]) {
			t.Fatalf("cut at %d: what was in the file has changed", cut)
		}
	}
}

func TestReadDamage(t *testing.T) {
	good, err := json.Marshal(entry(5))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join([]string{
		string(good), "junk", "", "{}", string(good) + string(good), `{"serial":5}`, strings.Repeat("\x00", 5000),
		strings.Repeat("y", 3<<20), strings.Replace(string(good), `"5"`, `"-5"`, 1), string(good),
	}, "\n") + "\n"
	var lines []int
	entries := 0
	for _, err := range ledger.Read(strings.NewReader(text)) {
		var d *ledger.DamagedError
		switch {
		case err == nil:
			entries++
		case errors.As(err, &d):
			lines = append(lines, d.Line)
			if len(d.Text) > 120 {
				t.Errorf("line %d: shows %d bytes", d.Line, len(d.Text))
			}
		default:
			t.Fatal(err)
		}
	}
	if entries != 2 || !slices.Equal(lines, []int{2, 4, 5, 6, 7, 8, 9}) {
		t.Errorf("%d entries, damaged lines %d", entries, lines)
	}
}

// TestReadStops holds that a failing disk ends reading with its error.
func TestReadStops(t *testing.T) {
	broken := errors.New("input/output error")
	n := 0
	for _, err := range ledger.Read(failing{broken}) {
		if n++; !errors.Is(err, broken) {
			t.Errorf("error %v", err)
		}
	}
	if n != 1 {
		t.Errorf("%d answers", n)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestManyWriters: several ledgers on one file, many goroutines each, as with
// several processes. Nothing is lost or mixed.
func TestManyWriters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	var all sync.WaitGroup
	const ledgers, writers, each = 3, 10, 10
	for i := range ledgers {
		l := open(t, path)
		for j := range writers {
			all.Go(func() {
				for k := range each {
					n := uint64(i*writers*each+j*each+k) * 2
					if err := l.Append(t.Context(), entry(n+1), entry(n+2)); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	all.Wait()
	serials, damaged := read(t, path)
	slices.Sort(serials)
	serials = slices.Compact(serials)
	if want := ledgers * writers * each * 2; len(serials) != want || len(damaged) > 0 {
		t.Errorf("%d different serials of %d, damaged %v", len(serials), want, damaged)
	}
}

func TestLockTimeout(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	l, err := ledger.Open(ledger.Config{Path: path, LockTimeout: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	other, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := unix.Flock(int(other.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(t.Context(), entry(1)); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("locked elsewhere: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Append(gone, entry(1)); err == nil {
		t.Error("appended although cancelled and locked")
	}
	if err := unix.Flock(int(other.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(t.Context(), entry(2)); err != nil {
		t.Errorf("after the lock was given back: %v", err)
	}
}

// TestReplaced: a ledger that was swapped for another file must not swallow
// records into the void.
func TestReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	l := open(t, path)
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(t.Context(), entry(1)); err == nil {
		t.Error("recorded in a file that is gone")
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(t.Context(), entry(1)); err == nil || !strings.Contains(err.Error(), "replaced") {
		t.Errorf("recorded in a file that was replaced: %v", err)
	}
}

// TestDiskFull lets the system take only part of a line, as a full disk does:
// the failed entry must leave no trace that hides others. A limit on the size
// of files stands in for the disk, since it needs no root; it is a whole
// process's, so another one than the tests' own has it.
func TestDiskFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), fullEnv+"="+path)
	if out, err := child.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if serials, damaged := read(t, path); !slices.Equal(serials, []uint64{1, 3}) || len(damaged) > 0 {
		t.Errorf("serials %d, damaged %v", serials, damaged)
	}
}

// fillUp appends, once to a full disk.
func fillUp(path string) error {
	l, err := ledger.Open(ledger.Config{Path: path})
	if err != nil {
		return err
	}
	defer l.Close()
	ctx := context.Background()
	if err := l.Append(ctx, entry(1)); err != nil {
		return err
	}
	before, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	signal.Ignore(unix.SIGXFSZ)
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &was); err != nil {
		return err
	}
	tight := unix.Rlimit{Cur: uint64(len(before)) + 100, Max: was.Max}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &tight); err != nil {
		return err
	}
	if err := l.Append(ctx, entry(2)); !errors.Is(err, unix.EFBIG) {
		return fmt.Errorf("writing past the limit: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &was); err != nil {
		return err
	}
	after, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !bytes.Equal(after, before) {
		return fmt.Errorf("the failed write left %q", after)
	}
	if err := l.Append(ctx, entry(3)); err != nil {
		return fmt.Errorf("with room again: %w", err)
	}
	return nil
}

func FuzzRead(f *testing.F) {
	good, err := json.Marshal(entry(5))
	if err != nil {
		f.Fatal(err)
	}
	seeds := 0
	for e, err := range ledger.Read(bytes.NewReader(append(good, '\n'))) {
		if err != nil || e.Serial != 5 {
			f.Fatalf("the seed does not load: %v", err)
		}
		seeds++
	}
	if seeds != 1 {
		f.Fatal("the seed does not load")
	}
	f.Add(append(good, '\n'))
	f.Add(append(append(append([]byte{}, good...), '\n'), good[:40]...))
	f.Add([]byte("{\"serial\":\"1\"}\n\n\x00\n{"))
	f.Add(bytes.ReplaceAll(append(good, '\n'), []byte(`"alice"`), []byte(`"\u001b[2J"`)))
	f.Fuzz(func(t *testing.T, data []byte) {
		lines := 0
		for e, err := range ledger.Read(bytes.NewReader(data)) {
			lines++
			if err != nil {
				var d *ledger.DamagedError
				if !errors.As(err, &d) {
					t.Fatalf("reading bytes gave %v", err)
				}
				continue
			}
			once, err := json.Marshal(e)
			if err != nil {
				t.Fatalf("entry %+v can't be written again: %v", e, err)
			}
			for again, err := range ledger.Read(bytes.NewReader(append(once, '\n'))) {
				if err != nil {
					t.Fatalf("%s does not read back: %v", once, err)
				}
				twice, err := json.Marshal(again)
				if err != nil || !bytes.Equal(once, twice) {
					t.Fatalf("%s reads back as %s, %v", once, twice, err)
				}
			}
		}
		if most := bytes.Count(data, []byte("\n")) + 1; lines > most {
			t.Fatalf("%d answers for %d lines", lines, most)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	l := open(b, filepath.Join(b.TempDir(), "ledger.jsonl"))
	b.SetParallelism(50)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := l.Append(b.Context(), entry(1)); err != nil {
				b.Error(err)
			}
		}
	})
}
