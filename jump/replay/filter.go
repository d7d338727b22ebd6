package replay

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Filter passes on to a terminal what draws there, and nothing else. It knows
// what it passes by a list of sequences, and writes each of them anew: its
// output is whole characters and whole sequences, however its input was split
// or broken off.
//
// Characters, cursor movement, erasing, scrolling, colours, the alternate
// screen, line-drawing characters and the look of the cursor pass. Left out is
// all else: OSC (titles, clipboard, links, colours of the palette), DCS, APC,
// PM; everything a terminal answers to (ENQ, DA, DSR, DECRQM, DECRQSS, window
// operations); mouse, focus, paste and keyboard modes; printing; the bell;
// erasing the scrollback; 8-bit controls; and the characters that turn the
// direction of text. Bytes that are not UTF-8 become U+FFFD, and a hard reset
// becomes a soft one. The terminal must be one for UTF-8.
//
// It is not safe for concurrent use.
type Filter struct {
	w      io.Writer
	parser parser
	out    []byte
	look   look
}

// look is what has been changed of the terminal and must be put back.
type look struct {
	alternate int  // the private mode that switched to the other screen, or 0
	margins   bool // scrolling region or origin mode
	tabs      bool
	cursor    bool // its shape
	drawn     bool // something stands on the cursor's line
}

// NewFilter returns a Filter that writes to w, at most once for each Write.
func NewFilter(w io.Writer) *Filter {
	f := &Filter{w: w}
	f.parser.sink = f
	return f
}

