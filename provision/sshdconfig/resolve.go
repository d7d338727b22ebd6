package sshdconfig

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"sort"
	"strings"
)

const (
	// maxDepth is sshd's own limit on Includes within Includes.
	maxDepth = 16
	// maxSettings stops files that include each other over and over; sshd
	// would read them all.
	maxSettings = 100_000
	// defaultDir is where sshd looks for relative Includes, wherever its main
	// file is.
	defaultDir = "/etc/ssh"
)

// Source is a main file and what it includes.
type Source struct {
	// Main is the path of the main file.
	Main string
	// Files are the texts of the main file and of every included file, by
	// absolute path. Files that nothing includes do no harm.
	Files map[string][]byte
	// Followed are the Include patterns, made absolute, whose files were
	// looked for. An Include of any other pattern is an error: its files may
	// exist and say anything. Nil means that Files is all there is.
	Followed []string
	// Dir is where relative Includes start, /etc/ssh if empty. It is built
	// into sshd and doesn't follow the main file.
	Dir string
}

// Setting is a directive in its place: where sshd comes across it, and within
// which Match blocks.
type Setting struct {
	Directive
	// Keyword is the name that sshd -T prints, where the line says an older
	// one; it hides Directive.Keyword, which is as written.
	Keyword string
	// Match are the blocks it stands in, outermost first, empty outside of
	// any. There can be several: a file included within a Match has its own.
	Match []*Match
}

// Global tells whether sshd reads the setting when it starts, before there is
// a connection: it stands outside of any Match, or in "Match all" only.
func (s Setting) Global() bool { return global(s.Match) }

// Value is the setting's arguments as one text: what sshd -T prints after the
// keyword, for the settings that it doesn't normalise.
func (s Setting) Value() string {
	if restOfLine[s.Keyword] {
		return s.Raw
	}
	return strings.Join(s.Args, " ")
}

// Include is one argument of one Include line.
type Include struct {
	Position
	// Pattern is the argument, made absolute.
	Pattern string
	// Files are those that it brings in, in the order sshd reads them.
	Files []string
	// Match are the blocks that the line stands in.
	Match []*Match

	// read is how many settings sshd has read when it comes to each of Files,
	// and after when it is through with them.
	read  []int
	after int
}

// Global tells whether the included files are read outside of any Match.
func (i Include) Global() bool { return global(i.Match) }

// Problem is something that would make sshd refuse the configuration.
type Problem struct {
	Position
	Text string
}

func (p Problem) String() string { return p.Position.String() + ": " + p.Text }

// Config is what a main file and its includes say together.
type Config struct {
	// Settings are all settings in the order sshd reads them. A file that is
	// included twice is here twice.
	Settings []Setting
	// Includes are all Includes, in the same order.
	Includes []Include
	// Matches are all Match lines, in the same order.
	Matches []*Match
	// Problems are the lines that sshd would refuse whatever their keyword.
	Problems []Problem

	main string
}

// Resolve reads the main file and what it includes, in sshd's order. It fails
// where it can't know what sshd would read: a main file that isn't there,
// text that isn't text, an Include that wasn't followed.
func Resolve(src Source) (*Config, error) {
	r := &resolver{src: src, config: &Config{main: src.Main}, parsed: map[string]*File{}}
	if r.src.Dir == "" {
		r.src.Dir = defaultDir
	}
	r.paths = slices.Sorted(maps.Keys(src.Files))
	if err := r.file(src.Main, nil, 0); err != nil {
		return nil, err
	}
	return r.config, nil
}

type resolver struct {
	src    Source
	paths  []string // of src.Files, in the order that glob(3) gives
	parsed map[string]*File
	config *Config
	steps  int
}

func (r *resolver) file(name string, within []*Match, depth int) error {
	f, ok := r.parsed[name]
	if !ok {
		text, ok := r.src.Files[name]
		if !ok {
			return fmt.Errorf("resolving sshd configuration: file %q was not given", name)
		}
		var err error
		if f, err = Parse(name, text); err != nil {
			return err
		}
		r.parsed[name] = f
	}
	// A Match ends with its file: sshd puts the state back after an Include.
	current := within
	for _, d := range f.Directives() {
		if r.steps++; r.steps > maxSettings {
			return fmt.Errorf("resolving sshd configuration: more than %d settings at %s", maxSettings, d.Position)
		}
		if d.Problem != "" {
			r.problem(d.Position, fmt.Sprintf("%s after keyword %q", d.Problem, d.Keyword))
		}
		switch d.Keyword {
		case "match":
			m := newMatch(d)
			if m.Problem != "" && m.Problem != d.Problem {
				r.problem(d.Position, "Match: "+m.Problem)
			}
			r.config.Matches = append(r.config.Matches, m)
			current = append(slices.Clone(within), m)
		case "include":
			if err := r.include(d, current, depth); err != nil {
				return err
			}
		default:
			r.config.Settings = append(r.config.Settings, Setting{
				Directive: d, Keyword: Canonical(d.Keyword), Match: current,
			})
		}
	}
	return nil
}

func (r *resolver) problem(at Position, text string) {
	r.config.Problems = append(r.config.Problems, Problem{Position: at, Text: text})
}

