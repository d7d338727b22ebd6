package replay

import (
	"fmt"
	"slices"
	"strings"
)

// screen draws what a host sent as a terminal would, without colours, and gives
// out lines of text: those that scroll off the top or are cleared away, and at
// the end those that are left. Lines that the terminal has wrapped are whole
// again.
//
// Of the alternate screen, where editors and pagers draw, it gives what stood
// there when it was left, after what was on the main screen by then.
type screen struct {
	line func(string)

	columns, rows int
	lines         []textLine
	// mainLines and mainCursor keep the main screen while the alternate one is
	// shown.
	mainLines   []textLine
	alternate   bool
	cursor      cursor
	saved       cursor
	mainCursor  cursor
	top, bottom int // the scrolling region, both within
	// partial is the text of lines that go on in the next one.
	partial  strings.Builder
	insert   bool
	noWrap   bool
	last     rune
	lineFeed bool // a line feed is a new line: there was no terminal
}

type cursor struct {
	x, y int
	// full says that the last column was written: the next character wraps.
	full bool
	// graphic are G0 and G1 as line-drawing sets, shift is the one in use.
	graphic [2]bool
	shift   int
}

// textLine is a line of the screen; wrapped says that the next one goes on
// with it, given that it was given out as it is.
type textLine struct {
	cells   []cell
	wrapped bool
	given   bool
}

// cell is a character with what combines with it; 0 is the second half of a
// wide one.
type cell struct {
	r    rune
	more string
}

// Bounds of a screen: sizes come from clients.
const (
	maxColumns = 1024
	maxRows    = 512
	maxMore    = 32
)

func newScreen(columns, rows int, line func(string)) *screen {
	s := &screen{line: line}
	s.columns, s.rows = bounded(columns, 80, maxColumns), bounded(rows, 24, maxRows)
	s.lines = make([]textLine, s.rows)
	s.bottom = s.rows - 1
	return s
}

// bounded is n as a size; unset means usual.
func bounded(n, usual, most int) int {
	if n <= 0 {
		return usual
	}
	return min(n, most)
}

// resize keeps the cursor's line on the screen.
func (s *screen) resize(columns, rows int) {
	columns, rows = bounded(columns, s.columns, maxColumns), bounded(rows, s.rows, maxRows)
	if over := s.cursor.y - (rows - 1); over > 0 {
		s.give(s.lines[:over])
		s.lines = slices.Delete(s.lines, 0, over)
		s.cursor.y -= over
	}
	s.lines = resized(s.lines, rows)
	if s.alternate {
		s.mainLines = resized(s.mainLines, rows)
	}
	s.columns, s.rows = columns, rows
	s.top, s.bottom = 0, rows-1
	s.to(s.cursor.x, s.cursor.y)
	s.saved = s.clamped(s.saved)
	s.mainCursor = s.clamped(s.mainCursor)
}

func (s *screen) clamped(c cursor) cursor {
	c.x, c.y = min(c.x, s.columns-1), min(c.y, s.rows-1)
	return c
}

func resized(lines []textLine, rows int) []textLine {
	if len(lines) > rows {
		return lines[:rows:rows]
	}
	return append(lines, make([]textLine, rows-len(lines))...)
}

// give hands lines of the main screen on as text.
func (s *screen) give(lines []textLine) {
	if s.alternate {
		return
	}
	for i := range lines {
		l := &lines[i]
		if l.given {
			continue
		}
		l.given = true
		l.appendTo(&s.partial)
		if l.wrapped && s.partial.Len() < maxPartial {
			continue
		}
		s.line(strings.TrimRight(s.partial.String(), " "))
		s.partial.Reset()
	}
}

// maxPartial bounds how long a line may become by wrapping.
const maxPartial = 1 << 20

func (l *textLine) appendTo(b *strings.Builder) {
	for _, c := range l.cells {
		if c.r != 0 {
			b.WriteRune(c.r)
			b.WriteString(c.more)
		}
	}
}

// giveAll hands on what stands on the screen, without the empty lines below.
func (s *screen) giveAll() {
	n := len(s.lines)
	for n > 0 && len(s.lines[n-1].cells) == 0 {
		n--
	}
	s.give(s.lines[:n])
	s.flushPartial()
}

// close hands on what is left.
func (s *screen) close() {
	s.leave()
	s.giveAll()
}

// to moves the cursor, within the screen.
func (s *screen) to(x, y int) {
	s.cursor.x = min(max(x, 0), s.columns-1)
	s.cursor.y = min(max(y, 0), s.rows-1)
	s.cursor.full = false
}

func (s *screen) print(r rune) {
	if turnsText(r) {
		for _, c := range fmt.Sprintf(`\u%04x`, r) {
			s.put(c)
		}
		return
	}
	if s.cursor.graphic[s.cursor.shift] {
		if i := strings.IndexRune(drawn, r); i >= 0 {
			r = drawings[i]
		}
	}
	s.put(r)
	s.last = r
}

func (s *screen) text(b []byte) {
	for _, c := range b {
		s.print(rune(c))
	}
}

// DEC's line-drawing set, and what it draws.
const drawn = "`afgijklmnopqrstuvwxyz{|}~"

var drawings = []rune("◆▒°±␉┘┐┌└┼⎺⎻─⎼⎽├┤┴┬│≤≥π≠£·")

