package cast

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"
)

// A block, all numbers big-endian:
//
//	 0  4 bytes  magic "FJRB"
//	 4  1 byte   version
//	 5  1 byte   flags
//	 6  1 byte   codec
//	 7  1 byte   zero
//	 8  4 bytes  number, from 0
//	12  4 bytes  events in it
//	16  4 bytes  size of the events before compression
//	20  4 bytes  size of the payload
//	24           payload
//	    32 bytes SHA-256 over the hash of the block before (32 zero bytes for
//	             the first) and everything above
const (
	magic      = "FJRB"
	headerSize = 24
	hashSize   = sha256.Size
	overhead   = headerSize + hashSize

	flagLast = 1

	codecPlain = 0
	codecZstd  = 1

	// minEvent is the shortest event: time, kind and length, a byte each.
	minEvent = 3
	// maxEventOverhead is the most that time, kind and length take.
	maxEventOverhead = binary.MaxVarintLen64 + 1 + 3
	// maxAt is the latest time in microseconds that a time.Duration holds.
	maxAt = int64(1<<63-1) / int64(time.Microsecond)
)

// MaxStored is the most bytes that a whole block may have.
const MaxStored = overhead + MaxBlock

// Errors of blocks that cannot be read.
var (
	// ErrMalformed means bytes that are no block of this format.
	ErrMalformed = errors.New("not a block of a recording")
	// ErrVersion means a version of the format that this program doesn't know.
	ErrVersion = errors.New("unknown version of the recording format")
	// ErrOrder means that a block is missing, repeated or in the wrong place.
	ErrOrder = errors.New("block out of order")
	// ErrHash means that a block was altered, or follows another block than the
	// one before it.
	ErrHash = errors.New("hash of the block does not fit: it was altered, or does not follow the one before")
	// ErrSealed means a block after the one that ends the recording.
	ErrSealed = errors.New("block after the end of the recording")
)

// blockHeader is what stands before the payload.
type blockHeader struct {
	last                        bool
	codec                       byte
	number, events, raw, stored uint32
}

func (h blockHeader) appendTo(b []byte) []byte {
	var flags byte
	if h.last {
		flags |= flagLast
	}
	b = append(b, magic...)
	b = append(b, Version, flags, h.codec, 0)
	b = binary.BigEndian.AppendUint32(b, h.number)
	b = binary.BigEndian.AppendUint32(b, h.events)
	b = binary.BigEndian.AppendUint32(b, h.raw)
	return binary.BigEndian.AppendUint32(b, h.stored)
}

// parseHeader reads and checks what a block says of itself; the sizes it
// returns are within the limits.
func parseHeader(b []byte) (blockHeader, error) {
	var h blockHeader
	if len(b) < headerSize || string(b[:4]) != magic {
		return h, ErrMalformed
	}
	if b[4] != Version {
		return h, fmt.Errorf("%w: %d", ErrVersion, b[4])
	}
	if b[5]&^flagLast != 0 || b[6] > codecZstd || b[7] != 0 {
		return h, fmt.Errorf("%w: flags %#x, codec %d, reserved %d", ErrMalformed, b[5], b[6], b[7])
	}
	h = blockHeader{
		last:   b[5]&flagLast != 0,
		codec:  b[6],
		number: binary.BigEndian.Uint32(b[8:]),
		events: binary.BigEndian.Uint32(b[12:]),
		raw:    binary.BigEndian.Uint32(b[16:]),
		stored: binary.BigEndian.Uint32(b[20:]),
	}
	if h.raw > MaxBlock || h.stored > MaxBlock {
		return h, fmt.Errorf("%w: %d bytes, %d stored; at most %d", ErrMalformed, h.raw, h.stored, MaxBlock)
	}
	if h.codec == codecPlain && h.raw != h.stored {
		return h, fmt.Errorf("%w: %d bytes stored plainly as %d", ErrMalformed, h.raw, h.stored)
	}
	if h.events == 0 || h.events > h.raw/minEvent {
		return h, fmt.Errorf("%w: %d events in %d bytes", ErrMalformed, h.events, h.raw)
	}
	return h, nil
}

// chain is the hash of a block without its hash, after the one whose hash is
// given.
func chain(before [hashSize]byte, block []byte) (sum [hashSize]byte) {
	h := sha256.New()
	h.Write(before[:])
	h.Write(block)
	h.Sum(sum[:0])
	return sum
}

// Split reads the blocks of a recording that stand one after another in a
// file. It checks only what it needs to find their ends: a Decoder checks the
// rest. Each block is the caller's. An error ends the sequence; a file that
// ends inside a block gives io.ErrUnexpectedEOF.
func Split(r io.Reader) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for {
			block, err := readBlock(r)
			if errors.Is(err, io.EOF) {
				return
			}
			if !yield(block, err) || err != nil {
				return
			}
		}
	}
}

func readBlock(r io.Reader) ([]byte, error) {
	var head [headerSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	h, err := parseHeader(head[:])
	if err != nil {
		return nil, err
	}
	block := make([]byte, overhead+int(h.stored))
	copy(block, head[:])
	if _, err := io.ReadFull(r, block[headerSize:]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return block, nil
}
