package replay

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

func filtered(t testing.TB, pieces ...string) string {
	t.Helper()
	var b bytes.Buffer
	f := NewFilter(&b)
	for _, p := range pieces {
		if n, err := f.Write([]byte(p)); n != len(p) || err != nil {
			t.Fatalf("Write(%q) = %d, %v", p, n, err)
		}
	}
	return b.String()
}

// What a terminal would do more than draw for, or answer to. None of it passes,
// however it is cut into writes; what stands around it does.
func TestFilterLeavesOut(t *testing.T) {
	for name, seq := range map[string]string{
		"clipboard, OSC 52":            "\x1b]52;c;ZWNobyBvd25lZAo=\x07",
		"clipboard, with ST":           "\x1b]52;c;ZWNobyBvd25lZAo=\x1b\\",
		"clipboard query":              "\x1b]52;c;?\x07",
		"title":                        "\x1b]0;owned\x07",
		"icon name":                    "\x1b]1;owned\x1b\\",
		"title, 8-bit OSC":             "\xc2\x9d0;owned\xc2\x9c",
		"title of screen":              "\x1bkowned\x1b\\",
		"link":                         "\x1b]8;;http://example.com/\x1b\\",
		"palette":                      "\x1b]4;1;#000000\x07",
		"palette query":                "\x1b]4;1;?\x07",
		"colour query":                 "\x1b]11;?\x07",
		"notification":                 "\x1b]777;notify;a;b\x07\x1b]9;hello\x07",
		"file transfer of iTerm":       "\x1b]1337;File=name=eA==:eA==\x07",
		"shell integration":            "\x1b]133;A\x07",
		"device attributes":            "\x1b[c",
		"device attributes, 0":         "\x1b[0c",
		"secondary device attributes":  "\x1b[>c\x1b[>0c",
		"tertiary device attributes":   "\x1b[=c",
		"DECID":                        "\x1bZ",
		"cursor report":                "\x1b[6n",
		"status report":                "\x1b[5n",
		"private status report":        "\x1b[?6n\x1b[?15n\x1b[?26n",
		"DECRQSS":                      "\x1bP$qm\x1b\\",
		"termcap query":                "\x1bP+q544e\x1b\\",
		"DECRQM":                       "\x1b[?2026$p\x1b[4$p",
		"version query":                "\x1b[>q\x1b[>0q",
		"DECREQTPARM":                  "\x1b[x\x1b[1x",
		"checksum":                     "\x1b[1;1;1;1;5;5*y",
		"answerback, ENQ":              "\x05",
		"window: report title":         "\x1b[21t\x1b[20t",
		"window: resize":               "\x1b[8;10;10t",
		"window: iconify, move, raise": "\x1b[2t\x1b[3;0;0t\x1b[5t",
		"window: title stack":          "\x1b[22;0t\x1b[23;0t",
		"mouse":                        "\x1b[?9h\x1b[?1000h\x1b[?1001h\x1b[?1002h\x1b[?1003h\x1b[?1005h\x1b[?1006h\x1b[?1015h\x1b[?1016h",
		"mouse highlighting":           "\x1b[1;1;1;1;1T",
		"focus":                        "\x1b[?1004h",
		"bracketed paste":              "\x1b[?2004h",
		"synchronized output":          "\x1b[?2026h",
		"cursor keys":                  "\x1b[?1h",
		"keypad":                       "\x1b=\x1b>\x1b[?66h",
		"modifyOtherKeys":              "\x1b[>4;2m",
		"keyboard of kitty":            "\x1b[>1u\x1b[=1u\x1b[?u\x1b[<u",
		"newline mode":                 "\x1b[20h",
		"keyboard locked":              "\x1b[2h",
		"VT52 mode":                    "\x1b[?2l",
		"132 columns":                  "\x1b[?3h\x1b[?40h",
		"left and right margins":       "\x1b[?69h\x1b[1;5s",
		"conformance level":            "\x1b[61;0\"p",
		"8-bit answers":                "\x1b G",
		"not UTF-8 any more":           "\x1b%@",
		"locking shifts":               "\x1bn\x1bo\x1b|\x1b}\x1b~\x1bN\x1bO",
		"other character sets":         "\x1b(K\x1b*0\x1b+0\x1b-A\x1b$(C",
		"printing":                     "\x1b[5i\x1b[?5i\x1b[i\x1b[4i",
		"scrollback erased":            "\x1b[3J",
		"memory lock":                  "\x1bl\x1bm",
		"bell":                         "\x07",
		"XON, XOFF":                    "\x11\x13",
		"NUL, DEL":                     "\x00\x7f",
		"DCS, 8-bit":                   "\xc2\x90$qm\xc2\x9c",
		"DCS through tmux":             "\x1bPtmux;\x1b\x1b]52;c;eA==\x07\x1b\\",
		"sixel":                        "\x1bPq#0;2;0;0;0#0~~@@vv\x1b\\",
		"keys of DECUDK":               "\x1bP0;1|17/6c73\x1b\\",
		"APC":                          "\x1b_Gf=24;AAAA\x1b\\",
		"PM":                           "\x1b^hello\x1b\\",
		"SOS":                          "\x1bXhello\x1b\\",
		"8-bit CSI":                    "\xc2\x9b6n",
		"rectangles":                   "\x1b[65;1;1;9;9$x\x1b[1;1;9;9$z\x1b[1;1;1;9;9;1;5;5;1$v",
		"attribute stack":              "\x1b[#{\x1b[#}\x1b[#p",
		"LEDs":                         "\x1b[1q",
		"bell volume":                  "\x1b[8 t\x1b[8 u",
		"selective erase":              "\x1b[?2J\x1b[?K",
		"control in the prefix":        "\x1b[?6\x00n",
		"two prefixes":                 "\x1b[?>25h",
		"prefix after a number":        "\x1b[2?5h",
		"two intermediates":            "\x1b[ !p",
		"number after intermediate":    "\x1b[ 1q",
		"too many parameters":          "\x1b[" + strings.Repeat("1;", 40) + "m",
		"parameters too long":          "\x1b[" + strings.Repeat("1", 200) + "A",
		"parts in a movement":          "\x1b[1:2A",
		"cancelled":                    "\x1b[31\x18\x1b[\x1a\x1b\x18",
		"direction of text":            "\u202e\u2066\u200f\u061c\u202a",
	} {
		t.Run(name, func(t *testing.T) {
			if got := filtered(t, "<"+seq+">"); got != "<>" {
				t.Errorf("at once: %q", got)
			}
			if got := filtered(t, strings.Split("<"+seq+">", "")...); got != "<>" {
				t.Errorf("by characters: %q", got)
			}
			whole := "<" + seq + ">"
			for i := range len(whole) {
				if got := filtered(t, whole[:i], whole[i:]); got != "<>" {
					t.Errorf("split at %d: %q", i, got)
				}
			}
		})
	}
}