func (s *screen) put(r rune) {
	w := width(r)
	if w == 0 {
		s.combine(r)
		return
	}
	if s.cursor.full || s.cursor.x+w > s.columns {
		s.wrap(w)
	}
	l := s.current()
	x := s.cursor.x
	for len(l.cells) < x {
		l.cells = append(l.cells, cell{r: ' '})
	}
	if s.insert {
		s.insertCells(w)
	}
	l.split(x)
	l.split(x + w)
	for len(l.cells) < x+w {
		l.cells = append(l.cells, cell{})
	}
	l.cells[x] = cell{r: r}
	if w == 2 {
		l.cells[x+1] = cell{}
	}
	if x+w >= s.columns {
		s.cursor.x, s.cursor.full = s.columns-1, true
	} else {
		s.cursor.x = x + w
	}
}

// wrap goes to the next line if the next character, of width w, needs it.
func (s *screen) wrap(w int) {
	if s.noWrap {
		s.to(s.columns-w, s.cursor.y)
		return
	}
	s.current().wrapped = true
	s.cursor.x, s.cursor.full = 0, false
	s.feed()
}

func (s *screen) combine(r rune) {
	l := s.current()
	x := s.cursor.x
	if !s.cursor.full {
		x--
	}
	for x > 0 && x < len(l.cells) && l.cells[x].r == 0 {
		x--
	}
	if x >= 0 && x < len(l.cells) && len(l.cells[x].more) < maxMore {
		l.cells[x].more += string(r)
		l.given = false
	}
}

// split makes blanks of a wide character that column x would cut in two, for a
// change there.
func (l *textLine) split(x int) {
	l.given = false
	if x > 0 && x < len(l.cells) && l.cells[x].r == 0 {
		l.cells[x-1], l.cells[x] = cell{r: ' '}, cell{r: ' '}
	}
}

func (s *screen) current() *textLine { return &s.lines[s.cursor.y] }

// feed goes one line down, and scrolls at the end of the region.
func (s *screen) feed() {
	switch {
	case s.cursor.y == s.bottom:
		s.scrollUp(1)
	case s.cursor.y < s.rows-1:
		s.cursor.y++
	}
}

func (s *screen) scrollUp(n int) {
	n = min(n, s.bottom-s.top+1)
	if s.top == 0 {
		s.give(s.lines[:n])
	}
	s.deleteLines(s.top, n)
}

// deleteLines takes n lines out at y; the region below moves up.
func (s *screen) deleteLines(y, n int) {
	n = min(n, s.bottom-y+1)
	copy(s.lines[y:s.bottom+1], s.lines[y+n:s.bottom+1])
	clear(s.lines[s.bottom+1-n : s.bottom+1])
}

// insertLines puts n empty lines in at y; the region below moves down.
func (s *screen) insertLines(y, n int) {
	n = min(n, s.bottom-y+1)
	copy(s.lines[y+n:s.bottom+1], s.lines[y:s.bottom+1-n])
	clear(s.lines[y : y+n])
}

func (s *screen) control(c byte) {
	switch c {
	case 0x08:
		s.to(s.cursor.x-1, s.cursor.y)
	case 0x09:
		s.to((s.cursor.x/8+1)*8, s.cursor.y)
	case lf, 0x0b, 0x0c:
		s.cursor.full = false
		if s.lineFeed {
			s.cursor.x = 0
		}
		s.current().wrapped = false
		s.feed()
	case cr:
		s.to(0, s.cursor.y)
	case 0x0e, 0x0f:
		s.cursor.shift = int(0x0f - c)
	}
}

func (s *screen) escape(inter, final byte) {
	switch {
	case inter == '(' || inter == ')':
		s.cursor.graphic[inter-'('] = final == '0'
	case inter != 0:
	case final == '7':
		s.saved = s.cursor
	case final == '8':
		s.cursor = s.clamped(s.saved)
	case final == 'D':
		s.feed()
	case final == 'E':
		s.cursor.x, s.cursor.full = 0, false
		s.feed()
	case final == 'M':
		if s.cursor.y == s.top {
			s.insertLines(s.top, 1)
		} else {
			s.to(s.cursor.x, s.cursor.y-1)
		}
	case final == 'c':
		s.leave()
		s.eraseAll()
		*s = screen{
			line: s.line, columns: s.columns, rows: s.rows, lines: s.lines, bottom: s.rows - 1, lineFeed: s.lineFeed,
		}
	}
}

// enter shows the alternate screen.
func (s *screen) enter() {
	if s.alternate {
		return
	}
	s.give(s.lines[:s.cursor.y])
	s.flushPartial()
	s.alternate = true
	s.mainLines, s.mainCursor = s.lines, s.cursor
	s.lines = make([]textLine, s.rows)
}

// leave gives out what stands on the alternate screen, and shows the main one.
func (s *screen) leave() {
	if !s.alternate {
		return
	}
	s.alternate = false
	shown := s.lines
	s.lines, s.cursor = s.mainLines, s.clamped(s.mainCursor)
	s.mainLines = nil
	for len(shown) > 0 && len(shown[len(shown)-1].cells) == 0 {
		shown = shown[:len(shown)-1]
	}
	if len(shown) == 0 {
		return
	}
	s.flushPartial()
	s.line("[a full-screen program left this:]")
	shown[len(shown)-1].wrapped = false
	s.give(shown)
	s.line("[end of the full screen]")
}

func (s *screen) flushPartial() {
	if s.partial.Len() > 0 {
		s.line(s.partial.String())
		s.partial.Reset()
	}
}

// eraseAll clears the screen. What stood on it was seen, so it is given out.
func (s *screen) eraseAll() {
	if !s.alternate {
		s.giveAll()
	}
	clear(s.lines)
}
