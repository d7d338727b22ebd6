package ledger

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fleetca/fleetca/ca"
)

// maxLine is far above the longest entry: 256 host names of 253 bytes and a
// forced command.
const maxLine = 1 << 20

// DamagedError tells of a line that is not an entry: torn by a crash, or
// changed by somebody. The certificate that it was about was never issued, if
// it is torn, or is not known, if it was changed.
type DamagedError struct {
	// Line counts from 1.
	Line int
	// Text is the beginning of the line, as it is in the file.
	Text string
	// Cause is why it is no entry.
	Cause error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("ledger line %d is damaged: %v", e.Line, e.Cause)
}

func (e *DamagedError) Unwrap() error { return e.Cause }

// Read gives the entries of a ledger in order. A damaged line gives a
// *DamagedError in its place and reading goes on; any other error ends it.
func Read(r io.Reader) iter.Seq2[ca.Entry, error] {
	return func(yield func(ca.Entry, error) bool) {
		br := bufio.NewReaderSize(r, 64<<10)
		for n := 1; ; n++ {
			line, err := readLine(br)
			if errors.Is(err, io.EOF) && len(line) == 0 {
				return
			}
			var entry ca.Entry
			switch {
			case errors.Is(err, io.EOF):
				err = damaged(n, line, errors.New("it has no end"))
			case errors.Is(err, errLong):
				err = damaged(n, line, err)
			case err == nil && len(bytes.TrimSpace(line)) == 0:
				continue
			case err == nil:
				if entry, err = parse(line); err != nil {
					entry, err = ca.Entry{}, damaged(n, line, err)
				}
			default:
				err = fmt.Errorf("reading ledger: %w", err)
			}
			if !yield(entry, err) {
				return
			}
			if d := (*DamagedError)(nil); err != nil && !errors.As(err, &d) {
				return
			}
		}
	}
}

var errLong = fmt.Errorf("it is over %d bytes long", maxLine)

// readLine gives a line without its end. Of a line that is too long it gives
// the beginning and errLong, having read past it. At the end of the input it
// gives what is left and io.EOF.
func readLine(br *bufio.Reader) ([]byte, error) {
	var line []byte
	long := false
	for {
		part, err := br.ReadSlice('\n')
		if room := maxLine + 1 - len(line); len(part) > room {
			part, long = part[:room], true
		}
		line = append(line, part...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil:
			return line, err
		case long:
			return line, errLong
		}
		return line[:len(line)-1], nil
	}
}

func parse(line []byte) (ca.Entry, error) {
	var e ca.Entry
	dec := json.NewDecoder(bytes.NewReader(line))
	if err := dec.Decode(&e); err != nil {
		return ca.Entry{}, fmt.Errorf("it is not a JSON object: %w", err)
	}
	if dec.InputOffset() != int64(len(bytes.TrimRight(line, " \t\r"))) {
		return ca.Entry{}, errors.New("something follows the JSON object")
	}
	if err := e.Check(); err != nil {
		return ca.Entry{}, err
	}
	return e, nil
}

func damaged(n int, line []byte, cause error) *DamagedError {
	const shown = 120
	return &DamagedError{Line: n, Text: string(line[:min(len(line), shown)]), Cause: cause}
}

// List reads the ledger in a file, as far as whole writes have reached it when
// List is called. It gives what Read gives. A file that does not exist is a
// ledger without entries.
func List(path string) iter.Seq2[ca.Entry, error] {
	return func(yield func(ca.Entry, error) bool) {
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err != nil {
			yield(ca.Entry{}, fmt.Errorf("opening ledger: %w", err))
			return
		}
		defer f.Close()
		size, err := settledSize(f)
		if err != nil {
			yield(ca.Entry{}, fmt.Errorf("reading ledger %q: %w", path, err))
			return
		}
		for e, err := range Read(io.LimitReader(f, size)) {
			if !yield(e, err) {
				return
			}
		}
	}
}

// settledSize is the size while nobody writes, so that a line that is just
// being written is not taken for a torn one.
func settledSize(f *os.File) (int64, error) {
	if err := lock(f, unix.LOCK_SH, 30*time.Second); err != nil {
		return 0, err
	}
	info, err := f.Stat()
	if err := errors.Join(err, flock(f, unix.LOCK_UN)); err != nil {
		return 0, err
	}
	return info.Size(), nil
}
