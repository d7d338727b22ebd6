package ansible

import (
	"encoding/json"
	"math"
	"math/big"

	"github.com/fleetca/fleetca/inventory"
)

// internalVariables are those that ansible-inventory leaves out, since Ansible
// sets them itself.
var internalVariables = map[string]bool{
	"ansible_diff_mode": true, "ansible_config_file": true, "ansible_facts": true, "ansible_forks": true,
	"ansible_inventory_sources": true, "ansible_limit": true, "ansible_playbook_python": true,
	"ansible_run_tags": true, "ansible_skip_tags": true, "ansible_verbosity": true, "ansible_version": true,
	"inventory_dir": true, "inventory_file": true, "inventory_hostname": true, "inventory_hostname_short": true,
	"groups": true, "group_names": true, "omit": true, "playbook_dir": true,
}

// Listing is the inventory in the form of `ansible-inventory --list --export`,
// ready for encoding/json. With only, hosts it does not hold are left out; nil
// means all.
func Listing(inv *inventory.Inventory, only map[string]bool) map[string]any {
	listing := map[string]any{}
	all, _ := inv.Group("all")
	listGroup(listing, map[string]bool{}, all, only)
	hostvars := map[string]any{}
	for _, h := range inv.Hosts() {
		if vars := Values(h.Own); len(vars) > 0 && (only == nil || only[h.Name]) {
			hostvars[h.Name] = vars
		}
	}
	listing["_meta"] = map[string]any{"hostvars": hostvars}
	return listing
}

func listGroup(listing map[string]any, seen map[string]bool, g *inventory.Group, only map[string]bool) {
	if seen[g.Name] {
		return
	}
	seen[g.Name] = true
	body := map[string]any{}
	var children, hosts []string
	for _, child := range g.Children {
		children = append(children, child.Name)
		listGroup(listing, seen, child, only)
	}
	for _, h := range g.Hosts {
		if g.Name != "all" && (only == nil || only[h.Name]) {
			hosts = append(hosts, h.Name)
		}
	}
	vars := Values(g.Vars)
	if g.Priority != 1 {
		vars["ansible_group_priority"] = g.Priority
	}
	if len(children) > 0 {
		body["children"] = children
	}
	if len(hosts) > 0 {
		body["hosts"] = hosts
	}
	if len(vars) > 0 {
		body["vars"] = vars
	}
	if len(body) > 0 {
		listing[g.Name] = body
	}
}

// Values are the values of variables in the form Ansible gives them in JSON,
// ready for encoding/json.
func Values(vars map[string]inventory.Variable) map[string]any {
	values := make(map[string]any, len(vars))
	for name, v := range vars {
		if !internalVariables[name] {
			values[name] = jsonValue(v.Value)
		}
	}
	return values
}

func jsonValue(value any) any {
	switch v := value.(type) {
	case inventory.Vault:
		return map[string]any{"__ansible_vault": string(v)}
	case inventory.Unsafe:
		return map[string]any{"__ansible_unsafe": string(v)}
	case inventory.Date:
		return string(v)
	case *big.Int:
		return json.Number(v.String())
	case float64:
		return jsonFloat(v)
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = jsonValue(v[i])
		}
		return list
	case map[string]any:
		values := make(map[string]any, len(v))
		for key, item := range v {
			values[key] = jsonValue(item)
		}
		return values
	}
	return value
}

// jsonFloat keeps whole floats apart from whole numbers. JSON has no infinity:
// YAML's word for it has to do.
func jsonFloat(f float64) any {
	switch {
	case math.IsInf(f, 1):
		return ".inf"
	case math.IsInf(f, -1):
		return "-.inf"
	case math.IsNaN(f):
		return ".nan"
	}
	return json.Number(floatText(f))
}
