package replay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creack/pty"
	"golang.org/x/term"

	"github.com/fleetca/fleetca/jump/cast"
)

// events makes a sequence that may be ranged over again.
func events(list ...cast.Event) iter.Seq2[cast.Event, error] {
	return func(yield func(cast.Event, error) bool) {
		for _, ev := range list {
			if !yield(ev, nil) {
				return
			}
		}
	}
}

func at(seconds float64, kind cast.Kind, data string) cast.Event {
	return cast.Event{At: time.Duration(seconds * float64(time.Second)), Kind: kind, Data: []byte(data)}
}

func start(t testing.TB, kind string) cast.Event {
	t.Helper()
	h := cast.Header{Version: 1, Kind: kind}
	if kind == "terminal" {
		h.Columns, h.Rows = 80, 24
	}
	data, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	return cast.Event{Kind: cast.Start, Data: data}
}

// tape takes down what is written and when.
type tape struct {
	mu    sync.Mutex
	begun time.Time
	lines []string
}

func (w *tape) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines = append(w.lines, fmt.Sprintf("%v %s", time.Since(w.begun), show(p)))
	return len(p), nil
}

// show leaves out what puts a terminal back, and names what clears it.
func show(p []byte) string {
	s := string(p)
	s = strings.ReplaceAll(s, "\x1b[!p\x1b[?5l\x1b[m\x1b(B\x1b)B\x0f\x1b[r\x1b[H\x1b[2J", "CLEAR")
	s = strings.ReplaceAll(s, "\x1b[m\x1b(B\x1b)B\x0f\x1b[4l\x1b[?5l\x1b[?7h\x1b[?25h", "RESTORE")
	return strings.ReplaceAll(s, "\r\n", "/")
}

func (w *tape) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.lines, "\n")
}

// typing are keys and when they are typed.
type typing struct {
	after time.Duration
	keys  string
}

// play plays with a fake clock. Keys end when playing does.
func play(t *testing.T, evs iter.Seq2[cast.Event, error], o PlayOptions, keys []typing) (string, error) {
	t.Helper()
	var out string
	var err error
	synctest.Test(t, func(t *testing.T) {
		w := &tape{begun: time.Now()}
		o.Out = w
		done := make(chan struct{})
		var typist sync.WaitGroup
		if keys != nil {
			r, kw := io.Pipe()
			o.Keys = r
			typist.Go(func() {
				for _, k := range keys {
					select {
					case <-time.After(k.after):
					case <-done:
						return
					}
					if k.keys == "EOF" {
						_ = kw.Close()
						return
					}
					if _, err := io.WriteString(kw, k.keys); err != nil {
						return
					}
				}
			})
			defer kw.Close()
			defer r.Close()
		}
		err = Play(t.Context(), evs, o)
		close(done)
		out = w.String()
		if keys != nil {
			_ = o.Keys.(io.Closer).Close()
			typist.Wait()
		}
	})
	return out, err
}

