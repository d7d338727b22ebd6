package transfer

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

// packet puts a packet together of numbers, strings (with their length) and
// bytes (as they are).
func packet(kind byte, fields ...any) string {
	body := []byte{kind}
	for _, f := range fields {
		switch f := f.(type) {
		case int:
			body = binary.BigEndian.AppendUint32(body, uint32(f))
		case uint64:
			body = binary.BigEndian.AppendUint64(body, f)
		case string:
			body = binary.BigEndian.AppendUint32(body, uint32(len(f)))
			body = append(body, f...)
		case []byte:
			body = append(body, f...)
		default:
			panic(f)
		}
	}
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(body)))) + string(body)
}

// What a conversation is made of. Attributes are none if not given.
func start() []line { return []line{c(packet(fxpInit, 3)), h(packet(fxpVersion, 3))} }

func status(id, code int, message string) line {
	return h(packet(fxpStatus, id, code, message, ""))
}

func open(id int, path string, flags int) line { return c(packet(fxpOpen, id, path, flags, 0)) }
func handle(id int, handle string) line        { return h(packet(fxpHandle, id, handle)) }
func closing(id int, handle string) line       { return c(packet(fxpClose, id, handle)) }

func write(id int, handle string, offset int, data string) line {
	return c(packet(fxpWrite, id, handle, uint64(offset), data))
}

func read(id int, handle string, offset, n int) line {
	return c(packet(fxpRead, id, handle, uint64(offset), n))
}
func data(id int, data string) line { return h(packet(fxpData, id, data)) }
func eof(id int) line               { return status(id, statusEOF, "End of file") }
func ok(id int) line                { return status(id, statusOK, "Success") }

func lines(all ...any) []line {
	out := start()
	for _, l := range all {
		switch l := l.(type) {
		case line:
			out = append(out, l)
		case []line:
			out = append(out, l...)
		}
	}
	return out
}

func sum(s string) string {
	d := sha256.Sum256([]byte(s))
	return hex.EncodeToString(d[:])
}

const (
	forReading = openRead
	forWriting = openWrite | openCreate | openTruncate
	inPlace    = openWrite | openCreate
)

// opened and closed are an open file "f" with handle "0".
func opened(flags int) []line { return []line{open(1, "f", flags), handle(1, "0")} }
func closed() []line          { return []line{closing(9, "0"), ok(9)} }

