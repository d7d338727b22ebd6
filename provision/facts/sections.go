package facts

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// list reads what ls -lndL printed: modes, owners and sizes.
func (p *parser) list() error {
	for line := range strings.SplitSeq(string(p.sections["ls"]), "\n") {
		if line == "" {
			continue
		}
		name, file, err := listed(line)
		if err != nil {
			return fmt.Errorf("output of ls: line %q: %w", clip(line), err)
		}
		before := p.facts.Files[name]
		if before.Exists {
			return fmt.Errorf("output of ls: %q is in it twice", clip(name))
		}
		file.Link = before.Link
		p.facts.Files[name] = file
		if len(p.facts.Files) > maxFiles {
			return fmt.Errorf("output of ls: more than %d files", maxFiles)
		}
	}
	return nil
}

// listed reads one line: mode, links, owner, group, size, three words of
// date, and the name as it is.
func listed(line string) (string, File, error) {
	var columns []string
	rest := line
	for want := 8; len(columns) < want; {
		rest = strings.TrimLeft(rest, " ")
		column, after, ok := strings.Cut(rest, " ")
		if !ok {
			return "", File{}, errors.New("too few columns")
		}
		columns = append(columns, column)
		rest = after
		if len(columns) == 5 && strings.HasSuffix(column, ",") {
			want++ // a device has two numbers instead of a size
		}
	}
	name, err := absolute(rest)
	if err != nil {
		return "", File{}, err
	}
	f := File{Exists: true}
	if f.Mode, f.Regular, err = mode(columns[0]); err != nil {
		return "", File{}, err
	}
	if f.UID, err = whole(columns[2]); err != nil {
		return "", File{}, fmt.Errorf("owner: %w", err)
	}
	if f.GID, err = whole(columns[3]); err != nil {
		return "", File{}, fmt.Errorf("group: %w", err)
	}
	if f.Regular {
		size, err := strconv.ParseInt(columns[4], 10, 64)
		if err != nil || size < 0 {
			return "", File{}, errors.New("bad size")
		}
		f.Size = size
	}
	return name, f, nil
}

// mode reads "-rw-r--r--"; a mark for ACLs or a security context may follow.
func mode(s string) (m fs.FileMode, regular bool, err error) {
	if len(s) < 10 || len(s) > 11 {
		return 0, false, errors.New("bad mode")
	}
	for i, c := range []byte(s[1:10]) {
		bit := fs.FileMode(1) << (8 - i)
		special := [3]fs.FileMode{fs.ModeSetuid, fs.ModeSetgid, fs.ModeSticky}[i/3]
		switch {
		case c == '-':
		case c == "rwx"[i%3]:
			m |= bit
		case i%3 == 2 && (c == 's' || c == 't'):
			m |= bit | special
		case i%3 == 2 && (c == 'S' || c == 'T'):
			m |= special
		default:
			return 0, false, errors.New("bad mode")
		}
	}
	return m, s[0] == '-', nil
}

// contents reads what head printed: for each file a line with its name, then
// as many bytes as ls said, at most MaxContent, then an empty line.
func (p *parser) contents() error {
	rest := p.sections["files"]
	for len(rest) > 0 {
		header, after, ok := bytes.Cut(rest, []byte("\n"))
		name, isHeader := strings.CutPrefix(string(header), "==> ")
		name, closed := strings.CutSuffix(name, " <==")
		if !ok || !isHeader || !closed {
			return fmt.Errorf("%w: %q isn't the name of a file", ErrChanged, clip(string(header)))
		}
		if name == "/dev/null" {
			if len(after) > 0 {
				return errors.New("output of head goes on after its end")
			}
			return nil
		}
		f := p.facts.Files[name]
		if !f.Exists || !f.Regular {
			return fmt.Errorf("%w: ls didn't see %q", ErrChanged, clip(name))
		}
		if f.Read {
			return fmt.Errorf("output of head: %q is in it twice", clip(name))
		}
		if slices.Contains(p.facts.Effective["hostkey"], name) {
			return fmt.Errorf("output of head: %q is a host key", clip(name))
		}
		n := min(f.Size, MaxContent)
		if int64(len(after)) < n+1 || after[n] != '\n' {
			return fmt.Errorf("%w: %q isn't %d bytes long", ErrChanged, clip(name), f.Size)
		}
		f.Content, f.Read, f.Truncated = bytes.Clone(after[:n]), true, f.Size > n
		p.facts.Files[name] = f
		rest = after[n+1:]
	}
	return nil
}

// freeBytes reads what df -Pk printed: the word before the percentage in the
// second line. Names with spaces may stand on either side of the numbers.
func freeBytes(out string) int64 {
	_, second, _ := strings.Cut(out, "\n")
	second, _, _ = strings.Cut(second, "\n")
	words := strings.Fields(second)
	for i, word := range words {
		if i < 4 || !strings.HasSuffix(word, "%") {
			continue
		}
		kib, err := strconv.ParseInt(words[i-1], 10, 64)
		if err != nil || kib < 0 || kib > 1<<52 {
			return -1
		}
		return kib << 10
	}
	return -1
}

// readOS reads os-release, a file of shell assignments. The few forms of
// quoting that it allows for plain names are enough here.
func readOS(text string) OS {
	var o OS
	for line := range strings.SplitSeq(text, "\n") {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok {
			continue
		}
		value = printable(strings.Trim(value, `"'`))
		switch name {
		case "ID":
			o.ID = value
		case "VERSION_ID":
			o.Version = value
		case "PRETTY_NAME":
			o.Name = value
		}
	}
	return o
}
