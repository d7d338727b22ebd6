package ansible

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fleetca/fleetca/inventory"
)

// varsExtensions are tried in this order, the first that exists wins: a folder
// or file without extension hides web.yml.
var varsExtensions = []string{"", ".yml", ".yaml", ".json"}

// addVarsFiles reads the group_vars and host_vars beside a file, or in a
// folder, that is a source.
func addVarsFiles(b *inventory.Builder, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		if strings.Contains(path, ",") {
			return nil // a list of hosts
		}
		return err
	}
	base := path
	if !info.IsDir() {
		base = filepath.Dir(path)
	}
	groups, err := varsIn(b, filepath.Join(base, "group_vars"), b.GroupNames())
	if err != nil {
		return err
	}
	hosts, err := varsIn(b, filepath.Join(base, "host_vars"), b.HostNames())
	if err != nil {
		return err
	}
	b.AddFiles(groups, hosts)
	return nil
}

// varsIn reads the files of those names for which the folder has some.
func varsIn(b *inventory.Builder, folder string, names []string) (map[string]map[string]inventory.Variable, error) {
	info, err := os.Stat(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		b.Warn(inventory.Position{File: folder}, "skipped: not a folder")
		return nil, nil
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	there := map[string]bool{}
	for _, e := range entries {
		there[e.Name()] = true
	}
	all := map[string]map[string]inventory.Variable{}
	for _, name := range names {
		// A name with a slash would lead out of the folder.
		if strings.ContainsRune(name, filepath.Separator) || name == "." || name == ".." {
			continue
		}
		files, err := varsFiles(folder, name, there)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			vars, err := readVars(b, file)
			if err != nil {
				return nil, err
			}
			if all[name] == nil {
				all[name] = vars
				continue
			}
			for key, v := range vars {
				all[name][key] = v
			}
		}
	}
	return all, nil
}

// varsFiles finds the files for a name, in the order they are read.
func varsFiles(folder, name string, there map[string]bool) ([]string, error) {
	for _, ext := range varsExtensions {
		if !there[name+ext] {
			continue
		}
		path := filepath.Join(folder, name+ext)
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) { // a dangling link is as good as nothing
			continue
		}
		if err != nil {
			return nil, err
		}
		if info.IsDir() {
			return varsTree(path, 0)
		}
		return []string{path}, nil
	}
	return nil, nil
}

// varsTree finds files below a folder, by name, without hidden files, backups
// and extensions that aren't YAML or JSON.
func varsTree(folder string, depth int) ([]string, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%s: folders nested deeper than %d levels", folder, maxDepth)
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") {
			continue
		}
		path := filepath.Join(folder, name)
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		ext := extension(name)
		switch {
		case info.IsDir() && ext == "":
			below, err := varsTree(path, depth+1)
			if err != nil {
				return nil, err
			}
			files = append(files, below...)
		case info.Mode().IsRegular() && slices.Contains(varsExtensions, ext):
			files = append(files, path)
		}
	}
	return files, nil
}

func readVars(b *inventory.Builder, file string) (map[string]inventory.Variable, error) {
	if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a file", file)
	}
	data, err := readFile(file)
	if err != nil {
		return nil, err
	}
	if isVault(data) {
		// Such files hold secrets, which fleetca has no use for; their names are the user's choice.
		b.Warn(inventory.Position{File: file}, "skipped: encrypted with ansible-vault")
		return map[string]inventory.Variable{}, nil
	}
	top, _, err := parseData(file, data, b.Warn)
	if err != nil {
		return nil, err
	}
	if falsy(top.value) {
		return map[string]inventory.Variable{}, nil
	}
	m, ok := top.value.(*mapping)
	if !ok {
		return nil, fmt.Errorf("%s: the file must be a mapping of variables, not a %s", file, kindOf(top.value))
	}
	return m.variables(file), nil
}