func TestSFTPFiles(t *testing.T) {
	wrote := func(size uint64, content string) Operation {
		o := Operation{Protocol: "sftp", Action: "write", Path: "f", Size: size, Result: "ok", Complete: true}
		if content != "" {
			o.SHA256 = sum(content)
		}
		return o
	}
	got := func(size uint64, content string) Operation {
		o := wrote(size, content)
		o.Action = "read"
		return o
	}
	partly := func(o Operation, offset uint64) Operation { o.Complete, o.Offset = false, offset; return o }
	failed := func(o Operation, result string) Operation { o.Complete, o.Result = false, result; return o }
	empty := func(o Operation) Operation { o.SHA256 = sum(""); return o }
	at := func(path string, o Operation) Operation { o.Path = path; return o }
	size := func(id int, kind byte, of string, n uint64) []line {
		return []line{c(packet(kind, id, of)), h(packet(fxpAttrs, id, attrSize|attrMode, n, 0o100644))}
	}
	resize := func(id int, n uint64) line { return c(packet(fxpFsetstat, id, "0", attrSize, n)) }
	for _, test := range []struct {
		name  string
		lines []line
		want  []Operation
	}{
		{"read to the end", lines(opened(forReading), read(2, "0", 0, 9), data(2, "abc"), read(3, "0", 3, 9), eof(3), closed()), []Operation{got(3, "abc")}},
		{"read in other order", lines(opened(forReading), read(2, "0", 0, 2), read(3, "0", 2, 2), read(4, "0", 4, 2), data(4, "e"), data(3, "cd"), data(2, "ab"), read(5, "0", 5, 1), eof(5), closed()), []Operation{got(5, "abcde")}},
		{"a short read, the rest later", lines(opened(forReading), read(2, "0", 0, 4), read(3, "0", 4, 4), data(2, "ab"), data(3, "ef"), read(4, "0", 2, 2), data(4, "cd"), read(5, "0", 6, 4), eof(5), closed()), []Operation{got(6, "abcdef")}},
		{"read twice", lines(opened(forReading), read(2, "0", 0, 4), data(2, "abcd"), read(3, "0", 2, 4), data(3, "cdef"), read(4, "0", 6, 4), eof(4), closed()), []Operation{got(8, "abcdef")}},
		{"read with a hole", lines(opened(forReading), read(2, "0", 0, 2), data(2, "ab"), read(3, "0", 4, 2), data(3, "ef"), read(4, "0", 6, 2), eof(4), closed()), []Operation{partly(got(4, ""), 0)}},
		{"read the end only", lines(opened(forReading), read(2, "0", 4, 2), data(2, "ef"), read(3, "0", 6, 2), eof(3), closed()), []Operation{partly(got(2, ""), 4)}},
		{"read the beginning only", lines(opened(forReading), read(2, "0", 0, 2), data(2, "ab"), closed()), []Operation{partly(got(2, ""), 0)}},
		{"read as much as fstat says", lines(opened(forReading), size(2, fxpFstat, "0", 2), read(3, "0", 0, 2), data(3, "ab"), closed()), []Operation{got(2, "ab")}},
		{"read as much as stat says", lines(size(2, fxpStat, "f", 2), opened(forReading), read(3, "0", 0, 2), data(3, "ab"), closed()), []Operation{got(2, "ab")}},
		{"read less than stat says", lines(size(2, fxpLstat, "f", 3), opened(forReading), read(3, "0", 0, 2), data(3, "ab"), closed()), []Operation{partly(got(2, ""), 0)}},
		{"read beyond what stat says", lines(size(2, fxpStat, "f", 0), opened(forReading), read(3, "0", 0, 2), data(3, "ab"), read(4, "0", 2, 1), eof(4), closed()), []Operation{got(2, "ab")}},
		{"read nothing of an empty file", lines(opened(forReading), read(2, "0", 0, 2), eof(2), closed()), []Operation{empty(got(0, ""))}},
		{"read nothing", lines(opened(forReading), closed()), []Operation{partly(got(0, ""), 0)}},
		{"a read that fails", lines(opened(forReading), read(2, "0", 0, 2), status(2, 4, "Is a directory"), closed()), []Operation{failed(got(0, ""), "Is a directory")}},
		{"an answer after the one to close", lines(opened(forReading), read(2, "0", 0, 9), read(3, "0", 2, 9), closed(), data(2, "ab"), eof(3)), []Operation{got(2, "ab")}},

		{"write", lines(opened(forWriting), write(2, "0", 0, "ab"), ok(2), write(3, "0", 2, "cd"), ok(3), closed()), []Operation{wrote(4, "abcd")}},
		{"write nothing", lines(opened(forWriting), closed()), []Operation{empty(wrote(0, ""))}},
		{"write in other order", lines(opened(forWriting), write(2, "0", 2, "cd"), write(3, "0", 4, "e"), write(4, "0", 0, "ab"), ok(2), ok(3), ok(4), closed()), []Operation{wrote(5, "abcde")}},
		{"write with a hole", lines(opened(forWriting), write(2, "0", 2, "cd"), ok(2), closed()), []Operation{partly(wrote(2, ""), 2)}},
		{"write twice", lines(opened(forWriting), write(2, "0", 0, "abcd"), ok(2), write(3, "0", 1, "x"), ok(3), closed()), []Operation{wrote(5, "")}},
		{"write twice what is held", lines(opened(forWriting), write(2, "0", 2, "cd"), ok(2), write(3, "0", 2, "xy"), ok(3), write(4, "0", 0, "ab"), ok(4), closed()), []Operation{wrote(6, "")}},
		{"write that fails", lines(opened(forWriting), write(2, "0", 0, "ab"), ok(2), write(3, "0", 2, "cd"), status(3, 4, ""), closed()), []Operation{failed(wrote(2, ""), "failure")}},
		{"write and a failing close", lines(opened(forWriting), write(2, "0", 0, "ab"), ok(2), closing(3, "0"), status(3, 4, "No space")), []Operation{failed(wrote(2, "ab"), "No space")}},
		{"write into what may be longer", lines(opened(inPlace), write(2, "0", 0, "ab"), ok(2), closed()), []Operation{partly(wrote(2, ""), 0)}},
		{"write in place, then cut", lines(opened(inPlace), write(2, "0", 0, "ab"), ok(2), resize(3, 2), ok(3), closed()), []Operation{wrote(2, "ab")}},
		{"write in place, cutting fails", lines(opened(inPlace), write(2, "0", 0, "ab"), ok(2), resize(3, 2), status(3, 3, "No"), closed()), []Operation{partly(wrote(2, ""), 0)}},
		{"cut, then write in place", lines(opened(inPlace), resize(2, 0), write(3, "0", 0, "ab"), ok(2), ok(3), closed()), []Operation{wrote(2, "ab")}},
		{"write, cut too short", lines(opened(forWriting), write(2, "0", 0, "ab"), ok(2), resize(3, 1), ok(3), closed()), []Operation{
			{Protocol: "sftp", Action: "setstat", Path: "f", Changed: "size 1", Result: "ok", Complete: true}, partly(wrote(2, ""), 0),
		}},
		{"write while the path is cut", lines(opened(forWriting), write(2, "0", 0, "ab"), ok(2), c(packet(fxpSetstat, 3, "f", attrSize, uint64(0))), ok(3), closed()), []Operation{
			{Protocol: "sftp", Action: "setstat", Path: "f", Changed: "size 0", Result: "ok", Complete: true}, wrote(2, ""),
		}},
		{"write while another path is cut", lines(opened(forWriting), write(2, "0", 0, "ab"), ok(2), c(packet(fxpSetstat, 3, "./link", attrSize, uint64(0))), ok(3), closed()), []Operation{
			{Protocol: "sftp", Action: "setstat", Path: "./link", Changed: "size 0", Result: "ok", Complete: true}, wrote(2, ""),
		}},
		{"another path cut while it is being opened", lines(open(1, "f", forWriting), c(packet(fxpSetstat, 3, "./link", attrSize, uint64(9))), handle(1, "0"), ok(3), write(2, "0", 0, "ab"), ok(2), closed()), []Operation{
			{Protocol: "sftp", Action: "setstat", Path: "./link", Changed: "size 9", Result: "ok", Complete: true}, wrote(2, ""),
		}},
		{"write while another handle is cut", lines(opened(forWriting), write(2, "0", 0, "ab"), ok(2), open(3, "./link", openWrite), handle(3, "1"), c(packet(fxpFsetstat, 4, "1", attrSize, uint64(0))), ok(4), closed(), closing(5, "1"), ok(5)), []Operation{
			wrote(2, ""), at("./link", empty(wrote(0, ""))),
		}},
		{"another path cut before", lines(c(packet(fxpSetstat, 3, "x", attrSize, uint64(0))), ok(3), opened(forWriting), write(2, "0", 0, "ab"), ok(2), closed()), []Operation{
			{Protocol: "sftp", Action: "setstat", Path: "x", Changed: "size 0", Result: "ok", Complete: true}, wrote(2, "ab"),
		}},
		{"mode of another path", lines(opened(forWriting), write(2, "0", 0, "ab"), ok(2), c(packet(fxpSetstat, 3, "x", attrMode, 0o600)), ok(3), closed()), []Operation{
			{Protocol: "sftp", Action: "setstat", Path: "x", Changed: "mode 0600", Mode: 0o600, Result: "ok", Complete: true}, wrote(2, "ab"),
		}},
		{"append", lines(opened(openWrite|openAppend|openCreate), write(2, "0", 0, "ab"), ok(2), closed()), []Operation{partly(wrote(2, ""), 0)}},
		{"append to nothing", lines(opened(forWriting|openAppend), write(2, "0", 0, "ab"), ok(2), write(3, "0", 2, "c"), ok(3), closed()), []Operation{wrote(3, "abc")}},
		{"append to nothing in other order", lines(opened(forWriting|openAppend), write(2, "0", 1, "b"), ok(2), write(3, "0", 0, "a"), ok(3), closed()), []Operation{partly(wrote(2, ""), 0)}},
		{"a new file", lines(opened(openWrite|openCreate|openExclusive), write(2, "0", 0, "ab"), ok(2), closed()), []Operation{wrote(2, "ab")}},
		{"read and write", lines(opened(openRead|openWrite), write(2, "0", 0, "ab"), ok(2), read(3, "0", 0, 4), data(3, "ab"), read(4, "0", 2, 4), eof(4), closed()), []Operation{partly(wrote(2, ""), 0), got(2, "ab")}},
		{"at the end of all numbers", lines(opened(forWriting), c(packet(fxpWrite, 2, "0", uint64(math.MaxUint64-1), "abcd")), ok(2), closed()), []Operation{partly(wrote(4, ""), 0)}},

		{"open fails", lines(open(1, "f", forWriting), status(1, 3, "Permission denied")), []Operation{failed(wrote(0, ""), "Permission denied")}},
		{"open fails, without a message", lines(open(1, "f", forReading), h(packet(fxpStatus, 1, 2))), []Operation{failed(got(0, ""), "no such file")}},
		{"open fails, with an unknown code", lines(open(1, "f", forReading), h(packet(fxpStatus, 1, 99))), []Operation{failed(got(0, ""), "status 99")}},
		{"an end while open", lines(opened(forWriting), write(2, "0", 0, "ab"), ok(2), write(3, "0", 2, "cd")), []Operation{failed(wrote(2, ""), "interrupted")}},
		{"an end while opening", lines(open(1, "f", forReading)), []Operation{failed(got(0, ""), "interrupted")}},
		{"an end while closing", lines(opened(forWriting), write(2, "0", 0, "ab"), ok(2), closing(3, "0")), []Operation{failed(wrote(2, "ab"), "interrupted")}},
		{"a handle given twice", lines(opened(forWriting), write(2, "0", 0, "ab"), ok(2), opened(forReading), read(3, "0", 0, 1), eof(3), closed()), []Operation{failed(wrote(2, "ab"), "interrupted"), empty(got(0, ""))}},

		{"guessed handles", lines(open(1, "f", forWriting), write(2, "0", 0, "ab"), closing(3, "0"), open(4, "g", forWriting), write(5, "0", 0, "xyz"), closing(6, "0"), handle(1, "0"), ok(2), ok(3), handle(4, "0"), ok(5), ok(6)), []Operation{
			wrote(2, "ab"), {Protocol: "sftp", Action: "write", Path: "g", Size: 3, SHA256: sum("xyz"), Result: "ok", Complete: true},
		}},
		{"handles guessed wrong", lines(open(1, "f", forWriting), write(2, "7", 0, "xx"), handle(1, "0"), status(2, 4, "bad handle"), write(3, "0", 0, "ab"), ok(3), closed()), []Operation{wrote(2, "ab")}},
		{"ids used twice", lines(open(1, "f", forWriting), write(1, "0", 0, "ab"), closing(1, "0"), handle(1, "0"), ok(1), ok(1)), []Operation{wrote(2, "ab")}},
		{"unknown handles", lines(read(2, "x", 0, 1), write(3, "x", 0, "a"), closing(4, "x"), status(2, 4, "bad"), status(3, 4, "bad"), status(4, 4, "bad")), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			whole, single := sftpRun(t, test.lines, false), sftpRun(t, test.lines, true)
			for _, got := range [][]Operation{whole, single} {
				if !slices.Equal(got, test.want) {
					t.Errorf("got  %+v\nwant %+v", got, test.want)
				}
			}
		})
	}
}

