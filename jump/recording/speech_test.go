package recording

import (
	"strings"
	"testing"
)

// openings are what real servers said: of git 2.47, and of rsync 3.5 to clients
// of several versions and options.
var openings = map[string][]string{
	"git": {
		"", "0", "00e0ref", "0000", "000eversion 2\n0000", "0008NAK\n0006\x01x0001000dpackfile\n0005\x010002", "0008NAK\nfff0",
	},
	"rsync": {
		"", "\x1f", "\x20\x00\x00\x00\x81\xff#xxh128 xxh3 xxh64 md5 md4 sha1 none\x97\x84\x0ck&\x00\x00\x07" + strings.Repeat("x", 0x26) + "\x02\x00\x00\x07",
		"\x20\x00\x00\x00\x81\xff#xxh128 xxh3 xxh64 md5 md4 sha1 none\x18zstd lz4 zlibx zlib none\x57\x83\x0ck\x01\x00\x00\x07x",
		"\x20\x00\x00\x00\xd7\x9a\x0ck\x01\x00\x00\x07x", "\x20\x00\x00\x00\x81\xff\xd7\x92\x0ck\x01\x00\x00\x07x\x04\x00\x00\x0aoops",
	},
}

var noOpenings = map[string][]string{
	"git": {
		"0004", "0001", "ffff", "fff1", "hello", "$ ", "\n", "0 ", "\x00\x00\x00\x00", "00E0", "0008NAK\n$ ", "0008NAK\n0003",
		"0008NAK\nPACK", "\x1f\x00\x00\x00",
	},
	"rsync": {
		"0000", "$ ", "\x1f\x00\x01", "\x2f\x00\x00\x00", "\x1f\x00\x00\x00this is a shell, at your service\n",
		"\x20\x00\x00\x00\x81\xff\xd7\x92\x0ck\x01\x00\x00\x07x$ cat /etc/shadow\n",
		"\x20\x00\x00\x00\x81\xff\xd7\x92\x0ck\x00\x00\x10\x07", // longer than any
	},
}

func TestSpeech(t *testing.T) {
	said := func(name, text string, size int) bool {
		s := newSpeech(name)
		for len(text) > 0 {
			n := min(size, len(text))
			if !s.follow([]byte(text[:n])) {
				return false
			}
			text = text[n:]
		}
		return true
	}
	for want, texts := range map[bool]map[string][]string{true: openings, false: noOpenings} {
		for name, list := range texts {
			for _, text := range list {
				for _, size := range []int{1, 3, 1000} {
					if got := said(name, text, size); got != want {
						t.Errorf("%s in pieces of %d: %q: %v", name, size, text, got)
					}
				}
			}
		}
	}
}

// FuzzSpeech checks that it says the same however the bytes are cut, and never
// again yes after no.
func FuzzSpeech(f *testing.F) {
	for _, texts := range []map[string][]string{openings, noOpenings} {
		for name, list := range texts {
			for _, text := range list {
				f.Add(name == "git", []byte(text), uint8(3))
			}
		}
	}
	f.Fuzz(func(t *testing.T, git bool, text []byte, size uint8) {
		name := map[bool]string{true: "git", false: "rsync"}[git]
		whole := newSpeech(name).follow(text)
		s, pieces := newSpeech(name), true
		for len(text) > 0 {
			n := min(len(text), 1+int(size))
			now := s.follow(text[:n])
			if now && !pieces {
				t.Fatal("yes after no")
			}
			pieces, text = now, text[n:]
		}
		if whole != pieces {
			t.Fatalf("at once %v, in pieces of %d %v", whole, size+1, pieces)
		}
	})
}
