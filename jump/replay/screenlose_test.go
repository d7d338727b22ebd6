package replay

import (
	"strings"
	"testing"
)

// TestNothingIsHidden: what was shown is in the text, whatever wiped it away,
// after what stood above it.
func TestNothingIsHidden(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"erased line", "$ cat x\r\nPASSWORD=1\r\x1b[2Kharmless\r\n", "$ cat x\nPASSWORD=1\nharmless"},
		{"erased to its end", "$ cat x\r\nPASSWORD=1\r\x1b[Kharmless\r\n", "$ cat x\nPASSWORD=1\nharmless"},
		{"erased for good", "PASSWORD=1\r\x1b[K\r\nnext", "PASSWORD=1\nnext"},
		{"erased without having been written", "a\r\n\x1b[K\r\nb", "a\n\nb"},
		{"written over", "$ cat x\r\nPASSWORD=1\rharmless  \r\n", "$ cat x\nPASSWORD=1\nharmless"},
		{"written over with blanks", "PASSWORD=1\r          \r\n", "PASSWORD=1\n"},
		{"written twice the same", "abc\rabc\rabc\x1b[K", "abc"},
		{"given out once", "abc\r\x1b[Kabc\r\x1b[Kabd", "abc\nabc\nabd"},
		{"wrapped and erased", strings.Repeat("0123456789", 3) + "\r\x1b[K", strings.Repeat("0123456789", 3)},
		{"a wide character is cut", "日x\r\x1b[Cy", "日x\n yx"},
		{"erased characters", "secret\r\x1b[6X", "secret\n"},
		{"pushed out to the right", "\x1b[1;18Habc\x1b[1;1H\x1b[3@", strings.Repeat(" ", 17) + "abc\n"},
		{"pushed out below", "1\r\n2\r\n3\r\n4\r\n5\x1b[H\x1b[2L", "1\n2\n3\n4\n5\n\n"},
		{"scrolled within a region", "\x1b[2;4r\x1b[2;1Ha\r\nb\r\nc\r\nd\r\ne", "\na\nb\nc\nd\ne"},
		{
			"cleared full screen", "\x1b[?1049h\x1b[H\x1b[2Jsecret\x1b[H\x1b[2Jharmless\x1b[?1049l$ ",
			"[a full-screen program cleared this away:]\nsecret\n[end of the full screen]\n" +
				"[a full-screen program left this:]\nharmless\n[end of the full screen]\n$",
		},
		{
			"scrolled full screen", "\x1b[?1049h1\r\n2\r\n3\r\n4\r\n5\r\n6\r\n7\x1b[?1049l$ ",
			"[off the screen of a full-screen program went:]\n1\n2\n" +
				"[a full-screen program left this:]\n3\n4\n5\n6\n7\n[end of the full screen]\n$",
		},
		{"strings", "a\x1b]0;b\x07\r\nc\x1bPdata\x1b\\d\x9d\r\n\x1b_x\x9c", "a\n[3 bytes of control strings left out]\ncd\ufffd\n[4 bytes of control strings left out]\n\n[2 bytes of control strings left out]"},
		{"a string in an erased line", "\x1b]0;b\x07a\r\x1b[2K\r\nc", "a\n[3 bytes of control strings left out]\nc"},
		{"only a string, erased", "\x1b]0;b\x07\x1b[2K\r\nc", "\n[3 bytes of control strings left out]\nc"},
		{"only a string, cleared", "\x1b]0;b\x07\x1b[2Jc", "\n[3 bytes of control strings left out]\nc"},
		{"strings on a full screen", "\x1b[?1049h\x1b]0;b\x07\x1b[2J\x1b[?1049l$", "[3 bytes of control strings left out]\n$"},
		{"a string without an end", "a\x1b]0;bcd", "a\n[5 bytes of control strings left out]"},
		{"an empty string", "a\x1b]\x07", "a"},
	} {
		if got := shown(c.in); got != c.want {
			t.Errorf("%s: %q\nwant %q", c.name, got, c.want)
		}
		if got := shown(strings.Split(c.in, "")...); got != c.want {
			t.Errorf("%s, in pieces: %q\nwant %q", c.name, got, c.want)
		}
	}
}

// TestHiddenOnResize: nor does a smaller terminal hide anything.
func TestHiddenOnResize(t *testing.T) {
	for _, alternate := range []string{"", "\x1b[?1049h"} {
		var out []string
		s := newScreen(10, 4, func(l string) { out = append(out, l) })
		p := parser{sink: s}
		p.write([]byte("1\r\n2\r\n3\r\nsecret\x1b[H" + alternate))
		s.resize(10, 2)
		p.write([]byte("\x1b[?1049l"))
		s.close()
		if got := strings.Join(out, " "); !strings.Contains(got, "3 secret") {
			t.Errorf("%q: %q", alternate, got)
		}
	}
}

// TestSmallChangesToLongLines: a host can't make a text of any size by changing
// a character of a long line again and again.
func TestSmallChangesToLongLines(t *testing.T) {
	size := 0
	s := newScreen(maxColumns, 24, func(l string) { size += len(l) + 1 })
	p := parser{sink: s}
	in := strings.Repeat("x", 1000) + strings.Repeat("\rA\rB", 10000)
	p.write([]byte(in))
	p.end()
	s.close()
	if size > 2*len(in) {
		t.Errorf("%d bytes became %d", len(in), size)
	}
}
