package audit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fleetca/fleetca/jump/store"
	"github.com/fleetca/fleetca/jump/store/badgerstore"
)

// crashEnv makes the test binary one that records until it is killed.
const crashEnv = "FLEETCA_TEST_AUDIT_INTO"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashEnv); dir != "" {
		fmt.Fprintln(os.Stderr, recordForEver(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func openBadger(ctx context.Context, dir string) (*badgerstore.Store, error) {
	return badgerstore.Open(ctx, badgerstore.Config{
		Dir: filepath.Join(dir, "store"), Reserve: 64 << 20, CloseReserve: 64 << 20, Ballast: 8 << 20,
		FreeSpace: func(string) (uint64, error) { return 1 << 40, nil },
	})
}

// recordForEver prints the user of each event once it is durable.
func recordForEver(dir string) error {
	ctx := context.Background()
	s, err := openBadger(ctx, dir)
	if err != nil {
		return err
	}
	l, err := Open(ctx, Config{Dir: filepath.Join(dir, "audit"), Store: s})
	if err != nil {
		return err
	}
	fmt.Println("open")
	errs := make(chan error)
	for w := range 4 {
		go func() {
			for i := 0; ; i++ {
				user := fmt.Sprintf("%d-%d-%d", os.Getpid(), w, i)
				err := l.Record(ctx, Event{Event: EventExec, User: user, Command: strings.Repeat("x", i%5000)})
				if err == nil && i%10 == w {
					if err = l.Sync(ctx); err == nil {
						_, _ = fmt.Printf("%s\n", user)
					}
				}
				if err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	return <-errs
}

// TestKilled kills the process at moments that differ from round to round. What
// was said to be durable is there, once, in an unbroken chain, and the store
// has all of it in the end.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	durable := map[string]bool{}
	const rounds = 8
	for round := range rounds {
		recordAndKill(t, dir, 1+5*round, durable)
	}
	if len(durable) < rounds {
		t.Fatalf("only %d events in %d rounds", len(durable), rounds)
	}
	s, err := openBadger(t.Context(), dir)
	must(t, err)
	defer s.Close()
	l := openLog(t, Config{Dir: filepath.Join(dir, "audit"), Store: s})
	report, err := l.Verify(t.Context())
	must(t, err)
	if report.Count != 0 || report.First != 1 {
		t.Errorf("report %+v", report)
	}
	records, seen := uint64(0), map[string]bool{}
	for r, err := range l.Query(t.Context(), store.AuditQuery{}) {
		must(t, err)
		if records++; r.Sequence != records {
			t.Fatalf("record %d comes as number %d", r.Sequence, records)
		}
		if r.User != "" && seen[r.User] {
			t.Errorf("%s is there twice", r.User)
		}
		seen[r.User] = true
	}
	for user := range durable {
		if !seen[user] {
			t.Errorf("%s was durable and is gone", user)
		}
	}
	if records != report.Records {
		t.Errorf("%d records in the store, %d in the files", records, report.Records)
	}
	t.Logf("%d events, of which %d were known to be durable; %d files put aside", records, len(durable), len(report.Aside))
}

// recordAndKill runs a process until it has said so many events to be durable.
func recordAndKill(t *testing.T, dir string, events int, durable map[string]bool) {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), crashEnv+"="+dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	kill := sync.OnceFunc(func() { _ = cmd.Process.Kill() })
	defer kill()
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "open" {
		kill()
		_ = cmd.Wait()
		t.Fatalf("said %q; %s", lines.Text(), stderr.String())
	}
	for n := 0; lines.Scan(); n++ {
		durable[lines.Text()] = true
		if n == events {
			kill() // and read on: what it said before it died counts
		}
	}
	_ = cmd.Wait() // killed
}

// TestFullFileSystem fills a real, small file system, and then makes room.
func TestFullFileSystem(t *testing.T) {
	dir := t.TempDir()
	err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=256k,mode=700")
	if errors.Is(err, unix.EPERM) && os.Getenv("CI") != "true" {
		t.Skip("mounting a file system needs root; TestFullDisk has a fake one")
	}
	must(t, err)
	t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
	ballast := filepath.Join(dir, "ballast")
	must(t, os.WriteFile(ballast, make([]byte, 128<<10), 0o600))
	l := openLog(t, Config{Dir: dir})
	accepted, refused := uint64(0), 0
	for refused < 10 {
		if err := l.Record(t.Context(), Event{Event: EventExec, Command: strings.Repeat("x", 3000)}); err != nil {
			refused++
		} else {
			accepted++
		}
	}
	must(t, l.Sync(t.Context()))
	must(t, os.Remove(ballast))
	for range 10 {
		must(t, l.Record(t.Context(), Event{Event: EventExec}))
	}
	must(t, l.Close())
	if r := mustVerify(t, dir); r.Records != accepted+10 {
		t.Errorf("%d records, %d were accepted", r.Records, accepted+10)
	}
}
