package main

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/aymanbagabas/go-udiff"

	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/provision"
)

// recap tells people what became of a fleet: what is the same on many hosts is
// said once, with their names folded.
type recap struct {
	out    io.Writer
	term   *terminal.Terminal
	report *provision.Report
}

func (r recap) printf(format string, args ...any) { fmt.Fprintf(r.out, format, args...) }

// fold groups hosts by what key says of each, in the order of their first, and
// leaves out those for which it says nothing.
func fold(hosts []provision.HostReport, key func(provision.HostReport) string) (keys []string, names map[string][]string) {
	names = map[string][]string{}
	for _, h := range hosts {
		k := key(h)
		if k == "" {
			continue
		}
		if _, seen := names[k]; !seen {
			keys = append(keys, k)
		}
		names[k] = append(names[k], h.Host)
	}
	return keys, names
}

// plans lists the steps of each host, hosts with the same steps together.
func (r recap) plans() {
	keys, names := fold(r.report.Hosts, func(h provision.HostReport) string {
		var b strings.Builder
		for _, s := range h.Steps {
			fmt.Fprintf(&b, "  %s", terminal.Clean(s.Name))
			if s.Path != "" {
				fmt.Fprintf(&b, "  %s", terminal.Clean(s.Path))
			}
			if s.Detail != "" {
				fmt.Fprintf(&b, "  (%s)", terminal.Clean(s.Detail))
			}
			b.WriteByte('\n')
		}
		return b.String()
	})
	for _, k := range keys {
		r.printf("%s\n%s", r.term.Paint(r.out, terminal.Bold, terminal.FoldNames(names[k])+":"), k)
	}
}

// diffs shows each step as a unified diff, equal diffs once.
func (r recap) diffs() {
	var order []string
	names := map[string][]string{}
	for _, h := range r.report.Hosts {
		for _, s := range h.Steps {
			if s.Path == "" {
				continue
			}
			diff := udiff.Unified("a"+s.Path, "b"+s.Path, string(s.Before), string(s.After))
			if diff == "" {
				continue
			}
			if _, seen := names[diff]; !seen {
				order = append(order, diff)
			}
			names[diff] = append(names[diff], h.Host)
		}
	}
	for _, diff := range order {
		r.printf("%s\n", r.term.Paint(r.out, terminal.Bold, terminal.FoldNames(names[diff])+":"))
		for line := range strings.Lines(diff) {
			r.printf("%s\n", r.paintDiff(terminal.Clean(strings.TrimSuffix(line, "\n"))))
		}
	}
}

func (r recap) paintDiff(line string) string {
	switch {
	case strings.HasPrefix(line, "+"):
		return r.term.Paint(r.out, terminal.Green, line)
	case strings.HasPrefix(line, "-"):
		return r.term.Paint(r.out, terminal.Red, line)
	case strings.HasPrefix(line, "@@"):
		return r.term.Paint(r.out, terminal.Cyan, line)
	}
	return line
}

var stateWords = []struct {
	state provision.State
	word  string
	style terminal.Style
}{
	{provision.Unchanged, "unchanged", terminal.Green},
	{provision.Changed, "changed", terminal.Yellow},
	{provision.WouldChange, "would change", terminal.Yellow},
	{provision.Failed, "failed", terminal.Red},
	{provision.RolledBack, "rolled back", terminal.Red},
	{provision.RollingBack, "rolling back", terminal.Red},
	{provision.NotStarted, "not started", terminal.Dim},
}

// states is the recap proper, then notes, then each failure with its cause and
// a hint.
func (r recap) states() {
	for _, w := range stateWords {
		var names []string
		for _, h := range r.report.Hosts {
			if h.State == w.state {
				names = append(names, h.Host)
			}
		}
		if len(names) > 0 {
			r.printf("%s %s\n", r.term.Paint(r.out, w.style, fmt.Sprintf("%d %s:", len(names), w.word)), terminal.FoldNames(names))
		}
	}
	r.notes()
	r.failures()
	if r.report.Stopped != "" {
		r.printf("stopped: %s\n", r.report.Stopped)
	}
}

func (r recap) notes() {
	names := map[string][]string{}
	var order []string
	for _, h := range r.report.Hosts {
		for _, note := range h.Notes {
			if !slices.Contains(order, note) {
				order = append(order, note)
			}
			names[note] = append(names[note], h.Host)
		}
	}
	for _, note := range order {
		r.printf("note: %s: %s\n", terminal.FoldNames(names[note]), terminal.Clean(note))
	}
}

func (r recap) failures() {
	hints := map[string]string{}
	keys, names := fold(r.report.Hosts, func(h provision.HostReport) string {
		if h.Err == nil {
			return ""
		}
		text := withoutName(h)
		hints[text] = hintFor(h.Err)
		return text
	})
	for _, k := range keys {
		text := k
		if len(names[k]) == 1 {
			text = strings.ReplaceAll(k, anyHost, names[k][0])
		}
		r.printf("%s %s: %s\n", r.term.Paint(r.out, terminal.Red, "failed:"), terminal.FoldNames(names[k]), terminal.Clean(text))
		if hint := hints[k]; hint != "" {
			r.printf("  hint: %s\n", terminal.Clean(hint))
		}
	}
}

// anyHost stands for a host's name where several failed in the same way.
const anyHost = "HOST"

// withoutName is a failure's text with the host's own name left open: it would
// keep equal failures of different hosts apart.
func withoutName(h provision.HostReport) string {
	name := regexp.MustCompile(`\b` + regexp.QuoteMeta(h.Host) + `\b`)
	return string(h.Phase) + ": " + name.ReplaceAllLiteralString(firstLine(h.Err), anyHost)
}

// firstLine joins what errors.Join put on lines of their own.
func firstLine(err error) string {
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}
