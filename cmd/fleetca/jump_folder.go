package main

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/fleetca/fleetca/ca"
	"github.com/fleetca/fleetca/ca/keyring"
	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/inventory"
	jumpconfig "github.com/fleetca/fleetca/jump/config"
	"github.com/fleetca/fleetca/templates"
)

// privateKey opens a CA's private key to be written elsewhere.
func (f *caFolder) privateKey(ctx context.Context, a *program.App, role ca.Role) (crypto.Signer, error) {
	var passphrase []byte
	// The folder's own checks come first, on modes and on the two halves.
	if _, err := f.signerWith(ctx, a, role, &passphrase); err != nil {
		return nil, err
	}
	path := filepath.Join(f.Path(), string(role)+"_ca")
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var key any
	if passphrase == nil {
		key, err = ssh.ParseRawPrivateKey(data)
	} else {
		key, err = ssh.ParseRawPrivateKeyWithPassphrase(data, passphrase)
	}
	if err != nil {
		return nil, fmt.Errorf("reading private key %q: %w", path, err)
	}
	switch k := key.(type) {
	case crypto.Signer:
		return k, nil
	}
	return nil, fmt.Errorf("reading private key %q: keys of type %T can't be carried elsewhere", path, key)
}

// jumpFolder makes a jump host's folder.
type jumpFolder struct {
	draft          *jumpDraft
	jumpKey        crypto.Signer
	userCA, hostCA ssh.PublicKey
	sign           func() (*ssh.Certificate, error)
	now            func() time.Time

	// What came of it.
	path       string
	files      []string
	cert       *ssh.Certificate
	jumpPublic ssh.PublicKey
	warnings   []string
}

// make makes the folder, whole or not at all: everything is made in a folder
// beside it, ".NAME.new-…", checked, and renamed. A crash may leave that
// folder, which nothing uses, and a certificate in the ledger that nobody has.
func (f *jumpFolder) make(ctx context.Context, out string) (err error) {
	if f.path, err = filepath.Abs(out); err != nil {
		return err
	}
	if resolved, err := filepath.EvalSymlinks(f.path); err == nil {
		f.path = resolved
	}
	parent := filepath.Dir(f.path)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(parent, "."+filepath.Base(f.path)+".new-") // with mode 0700
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(temp))
		}
	}()
	if err := f.fill(temp); err != nil {
		return fmt.Errorf("making %q: %w", f.path, err)
	}
	if err := f.check(ctx, temp); err != nil {
		return fmt.Errorf("making %q: %w", f.path, err)
	}
	// A folder replaces only an empty folder, in one step.
	if err := unix.Rename(temp, f.path); err != nil {
		if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTDIR) {
			err = ca.ErrFolderExists
		}
		return fmt.Errorf("making %q: %w", f.path, err)
	}
	return syncFolder(parent)
}

// fill makes the files in dir. The certificate comes last: whatever else can
// fail has not failed when the ledger says that it was issued.
func (f *jumpFolder) fill(dir string) error {
	in := func(name string) string {
		f.files = append(f.files, name)
		return filepath.Join(dir, name)
	}
	config, err := f.draft.config.Render()
	if err != nil {
		return err
	}
	unit, err := f.draft.unit.Render()
	if err != nil {
		return err
	}
	if f.jumpPublic, err = ssh.NewPublicKey(f.jumpKey.Public()); err != nil {
		return err
	}
	name := f.draft.names[0]
	if err := errors.Join(
		writeDurably(in(templates.JumpConfigFile), config),
		writeDurably(in(templates.JumpUnitFile), unit),
		writeDurably(in(templates.InventoryFile), string(f.draft.inventory)),
		keyring.WritePublic(in(templates.UserCAFile), f.userCA, "fleetca-user-ca"),
		keyring.WritePublic(in(templates.HostCAFile), f.hostCA, "fleetca-host-ca"),
		keyring.Write(in(templates.JumpCAFile), f.jumpKey, "fleetca-jump-ca", nil),
		keyring.WritePublic(in(templates.JumpCAFile+".pub"), f.jumpPublic, "fleetca-jump-ca"),
		keyring.Write(in(templates.JumpHostKeyFile), f.draft.hostKey.private, name, nil),
		keyring.WritePublic(in(templates.JumpHostKeyFile+".pub"), f.draft.public, name),
	); err != nil {
		return err
	}
	if !filepath.IsAbs(f.draft.state) {
		if err := os.MkdirAll(filepath.Join(dir, f.draft.state), 0o700); err != nil {
			return err
		}
	}
	if f.cert, err = f.sign(); err != nil {
		return err
	}
	if err := writeDurably(in(templates.JumpHostKeyFile+"-cert.pub"), certLine(f.cert)); err != nil {
		return err
	}
	slices.Sort(f.files)
	return syncFolder(dir)
}

