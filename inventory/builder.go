package inventory

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Limits of one inventory. They are far above real fleets and keep a hostile
// or mistaken source from taking all memory.
const (
	MaxHosts  = 100_000
	MaxGroups = 20_000
	MaxDepth  = 100 // of groups within groups

	maxMentions    = 20 * MaxHosts  // of hosts in sources
	maxMemberships = 100 * MaxHosts // of hosts in groups, directly or not
)

// priorityVariable sets a group's priority instead of a variable.
const priorityVariable = "ansible_group_priority"

// Builder gathers declarations of several sources into an Inventory. The order
// of calls matters as the order of declarations does in Ansible. It is for one
// goroutine.
type Builder struct {
	groups     []*Group
	groupNames map[string]*Group
	hosts      []*Host
	hostNames  map[string]*Host
	files      []layer
	warnings   []string
	mentions   int
	built      bool
}

// layer is what the group_vars and host_vars beside one source say.
type layer struct {
	groups, hosts map[string]map[string]Variable
}

// NewBuilder starts an inventory that holds only the groups "all" and
// "ungrouped".
func NewBuilder() *Builder {
	b := &Builder{groupNames: map[string]*Group{}, hostNames: map[string]*Host{}}
	all, ungrouped := b.newGroup("all"), b.newGroup("ungrouped")
	if err := addChild(all, ungrouped); err != nil {
		panic(err) // two fresh groups can't form a loop
	}
	return b
}

func (b *Builder) newGroup(name string) *Group {
	g := &Group{
		Name: name, Priority: 1,
		vars: map[string]Variable{}, hostSet: map[*Host]bool{}, childSet: map[*Group]bool{},
	}
	b.groups = append(b.groups, g)
	b.groupNames[name] = g
	return g
}

// Warn records something that Ansible warns about and then passes over.
func (b *Builder) Warn(at Position, format string, args ...any) {
	const enough = 100
	if len(b.warnings) < enough {
		b.warnings = append(b.warnings, at.String()+": "+fmt.Sprintf(format, args...))
	}
}

// HasGroup says whether a group of the name was added.
func (b *Builder) HasGroup(name string) bool { return b.groupNames[name] != nil }

// HasHost says whether a host of the name was added.
func (b *Builder) HasHost(name string) bool { return b.hostNames[name] != nil }

// GroupNames and HostNames are what was added so far, in order.
func (b *Builder) GroupNames() []string {
	names := make([]string, len(b.groups))
	for i, g := range b.groups {
		names[i] = g.Name
	}
	return names
}

// HostNames are the names of the hosts added so far, in order.
func (b *Builder) HostNames() []string {
	names := make([]string, len(b.hosts))
	for i, h := range b.hosts {
		names[i] = h.Name
	}
	return names
}

func checkName(kind, name string) error {
	if name == "" {
		return fmt.Errorf("the name of a %s is empty", kind)
	}
	if len(name) > 1024 {
		return fmt.Errorf("the name of a %s is longer than 1024 bytes", kind)
	}
	// Ansible takes these too, but they could only forge lines in what is printed.
	if strings.ContainsFunc(name, unicode.IsControl) {
		return fmt.Errorf("%s name %q holds a control character", kind, name)
	}
	return nil
}

// AddGroup adds a group unless it is there already.
func (b *Builder) AddGroup(name string) error {
	if b.groupNames[name] != nil {
		return nil
	}
	if err := checkName("group", name); err != nil {
		return err
	}
	if len(b.groups) >= MaxGroups {
		return fmt.Errorf("more than %d groups", MaxGroups)
	}
	b.newGroup(name)
	return nil
}

// AddHost adds a host unless it is there already, and makes it a direct member
// of the group, which must exist. A port (zero: none said) becomes the host's
// ansible_port only when the host is new, as in Ansible.
func (b *Builder) AddHost(name, group string, port int, at Position) error {
	if err := checkName("host", name); err != nil {
		return err
	}
	if b.mentions++; b.mentions > maxMentions {
		return fmt.Errorf("hosts are named more than %d times", maxMentions)
	}
	g := b.groupNames[group]
	if g == nil {
		return fmt.Errorf("host %q: there is no group %q", name, group)
	}
	h := b.hostNames[name]
	if h == nil {
		if len(b.hosts) >= MaxHosts {
			return fmt.Errorf("more than %d hosts", MaxHosts)
		}
		h = &Host{Name: name, Own: map[string]Variable{}}
		if port != 0 {
			h.Own["ansible_port"] = Variable{Value: int64(port), Position: at}
		}
		b.hosts = append(b.hosts, h)
		b.hostNames[name] = h
	}
	g.addHost(h)
	return nil
}

