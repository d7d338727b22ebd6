package sshconfig

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unicode/utf8"

	ssh_config "github.com/kevinburke/ssh_config"
)

const (
	systemFolder = "/etc/ssh"
	// maxDepth of Include is OpenSSH's own.
	maxDepth = 16
	// maxFile bounds one file; the largest generated ones known are a few MiB.
	maxFile = 32 << 20
	// maxLine bounds a line, since the library's time grows with its square.
	maxLine = 32 << 10
	// maxIncluded bounds all files together, since includes of globs multiply.
	maxIncluded = 4096

	blanks = " \t\r\n"
)

var errUnreadable = errors.New("not a line that ssh_config has")

// file is one parsed file.
type file struct {
	path  string
	lines []line
}

// line is one setting or the start of a block.
type line struct {
	path     string
	number   int
	keyword  string // lower case
	written  string // the keyword as written
	rest     string // everything after the keyword, trimmed
	args     []string
	includes []*file // of Include
}

func (l *line) errorf(format string, args ...any) error {
	return &Error{File: l.path, Line: l.number, Keyword: l.written, Err: fmt.Errorf(format, args...)}
}

// reader reads one configuration with its includes.
type reader struct {
	env   environment
	user  bool // the user's, where relative includes mean ~/.ssh
	files int
}

// read parses the file at path. check refuses a file that others could have
// written, as ssh does for the user's own file and for all included ones.
func (r *reader) read(path string, check bool, depth int) (*file, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%s: too many files including one another", path)
	}
	if r.files++; r.files > maxIncluded {
		return nil, fmt.Errorf("%s: more than %d files included", path, maxIncluded)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, fmt.Errorf("%s: is a folder", path)
	}
	if check {
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Getuid() {
			return nil, fmt.Errorf("%s: belongs to another user", path)
		}
		if info.Mode().Perm()&0o022 != 0 {
			return nil, fmt.Errorf("%s: can be written by others (mode %04o)", path, info.Mode().Perm())
		}
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, maxFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return r.parse(path, data, depth)
}

// parse finds the lines of one file. Blocks and includes are taken out before
// the library sees the text: it would read included files itself, and refuse
// every file with a Match that it doesn't know.
func (r *reader) parse(path string, data []byte, depth int) (*file, error) {
	f := &file{path: path}
	raw := strings.Split(string(data), "\n")
	settings := make([][]byte, len(raw))
	byNumber := make([]*line, len(raw))
	for i, text := range raw {
		if len(text) > maxLine {
			return nil, &Error{File: path, Line: i + 1, Keyword: text[:16], Err: fmt.Errorf("line longer than %d bytes", maxLine)}
		}
		keyword, rest := cutKeyword(text)
		switch lower := strings.ToLower(keyword); lower {
		case "host", "match", "include":
			byNumber[i] = &line{path: path, number: i + 1, keyword: lower, written: keyword, rest: rest}
		default:
			settings[i] = []byte(text)
		}
	}
	decoded, err := ssh_config.DecodeBytes(bytes.Join(settings, []byte("\n")))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, block := range decoded.Hosts {
		for _, node := range block.Nodes {
			kv, ok := node.(*ssh_config.KV)
			if !ok {
				continue // blank line or comment
			}
			number := kv.Pos().Line
			if number < 1 || number > len(raw) {
				return nil, fmt.Errorf("%s: no line %d", path, number)
			}
			keyword, rest := cutKeyword(raw[number-1])
			if keyword == "" || keyword != kv.Key {
				return nil, &Error{File: path, Line: number, Keyword: kv.Key, Err: errUnreadable}
			}
			byNumber[number-1] = &line{
				path: path, number: number, keyword: strings.ToLower(keyword), written: keyword, rest: rest,
			}
		}
	}
	for i, l := range byNumber {
		if l == nil {
			// Nothing may get lost between the library's reading and ours.
			if keyword, rest := cutKeyword(raw[i]); keyword != "" || rest != "" {
				return nil, &Error{File: path, Line: i + 1, Keyword: keyword, Err: errUnreadable}
			}
			continue
		}
		if err := r.finish(l, depth); err != nil {
			return nil, err
		}
		f.lines = append(f.lines, *l)
	}
	return f, nil
}

