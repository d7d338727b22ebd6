package cast_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"maps"
	"os"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/fleetca/fleetca/jump/cast"
	"github.com/fleetca/fleetca/jump/recording"
	"github.com/fleetca/fleetca/jump/transfer"
)

const page = "../../docs/recording-format.md"

// example reads the two blocks of the example out of the page.
func example(t *testing.T) [][]byte {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := bytes.Cut(text, []byte("## Example"))
	if !ok {
		t.Fatal("the page has no example")
	}
	var blocks [][]byte
	for _, m := range regexp.MustCompile("(?s)```\n([0-9a-f \n]+)```").FindAllSubmatch(text, -1) {
		b, err := hex.DecodeString(strings.Join(strings.Fields(string(m[1])), ""))
		if err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, b)
	}
	if len(blocks) != 2 || len(blocks[0]) != 175 || len(blocks[1]) != 161 {
		t.Fatalf("the example has %d blocks", len(blocks))
	}
	return blocks
}

// The example of docs/recording-format.md is read by both readers as the table
// under it says, and is what the encoder writes.
func TestPage(t *testing.T) {
	blocks := example(t)
	events, _ := decode(t, blocks)

	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| (\\d+) \\| (\\w+) \\| `(.*)`(?: \\((\\d+) times, each an event\\))? \\|$")
	i := 0
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		times := 1
		if m[4] != "" {
			times, _ = strconv.Atoi(m[4])
		}
		want := m[3]
		if !strings.HasPrefix(want, "{") {
			if want, err = strconv.Unquote(`"` + want + `"`); err != nil {
				t.Fatal(err)
			}
		}
		for range times {
			ev := events[i]
			if strconv.FormatInt(ev.At.Microseconds(), 10) != m[1] || ev.Kind.String() != m[2] || string(ev.Data) != want {
				t.Errorf("event %d is %v %v %q, the page says %s", i, ev.At, ev.Kind, ev.Data, m[0])
			}
			i++
		}
	}
	if i != len(events) {
		t.Errorf("the page lists %d events, there are %d", i, len(events))
	}

	e := cast.NewEncoder(cast.Header{Session: "example", Started: started, Kind: "terminal", Columns: 80, Rows: 24})
	for _, ev := range events[1:2] {
		if err := e.Add(ev); err != nil {
			t.Fatal(err)
		}
	}
	b, err := e.Block()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, blocks[0]) {
		t.Errorf("the encoder writes\n%swhere the page has\n%s", hex.Dump(b), hex.Dump(blocks[0]))
	}
}

// The page names every field of every JSON object in a recording, also of those
// that the packages above make.
func TestPageNamesAllFields(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	number := uint32(1)
	odd := "\xff"
	for name, v := range map[string]any{
		"start":  cast.Header{},
		"end":    cast.End{ExitStatus: &number},
		"stream": cast.StreamSummary{},
		"gap":    cast.GapSummary{},
		"file": transfer.Operation{
			Path: odd, Target: odd, Within: odd, Mode: 1, Changed: "x", Size: 1, Offset: 1, Count: 1, SHA256: "x",
		},
		"forward": recording.Forward{},
	} {
		var fields []string
		if _, own := v.(json.Marshaler); own {
			data, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			var object map[string]any
			if err := json.Unmarshal(data, &object); err != nil {
				t.Fatal(err)
			}
			fields = slices.Collect(maps.Keys(object))
		} else {
			for f := range reflect.TypeOf(v).Fields() {
				field, _, _ := strings.Cut(f.Tag.Get("json"), ",")
				fields = append(fields, field)
			}
		}
		for _, f := range fields {
			if f != "-" && !bytes.Contains(text, []byte("`"+f+"`")) {
				t.Errorf("field %q of %s is not on the page", f, name)
			}
		}
	}
}

