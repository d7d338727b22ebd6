package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/jump/audit"
	"github.com/fleetca/fleetca/jump/config"
	"github.com/fleetca/fleetca/jump/recording"
	"github.com/fleetca/fleetca/jump/store"
	"github.com/fleetca/fleetca/jump/store/badgerstore"
	"github.com/fleetca/fleetca/templates"
)

// asProgram makes this test binary the program.
const asProgram = "FLEETJUMP_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// command is the program as a process of its own.
func command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "TERM=xterm", "TZ=Asia/Tokyo")
	return cmd
}

// site is a jump host's folder with one recording in it.
type site struct {
	file     string // jump.yaml
	settings *config.Config
	id       string
	output   []byte
}

// newSite makes one whose server listens on any port.
func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{file: filepath.Join(checkFolder(t), templates.JumpConfigFile)}
	text, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte(`":3023"`), []byte(`"127.0.0.1:0"`), 1)
	if err := os.WriteFile(s.file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if s.settings, _, err = config.Load(t.Context(), s.file); err != nil {
		t.Fatal(err)
	}
	return s
}

// record makes the recording with what a server makes it with.
func (s *site) record(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	for b := range 256 {
		s.output = append(s.output, byte(b), '\n')
	}
	st := s.open(t)
	log, err := audit.Open(ctx, audit.Config{Dir: s.settings.AuditDir, Store: st})
	if err != nil {
		t.Fatal(err)
	}
	// The recorder's clock goes by the hour, so that replays wait for keys.
	now := time.Now().Add(-24 * time.Hour)
	clock := func() time.Time { return now }
	rec, err := recording.New(recording.Config{Store: st, Now: clock}).Start(ctx, recording.Options{
		Session: store.Session{Identity: "joe", Login: "root", Host: "web1", Kind: store.KindTerminal, Columns: 80, Rows: 24},
		Mode:    recording.Strict, Term: "xterm",
	})
	if err != nil {
		t.Fatal(err)
	}
	parts := [][]byte{[]byte("begun\r\n"), s.output}
	s.output = slices.Concat(parts...)
	var failed error
	for _, p := range parts {
		failed = errors.Join(failed, rec.Output(p))
		now = now.Add(time.Hour)
	}
	failed = errors.Join(failed, rec.Close(ctx, ""))
	s.id = rec.ID()
	failed = errors.Join(failed,
		log.Record(ctx, audit.Event{Event: audit.EventSessionEnd, User: "joe", SID: s.id, Recording: rec.Hash()}), log.Close(), st.Close())
	if failed != nil {
		t.Fatal(failed)
	}
}

func (s *site) open(t *testing.T) *badgerstore.Store {
	t.Helper()
	st, err := badgerstore.Open(t.Context(), storeConfig(s.settings, nil))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return st
}

// serve runs the server until the test ends.
func (s *site) serve(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := command(t, "serve", "--config", s.file)
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	listening, ended := make(chan struct{}), make(chan struct{})
	var lines bytes.Buffer
	go func() {
		defer close(ended)
		scanner := bufio.NewScanner(io.TeeReader(log, &lines))
		for scanner.Scan() {
			if strings.Contains(scanner.Text(), "msg=listening") {
				close(listening)
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the server's log:\n%s", &lines)
		}
	})
	select {
	case <-listening:
	case <-ended:
		t.Fatalf("the server ended:\n%s", &lines)
	case <-time.After(30 * time.Second):
		t.Fatal("the server does not listen")
	}
	return cmd
}

// check runs the commands, which must work alike with and without a server.
func (s *site) check(t *testing.T) {
	t.Helper()
	run := func(args ...string) (int, string, string) {
		return fleetjump(t, append(args, "--config", s.file)...)
	}
	code, out, errs := run("sessions", "ls", "--user", "j*")
	if code != 0 || !strings.Contains(out, s.id[:12]) || !strings.Contains(out, "web1") || errs != "" {
		t.Errorf("ls: %d %q %q", code, out, errs)
	}
	code, out, errs = run("sessions", "export", s.id[:14], "--format=raw")
	if code != 0 || out != string(s.output) || errs != "" {
		t.Errorf("export: %d, %d bytes of %d, %q", code, len(out), len(s.output), errs)
	}
	code, out, errs = run("sessions", "verify", s.id)
	if code != 0 || !strings.Contains(out, "intact and sealed") || errs != "" {
		t.Errorf("verify: %d %q %q", code, out, errs)
	}
	code, out, errs = run("sessions", "show", "no\x1bne")
	if code != 1 || out != "" || errs != "fleetjump: no session \"no\\x1bne\"\nhint: sessions ls lists them\n" {
		t.Errorf("show: %d %q %q", code, out, errs)
	}
	code, _, errs = run("play", s.id)
	if code != 2 || !strings.Contains(errs, "playing needs a terminal") {
		t.Errorf("play: %d %q", code, errs)
	}
	code, out, _ = run("audit", "--event", "recording.export", "--json")
	if code != 0 || !strings.Contains(out, `"user":"local:`) || !strings.Contains(out, s.id) {
		t.Errorf("audit: %d %q", code, out)
	}
	code, out, _ = run("audit", "--verify", "--json")
	if code != 0 || !strings.Contains(out, `"problem_count":0`) {
		t.Errorf("audit --verify: %d %q", code, out)
	}
}

