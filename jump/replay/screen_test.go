package replay

import (
	"strings"
	"testing"

	"github.com/fleetca/fleetca/jump/cast"
)

// shown is what a screen of 20 columns and 5 rows gives as text.
func shown(pieces ...string) string {
	var out []string
	s := newScreen(20, 5, func(l string) { out = append(out, l) })
	p := parser{sink: s}
	for _, piece := range pieces {
		p.write([]byte(piece))
	}
	p.end()
	s.close()
	return strings.Join(out, "\n")
}

func TestScreen(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"lines", "one\r\ntwo\r\n", "one\ntwo"},
		{"line feed only", "one\ntwo", "one\n   two"},
		{"scrolled", "1\r\n2\r\n3\r\n4\r\n5\r\n6\r\n7", "1\n2\n3\n4\n5\n6\n7"},
		{"typing with corrections", "$ lss\b\x1b[K -l\r\n", "$ lss\n$ ls -l"},
		{"backspace over", "abc\b\b\bxyz", "abc\nxyz"},
		{"progress", "10%\r50%\r100%\r\ndone", "10%\n50%\n100%\ndone"},
		{"colours", "\x1b[31mred\x1b[m text", "red text"},
		{"title", "\x1b]0;title\x07text", "text\n[7 bytes of control strings left out]"},
		{"wrapped line is one", strings.Repeat("0123456789", 5) + "\r\nnext", strings.Repeat("0123456789", 5) + "\nnext"},
		{"full line isn't wrapped", strings.Repeat("0123456789", 2) + "\r\nnext", strings.Repeat("0123456789", 2) + "\nnext"},
		{"no wrapping", "\x1b[?7l" + strings.Repeat("x", 25) + "y", strings.Repeat("x", 20) + "\n" + strings.Repeat("x", 19) + "y"},
		{"wide characters", "日本語\b\bx", "日本語\n日本x"},
		{"half of a wide character", "日本\x1b[2Gx", "日本\n x本"},
		{"wide character wraps", strings.Repeat("x", 19) + "日", strings.Repeat("x", 19) + "日"},
		{"combining", "e\u0301x", "e\u0301x"},
		{"combining at the edge", strings.Repeat("x", 19) + "e\u0301", strings.Repeat("x", 19) + "e\u0301"},
		{"combining with nothing", "\u0301x", "x"},
		{"cleared screen was seen", "one\r\ntwo\x1b[H\x1b[2Jthree", "one\ntwo\nthree"},
		{"cleared from home", "one\x1b[H\x1b[Jtwo", "one\ntwo"},
		{"cleared below", "one\r\ntwo\r\nthree\x1b[2;1H\x1b[J", "one\ntwo\nthree"},
		{"cleared above", "one\r\ntwo\x1b[2;2H\x1b[1J", "one\n\ntwo\n  o"},
		{"erased", "abcdef\x1b[3G\x1b[2X", "abcdef\nab  ef"},
		{"erased to the left", "abcdef\x1b[3G\x1b[1K", "abcdef\n   def"},
		{"erased line", "abcdef\x1b[2Kx", "abcdef\n      x"},
		{"inserted", "abcdef\x1b[3G\x1b[2@xy", "abxycdef"},
		{"deleted", "abcdef\x1b[3G\x1b[2P", "abcdef\nabef"},
		{"insert mode", "abc\r\x1b[4hxy\x1b[4l", "xyabc"},
		{"inserted lines", "1\r\n2\r\n3\x1b[2;1H\x1b[Lx", "1\nx\n2\n3"},
		{"deleted lines", "1\r\n2\r\n3\x1b[2;1H\x1b[M", "1\n2\n3"},
		{"scrolling region", "1\r\n2\r\n3\r\n4\x1b[2;3r\x1b[3;1H\nx", "1\n2\n3\nx\n4"},
		{"reverse line feed", "1\r\n2\x1b[H\x1bMx", "x\n1\n2"},
		{"scrolled up", "1\r\n2\x1b[S", "1\n2"},
		{"scrolled down", "1\r\n2\x1b[T", "\n1\n2"},
		{"next line", "1\x1bE2\x1bD3", "1\n2\n 3"},
		{"repeated", "x\x1b[4by", "xxxxxy"},
		{"tabs", "a\tb\x1b[Zc", "a       b\na       c"},
		{"saved cursor", "ab\x1b7cd\x1b8x\x1b[scd\x1b[ux", "abcd\nabxcd\nabxxd"},
		{"moved", "\x1b[3;5Hx\x1b[A\x1b[2Dy\x1b[Bz\x1b[1dw\x1b[9`v", "\n   y\n    x\n     w  v\n    z"},
		{"line drawing", "\x1b(0lqk\x1b(Bx\x1b)0\x0eq\x0fq", "┌─┐x─q"},
		{"reset", "one\x1bctwo", "one\ntwo"},
		{"direction of text", "a\u202eb", `a\u202eb`},
		{"not UTF-8", "a\xffb\xe2\x82", "a\ufffdb\ufffd"},
		{"character in pieces", "\xe2\x82\xac", "€"},
		{
			"full-screen program", "$ vi\r\n\x1b[?1049h\x1b[H\x1b[2Jtext of\r\nthe file\x1b[?1049l$ ",
			"$ vi\n[a full-screen program left this:]\ntext of\nthe file\n[end of the full screen]\n$",
		},
		{
			"line changed after a full-screen program", "one\r\ntwo\r\n\x1b[?47h\x1b[?47l\x1b[1;4Hmore\x1b[4;1Hend",
			"one\ntwo\nonemore\n\nend",
		},
		{"full-screen program that left nothing", "a\x1b[?47hx\x1b[2K\x1b[?47lb", "ab"},
		{"full screen to the end", "a\x1b[?1047h\x1b[1;2Hx", "[a full-screen program left this:]\n x\n[end of the full screen]\na"},
		{"string that never ends", "a\x1b]0;b\r\nc", "a\n[3 bytes of control strings left out]\nc"},
	} {
		if got := shown(c.in); got != c.want {
			t.Errorf("%s: %q\nwant %q", c.name, got, c.want)
		}
		if got := shown(strings.Split(c.in, "")...); got != c.want {
			t.Errorf("%s, in pieces: %q\nwant %q", c.name, got, c.want)
		}
	}
}

