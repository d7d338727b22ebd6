package audit

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestTampering changes a log in every way that the chain shows.
func TestTampering(t *testing.T) {
	const first, second = "2026-11-21.jsonl", "2026-11-22.jsonl"
	for name, tc := range map[string]struct {
		change func(a, b []string) ([]string, []string)
		want   string
	}{
		"nothing": {func(a, b []string) ([]string, []string) { return a, b }, ""},
		"edited": {func(a, b []string) ([]string, []string) {
			a[1] = strings.Replace(a[1], "user2", "user9", 1)
			return a, b
		}, first + ":3: record 3 does not follow from the line before: record 2 was changed"},
		"white space": {func(a, b []string) ([]string, []string) {
			a[1] = strings.Replace(a[1], `":`, `": `, 1)
			return a, b
		}, first + ":3: record 3 does not follow from the line before: record 2 was changed"},
		"first edited": {func(a, b []string) ([]string, []string) {
			a[0] = strings.Replace(a[0], strings.Repeat("0", 64), strings.Repeat("1", 64), 1)
			return a, b
		}, first + ":1: the first record does not begin the chain; " +
			first + ":2: record 2 does not follow from the line before: record 1 was changed"},
		"deleted": {func(a, b []string) ([]string, []string) {
			return slices.Delete(a, 1, 3), b
		}, first + ":2: records 2 to 3 are missing"},
		"end of the first file deleted": {func(a, b []string) ([]string, []string) {
			return a[:3], b
		}, second + ":1: records 4 to 5 are missing"},
		"first file emptied": {func(_, b []string) ([]string, []string) { return nil, b }, ""},
		"reordered": {func(a, b []string) ([]string, []string) {
			a[1], a[2] = a[2], a[1]
			return a, b
		}, first + ":2: record 2 is missing; " +
			first + ":3: record 2 comes after 3: lines were moved or put in twice; " +
			first + ":4: record 3 is missing"},
		"put in twice": {func(a, b []string) ([]string, []string) {
			return slices.Insert(a, 2, a[1]), b
		}, first + ":3: record 2 comes after 2: lines were moved or put in twice"},
		"torn in the middle": {func(a, b []string) ([]string, []string) {
			a[1] = a[1][:20]
			return a, b
		}, first + ":2: the line can't be read: not a JSON object of an audit event: unexpected end of JSON input; " +
			first + ":3: record 2 is missing"},
		"torn at the end": {func(a, b []string) ([]string, []string) {
			b[len(b)-1] = b[len(b)-1][:20] + "\x00" // see below
			return a, b
		}, second + ":5: the line is torn"},
		"a line that is none": {func(a, b []string) ([]string, []string) {
			return slices.Insert(a, 1, `{"event":"auth"}`), b
		}, first + `:2: the line can't be read: not an audit event: "seq" is missing`},
		"much too long": {func(a, b []string) ([]string, []string) {
			return slices.Insert(a, 1, strings.Repeat("x", maxLine+1)), b
		}, first + ":2: the line is too long to be a record"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c := newClock()
			l := openLog(t, Config{Dir: dir, Now: c.now})
			for i := range 10 {
				if i == 5 {
					c.add(time.Hour)
				}
				record(t, l, fmt.Sprintf("user%d", i+1))
			}
			must(t, l.Close())
			a, b := tc.change(fileLines(t, dir, "2026-11-21"), fileLines(t, dir, "2026-11-22"))
			for file, lines := range map[string][]string{first: a, second: b} {
				text := strings.Join(lines, "\n") + "\n"
				if len(lines) == 0 {
					text = ""
				}
				text, _ = strings.CutSuffix(text, "\x00\n")
				must(t, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600))
			}
			r, err := Verify(dir)
			must(t, err)
			var got []string
			for _, p := range r.Problems {
				got = append(got, p.String())
			}
			if strings.Join(got, "; ") != tc.want || r.Count != len(got) {
				t.Errorf("got  %s\nwant %s", strings.Join(got, "; "), tc.want)
			}
			if name == "first file emptied" && r.First != 6 {
				t.Errorf("begins with %d", r.First)
			}
		})
	}
}

// TestRunningLogIsCut cuts the end off the file of a log that is open.
func TestRunningLogIsCut(t *testing.T) {
	dir := t.TempDir()
	c := newClock()
	l := openLog(t, Config{Dir: dir, Now: c.now})
	record(t, l, "a", "b")
	must(t, l.Sync(t.Context()))
	lines := fileLines(t, dir, "2026-11-21")
	must(t, os.WriteFile(filepath.Join(dir, "2026-11-21.jsonl"), []byte(lines[0]+"\n"), 0o600))
	r, err := l.Verify(t.Context())
	must(t, err)
	if len(r.Problems) != 1 || r.Problems[0].String() != "the files do not end with record 2, which was written last" {
		t.Errorf("problems %v", r.Problems)
	}
}

func TestManyProblems(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "2026-11-21.jsonl"), []byte(strings.Repeat("x\n", maxProblems+5)), 0o600))
	r, err := Verify(dir)
	must(t, err)
	if len(r.Problems) != maxProblems || r.Count != maxProblems+5 {
		t.Errorf("%d problems of %d", len(r.Problems), r.Count)
	}
	if _, err := Verify(filepath.Join(dir, "none")); err == nil {
		t.Error("a folder that isn't there is in order")
	}
}