// finish splits the arguments and reads what is included.
func (r *reader) finish(l *line, depth int) error {
	if l.rest == "" {
		return l.errorf("no argument")
	}
	if !utf8.ValidString(l.rest) || strings.ContainsRune(l.rest, 0) {
		return l.errorf("not UTF-8 text: %.100q", l.rest)
	}
	var ok bool
	if l.args, ok = splitArguments(l.rest); !ok {
		return l.errorf("a quote is not closed: %.100q", l.rest)
	}
	if l.keyword == "include" {
		return r.include(l, depth)
	}
	return nil
}

func (r *reader) include(l *line, depth int) error {
	for _, arg := range l.args {
		pattern, err := r.includePath(arg)
		if err != nil {
			return l.errorf("%w", err)
		}
		paths, err := glob(pattern)
		if err != nil {
			return l.errorf("%q: %w", arg, err)
		}
		for _, path := range paths {
			f, err := r.read(path, true, depth+1)
			if os.IsNotExist(err) {
				continue // as ssh: a dangling link, or gone since the glob
			}
			if inner := (*Error)(nil); errors.As(err, &inner) {
				return err
			}
			if err != nil {
				return l.errorf("%w", err)
			}
			l.includes = append(l.includes, f)
		}
	}
	return nil
}

func (r *reader) includePath(arg string) (string, error) {
	switch {
	case arg == "":
		return "", errors.New("empty path")
	case strings.Contains(arg, "${"), strings.Contains(arg, "%"):
		// New versions of ssh expand these, older ones take them literally.
		return "", fmt.Errorf("variables in a path are not supported here: %q", arg)
	case arg[0] == '~' && !r.user:
		return "", fmt.Errorf("the system's file can't include from a home folder: %q", arg)
	case arg[0] == '~':
		return r.env.expandTilde(arg)
	case filepath.IsAbs(arg):
		return arg, nil
	case r.user:
		return filepath.Join(r.env.home, ".ssh", arg), nil
	}
	return filepath.Join(systemFolder, arg), nil
}

// glob is glob(3) as ssh calls it: sorted, and a wildcard at the start of a
// name doesn't match a hidden file.
func glob(pattern string) ([]string, error) {
	found, err := filepath.Glob(pattern)
	if err != nil {
		return nil, err
	}
	wanted := strings.Split(filepath.Clean(pattern), "/")
	var paths []string
next:
	for _, path := range found {
		parts := strings.Split(filepath.Clean(path), "/")
		for i := range min(len(parts), len(wanted)) {
			if strings.HasPrefix(parts[i], ".") && !strings.HasPrefix(wanted[i], ".") {
				continue next
			}
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// cutKeyword splits a line as ssh does: the keyword ends at white space or at
// one =, and trailing white space is dropped. A comment has no keyword.
func cutKeyword(text string) (keyword, rest string) {
	text = strings.TrimLeft(strings.TrimRight(text, blanks+"\f"), blanks)
	if text == "" || text[0] == '#' {
		return "", ""
	}
	end := strings.IndexAny(text, blanks+"=")
	if end < 0 {
		return text, ""
	}
	keyword = text[:end]
	rest = strings.TrimLeft(text[end:], blanks)
	if strings.HasPrefix(rest, "=") {
		rest = strings.TrimLeft(rest[1:], blanks)
	}
	return keyword, rest
}

// splitArguments is OpenSSH's argv_split: blanks separate, both kinds of quotes
// group, a backslash escapes quotes, backslashes and (outside quotes) spaces,
// and a word that starts with # ends the line. It is false where a quote isn't
// closed.
func splitArguments(s string) ([]string, bool) {
	var args []string
	for i := 0; i < len(s); {
		if s[i] == ' ' || s[i] == '\t' {
			i++
			continue
		}
		if s[i] == '#' {
			break
		}
		var word []byte
		var quote byte
	word:
		for ; i < len(s); i++ {
			c := s[i]
			switch {
			case c == '\\':
				if i+1 < len(s) && (strings.IndexByte(`'"\`, s[i+1]) >= 0 || quote == 0 && s[i+1] == ' ') {
					i++
				}
				word = append(word, s[i])
			case quote == 0 && (c == ' ' || c == '\t'):
				break word
			case quote == 0 && (c == '"' || c == '\''):
				quote = c
			case quote != 0 && c == quote:
				quote = 0
			default:
				word = append(word, c)
			}
		}
		if quote != 0 {
			return nil, false
		}
		args = append(args, string(word))
	}
	return args, true
}
