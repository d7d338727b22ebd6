package recording

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetca/fleetca/jump/cast"
	"github.com/fleetca/fleetca/jump/store"
	"github.com/fleetca/fleetca/jump/transfer"
)

func digest(parts ...[]byte) string {
	return fmt.Sprintf("%x", sha256.Sum256(bytes.Join(parts, nil)))
}

// TestCommand keeps the beginning and the end of each stream, and counts and
// digests all of it.
func TestCommand(t *testing.T) {
	for _, withInput := range []bool{false, true} {
		s := newStore(t)
		o := command("make \xff\n all")
		o.Input = withInput
		r := start(t, Config{Store: s, MaxStream: 1000}, o)
		a, b := bytes.Repeat([]byte("a"), 700), bytes.Repeat([]byte("b"), 700)
		must(t, r.Output(a))
		must(t, r.Input(b))
		must(t, r.Output(b))
		must(t, r.Stderr([]byte("warning")))
		must(t, r.Output(a))
		must(t, r.Input(a))
		mustClose(t, r)
		events, _ := read(t, s, r.ID())
		if got := data(events, cast.Command); string(got) != "make \xff\n all" {
			t.Errorf("command %q", got)
		}
		if got := data(events, cast.Output); !bytes.Equal(got, bytes.Join([][]byte{a, b[:300], b[400:], a}, nil)) {
			t.Errorf("kept of the output: %q", got)
		}
		// The end is marked, and so is what is missing before it.
		if g := gapsOf(t, events); len(g) != 1 || g[0].Bytes != 100 || g[0].Reason != "stdout is not kept whole" {
			t.Errorf("gaps %+v", g)
		}
		if got := data(events, cast.Note); !bytes.Contains(got, []byte(`{"kind":"tail","value":{"bytes":1000,"offset":1100,"stream":"stdout"}}`)) {
			t.Errorf("notes %s", got)
		}
		want := map[string]cast.StreamSummary{
			"stdin":  {Stream: "stdin", Bytes: 1400, SHA256: digest(b, a)},
			"stdout": {Stream: "stdout", Bytes: 2100, Kept: 2000, SHA256: digest(a, b, a)},
			"stderr": {Stream: "stderr", Bytes: 7, Kept: 7, SHA256: digest([]byte("warning"))},
		}
		if withInput {
			want["stdin"] = cast.StreamSummary{Stream: "stdin", Bytes: 1400, Kept: 1400, SHA256: digest(b, a)}
		}
		for name, sum := range streamsOf(t, events) {
			if sum != want[name] {
				t.Errorf("input %v: %+v, want %+v", withInput, sum, want[name])
			}
		}
		entry, err := s.Session(t.Context(), r.ID())
		must(t, err)
		if entry.Command != `make \xff\n all` {
			t.Errorf("command in lists: %q", entry.Command)
		}
	}
}

// files records which operations were told.
type files struct {
	mu  sync.Mutex
	ops []transfer.Operation
}

func (f *files) add(op transfer.Operation) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ops = append(f.ops, op)
}

func scpOptions(t *testing.T, line string, f *files) Options {
	t.Helper()
	scp, ok := transfer.ParseSCP(line)
	if !ok {
		t.Fatalf("%q is no scp", line)
	}
	return Options{Session: store.Session{Kind: store.KindSCP}, Command: []byte(line), SCP: &scp, OnFile: f.add}
}

// upload is an scp of a file to the host.
func upload(t *testing.T, r *Recording, content []byte) {
	t.Helper()
	must(t, r.Output([]byte{0}))
	must(t, r.Input(fmt.Appendf(nil, "C0644 %d secret.txt\n", len(content))))
	must(t, r.Output([]byte{0}))
	must(t, r.Input(content))
	must(t, r.Input([]byte{0}))
	must(t, r.Output([]byte{0}))
}

func TestSCP(t *testing.T) {
	for _, mode := range []string{Strict, Off} {
		s := newStore(t)
		var f files
		o := scpOptions(t, "scp -t /tmp", &f)
		o.Mode = mode
		r := start(t, Config{Store: s}, o)
		content := bytes.Repeat([]byte("secret"), 10_000)
		upload(t, r, content)
		mustClose(t, r)
		if len(f.ops) != 1 || f.ops[0].SHA256 != digest(content) || f.ops[0].Action != "write" {
			t.Fatalf("mode %s: operations told: %+v", mode, f.ops)
		}
		events, _ := read(t, s, r.ID())
		if mode == Off {
			if len(events) != 0 {
				t.Errorf("recorded in mode off: %s", lines(events))
			}
			continue
		}
		var op transfer.Operation
		must(t, json.Unmarshal(data(events, cast.File), &op))
		if op != f.ops[0] {
			t.Errorf("recorded %+v, told %+v", op, f.ops[0])
		}
		if strings.Contains(lines(events), "secret\"") || strings.Contains(lines(events), "secretsecret") {
			t.Errorf("the content is recorded: %s", lines(events))
		}
		sums := streamsOf(t, events)
		if in := sums["stdin"]; in.Kept != 0 || in.Bytes < uint64(len(content)) || in.SHA256 != "" {
			t.Errorf("stdin %+v", in)
		}
		if entry := r.Session(); entry.Kind != store.KindSCP {
			t.Errorf("kind %s", entry.Kind)
		}
	}
}

