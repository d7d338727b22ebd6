package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/fleetca/fleetca/ca/keyring"
	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/jump/config"
)

// configCmd is "fleetjump config".
type configCmd struct {
	Check configCheckCmd `cmd:"" help:"Tell every mistake in jump.yaml and in what it names, with file, line and field."`
}

// configCheckCmd is "fleetjump config check".
type configCheckCmd struct {
	JSON bool `help:"Write mistakes and warnings as JSON to stdout."`
}

// Help is shown below the flags' summary.
func (*configCheckCmd) Help() string {
	return `Reads jump.yaml, the keys, certificates, CAs, revoked keys and the inventory as
"serve" does, and changes nothing. Run it as the user that the jump host runs
as: who may read which file is a part of what it checks.

` + exitCodesHelp
}

// finding is one line of the result.
type finding struct {
	File  string `json:"file"`
	Line  int    `json:"line,omitempty"`
	Field string `json:"field,omitempty"`
	Text  string `json:"text"`
}

// checked is the JSON of a check.
type checked struct {
	OK       bool      `json:"ok"`
	Mistakes []finding `json:"mistakes"`
	Warnings []string  `json:"warnings"`
}

// Run checks the configuration.
func (c *configCheckCmd) Run(ctx context.Context, a *program.App, path configPath) error {
	cfg, warnings, err := config.Loader{Now: a.Now}.Load(ctx, string(path))
	mistakes := config.Errors(nil)
	if err != nil && !errors.As(err, &mistakes) {
		return err // interrupted
	}
	if c.JSON {
		out := checked{OK: err == nil, Mistakes: []finding{}, Warnings: append([]string{}, warnings...)}
		for _, m := range mistakes {
			out.Mistakes = append(out.Mistakes, finding{m.File, m.Line, m.Field, m.Err.Error()})
		}
		if err := json.NewEncoder(a.Stdout).Encode(out); err != nil {
			return err
		}
		if !out.OK {
			return program.WithCode(program.ExitUsage, program.ErrSilent)
		}
		return nil
	}
	warnConfig(a, warnings)
	if err != nil {
		return configError(err)
	}
	hosts := "hosts"
	if len(cfg.Inventory.Hosts()) == 1 {
		hosts = "host"
	}
	roles := "roles"
	if len(cfg.Rules.Roles) == 1 {
		roles = "role"
	}
	_, err = fmt.Fprintf(a.Stdout, "%s is good: jump host %s, %d %s, %d %s\n", terminal.Clean(cfg.Path), cfg.Name,
		len(cfg.Inventory.Hosts()), hosts, len(cfg.Rules.Roles), roles)
	return err
}

func warnConfig(a *program.App, warnings []string) {
	for _, w := range warnings {
		fmt.Fprintf(a.Stderr, "%s %s\n", a.Term.Paint(a.Stderr, terminal.Yellow, "warning:"), terminal.Clean(w))
	}
}

// configError is what Load returned, with what the person can do about it.
func configError(err error) error {
	mistakes := config.Errors(nil)
	if !errors.As(err, &mistakes) {
		return err
	}
	text := err
	if len(mistakes) > 1 {
		// On lines of their own, so that editors find file and line.
		text = fmt.Errorf("%d mistakes in the configuration\n%w", len(mistakes), mistakes)
	}
	return program.WithCode(program.ExitUsage, terminal.Hint(text, configHint(mistakes)))
}

func configHint(mistakes config.Errors) string {
	first := mistakes[0]
	if loose := (*keyring.LooseModeError)(nil); errors.As(mistakes, &loose) {
		return fmt.Sprintf("chmod %#o %s, and think about who may have read it", loose.Want, loose.Path)
	}
	switch {
	case first.Line == 0 && first.Field == "" && errors.Is(first, fs.ErrNotExist):
		return "fleetca jump init makes one; --config or $FLEETJUMP_CONFIG says where it is"
	case errors.Is(mistakes, fs.ErrPermission):
		return "run this as the user that the jump host runs as, or as root"
	case strings.HasPrefix(first.Field, "roles"):
		return "docs/jump.md describes roles; fleetjump access check explains what they come to"
	}
	return "docs/jump.md and jump.example.yaml describe every key"
}
