package replay

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/fleetca/fleetca/jump/cast"
	"github.com/fleetca/fleetca/jump/store"
)

func export(t *testing.T, s store.Store, id string, f Format) string {
	t.Helper()
	var b bytes.Buffer
	if err := Export(t.Context(), &b, s, id, f); err != nil {
		t.Fatalf("%s: %v", f, err)
	}
	return b.String()
}

// split makes events of a few bytes each out of data, so that every character
// is cut at every place sooner or later.
func split(kind cast.Kind, data []byte) []cast.Event {
	var evs []cast.Event
	for i := 0; len(data) > 0; i++ {
		n := min(len(data), 1+i%3)
		evs = append(evs, cast.Event{At: time.Duration(i) * time.Millisecond, Kind: kind, Data: data[:n]})
		data = data[n:]
	}
	return evs
}

func TestExportRaw(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	noise := make([]byte, 5000)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	s := newStore(t)
	if got := export(t, s, record(t, terminalHeader(), split(cast.Output, noise)...).put(t, s), Raw); got != string(noise) {
		t.Error("the bytes differ")
	}
	id := record(t, cast.Header{Kind: "command"}, at(0, cast.Command, "x"), at(0, cast.Output, "out\n"),
		at(0, cast.Stderr, "err\xff\n"), at(0, cast.Input, "in"), at(0, cast.Output, "more")).put(t, s)
	if got := export(t, s, id, Raw); got != "out\nerr\xff\nmore" {
		t.Errorf("%q", got)
	}
}

// lines are the lines of an asciicast after its header.
func lines(t *testing.T, text string) (header map[string]any, codes, data []string) {
	t.Helper()
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if i == 0 {
			if err := json.Unmarshal([]byte(line), &header); err != nil {
				t.Fatal(err)
			}
			continue
		}
		var ev []any
		if err := json.Unmarshal([]byte(line), &ev); err != nil || len(ev) != 3 {
			t.Fatalf("%q: %v", line, err)
		}
		codes, data = append(codes, ev[1].(string)), append(data, ev[2].(string))
	}
	return header, codes, data
}

const unicodeText = "žluťoučký kůň úpěl ďábelské ódy\r\n日本語のテキスト 🎉🎊 e\u0301\r\n"

func TestExportAsciicast(t *testing.T) {
	s := newStore(t)
	// Characters that are split over events are whole again.
	id := record(t, terminalHeader(), split(cast.Output, []byte(unicodeText))...).put(t, s)
	for _, f := range []Format{Asciicast, RawAsciicast} {
		header, _, data := lines(t, export(t, s, id, f))
		if got := strings.Join(data, ""); got != unicodeText {
			t.Errorf("%s: %q", f, got)
		}
		if header["version"] != 2.0 || header["width"] != 20.0 || header["height"] != 5.0 ||
			header["timestamp"] != float64(began.Unix()) || header["title"] != "root@web1" {
			t.Errorf("%s: header %v", f, header)
		}
	}

	id = record(t, terminalHeader(), at(0.5, cast.Output, "a\xffb\xe2\x82"), at(1, cast.Output, "c\x1b]0;t\x07\x1b[1m"),
		at(1.5, cast.Resize, string(cast.ResizeData(100, 30))), at(2, cast.Input, "\xc3"), at(2, cast.Input, "\xa9"),
		at(3, cast.Gap, `{"bytes":1}`), at(3.000001, cast.Output, "\xf0\x9f")).put(t, s)
	want := `{"version":2,"width":20,"height":5,"timestamp":1795253400,"title":"root@web1","env":{"TERM":"xterm"}}
[0.500000,"o","a` + "\ufffd" + `b"]
[1.000000,"o","` + "\ufffd" + `c\u001b[1m"]
[1.500000,"r","100x30"]
[2.000000,"i","é"]
[3.000000,"m","gap: {\"bytes\":1}"]
[3.000001,"o","` + "\ufffd" + `"]
`
	if got := export(t, s, id, Asciicast); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := export(t, s, id, RawAsciicast); !strings.Contains(got, `c\u001b]0;t\u0007\u001b[1m`) {
		t.Errorf("raw: %s", got)
	}

	id = record(t, cast.Header{Kind: "command"}, at(0, cast.Command, "ls \x1b"), at(0, cast.Output, "one\ntwo\n")).put(t, s)
	_, codes, data := lines(t, export(t, s, id, Asciicast))
	if strings.Join(codes, "") != "mo" || data[0] != `command: ls \x1b` || data[1] != "one\r\ntwo\r\n" {
		t.Errorf("%q %q", codes, data)
	}
}

