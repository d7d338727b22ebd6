// Command fleetjump is a jump host that records: it stands between any OpenSSH
// client and a fleet of plain sshd hosts.
//
// Each command has a file of its own: flags in, a call into a package, output
// out. Machine output goes to stdout, everything said to a person to stderr.
package main

import (
	"context"

	"github.com/alecthomas/kong"

	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/jump/console"
)

const exitCodesHelp = "Exit codes: 0 all good, 1 something failed, is refused or damaged, 2 wrong use or configuration, 130 interrupted."

// defaultConfig is used where neither --config nor $FLEETJUMP_CONFIG names
// another.
const defaultConfig = "/etc/fleetjump/jump.yaml"

// cli is the command line. A command is a field here and a file beside this
// one.
type cli struct {
	Serve  serveCmd  `cmd:"" help:"Run the jump host."`
	Config configCmd `cmd:"" help:"Check the configuration."`
	Access accessCmd `cmd:"" help:"Explain what a person may do."`

	console.Commands `embed:""`

	Completion program.Completion `cmd:"" help:"Print the completion script for a shell."`
	Complete   program.Complete   `cmd:"" hidden:""`

	ConfigFile string `name:"config" placeholder:"FILE" help:"The configuration (default: $FLEETJUMP_CONFIG, or /etc/fleetjump/jump.yaml)."`

	program.Flags `embed:""`
}

var about = program.Config{
	Name:        "fleetjump",
	Description: "A jump host that records what passes through it.",
	ExitCodes:   exitCodesHelp,
}

// configPath is the path of jump.yaml; commands get it beside their flags.
type configPath string

// AfterApply settles what commands get.
func (c *cli) AfterApply(ctx context.Context, kctx *kong.Context, a *program.App) error {
	path := c.ConfigFile
	if path == "" {
		path = a.Getenv("FLEETJUMP_CONFIG")
	}
	if path == "" {
		path = defaultConfig
	}
	kctx.Bind(configPath(path), console.Do(func(console.Command) error {
		r := recordings{app: a, config: path, words: words(kctx), play: kctx.Selected().Name == "play"}
		return r.run(ctx)
	}))
	return nil
}

func main() { program.Main(about, new(cli)) }