// build makes a block around events as they are, with a good hash: what a
// hostile writer could do.
func build(before [32]byte, last bool, number, count uint32, raw []byte, compressed bool) []byte {
	payload, codec := raw, byte(0)
	if compressed {
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
		if err != nil {
			panic(err)
		}
		payload, codec = enc.EncodeAll(raw, nil), 1
		_ = enc.Close()
	}
	return buildStored(before, last, number, count, uint32(len(raw)), codec, payload)
}

func buildStored(before [32]byte, last bool, number, count, size uint32, codec byte, payload []byte) []byte {
	flags := byte(0)
	if last {
		flags = 1
	}
	b := append([]byte("FJRB"), 1, flags, codec, 0)
	for _, v := range []uint32{number, count, size, uint32(len(payload))} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	b = append(b, payload...)
	sum := sha256.Sum256(append(before[:], b...))
	return append(b, sum[:]...)
}

// rawEvent is an event as it stands in a block.
func rawEvent(delta uint64, kind byte, data string) []byte {
	b := binary.AppendUvarint(nil, delta)
	b = append(b, kind)
	b = binary.AppendUvarint(b, uint64(len(data)))
	return append(b, data...)
}

const startJSON = `{"version":1,"session":"example","started":"2026-11-21T09:30:00.25Z"}`

// What a good hash doesn't make good.
func TestHostileBlocks(t *testing.T) {
	start := rawEvent(0, 's', startJSON)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	none := [32]byte{}
	for name, b := range map[string][]byte{
		"no start":              build(none, false, 0, 1, rawEvent(0, 'o', "x"), false),
		"start later":           build(none, false, 0, 1, rawEvent(5, 's', startJSON), false),
		"two starts":            build(none, false, 0, 2, join(start, start), false),
		"start isn't JSON":      build(none, false, 0, 1, rawEvent(0, 's', "{"), false),
		"start of version 2":    build(none, false, 0, 1, rawEvent(0, 's', `{"version":2}`), false),
		"end without the flag":  build(none, false, 0, 2, join(start, rawEvent(1, 'x', `{"events":2,"bytes":0}`)), false),
		"the flag without end":  build(none, true, 0, 1, start, false),
		"end miscounts events":  build(none, true, 0, 2, join(start, rawEvent(1, 'x', `{"events":3,"bytes":0}`)), false),
		"end miscounts bytes":   build(none, true, 0, 2, join(start, rawEvent(1, 'x', `{"events":2,"bytes":1}`)), false),
		"end isn't JSON":        build(none, true, 0, 2, join(start, rawEvent(1, 'x', `[]`)), false),
		"kind 0":                build(none, false, 0, 2, join(start, rawEvent(1, 0, "")), false),
		"more after the events": build(none, false, 0, 1, join(start, []byte{0}), false),
		"fewer events":          build(none, false, 0, 3, join(start, rawEvent(1, 'o', "")), false),
		"long number":           build(none, false, 0, 2, join(start, []byte{0x80, 0x00, 'o', 0}), false),
		"length over the end":   build(none, false, 0, 2, join(start, []byte{0, 'o', 200, 1}), false),
		"data too long":         build(none, false, 0, 2, join(start, rawEvent(1, 'o', strings.Repeat("x", cast.MaxData+1))), true),
		"time overflows":        build(none, false, 0, 2, join(start, rawEvent(1<<63, 'o', "")), false),
		"sum of times overflows": build(none, false, 0, 3, join(start,
			rawEvent(1<<53, 'o', ""), rawEvent((1<<63-1)/1000-1<<53+1, 'o', "")), false),
		"no events":          build(none, false, 0, 0, start, false),
		"too many events":    build(none, false, 0, 1<<31, start, false),
		"not zstd":           buildStored(none, false, 0, 1, uint32(len(start)), 1, start),
		"unknown codec":      buildStored(none, false, 0, 1, uint32(len(start)), 2, start),
		"stored differently": buildStored(none, false, 0, 1, uint32(len(start))-1, 0, start),
		"size over limit":    buildStored(none, false, 0, 1, cast.MaxBlock+1, 1, start),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := cast.NewDecoder().Block(b); err == nil {
				t.Error("accepted")
			} else {
				t.Log(err)
			}
			if _, _, err := readRecording(b); err == nil {
				t.Error("accepted by the reader written from the page")
			}
		})
	}
	if _, err := cast.NewDecoder().Block(build(none, false, 0, 1, start, true)); err != nil {
		t.Errorf("a good one: %v", err)
	}
	first := build(none, false, 0, 2, join(start, rawEvent(9, 'o', "")), false)
	early := build([32]byte(first[len(first)-32:]), false, 1, 1, rawEvent(8, 'o', ""), false)
	if _, err := cast.Verify(all([][]byte{first, early})); err == nil || !strings.Contains(err.Error(), "goes back") {
		t.Errorf("time goes back between blocks: %v", err)
	}
}

