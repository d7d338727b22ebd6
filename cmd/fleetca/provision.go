package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca/profile"
	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/inventory"
	"github.com/fleetca/fleetca/inventory/sshconfig"
	"github.com/fleetca/fleetca/provision"
	"github.com/fleetca/fleetca/provision/remote"
)

// provisionCmd is "fleetca provision".
type provisionCmd struct {
	inventoryFlags `embed:""`
	caFlags        `embed:""`

	Check     bool `help:"Change nothing: say what would be done. Exit code 3 if there is something."`
	Diff      bool `help:"Show each change as a unified diff."`
	ListHosts bool `help:"List the selected hosts and exit."`
	JSON      bool `help:"Write a JSON line a host and step to stdout."`

	Forks          int           `placeholder:"N" help:"Work on N hosts at once (default: by this machine's processors)."`
	Serial         string        `placeholder:"SIZES" help:"Take the hosts in batches: a number, a percentage, or a list such as 1,10,25%."`
	FailFast       bool          `help:"Start no further host after the first failure."`
	MaxFailPercent int           `default:"-1" placeholder:"N" help:"Start no further host when more than N percent of a batch have failed."`
	Timeout        time.Duration `default:"30s" help:"How long to try to connect to a host."`
	HostTimeout    time.Duration `default:"5m" help:"How long one host may take altogether."`
	RollbackAfter  time.Duration `default:"60s" help:"How long a host waits for its confirmation before it puts itself back."`

	AskPass           bool   `short:"k" help:"Ask for the SSH password."`
	AskBecomePass     bool   `short:"K" help:"Ask for the sudo password."`
	AcceptNewHostKeys bool   `help:"Accept, and note in known_hosts, the keys of hosts that are not in it yet. A changed key is always refused."`
	SSHConfig         string `name:"ssh-config" type:"path" placeholder:"FILE" help:"Read FILE in place of ~/.ssh/config and the system's."`
}

// Help is shown below the flags' summary.
func (*provisionCmd) Help() string {
	return `Every selected sshd is made to trust the user CA and to show certificates of
the host CA. A host that can't be verified afterwards on a new connection puts
itself back. A second run changes nothing.

` + exitCodesHelp
}

// Run provisions the selected hosts.
func (c *provisionCmd) Run(ctx context.Context, a *program.App) error {
	hosts, err := c.selected(ctx, a)
	if err != nil {
		return err
	}
	if c.ListHosts {
		for _, h := range hosts {
			fmt.Fprintln(a.Stdout, terminal.Clean(h.Name))
		}
		return nil
	}
	folder, err := c.openFolder(a)
	if err != nil {
		return err
	}
	defer folder.close()
	cfg, err := c.config(ctx, a, folder, hosts)
	if err != nil {
		return err
	}
	defer cfg.Dialer.Close()
	board := terminal.NewBoard(a.Term, a.Stderr, len(hosts), a.Now)
	events := newJSONLog(a.Stdout, c.Diff)
	cfg.Observe = func(e provision.Event) {
		switch {
		case e.State != "":
			board.Done(e.Host, e.Err != nil)
		case e.Step == nil && e.Note == "":
			board.Doing(e.Host, string(e.Phase))
		}
		if c.JSON {
			events.event(e)
		}
	}
	p, err := provision.New(cfg)
	if err != nil {
		board.Close()
		return program.WithCode(program.ExitUsage, err)
	}
	report := p.Run(ctx, hosts)
	board.Close()
	out := recap{out: a.Stdout, term: a.Term, report: report}
	if c.JSON {
		events.notStarted(a.Now(), report)
		out.out = a.Stderr
	} else {
		if c.Check || c.Diff {
			out.plans()
		}
		if c.Diff {
			out.diffs()
		}
	}
	out.states()
	return outcome(report)
}

// outcome is the exit code. What failed has been told by the recap.
func outcome(report *provision.Report) error {
	switch {
	case report.Interrupted:
		return program.WithCode(program.ExitInterrupted, errors.New("interrupted"))
	case report.Err() != nil || report.Count(provision.NotStarted) > 0:
		return program.WithCode(program.ExitFailed, program.ErrSilent)
	case report.Count(provision.WouldChange) > 0:
		return program.WithCode(exitChanges, program.ErrSilent)
	}
	return nil
}

