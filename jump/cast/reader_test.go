package cast_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// This reader is written from docs/recording-format.md and uses nothing of
// package cast, so that the page is held against the code. It is the size that
// a stranger's would have.

type readerEvent struct {
	us   uint64
	kind byte
	data []byte
}

// readRecording reads a file of blocks. It returns the events of the good
// blocks, whether the recording is sealed, and what is wrong with the first bad
// block.
func readRecording(file []byte) (events []readerEvent, sealed bool, err error) {
	hash := make([]byte, 32)
	var number, bytesSeen uint64
	for len(file) > 0 {
		if sealed {
			return events, sealed, errors.New("block after the end")
		}
		if len(file) < 24 || !bytes.Equal(file[:4], []byte{0x46, 0x4a, 0x52, 0x42}) || file[4] != 1 {
			return events, sealed, errors.New("no block of version 1")
		}
		flags, codec := file[5], file[6]
		count, rawSize, size := be(file[12:16]), be(file[16:20]), be(file[20:24])
		switch {
		case flags > 1, codec > 1, file[7] != 0:
			return events, sealed, errors.New("bad flags, codec or reserved byte")
		case be(file[8:12]) != number:
			return events, sealed, errors.New("wrong number")
		case rawSize > 1048576, size > 1048576, count < 1, count > rawSize/3:
			return events, sealed, errors.New("bad size or count")
		case uint64(len(file)) < 24+size+32:
			return events, sealed, errors.New("file ends within a block")
		}
		sum := sha256.Sum256(append(bytes.Clone(hash), file[:24+size]...))
		if !bytes.Equal(sum[:], file[24+size:24+size+32]) {
			return events, sealed, errors.New("wrong hash")
		}
		payload := file[24 : 24+size]
		if codec == 1 {
			if payload, err = unzstd(payload, rawSize); err != nil {
				return events, sealed, err
			}
		}
		if uint64(len(payload)) != rawSize {
			return events, sealed, errors.New("wrong size of the events")
		}
		var last uint64
		if len(events) > 0 {
			last = events[len(events)-1].us
		}
		got, err := readEvents(payload, count, last, len(events) == 0, flags == 1)
		if err != nil {
			return events, sealed, err
		}
		for _, ev := range got {
			if ev.kind == 'o' || ev.kind == 'e' || ev.kind == 'i' {
				bytesSeen += uint64(len(ev.data))
			}
		}
		if flags == 1 {
			var end struct{ Events, Bytes *uint64 }
			if err := json.Unmarshal(got[len(got)-1].data, &end); err != nil {
				return events, sealed, err
			}
			if end.Events == nil || end.Bytes == nil ||
				*end.Events != uint64(len(events)+len(got)) || *end.Bytes != bytesSeen {
				return events, sealed, errors.New("the end counts wrongly")
			}
		}
		events, sealed = append(events, got...), flags == 1
		hash, file, number = sum[:], file[24+size+32:], number+1
	}
	return events, sealed, nil
}

func readEvents(b []byte, count, last uint64, first, sealing bool) ([]readerEvent, error) {
	var events []readerEvent
	var at uint64
	for i := range count {
		var delta, size uint64
		var ok bool
		if delta, b, ok = leb128(b); !ok || delta > 9223372036854775807/1000 || at+delta > 9223372036854775807/1000 {
			return nil, errors.New("bad time")
		}
		at += delta
		if at < last {
			return nil, errors.New("time goes back")
		}
		last = at
		if len(b) == 0 || b[0] == 0 {
			return nil, errors.New("bad kind")
		}
		kind := b[0]
		if size, b, ok = leb128(b[1:]); !ok || size > 65536 || size > uint64(len(b)) {
			return nil, errors.New("bad length")
		}
		if (kind == 's') != (first && i == 0) || (kind == 'x') != (sealing && i == count-1) {
			return nil, errors.New("start or end in the wrong place")
		}
		if kind == 's' {
			var start struct{ Version int }
			if err := json.Unmarshal(b[:size], &start); err != nil || start.Version != 1 || at != 0 {
				return nil, fmt.Errorf("bad start: %v", err)
			}
		}
		events = append(events, readerEvent{at, kind, b[:size]})
		b = b[size:]
	}
	if len(b) > 0 {
		return nil, errors.New("bytes after the events")
	}
	return events, nil
}

func be(b []byte) uint64 {
	return uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8 | uint64(b[3])
}

func leb128(b []byte) (v uint64, rest []byte, ok bool) {
	for i, c := range b {
		if i == 9 && c > 1 || i > 9 {
			return 0, nil, false
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return v, b[i+1:], i == 0 || c != 0
		}
	}
	return 0, nil, false
}

func unzstd(b []byte, size uint64) ([]byte, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(1<<20),
		zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	return dec.DecodeAll(b, make([]byte, 0, size))
}

func TestReaderItself(t *testing.T) {
	for _, c := range []struct {
		in   []byte
		want uint64
		ok   bool
	}{
		{[]byte{0}, 0, true},
		{[]byte{0xdc, 0x0b}, 1500, true},
		{[]byte{0x80, 0x00}, 0, false},
		{[]byte{0x80}, 0, false},
		{bytes.Repeat([]byte{0xff}, 11), 0, false},
		{append(bytes.Repeat([]byte{0xff}, 9), 1), 1<<64 - 1, true},
		{append(bytes.Repeat([]byte{0xff}, 9), 2), 0, false},
	} {
		if v, _, ok := leb128(c.in); ok != c.ok || ok && v != c.want {
			t.Errorf("leb128(%x) = %d, %v, want %d, %v", c.in, v, ok, c.want, c.ok)
		}
	}
}
