//go:build linux

package testenv

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
)

// InventoryConfig says what an inventory holds beside the connection settings.
type InventoryConfig struct {
	// Vars are set for all hosts.
	Vars map[string]any
	// HostVars, if set, gives more variables of a host. Those with the name of
	// a connection setting replace it; nil takes it out.
	HostVars func(h *Host) map[string]any
}

// Inventory writes an inventory of the fleet, in Ansible's YAML, in which
// settings with their default values (port 22, /etc/ssh/sshd_config) are left
// out. Names with a range are in a group named by what stands before the range.
func (f *Fleet) Inventory(path string, config InventoryConfig) error {
	var b bytes.Buffer
	b.WriteString("all:\n")
	if err := writeVars(&b, "  vars:\n", "    ", config.Vars); err != nil {
		return fmt.Errorf("writing the fleet's inventory: %w", err)
	}
	b.WriteString("  hosts:\n")
	for _, h := range f.hosts {
		vars, err := h.vars()
		if err != nil {
			return fmt.Errorf("writing the fleet's inventory: %w", err)
		}
		if config.HostVars != nil {
			maps.Copy(vars, config.HostVars(h))
		}
		maps.DeleteFunc(vars, func(_ string, value any) bool { return value == nil })
		if err := writeVars(&b, "    "+quoted(h.name)+":\n", "      ", vars); err != nil {
			return fmt.Errorf("writing the fleet's inventory: host %s: %w", h.name, err)
		}
	}
	if len(f.groups) > 0 {
		b.WriteString("  children:\n")
	}
	for _, group := range slices.Sorted(maps.Keys(f.groups)) {
		fmt.Fprintf(&b, "    %s:\n      hosts:\n", quoted(group))
		for _, name := range f.groups[group] {
			fmt.Fprintf(&b, "        %s:\n", quoted(name))
		}
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		return fmt.Errorf("writing the fleet's inventory: %w", err)
	}
	return nil
}

func (h *Host) vars() (map[string]any, error) {
	address, port, err := net.SplitHostPort(h.addr)
	if err != nil {
		return nil, err
	}
	vars := map[string]any{
		"ansible_host":                 address,
		"ansible_user":                 h.login,
		"ansible_ssh_private_key_file": h.fleet.ClientKey(),
	}
	if port != "22" {
		n, err := strconv.Atoi(port)
		if err != nil {
			return nil, err
		}
		vars["ansible_port"] = n
	}
	if h.configPath != defaultConfigPath {
		vars["fleetca_sshd_config"] = h.configPath
	}
	return vars, nil
}

const defaultConfigPath = "/etc/ssh/sshd_config"

// writeVars writes the values as JSON, which YAML contains.
func writeVars(b *bytes.Buffer, title, indent string, vars map[string]any) error {
	if len(vars) == 0 && title == "  vars:\n" {
		return nil
	}
	b.WriteString(title)
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		value, err := json.Marshal(vars[name])
		if err != nil {
			return fmt.Errorf("variable %s: %w", name, err)
		}
		fmt.Fprintf(b, "%s%s: %s\n", indent, name, value)
	}
	return nil
}

// quoted keeps YAML from taking a name like "1" or "no" for something else.
func quoted(name string) string { return strconv.Quote(name) }
