package replay

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/jump/cast"
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
	// RawAsciicast is the same without the filter: played, it can do to a
	// terminal whatever the host could.
	RawAsciicast Format = "asciicast-raw"
	// Text is what could be read on the terminal, without control sequences,
	// and what else happened as lines of JSON in brackets.
	Text Format = "text"
	// Raw is exactly what the host sent: output and standard error, in order.
	// Where something of it isn't recorded, a line in brackets says so, which
	// the host can imitate: only JSON and Native are proof.
	Raw Format = "raw"
	// JSON is one object a line for each event: at_us, kind, and one of data
	// (base64), columns and rows, or detail.
	JSON Format = "json"
	// Native is the recording's blocks, one after another, as
	// docs/recording-format.md has them.
	Native Format = "native"
)

// Formats lists what Export knows.
func Formats() []Format { return []Format{Asciicast, RawAsciicast, Text, Raw, JSON, Native} }

// ErrFormat means a format that Export doesn't know.
var ErrFormat = errors.New("unknown format of recordings")

// exporter writes events as they come, and at the end what it still holds.
type exporter interface {
	event(ev cast.Event) error
	close() error
}

// Export writes a recording to w. Of a damaged one it writes what comes before
// the damage and returns the error; of a running one, what is there. The error
// wraps ErrFormat, store.ErrNotFound, or what Events yields.
func Export(ctx context.Context, w io.Writer, s store.Store, id string, f Format) error {
	b := bufio.NewWriterSize(w, 64<<10)
	var e exporter
	switch f {
	case Asciicast:
		e = newAsciicast(b, true)
	case RawAsciicast:
		e = newAsciicast(b, false)
	case Text:
		e = &textExport{w: b}
	case Raw:
		e = rawExport{b}
	case JSON:
		e = jsonExport{b}
	case Native:
		return native(ctx, b, s, id)
	default:
		return fmt.Errorf("exporting recording %q: %w: %q", id, ErrFormat, f)
	}
	var failed error
	for ev, err := range Events(ctx, s, id) {
		if err != nil {
			failed = err
			break
		}
		if err := e.event(ev); err != nil {
			return fmt.Errorf("exporting recording %q: %w", id, err)
		}
	}
	if err := errors.Join(e.close(), b.Flush()); err != nil {
		return fmt.Errorf("exporting recording %q: %w", id, err)
	}
	return failed
}

// native writes the blocks, each checked before.
func native(ctx context.Context, b *bufio.Writer, s store.Store, id string) error {
	d := cast.NewDecoder()
	for block, err := range s.Blocks(ctx, id, 0) {
		if err == nil {
			_, err = decode(d, block, id)
		}
		if err == nil {
			_, err = b.Write(block.Data)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("exporting block %d of recording %q: %w", d.Report().Blocks, id, err), b.Flush())
		}
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("exporting recording %q: %w", id, err)
	}
	return nil
}

type rawExport struct{ w io.Writer }

func (e rawExport) event(ev cast.Event) error {
	if ev.Kind == cast.Gap {
		var g cast.GapSummary
		_ = json.Unmarshal(ev.Data, &g) // what it doesn't say is empty
		_, err := fmt.Fprintf(e.w, "\n[%d bytes are missing here: %s]\n", g.Bytes, terminal.Clean(g.Reason))
		return err
	}
	if ev.Kind != cast.Output && ev.Kind != cast.Stderr {
		return nil
	}
	_, err := e.w.Write(ev.Data)
	return err
}

func (rawExport) close() error { return nil }

type jsonExport struct{ w io.Writer }

// jsonEvent is a line of the JSON export.
type jsonEvent struct {
	At      int64           `json:"at_us"`
	Kind    string          `json:"kind"`
	Data    []byte          `json:"data,omitempty"`
	Columns uint32          `json:"columns,omitempty"`
	Rows    uint32          `json:"rows,omitempty"`
	Detail  json.RawMessage `json:"detail,omitempty"`
}

func (e jsonExport) event(ev cast.Event) error {
	line := jsonEvent{At: ev.At.Microseconds(), Kind: ev.Kind.String()}
	switch {
	case ev.Kind == cast.Resize && len(ev.Data) == 8:
		line.Columns, line.Rows, _ = cast.ParseResize(ev.Data)
	case ev.Kind.JSON() && json.Valid(ev.Data):
		line.Detail = ev.Data
	default:
		line.Data = ev.Data
	}
	return writeLine(e.w, line)
}

func (jsonExport) close() error { return nil }

// writeLine writes v as a line of JSON. What a terminal could take for a
// control is escaped, and so nothing happens if the file is printed.
func writeLine(w io.Writer, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(escapeJSON(b.Bytes()))
	return err
}

// escapeJSON escapes in a line of JSON what encoding/json leaves as it is: DEL,
// the 8-bit controls and the characters that turn text.
func escapeJSON(line []byte) []byte {
	escaped := func(r rune) bool { return r >= 0x7f && r < 0xa0 || turnsText(r) }
	if !bytes.ContainsFunc(line, escaped) {
		return line
	}
	out := make([]byte, 0, len(line)+16)
	for len(line) > 0 {
		r, size := utf8.DecodeRune(line)
		if escaped(r) {
			out = fmt.Appendf(out, `\u%04x`, r)
		} else {
			out = append(out, line[:size]...)
		}
		line = line[size:]
	}
	return out
}
