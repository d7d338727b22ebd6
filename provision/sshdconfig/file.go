// Package sshdconfig reads and edits the text of sshd_config as sshd itself
// reads it: Include, Match, quoting, case, and which of several settings of a
// keyword counts. It answers where a setting of ours would take effect, and
// puts a marked block at the top of a file without changing any other byte.
//
// It refuses to touch a file system: files come from the caller as bytes, and
// an Include of a file that the caller didn't bring is reported, never
// guessed. It refuses to reformat: a file is given back byte for byte. It
// doesn't judge values; whether sshd accepts a configuration is for sshd -t.
//
// Lines are read as OpenSSH 8.7 and later do. Earlier versions end a line at
// any '#', even inside a word or quotes, and know no backslash escapes and no
// single quotes; keywords, Match and Include read the same in all of them.
package sshdconfig

import (
	"bytes"
	"fmt"
	"strings"
)

// maxFile bounds the text of one file. Real ones are a few KiB.
const maxFile = 4 << 20

// Position is where something stands.
type Position struct {
	File string
	Line int // from 1
}

func (p Position) String() string { return fmt.Sprintf("%s:%d", p.File, p.Line) }

// Directive is one line that sets something: not blank, not a comment.
type Directive struct {
	Position
	// Keyword is in lower case, as sshd compares it.
	Keyword string
	// Args are the words after the keyword, without quotes and escapes.
	Args []string
	// Raw is the text after the keyword as sshd takes it for settings that
	// are the rest of the line, such as ForceCommand.
	Raw string
	// Problem says why sshd would refuse the line whatever the keyword: no
	// argument, or quotes that don't end. Empty if it would not.
	Problem string
}

// File is the text of one file, by lines.
type File struct {
	path       string
	text       []byte
	directives []Directive
}

// Parse reads the text of one file. It fails only on what isn't text: NUL
// bytes, at which sshd glues lines together, or an absurd size. A line that
// sshd would refuse is kept with its Problem.
func Parse(path string, text []byte) (*File, error) {
	if len(text) > maxFile {
		return nil, fmt.Errorf("reading sshd configuration %q: larger than %d bytes", path, maxFile)
	}
	if at := bytes.IndexByte(text, 0); at >= 0 {
		line := 1 + bytes.Count(text[:at], []byte("\n"))
		return nil, fmt.Errorf("reading sshd configuration %q: NUL byte in line %d", path, line)
	}
	f := &File{path: path, text: bytes.Clone(text)}
	number := 0
	for line := range strings.SplitSeq(string(text), "\n") {
		number++
		d, ok := parseLine(line)
		if !ok {
			continue
		}
		d.Position = Position{File: path, Line: number}
		f.directives = append(f.directives, d)
	}
	return f, nil
}

// Path is the name the file was parsed under.
func (f *File) Path() string { return f.path }

// Bytes is the text, exactly as it was parsed.
func (f *File) Bytes() []byte { return bytes.Clone(f.text) }

// Directives are the lines that set something, in order.
func (f *File) Directives() []Directive { return f.directives }
