package transfer

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// line is what one side says: "c" or "h" and the bytes.
type line struct {
	from byte
	data string
}

func c(s string) line { return line{'c', s} }
func h(s string) line { return line{'h', s} }

// follow gives lines to a parser and returns what it emitted, without Close, and
// the first error.
func follow(p parser, lines []line) error {
	for _, l := range lines {
		take := p.FromClient
		if l.from == 'h' {
			take = p.FromHost
		}
		if err := take([]byte(l.data)); err != nil {
			return err
		}
	}
	return nil
}

const helloSum = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03" // of "hello\n"

func TestSCPStreams(t *testing.T) {
	up, down := SCP{Path: "/d/x"}, SCP{Source: true, Path: "/d/x"}
	written := Operation{Protocol: "scp", Action: "write", Path: "/d/x", Within: "/d/x/n", Mode: 0o644, Size: 6, SHA256: helloSum, Result: "ok", Complete: true}
	read := written
	read.Action, read.Within = "read", ""
	change := func(o Operation, f func(*Operation)) Operation { f(&o); return o }
	unfinished := func(o *Operation) { o.Complete, o.Result = false, "interrupted" }
	for _, test := range []struct {
		name  string
		scp   SCP
		lines []line
		want  []Operation
	}{
		{"question by question", up, []line{h("\x00"), c("C0644 6 n\n"), h("\x00"), c("hello\n"), c("\x00"), h("\x00")}, []Operation{written}},
		{"with times", up, []line{h("\x00"), c("T1 0 1 0\n"), h("\x00"), c("C0644 6 n\n"), h("\x00"), c("hello\n\x00"), h("\x00")}, []Operation{written}},
		{"without waiting for answers", up, []line{c("T1 0 1 0\nC0644 6 n\nhello\n\x00"), h("\x00\x00\x00\x00")}, []Operation{written}},
		{"answers ahead", down, []line{c("\x00\x00\x00\x00\x00"), h("C0644 6 n\nhello\n\x00")}, []Operation{read}},
		{"answers ahead that refuse", down, []line{c("\x00\x01no\n\x00\x00"), h("C0644 6 n\n"), h("C0644 6 n\nhello\n\x00")}, []Operation{
			change(read, func(o *Operation) { o.Size, o.SHA256, o.Result, o.Complete = 0, "", "no", false }), read,
		}},
		{"the host refuses", up, []line{h("\x00"), c("C0644 6 n\n"), h("\x01scp: n: is "), h("a wall\n"), c("C0644 6 n\n"), h("\x00"), c("hello\n\x00"), h("\x00")}, []Operation{
			change(written, func(o *Operation) { o.Size, o.SHA256, o.Result, o.Complete = 0, "", "scp: n: is a wall", false }), written,
		}},
		{"the host can't write", up, []line{h("\x00"), c("C0644 6 n\n"), h("\x00"), c("hello\n\x00"), h("\x01no space\n")}, []Operation{
			change(written, func(o *Operation) { o.Result, o.Complete = "no space", false }),
		}},
		{"the host gives up", up, []line{h("\x02not for you\n")}, []Operation{{Protocol: "scp", Action: "write", Path: "/d/x", Result: "not for you"}}},
		{"the source fails in the middle", down, []line{c("\x00"), h("C0644 6 n\n"), c("\x00"), h("hello\n\x01read error\n"), c("\x00")}, []Operation{
			change(read, func(o *Operation) { o.SHA256, o.Result, o.Complete = "", "read error", false }),
		}},
		{"the source has no such file", down, []line{c("\x00"), h("\x01scp: x: gone\n")}, []Operation{{Protocol: "scp", Action: "read", Path: "/d/x", Result: "scp: x: gone"}}},
		{"an end in the middle", up, []line{h("\x00"), c("C0644 6 n\n"), h("\x00"), c("hel")}, []Operation{
			change(written, func(o *Operation) { unfinished(o); o.Size, o.SHA256 = 3, "" }),
		}},
		{"an end before the last answer", up, []line{h("\x00"), c("C0644 6 n\n"), h("\x00"), c("hello\n\x00")}, []Operation{change(written, unfinished)}},
		{"an end before any answer", up, []line{c("C0644 6 n\nhello\n\x00")}, []Operation{change(written, unfinished)}},
		{"a directory", SCP{Path: "x", Recursive: true, Directory: true}, []line{
			h("\x00"), c("D0755 0 d\n"), h("\x00"), c("C0644 6 n\n"), h("\x00"), c("hello\n\x00"), h("\x00"), c("E\n"), h("\x00"), c("C0600 0 m\n"), h("\x00"), c("\x00"), h("\x00"),
		}, []Operation{
			{Protocol: "scp", Action: "mkdir", Path: "x/d", Mode: 0o755, Result: "ok", Complete: true},
			change(written, func(o *Operation) { o.Path, o.Within = "x/d/n", "" }),
			{Protocol: "scp", Action: "write", Path: "x/m", Mode: 0o600, SHA256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", Result: "ok", Complete: true},
		}},
		{"a directory that is refused", SCP{Path: "x/", Recursive: true}, []line{h("\x00"), c("D0755 0 d\n"), h("\x01no\n"), c("C0644 6 n\n"), h("\x00"), c("hello\n\x00"), h("\x00")}, []Operation{
			{Protocol: "scp", Action: "mkdir", Path: "x/d", Mode: 0o755, Result: "no"},
			change(written, func(o *Operation) { o.Path, o.Within = "x/n", "" }),
		}},
		{"a directory that doesn't end", SCP{Source: true, Path: "/d/", Recursive: true}, []line{c("\x00"), h("D0755 0 d\n"), c("\x00"), h("D0755 0 e\n"), c("\x00")}, []Operation{
			{Protocol: "scp", Action: "readdir", Path: "/d/e", Mode: 0o755, Result: "interrupted"},
			{Protocol: "scp", Action: "readdir", Path: "/d", Mode: 0o755, Count: 1, Result: "interrupted"},
		}},
		{"wildcards", SCP{Source: true, Path: "/d/*", Glob: true}, []line{c("\x00"), h("C0644 6 n\n"), c("\x00"), h("hello\n\x00"), c("\x00")}, []Operation{
			change(read, func(o *Operation) { o.Path = "/d/n" }),
		}},
		{"the home folder", SCP{Path: "~joe"}, []line{h("\x00"), c("C0644 6 n\n"), h("\x00"), c("hello\n\x00"), h("\x00")}, []Operation{
			change(written, func(o *Operation) { o.Path, o.Within = "~joe/n", "" }),
		}},
		{"nothing", up, nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, single := range []bool{false, true} {
				lines := test.lines
				if single {
					lines = nil
					for _, l := range test.lines {
						for i := range len(l.data) {
							lines = append(lines, line{l.from, l.data[i : i+1]})
						}
					}
				}
				var got []Operation
				p := NewSCPParser(test.scp, func(o Operation) { got = append(got, o) })
				if err := follow(p, lines); err != nil {
					t.Fatal(err)
				}
				p.Close()
				p.Close()
				if !slices.Equal(got, test.want) {
					t.Errorf("got  %+v\nwant %+v", got, test.want)
				}
				if err := p.FromClient([]byte("x")); err == nil {
					t.Error("it goes on after Close")
				}
			}
		})
	}
}