// TestNoSCP runs commands that only look like a file copy: all is recorded that
// a command's recording has, also of the bytes from before it showed.
func TestNoSCP(t *testing.T) {
	for name, tc := range map[string]struct {
		options func(t *testing.T, f *files) Options
		run     func(t *testing.T, r *Recording)
		out, in string
	}{
		"greeting before scp": {
			func(t *testing.T, f *files) Options { return scpOptions(t, "scp -f /etc/motd", f) },
			func(t *testing.T, r *Recording) {
				must(t, r.Input([]byte{0}))
				must(t, r.Output([]byte("hello from .bashrc\n")))
				must(t, r.Output([]byte("more\n")))
				must(t, r.Input([]byte("and so on")))
			},
			"hello from .bashrc\nmore\n", "\x00and so on",
		},
		"input stops after it showed": {
			func(t *testing.T, f *files) Options { return scpOptions(t, "scp -f /etc/motd", f) },
			func(t *testing.T, r *Recording) {
				must(t, r.Input([]byte{0}))
				must(t, r.Output([]byte("xyz\n")))
			},
			"xyz\n", "\x00",
		},
		"sftp that is a shell": {
			func(t *testing.T, f *files) Options {
				return Options{Session: store.Session{Kind: store.KindSFTP}, OnFile: f.add}
			},
			func(t *testing.T, r *Recording) {
				must(t, r.Input([]byte("\x00\x00\x00\x05\x01\x00\x00\x00\x03")))
				must(t, r.Output([]byte("This account is not available.\n")))
			},
			"This account is not available.\n", "\x00\x00\x00\x05\x01\x00\x00\x00\x03",
		},
		"rsync that is a shell": {
			func(*testing.T, *files) Options { return command("rsync --server --sender -e.LsfxC . /etc") },
			func(t *testing.T, r *Recording) {
				must(t, r.Input([]byte("\x1f\x00\x00\x00")))
				must(t, r.Output([]byte("\x1f\x00")))
				must(t, r.Output([]byte("a shell\n")))
			},
			"\x1f\x00a shell\n", "\x1f\x00\x00\x00",
		},
		"git that says two letters": {
			func(*testing.T, *files) Options { return command("git-upload-pack 'x.git'") },
			func(t *testing.T, r *Recording) { must(t, r.Output([]byte("ab"))) },
			"ab", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			var f files
			o := tc.options(t, &f)
			o.Input = true
			r := start(t, Config{Store: s}, o)
			tc.run(t, r)
			mustClose(t, r)
			events, _ := read(t, s, r.ID())
			if out, in := data(events, cast.Output), data(events, cast.Input); string(out) != tc.out || string(in) != tc.in {
				t.Errorf("recorded output %q, input %q", out, in)
			}
			sums := streamsOf(t, events)
			if sums["stdout"].SHA256 != digest([]byte(tc.out)) || sums["stdin"].SHA256 != digest([]byte(tc.in)) {
				t.Errorf("streams %+v", sums)
			}
			entry, err := s.Session(t.Context(), r.ID())
			must(t, err)
			if entry.Kind != store.KindCommand {
				t.Errorf("kind %q", entry.Kind)
			}
			if name != "git that says two letters" && !bytes.Contains(data(events, cast.Note), []byte("recorded_as_command")) {
				t.Errorf("no note says why: %s", lines(events))
			}
		})
	}
}

