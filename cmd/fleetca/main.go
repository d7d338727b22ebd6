// Command fleetca is an SSH certificate authority that provisions fleets of
// plain OpenSSH sshd hosts from an inventory, with nothing installed on them.
//
// Each command has a file of its own: flags in, a call into a package, output
// out. Machine output goes to stdout, everything said to a person to stderr.
package main

import "github.com/fleetca/fleetca/cmd/program"

// exitChanges is beside program's exit codes.
const exitChanges = 3 // --check found changes

const exitCodesHelp = "Exit codes: 0 all good, 1 something or some host failed, 2 wrong use, 3 --check found changes, 130 interrupted."

// cli is the command line. A command is a field here and a file beside this
// one.
type cli struct {
	Init   initCmd   `cmd:"" help:"Make a CA folder with its three keys."`
	Sign   signCmd   `cmd:"" help:"Issue a host or user certificate."`
	Certs  certsCmd  `cmd:"" help:"List and show what was issued."`
	Export exportCmd `cmd:"" help:"Print a CA's public key for sshd_config, known_hosts or authorized_keys."`

	Inventory inventoryCmd `cmd:"" help:"Show what an inventory says."`
	Provision provisionCmd `cmd:"" help:"Make every selected sshd trust the user CA and show certificates of the host CA."`

	Jump          jumpCmd          `cmd:"" help:"Set up a jump host that records."`
	SSHConfig     sshConfigCmd     `cmd:"" name:"ssh-config" help:"Set up people's ssh to go through a jump host."`
	AnsibleConfig ansibleConfigCmd `cmd:"" help:"Set up Ansible to go through a jump host."`

	Completion program.Completion `cmd:"" help:"Print the completion script for a shell."`
	Complete   program.Complete   `cmd:"" hidden:""`

	program.Flags `embed:""`
}

var config = program.Config{
	Name:        "fleetca",
	Description: "Certificates for every sshd that people already run.",
	ExitCodes:   exitCodesHelp,
}

func main() { program.Main(config, new(cli)) }
