package jump_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the tables in docs/clients.md")

// matrix is a table in docs/clients.md.
type matrix struct {
	rows     []row
	versions map[string]string // by client
}

// row is what one test found out.
type row struct {
	client, what, recorded string
	ways                   map[string]string
}

// version is what a program calls itself.
func version(t *testing.T, pattern, name string, args ...string) string {
	t.Helper()
	// Some say it with an error.
	out, _ := exec.Command(name, args...).CombinedOutput()
	found := regexp.MustCompile(pattern).FindSubmatch(out)
	if found == nil {
		t.Fatalf("%s says no version: %s", name, out)
	}
	return string(found[1])
}

func (m matrix) String() string {
	var b strings.Builder
	b.WriteString("| client | what | subsystem | `-J` | login%host | recorded as |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, r := range m.rows {
		fmt.Fprintf(&b, "| %s %s | %s |", r.client, m.versions[r.client], r.what)
		for _, road := range roads {
			fmt.Fprintf(&b, " %s |", r.ways[road])
		}
		fmt.Fprintf(&b, " %s |\n", r.recorded)
	}
	return b.String()
}

const matrixPage = "../docs/clients.md"

// tables are the names of the tables, in the order of the page.
var tables = []string{"clients", "ansible", "fidelity"}

// page is what surrounds the tables, and the tables by name.
func readTables(t *testing.T) (before, after string, byName map[string]string) {
	t.Helper()
	page, err := os.ReadFile(matrixPage)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- matrix -->\n", "<!-- /matrix -->\n"
	before, rest, ok := strings.Cut(string(page), begin)
	block, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no place for the tables", matrixPage)
	}
	byName = map[string]string{}
	for _, name := range tables {
		_, rest, _ := strings.Cut(block, "<!-- "+name+" -->\n")
		byName[name], _, _ = strings.Cut(rest, "<!-- /"+name+" -->\n")
	}
	return before + begin, end + after, byName
}

// checkTable compares a table with the page, once both have been made comparable.
// With -update it is written there.
func checkTable(t *testing.T, name, is string, comparable func(string) string) {
	t.Helper()
	if t.Failed() {
		return
	}
	before, after, byName := readTables(t)
	if !*update {
		if comparable(byName[name]) != comparable(is) {
			t.Errorf("the table %q in %s isn't what works; run the tests with -update. Now:\n%s", name, matrixPage, is)
		}
		return
	}
	byName[name] = is
	var b strings.Builder
	for _, name := range tables {
		if byName[name] != "" {
			fmt.Fprintf(&b, "<!-- %s -->\n%s<!-- /%s -->\n", name, byName[name], name)
		}
	}
	if err := os.WriteFile(matrixPage, []byte(before+b.String()+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// check compares the table with the page, but for the versions, which are those
// of whoever wrote it, and for what this machine can't do.
func (m matrix) check(t *testing.T, name string) {
	t.Helper()
	checkTable(t, name, m.String(), m.masked)
}

// masked is a table without versions, and without the rows of what can't be tried here.
func (m matrix) masked(table string) string {
	var out []string
	for line := range strings.Lines(table) {
		skip := false
		for _, r := range m.rows {
			skip = skip || strings.HasPrefix(r.recorded, "not tried") && strings.Contains(line, "| "+r.what+" |")
		}
		if !skip {
			out = append(out, line)
		}
	}
	return regexp.MustCompile(`(?m)^\| ([\w-]+) [0-9.p]+ \|`).ReplaceAllString(strings.Join(out, ""), "| $1 |")
}
