package replay

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/jump/cast"
)

// asciicastExport writes asciicast v2:
// https://docs.asciinema.org/manual/asciicast/v2/
type asciicastExport struct {
	w io.Writer
	// filter writes to drawing; it is nil for the raw form.
	filter  *Filter
	drawing bytes.Buffer
	// output and input join characters that are split over events.
	output, input joiner
	terminal      bool
	last          time.Duration
	columns, rows int
}

func newAsciicast(w io.Writer, filtered bool) *asciicastExport {
	e := &asciicastExport{w: w}
	if filtered {
		e.filter = NewFilter(&e.drawing)
	}
	return e
}

// asciicastHeader is the first line of an asciicast.
type asciicastHeader struct {
	Version   int               `json:"version"`
	Width     int               `json:"width"`
	Height    int               `json:"height"`
	Timestamp int64             `json:"timestamp,omitempty"`
	Title     string            `json:"title,omitempty"`
	Env       map[string]string `json:"env,omitempty"`
}

func (e *asciicastExport) begin(h cast.Header) error {
	e.terminal = hadTerminal(h)
	head := asciicastHeader{Version: 2, Timestamp: max(h.Started.Unix(), 0)}
	head.Width, head.Height = e.size(h.Columns, h.Rows)
	if h.Host != "" {
		head.Title = terminal.Clean(h.Login + "@" + h.Host)
	}
	if h.Term != "" {
		head.Env = map[string]string{"TERM": terminal.Clean(h.Term)}
	}
	return writeLine(e.w, head)
}

// size is a terminal's size as players are told it: bounded as that of a
// screen, since sizes come from clients and players make room for them.
func (e *asciicastExport) size(columns, rows uint32) (width, height int) {
	e.columns = bounded(int(columns), cmp.Or(e.columns, 80), maxColumns)
	e.rows = bounded(int(rows), cmp.Or(e.rows, 24), maxRows)
	return e.columns, e.rows
}

func (e *asciicastExport) event(ev cast.Event) error {
	e.last = ev.At
	switch ev.Kind {
	case cast.Start:
		var h cast.Header
		if err := json.Unmarshal(ev.Data, &h); err != nil {
			return fmt.Errorf("reading the header: %w", err)
		}
		return e.begin(h)
	case cast.Output, cast.Stderr:
		data := ev.Data
		if !e.terminal {
			data = bytes.ReplaceAll(data, []byte("\n"), []byte("\r\n"))
		}
		return e.draw(ev.At, data)
	case cast.Input:
		return e.write(ev.At, "i", e.input.join(ev.Data))
	case cast.Resize:
		columns, rows, err := cast.ParseResize(ev.Data)
		if err != nil {
			return nil // as a reader passes over what it doesn't understand
		}
		width, height := e.size(columns, rows)
		return e.write(ev.At, "r", fmt.Sprintf("%dx%d", width, height))
	case cast.Command, cast.Signal, cast.Stream, cast.File, cast.Forward, cast.Gap, cast.Note:
		return e.write(ev.At, "m", terminal.Clean(fmt.Sprintf("%s: %s", ev.Kind, ev.Data)))
	default:
		return nil
	}
}

func (e *asciicastExport) draw(at time.Duration, data []byte) error {
	if e.filter == nil {
		return e.write(at, "o", e.output.join(data))
	}
	if _, err := e.filter.Write(data); err != nil {
		return err
	}
	text := e.drawing.String()
	e.drawing.Reset()
	return e.write(at, "o", text)
}

// write writes a line: time in seconds, code, text.
func (e *asciicastExport) write(at time.Duration, code, text string) error {
	if text == "" {
		return nil
	}
	us := at.Microseconds()
	seconds := json.RawMessage(fmt.Sprintf("%d.%06d", us/1e6, us%1e6))
	return writeLine(e.w, []any{seconds, code, text})
}

// close writes characters that were never finished.
func (e *asciicastExport) close() error {
	if err := e.write(e.last, "i", e.input.rest()); err != nil {
		return err
	}
	if e.filter != nil {
		e.filter.parser.flush()
		if err := e.draw(e.last, nil); err != nil {
			return err
		}
	}
	return e.write(e.last, "o", e.output.rest())
}

// joiner makes text of bytes that come in pieces: characters that were split
// are whole again, bytes that are not UTF-8 become U+FFFD.
type joiner struct{ part []byte }

func (j *joiner) join(data []byte) string {
	data = append(j.part, data...)
	keep := 0
	for n := 1; n < utf8.UTFMax && n <= len(data); n++ {
		if tail := data[len(data)-n:]; utf8.RuneStart(tail[0]) {
			if !utf8.FullRune(tail) {
				keep = n
			}
			break
		}
	}
	text := valid(data[:len(data)-keep])
	j.part = append(j.part[:0], data[len(data)-keep:]...)
	return text
}

func (j *joiner) rest() string {
	text := valid(j.part)
	j.part = nil
	return text
}

// valid makes U+FFFD of each byte that is not UTF-8.
func valid(data []byte) string {
	if utf8.Valid(data) {
		return string(data)
	}
	return string([]rune(string(data)))
}