func TestSCPRefuses(t *testing.T) {
	up, down := SCP{Path: "x"}, SCP{Source: true, Path: "x"}
	deep := []line{h("\x00")}
	for range maxSCPDepth + 1 {
		deep = append(deep, c("D0755 0 d\n"), h("\x00"))
	}
	var long []line
	for range 20 {
		long = append(long, c("D0755 0 "+strings.Repeat("d", 4000)+"\n"), h("\x00"))
	}
	for _, test := range []struct {
		name  string
		scp   SCP
		lines []line
		want  string
	}{
		{"a shell", up, []line{h("\x00"), c("id\n")}, `a line begins with 'i'`},
		{"half a line of a shell", up, []line{c("i")}, `a line begins with 'i'`},
		{"an empty line", up, []line{c("\n")}, "an empty line"},
		{"a login message", up, []line{h("Welcome\n")}, `an answer begins with 'W'`},
		{"a host that says more", up, []line{h("\x00\x00")}, "the host answers what nobody asked"},
		{"a client that goes on when refused", up, []line{h("\x00"), c("C0644 6 n\nhello\n\x00"), h("\x01no\n")}, "the source goes on although it was refused"},
		{"a client that went on a little", up, []line{h("\x00"), c("C0644 6 n\nh"), h("\x01no\n")}, "the source goes on although it was refused"},
		{"a directory that goes on when refused", up, []line{h("\x00"), c("D0755 0 d\nC"), h("\x01no\n")}, "the source goes on although it was refused"},
		{"a late word on a directory", up, []line{h("\x00"), c("D0755 0 d\n"), h("\x00"), c("E\n"), h("\x00"), c("C0644 6 n\n"), h("\x01scp: d: set times: no\n")}, "the sink answers what nobody asked"},
		{"bytes after the content", up, []line{h("\x00"), c("C0644 6 n\n"), h("\x00"), c("hello\nx")}, `is followed by 'x'`},
		{"an end too many", up, []line{h("\x00"), c("E\n")}, "the end of a directory that wasn't begun"},
		{"no mode", up, []line{c("C644 6 n\n")}, "no record of a file"},
		{"mode of other digits", up, []line{c("C0689 6 n\n")}, "no record of a file"},
		{"no size", up, []line{c("C0644  n\n")}, "no record of a file"},
		{"negative size", up, []line{c("C0644 -1 n\n")}, "no record of a file"},
		{"signed size", up, []line{c("C0644 +1 n\n")}, "no record of a file"},
		{"huge size", up, []line{c("C0644 9223372036854775808 n\n")}, "no record of a file"},
		{"no name", up, []line{c("C0644 1\n")}, "no record of a file"},
		{"a long line", up, []line{c("C0644 1 " + strings.Repeat("n", maxLine))}, "a line is too long"},
		{"a long message", up, []line{h("\x01" + strings.Repeat("n", maxLine+1))}, "a message is too long"},
		{"deep directories", up, deep, "directories are nested too deeply"},
		{"long paths", up, append([]line{h("\x00")}, long...), "directories are nested too deeply"},
		{"no answers", up, []line{c(strings.Repeat("T1 0 1 0\n", maxUnanswered))}, "too much is sent without an answer"},
		{"too many answers", down, []line{c(strings.Repeat("\x00", maxAhead+2))}, "too many answers ahead"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := NewSCPParser(test.scp, func(Operation) {})
			err := follow(p, test.lines)
			if err == nil || !strings.HasPrefix(err.Error(), "following scp: ") || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("error %v, want %s", err, test.want)
			}
			if again := p.FromHost(nil); again != err { //nolint:errorlint // the very same
				t.Errorf("then %v", again)
			}
			p.Close()
		})
	}
}

