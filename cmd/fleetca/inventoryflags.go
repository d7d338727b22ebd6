package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/inventory"
	"github.com/fleetca/fleetca/inventory/ansible"
)

// inventoryFlags say which hosts a command is about. A comma doesn't split
// values: it belongs to lists of hosts and to patterns.
type inventoryFlags struct {
	Inventory []string `short:"i" sep:"none" env:"FLEETCA_INVENTORY" placeholder:"SOURCE" help:"File, folder or executable to read hosts from, as Ansible does, or a list with a comma (web1,web2). May be repeated."`
	Limit     []string `short:"l" sep:"none" placeholder:"PATTERN" help:"Only hosts that match, in Ansible's patterns: 'web:&prod:!web03', 'db*', '~regex', 'web[0:2]', @FILE. May be repeated."`
	Label     []string `sep:"none" placeholder:"KEY=VALUE" help:"Only hosts whose fleetca_labels have this. May be repeated; all must match."`
}

// load reads the inventory. Its errors are errors of use.
func (f *inventoryFlags) load(ctx context.Context) (*inventory.Inventory, error) {
	sources := slices.DeleteFunc(slices.Clone(f.Inventory), func(s string) bool { return s == "" })
	if len(sources) == 0 {
		return nil, program.WithCode(program.ExitUsage, terminal.Hint(errors.New("no inventory is given"),
			"say --inventory FILE, or set FLEETCA_INVENTORY"))
	}
	inv, err := ansible.Load(ctx, sources...)
	if err != nil && ctx.Err() != nil {
		return nil, err
	}
	return inv, program.WithCode(program.ExitUsage, err)
}

// choose applies --limit and --label.
func (f *inventoryFlags) choose(inv *inventory.Inventory) ([]*inventory.Host, error) {
	hosts, err := inv.Select(inventory.Selection{Patterns: f.Limit, Labels: f.Label, ReadFile: readLimitFile})
	if errors.Is(err, inventory.ErrNoMatch) {
		err = terminal.Hint(err, "fleetca inventory graph shows hosts and groups")
	}
	return hosts, program.WithCode(program.ExitUsage, err)
}

// readLimitFile reads a file of patterns, which nobody has a large one of.
func readLimitFile(name string) ([]byte, error) {
	const most = 16 << 20
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", name)
	}
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && len(data) > most {
		return nil, fmt.Errorf("%s is larger than %d MiB", name, most>>20)
	}
	return data, err
}

// warnInventory tells on stderr what Ansible too would only warn about.
func warnInventory(a *program.App, inv *inventory.Inventory) {
	for _, w := range inv.Warnings() {
		fmt.Fprintf(a.Stderr, "%s %s\n", a.Term.Paint(a.Stderr, terminal.Yellow, "warning:"), terminal.Clean(w))
	}
}
