package recording

import (
	"encoding/binary"
	"slices"
	"strconv"
)

// speech follows how the server of rsync or git packs what it says. It looks at
// the packing only, not at what is in the packets: who controls the host can
// have its program pack anything that way, of which the beginning, the end and
// the digest are recorded.
type speech struct {
	name     string
	readings []reading // that fit so far
}

// reading is one way to read it: parts, and then packets. What comes before
// rsync's packets depends on options and versions; a few readings are simpler
// than to know them all, and all but one fail within bytes.
type reading struct {
	parts []part
	then  part
	head  []byte // of the part or packet that is being read
	skip  int    // bytes left of it that say nothing
}

// part tells from its first bytes how long a part is; 0 says that more of them
// are needed, below 0 that it is none.
type part func(head []byte) int

// newSpeech expects the output of a server of the protocol.
func newSpeech(name string) *speech {
	if name == "git" {
		return &speech{name, []reading{{parts: []part{gitFirst}, then: gitPacket}}}
	}
	return &speech{name, []reading{
		{parts: []part{rsyncVersion, four}, then: rsyncPacket}, // before version 30
		{parts: []part{rsyncVersion, rsyncFlags, four}, then: rsyncPacket},
		{parts: []part{rsyncVersion, rsyncFlags, rsyncNames, four}, then: rsyncPacket},
		{parts: []part{rsyncVersion, rsyncFlags, rsyncNames, rsyncNames, four}, then: rsyncPacket},
	}}
}

// follow says whether the bytes may come next.
func (s *speech) follow(p []byte) bool {
	fitting := s.readings[:0]
	for _, r := range s.readings {
		if r.follow(p) {
			fitting = append(fitting, r)
		}
	}
	clear(s.readings[len(fitting):])
	s.readings = fitting
	return len(fitting) > 0
}

func (r *reading) follow(p []byte) bool {
	for len(p) > 0 {
		if r.skip > 0 {
			n := min(r.skip, len(p))
			r.skip -= n
			p = p[n:]
			continue
		}
		r.head = append(r.head, p[0])
		p = p[1:]
		next := r.then
		if len(r.parts) > 0 {
			next = r.parts[0]
		}
		size := next(r.head)
		if size < 0 {
			return false
		}
		if size == 0 {
			continue
		}
		r.skip = size - len(r.head)
		r.head = r.head[:0]
		if len(r.parts) > 0 {
			r.parts = r.parts[1:]
		}
	}
	return true
}

func four([]byte) int { return 4 }

// gitPacket is a pkt-line (gitprotocol-common): four digits that count
// themselves, or one of three marks. An empty one isn't sent.
func gitPacket(head []byte) int {
	for _, c := range head {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return -1
		}
	}
	if len(head) < 4 {
		return 0
	}
	n, err := strconv.ParseUint(string(head), 16, 16)
	switch {
	case err != nil || n == 3 || n == 4 || n > 65520:
		return -1
	case n < 3:
		return 4
	}
	return int(n)
}

// gitFirst is one that no mark but the end of a list may be.
func gitFirst(head []byte) int {
	if s := string(head); s == "0001" || s == "0002" {
		return -1
	}
	return gitPacket(head)
}

// rsyncVersion is that of its protocol, as are all numbers: little-endian.
func rsyncVersion(head []byte) int {
	for i, c := range head {
		if i == 0 && (c < 20 || c > 40) || i > 0 && c != 0 {
			return -1
		}
	}
	if len(head) < 4 {
		return 0
	}
	return 4
}

// rsyncFlags are what both sides can do: a number whose first bits say how many
// bytes follow.
func rsyncFlags(head []byte) int {
	switch c := head[0]; {
	case c < 0x80:
		return 1
	case c < 0xc0:
		return 2
	case c < 0xe0:
		return 3
	}
	return -1
}

// rsyncNames is a list of checksums or compressions, after its length.
func rsyncNames(head []byte) int {
	start, size := 1, int(head[0])
	if size >= 0x80 {
		if len(head) < 2 {
			return 0
		}
		start, size = 2, (size&0x7f)<<8|int(head[1])
	}
	if size == 0 || size > 1024 {
		return -1
	}
	for _, c := range head[start:] {
		if !isAlphanumeric(c) && c != ' ' && c != '-' && c != '_' {
			return -1
		}
	}
	if len(head) < start+size {
		return 0
	}
	return len(head)
}

const (
	// rsyncBase is added to a packet's type (MPLEX_BASE of rsync's io.c).
	rsyncBase = 7
	// rsyncData is more than the buffer of any rsync, from which data comes in
	// one packet; other packets are messages.
	rsyncData    = 256 << 10
	rsyncMessage = 64 << 10
)

// rsyncTypes are those of enum msgcode in rsync.h.
var rsyncTypes = []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 22, 33, 42, 86, 100, 101, 102}

// rsyncPacket is a length of three bytes and a type, and then as many bytes.
func rsyncPacket(head []byte) int {
	if len(head) < 4 {
		return 0
	}
	word := binary.LittleEndian.Uint32(head)
	kind, size := byte(word>>24)-rsyncBase, int(word&0xffffff)
	if !slices.Contains(rsyncTypes, kind) || size > rsyncData || kind != 0 && size > rsyncMessage {
		return -1
	}
	return 4 + size
}