// The file itself can be printed: no control but the ends of its lines is in
// it.
func TestExportsArePrintable(t *testing.T) {
	s := newStore(t)
	hostile := "\x1b]0;x\x07\u009b6n\x7f\u202e\u2028\x00\xff"
	h := terminalHeader()
	h.Term, h.Host, h.Login = hostile, hostile, hostile
	detail, err := json.Marshal(map[string]string{"path": hostile})
	if err != nil {
		t.Fatal(err)
	}
	id := record(t, h, at(0, cast.Command, hostile), at(0, cast.Output, hostile), at(0, cast.Input, hostile),
		at(0, cast.Signal, hostile), at(0, cast.File, string(detail)), at(0, cast.Note, hostile)).put(t, s)
	for _, f := range []Format{Asciicast, RawAsciicast, JSON, Text} {
		for _, r := range export(t, s, id, f) {
			if r != '\n' && (r < 0x20 || r >= 0x7f && r < 0xa0 || turnsText(r)) {
				t.Errorf("%s holds %U", f, r)
			}
		}
	}
}

func TestExportJSON(t *testing.T) {
	s := newStore(t)
	id := record(t, cast.Header{Kind: "command"}, at(1, cast.Command, "x"), at(2.5, cast.Output, "\xff\x00"),
		at(3, cast.Resize, string(cast.ResizeData(80, 24))), at(3, cast.Stream, `{"stream":"stdin","bytes":5}`)).put(t, s)
	got := strings.Split(export(t, s, id, JSON), "\n")
	for i, want := range []string{
		"", `{"at_us":1000000,"kind":"command","data":"eA=="}`,
		`{"at_us":2500000,"kind":"output","data":"` + base64.StdEncoding.EncodeToString([]byte{0xff, 0}) + `"}`,
		`{"at_us":3000000,"kind":"resize","columns":80,"rows":24}`,
		`{"at_us":3000000,"kind":"stream","detail":{"stream":"stdin","bytes":5}}`,
		`{"at_us":3000000,"kind":"end","detail":{"events":6,"bytes":2}}`,
		"",
	} {
		if i > 0 && got[i] != want {
			t.Errorf("line %d: %s\nwant %s", i, got[i], want)
		}
	}
	if !strings.HasPrefix(got[0], `{"at_us":0,"kind":"start","detail":{"version":1,"session":"`+id) {
		t.Error(got[0])
	}
}

// Head and tail of a long stream don't look as if they were one.
func TestExportRawMarksGaps(t *testing.T) {
	s := newStore(t)
	id := record(t, cast.Header{Kind: "command"}, at(1, cast.Output, "begin\xff"),
		at(2, cast.Gap, `{"bytes":70,"reason":"stdout is not kept whole\u001b"}`), at(2, cast.Output, "end")).put(t, s)
	if got, want := export(t, s, id, Raw), "begin\xff\n[70 bytes are missing here: stdout is not kept whole\\x1b]\nend"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What is exported in the native form is what docs/recording-format.md says.
func TestExportNative(t *testing.T) {
	s := newStore(t)
	r := record(t, terminalHeader(), at(1, cast.Output, "one"), at(2, cast.Output, "two"))
	id := r.put(t, s)
	file := export(t, s, id, Native)
	if file != string(bytes.Join(r.blocks, nil)) {
		t.Error("not the blocks one after another")
	}
	if report, err := cast.Verify(cast.Split(strings.NewReader(file))); err != nil || !report.Sealed {
		t.Errorf("%+v, %v", report, err)
	}
	r.session.ID = store.NewID(began)
	if err := Export(t.Context(), io.Discard, s, r.put(t, s), Native); !errors.Is(err, cast.ErrHash) {
		t.Errorf("recording under another session: %v", err)
	}
}

func TestExportErrors(t *testing.T) {
	s := newStore(t)
	id := record(t, terminalHeader(), at(1, cast.Output, strings.Repeat("x", 100_000))).put(t, s)
	if err := Export(t.Context(), io.Discard, s, id, "gif"); !errors.Is(err, ErrFormat) {
		t.Errorf("unknown format: %v", err)
	}
	gone := errors.New("gone")
	for _, f := range Formats() {
		if err := Export(t.Context(), io.Discard, s, store.NewID(began), f); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s of an unknown session: %v", f, err)
		}
		if err := Export(t.Context(), failing{gone}, s, id, f); !errors.Is(err, gone) {
			t.Errorf("%s to a writer that fails: %v", f, err)
		}
		if export(t, s, id, f) == "" {
			t.Errorf("%s is empty", f)
		}
	}
}