func TestScreenResize(t *testing.T) {
	var out []string
	s := newScreen(10, 4, func(l string) { out = append(out, l) })
	p := parser{sink: s}
	p.write([]byte("1\r\n2\r\n3\r\n4"))
	s.resize(5, 2)
	if got := strings.Join(out, " "); got != "1 2" {
		t.Errorf("smaller: %q", got)
	}
	p.write([]byte("\x1b[?1049h"))
	s.resize(30, 6)
	p.write([]byte("\x1b[?1049l\r\n5\r\n6\r\n7\r\n8"))
	s.close()
	if got := strings.Join(out, " "); got != "1 2 3 4 5 6 7 8" {
		t.Errorf("larger: %q", got)
	}
}

func TestExportText(t *testing.T) {
	s := newStore(t)
	id := record(t, terminalHeader(), split(cast.Output, []byte("\x1b[32m$ \x1b[mecho "+unicodeText))...).put(t, s)
	if got, want := export(t, s, id, Text), "$ echo "+strings.ReplaceAll(unicodeText, "\r\n", "\n"); got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
	id = record(t, cast.Header{Kind: "command"}, at(0, cast.Command, "make \x1b"), at(1, cast.Output, "one\ntw"),
		at(1.5, cast.Stderr, "warning\n"), at(2, cast.Output, strings.Repeat("long ", 1000)+"\n"), at(2.5, cast.Output, "no end"),
		at(3, cast.Stream, `{"stream":"stdout"}`)).put(t, s)
	want := "$ make \\x1b\none\ntwwarning\n" + strings.TrimSpace(strings.Repeat("long ", 1000)) +
		"\nno end\n[stream at 3s: {\"stream\":\"stdout\"}]\n"
	if got := export(t, s, id, Text); got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// FuzzScreen: whatever goes in, the screen stays within its bounds and its text
// holds no controls; however the input is split.
func FuzzScreen(f *testing.F) {
	for _, seed := range []string{
		"plain\r\n", "\x1b[2;4r\x1b[5L\x1b[3M\x1b[2S\x1b[2T", "日本\x1b[2G\x1b[P\x1b[@\x1b[X", "\x1b[?1049hx\x1b[?1049l",
		"\x1b[4h日\x1b[4l", "\x1b[?7l日日日", "e\u0301\x1b7\x1b8\x1bM\x1bD\x1bE\x1bc", "\x1b[9999b\x1b[J\x1b[1J\x1b[2J",
		"\x1b]0;t\x07x\r\x1b[K\x1b[?1049h\x1bPd\x1b\\a\nb\nc\nd\x1b[H\x1b[2Jx\x1b[?1049l", "日本\r日x\x1b[2K\x1b[1;1Hab\x1b[1J",
	} {
		f.Add([]byte(seed), uint8(10), uint8(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, columns, rows uint8) {
		text := func(size int) string {
			var b strings.Builder
			s := newScreen(int(columns), int(rows), func(l string) { b.WriteString(l + "\n") })
			p := parser{sink: s}
			for i := 0; i < len(in); i += size {
				p.write(in[i:min(i+size, len(in))])
				if len(s.lines) != s.rows || s.cursor.x >= s.columns || s.cursor.y >= s.rows {
					t.Fatalf("%d lines of %d, cursor %+v", len(s.lines), s.rows, s.cursor)
				}
			}
			s.resize(int(rows), int(columns))
			p.write(in)
			p.end()
			s.close()
			return b.String()
		}
		whole := text(max(len(in), 1))
		for _, r := range whole {
			if r != '\n' && (r < 0x20 || r >= 0x7f && r < 0xa0 || turnsText(r)) {
				t.Fatalf("%U in %q", r, whole)
			}
		}
		if pieces := text(1); pieces != whole {
			t.Errorf("%q, in pieces %q", whole, pieces)
		}
	})
}