// A block of a few bytes that decompresses to gigabytes costs no more memory
// than the largest block.
func TestDecompressionBomb(t *testing.T) {
	var bomb bytes.Buffer
	enc, err := zstd.NewWriter(&bomb, zstd.WithWindowSize(1<<20), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for range 1 << 10 {
		if _, err := enc.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := enc.Close(); err != nil {
		t.Fatal(err)
	}
	for _, size := range []uint32{100, cast.MaxBlock} {
		b := buildStored([32]byte{}, false, 0, 1, size, 1, bomb.Bytes())
		if _, err := cast.NewDecoder().Block(b); err == nil {
			t.Fatal("accepted")
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := cast.NewDecoder().Block(b); err == nil {
			t.Fatal("accepted")
		}
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
			t.Errorf("1 GiB in %d bytes that claim to be %d: %d bytes allocated", len(b), size, used)
		}
	}
}

// A thousand recordings that wait for something to happen hold little, however
// much they have seen.
func TestMemoryOfManyEncoders(t *testing.T) {
	output := bytes.Repeat([]byte("some output of a command\r\n"), 8000)
	encoders := make([]*cast.Encoder, 1000)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for i := range encoders {
		encoders[i] = cast.NewEncoder(header())
		if err := encoders[i].Add(cast.Event{Kind: cast.Output, Data: output}); err != nil {
			t.Fatal(err)
		}
		if _, err := encoders[i].Block(); err != nil {
			t.Fatal(err)
		}
	}
	after := heap()
	if used := (int64(after) - int64(before)) / int64(len(encoders)); used > 24<<10 {
		t.Errorf("%d bytes each", used)
	} else {
		t.Logf("%d bytes each", used)
	}
	runtime.KeepAlive(encoders)
}

// Recordings are made and read side by side with what they share.
func TestConcurrentRecordings(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			text := strings.Repeat(strconv.Itoa(i)+" ", 5000)
			e := cast.NewEncoder(header())
			d := cast.NewDecoder()
			for n := range 10 {
				if err := e.Add(cast.Event{At: time.Duration(n) * time.Second, Kind: cast.Output, Data: []byte(text)}); err != nil {
					t.Error(err)
					return
				}
				b, err := e.Block()
				if err != nil {
					t.Error(err)
					return
				}
				events, err := d.Block(b)
				if err != nil || string(events[len(events)-1].Data) != text {
					t.Errorf("recording %d, block %d: %v", i, n, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkBlock(b *testing.B) {
	output := bytes.Repeat([]byte("-rw-r--r-- 1 root root 4096 Nov 21 09:30 some-file-name.txt\r\n"), 500)
	e := cast.NewEncoder(header())
	b.SetBytes(int64(len(output)))
	for b.Loop() {
		if err := e.Add(cast.Event{Kind: cast.Output, Data: output}); err != nil {
			b.Fatal(err)
		}
		if _, err := e.Block(); err != nil {
			b.Fatal(err)
		}
	}
}