// sftpRun gives lines to a parser, byte by byte if single, and returns what it
// emitted but for the number of questions.
func sftpRun(t *testing.T, all []line, single bool) []Operation {
	t.Helper()
	var ops []Operation
	p := NewSFTPParser(func(o Operation) {
		if o.Action != ActionStat {
			ops = append(ops, o)
		}
	})
	if single {
		var cut []line
		for _, l := range all {
			for i := range len(l.data) {
				cut = append(cut, line{l.from, l.data[i : i+1]})
			}
		}
		all = cut
	}
	if err := follow(p, all); err != nil {
		t.Fatal(err)
	}
	p.Close()
	p.Close()
	if err := p.FromClient([]byte("x")); err == nil {
		t.Error("it goes on after Close")
	}
	return ops
}

func TestSFTPOperations(t *testing.T) {
	op := func(action, path, target string) Operation {
		return Operation{Protocol: "sftp", Action: action, Path: path, Target: target, Result: "ok", Complete: true}
	}
	with := func(o Operation, f func(*Operation)) Operation { f(&o); return o }
	everything := []any{attrSize | attrOwner | attrMode | attrTimes | -0x80000000, uint64(5), 1000, 100, 0o104711, 1, 2, 0}
	for _, test := range []struct {
		name    string
		request string
		want    Operation
	}{
		{"remove", packet(fxpRemove, 1, "a\xff"), op("remove", "a\xff", "")},
		{"mkdir", packet(fxpMkdir, 1, "a", attrMode, 0o40755), with(op("mkdir", "a", ""), func(o *Operation) { o.Mode = 0o755 })},
		{"rmdir", packet(fxpRmdir, 1, "a"), op("rmdir", "a", "")},
		{"rename", packet(fxpRename, 1, "a", "b"), op("rename", "a", "b")},
		{"posix-rename", packet(fxpExtended, 1, "posix-rename@openssh.com", "a", "b"), op("rename", "a", "b")},
		{"hardlink", packet(fxpExtended, 1, "hardlink@openssh.com", "old", "new"), op("link", "new", "old")},
		{"symlink", packet(fxpSymlink, 1, "target", "new"), op("symlink", "new", "target")},
		{"copy-file", packet(fxpExtended, 1, "copy-file", "a", "b", []byte{1}), op("copy", "a", "b")},
		{"setstat", packet(fxpSetstat, append([]any{1, "a"}, everything...)...), with(op("setstat", "a", ""), func(o *Operation) {
			o.Mode, o.Changed = 0o4711, "size 5, owner 1000:100, mode 4711, times 1 2, extended"
		})},
		{"lsetstat", packet(fxpExtended, 1, "lsetstat@openssh.com", "a", attrOwner, 0, 0), with(op("setstat", "a", ""), func(o *Operation) { o.Changed = "owner 0:0" })},
		{"unknown extension", packet(fxpExtended, 1, "wipe@example.com", "a"), op("other", "wipe@example.com", "")},
		{"unknown packet", packet(21, 1, "a", "b"), op("other", "packet type 21", "")},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := sftpRun(t, lines(c(test.request), ok(1)), true); !slices.Equal(got, []Operation{test.want}) {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
			refused := with(test.want, func(o *Operation) { o.Result, o.Complete = "no", false })
			if got := sftpRun(t, lines(c(test.request), status(1, 4, "no")), false); !slices.Equal(got, []Operation{refused}) {
				t.Errorf("refused: got  %+v\nwant %+v", got, refused)
			}
			refused.Result = "interrupted"
			if got := sftpRun(t, lines(c(test.request)), false); !slices.Equal(got, []Operation{refused}) {
				t.Errorf("interrupted: got  %+v\nwant %+v", got, refused)
			}
		})
	}
	t.Run("readdir", func(t *testing.T) {
		list := func(id, n int) line { return h(packet(fxpName, id, n, []byte(strings.Repeat("x", 5000)))) }
		got := sftpRun(t, lines(
			c(packet(fxpOpendir, 1, "d")), handle(1, "0"), c(packet(fxpReaddir, 2, "0")), list(2, 100), c(packet(fxpReaddir, 3, "0")), list(3, 7),
			c(packet(fxpReaddir, 4, "0")), eof(4), closed(), c(packet(fxpOpendir, 5, "e")), status(5, 3, "no")), true)
		want := []Operation{with(op("readdir", "d", ""), func(o *Operation) { o.Count = 107 }), with(op("readdir", "e", ""), func(o *Operation) { o.Result, o.Complete = "no", false })}
		if !slices.Equal(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	})
	t.Run("copy-data", func(t *testing.T) {
		got := sftpRun(t, lines(opened(forReading), open(2, "g", forWriting), handle(2, "1"),
			c(packet(fxpExtended, 3, "copy-data", "0", uint64(0), uint64(0), "1", uint64(0))), ok(3), closing(4, "1"), ok(4), closed()), true)
		if want := []Operation{op("copy", "f", "g")}; !slices.Equal(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	})
	t.Run("copy-data beside a write", func(t *testing.T) {
		got := sftpRun(t, lines(opened(forReading), open(2, "g", forWriting), handle(2, "1"), write(5, "1", 0, "ab"), ok(5),
			c(packet(fxpExtended, 3, "copy-data", "0", uint64(0), uint64(0), "1", uint64(2))), ok(3), closing(4, "1"), ok(4), closed()), true)
		want := []Operation{op("copy", "f", "g"), {Protocol: "sftp", Action: "write", Path: "g", Size: 2, Result: "ok"}}
		if !slices.Equal(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	})
	t.Run("fsetstat", func(t *testing.T) {
		got := sftpRun(t, lines(opened(forWriting), c(packet(fxpFsetstat, 2, "0", attrMode, 0o600)), ok(2), c(packet(fxpFsetstat, 3, "x", attrMode, 0o600)), status(3, 4, "no"), closed()), true)
		want := []Operation{
			with(op("setstat", "f", ""), func(o *Operation) { o.Mode, o.Changed = 0o600, "mode 0600" }),
			with(op("write", "f", ""), func(o *Operation) { o.SHA256 = sum("") }),
		}
		if !slices.Equal(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	})
	t.Run("questions", func(t *testing.T) {
		var ops []Operation
		p := NewSFTPParser(func(o Operation) { ops = append(ops, o) })
		if err := follow(p, lines(c(packet(fxpRealpath, 1, ".")), h(packet(fxpName, 1, 1, "/", "/", 0)), c(packet(fxpStat, 2, "/")), h(packet(fxpAttrs, 2, 0)),
			c(packet(fxpExtended, 3, "statvfs@openssh.com", "/")), h(packet(fxpExtendedReply, 3)), c(packet(fxpReadlink, 4, "/")), status(4, 4, "no"))); err != nil {
			t.Fatal(err)
		}
		p.Close()
		if want := []Operation{{Protocol: "sftp", Action: "stat", Count: 4, Result: "ok", Complete: true}}; !slices.Equal(ops, want) {
			t.Errorf("got  %+v\nwant %+v", ops, want)
		}
	})
}

func TestSFTPRefuses(t *testing.T) {
	guesses := lines(open(1, "f", forWriting))
	for i := range maxEarly + 1 {
		guesses = append(guesses, write(2, fmt.Sprint("guess ", i), 0, "x"))
	}
	for _, test := range []struct {
		name  string
		lines []line
		want  string
	}{
		{"a shell", []line{c("echo hello\n")}, "a packet of 1701013615 bytes"},
		{"a login message", lines(h("Welcome to web1")), "a packet of 1466264675 bytes"},
		{"no beginning", []line{open(1, "f", 0)}, "it begins with a packet of type 3"},
		{"an answer first", []line{h(packet(fxpVersion, 3))}, "it begins with an answer of type 2"},
		{"another version", []line{c(packet(fxpInit, 6)), h(packet(fxpVersion, 4))}, "version 4, only 3 is understood"},
		{"an empty packet", lines(c("\x00\x00\x00\x00\x06")), "a packet of 0 bytes"},
		{"a huge packet", lines(c("\x00\x04\x00\x01\x06")), "a packet of 262145 bytes"},
		{"no id", lines(c(packet(fxpRemove))), "a malformed packet"},
		{"half a path", lines(c(packet(fxpRemove, 1, []byte{0, 0, 0, 9, 'a'}))), "a malformed packet"},
		{"half of attributes", lines(c(packet(fxpSetstat, 1, "a", attrSize, 1))), "a malformed packet"},
		{"content that is longer than its packet", lines(opened(forWriting), c(packet(fxpWrite, 2, "0", uint64(0), 9, []byte("ab")))), "a malformed packet"},
		{"a write without handle", lines(c(packet(fxpWrite, 2))), "a malformed packet"},
		{"a write with a long handle", lines(write(2, strings.Repeat("h", maxHandle+1), 0, "x")), "a malformed packet"},
		{"an answer to nothing", lines(ok(1)), "an answer to what nobody asked"},
		{"two answers", lines(opened(forReading), ok(1)), "an answer to what nobody asked"},
		{"an answer of unknown type", lines(open(1, "f", 0), h(packet(150, 1))), "an answer of type 150"},
		{"a handle for a path", lines(c(packet(fxpRemove, 1, "a")), handle(1, "0")), "a handle that nobody asked for"},
		{"a long handle", lines(open(1, "f", 0), handle(1, strings.Repeat("h", maxHandle+1))), "a handle of 257 bytes"},
		{"no handle", lines(open(1, "f", 0), ok(1)), "a file is opened without a handle"},
		{"content for a path", lines(c(packet(fxpRemove, 1, "a")), data(1, "x")), "content that nobody asked for"},
		{"too much content", lines(opened(forReading), read(2, "0", 0, 1), data(2, "ab")), "more content than was asked for"},
		{"no content", lines(opened(forReading), read(2, "0", 0, 1), ok(2)), "a read is answered without content"},
		{"an unknown handle that is written", lines(write(2, "x", 0, "a"), ok(2)), "the host accepts a handle that it never gave"},
		{"an unknown handle that is read", lines(read(2, "x", 0, 1), data(2, "a")), "the host accepts a handle that it never gave"},
		{"an unknown handle that is listed", lines(c(packet(fxpReaddir, 2, "x")), h(packet(fxpName, 2, 1))), "the host accepts a handle that it never gave"},
		{"a closed handle that is written", lines(opened(forWriting), closed(), write(2, "0", 0, "a"), ok(2)), "the host accepts a handle that it never gave"},
		{"an unknown handle that is copied", lines(opened(forWriting), c(packet(fxpExtended, 2, "copy-data", "x", uint64(0), uint64(0), "0", uint64(0))), ok(2)), "the host accepts a handle that it never gave"},
		{"many guesses", guesses, "too many handles are guessed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := NewSFTPParser(func(Operation) {})
			err := follow(p, test.lines)
			if err == nil || !strings.HasPrefix(err.Error(), "following sftp: ") || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("error %v, want %s", err, test.want)
			}
			if again := p.FromHost(nil); again != err { //nolint:errorlint // the very same
				t.Errorf("then %v", again)
			}
			p.Close()
		})
	}
}
