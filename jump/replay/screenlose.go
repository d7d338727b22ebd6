package replay

import (
	"slices"
)

// lose gives out what is new in a line of the main screen, after the lines above
// it, if one of its cells from one column to before another that was not given
// out is about to go. What was given out is not repeated, so that a recording of
// small changes does not make a large text.
func (s *screen) lose(y, from, to int) {
	l := &s.lines[y]
	to = min(to, len(l.cells))
	if s.alternate || !l.fresh || from >= to || !slices.ContainsFunc(l.cells[from:to], cell.fresh) {
		return
	}
	for i := range s.lines[:y] {
		if above := &s.lines[i]; above.fresh || !above.given && len(above.cells) == 0 {
			s.giveFresh(i)
		}
	}
	s.giveFresh(y)
	s.flushPartial()
}

// fresh says whether the cell shows something that wasn't given out. The second
// half of a wide character stands for the first.
func (c cell) fresh() bool { return !c.given && c.r != ' ' }

// loseLines gives out what is new in lines of the main screen that are about to
// go.
func (s *screen) loseLines(from, to int) {
	if s.alternate {
		return
	}
	for y := from; y < to; y++ {
		if l := &s.lines[y]; l.strings > 0 {
			s.giveFresh(y)
			s.flushPartial()
		} else {
			s.lose(y, 0, len(l.cells))
		}
	}
}

// shortLine is the length up to which a line is given out whole, to be more
// readable, though only some of it is new.
const shortLine = 100

// giveFresh gives out the cells of a line that were not given out, with a blank
// in place of what was. A line that is short or all new is given out as it is.
func (s *screen) giveFresh(y int) {
	l := &s.lines[y]
	if len(l.cells) <= shortLine || !slices.ContainsFunc(l.cells, func(c cell) bool { return c.given && c != blank }) {
		s.hand(s.lines[y : y+1])
		return
	}
	gap := false
	for i := range l.cells {
		c := &l.cells[i]
		switch {
		case c.given:
			gap = true
		case c.r != 0:
			if gap && s.partial.Len() > 0 {
				s.partial.WriteByte(' ')
			}
			gap = false
			s.partial.WriteRune(c.r)
			s.partial.WriteString(c.more)
		}
		c.given = true
	}
	s.goOn(l)
}