func (g *Group) addHost(h *Host) {
	if !g.hostSet[h] {
		g.hostSet[h] = true
		g.Hosts = append(g.Hosts, h)
	}
}

// AddChild makes a group, or if there is no group of that name a host, a
// direct member of a group.
func (b *Builder) AddChild(group, child string) error {
	g := b.groupNames[group]
	if g == nil {
		return fmt.Errorf("there is no group %q", group)
	}
	if c := b.groupNames[child]; c != nil {
		return addChild(g, c)
	}
	if h := b.hostNames[child]; h != nil {
		g.addHost(h)
		return nil
	}
	return fmt.Errorf("group %q: its child %q is neither a group nor a host", group, child)
}

func addChild(parent, child *Group) error {
	if parent == child {
		return fmt.Errorf("group %q can't be a child of itself", parent.Name)
	}
	if parent.childSet[child] {
		return nil
	}
	if parent.ancestors()[child] {
		return fmt.Errorf("group %q as a child of %q makes a loop", child.Name, parent.Name)
	}
	parent.childSet[child] = true
	parent.Children = append(parent.Children, child)
	child.Parents = append(child.Parents, parent)
	return deepen(child, parent.Depth+1)
}

// deepen makes a group and those below it at least as deep as said.
func deepen(g *Group, depth int) error {
	level := []*Group{g}
	for ; len(level) > 0; depth++ {
		if depth > MaxDepth {
			return fmt.Errorf("group %q is more than %d levels deep", level[0].Name, MaxDepth)
		}
		next := map[*Group]bool{}
		for _, g := range level {
			if g.Depth < depth {
				g.Depth = depth
				maps.Copy(next, g.childSet)
			}
		}
		level = slices.Collect(maps.Keys(next))
	}
	return nil
}

// Set gives a variable to a group or, if there is no group of that name, to a
// host. Ansible prefers the group too, also when a host of the same name was
// meant.
func (b *Builder) Set(entity, variable string, v Variable) error {
	if g := b.groupNames[entity]; g != nil {
		if variable == priorityVariable {
			return g.setPriority(v.Value)
		}
		g.vars[variable] = v
		return nil
	}
	if h := b.hostNames[entity]; h != nil {
		h.Own[variable] = v
		return nil
	}
	return fmt.Errorf("variable %q: there is no group or host %q", variable, entity)
}

// setPriority takes what Python's int() takes.
func (g *Group) setPriority(value any) error {
	bad := fmt.Errorf("%s of group %q is not a whole number: %v", priorityVariable, g.Name, value)
	switch v := value.(type) {
	case bool:
		g.Priority = 0
		if v {
			g.Priority = 1
		}
	case int64:
		g.Priority = int(v)
	case *big.Int:
		g.Priority = math.MaxInt
		if v.Sign() < 0 {
			g.Priority = math.MinInt
		}
	case float64:
		if math.IsNaN(v) || math.Abs(v) > 1<<53 {
			return bad
		}
		g.Priority = int(v)
	case string:
		n, err := strconv.Atoi(strings.TrimSpace(v))
		if err != nil {
			return bad
		}
		g.Priority = n
	default:
		return bad
	}
	return nil
}

// AddFiles adds what the group_vars and host_vars beside one source say, by
// name of group and host. Call it once for each source, in their order.
func (b *Builder) AddFiles(groups, hosts map[string]map[string]Variable) {
	b.files = append(b.files, layer{groups: groups, hosts: hosts})
}

// Build applies Ansible's closing rules (every group below "all", hosts
// without a group into "ungrouped") and merges the variables. The Builder is
// spent afterwards.
func (b *Builder) Build() (*Inventory, error) {
	if b.built {
		return nil, errors.New("this inventory is built already")
	}
	b.built = true
	if err := b.reconcile(); err != nil {
		return nil, err
	}
	inv := &Inventory{
		groups: b.groups, groupNames: b.groupNames,
		hosts: b.hosts, hostNames: b.hostNames,
		ordered: b.groupNames["all"].AllHosts(),
	}
	if err := b.merge(); err != nil {
		return nil, err
	}
	inv.warnings = b.warnings
	return inv, nil
}