func TestPlay(t *testing.T) {
	recording := []cast.Event{
		start(t, "terminal"),
		at(1, cast.Output, "one "), at(2, cast.Output, "two "),
		at(10, cast.Gap, `{}`), at(10, cast.Output, "three "), at(12, cast.Stderr, "four"), at(13, cast.EndKind, `{}`),
	}
	for _, c := range []struct {
		name string
		o    PlayOptions
		keys []typing
		want string
	}{
		{"real time", PlayOptions{}, nil, "1s one \n2s two \n10s three \n12s four\n13s RESTORE/"},
		{"double speed", PlayOptions{Speed: 2}, nil, "500ms one \n1s two \n5s three \n6s four\n6.5s RESTORE/"},
		{"slow", PlayOptions{Speed: 0.5}, nil, "2s one \n4s two \n20s three \n24s four\n26s RESTORE/"},
		{"slowest", PlayOptions{Speed: 0.001}, nil, "16s one \n32s two \n2m40s three \n3m12s four\n3m28s RESTORE/"},
		{"short idle times", PlayOptions{MaxIdle: 1500 * time.Millisecond}, nil, "1s one \n2s two \n3.5s three \n5s four\n6s RESTORE/"},
		{"from a start", PlayOptions{Start: 9 * time.Second}, nil, "0s one \n0s two \n1s three \n3s four\n4s RESTORE/"},
		{"from past the end", PlayOptions{Start: time.Hour}, nil, "0s one \n0s two \n0s three \n0s four\n0s RESTORE/"},
		{"a notice", PlayOptions{MaxIdle: time.Second, Notice: func(ev cast.Event) string {
			if ev.Kind == cast.Gap {
				return "a gap\x1b]0;x\x07\nhere"
			}
			return ""
		}}, nil, "1s one \n2s two \n3s /a gap/here/\n3s three \n4s four\n5s RESTORE/"},
		{"pause", PlayOptions{}, []typing{{1500 * time.Millisecond, " "}, {time.Minute, " "}}, "1s one \n1m2s two \n1m10s three \n1m12s four\n1m13s RESTORE/"},
		{
			"steps",
			PlayOptions{},
			[]typing{{500 * time.Millisecond, "."}, {time.Second, "."}, {time.Second, "."}, {time.Second, " "}},
			"500ms one \n1.5s two \n2.5s three \n5.5s four\n6.5s RESTORE/",
		},
		{"next marker", PlayOptions{}, []typing{{1500 * time.Millisecond, "]"}}, "1s one \n1.5s two \n1.5s three \n3.5s four\n4.5s RESTORE/"},
		{"marker after the last", PlayOptions{}, []typing{{10500 * time.Millisecond, "]"}}, "1s one \n2s two \n10s three \n10.5s four\n10.5s RESTORE/"},
		{"faster", PlayOptions{}, []typing{{2 * time.Second, "}}"}}, "1s one \n2s two \n4s three \n4.5s four\n4.75s RESTORE/"},
		{"slower", PlayOptions{}, []typing{{11 * time.Second, "{"}}, "1s one \n2s two \n10s three \n13s four\n15s RESTORE/"},
		{"forward", PlayOptions{}, []typing{{3 * time.Second, "l"}}, "1s one \n2s two \n5s three \n7s four\n8s RESTORE/"},
		{"forward by arrows, split", PlayOptions{}, []typing{{3 * time.Second, "\x1b"}, {0, "["}, {0, "C"}}, "1s one \n2s two \n5s three \n7s four\n8s RESTORE/"},
		{"back", PlayOptions{}, []typing{{3 * time.Second, "\x1b[D"}}, "1s one \n2s two \n3s CLEAR\n4s one \n5s two \n13s three \n15s four\n16s RESTORE/"},
		{"back to where nothing is drawn anew", PlayOptions{}, []typing{{9 * time.Second, "\x1bOD"}}, "1s one \n2s two \n15s three \n17s four\n18s RESTORE/"},
		{"back, drawn at once", PlayOptions{}, []typing{{11 * time.Second, "h"}}, "1s one \n2s two \n10s three \n11s CLEAR\n11s one \n11s two \n15s three \n17s four\n18s RESTORE/"},
		{
			"back while paused",
			PlayOptions{},
			[]typing{{11 * time.Second, " "}, {time.Second, "h"}, {time.Second, " "}},
			"1s one \n2s two \n10s three \n12s CLEAR\n12s one \n12s two \n17s three \n19s four\n20s RESTORE/",
		},
		{
			"back from a start",
			PlayOptions{Start: 10 * time.Second},
			[]typing{{time.Second, "h"}},
			"0s one \n0s two \n0s three \n1s CLEAR\n1s one \n1s two \n5s three \n7s four\n8s RESTORE/",
		},
		{"quit", PlayOptions{}, []typing{{1500 * time.Millisecond, "xq"}}, "1s one \n1.5s RESTORE/"},
		{"interrupt", PlayOptions{}, []typing{{1500 * time.Millisecond, "\x03"}}, "1s one \n1.5s RESTORE/"},
		{"quit while paused", PlayOptions{}, []typing{{1500 * time.Millisecond, " "}, {time.Hour, "q"}}, "1s one \n1h0m1.5s RESTORE/"},
		{"keys end", PlayOptions{}, []typing{{1500 * time.Millisecond, "EOF"}}, "1s one \n2s two \n10s three \n12s four\n13s RESTORE/"},
		{"keys end while paused", PlayOptions{}, []typing{{1500 * time.Millisecond, " "}, {time.Second, "EOF"}}, "1s one \n3s two \n11s three \n13s four\n14s RESTORE/"},
		{"other keys", PlayOptions{}, []typing{{1500 * time.Millisecond, "abc\x1b[1;5Bq"}}, "1s one \n1.5s RESTORE/"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := play(t, events(recording...), c.o, c.keys)
			if err != nil {
				t.Fatal(err)
			}
			if got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// A command without a terminal has line ends that a terminal in raw mode needs
// whole.
func TestPlayCommand(t *testing.T) {
	got, err := play(t, events(start(t, "command"), at(1, cast.Output, "one\ntwo\n")), PlayOptions{}, nil)
	if want := "1s one/two/\n1s RESTORE"; got != want || err != nil {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

// The viewer's terminal gets only what draws, and is put back, also when the
// recording breaks off inside a sequence or on the other screen.
func TestPlayIsSafe(t *testing.T) {
	evs := events(start(t, "terminal"),
		at(0, cast.Output, "\x1b]52;c;eA=="), at(0, cast.Output, "\x07\x1b[6n\x1b[?1000h\x1b[?1049hx\x1bP$q"),
		at(0, cast.Note, "{}"), at(0, cast.Output, "m\x1b\\y\x1b[3"))
	got, err := play(t, evs, PlayOptions{Notice: func(cast.Event) string { return "note" }}, nil)
	want := "0s note/\n0s \x1b[?1049hx\n0s /note/\n0s y\n0s \x1b[?1049lRESTORE/"
	if got != want || err != nil {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestPlayRaw(t *testing.T) {
	const hostile = "\x1b]0;title\x07\x1b[?1000h\x1b[?1049h\xff\n"
	got, err := play(t, events(start(t, "terminal"), at(0, cast.Output, hostile)), PlayOptions{Raw: true}, nil)
	want := "0s " + hostile + "\n0s " + rawRestore + "\n0s \x1b[?1049lRESTORE"
	if got != want || err != nil {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestPlayErrors(t *testing.T) {
	damaged := errors.New("damaged")
	broken := func(yield func(cast.Event, error) bool) {
		if yield(at(0, cast.Output, "x"), nil) {
			yield(cast.Event{}, damaged)
		}
	}
	if got, err := play(t, broken, PlayOptions{}, nil); !errors.Is(err, damaged) || got != "0s x\n0s RESTORE/" {
		t.Errorf("damaged recording: %q, %v", got, err)
	}
	gone := errors.New("gone")
	if err := Play(t.Context(), events(at(0, cast.Output, "x")), PlayOptions{Out: failing{gone}}); !errors.Is(err, gone) {
		t.Errorf("terminal gone: %v", err)
	}
	for name, o := range map[string]PlayOptions{
		"no Out":         {},
		"negative speed": {Out: io.Discard, Speed: -1},
		"no speed":       {Out: io.Discard, Speed: math.NaN()},
		"negative idle":  {Out: io.Discard, MaxIdle: -1},
	} {
		if err := Play(t.Context(), events(), o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		w := &tape{begun: time.Now()}
		err := Play(ctx, events(at(0, cast.Output, "x"), at(3600, cast.Output, "y")), PlayOptions{Out: w})
		if !errors.Is(err, context.DeadlineExceeded) || w.String() != "0s x\n1m0s RESTORE/" {
			t.Errorf("cancelled: %q, %v", w, err)
		}
	})
}

// The clock of the options is the one that counts.
func TestPlayClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		w := &tape{begun: begun}
		double := func() time.Time { return begun.Add(2 * time.Since(begun)) }
		if err := Play(t.Context(), events(at(0, cast.Output, "x"), at(4, cast.Output, "y")), PlayOptions{Out: w, Now: double}); err != nil {
			t.Fatal(err)
		}
		// The timer waits for four seconds, in which the clock shows eight.
		if got := w.String(); got != "0s x\n4s y\n4s RESTORE/" {
			t.Error(got)
		}
	})
}

// deadlined is a reader that can be interrupted, as terminals and connections
// can.
type deadlined struct {
	*io.PipeReader
	interrupted bool
}

func (d *deadlined) SetReadDeadline(at time.Time) error {
	if !at.IsZero() {
		d.interrupted = true
		_ = d.CloseWithError(errors.New("deadline"))
	}
	return nil
}

func TestPlayEndsReadingKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		defer w.Close()
		keys := &deadlined{PipeReader: r}
		if err := Play(t.Context(), events(at(1, cast.Output, "x")), PlayOptions{Out: io.Discard, Keys: keys}); err != nil {
			t.Fatal(err)
		}
		// The bubble would complain about a goroutine that is left.
		if !keys.interrupted {
			t.Error("the goroutine that reads keys was left")
		}
	})
}

// Reading keys from a terminal ends with Play, and takes nothing that is typed
// later.
func TestPlayOnATerminal(t *testing.T) {
	controlling, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer controlling.Close()
	defer tty.Close()
	if _, err := term.MakeRaw(int(tty.Fd())); err != nil { // Fd makes it blocking
		t.Fatal(err)
	}
	if err := Play(t.Context(), events(at(0, cast.Output, "x")), PlayOptions{Out: tty, Keys: tty}); err != nil {
		t.Fatal(err)
	}
	if _, err := controlling.WriteString(" q"); err != nil {
		t.Fatal(err)
	}
	if err := Play(t.Context(), events(at(0, cast.Output, "x"), at(3600, cast.Output, "y")), PlayOptions{Out: tty, Keys: tty}); err != nil {
		t.Fatal(err)
	}
	if _, err := controlling.WriteString("later"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 5)
	if n, err := io.ReadFull(tty, buf); string(buf[:n]) != "later" || err != nil {
		t.Errorf("what was typed after: %q, %v", buf[:n], err)
	}
}

func TestRestoreUsesTheSize(t *testing.T) {
	var b bytes.Buffer
	o := PlayOptions{Out: &b, Size: func() (int, int) { return 100, 33 }}
	if err := Play(t.Context(), events(at(0, cast.Output, "\x1b[2;5rx")), o); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(b.String(), "\x1b[33;1H\r\n") {
		t.Errorf("%q", b.String())
	}
}

func FuzzKeys(f *testing.F) {
	f.Add("q\x1b[C\x1b[D\x1bOC ]{}.hl\x03")
	f.Fuzz(func(t *testing.T, s string) {
		var p keyParser
		for _, c := range []byte(s) {
			if k := p.next(c); k > keyQuit {
				t.Errorf("%q gives key %d", s, k)
			}
		}
	})
}