// TestLateFallback has more bytes before the fall than are held, and than are
// kept: what follows is kept, counted and digested from there on.
func TestLateFallback(t *testing.T) {
	for name, size := range map[string]int{"beyond the head": 2 * headSize, "beyond the limit": 3 << 20} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			var f files
			const limit = 1 << 20
			r := start(t, Config{Store: s, MaxStream: limit}, scpOptions(t, "scp -f /etc/motd", &f))
			must(t, r.Input([]byte{0}))
			must(t, r.Output(fmt.Appendf(nil, "C0644 %d x\n", size)))
			for left := size; left > 0; left -= headSize {
				must(t, r.Output(bytes.Repeat([]byte("c"), headSize)))
			}
			must(t, r.Output([]byte{0}))
			must(t, r.Input([]byte{0}))
			must(t, r.Input([]byte{0}))
			before := uint64(size) + 1 + uint64(len(fmt.Sprintf("C0644 %d x\n", size)))
			late := []byte("then a shell\n")
			must(t, r.Output(late))
			more := bytes.Repeat([]byte("m"), limit)
			must(t, r.Output(more))
			must(t, r.Output(late))
			mustClose(t, r)
			events, _ := read(t, s, r.ID())
			out := streamsOf(t, events)["stdout"]
			rest := bytes.Join([][]byte{late, more, late}, nil)
			if got := data(events, cast.Output); !bytes.Equal(got[headSize:], rest) {
				t.Errorf("recorded %d bytes, after the head %.20q", len(got), got[headSize:])
			}
			if out.SHA256 != "" || out.From != before || out.FromSHA256 != digest(rest) ||
				out.Kept != headSize+uint64(len(rest)) || out.Bytes != before+uint64(len(rest)) {
				t.Errorf("stdout %+v", out)
			}
			if g := gapsOf(t, events); len(g) != 1 || g[0].Bytes != before-headSize {
				t.Errorf("gaps %+v", g)
			}
			if len(f.ops) != 1 || f.ops[0].Size != uint64(size) {
				t.Errorf("operations told: %+v", f.ops)
			}
		})
	}
}

// TestWhole keeps all that a shell without a terminal says.
func TestWhole(t *testing.T) {
	s := newStore(t)
	o := Options{Session: store.Session{Kind: store.KindCommand}, Whole: true}
	r := start(t, Config{Store: s, MaxStream: 1000}, o)
	out := bytes.Repeat([]byte("out "), 100_000)
	must(t, r.Output(out))
	must(t, r.Stderr(out))
	must(t, r.Input(out))
	mustClose(t, r)
	events, _ := read(t, s, r.ID())
	if !bytes.Equal(data(events, cast.Output), out) || !bytes.Equal(data(events, cast.Stderr), out) || len(gapsOf(t, events)) != 0 {
		t.Errorf("recorded %d and %d bytes", len(data(events, cast.Output)), len(data(events, cast.Stderr)))
	}
	sums := streamsOf(t, events)
	if in := sums["stdin"]; in.Kept != 0 || in.SHA256 != digest(out) || sums["stdout"].SHA256 != digest(out) {
		t.Errorf("streams %+v", sums)
	}
}

// TestRefusedBytes counts only what may have passed: what was recorded, not
// what a call returned an error for.
func TestRefusedBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		r := start(t, Config{Store: s, Buffer: small}, command("x"))
		must(t, r.Output([]byte("abc")))
		time.Sleep(time.Second)
		synctest.Wait()
		s.Hold()
		refused := make(chan error)
		go func() { refused <- r.Output(bytes.Repeat([]byte("y"), 4*small)) }()
		synctest.Wait()
		closed := make(chan error)
		go func() { closed <- r.Close(t.Context(), "cut off") }()
		if err := <-refused; !errors.Is(err, ErrClosed) {
			t.Errorf("output: %v", err)
		}
		s.Release()
		must(t, <-closed)
		events, _ := read(t, s, r.ID())
		got := data(events, cast.Output)
		if out := streamsOf(t, events)["stdout"]; out.Bytes != uint64(len(got)) || out.Kept != out.Bytes || out.SHA256 != digest(got) {
			t.Errorf("claimed %+v, recorded %d bytes", out, len(got))
		}
	})
}

// TestRing compares it with the end of all that was added.
func TestRing(t *testing.T) {
	for _, size := range []int{0, 1, 7, 64} {
		tail, all := ring{size: size}, []byte(nil)
		for i := range 200 {
			p := bytes.Repeat([]byte{byte(i)}, i*i%(2*size+3))
			tail.add(p)
			all = append(all, p...)
			older, newer := tail.bytes()
			if want := all[max(0, len(all)-size):]; !bytes.Equal(slices.Concat(older, newer), want) || tail.total != uint64(len(all)) {
				t.Fatalf("size %d after %d bytes: %v %v, want %v", size, len(all), older, newer, want)
			}
		}
	}
}