// reconcile works in the order Ansible does: the order decides where children
// of "all" and members of "ungrouped" stand.
func (b *Builder) reconcile() error {
	all, ungrouped := b.groupNames["all"], b.groupNames["ungrouped"]
	for _, g := range b.groups {
		if g != all && len(g.Parents) == 0 {
			if err := addChild(all, g); err != nil {
				return err
			}
		}
		if b.hostNames[g.Name] != nil {
			b.Warn(Position{}, "found both a group and a host named %q", g.Name)
		}
	}
	member, err := b.memberships()
	if err != nil {
		return err
	}
	for _, h := range b.hosts {
		inOther, inUngrouped := false, false
		for g := range member[h] {
			inUngrouped = inUngrouped || g == ungrouped
			inOther = inOther || g != ungrouped && g != all
		}
		switch {
		case inUngrouped && inOther:
			ungrouped.removeHost(h)
		case !inUngrouped && !inOther:
			// AddChild, since Ansible too goes by the name here, which may be a group's.
			if err := b.AddChild("ungrouped", h.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (g *Group) removeHost(h *Host) {
	if g.hostSet[h] {
		delete(g.hostSet, h)
		g.Hosts = slices.DeleteFunc(g.Hosts, func(x *Host) bool { return x == h })
	}
}

// memberships says for each host which groups it is in, directly or not.
func (b *Builder) memberships() (map[*Host]map[*Group]bool, error) {
	member := make(map[*Host]map[*Group]bool, len(b.hosts))
	count := 0
	for _, g := range b.groups {
		if len(g.Hosts) == 0 {
			continue
		}
		above := g.ancestors()
		above[g] = true
		if count += len(above) * len(g.Hosts); count > maxMemberships {
			return nil, fmt.Errorf("hosts are in groups more than %d times", maxMemberships)
		}
		for _, h := range g.Hosts {
			if member[h] == nil {
				member[h] = make(map[*Group]bool, len(above))
			}
			maps.Copy(member[h], above)
		}
	}
	return member, nil
}

// merge fills Group.Vars, Host.Groups, Host.Own and Host.Vars. Precedence is
// Ansible's default: sources before files, "all" before other groups, groups
// before hosts, and of files of the same kind those beside a later source win.
func (b *Builder) merge() error {
	for _, g := range b.groups {
		g.Vars = maps.Clone(g.vars)
		for _, files := range b.files {
			maps.Copy(g.Vars, files.groups[g.Name])
		}
	}
	shared := map[string]map[string]Variable{} // hosts of the same groups share a merge
	member, err := b.memberships()
	if err != nil {
		return err
	}
	for _, h := range b.hosts {
		groups := slices.Collect(maps.Keys(member[h]))
		groups = slices.DeleteFunc(groups, func(g *Group) bool { return g.Name == "all" })
		slices.SortFunc(groups, func(x, y *Group) int {
			return cmp.Or(cmp.Compare(x.Depth, y.Depth), cmp.Compare(x.Priority, y.Priority), strings.Compare(x.Name, y.Name))
		})
		h.Groups = make([]string, len(groups))
		for i, g := range groups {
			h.Groups[i] = g.Name
		}
		key := strings.Join(h.Groups, "\x00")
		if shared[key] == nil {
			shared[key] = b.mergeGroups(groups)
		}
		h.Vars = maps.Clone(shared[key])
		for _, files := range b.files {
			maps.Copy(h.Own, files.hosts[h.Name])
		}
		maps.Copy(h.Vars, h.Own)
		slices.Sort(h.Groups)
	}
	return nil
}

func (b *Builder) mergeGroups(groups []*Group) map[string]Variable {
	vars := maps.Clone(b.groupNames["all"].vars)
	for _, g := range groups {
		maps.Copy(vars, g.vars)
	}
	for _, files := range b.files {
		maps.Copy(vars, files.groups["all"])
	}
	for _, files := range b.files {
		for _, g := range groups {
			maps.Copy(vars, files.groups[g.Name])
		}
	}
	return vars
}
