package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/inventory"
	"github.com/fleetca/fleetca/inventory/ansible"
)

// inventoryCmd is "fleetca inventory".
type inventoryCmd struct {
	List  inventoryListCmd  `cmd:"" help:"List hosts, and check every variable that fleetca uses."`
	Graph inventoryGraphCmd `cmd:"" help:"Show groups and their hosts as a tree."`
	Show  inventoryShowCmd  `cmd:"" help:"Show the settings of one host and where each was said."`
}

// Help is shown below the flags' summary.
func (*inventoryCmd) Help() string {
	return "Inventories are Ansible's: one file serves both programs. docs/inventory.md describes them.\n\n" + exitCodesHelp
}

type inventoryListCmd struct {
	inventoryFlags `embed:""`

	JSON bool `help:"Write what ansible-inventory --list --export writes: groups, hosts and their variables."`
}

// Run lists the hosts.
func (c *inventoryListCmd) Run(ctx context.Context, a *program.App) error {
	inv, err := c.load(ctx)
	if err != nil {
		return err
	}
	warnInventory(a, inv)
	hosts, err := c.choose(inv)
	if err != nil {
		return err
	}
	if c.JSON {
		only := map[string]bool{}
		for _, h := range hosts {
			only[h.Name] = true
		}
		return writeJSON(a.Stdout, ansible.Listing(inv, only))
	}
	var problems []error
	table := tabwriter.NewWriter(a.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "HOST\tLOGIN\tGROUPS\tLABELS")
	for _, h := range hosts {
		login, labels := "?", "?"
		settings, err := h.Settings()
		if err == nil {
			login, labels = loginOf(h, settings), labelsOf(settings)
		} else {
			problems = append(problems, err)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", terminal.Clean(h.Name), terminal.Clean(login),
			terminal.Clean(strings.Join(h.Groups, ",")), terminal.Clean(labels))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return program.WithCode(program.ExitUsage, errors.Join(problems...))
}

// loginOf says where the inventory alone would lead: ssh_config may add to it.
func loginOf(h *inventory.Host, s inventory.Settings) string {
	login := h.Name
	if s.Address != "" {
		login = s.Address
	}
	if s.Port != 0 {
		if strings.Contains(login, ":") {
			login = "[" + login + "]"
		}
		login += ":" + strconv.Itoa(s.Port)
	}
	if s.User != "" {
		login = s.User + "@" + login
	}
	return login
}

func labelsOf(s inventory.Settings) string {
	if len(s.Labels) == 0 {
		return "-"
	}
	var labels []string
	for _, key := range slices.Sorted(maps.Keys(s.Labels)) {
		labels = append(labels, key+"="+s.Labels[key])
	}
	return strings.Join(labels, ",")
}

type inventoryGraphCmd struct {
	inventoryFlags `embed:""`

	Group string `arg:"" optional:"" default:"all" help:"Start at this group."`
	JSON  bool   `help:"Write the tree as JSON."`
}

// Run draws the tree.
func (c *inventoryGraphCmd) Run(ctx context.Context, a *program.App) error {
	inv, err := c.load(ctx)
	if err != nil {
		return err
	}
	warnInventory(a, inv)
	group, ok := inv.Group(c.Group)
	if !ok {
		return program.WithCode(program.ExitUsage, fmt.Errorf("there is no group %q", c.Group))
	}
	hosts, err := c.choose(inv)
	if err != nil {
		return err
	}
	g := grapher{only: map[string]bool{}, left: 1_000_000}
	for _, h := range hosts {
		g.only[h.Name] = true
	}
	tree, err := g.tree(group)
	if err != nil {
		return err
	}
	if c.JSON {
		return writeJSON(a.Stdout, tree)
	}
	return tree.write(a.Stdout, 0)
}

// graphNode is a group in the tree.
type graphNode struct {
	Name     string       `json:"name"`
	Children []*graphNode `json:"children,omitempty"`
	Hosts    []string     `json:"hosts,omitempty"`
}

// grapher builds the tree. A group stands below each of its parents, so a few
// groups can make a huge tree; left bounds it.
type grapher struct {
	only map[string]bool
	left int
}

func (g *grapher) tree(group *inventory.Group) (*graphNode, error) {
	if g.left -= 1 + len(group.Hosts); g.left < 0 {
		return nil, errors.New("the tree has more than a million lines; start at a group")
	}
	n := &graphNode{Name: group.Name}
	for _, child := range group.Children {
		below, err := g.tree(child)
		if err != nil {
			return nil, err
		}
		n.Children = append(n.Children, below)
	}
	for _, h := range group.Hosts {
		if group.Name != "all" && g.only[h.Name] {
			n.Hosts = append(n.Hosts, h.Name)
		}
	}
	return n, nil
}

// write draws as `ansible-inventory --graph` does.
func (n *graphNode) write(w io.Writer, depth int) error {
	line := func(depth int, text string) error {
		if depth > 0 {
			text = strings.Repeat("  |", depth) + "--" + text
		}
		_, err := fmt.Fprintln(w, text)
		return err
	}
	if err := line(depth, "@"+terminal.Clean(n.Name)+":"); err != nil {
		return err
	}
	for _, child := range n.Children {
		if err := child.write(w, depth+1); err != nil {
			return err
		}
	}
	for _, h := range n.Hosts {
		if err := line(depth+1, terminal.Clean(h)); err != nil {
			return err
		}
	}
	return nil
}

type inventoryShowCmd struct {
	inventoryFlags `embed:""`

	Host string `arg:"" help:"The host's name in the inventory."`
	Vars bool   `help:"Show all variables, also those that fleetca doesn't use."`
	JSON bool   `help:"Write JSON."`
}

// shownVariable is a variable with its value and origin.
type shownVariable struct {
	Value any    `json:"value"`
	File  string `json:"file"`
	Line  int    `json:"line,omitempty"`
}

// Run shows one host.
func (c *inventoryShowCmd) Run(ctx context.Context, a *program.App) error {
	inv, err := c.load(ctx)
	if err != nil {
		return err
	}
	warnInventory(a, inv)
	h, ok := inv.Host(c.Host)
	if !ok {
		return program.WithCode(program.ExitUsage, terminal.Hint(fmt.Errorf("there is no host %q in the inventory", c.Host), "fleetca inventory list lists them"))
	}
	settings, problem := h.Settings()
	used := inventory.SettingVariables()
	names := slices.Sorted(maps.Keys(h.Vars))
	if !c.Vars {
		names = slices.DeleteFunc(names, func(name string) bool {
			return !slices.Contains(used, name) && !strings.HasPrefix(name, "fleetca_")
		})
	}
	values := ansible.Values(h.Vars)
	if c.JSON {
		vars := map[string]shownVariable{}
		for _, name := range names {
			vars[name] = shownVariable{Value: values[name], File: h.Position(name).File, Line: h.Position(name).Line}
		}
		shown := map[string]any{"host": h.Name, "groups": h.Groups, "variables": vars}
		if problem == nil {
			shown["settings"] = settings
		}
		return errors.Join(writeJSON(a.Stdout, shown), program.WithCode(program.ExitUsage, problem))
	}
	fmt.Fprintf(a.Stdout, "%s in %s\n", terminal.Clean(h.Name), terminal.Clean(strings.Join(h.Groups, ", ")))
	table := tabwriter.NewWriter(a.Stdout, 0, 8, 2, ' ', 0)
	for _, name := range names {
		fmt.Fprintf(table, "  %s\t%s\t%s\n", terminal.Clean(name), terminal.Clean(valueText(values[name])), terminal.Clean(h.Position(name).String()))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if problem == nil {
		fmt.Fprintf(a.Stdout, "  → %s\n", terminal.Clean(summary(h, settings)))
	}
	return program.WithCode(program.ExitUsage, problem)
}

// valueText is a string as it is and anything else as JSON.
func valueText(value any) string {
	if text, ok := value.(string); ok && text != "" {
		return text
	}
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	return string(data)
}

// summary is what the settings come to.
func summary(h *inventory.Host, s inventory.Settings) string {
	text := "ssh " + loginOf(h, s)
	if s.ProxyJump != "" {
		text += ", through " + s.ProxyJump
	}
	if s.Become {
		user := s.BecomeUser
		if user == "" {
			user = "root"
		}
		text += ", sudo to " + user
	}
	return text + "; what is not said comes from ssh_config"
}

func writeJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "    ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}