// TestMessagesAreClipped: what a host says ends up in a result, within bounds.
func TestMessagesAreClipped(t *testing.T) {
	for message, want := range map[string]string{
		"":                       "refused",
		"ok":                     "refused",
		"a\xffb":                 "a\uFFFDb",
		strings.Repeat("x", 500): strings.Repeat("x", maxResult) + "…",
	} {
		if got := clip(message); got != want {
			t.Errorf("%q becomes %q, want %q", message, got, want)
		}
	}
}

func FuzzSCPStream(f *testing.F) {
	for _, seed := range []struct {
		source bool
		text   string
	}{
		{false, "h\x00|cC0644 6 n\n|h\x00|chello\n\x00|h\x00"},
		{true, "c\x00|hC0644 6 n\n|c\x00|hhello\n\x00|c\x00"},
		{false, "h\x00|cD0755 0 d\n|h\x00|cC0644 6 n\n|h\x01no\n|cE\n|h\x00"},
		{true, "c\x00\x00\x00\x00|hT1 0 1 0\nC0644 0 n\n\x01gone\n"},
	} {
		if err := follow(NewSCPParser(SCP{Source: seed.source, Path: "x"}, func(Operation) {}), split(seed.text)); err != nil {
			f.Errorf("seed %q does not load: %v", seed.text, err)
		}
		f.Add(seed.source, seed.text)
	}
	f.Fuzz(func(t *testing.T, source bool, text string) {
		lines := split(text)
		run := func(lines []line) string {
			var out strings.Builder
			p := NewSCPParser(SCP{Source: source, Path: "x"}, func(o Operation) {
				if o.Complete && o.Result != OK || o.SHA256 != "" && o.Size > uint64(len(text)) {
					t.Fatalf("%+v", o)
				}
				fmt.Fprintf(&out, "%+v\n", o)
			})
			err := follow(p, lines)
			if len(p.asked) > maxUnanswered || len(p.answers) > maxAhead || len(p.line) > maxLine || len(p.message) > maxLine {
				t.Fatal("out of bounds")
			}
			if err != nil {
				return "error"
			}
			p.Close()
			return out.String()
		}
		// The same whichever way it is cut.
		whole, cut := run(lines), ""
		var single []line
		for _, l := range lines {
			for i := range len(l.data) {
				single = append(single, line{l.from, l.data[i : i+1]})
			}
		}
		if cut = run(single); cut != whole {
			t.Fatalf("at once:\n%s\nbyte by byte:\n%s", whole, cut)
		}
	})
}

// split reads a conversation from text: parts between bars, each with its side
// as the first letter.
func split(text string) []line {
	var lines []line
	for _, part := range strings.Split(text, "|") {
		if part == "" {
			continue
		}
		from := byte('c')
		if part[0] == 'h' {
			from = 'h'
		}
		lines = append(lines, line{from, part[1:]})
	}
	return lines
}
