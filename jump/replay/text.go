package replay

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/jump/cast"
)

// textExport draws on a screen and writes its lines.
type textExport struct {
	w      io.Writer
	screen *screen
	parser parser
	err    error
}

func (e *textExport) line(s string) {
	if e.err == nil {
		_, e.err = io.WriteString(e.w, s+"\n")
	}
}

func (e *textExport) begin(h cast.Header) {
	if hadTerminal(h) {
		e.screen = newScreen(int(h.Columns), int(h.Rows), e.line)
	} else {
		e.screen = newScreen(maxColumns, 1, e.line)
		e.screen.lineFeed = true
	}
	e.parser = parser{sink: e.screen}
}

func (e *textExport) event(ev cast.Event) error {
	switch ev.Kind {
	case cast.Start:
		var h cast.Header
		if err := json.Unmarshal(ev.Data, &h); err != nil {
			return fmt.Errorf("reading the header: %w", err)
		}
		e.begin(h)
	case cast.Output, cast.Stderr:
		e.parser.write(ev.Data)
	case cast.Resize:
		if columns, rows, err := cast.ParseResize(ev.Data); err == nil && !e.screen.lineFeed {
			e.screen.resize(int(min(columns, maxColumns)), int(min(rows, maxRows)))
		}
	case cast.Command:
		e.note("$ " + string(ev.Data))
	case cast.Signal, cast.Stream, cast.File, cast.Forward, cast.Gap, cast.Note:
		e.note(fmt.Sprintf("[%s at %s: %s]", ev.Kind, ev.At.Round(time.Millisecond), ev.Data))
	}
	return e.err
}

// note writes a line about something that was not drawn: where it belongs in
// time, if a full-screen program isn't on.
func (e *textExport) note(text string) {
	text = terminal.Clean(text)
	if e.screen.alternate {
		e.line(text)
		return
	}
	if e.screen.cursor.x > 0 {
		e.screen.escape(0, 'E')
	}
	for _, r := range text {
		e.screen.put(r)
	}
	e.screen.escape(0, 'E')
}

func (e *textExport) close() error {
	if e.screen != nil {
		e.parser.end()
		e.screen.close()
	}
	return e.err
}
