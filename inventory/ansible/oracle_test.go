package ansible

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/fleetca/fleetca/inventory"
)

// The oracle is Ansible itself: testdata/oracle.py runs in the interpreter of
// the installed ansible-inventory and answers many questions in one process.
type (
	oracleCase struct {
		Sources []string `json:"sources"`
		Limits  []string `json:"limits"`
	}
	oracleResult struct {
		Value json.RawMessage `json:"value"`
		Error string          `json:"error"`
	}
	oracleAnswer map[string][]oracleResult
)

// ansibleProgram finds an Ansible program; without one the test fails where it
// must not be skipped.
func ansibleProgram(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is needed to compare with: %v", name, err)
	}
	t.Skipf("%s is not installed", name)
	return ""
}

// ansibleCommand runs where nothing but the arguments can influence it.
func ansibleCommand(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	home := t.TempDir()
	config := filepath.Join(home, "ansible.cfg")
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = home
	cmd.Env = []string{
		"HOME=" + home, "PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "ANSIBLE_NOCOLOR=1",
		"ANSIBLE_CONFIG=" + config, "ANSIBLE_LOCAL_TEMP=" + home, "ANSIBLE_DEPRECATION_WARNINGS=0",
	}
	return cmd
}

var oracleInterpreter = sync.OnceValues(func() ([]string, error) {
	path, err := exec.LookPath("ansible-inventory")
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	line, err := bufio.NewReader(f).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "#!") {
		return nil, fmt.Errorf("%s is no script: %w", path, err)
	}
	return strings.Fields(strings.TrimPrefix(line, "#!")), nil
})

func askOracle(t *testing.T, request any) oracleAnswer {
	t.Helper()
	ansibleProgram(t, "ansible-inventory")
	interpreter, err := oracleInterpreter()
	if err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs("testdata/oracle.py")
	if err != nil {
		t.Fatal(err)
	}
	question, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	cmd := ansibleCommand(t, interpreter[0], append(slices.Clone(interpreter[1:]), "-W", "ignore", script)...)
	cmd.Stdin = bytes.NewReader(question)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("oracle: %v\n%s", err, stderr.String())
	}
	var answer oracleAnswer
	if err := json.Unmarshal(out, &answer); err != nil {
		t.Fatalf("oracle: %v\n%s", err, out)
	}
	return answer
}

// decode reads JSON so that 1 and 1.0 stay apart and 1.0 and 1e0 are equal.
func decode(t *testing.T, data []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var value any
	if err := d.Decode(&value); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	return normal(value)
}

func normal(value any) any {
	switch v := value.(type) {
	case json.Number:
		if !strings.ContainsAny(v.String(), ".eE") {
			n, _ := new(big.Int).SetString(v.String(), 10)
			return n.String()
		}
		f, _ := strconv.ParseFloat(v.String(), 64)
		return f
	case []any:
		for i := range v {
			v[i] = normal(v[i])
		}
	case map[string]any:
		for key := range v {
			v[key] = normal(v[key])
		}
	case string:
		return "text " + v
	}
	return value
}

func recode(t *testing.T, value any) any {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, data)
}

// sample is a set of sources and what to ask about them.
type sample struct {
	name    string
	sources []string
	// asked is given to Ansible in place of sources, where it reads a form of
	// them only from a program.
	asked []string
	// shallow says that no two groups of one level share a parent's order with
	// others, so that Ansible's own order doesn't depend on addresses in memory.
	shallow bool
	limits  []string
}

var samples = []sample{
	{
		name: "basic", sources: []string{"testdata/basic.yaml"},
		limits: []string{
			"all", "*", "web", "web:db", "db,web", "web:&prod", "web:!canary", "!web", "&db", "prod:!db:&web",
			"web01.example.com", "web0*", "web*.example.com", "*.example.com:!web*", "~web0[14].*", "~(web|db)[12]", "~.*x$",
			"db[0]", "db[-1]", "web[0]", "web[1:3]", "web[1:]", "web[0:0]", "web[2-3]", "all[0:2]", "web[-2]",
			"192.0.2.*", "192.0.2.1", "2001:db8::1", "2001:db8::2", "[2001:db8::1]", "2001:db8::1,db1", "web[abc]", "web[!ab]",
			"ungrouped", "un*", "al*", "db?", "db[2:3]", "prod[1:2]:db", "lonely,db1", "stray,stray", "db:stray:db1", "dbslaves:&db:!db3", "d*[0:1]",
			" web , db ", "web:", ":web", "web db1", "@" + "testdata/limit.txt", "db1:@testdata/limit.txt", "web[0:100]", "all[22]",
		},
	},
	{name: "scalars", sources: []string{"testdata/scalars.yaml"}, shallow: true},
	{name: "precedence", sources: []string{"testdata/precedence.yaml"}, limits: []string{"top", "left:right", "bottom:!apple", "late_parent"}},
	{name: "odd", sources: []string{"testdata/odd.yaml"}, limits: []string{"web", "w*", "group-with-dash", "h_?", "ungrouped", "below_ungrouped", "ünïcode.*", "UPPER*", "upper*", "?nïcode.example"}},
	{name: "ini", sources: []string{"testdata/hosts.ini"}, shallow: true, limits: []string{"web", "db", "later:un", "solo", "in_all", "quoted host", "quoted host,raw", "web[0:2],DB2", "2001:db8::7", "all:!web"}},
	{name: "vars", sources: []string{"testdata/vars/hosts.yaml"}, limits: []string{"prod"}},
	{name: "folder", sources: []string{"testdata/folder"}, shallow: true, limits: []string{"web", "web[-1]"}},
	{name: "one by one", sources: []string{"testdata/onebyone.sh"}, shallow: true, limits: []string{"web"}},
	{name: "program", sources: []string{"testdata/listing.sh"}, shallow: true, limits: []string{"web", "all[0]"}},
	{name: "listing", sources: []string{"testdata/listing.json"}, asked: []string{"testdata/listing.sh"}, shallow: true},
	{name: "several", sources: []string{"testdata/vars/hosts.yaml", "testdata/more/hosts.yaml", "web1,extra1:2200, extra2,"}, limits: []string{"stage", "web", "extra*"}},
	{name: "several, other order", sources: []string{"testdata/more", "testdata/vars/hosts.yaml"}},
	{name: "example", sources: []string{"../../inventory.example.yaml"}, limits: []string{"web"}},
}