func TestFilterPasses(t *testing.T) {
	for _, same := range []string{
		"plain text\r\n", "tab\tback\b\v\f", "žluťoučký kůň 日本語 🎉 e\u0301",
		"\x1b[31;1mred\x1b[m", "\x1b[38;5;196;48;2;1;2;3m", "\x1b[38:2::255:0:0m", "\x1b[4:3m", "\x1b[;m", "\x1b[1;;3m",
		"\x1b[H\x1b[2J\x1b[K\x1b[1K\x1b[J", "\x1b[10;20H\x1b[5;5f\x1b[A\x1b[2B\x1b[3C\x1b[4D\x1b[E\x1b[F\x1b[7G\x1b[8d",
		"\x1b[2@\x1b[2P\x1b[2L\x1b[2M\x1b[2X\x1b[2S\x1b[2T\x1b[2I\x1b[2Z\x1b[2a\x1b[2e\x1b[2`\x1b[5b",
		"\x1b7\x1b8\x1bD\x1bE\x1bM\x1bH\x1b[g\x1b[3g", "\x1b[s\x1b[u", "\x1b[2;20r\x1b[r", "\x1b[4h\x1b[4l",
		"\x1b[?25l\x1b[?25h\x1b[?7l\x1b[?12h\x1b[?1049h\x1b[?1049l\x1b[?5h", "\x1b(0lqk\x1b(B\x1b)0\x0e\x0f",
		"\x1b[!p", "\x1b[2 q", "\x1b#8",
	} {
		if got := filtered(t, same); got != same {
			t.Errorf("%q became %q", same, got)
		}
	}
	for in, want := range map[string]string{
		"\x1b[?25;1000;7h":              "\x1b[?25;7h",
		"\x1b[99999999999b":             "\x1b[9999b",
		"\x1b[007A":                     "\x1b[7A",
		"\xc2\x9b31mred":                "\x1b[31mred",
		"\xc2\x84":                      "\x1bD",
		"a\x1b[3\r1mb":                  "a\r\x1b[31mb", // a control inside a sequence is carried out
		"\xff\xfe":                      "\ufffd\ufffd",
		"\xe2\x82":                      "",
		"\xe2\x82x":                     "\ufffdx",
		"\xe2\x82\x1b[m":                "\ufffd\x1b[m",
		"\xe2\xe2\x82\xac":              "\ufffd€",
		"\xed\xa0\x80":                  "\ufffd\ufffd\ufffd",
		"\x1b[3\xc3\xa9m":               "ém", // no character belongs in a sequence
		"\x1b\x1b[31m":                  "\x1b[31m",
		"\x1b]0;title\x1b[31mred":       "\x1b[31mred",
		"\x1b]0;never ends\r\nthe rest": "\r\nthe rest",
		"\x1bPnever ends\nthe rest":     "\nthe rest",
		"\x1bc":                         "\x1b[!p\x1b[?5l\x1b[m\x1b(B\x1b)B\x0f\x1b[r\x1b[H\x1b[2J",
		"\x1b[?1047h\x1bc":              "\x1b[?1047h\x1b[?1047l\x1b[!p\x1b[?5l\x1b[m\x1b(B\x1b)B\x0f\x1b[r\x1b[H\x1b[2J",
	} {
		if got := filtered(t, in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func TestFilterRestore(t *testing.T) {
	const always = "\x1b[m\x1b(B\x1b)B\x0f\x1b[4l\x1b[?5l\x1b[?7h\x1b[?25h"
	for in, want := range map[string]string{
		"":                     always,
		"text":                 always + "\r\n",
		"text\r\n":             always,
		"\x1b[?1049h":          "\x1b[?1049l" + always,
		"\x1b[?47h":            "\x1b[?47l" + always,
		"\x1b[?47h\x1b[?1049l": always,
		"\x1b[3 q":             always + "\x1b[0 q",
		"\x1b[2;5r":            always + "\x1b[?6l\x1b[r\x1b[30;1H",
		"\x1b[?6h":             always + "\x1b[?6l\x1b[r\x1b[30;1H",
		"\x1b]0;half a":        always,
		"\x1b[3":               always,
		"x\xc3":                always + "\r\n",
	} {
		var b bytes.Buffer
		f := NewFilter(&b)
		_, _ = f.Write([]byte(in))
		b.Reset()
		if err := f.Restore(30); err != nil {
			t.Fatal(err)
		}
		if got := b.String(); got != want {
			t.Errorf("after %q: %q, want %q", in, got, want)
		}
		b.Reset()
		_, _ = f.Write([]byte("1mx"))
		if b.String() != "1mx" {
			t.Errorf("after %q and Restore, %q", in, b.String())
		}
	}
}

func TestFilterRestoresTabs(t *testing.T) {
	var b bytes.Buffer
	f := NewFilter(&b)
	_, _ = f.Write([]byte("\x1bH"))
	if err := f.Restore(0); err != nil || !strings.Contains(b.String(), "\x1b[3g\x1b[8C\x1bH\x1b[8C\x1bH") {
		t.Errorf("%q, %v", b.String(), err)
	}
	checkDrawing(t, b.Bytes())
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestFilterPassesErrors(t *testing.T) {
	gone := errors.New("gone")
	f := NewFilter(failing{gone})
	if n, err := f.Write([]byte("x")); n != 0 || !errors.Is(err, gone) {
		t.Errorf("Write = %d, %v", n, err)
	}
	if n, err := f.Write([]byte("\x1b]0;nothing to pass\x07")); n == 0 || err != nil {
		t.Errorf("Write = %d, %v", n, err)
	}
}

// drawing is what may reach a terminal, written down a second time and in
// another way than the filter has it.
var drawing = regexp.MustCompile(`^(?:` + strings.Join([]string{
	`[ -~]`, "[\b\t\n\v\f\r\x0e\x0f]",
	`[\x{a0}-\x{61b}\x{61d}-\x{200d}\x{2010}-\x{2029}\x{202f}-\x{2065}\x{206a}-\x{d7ff}\x{e000}-\x{10ffff}]`,
	`\x1b[78DEMH]`, `\x1b[()][0AB]`, `\x1b#8`,
	`\x1b\[!p`, `\x1b\[[0-6]? q`,
	`\x1b\[(?:[0-9]{0,4})?[@ABCDEFGILMPSTXZ` + "`" + `abde]`,
	`\x1b\[[0-9]{0,4}(?:;[0-9]{0,4})?[Hfr]`,
	`\x1b\[[012]?[JK]`, `\x1b\[[su]`, `\x1b\[[03]?g`, `\x1b\[4[hl]`,
	`\x1b\[[0-9]{0,4}(?:[;:][0-9]{0,4}){0,31}m`,
	`\x1b\[\?(?:5|6|7|12|25|47|1047|1048|1049)(?:;(?:5|6|7|12|25|47|1047|1048|1049)){0,31}[hl]`,
}, "|") + `)`)

func checkDrawing(t *testing.T, out []byte) {
	t.Helper()
	for rest := out; len(rest) > 0; {
		n := len(drawing.Find(rest))
		if n == 0 {
			t.Fatalf("%q is not on the list, in %q", rest[:min(len(rest), 40)], out)
		}
		rest = rest[n:]
	}
	if !utf8.Valid(out) {
		t.Fatalf("not UTF-8: %q", out)
	}
}

// FuzzFilter: whatever goes in, nothing but drawing comes out; the same however
// the input is split; and what came out passes unchanged.
func FuzzFilter(f *testing.F) {
	for _, seed := range []string{
		"plain\r\n", "\x1b[31mred\x1b[m", "\x1b]52;c;eA==\x07", "\x1bP$qm\x1b\\", "\xc2\x9b6n", "\x1b[?1049;1000h",
		"\xe2\x82\xac\xe2\x82", "\x1b[38:2::1:2:3m", "\x1bc", "\x1b[99999b", "\x1bPtmux;\x1b\x1b]0;x\x07\x1b\\", "\x1b[3;",
	} {
		f.Add([]byte(seed), uint8(1))
	}
	f.Fuzz(func(t *testing.T, in []byte, size uint8) {
		out := filtered(t, string(in))
		checkDrawing(t, []byte(out))
		var pieces []string
		for rest := string(in); rest != ""; {
			n := min(len(rest), max(int(size), 1))
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		if split := filtered(t, pieces...); split != out {
			t.Errorf("%q gives %q, in pieces of %d %q", in, out, size, split)
		}
		if again := filtered(t, out); again != out {
			t.Errorf("%q passes as %q, and that as %q", in, out, again)
		}
		var b bytes.Buffer
		filter := NewFilter(&b)
		_, _ = filter.Write(in)
		if err := filter.Restore(int(size)); err != nil {
			t.Fatal(err)
		}
		checkDrawing(t, b.Bytes())
	})
}

func BenchmarkFilter(b *testing.B) {
	in := bytes.Repeat([]byte("\x1b[01;34mfolder\x1b[0m  \x1b[01;32mprogram\x1b[0m  file.txt  日本\r\n"), 500)
	f := NewFilter(io.Discard)
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		_, _ = f.Write(in)
	}
}
