package store

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"strings"
	"time"
)

// idAlphabet is Crockford's base 32 in lower case: in the order of ASCII, so
// that IDs sort as the bytes they encode, and without letters that are taken
// for digits.
const idAlphabet = "0123456789abcdefghjkmnpqrstvwxyz"

var idEncoding = base32.NewEncoding(idAlphabet).WithPadding(base32.NoPadding)

// IDLength is the length of what NewID returns.
const IDLength = 26

// NewID makes a session or connection ID: 26 lower-case letters and digits,
// of which the first sort by now (to the microsecond) and the rest are 72
// random bits.
func NewID(now time.Time) string {
	var raw [16]byte
	// 56 bits of microseconds last until the year 4253.
	binary.BigEndian.PutUint64(raw[:8], uint64(max(0, now.UnixMicro()))<<8)
	rand.Read(raw[7:])
	return idEncoding.EncodeToString(raw[:])
}

// ValidID says whether id has the form of NewID's.
func ValidID(id string) bool {
	if len(id) != IDLength {
		return false
	}
	for _, c := range []byte(id) {
		if strings.IndexByte(idAlphabet, c) < 0 {
			return false
		}
	}
	return true
}