// TestOracle compares every sample with what Ansible makes of it: the listing
// that `ansible-inventory --list --export` prints, the variables that reach
// each host, its groups, and which hosts each limit selects.
func TestOracle(t *testing.T) {
	var cases []oracleCase
	for _, s := range samples {
		asked := s.sources
		if s.asked != nil {
			asked = s.asked
		}
		c := oracleCase{Sources: absolute(t, asked), Limits: slices.Clone(s.limits)}
		for i, limit := range c.Limits {
			c.Limits[i] = absoluteLimit(t, limit)
		}
		cases = append(cases, c)
	}
	answers := askOracle(t, map[string]any{"cases": cases})["cases"]
	for i, s := range samples {
		t.Run(s.name, func(t *testing.T) {
			if answers[i].Error != "" {
				t.Fatal("Ansible: ", answers[i].Error)
			}
			var theirs struct {
				Listing, Merged json.RawMessage
				Groups          map[string][]string
				Depth           map[string]int
				Limits          []oracleResult
			}
			if err := json.Unmarshal(answers[i].Value, &theirs); err != nil {
				t.Fatal(err)
			}
			inv, err := Load(t.Context(), s.sources...)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, "listing", recode(t, Listing(inv, nil)), decode(t, theirs.Listing))
			merged := map[string]any{}
			for _, h := range inv.Hosts() {
				merged[h.Name] = Values(h.Vars)
				if !slices.Equal(h.Groups, theirs.Groups[h.Name]) {
					t.Errorf("groups of %s: %q, Ansible says %q", h.Name, h.Groups, theirs.Groups[h.Name])
				}
			}
			compare(t, "merged", recode(t, merged), decode(t, theirs.Merged))
			for _, g := range inv.Groups() {
				if g.Depth != theirs.Depth[g.Name] {
					t.Errorf("depth of %s: %d, Ansible says %d", g.Name, g.Depth, theirs.Depth[g.Name])
				}
			}
			for j, limit := range s.limits {
				compareLimit(t, inv, s, absoluteLimit(t, limit), theirs.Limits[j])
			}
		})
	}
}

func absolute(t *testing.T, sources []string) []string {
	t.Helper()
	paths := slices.Clone(sources)
	for i, s := range paths {
		if strings.Contains(s, ",") {
			continue
		}
		var err error
		if paths[i], err = filepath.Abs(s); err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

func absoluteLimit(t *testing.T, limit string) string {
	t.Helper()
	before, file, ok := strings.Cut(limit, "@")
	if !ok {
		return limit
	}
	return before + "@" + absolute(t, []string{file})[0]
}

func compareLimit(t *testing.T, inv *inventory.Inventory, s sample, limit string, theirs oracleResult) {
	t.Helper()
	hosts, err := inv.Select(inventory.Selection{Patterns: []string{limit}, ReadFile: os.ReadFile})
	if err != nil && !errors.Is(err, inventory.ErrNoMatch) {
		t.Errorf("limit %q: %v", limit, err)
		return
	}
	names := []string{}
	for _, h := range hosts {
		names = append(names, h.Name)
	}
	var wanted []string
	if theirs.Error == "" {
		if err := json.Unmarshal(theirs.Value, &wanted); err != nil {
			t.Fatal(err)
		}
	}
	if !s.shallow {
		slices.Sort(names)
		slices.Sort(wanted)
	}
	if errors.Is(err, inventory.ErrNoMatch) && len(wanted) > 0 && strings.ContainsAny(limit, ",:@") {
		return // Ansible passes over a pattern without a match; TestSelectStrict is about ours
	}
	if !slices.Equal(names, wanted) {
		t.Errorf("limit %q: %q (%v), Ansible says %q (%s)", limit, names, err, wanted, theirs.Error)
	}
}

// compare reports where two values differ, not all of both.
func compare(t *testing.T, path string, ours, theirs any) {
	t.Helper()
	a, aIsMap := ours.(map[string]any)
	b, bIsMap := theirs.(map[string]any)
	if !aIsMap || !bIsMap {
		if !reflect.DeepEqual(ours, theirs) {
			t.Errorf("%s: %#v, Ansible says %#v", path, ours, theirs)
		}
		return
	}
	for key := range a {
		if _, ok := b[key]; !ok {
			t.Errorf("%s.%s: %#v, Ansible has nothing", path, key, a[key])
		}
	}
	for key := range b {
		if _, ok := a[key]; !ok {
			t.Errorf("%s.%s: nothing, Ansible says %#v", path, key, b[key])
			continue
		}
		compare(t, path+"."+key, a[key], b[key])
	}
}
