package replay

import (
	"fmt"
	"slices"
	"strings"
)

// screen draws what a host sent as a terminal would, without colours, and gives
// out lines of text: those that scroll off the top, those of which something is
// about to be erased or written over, and at the end those that are left. Lines
// that the terminal has wrapped are whole again. Nothing is shown and then hidden:
// of a line that changes comes what is new in it before each change. What no
// screen shows, the strings of control sequences, is counted where it came.
//
// Of the alternate screen, where editors and pagers draw, it gives what stood
// there when it was cleared or left, and what scrolled off, after what was on
// the main screen by then.
type screen struct {
	line func(string)

	columns, rows int
	lines         []textLine
	// mainLines and mainCursor keep the main screen while the alternate one is
	// shown.
	mainLines   []textLine
	alternate   bool
	scrolled    bool // something scrolled off the alternate screen
	cursor      cursor
	saved       cursor
	mainCursor  cursor
	top, bottom int // the scrolling region, both within
	// partial is the text of lines that go on in the next one.
	partial strings.Builder
	// stringBytes are those of strings in what partial holds; of the alternate
	// screen, those on it.
	stringBytes int
	insert      bool
	noWrap      bool
	last        rune
	lineFeed    bool // a line feed is a new line: there was no terminal
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
	// fresh says that some cells may not have been given out, or strings not.
	fresh   bool
	strings int // bytes of strings that came while the cursor was here
}

// cell is a character with what combines with it; 0 is the second half of a
// wide one. given says that it was given out, or is a blank that nobody wrote.
type cell struct {
	r     rune
	more  string
	given bool
}

// blank is what is put between.
var blank = cell{r: ' ', given: true}

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
		s.giveTop(over)
		s.lines = slices.Delete(s.lines, 0, over)
		s.cursor.y -= over
	}
	s.loseLines(min(rows, len(s.lines)), len(s.lines))
	s.lines = resized(s.lines, rows)
	if s.alternate {
		s.hand(s.mainLines[min(rows, len(s.mainLines)):])
		s.flushPartial()
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
	if !s.alternate {
		s.hand(lines)
	}
}

func (s *screen) hand(lines []textLine) {
	for i := range lines {
		l := &lines[i]
		if l.given {
			continue
		}
		l.given = true
		l.appendTo(&s.partial)
		s.goOn(l)
	}
}

// goOn ends the line that partial holds, unless it goes on after l.
func (s *screen) goOn(l *textLine) {
	s.stringBytes += l.strings
	l.strings, l.fresh = 0, false
	if l.wrapped && s.partial.Len() < maxPartial {
		return
	}
	s.line(strings.TrimRight(s.partial.String(), " "))
	s.partial.Reset()
	s.tellOmitted()
}

// tellOmitted tells how much of what the host sent no screen shows.
func (s *screen) tellOmitted() {
	if s.stringBytes > 0 {
		s.line(fmt.Sprintf("[%d bytes of control strings left out]", s.stringBytes))
		s.stringBytes = 0
	}
}

// omitted counts a string where the cursor is.
func (s *screen) omitted(n int) {
	if s.alternate {
		s.stringBytes += n
		return
	}
	l := s.current()
	l.strings += n
	l.given, l.fresh = false, true
}

// maxPartial bounds how long a line may become by wrapping.
const maxPartial = 1 << 20

func (l *textLine) appendTo(b *strings.Builder) {
	for i, c := range l.cells {
		if c.r != 0 {
			b.WriteRune(c.r)
			b.WriteString(c.more)
		}
		l.cells[i].given = true
	}
}

// giveAll hands on what stands on the screen, without the empty lines below.
func (s *screen) giveAll() {
	n := len(s.lines)
	for n > 0 && len(s.lines[n-1].cells) == 0 && s.lines[n-1].strings == 0 {
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
		l.cells = append(l.cells, blank)
	}
	if s.insert {
		s.insertCells(w)
	}
	seen := false // the same is there, and was given out
	if x < len(l.cells) {
		if was := l.cells[x]; was.r == r && was.more == "" {
			seen = was.given
		} else {
			s.lose(s.cursor.y, x, x+w)
		}
	}
	l.split(x)
	l.split(x + w)
	for len(l.cells) < x+w {
		l.cells = append(l.cells, cell{})
	}
	l.fresh = true
	l.cells[x] = cell{r: r, given: seen}
	if w == 2 {
		l.cells[x+1] = cell{given: seen}
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
		l.cells[x].given = false
		l.given, l.fresh = false, true
	}
}

// split makes blanks of a wide character that column x would cut in two, for a
// change there.
func (l *textLine) split(x int) {
	l.given = false
	if x > 0 && x < len(l.cells) && l.cells[x].r == 0 {
		l.cells[x-1], l.cells[x] = blank, blank
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
		s.giveTop(n)
	}
	s.deleteLines(s.top, n)
}

// deleteLines takes n lines out at y; the region below moves up.
func (s *screen) deleteLines(y, n int) {
	n = min(n, s.bottom-y+1)
	s.loseLines(y, y+n)
	copy(s.lines[y:s.bottom+1], s.lines[y+n:s.bottom+1])
	clear(s.lines[s.bottom+1-n : s.bottom+1])
}

// insertLines puts n empty lines in at y; the region below moves down.
func (s *screen) insertLines(y, n int) {
	n = min(n, s.bottom-y+1)
	s.loseLines(s.bottom+1-n, s.bottom+1)
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
	s.giveShown("left this")
	s.alternate = false
	s.lines, s.cursor = s.mainLines, s.clamped(s.mainCursor)
	s.mainLines = nil
}

// giveShown gives out what stands on the alternate screen.
func (s *screen) giveShown(what string) {
	shown := s.lines
	for len(shown) > 0 && len(shown[len(shown)-1].cells) == 0 {
		shown = shown[:len(shown)-1]
	}
	if len(shown) > 0 {
		s.flushPartial()
		s.line("[a full-screen program " + what + ":]")
		shown[len(shown)-1].wrapped = false
		s.hand(shown)
	}
	if len(shown) > 0 || s.scrolled {
		s.flushPartial()
		s.line("[end of the full screen]")
	}
	s.scrolled = false
	s.tellOmitted()
}

// giveTop gives out the first n lines, which scroll off.
func (s *screen) giveTop(n int) {
	if s.alternate && !s.scrolled {
		s.flushPartial()
		s.line("[off the screen of a full-screen program went:]")
		s.scrolled = true
	}
	s.hand(s.lines[:n])
}

func (s *screen) flushPartial() {
	if s.partial.Len() > 0 {
		s.line(s.partial.String())
		s.partial.Reset()
	}
	s.tellOmitted()
}

// eraseAll clears the screen. What stood on it was seen, so it is given out.
func (s *screen) eraseAll() {
	if s.alternate {
		s.giveShown("cleared this away")
	} else {
		s.giveAll()
	}
	clear(s.lines)
}
