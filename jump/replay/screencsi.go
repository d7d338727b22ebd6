package replay

import "slices"

// sequence carries out the control sequences that change text or move the
// cursor.
func (s *screen) sequence(q *sequence) {
	n, ok := numbers(q.params)
	if !ok || q.inter != 0 {
		return
	}
	if q.prefix == '?' {
		s.modes(n, q.final)
		return
	}
	if q.prefix != 0 || s.move(n, q.final) {
		return
	}
	count := max(parameter(n, 0), 1)
	switch q.final {
	case 'J':
		s.eraseScreen(parameter(n, 0))
	case 'K':
		s.eraseLine(parameter(n, 0))
	case 'X':
		s.erase(s.cursor.x, s.cursor.x+count)
	case '@':
		s.insertCells(count)
	case 'P':
		s.deleteCells(count)
	case 'L':
		if s.inRegion() {
			s.insertLines(s.cursor.y, count)
		}
	case 'M':
		if s.inRegion() {
			s.deleteLines(s.cursor.y, count)
		}
	case 'S':
		s.scrollUp(count)
	case 'T':
		if len(n) <= 1 {
			s.insertLines(s.top, count)
		}
	case 'b':
		// No more than a screen: what comes after would only scroll by.
		for range min(count, s.columns*s.rows) {
			if s.last != 0 {
				s.put(s.last)
			}
		}
	case 'r':
		s.region(n)
	case 's':
		s.saved = s.cursor
	case 'u':
		s.cursor = s.clamped(s.saved)
	case 'h', 'l':
		if len(n) == 1 && n[0] == 4 {
			s.insert = q.final == 'h'
		}
	}
}

// parameter is the i-th parameter, 0 if it is left out.
func parameter(n []int, i int) int {
	if i >= len(n) {
		return 0
	}
	return max(n[i], 0)
}

// move carries out what only moves the cursor; it tells whether that was it.
func (s *screen) move(n []int, final byte) bool {
	count := max(parameter(n, 0), 1)
	x, y := s.cursor.x, s.cursor.y
	switch final {
	case 'A':
		y -= count
	case 'B', 'e':
		y += count
	case 'C', 'a':
		x += count
	case 'D':
		x -= count
	case 'E':
		x, y = 0, y+count
	case 'F':
		x, y = 0, y-count
	case 'G', '`':
		x = count - 1
	case 'd':
		y = count - 1
	case 'H', 'f':
		x, y = max(parameter(n, 1), 1)-1, count-1
	case 'I':
		x = (x/8 + count) * 8
	case 'Z':
		x = ((x+7)/8 - count) * 8
	default:
		return false
	}
	s.to(x, y)
	return true
}

func (s *screen) modes(n []int, final byte) {
	if final != 'h' && final != 'l' {
		return
	}
	on := final == 'h'
	for _, mode := range n {
		switch mode {
		case 7:
			s.noWrap = !on
		case 47, 1047, 1049:
			if on {
				s.enter()
			} else {
				s.leave()
			}
		}
	}
}

func (s *screen) region(n []int) {
	top, bottom := max(parameter(n, 0), 1)-1, parameter(n, 1)-1
	if bottom < 0 || bottom >= s.rows {
		bottom = s.rows - 1
	}
	if top < bottom {
		s.top, s.bottom = top, bottom
		s.to(0, 0)
	}
}

func (s *screen) inRegion() bool { return s.cursor.y >= s.top && s.cursor.y <= s.bottom }

func (s *screen) eraseScreen(what int) {
	switch what {
	case 0:
		if s.cursor.x == 0 && s.cursor.y == 0 {
			s.eraseAll()
			return
		}
		s.eraseLine(0)
		s.loseLines(s.cursor.y+1, s.rows)
		clear(s.lines[s.cursor.y+1:])
	case 1:
		s.loseLines(0, s.cursor.y)
		clear(s.lines[:s.cursor.y])
		s.eraseLine(1)
	case 2:
		s.eraseAll()
	}
}

func (s *screen) eraseLine(what int) {
	l := s.current()
	switch what {
	case 0:
		s.lose(s.cursor.y, s.cursor.x, len(l.cells))
		if s.cursor.x < len(l.cells) {
			l.split(s.cursor.x)
			l.cells = l.cells[:s.cursor.x]
			l.given = s.cursor.x == 0 && l.strings == 0 // nothing is left to give
		}
		l.wrapped = false
	case 1:
		s.erase(0, s.cursor.x+1)
	case 2:
		s.lose(s.cursor.y, 0, len(l.cells))
		*l = textLine{given: len(l.cells) > 0 && l.strings == 0, strings: l.strings, fresh: l.strings > 0}
	}
}

// erase makes blanks of the cells from one column to before another.
func (s *screen) erase(from, to int) {
	s.lose(s.cursor.y, from, to)
	l := s.current()
	l.split(from)
	l.split(to)
	for x := from; x < min(to, len(l.cells)); x++ {
		l.cells[x] = blank
	}
}

func (s *screen) insertCells(n int) {
	l := s.current()
	x := s.cursor.x
	if x >= len(l.cells) {
		return
	}
	n = min(n, s.columns-x)
	s.lose(s.cursor.y, max(x, s.columns-n), len(l.cells))
	l.split(x)
	blanks := slices.Repeat([]cell{blank}, n)
	l.cells = slices.Insert(l.cells, x, blanks...)
	l.cells = l.cells[:min(len(l.cells), s.columns)]
}

func (s *screen) deleteCells(n int) {
	l := s.current()
	x := s.cursor.x
	if x >= len(l.cells) {
		return
	}
	to := min(x+n, len(l.cells))
	s.lose(s.cursor.y, x, to)
	l.split(x)
	l.split(to)
	l.cells = slices.Delete(l.cells, x, to)
}