// asciinema finds the real player.
func asciinema(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("asciinema")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%v (Debian has it in asciinema)", err)
		}
		t.Skipf("%v (Debian has it in asciinema)", err)
	}
	return path
}

// The real player prints what was recorded, byte for byte, and plays it on a
// terminal in the time it took.
func TestAsciinema(t *testing.T) {
	player := asciinema(t)
	s := newStore(t)
	evs := split(cast.Output, []byte(unicodeText+"\x1b[31mred\x1b[m\r\n"))
	last := evs[len(evs)-1].At
	evs = append(evs, cast.Event{At: last, Kind: cast.Resize, Data: cast.ResizeData(100, 30)},
		cast.Event{At: last, Kind: cast.Gap, Data: []byte(`{}`)},
		cast.Event{At: last, Kind: cast.Output, Data: []byte("bad \xff byte, \x1b]0;title\x07done\r\n")})
	id := record(t, terminalHeader(), evs...).put(t, s)
	want := unicodeText + "\x1b[31mred\x1b[m\r\nbad \ufffd byte, done\r\n"

	file := filepath.Join(t.TempDir(), "session.cast")
	if err := os.WriteFile(file, []byte(export(t, s, id, Asciicast)), 0o600); err != nil {
		t.Fatal(err)
	}
	environment := append(os.Environ(), "LC_ALL=C.UTF-8", "HOME="+t.TempDir(), "TERM=xterm", "XDG_CONFIG_HOME="+t.TempDir())

	// It wants a terminal, also where it prints to a pipe.
	controlling, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer controlling.Close()
	defer tty.Close()
	printing := exec.CommandContext(t.Context(), player, "cat", file)
	printing.Env = environment
	printing.Stdin = tty
	printing.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	var stderr bytes.Buffer
	printing.Stderr = &stderr
	out, err := printing.Output()
	if err != nil {
		t.Fatalf("asciinema cat: %v\n%s", err, stderr.Bytes())
	}
	if string(out) != want {
		t.Errorf("asciinema cat printed\n%q\nwant\n%q", out, want)
	}

	playing := exec.CommandContext(t.Context(), player, "play", file)
	playing.Env = environment
	terminal, err := pty.Start(playing)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	begun := time.Now()
	// Reading a terminal whose other side is closed fails with EIO.
	played, _ := io.ReadAll(bufio.NewReader(terminal))
	if err := playing.Wait(); err != nil {
		t.Fatalf("asciinema play: %v\n%s", err, played)
	}
	if took := time.Since(begun); took < last {
		t.Errorf("played %v in %v", last, took)
	}
	if got := string(played); !strings.Contains(got, want) {
		t.Errorf("asciinema play showed\n%q\nwant\n%q", got, want)
	}
}

// FuzzJoiner: text is the same however its bytes were split.
func FuzzJoiner(f *testing.F) {
	f.Add([]byte(unicodeText), uint8(1))
	f.Add([]byte("a\xe2\x82x\xf0\x9f\x98\xff\xed\xa0\x80"), uint8(2))
	f.Fuzz(func(t *testing.T, data []byte, size uint8) {
		var j joiner
		var got strings.Builder
		for rest := data; len(rest) > 0; {
			n := min(len(rest), max(int(size), 1))
			got.WriteString(j.join(rest[:n]))
			rest = rest[n:]
		}
		got.WriteString(j.rest())
		if want := string([]rune(string(data))); got.String() != want {
			t.Errorf("%q in pieces of %d gives %q, want %q", data, size, got.String(), want)
		}
	})
}

// TestAsciicastSizes bounds what a client said of its terminal: a player makes
// room for all of it.
func TestAsciicastSizes(t *testing.T) {
	const huge = 1<<32 - 1
	for _, filtered := range []bool{true, false} {
		var b bytes.Buffer
		e := newAsciicast(&b, filtered)
		if err := e.begin(cast.Header{Columns: huge, Rows: huge, Kind: "terminal"}); err != nil {
			t.Fatal(err)
		}
		for _, size := range [][2]uint32{{huge, huge}, {100, 0}, {0, 30}, {0, 0}} {
			if err := e.event(cast.Event{Kind: cast.Resize, Data: cast.ResizeData(size[0], size[1])}); err != nil {
				t.Fatal(err)
			}
		}
		want := `{"version":2,"width":1024,"height":512}
[0.000000,"r","1024x512"]
[0.000000,"r","100x512"]
[0.000000,"r","100x30"]
[0.000000,"r","100x30"]
`
		if b.String() != want {
			t.Errorf("%s\nwant %s", b.String(), want)
		}
	}
}