// selected are the hosts to work on. Every variable that fleetca uses is
// checked before the first connection is made.
func (c *provisionCmd) selected(ctx context.Context, a *program.App) ([]*inventory.Host, error) {
	inv, err := c.load(ctx)
	if err != nil {
		return nil, err
	}
	warnInventory(a, inv)
	hosts, err := c.choose(inv)
	if err != nil {
		return nil, err
	}
	var problems []error
	for _, h := range hosts {
		settings, err := h.Settings()
		if err == nil {
			_, err = provision.TTL(h, settings, time.Hour)
		}
		if err != nil {
			problems = append(problems, err)
		}
	}
	return hosts, program.WithCode(program.ExitUsage, errors.Join(problems...))
}

func (c *provisionCmd) config(ctx context.Context, a *program.App, folder *caFolder, hosts []*inventory.Host) (provision.Config, error) {
	fail := func(err error) (provision.Config, error) { return provision.Config{}, err }
	batches, err := provision.ParseBatches(c.Serial)
	if err != nil {
		return fail(program.WithCode(program.ExitUsage, fmt.Errorf("--serial: %w", err)))
	}
	userCA, hostCA, err := folder.provisioningKeys()
	if err != nil {
		return fail(err)
	}
	files, err := sshconfig.Load(c.sshFiles())
	if err != nil {
		return fail(program.WithCode(program.ExitUsage, err))
	}
	dialing := remote.Config{
		SSHConfig: files, HostCAs: []ssh.PublicKey{hostCA},
		AcceptNewHostKeys: c.AcceptNewHostKeys, Timeout: c.Timeout,
	}
	if err := c.prompts(ctx, &dialing, a); err != nil {
		return fail(err)
	}
	cfg := provision.Config{
		HostCA: hostCA, UserCAs: []ssh.PublicKey{userCA},
		Forks: c.Forks, RollbackAfter: c.RollbackAfter, HostTimeout: c.HostTimeout,
		Check: c.Check, Batches: batches, MaxFailPercent: c.MaxFailPercent, Now: a.Now,
	}
	if c.FailFast {
		cfg.MaxFailPercent = 0
	}
	if cfg.DefaultTTL, err = folder.hostTTL(); err != nil {
		return fail(err)
	}
	if err := c.checkTTLs(folder, hosts); err != nil {
		return fail(program.WithCode(program.ExitUsage, err))
	}
	if !c.Check {
		if cfg.Authority, err = folder.hostAuthority(ctx, a); err != nil {
			return fail(err)
		}
	}
	cfg.Dialer, err = remote.New(dialing)
	return cfg, err
}

// checkTTLs refuses lifetimes that the CA won't sign, before any host is asked.
func (c *provisionCmd) checkTTLs(folder *caFolder, hosts []*inventory.Host) error {
	limits, err := folder.Rules().For(profile.Host)
	if err != nil {
		return err
	}
	var problems []error
	for _, h := range hosts {
		settings, err := h.Settings()
		if err != nil {
			return err
		}
		ttl, err := provision.TTL(h, settings, limits.Default)
		if err == nil && ttl > limits.Max {
			err = fmt.Errorf("%s: fleetca_cert_ttl: %s is more than the CA allows, %s",
				h.Position("fleetca_cert_ttl"), settings.CertTTL, profile.FormatTTL(limits.Max))
		}
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// sshFiles are ssh's own, or the one that takes the place of both.
func (c *provisionCmd) sshFiles() sshconfig.Files {
	if c.SSHConfig == "" {
		return sshconfig.Files{}
	}
	return sshconfig.Files{User: c.SSHConfig, System: os.DevNull}
}

// prompts asks for the passwords that were announced, each once for the whole
// fleet. Passphrases of key files are asked for when a key is first needed.
func (c *provisionCmd) prompts(ctx context.Context, cfg *remote.Config, a *program.App) error {
	cfg.Passphrase = func(host context.Context, file string) ([]byte, error) {
		// Hosts that are under way outlive a Ctrl-C; a question must not.
		asking, cancel := context.WithCancel(host)
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		return a.Term.Secret(asking, "passphrase for "+file)
	}
	if c.AskPass {
		password, err := a.Term.Secret(ctx, "SSH password")
		if err != nil {
			return err
		}
		cfg.Password = func(context.Context, string) (string, error) { return string(password), nil }
	}
	if c.AskBecomePass {
		password, err := a.Term.Secret(ctx, "sudo password")
		if err != nil {
			return err
		}
		cfg.BecomePassword = func(context.Context) ([]byte, error) { return password, nil }
	}
	return nil
}