// Write passes on what in p, and in what came before, draws. It returns len(p)
// unless the writer below fails.
func (f *Filter) Write(p []byte) (int, error) {
	f.parser.write(p)
	if err := f.flush(); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (f *Filter) flush() error {
	if len(f.out) == 0 {
		return nil
	}
	_, err := f.w.Write(f.out)
	f.out = f.out[:0]
	if cap(f.out) > maxKept {
		f.out = nil
	}
	return err
}

// maxKept bounds the buffer that a filter keeps between writes.
const maxKept = 64 << 10

// Restore puts back what the sequences that passed have changed: the main
// screen, attributes, character sets, margins, tab stops, a visible cursor. The
// cursor ends on a line of its own; rows is the height of the terminal, 0 if
// that isn't known.
func (f *Filter) Restore(rows int) error {
	f.parser = parser{sink: f}
	f.leave()
	f.out = append(f.out, "\x1b[m\x1b(B\x1b)B\x0f\x1b[4l\x1b[?5l\x1b[?7h\x1b[?25h"...)
	if f.look.cursor {
		f.out = append(f.out, "\x1b[0 q"...)
	}
	if f.look.margins {
		// Both send the cursor home, so it is put below all that was drawn.
		if rows <= 0 || rows > maxNumber {
			rows = maxNumber
		}
		f.out = fmt.Appendf(f.out, "\x1b[?6l\x1b[r\x1b[%d;1H", rows)
	}
	if f.look.tabs {
		f.out = append(f.out, "\r\x1b[3g"+strings.Repeat("\x1b[8C\x1bH", 40)+"\r"...)
	}
	if f.look.drawn {
		f.out = append(f.out, "\r\n"...)
	}
	f.look = look{}
	return f.flush()
}

// leave switches back to the main screen.
func (f *Filter) leave() {
	if f.look.alternate != 0 {
		f.out = fmt.Appendf(f.out, "\x1b[?%dl", f.look.alternate)
		f.look.alternate = 0
	}
}

func (f *Filter) print(r rune) {
	if turnsText(r) {
		return
	}
	f.look.drawn = true
	f.out = utf8.AppendRune(f.out, r)
}

func (f *Filter) text(b []byte) {
	f.look.drawn = true
	f.out = append(f.out, b...)
}

// turnsText tells the characters with Unicode's property Bidi_Control: they
// show text in another order than it was written in.
func turnsText(r rune) bool {
	return r == 0x061c || r == 0x200e || r == 0x200f || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}

func (*Filter) omitted(int) {}

// control passes backspace, tab, the line feeds, carriage return, and shift out
// and in, which choose a character set.
func (f *Filter) control(c byte) {
	if c >= 0x08 && c <= 0x0f {
		f.out = append(f.out, c)
		if c == lf {
			f.look.drawn = false
		}
	}
}

func (f *Filter) escape(inter, final byte) {
	switch inter {
	case 0:
		switch final {
		case '7', '8', 'D', 'E', 'M': // save and restore the cursor, line feeds
			f.out = append(f.out, esc, final)
		case 'H': // set a tab stop
			f.look.tabs = true
			f.out = append(f.out, esc, final)
		case 'c':
			f.leave()
			f.out = append(f.out, "\x1b[!p\x1b[?5l\x1b[m\x1b(B\x1b)B\x0f\x1b[r\x1b[H\x1b[2J"...)
		}
	case '(', ')': // character sets: line drawing, British, ASCII
		if final == '0' || final == 'A' || final == 'B' {
			f.out = append(f.out, esc, inter, final)
		}
	case '#': // fill the screen with E
		if final == '8' {
			f.out = append(f.out, esc, inter, final)
		}
	}
}

const (
	// maxNumber is where the parameters of sequences are cut: a terminal that
	// is told to repeat a character two thousand million times does nothing else
	// for a while.
	maxNumber = 9999
	maxCount  = 32
)

func (f *Filter) sequence(s *sequence) {
	switch {
	case s.prefix == '?' && s.inter == 0:
		f.privateModes(s)
	case s.prefix != 0:
	case s.inter == '!' && s.final == 'p' && len(s.params) == 0: // soft reset
		f.out = append(f.out, "\x1b[!p"...)
	case s.inter == ' ' && s.final == 'q': // shape of the cursor
		if n, ok := numbers(s.params); ok && len(n) <= 1 && within(n, 0, 6) {
			f.look.cursor = true
			f.append("", n, " q")
		}
	case s.inter == 0 && s.final == 'm':
		f.attributes(s.params)
	case s.inter == 0:
		if n, ok := numbers(s.params); ok && f.draws(s.final, n) {
			f.append("", n, string(s.final))
		}
	}
}

// draws tells whether a sequence without prefix and intermediate draws.
func (f *Filter) draws(final byte, n []int) bool {
	switch final {
	case '@', 'A', 'B', 'C', 'D', 'E', 'F', 'G', 'I', 'L', 'M', 'P', 'S', 'X', 'Z', '`', 'a', 'b', 'd', 'e':
		return len(n) <= 1
	case 'T': // with more parameters it tracks the mouse
		return len(n) <= 1
	case 'H', 'f':
		return len(n) <= 2
	case 'J', 'K': // not 3, which erases the viewer's scrollback
		return len(n) <= 1 && within(n, 0, 2)
	case 'r':
		f.look.margins = f.look.margins || len(n) > 0 && len(n) <= 2
		return len(n) <= 2
	case 's', 'u': // with parameters they set margins, or the keyboard
		return len(n) == 0
	case 'g':
		f.look.tabs = true
		return len(n) <= 1 && within(n, 0, 0) || len(n) == 1 && n[0] == 3
	case 'h', 'l': // insert mode
		return len(n) == 1 && n[0] == 4
	default:
		return false
	}
}

// drawingModes are the private modes that may pass: origin, reverse screen,
// wrapping, blinking and visible cursor, the alternate screen and its cursor.
var drawingModes = []int{5, 6, 7, 12, 25, 47, 1047, 1048, 1049}

func (f *Filter) privateModes(s *sequence) {
	n, ok := numbers(s.params)
	if !ok || s.final != 'h' && s.final != 'l' {
		return
	}
	n = slices.DeleteFunc(n, func(mode int) bool { return !slices.Contains(drawingModes, mode) })
	for _, mode := range n {
		switch {
		case mode == 6:
			f.look.margins = true
		case mode != 47 && mode != 1047 && mode != 1049:
		case s.final == 'h':
			f.look.alternate = mode
		default:
			f.look.alternate = 0
		}
	}
	if len(n) > 0 {
		f.append("?", n, string(s.final))
	}
}

// attributes passes colours and styles. Their parameters may have parts, which
// colons separate.
func (f *Filter) attributes(params []byte) {
	start := len(f.out)
	f.out = append(f.out, esc, '[')
	for count := 1; ; count++ {
		end := bytes.IndexAny(params, ";:")
		part := params
		if end >= 0 {
			part = params[:end]
		}
		n, ok := number(part)
		if !ok || count > maxCount {
			f.out = f.out[:start]
			return
		}
		if n >= 0 {
			f.out = strconv.AppendInt(f.out, int64(n), 10)
		}
		if end < 0 {
			break
		}
		f.out = append(f.out, params[end])
		params = params[end+1:]
	}
	f.out = append(f.out, 'm')
}

// append writes a sequence.
func (f *Filter) append(prefix string, n []int, final string) {
	f.out = append(f.out, esc, '[')
	f.out = append(f.out, prefix...)
	for i, v := range n {
		if i > 0 {
			f.out = append(f.out, ';')
		}
		if v >= 0 {
			f.out = strconv.AppendInt(f.out, int64(v), 10)
		}
	}
	f.out = append(f.out, final...)
}

// numbers reads parameters; -1 stands for one that is left out.
func numbers(params []byte) ([]int, bool) {
	if len(params) == 0 {
		return nil, true
	}
	var all []int
	for part := range bytes.SplitSeq(params, []byte{';'}) {
		n, ok := number(part)
		if !ok || len(all) == maxCount {
			return nil, false
		}
		all = append(all, n)
	}
	return all, true
}

// number reads a parameter and cuts it to maxNumber.
func number(s []byte) (int, bool) {
	if len(s) == 0 {
		return -1, true
	}
	n := 0
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = min(n*10+int(c-'0'), maxNumber)
	}
	return n, true
}

// within tells that all numbers that are given are between low and high.
func within(n []int, low, high int) bool {
	return !slices.ContainsFunc(n, func(v int) bool { return v != -1 && (v < low || v > high) })
}
