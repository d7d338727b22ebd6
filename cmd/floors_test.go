// Package cmd_test holds the layering of the whole module: docs/design.md
// tells what the floors mean.
package cmd_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/fleetca/fleetca/"

// floors says on which floor each package lives. A package imports only
// packages of lower floors; a package that isn't listed fails the test.
var floors = map[string]int{
	"inventory":            0,
	"templates":            0,
	"ca/profile":           0,
	"ca/keyring":           0,
	"provision/facts":      0,
	"provision/sshdconfig": 0,
	"ca/krl":               0,
	"jump/access":          0,
	"jump/cast":            0,
	"jump/relay":           0,
	"jump/store":           0,
	"jump/transfer":        0,
	"cmd/terminal":         0,
	"testenv":              0,

	"inventory/ansible":      1,
	"inventory/sshconfig":    1,
	"ca":                     1,
	"ca/trust":               1,
	"jump/store/badgerstore": 1,
	"jump/store/memstore":    1,
	"jump/store/storetest":   1,
	"jump/recording":         1,
	"jump/replay":            1,
	"jump/audit":             1,
	"cmd/program":            1,

	"ca/ledger":        2,
	"provision/plan":   2,
	"provision/remote": 2,
	"jump/config":      2,
	"jump/route":       2,
	"jump/live":        2,

	"provision":    3,
	"jump/console": 3,

	"jump": 4,

	"cmd":           5,
	"cmd/fleetca":   5,
	"cmd/fleetjump": 5,
}

// tools are the programs and helpers that only tests, the demo and the
// benchmarks run; they may import anything, and nothing imports them.
func isTool(pkg string) bool { return strings.HasPrefix(pkg, "testenv/") }

var topFolders = map[string]bool{
	"cmd": true, "provision": true, "jump": true, "ca": true,
	"inventory": true, "templates": true, "testenv": true,
}

type listed struct {
	ImportPath string
	Imports    []string
}

func TestFloors(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = ".."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	seen := map[string]bool{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, module)
		if name == p.ImportPath {
			t.Errorf("%s: no Go files belong at the root", p.ImportPath)
			continue
		}
		seen[name] = true
		checkPackage(t, name, p.Imports)
	}
	for name := range floors {
		if !seen[name] {
			t.Errorf("%s is in the table but does not exist", name)
		}
	}
}

func checkPackage(t *testing.T, name string, imports []string) {
	t.Helper()
	top, _, _ := strings.Cut(name, "/")
	if !topFolders[top] {
		t.Errorf("%s: Go packages live only under the seven folders", name)
	}
	floor, known := floors[name]
	if !known && !isTool(name) {
		t.Errorf("%s has no floor: add it to the table, and to docs/design.md", name)
		return
	}
	for _, path := range imports {
		imported := strings.TrimPrefix(path, module)
		if imported == path {
			continue
		}
		if top, _, _ := strings.Cut(imported, "/"); top == "testenv" && !isTool(name) {
			t.Errorf("%s imports %s: only tests, the demo and the benchmarks do", name, imported)
		}
		if !isTool(name) && floors[imported] >= floor {
			t.Errorf("%s (floor %d) imports %s (floor %d)", name, floor, imported, floors[imported])
		}
	}
}