func TestCounted(t *testing.T) {
	for line, first := range map[string]string{
		"git-upload-pack '/srv/x.git'":                           "0007ref",
		"git-receive-pack 'x.git'":                               "0000",
		"rsync --server --sender -vlogDtpre.iLsfxCIvu . /srv/a":  "\x1f\x00\x00\x00\x7fseed",
		"rsync --server -e.LsfxCIvu --delete --timeout=30 . dir": "\x20\x00\x00\x00seed",
	} {
		s := newStore(t)
		r := start(t, Config{Store: s}, command(line))
		for _, b := range []byte(first) {
			must(t, r.Output([]byte{b}))
		}
		must(t, r.Input([]byte("request")))
		content := packets(line, make([]byte, 100_000), []byte("the end"))
		must(t, r.Output(content))
		must(t, r.Stderr([]byte("remote: counting")))
		mustClose(t, r)
		events, _ := read(t, s, r.ID())
		out := data(events, cast.Output)
		if len(out) != 2*headSize || !bytes.HasPrefix(out, []byte(first)) || !bytes.HasSuffix(out, []byte("the end")) || len(data(events, cast.Input)) != 0 {
			t.Errorf("%s: kept %d bytes", line, len(out))
		}
		sums := streamsOf(t, events)
		if sums["stdout"].Bytes != uint64(len(first)+len(content)) ||
			sums["stdout"].SHA256 != digest([]byte(first), content) || sums["stdin"].SHA256 != digest([]byte("request")) || sums["stdin"].Bytes != 7 || sums["stderr"].Kept != 16 {
			t.Errorf("%s: %+v", line, sums)
		}
		if r.Session().Kind != store.KindCommand {
			t.Errorf("%s: kind %s", line, r.Session().Kind)
		}
	}
}

// packets packs what a server says as rsync or git do.
func packets(line string, all ...[]byte) []byte {
	var out []byte
	for _, content := range all {
		for p := range slices.Chunk(content, 32<<10) {
			if strings.HasPrefix(line, "git") {
				out = fmt.Appendf(out, "%04x%s", 4+len(p), p)
			} else {
				out = append(binary.LittleEndian.AppendUint32(out, rsyncBase<<24|uint32(len(p))), p...)
			}
		}
	}
	return out
}

// TestCountedLateFallback has hosts that stop speaking the protocol after long:
// all is recorded from there on, and what came just before.
func TestCountedLateFallback(t *testing.T) {
	for line, first := range map[string]string{
		"git-upload-pack 'x.git'": "0007ref", "rsync --server . x": "\x1f\x00\x00\x00seed",
	} {
		s := newStore(t)
		o := command(line)
		var why []string
		o.OnFallback = func(s string) error { why = append(why, s); return nil }
		r := start(t, Config{Store: s, MaxStream: 1 << 20}, o)
		before := append([]byte(first), packets(line, make([]byte, 3<<20), []byte("just before"))...)
		for p := range slices.Chunk(before, 10_000) {
			must(t, r.Output(p))
		}
		must(t, r.Input([]byte("id\n")))
		if len(why) != 0 {
			t.Errorf("%s: it fell at once: %q", line, why)
		}
		late := bytes.Repeat([]byte("# cat /etc/shadow: secrets\n"), 10_000)
		must(t, r.Output(late))
		must(t, r.Input([]byte("id\n")))
		mustClose(t, r)
		events, _ := read(t, s, r.ID())
		want := slices.Concat(before[:headSize], before[len(before)-headSize:], late)
		if got := data(events, cast.Output); !bytes.Equal(got, want) || len(why) != 1 {
			t.Errorf("%s: recorded %d bytes, want %d; fell %q", line, len(got), len(want), why)
		}
		sums := streamsOf(t, events)
		if out := sums["stdout"]; out.SHA256 != digest(before, late) || out.From != uint64(len(before)) || out.FromSHA256 != digest(late) {
			t.Errorf("%s: stdout %+v", line, out)
		}
		if in := sums["stdin"]; in.SHA256 != digest([]byte("id\nid\n")) || in.From != 3 {
			t.Errorf("%s: stdin %+v", line, in)
		}
	}
}

// TestForward keeps what Forward says, and no bytes.
func TestForward(t *testing.T) {
	s := newStore(t)
	r := start(t, Config{Store: s}, Options{Session: store.Session{Kind: store.KindForward}})
	must(t, r.Output([]byte("bytes")))
	must(t, r.Forward(Forward{Kind: "local", From: "127.0.0.1:1", To: "db01:5432", In: 1, Out: 5, Duration: 2}))
	mustClose(t, r)
	events, _ := read(t, s, r.ID())
	if len(data(events, cast.Output)) != 0 || !bytes.Contains(data(events, cast.Forward), []byte(`"to":"db01:5432"`)) {
		t.Errorf("recorded %s", lines(events))
	}
}
