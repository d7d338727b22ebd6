package transfer

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// heap is how much is in use after what can go is gone.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestSFTPMemory: whatever a client and a host send, the parser keeps no more
// than its bounds and says when that isn't enough.
func TestSFTPMemory(t *testing.T) {
	const most = maxMemory + maxHeldInAll + (4 << 20)
	long := strings.Repeat("p", 200<<10)
	for _, test := range []struct {
		name string
		next func(i int) []line
		want string
	}{
		{"requests without answer", func(i int) []line { return []line{c(packet(fxpRemove, i, "a"))} }, "too much is asked"},
		{"requests with one id", func(int) []line { return []line{c(packet(fxpRemove, 1, long))} }, "too much is asked"},
		{"short requests with one id", func(int) []line { return []line{c(packet(fxpRemove, 1, "a"))} }, "too much is asked"},
		{"long paths", func(i int) []line { return []line{open(i, long, 0)} }, "too much is asked"},
		{"open files", func(i int) []line { return []line{open(i, "f", forWriting), handle(i, fmt.Sprint(i))} }, "too much is asked"},
		{"open files with long paths", func(i int) []line { return []line{open(i, long, 0), handle(i, fmt.Sprint(i))} }, "too much is asked"},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := heap()
			p := NewSFTPParser(func(Operation) {})
			err := follow(p, start())
			for i := 0; err == nil && i < 1e6; i++ {
				err = follow(p, test.next(i))
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %s", err, test.want)
			}
			if after := heap(); after > before+most {
				t.Errorf("%d bytes are kept", after-before)
			}
			p.Close()
		})
	}
	t.Run("content out of order", func(t *testing.T) {
		before := heap()
		var ops []Operation
		p := NewSFTPParser(func(o Operation) { ops = append(ops, o) })
		if err := follow(p, start()); err != nil {
			t.Fatal(err)
		}
		block := strings.Repeat("x", 128<<10)
		for i := range 40 {
			name := fmt.Sprint(i)
			if err := follow(p, []line{open(1, name, forWriting), handle(1, name)}); err != nil {
				t.Fatal(err)
			}
			for j := range 10 {
				if err := follow(p, []line{write(1, name, (j+1)*len(block), block), ok(1)}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if p.holding.left < 0 {
			t.Errorf("%d bytes are left", p.holding.left)
		}
		if after := heap(); after > before+most {
			t.Errorf("%d bytes are kept", after-before)
		}
		for i := range 40 {
			name := fmt.Sprint(i)
			if err := follow(p, []line{write(1, name, 0, block), ok(1), closing(1, name), ok(1)}); err != nil {
				t.Fatal(err)
			}
		}
		known := 0
		for _, o := range ops {
			if !o.Complete || o.Size != 11*128<<10 {
				t.Fatalf("%+v", o)
			}
			if o.SHA256 != "" {
				known++
			}
		}
		if known < 5 || known == 40 {
			t.Errorf("%d digests are known", known)
		}
		if p.holding.left != maxHeldInAll || p.memory != 0 {
			t.Errorf("%d bytes of %d are left, %d are in use", p.holding.left, maxHeldInAll, p.memory)
		}
	})
	t.Run("scattered bytes", func(t *testing.T) {
		var ops []Operation
		p := NewSFTPParser(func(o Operation) { ops = append(ops, o) })
		if err := follow(p, lines(opened(forWriting))); err != nil {
			t.Fatal(err)
		}
		for i := range 3 * maxParts {
			if err := follow(p, []line{write(1, "0", 3*i+1, "x"), ok(1)}); err != nil {
				t.Fatal(err)
			}
		}
		f := p.files["0"]
		if len(f.written.parts) > maxParts+1 || len(f.written.held) > maxParts {
			t.Errorf("%d parts, %d chunks", len(f.written.parts), len(f.written.held))
		}
		if err := follow(p, closed()); err != nil {
			t.Fatal(err)
		}
		if want := (Operation{Protocol: "sftp", Action: "write", Path: "f", Size: 3 * maxParts, Offset: 1, Result: "ok"}); !slices.Equal(ops, []Operation{want}) {
			t.Errorf("%+v", ops)
		}
	})
	t.Run("a long file", func(t *testing.T) {
		var ops []Operation
		p := NewSFTPParser(func(o Operation) { ops = append(ops, o) })
		if err := follow(p, lines(opened(forWriting))); err != nil {
			t.Fatal(err)
		}
		block := strings.Repeat("x", 255<<10)
		before := heap()
		whole := sha256.New()
		for i := range 200 {
			if err := follow(p, []line{write(2, "0", i*len(block), block), ok(2)}); err != nil {
				t.Fatal(err)
			}
			whole.Write([]byte(block))
		}
		if after := heap(); after > before+1<<20 {
			t.Errorf("%d bytes are kept", after-before)
		}
		if err := follow(p, closed()); err != nil {
			t.Fatal(err)
		}
		if ops[0].SHA256 != hex.EncodeToString(whole.Sum(nil)) || !ops[0].Complete {
			t.Errorf("%+v", ops)
		}
	})
}

// TestBothDirectionsAtOnce feeds the parsers from two goroutines, as a relay does.
func TestBothDirectionsAtOnce(t *testing.T) {
	const blocks = 500
	block := strings.Repeat("x", 1000)
	var ops []Operation
	p := NewSFTPParser(func(o Operation) { ops = append(ops, o) })
	if err := follow(p, lines(opened(forWriting))); err != nil {
		t.Fatal(err)
	}
	sent := make(chan int, 64)
	var group sync.WaitGroup
	group.Go(func() {
		defer close(sent)
		for i := range blocks {
			if err := p.FromClient([]byte(write(i, "0", i*len(block), block).data)); err != nil {
				t.Error(err)
			}
			sent <- i
		}
	})
	group.Go(func() {
		for i := range sent {
			if err := p.FromHost([]byte(ok(i).data)); err != nil {
				t.Error(err)
			}
		}
	})
	group.Wait()
	if err := follow(p, closed()); err != nil {
		t.Fatal(err)
	}
	if len(ops) != 1 || ops[0].SHA256 != sum(strings.Repeat(block, blocks)) {
		t.Errorf("%+v", ops)
	}

	ops = nil
	s := NewSCPParser(SCP{Path: "x/"}, func(o Operation) { ops = append(ops, o) })
	answers := make(chan struct{}, 16)
	group.Go(func() {
		defer close(answers)
		answers <- struct{}{}
		for range 100 {
			if err := s.FromClient([]byte("C0644 6 n\nhello\n\x00")); err != nil {
				t.Error(err)
			}
			answers <- struct{}{}
			answers <- struct{}{}
		}
	})
	group.Go(func() {
		for range answers {
			if err := s.FromHost([]byte{0}); err != nil {
				t.Error(err)
			}
		}
	})
	group.Wait()
	if len(ops) != 100 || ops[99].SHA256 != helloSum {
		t.Errorf("%d operations", len(ops))
	}
}

func TestOperationJSON(t *testing.T) {
	full := Operation{
		Protocol: "sftp", Action: "rename", Path: "a\xff\x00\n", Target: "b\xfe", Within: "ü", Mode: 0o644, Changed: "c", Size: 1, Offset: 2,
		Count: 3, SHA256: helloSum, Result: "ok", Complete: true,
	}
	for v, i := reflect.ValueOf(full), 0; i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Errorf("the test leaves out %s", v.Type().Field(i).Name)
		}
	}
	for _, o := range []Operation{full, {}, {Path: "plain"}, {Path: "\uFFFD"}, {Within: "\xc3"}} {
		text, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		var again Operation
		if err := json.Unmarshal(text, &again); err != nil || again != o {
			t.Errorf("%s becomes %+v: %v", text, again, err)
		}
	}
	text, err := json.Marshal(Operation{Protocol: "scp", Action: "read", Path: "a\xff", Result: "ok"})
	if want := `{"protocol":"scp","action":"read","path":"a�","path_raw":"Yf8=","size":0,"result":"ok","complete":false}`; err != nil || string(text) != want {
		t.Errorf("%s %v, want %s", text, err, want)
	}
	for _, bad := range []string{`{"path_raw":"!"}`, `{"path":1}`} {
		if err := json.Unmarshal([]byte(bad), new(Operation)); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

// record packs a conversation for the fuzzer: pieces of at most 255 bytes, each
// with its side and length before it.
func record(all []line) []byte {
	var out []byte
	for _, l := range all {
		for piece := range slices.Chunk([]byte(l.data), 255) {
			out = append(append(out, l.from, byte(len(piece))), piece...)
		}
	}
	return out
}

func unpack(data []byte) []line {
	var out []line
	for len(data) >= 2 {
		from, n := byte('c'), min(int(data[1]), len(data)-2)
		if data[0] == 'h' {
			from = 'h'
		}
		out = append(out, line{from, string(data[2 : 2+n])})
		data = data[2+n:]
	}
	return out
}

func FuzzSFTPStream(f *testing.F) {
	for _, seed := range [][]line{
		lines(opened(forReading), read(2, "0", 0, 9), data(2, "abc"), read(3, "0", 3, 9), eof(3), closed()),
		lines(opened(forWriting), write(2, "0", 2, "cd"), write(3, "0", 0, "ab"), ok(2), ok(3), closed()),
		lines(open(1, "f", forWriting), write(2, "0", 0, "ab"), closing(3, "0"), handle(1, "0"), ok(2), ok(3)),
		lines(opened(inPlace), write(2, "0", 0, "ab"), ok(2), c(packet(fxpFsetstat, 3, "0", attrSize, uint64(2))), ok(3), closed()),
		lines(opened(forReading), open(2, "g", forWriting), handle(2, "1"), c(packet(fxpExtended, 3, "copy-data", "0", uint64(0), uint64(0), "1", uint64(0))), ok(3)),
		lines(c(packet(fxpOpendir, 1, "d")), handle(1, "0"), c(packet(fxpReaddir, 2, "0")), h(packet(fxpName, 2, 5, "a", "a", 0)), closed()),
		lines(c(packet(fxpRename, 1, "a", "b")), ok(1), c(packet(fxpSymlink, 2, "a", "b")), c(packet(fxpMkdir, 3, "a", attrMode, 0o755))),
		lines(c(packet(fxpStat, 1, "f")), h(packet(fxpAttrs, 1, attrSize|attrMode, uint64(3), 0o100644)), c(packet(fxpSetstat, 2, "f", attrTimes, 1, 2))),
		lines(c(packet(fxpExtended, 1, "posix-rename@openssh.com", "a", "b")), c(packet(30, 2, "x")), status(1, 4, "no"), ok(2)),
	} {
		if err := follow(NewSFTPParser(func(Operation) {}), unpack(record(seed))); err != nil {
			f.Errorf("seed %q does not load: %v", seed, err)
		}
		f.Add(record(seed))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		all := unpack(input)
		passed := bytes.Count(input, nil)
		run := func(single bool) string {
			var out strings.Builder
			p := NewSFTPParser(func(o Operation) {
				if o.Complete && o.Result != OK || o.SHA256 != "" && o.Size > uint64(passed) || o.Protocol != ProtocolSFTP {
					t.Fatalf("%+v", o)
				}
				fmt.Fprintf(&out, "%+v\n", o)
			})
			var err error
			for _, l := range all {
				step := len(l.data)
				if single {
					step = 1
				}
				for len(l.data) > 0 && err == nil {
					err = follow(p, []line{{l.from, l.data[:step]}})
					l.data = l.data[step:]
				}
			}
			if p.memory < 0 || p.memory > maxMemory+maxPacket+fileCost || p.holding.left < 0 || p.opening < 0 {
				t.Fatalf("out of bounds: %d in use, %d left to hold, %d being opened", p.memory, p.holding.left, p.opening)
			}
			if err != nil {
				return "error"
			}
			p.Close()
			return out.String()
		}
		if whole, single := run(false), run(true); whole != single {
			t.Fatalf("at once:\n%s\nbyte by byte:\n%s", whole, single)
		}
	})
}
