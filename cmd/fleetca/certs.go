package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/fleetca/fleetca/ca"
	"github.com/fleetca/fleetca/ca/ledger"
	"github.com/fleetca/fleetca/ca/profile"
	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/cmd/terminal"
)

// certsCmd is "fleetca certs".
type certsCmd struct {
	List certsListCmd `cmd:"" help:"List the certificates that were issued, oldest first."`
	Show certsShowCmd `cmd:"" help:"Show all that is recorded of one certificate."`
}

// certsListCmd is "fleetca certs list".
type certsListCmd struct {
	caDirFlag `embed:""`

	Kind      string `enum:"user,host,any" default:"any" help:"Only this kind: user or host."`
	KeyID     string `name:"key-id" placeholder:"ID" help:"Only this key ID."`
	Principal string `placeholder:"NAME" help:"Only those with this principal."`
	Valid     bool   `help:"Only those that are valid now."`
	JSON      bool   `help:"Write a JSON line a certificate to stdout."`
}

// Help is shown below the flags' summary.
func (*certsListCmd) Help() string {
	return `Reads the ledger, which holds every certificate from before it was signed; an
entry whose signing was interrupted is listed too.

` + exitCodesHelp
}

// Run lists certificates.
func (c *certsListCmd) Run(a *program.App) error {
	folder, err := c.openFolder(a)
	if err != nil {
		return err
	}
	var table *tabwriter.Writer
	if !c.JSON {
		table = tabwriter.NewWriter(a.Stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "SERIAL\tKIND\tKEY ID\tPRINCIPALS\tLEFT")
	}
	now, out := a.Now(), json.NewEncoder(a.Stdout)
	err = entries(a.Stderr, folder, func(e ca.Entry) error {
		switch {
		case !c.match(e, now):
		case c.JSON:
			return out.Encode(e)
		default:
			_, err := fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\n", e.Serial, e.Kind, terminal.Clean(e.KeyID),
				terminal.Clean(strings.Join(e.Principals, ",")), left(now, e.ValidBefore))
			return err
		}
		return nil
	})
	if table != nil {
		err = errors.Join(err, table.Flush())
	}
	return err
}

func (c *certsListCmd) match(e ca.Entry, now time.Time) bool {
	return (c.Kind == "any" || e.Kind == profile.Kind(c.Kind)) &&
		(c.KeyID == "" || e.KeyID == c.KeyID) &&
		(c.Principal == "" || slices.Contains(e.Principals, c.Principal)) &&
		(!c.Valid || !now.Before(e.ValidAfter) && now.Before(e.ValidBefore))
}

// entries reads the ledger. Damaged lines are told on stderr and passed over: a
// crash may have torn one, which stays there for good.
func entries(stderr io.Writer, folder *caFolder, each func(ca.Entry) error) error {
	for e, err := range ledger.List(folder.LedgerPath()) {
		var damaged *ledger.DamagedError
		switch {
		case errors.As(err, &damaged):
			fmt.Fprintf(stderr, "%s: %s\n", terminal.Clean(damaged.Error()), terminal.Clean(damaged.Text))
		case err != nil:
			return err
		default:
			if err := each(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// certsShowCmd is "fleetca certs show".
type certsShowCmd struct {
	caDirFlag `embed:""`

	Serial string `arg:"" help:"Serial number of the certificate."`
	JSON   bool   `help:"Write JSON to stdout."`
}

// Help is shown below the flags' summary.
func (*certsShowCmd) Help() string { return exitCodesHelp }

// Run shows one certificate.
func (c *certsShowCmd) Run(a *program.App) error {
	serial, err := strconv.ParseUint(c.Serial, 10, 64)
	if err != nil || serial == 0 {
		return program.WithCode(program.ExitUsage, terminal.Hint(fmt.Errorf("%q is not a serial number", c.Serial), "fleetca certs list shows them"))
	}
	folder, err := c.openFolder(a)
	if err != nil {
		return err
	}
	found := false
	err = entries(a.Stderr, folder, func(e ca.Entry) error {
		if e.Serial != serial {
			return nil
		}
		found = true
		if c.JSON {
			return json.NewEncoder(a.Stdout).Encode(e)
		}
		return showEntry(a, e)
	})
	if err == nil && !found {
		err = fmt.Errorf("no certificate with serial %d in the ledger", serial)
	}
	return err
}

func showEntry(a *program.App, e ca.Entry) error {
	table := tabwriter.NewWriter(a.Stdout, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(table, "%s\t%s\n", name, terminal.Clean(value))
		}
	}
	row("serial", strconv.FormatUint(e.Serial, 10))
	row("kind", string(e.Kind))
	row("key ID", e.KeyID)
	row("principals", strings.Join(e.Principals, ","))
	row("valid after", e.ValidAfter.UTC().Format(time.RFC3339))
	row("valid before", e.ValidBefore.UTC().Format(time.RFC3339))
	row("left", left(a.Now(), e.ValidBefore))
	row("key", e.Key+" "+e.KeyType)
	row("CA", e.CA)
	for _, name := range slices.Sorted(maps.Keys(e.CriticalOptions)) {
		row(name, e.CriticalOptions[name])
	}
	row("extensions", strings.Join(e.Extensions, ","))
	row("recorded", e.Time.UTC().Format(time.RFC3339))
	row("by", e.By)
	return table.Flush()
}