// check reads the folder as fleetjump will, and compares the hosts.
func (f *jumpFolder) check(ctx context.Context, dir string) error {
	cfg, warnings, err := jumpconfig.Loader{Now: f.now}.Load(ctx, filepath.Join(dir, templates.JumpConfigFile))
	if err != nil {
		return fmt.Errorf("what was written is not good: %w", err)
	}
	if got := len(cfg.Inventory.Hosts()); got != len(f.draft.hosts) {
		return fmt.Errorf("the inventory has %d hosts in place of %d", got, len(f.draft.hosts))
	}
	for _, want := range f.draft.hosts {
		got, ok := cfg.Inventory.Host(want.Name)
		if !ok || !sameHost(got, want) {
			return fmt.Errorf("host %q didn't come through as it was", want.Name)
		}
	}
	if len(cfg.Rules.Roles) > 0 { // else it is said in other words
		f.warnings = warnings
	}
	return nil
}

// sameHost compares what a jump host needs to know of a host.
func sameHost(a, b *inventory.Host) bool {
	s, errA := a.Settings()
	t, errB := b.Settings()
	return errA == nil && errB == nil && slices.Equal(a.Groups, b.Groups) && s.Address == t.Address && s.Port == t.Port &&
		slices.Equal(s.Principals, t.Principals) && maps.Equal(s.Labels, t.Labels)
}

// writeDurably writes a new file with mode 0600.
func writeDurably(path, text string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Sync(), file.Close())
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// jumpInventory is an inventory with what a jump host needs to know of the
// hosts: their names, where they are, their labels and groups. Everything else,
// secrets among them, stays behind.
func jumpInventory(inv *inventory.Inventory, hosts []*inventory.Host) ([]byte, error) {
	kept := map[*inventory.Host]bool{}
	all := mapping{}
	for _, h := range hosts {
		s, err := h.Settings()
		if err != nil {
			return nil, err
		}
		kept[h] = true
		vars := mapping{}
		vars.addText("ansible_host", s.Address)
		if s.Port != 0 {
			vars.add("ansible_port", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: fmt.Sprint(s.Port)})
		}
		vars.addList("fleetca_principals", s.Principals)
		labels := mapping{}
		for _, key := range slices.Sorted(maps.Keys(s.Labels)) {
			labels.add(key, textNode(s.Labels[key]))
		}
		vars.addMapping("fleetca_labels", labels)
		all.add(h.Name, vars.node())
	}
	top := mapping{}
	top.addMapping("all", mapping{{textNode("hosts"), all.node()}})
	for _, g := range inv.Groups() {
		if g.Name == "all" || g.Name == "ungrouped" {
			continue
		}
		members, children, body := mapping{}, mapping{}, mapping{}
		for _, h := range g.Hosts {
			if kept[h] {
				members.add(h.Name, mapping{}.node())
			}
		}
		for _, child := range g.Children {
			children.add(child.Name, mapping{}.node())
		}
		body.addMapping("hosts", members)
		body.addMapping("children", children)
		top.add(g.Name, body.node())
	}
	var out bytes.Buffer
	out.WriteString("# What a jump host needs of the inventory, written by fleetca jump init.\n")
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(top.node()), enc.Close()); err != nil {
		return nil, fmt.Errorf("writing the jump host's inventory: %w", err)
	}
	return out.Bytes(), nil
}

// mapping is a YAML mapping in a fixed order.
type mapping [][2]*yaml.Node

var (
	plainText = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]*$`)
	// notText are words that YAML 1.1, which Ansible reads, takes for something
	// else.
	notText = regexp.MustCompile(`^(?i:y|n|yes|no|on|off|true|false|null)$`)
)

func textNode(text string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}
	if !plainText.MatchString(text) || notText.MatchString(text) {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

func (m *mapping) add(key string, value *yaml.Node) {
	*m = append(*m, [2]*yaml.Node{textNode(key), value})
}

// The following leave out what is empty.

func (m *mapping) addText(key, text string) {
	if text != "" {
		m.add(key, textNode(text))
	}
}

func (m *mapping) addMapping(key string, content mapping) {
	if len(content) > 0 {
		m.add(key, content.node())
	}
}

func (m *mapping) addList(key string, texts []string) {
	list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	for _, text := range texts {
		list.Content = append(list.Content, textNode(text))
	}
	if len(texts) > 0 {
		m.add(key, list)
	}
}

func (m mapping) node() *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	if len(m) == 0 {
		n.Style = yaml.FlowStyle // {}
	}
	for _, pair := range m {
		n.Content = append(n.Content, pair[0], pair[1])
	}
	return n
}
