package cast

import (
	"fmt"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// One encoder and one decoder serve all recordings: each works on as many
// blocks at once as it has places, and a place costs some MiB for as long as
// the program runs.
const maxPlaces = 4

func places() int { return min(runtime.GOMAXPROCS(0), maxPlaces) }

var sharedEncoder = sync.OnceValues(func() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil,
		zstd.WithEncoderConcurrency(places()),
		zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithWindowSize(MaxBlock),
		zstd.WithLowerEncoderMem(true),
		// The chain holds a stronger sum.
		zstd.WithEncoderCRC(false))
})

// The decoder fills only what it is given: the limits are the second fence.
var sharedDecoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(places()),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(MaxBlock),
		zstd.WithDecoderMaxMemory(MaxBlock),
		zstd.WithDecodeAllCapLimit(true))
})

// scratch is where compressed bytes wait until they are copied into a block
// that is no larger than it must be.
type scratch struct{ data []byte }

var scratches = sync.Pool{New: func() any { return new(scratch) }}

func (s *scratch) release() {
	if s != nil {
		scratches.Put(s)
	}
}

// compress returns nil if compression would not make raw smaller; otherwise the
// caller releases the result.
func compress(raw []byte) (*scratch, error) {
	if len(raw) < tooShort {
		return nil, nil
	}
	enc, err := sharedEncoder()
	if err != nil {
		return nil, fmt.Errorf("preparing compression: %w", err)
	}
	s := scratches.Get().(*scratch)
	s.data = enc.EncodeAll(raw, s.data[:0])
	if len(s.data) >= len(raw) {
		s.release()
		return nil, nil
	}
	return s, nil
}

// decompress returns the size bytes that data holds.
func decompress(data []byte, size uint32) ([]byte, error) {
	dec, err := sharedDecoder()
	if err != nil {
		return nil, fmt.Errorf("preparing decompression: %w", err)
	}
	raw, err := dec.DecodeAll(data, make([]byte, 0, size))
	if err != nil {
		return nil, fmt.Errorf("%w: decompressing: %w", ErrMalformed, err)
	}
	if len(raw) != int(size) {
		return nil, fmt.Errorf("%w: %d bytes decompressed, %d announced", ErrMalformed, len(raw), size)
	}
	return raw, nil
}
