package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/inventory"
	"github.com/fleetca/fleetca/templates"
)

// ansibleConfigCmd is "fleetca ansible-config".
type ansibleConfigCmd struct {
	clientFlags `embed:""`

	Print      string `enum:"all,cfg,vars" default:"all" help:"What to print: all, cfg (ansible.cfg) or vars (the group's variables)."`
	Out        string `type:"path" placeholder:"DIR" help:"Write both into the folder of the playbooks, in place of printing."`
	Group      string `default:"all" placeholder:"GROUP" help:"The group whose hosts go through the jump host."`
	SCP        bool   `name:"scp" help:"Carry files by scp (scp_if_ssh = True) in place of sftp."`
	KnownHosts string `default:"~/.ssh/fleetca_known_hosts" placeholder:"FILE" help:"Where ssh-config --write put the CAs' keys."`
}

// Help is shown below the flags' summary.
func (*ansibleConfigCmd) Help() string {
	return `fleetca ansible-config --inventory hosts.yaml --jump jump.example.com --out playbooks

writes playbooks/ansible.cfg and playbooks/group_vars/all/fleetjump.yaml, with
which Ansible (ansible-core 2.14 and later) reaches every host of the inventory
through the jump host, whatever ~/.ssh/config says. The CAs' keys are those that
fleetca ssh-config --write keeps. Without --out both are printed.

` + exitCodesHelp
}

// Run prints or writes the files.
func (c *ansibleConfigCmd) Run(ctx context.Context, a *program.App) error {
	jump, err := c.address()
	if err != nil {
		return err
	}
	if c.Out != "" && c.Print != "all" {
		return program.WithCode(program.ExitUsage, errors.New("--print and --out exclude each other"))
	}
	if c.Group == "" || c.Group == "." || c.Group == ".." || filepath.Base(c.Group) != c.Group || templates.Check(c.Group) != nil {
		return program.WithCode(program.ExitUsage, fmt.Errorf("--group: %q can't be a group with a file of its own", c.Group))
	}
	settings := templates.AnsibleConfig{Jump: jump, KnownHosts: c.KnownHosts, SCP: c.SCP}
	cfg, err := settings.Render()
	if err != nil {
		return program.WithCode(program.ExitUsage, err)
	}
	vars, err := settings.RenderVars()
	if err != nil {
		return program.WithCode(program.ExitUsage, err)
	}
	all, chosen, err := c.hosts(ctx, a)
	if err != nil {
		return err
	}
	if _, err := newFleetNames(a, jump, all, chosen); err != nil {
		return err
	}
	warnStronger(a, chosen)
	if c.Out != "" {
		return c.write(a, cfg, vars)
	}
	if c.Print == "all" {
		cfg = "# ===== ansible.cfg =====\n" + cfg
		vars = fmt.Sprintf("\n# ===== group_vars/%s/fleetjump.yaml =====\n", c.Group) + vars
	}
	if c.Print != "vars" {
		_, err = fmt.Fprint(a.Stdout, cfg)
	}
	if c.Print != "cfg" {
		_, err2 := fmt.Fprint(a.Stdout, vars)
		err = errors.Join(err, err2)
	}
	return err
}

// warnStronger tells which hosts say themselves how to get to them.
func warnStronger(a *program.App, hosts []*inventory.Host) {
	var stronger []string
	for _, h := range hosts {
		if _, ok := h.Own["ansible_ssh_common_args"]; ok {
			stronger = append(stronger, h.Name)
		}
	}
	if len(stronger) > 0 {
		warn(a, "%s: what the inventory says for a host alone (ansible_ssh_common_args) wins over the group's", terminal.FoldNames(stronger))
	}
}

// write puts both files below --out.
func (c *ansibleConfigCmd) write(a *program.App, cfg, vars string) error {
	files := []struct{ path, text string }{
		{filepath.Join(c.Out, "ansible.cfg"), cfg},
		{filepath.Join(c.Out, "group_vars", c.Group, "fleetjump.yaml"), vars},
	}
	for _, file := range files {
		if err := checkOurs(file.path); err != nil {
			return err
		}
	}
	for _, file := range files {
		if err := os.MkdirAll(filepath.Dir(file.path), 0o755); err != nil {
			return err
		}
		done, err := putFile(file.path, file.text, 0o644)
		if err != nil {
			return fmt.Errorf("writing %q: %w", file.path, err)
		}
		fmt.Fprintf(a.Stdout, "%-9s  %s\n", done, terminal.Clean(file.path))
	}
	return nil
}
