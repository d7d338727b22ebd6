// Package ansible reads inventories in the forms that Ansible reads: YAML and
// INI files, the group_vars and host_vars beside them, folders of sources,
// programs that print an inventory, lists of host names, and JSON as
// `ansible-inventory --list` prints it. What a source means is what
// ansible-core says it means.
//
// It refuses a source that it can't read completely, where Ansible warns and
// goes on with a part of the fleet. It runs no inventory plugins, renders no
// templates, decrypts nothing, and everything it reads has a limit.
package ansible

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/fleetca/fleetca/inventory"
)

// Loader reads inventories. Its zero value is ready for use.
type Loader struct {
	// ScriptTimeout is how long a program may take to print its inventory, or
	// the variables of one host. Zero means a minute.
	ScriptTimeout time.Duration
}

// Load reads the sources with the zero Loader.
func Load(ctx context.Context, sources ...string) (*inventory.Inventory, error) {
	return Loader{}.Load(ctx, sources...)
}

// Load reads sources and merges them in order. A source is a file, a folder,
// an executable, or a list of host names with at least one comma ("web1,").
// Errors name the file and, where there is one, the line.
func (l Loader) Load(ctx context.Context, sources ...string) (*inventory.Inventory, error) {
	if len(sources) == 0 {
		return nil, errors.New("no inventory is given")
	}
	if l.ScriptTimeout == 0 {
		l.ScriptTimeout = time.Minute
	}
	b := inventory.NewBuilder()
	paths := make([]string, len(sources))
	for i, name := range sources {
		paths[i] = expandHome(name)
		if err := l.source(ctx, b, paths[i]); err != nil {
			return nil, fmt.Errorf("reading inventory %q: %w", name, err)
		}
	}
	for _, path := range paths {
		if err := addVarsFiles(b, path); err != nil {
			return nil, fmt.Errorf("reading variables beside inventory %q: %w", path, err)
		}
	}
	inv, err := b.Build()
	if err != nil {
		return nil, fmt.Errorf("building inventory: %w", err)
	}
	return inv, nil
}

// expandHome does what a shell would have done, had the "~" stood at the
// beginning of a word.
func expandHome(path string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, rest)
		}
	}
	return path
}

// source reads one source, as Ansible's plugins do in their order: list of
// hosts, program, YAML or JSON, INI.
func (l Loader) source(ctx context.Context, b *inventory.Builder, path string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) && strings.Contains(path, ",") {
		return hostList(b, path)
	}
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return l.folder(ctx, b, path)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s: neither a file nor a folder", path)
	}
	data, err := readFile(path)
	if err != nil {
		return err
	}
	s := &source{file: path, builder: b}
	hasShebang := bytes.HasPrefix(data, []byte("#!"))
	switch {
	case info.Mode()&0o111 != 0:
		err := l.script(ctx, s)
		if !errors.Is(err, errNotProgram) {
			return err
		}
	case hasShebang:
		return fmt.Errorf("%s: starts with #! but is not executable", path)
	}
	return s.data(data)
}

// folder reads the sources in a folder by name, without hidden files, what
// belongs to variables, and extensions that aren't inventories.
func (l Loader) folder(ctx context.Context, b *inventory.Builder, path string) error {
	if strings.Count(filepath.ToSlash(path), "/") > 200 {
		return fmt.Errorf("%s: folders nested too deep", path)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if ignoredInFolder.MatchString(e.Name()) {
			continue
		}
		if err := l.source(ctx, b, filepath.Join(path, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// ignoredInFolder is Ansible's default list.
var ignoredInFolder = regexp.MustCompile(`^\.|^host_vars$|^group_vars$|^vars_plugins$|~$` +
	`|\.(?:pyc|pyo|swp|bak|rpm|md|txt|rst|orig|ini|cfg|retry)$`)

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxBytes {
		return nil, fmt.Errorf("%s: larger than %d MiB", path, maxBytes>>20)
	}
	return data, nil
}

// isVault says whether ansible-vault encrypted the whole file.
func isVault(data []byte) bool { return bytes.HasPrefix(data, []byte("$ANSIBLE_VAULT")) }

// data reads the text of a file. A mapping is YAML or JSON for good; anything
// else Ansible would try as INI too, so we do.
func (s *source) data(data []byte) error {
	if isVault(data) {
		return fmt.Errorf("%s: encrypted with ansible-vault, which fleetca doesn't decrypt", s.file)
	}
	ext := extension(s.file)
	if ext == ".toml" {
		return fmt.Errorf("%s: TOML inventories are not supported; use YAML or INI", s.file)
	}
	named := ext == ".yml" || ext == ".yaml" || ext == ".json"
	if ext != "" && !named {
		return s.ini(data)
	}
	top, isJSON, err := parseData(s.file, data, s.builder.Warn)
	if err == nil {
		if m, ok := top.value.(*mapping); ok {
			if isJSON && isListing(m) {
				_, err := s.listing(m)
				return err
			}
			return s.yamlInventory(m)
		}
	}
	asINI := s.ini(data)
	switch {
	case asINI == nil:
		return nil
	case err != nil && (named || looksLikeYAML.Match(data)):
		return err
	case err == nil && named:
		return fmt.Errorf("%s: the inventory must be a mapping of groups, not a %s", s.file, kindOf(top.value))
	}
	return asINI
}

// extension is as Python has it: a name that only starts with a dot has none.
func extension(path string) string {
	return filepath.Ext(strings.TrimLeft(filepath.Base(path), "."))
}

// looksLikeYAML is for files without an extension that are neither: which of
// the two errors will help.
var looksLikeYAML = regexp.MustCompile(`(?m)^(?:---|[\w.-]+:\s*(?:#.*)?$)`)

// hostList reads "web1,web2:2222," as a source.
func hostList(b *inventory.Builder, list string) error {
	at := inventory.Position{File: "--inventory " + list}
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			continue
		}
		if strings.Contains(name, "/") {
			return fmt.Errorf("there is no file %q, and %q is no host name", list, name)
		}
		host, port, ok := inventory.ParseAddress(name)
		if strings.Contains(host, "[") {
			return fmt.Errorf("%q: ranges work in files only, not in a list of hosts", name)
		}
		if !ok {
			host, port = name, 0
		}
		if b.HasHost(host) {
			continue
		}
		if err := b.AddHost(host, "ungrouped", port, at); err != nil {
			return err
		}
	}
	return nil
}
