package krl

import (
	"cmp"
	"math"
	"slices"
)

// contains looks a serial up in sorted ranges that don't overlap.
func contains(ranges []serialRange, serial uint64) bool {
	i, _ := slices.BinarySearchFunc(ranges, serial, func(r serialRange, s uint64) int {
		return cmp.Compare(r.last, s)
	})
	return i < len(ranges) && ranges[i].first <= serial
}

// merge sorts ranges and joins those that overlap or touch. It changes its
// argument.
func merge(ranges []serialRange) []serialRange {
	if len(ranges) == 0 {
		return nil
	}
	slices.SortFunc(ranges, func(a, b serialRange) int { return cmp.Compare(a.first, b.first) })
	out := ranges[:1]
	for _, r := range ranges[1:] {
		last := &out[len(out)-1]
		if last.last == math.MaxUint64 || r.first <= last.last+1 {
			last.last = max(last.last, r.last)
			continue
		}
		out = append(out, r)
	}
	return out
}

// maxBitmap is the most bits that a bitmap has when it is written. OpenSSH
// reads 16,384: its bound for big numbers, see sshbuf_get_bignum2_bytes_direct.
const maxBitmap = 8192

// What sections of a list cost in bytes: a section has a type and a length of
// five bytes, a range two serials, a bitmap its first serial and the length of
// its bits.
const (
	costSerial  = 8
	costRange   = 5 + 16
	costBitmap  = 5 + 8 + 4 + 1
	longestHole = 8 * costSerial // bits of a bitmap that are worth one serial
)

// sections is how the serials of a scope are written: always the same for the
// same serials, and small.
type sections struct {
	single  []uint64
	ranges  []serialRange
	bitmaps [][]serialRange
}

// divide chooses for merged ranges whether a single number, a range or a bitmap
// says it in the fewest bytes.
func divide(ranges []serialRange) sections {
	var s sections
	for len(ranges) > 0 {
		// The longest group without a large hole that fits into a bitmap.
		n, cost := 0, 0
		for n < len(ranges) {
			r := ranges[n]
			if r.last-ranges[0].first >= maxBitmap || n > 0 && r.first-ranges[n-1].last > longestHole {
				break
			}
			cost += costApart(r)
			n++
		}
		if n > 1 && costBitmap+int(ranges[n-1].last-ranges[0].first)/8+1 < cost {
			s.bitmaps = append(s.bitmaps, ranges[:n])
			ranges = ranges[n:]
			continue
		}
		s.apart(ranges[0])
		ranges = ranges[1:]
	}
	return s
}

func costApart(r serialRange) int {
	if r.last-r.first < 2 {
		return int(r.last-r.first+1) * costSerial
	}
	return costRange
}

// apart writes one range by itself.
func (s *sections) apart(r serialRange) {
	if r.last-r.first >= 2 {
		s.ranges = append(s.ranges, r)
		return
	}
	s.single = append(s.single, r.first)
	if r.last > r.first {
		s.single = append(s.single, r.last)
	}
}

// bitmap returns the first serial of a group and its bits as a big-endian
// number without leading zeros, whose lowest bit is the first serial.
func bitmap(group []serialRange) (first uint64, bits []byte) {
	first = group[0].first
	span := group[len(group)-1].last - first
	bits = make([]byte, span/8+1)
	for _, r := range group {
		for i := r.first - first; ; i++ {
			bits[len(bits)-1-int(i/8)] |= 1 << (i % 8)
			if i == r.last-first {
				break
			}
		}
	}
	return first, bits
}
