package ansible

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/fleetca/fleetca/inventory"
)

// seedFiles adds the samples, which all load, and short inputs.
func seedFiles(f *testing.F, short []string, names ...string) {
	f.Helper()
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		if _, err := readBytes(name, data); err != nil {
			f.Fatalf("seed %s does not load: %v", name, err)
		}
		f.Add(data)
	}
	for _, s := range short {
		f.Add([]byte(s))
	}
}

func readBytes(name string, data []byte) (*inventory.Inventory, error) {
	b := inventory.NewBuilder()
	s := &source{file: name, builder: b}
	if err := s.data(data); err != nil {
		return nil, err
	}
	return b.Build()
}

// FuzzYAML: whatever loads, lists as JSON that loads as the same inventory.
func FuzzYAML(f *testing.F) {
	seedFiles(f, yamlDocuments, "basic.yaml", "scalars.yaml", "precedence.yaml", "odd.yaml", "listing.json")
	f.Fuzz(func(t *testing.T, data []byte) { relist(t, "fuzz.yaml", data) })
}

// FuzzINI is the same for INI.
func FuzzINI(f *testing.F) {
	seedFiles(f, append(append([]string{"a:", "[a:vars]\nx", "[a:b]", "[a] # c\nb", "[x:children]\ny"}, wordLines...), addresses...), "hosts.ini")
	f.Fuzz(func(t *testing.T, data []byte) { relist(t, "fuzz.ini", data) })
}

func relist(t *testing.T, name string, data []byte) {
	if len(data) > 1<<16 {
		return
	}
	inv, err := readBytes(name, data)
	if err != nil {
		if !strings.HasPrefix(err.Error(), name) {
			t.Errorf("the error doesn't name the file: %v", err)
		}
		return
	}
	if len(inv.Hosts()) > 1000 {
		return
	}
	first, err := json.Marshal(Listing(inv, nil))
	if err != nil {
		t.Fatalf("listing: %v", err)
	}
	again, err := readBytes("again.json", first)
	if err != nil {
		t.Fatalf("the listing doesn't load: %v\n%s", err, first)
	}
	for _, h := range inv.Hosts() {
		if _, isGroup := inv.Group(h.Name); isGroup {
			continue // what is said of it goes to the group, in Ansible too
		}
		copied, ok := again.Host(h.Name)
		if !ok {
			t.Fatalf("host %q is lost in %s", h.Name, first)
		}
		if !reflect.DeepEqual(Values(h.Own), Values(copied.Own)) {
			t.Errorf("host %q: %v became %v", h.Name, Values(h.Own), Values(copied.Own))
		}
		_, _ = h.Settings()
	}
}

// FuzzLiteral: what is typed stays what it is when written as JSON and read again.
func FuzzLiteral(f *testing.F) {
	for _, s := range literals {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		value, err := parseValue(text)
		if err != nil || !utf8.ValidString(text) { // lines that aren't UTF-8 don't come this far
			return
		}
		data, err := json.Marshal(jsonValue(value))
		if err != nil {
			t.Fatal(err)
		}
		n, err := parseJSON("value", data)
		if err != nil {
			t.Fatalf("%q: %v in %s", text, err, data)
		}
		again, err := json.Marshal(jsonValue(n.plain()))
		if err != nil || string(again) != string(data) {
			t.Errorf("%q: %s became %s (%v)", text, data, again, err)
		}
	})
}

// FuzzScalar: a plain YAML scalar never makes the reader fail without an
// error that names the line.
func FuzzScalar(f *testing.F) {
	for _, s := range plainScalars {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := parseYAML("scalar", []byte("k: "+text), nil)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "scalar") {
				t.Errorf("the error doesn't name the file: %v", err)
			}
			return
		}
		if _, err := json.Marshal(jsonValue(n.plain())); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	})
}
