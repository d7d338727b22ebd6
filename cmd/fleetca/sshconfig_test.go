package main

import (
	"slices"
	"strings"
	"testing"
)

// FuzzIncludeFirst holds that the line is first and nowhere else, that doing it
// again changes nothing, and that no other line is lost.
func FuzzIncludeFirst(f *testing.F) {
	const line = "Include ~/.ssh/fleetca_config"
	ours := (&sshFiles{dir: "/home/ann/.ssh", tilde: true, name: "fleetca"}).isOurs
	for _, text := range []string{
		"", "Host x\n", line, line + "\n", "# a\r\n" + line + "\r\n", "include=\"fleetca_config\"", "Include /home/ann/.ssh/fleetca_config\n",
		"Include fleetca_config other\n", "Includefleetca_config", "Include \"a\" \"b\"", "Include \"", "Include", "\ufeffInclude fleetca_config",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := includeFirst(text, line, ours)
		rest, ok := strings.CutPrefix(got, line+"\n")
		if !ok {
			t.Fatalf("%q doesn't begin with the line", got)
		}
		if again := includeFirst(got, line, ours); again != got {
			t.Fatalf("%q becomes %q", got, again)
		}
		lines := slices.Collect(strings.Lines(text))
		for l := range strings.Lines(rest) {
			i := slices.Index(lines, l)
			if i < 0 {
				t.Fatalf("line %q is new", l)
			}
			lines = lines[i+1:]
		}
		for l := range strings.Lines(text) {
			if argument, ok := includes(l); (!ok || !ours(argument)) && !strings.Contains(rest, l) {
				t.Fatalf("line %q is lost", l)
			}
		}
	})
}

func TestIncludes(t *testing.T) {
	for line, want := range map[string]string{
		"Include a\n": "a", "  INCLUDE\t=\t\"a b\"\r\n": "a b", "include=a": "a", `Include"a"`: "",
		"Include": "", "Included a": "", "Include a b": "", `Include "a" b`: "", `Include "a`: "", "# Include a": "", "Host a": "",
	} {
		if got, ok := includes(line); ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q, %t", line, got, ok)
		}
	}
}
