package console

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/term"

	"github.com/fleetca/fleetca/jump/cast"
	"github.com/fleetca/fleetca/jump/store"
)

// viewer is a person at a real terminal in raw mode, as the far end of ssh -t
// or fleetjump has it.
type viewer struct {
	t      *testing.T
	master *os.File
	code   chan int
	drawn  chan byte
	seen   []byte
}

func (f *fixture) view(ctx context.Context, argv ...string) *viewer {
	f.t.Helper()
	master, tty, err := pty.Open()
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		tty.Close()
		master.Close()
	})
	if _, err := term.MakeRaw(int(tty.Fd())); err != nil {
		f.t.Fatal(err)
	}
	v := &viewer{t: f.t, master: master, code: make(chan int, 1), drawn: make(chan byte)}
	go v.read()
	go func() {
		v.code <- f.Run(ctx, auditor, argv, Streams{
			In: tty, Out: tty, Err: tty, Terminal: true, Size: func() (int, int) { return 80, 24 },
		})
		if _, err := tty.WriteString("\x00"); err != nil { // after all that the command wrote
			f.t.Error(err)
		}
	}()
	return v
}

// until reads what is drawn until it ends in text, and returns it.
func (v *viewer) until(text string) string {
	v.t.Helper()
	timeout := time.After(20 * time.Second)
	for !bytes.HasSuffix(v.seen, []byte(text)) {
		select {
		case b, ok := <-v.drawn:
			if !ok {
				v.t.Fatalf("the terminal is gone; waiting for %q after %q", text, v.seen)
			}
			v.seen = append(v.seen, b)
		case <-timeout:
			v.t.Fatalf("waiting for %q after %q", text, v.seen)
		}
	}
	seen := string(v.seen)
	v.seen = nil
	return seen
}

// read ends when the terminal is closed.
func (v *viewer) read() {
	defer close(v.drawn)
	buf := make([]byte, 1024)
	for {
		n, err := v.master.Read(buf)
		for _, b := range buf[:n] {
			select {
			case v.drawn <- b:
			case <-v.t.Context().Done():
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (v *viewer) press(keys string) {
	v.t.Helper()
	if _, err := v.master.WriteString(keys); err != nil {
		v.t.Fatal(err)
	}
}

func (v *viewer) ends(code int) string {
	v.t.Helper()
	seen := v.until("\x00")
	if got := <-v.code; got != code {
		v.t.Errorf("exit code %d, want %d, after %q", got, code, seen)
	}
	return seen
}

// TestPlay plays hours of recording by keys, so that nothing waits.
func TestPlay(t *testing.T) {
	f := newFixture(t)
	s := f.add(0, store.Session{Identity: "alice", Kind: store.KindTerminal, Columns: 80, Rows: 24},
		output(0, "one\x1b]52;c;aGk=\x07\x1b[?1049h\x1b[31m"), output(time.Hour, "two"), output(2*time.Hour, "three"),
		cast.Event{At: 3 * time.Hour, Kind: cast.Resize, Data: cast.ResizeData(80, 25)},
		jsonEvent(t, cast.Gap, cast.GapSummary{From: 0, To: 5e6, Reason: "disk \x1b[31m", Bytes: 7}), output(4*time.Hour, "four"))
	v := f.view(t.Context(), "play", short(s.ID))
	if got := v.until("one\x1b[?1049h\x1b[31m"); strings.Contains(got, "52;c") {
		t.Errorf("the clipboard was written: %q", got)
	}
	v.press(".")
	v.until("two")
	v.press(".")
	v.until("three")
	v.press(" ]")
	v.until(`7 B in 5s are missing here: disk \x1b[31m`)
	v.press("q")
	if got := v.ends(0); !strings.Contains(got, "\x1b[?1049l") || !strings.Contains(got, "\x1b[0m") && !strings.Contains(got, "\x1b[m") {
		t.Errorf("the terminal is not put back: %q", got)
	}

	v = f.view(t.Context(), "sessions", "play", s.ID, "--start", "2h", "--speed", "2")
	v.until("three")
	v.press("\x03")
	v.ends(0)

	v = f.view(t.Context(), "play", s.ID, "--max-idle", "1ms")
	v.until("four")
	v.ends(0)

	v = f.view(t.Context(), "play", s.ID, "--speed", "0")
	if got := v.until("four"); !strings.Contains(got, "[7 B in 5s are missing here") {
		t.Errorf("nothing says that something is missing: %q", got)
	}
	v.ends(0)

	ctx, cancel := context.WithCancel(t.Context())
	v = f.view(ctx, "play", s.ID)
	v.until("one\x1b[?1049h\x1b[31m")
	cancel()
	if got := v.ends(130); !strings.Contains(got, "\x1b[?1049l") || !strings.Contains(got, "fleetjump: interrupted\r\n") {
		t.Errorf("interrupted: %q", got)
	}
}

// TestPlayCommand plays what had no terminal: lines must not become stairs.
func TestPlayCommand(t *testing.T) {
	f := newFixture(t)
	s := f.add(0, store.Session{Identity: "alice", Kind: store.KindCommand, Command: "cat"}, output(0, "a\nb\n"))
	v := f.view(t.Context(), "play", s.ID)
	v.until("a\r\nb\r\n")
	v.press("q")
	v.ends(0)
}