func TestLocal(t *testing.T) {
	s := newSite(t)
	code, _, errs := fleetjump(t, "sessions", "ls", "--config", s.file)
	if code != 1 || !strings.Contains(errs, "there are no recordings: ") {
		t.Errorf("without a store: %d %q", code, errs)
	}
	if _, err := os.Stat(s.settings.Store.Dir); err == nil {
		t.Error("listing made a store")
	}
	s.record(t)
	s.check(t)

	// A socket that a killed server has left changes nothing.
	if err := syscall.Mknod(s.settings.AdminSocket, syscall.S_IFSOCK|0o600, 0); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := fleetjump(t, "sessions", "verify", "--all", "--config", s.file); code != 0 || errs != "1 sealed, 0 interrupted, 0 running, 0 not recorded, 0 damaged\n" {
		t.Errorf("verify --all: %d %q", code, errs)
	}

	st := s.open(t)
	code, _, errs = fleetjump(t, "sessions", "ls", "--config", s.file)
	if code != 1 || !strings.Contains(errs, "in use by another process") || !strings.Contains(errs, "hint: nothing answers at admin_socket /") {
		t.Errorf("locked: %d %q", code, errs)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := fleetjump(t, "sessions", "ls", "--config", filepath.Join(t.TempDir(), "none")); code != 2 || !strings.Contains(errs, "hint: --config or $FLEETJUMP_CONFIG") {
		t.Errorf("no configuration: %d %q", code, errs)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(s.settings.Store.Dir, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		code, _, errs := fleetjump(t, "sessions", "ls", "--config", s.file)
		if code != 2 || !strings.Contains(errs, "belongs to user ") || !strings.Contains(errs, "hint: no server answers") {
			t.Errorf("another's store: %d %q", code, errs)
		}
	}
}

func TestRemote(t *testing.T) {
	s := newSite(t)
	s.record(t)
	server := s.serve(t)
	s.check(t)

	// Into a file, exact to the byte.
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := command(t, "--config", s.file, "sessions", "export", "--format", "raw", s.id)
	cmd.Stdout = file
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file.Name()); err != nil || !bytes.Equal(got, s.output) {
		t.Errorf("%d bytes of %d: %v", len(got), len(s.output), err)
	}

	// What isn't known there is told here.
	if code, _, errs := fleetjump(t, "sessions", "ls", "--nonsense", "--config", s.file); code != 2 || !strings.Contains(errs, "unknown flag --nonsense") {
		t.Errorf("%d %q", code, errs)
	}
	if err := server.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// A server that has stopped answering doesn't keep anybody who presses Ctrl-C.
	ctx, cancel := context.WithCancel(t.Context())
	var errs bytes.Buffer
	none := func(string) string { return "" }
	a := &program.App{Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: &errs, Getenv: none, Now: time.Now, Term: terminal.New(none)}
	code := make(chan int)
	go func() {
		code <- program.Run(ctx, about, a, new(cli), []string{"sessions", "ls", "--config", s.file})
	}()
	cancel()
	if got := <-code; got != 130 || errs.String() != "fleetjump: interrupted\n" {
		t.Errorf("exit code %d, %q", got, errs.String())
	}
	if err := server.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// TestWords holds what is sent to a server against what was typed.
func TestWords(t *testing.T) {
	s := newSite(t)
	s.record(t)
	s.serve(t)
	for _, args := range [][]string{
		{"sessions", "ls", "--limit", "1", "--json", "--since=1w", "--kind", "terminal", "--color", "never"},
		{"--color=never", "sessions", "verify", "--json", "--", s.id, s.id[:15]},
		{"audit", "--file", "*'\" x", "--json"},
		{"sessions", "rm", "--", "--config"},
		{"play", "--speed=0", "--max-idle", "1500ms", s.id},
	} {
		code, _, errs := fleetjump(t, append([]string{"--config", s.file}, args...)...)
		want := 0
		if args[1] == "rm" {
			want = 1 // there is no session "--config"
		}
		if code != want || want == 1 && !strings.Contains(errs, `no session "--config"`) {
			t.Errorf("%q: exit code %d, %q", args, code, errs)
		}
	}
}

func TestCompletion(t *testing.T) {
	for words, want := range map[string]string{
		"sess":                   "sessions",
		"sessions ":              "ls show play export verify rm end",
		"sessions export --fo":   "--format",
		"sessions ls --kind s":   "scp sftp",
		"config ":                "check",
		"--config x sessions sh": "show",
	} {
		code, out, errs := fleetjump(t, append([]string{"complete", "--"}, strings.Split(words, " ")...)...)
		if got := strings.Join(strings.Fields(out), " "); code != 0 || got != want {
			t.Errorf("%q: %q, want %q (%d, %s)", words, got, want, code, errs)
		}
	}
}