func (r *resolver) include(d Directive, current []*Match, depth int) error {
	if depth+1 > maxDepth {
		return fmt.Errorf("resolving sshd configuration: %s: Includes are nested more than %d deep", d.Position, maxDepth)
	}
	for _, arg := range d.Args {
		if arg == "" {
			r.problem(d.Position, "Include: empty argument")
			continue
		}
		pattern := arg
		if arg[0] != '/' && arg[0] != '~' {
			// Not path.Join: sshd doesn't clean the path either, and Files
			// are found under the name that glob(3) gives.
			pattern = r.src.Dir + "/" + arg
		}
		if r.src.Followed != nil && !slices.Contains(r.src.Followed, pattern) {
			return fmt.Errorf("resolving sshd configuration: %s includes %q, which was not read", d.Position, pattern)
		}
		files, err := r.glob(pattern)
		if err != nil {
			return fmt.Errorf("resolving sshd configuration: %s includes %q: %w", d.Position, pattern, err)
		}
		at := len(r.config.Includes)
		r.config.Includes = append(r.config.Includes, Include{
			Position: d.Position, Pattern: pattern, Files: files, Match: current,
		})
		for _, name := range files {
			read := len(r.config.Settings)
			r.config.Includes[at].read = append(r.config.Includes[at].read, read)
			if err := r.file(name, current, depth+1); err != nil {
				return err
			}
		}
		r.config.Includes[at].after = len(r.config.Settings)
	}
	return nil
}

// glob are the given files that the pattern matches. sshd sorts them as text,
// so 100-x.conf comes before 20-x.conf.
func (r *resolver) glob(pattern string) ([]string, error) {
	g, err := compileGlob(pattern)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, name := range r.paths {
		if g.match(name) {
			files = append(files, name)
		}
	}
	return files, nil
}

func global(within []*Match) bool {
	for _, m := range within {
		if !m.All() {
			return false
		}
	}
	return true
}

// Global are the settings of the keyword that count outside of Match blocks:
// all of them where sshd gathers them, otherwise the one that wins. Empty if
// nothing sets the keyword.
func (c *Config) Global(keyword string) []Setting {
	keyword = Canonical(keyword)
	var found []Setting
	for _, s := range c.Settings {
		if s.Keyword == keyword && s.Global() {
			found = append(found, s)
		}
	}
	switch {
	case len(found) == 0 || accumulates[keyword]:
		return found
	case lastWins[keyword]:
		return found[len(found)-1:]
	default:
		return found[:1]
	}
}

// InMatch are the settings of the keywords within Match blocks, "Match all"
// included: for the connections that they match they count instead of the
// global ones, wherever those stand.
func (c *Config) InMatch(keywords ...string) []Setting {
	var found []Setting
	for _, s := range c.Settings {
		if len(s.Match) > 0 && among(s.Keyword, keywords) {
			found = append(found, s)
		}
	}
	return found
}

func among(keyword string, keywords []string) bool {
	return slices.ContainsFunc(keywords, func(k string) bool { return Canonical(k) == keyword })
}

// Err joins the problems into an error, nil if there are none.
func (c *Config) Err() error {
	var errs []error
	for _, p := range c.Problems {
		errs = append(errs, errors.New(p.String()))
	}
	return errors.Join(errs...)
}

// DropIn is the answer to whether a file at some path would take effect.
type DropIn struct {
	OK bool
	// Include is the one that reads the file first. Zero if none does.
	Include Include
	// Reason says in words why the file wouldn't do, empty if it would.
	Reason string
}

// DropIn tells whether settings of the keywords in a file at the path would
// count: some Include reads the file outside of any Match, and before
// anything else sets those of the keywords of which only one setting counts.
// What an existing file at the path says now is passed over. Match blocks
// may still set the keywords for some connections; see InMatch.
func (c *Config) DropIn(file string, keywords ...string) DropIn {
	var reason string
	for _, inc := range c.Includes {
		g, err := compileGlob(inc.Pattern)
		if err != nil || !g.match(file) {
			continue
		}
		if !inc.Global() {
			if reason == "" {
				m := inc.Match[len(inc.Match)-1]
				reason = fmt.Sprintf("%s includes %s only within %q of %s", inc.Position, path.Base(file), m, m.Position)
			}
			continue
		}
		if first := c.setBefore(file, inc.reach(file), keywords); first != nil {
			return DropIn{Include: inc, Reason: fmt.Sprintf("%s sets %s before %s includes %s",
				first.Position, first.Directive.Keyword, inc.Position, path.Base(file))}
		}
		return DropIn{OK: true, Include: inc}
	}
	if reason == "" {
		reason = fmt.Sprintf("nothing in %s includes %s", c.main, file)
	}
	return DropIn{Reason: reason}
}

// reach is how many settings sshd has read when it comes to the file, which
// need not exist yet.
func (i Include) reach(file string) int {
	at := sort.SearchStrings(i.Files, file)
	if at < len(i.Files) {
		return i.read[at]
	}
	return i.after
}

// setBefore is the first global setting of one of the keywords among the
// first so many settings, other than in the file itself.
func (c *Config) setBefore(file string, count int, keywords []string) *Setting {
	for i := range c.Settings[:count] {
		s := &c.Settings[i]
		if s.Global() && s.File != file && among(s.Keyword, keywords) && !accumulates[s.Keyword] {
			return s
		}
	}
	return nil
}
