package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca/profile"
	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/jump/access"
	"github.com/fleetca/fleetca/jump/config"
	"github.com/fleetca/fleetca/jump/route"
)

// accessCmd is "fleetjump access".
type accessCmd struct {
	Check accessCheckCmd `cmd:"" help:"Explain what a person may do on a host."`
}

// accessCheckCmd is "fleetjump access check".
type accessCheckCmd struct {
	Identity    string   `xor:"who" required:"" placeholder:"ID" help:"Who: the key ID of the certificate."`
	Certificate string   `xor:"who" required:"" type:"path" placeholder:"FILE" help:"Take identity, principals, extensions and forced command from this user certificate."`
	Login       string   `required:"" placeholder:"LOGIN" help:"As whom on the host."`
	Host        string   `required:"" placeholder:"HOST" help:"Where: a name that people would type."`
	Principal   []string `placeholder:"NAME" help:"A principal of the certificate; may be repeated (default: the login alone)."`
	Action      string   `placeholder:"ACTION" help:"Ask about this alone, such as shell or local_forwarding (default: about all)."`
	JSON        bool     `help:"Write the decisions as JSON to stdout."`
}

// Help is shown below the flags' summary.
func (*accessCheckCmd) Help() string {
	return `fleetjump access check --identity joe --login root --host web01
    supposes a certificate with the principal root and the usual extensions.
fleetjump access check --certificate ~/.ssh/id_ed25519-cert.pub --login root --host web01
    reads them. Whether the certificate is valid isn't looked at.

It asks the roles of jump.yaml just as the server does. The host has to agree as
well: its sshd has the last word.

The exit code is 0 if the action, or logging in at all, is permitted, and 1 if
it is not.

` + exitCodesHelp
}

// allActions are those that may be asked about.
func allActions() []access.Action {
	return slices.Concat([]access.Action{access.Connect, access.Pty}, access.Actions())
}

// answer is the JSON of one decision.
type answer struct {
	Action      access.Action `json:"action"`
	Allowed     bool          `json:"allowed"`
	Code        access.Code   `json:"code"`
	Reason      string        `json:"reason"`
	Role        string        `json:"role,omitempty"`
	RunsAs      access.Action `json:"runs_as,omitempty"`
	Recording   access.Mode   `json:"recording,omitempty"`
	RecordInput bool          `json:"record_input,omitempty"`
	MaxSession  string        `json:"max_session,omitempty"`
	Idle        string        `json:"idle,omitempty"`
}

// explained is the JSON of a check.
type explained struct {
	Identity   string   `json:"identity"`
	Principals []string `json:"principals"`
	Login      string   `json:"login"`
	Host       string   `json:"host"`
	Allowed    bool     `json:"allowed"`
	Reason     string   `json:"reason"`
	Answers    []answer `json:"answers"`
	Reading    struct {
		Scope  access.Scope `json:"recordings"`
		Remove bool         `json:"remove_recordings"`
		Audit  bool         `json:"read_audit"`
	} `json:"reading"`
}

// Run explains a decision.
func (c *accessCheckCmd) Run(ctx context.Context, a *program.App, path configPath) error {
	if c.Action != "" && !slices.Contains(allActions(), access.Action(c.Action)) {
		return program.WithCode(program.ExitUsage, fmt.Errorf("--action: there is no %q; there are %s", c.Action, actionNames()))
	}
	q, err := c.request()
	if err != nil {
		return program.WithCode(program.ExitUsage, err)
	}
	cfg, warnings, err := config.Loader{Now: a.Now}.Load(ctx, string(path))
	warnConfig(a, warnings)
	if err != nil {
		return configError(err)
	}
	router, err := route.New(route.Config{Inventory: cfg.Inventory, HostCAs: cfg.HostCAs, RequireCertificate: cfg.RequireHostCertificate})
	if err != nil {
		return err
	}
	destination, err := router.Resolve(c.Host, 0)
	if err != nil {
		return terminal.Hint(err, "people reach hosts by their names in the inventory, and by the aliases that it gives them")
	}
	q.Host = destination.Host.Name
	out := explain(cfg.Rules, q, access.Action(c.Action))
	if c.JSON {
		err = json.NewEncoder(a.Stdout).Encode(out)
	} else {
		err = out.print(a, c.Action == "")
	}
	if err == nil && !out.Allowed {
		err = program.WithCode(program.ExitFailed, program.ErrSilent)
	}
	return err
}

// request is what is asked for, but for host and action.
func (c *accessCheckCmd) request() (access.Request, error) {
	q := access.Request{Identity: c.Identity, Login: c.Login}
	if c.Certificate != "" {
		cert, err := readCertificate(c.Certificate)
		if err != nil {
			return q, err
		}
		if len(c.Principal) > 0 {
			return q, errors.New("--certificate and --principal exclude each other")
		}
		q.Identity = cert.KeyId
		q.Certificate = access.Certificate{
			Principals: cert.ValidPrincipals, Extensions: cert.Extensions, ForceCommand: cert.CriticalOptions["force-command"],
		}
		return q, nil
	}
	q.Certificate.Principals = c.Principal
	if len(c.Principal) == 0 {
		q.Certificate.Principals = []string{c.Login}
	}
	q.Certificate.Extensions = map[string]string{
		"permit-pty": "", "permit-port-forwarding": "", "permit-agent-forwarding": "", "permit-X11-forwarding": "",
	}
	return q, nil
}

func readCertificate(path string) (*ssh.Certificate, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return nil, err
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(data)
	cert, ok := key.(*ssh.Certificate)
	if err != nil || !ok || cert.CertType != ssh.UserCert {
		return nil, fmt.Errorf("%q is not a user certificate", path)
	}
	return cert, nil
}

func explain(rules access.Rules, q access.Request, only access.Action) explained {
	out := explained{Identity: q.Identity, Principals: q.Certificate.Principals, Login: q.Login, Host: q.Host}
	q.Action = only
	if only == "" {
		q.Action = access.Connect
	}
	first := rules.Decide(q)
	out.Allowed, out.Reason = first.Allowed, first.Reason
	for _, action := range allActions() {
		if only != "" && action != only {
			continue
		}
		q.Action = action
		d := rules.Decide(q)
		one := answer{Action: action, Allowed: d.Allowed, Code: d.Code, Reason: d.Reason, Role: d.Role}
		if d.Allowed {
			one.Recording, one.RecordInput = d.Recording, d.RecordInput
			one.MaxSession, one.Idle = formatLimit(d.MaxSession), formatLimit(d.Idle)
			if d.Action != action {
				one.RunsAs = d.Action
			}
		}
		out.Answers = append(out.Answers, one)
	}
	reading := rules.Reading(q.Identity, q.Certificate.Principals)
	out.Reading.Scope, out.Reading.Remove, out.Reading.Audit = reading.Scope, reading.Remove, reading.Audit
	return out
}

func formatLimit(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return profile.FormatTTL(d)
}

// print tells the answers to a person, a line each. Where logging in is refused
// the rest is as well, for the same reason.
func (e *explained) print(a *program.App, all bool) error {
	fmt.Fprintf(a.Stdout, "%s as %s on %s\n", terminal.Clean(e.Identity), terminal.Clean(e.Login), terminal.Clean(e.Host))
	w := tabwriter.NewWriter(a.Stdout, 0, 0, 2, ' ', 0)
	for i, one := range e.Answers {
		verdict := "yes"
		if !one.Allowed {
			verdict = "no"
		}
		if i == 0 || !all || e.Allowed {
			fmt.Fprintf(w, "%s\t%s\t%s\n", one.Action, verdict, terminal.Clean(one.text()))
		}
	}
	if err := w.Flush(); err != nil || !all {
		return err
	}
	what := string(e.Reading.Scope)
	if e.Reading.Remove {
		what += ", to remove as well"
	}
	if e.Reading.Audit {
		what += "; the audit log"
	}
	_, err := fmt.Fprintf(a.Stdout, "reads recordings: %s\n", what)
	return err
}

func (one *answer) text() string {
	if !one.Allowed {
		return one.Reason
	}
	parts := []string{"role " + one.Role}
	if one.RunsAs != "" {
		parts = append(parts, fmt.Sprintf("as %s, since the certificate forces a command", one.RunsAs))
	}
	switch {
	case one.Action == access.Connect || one.Action == access.Pty:
		return strings.Join(parts, "; ")
	case one.Recording == access.Off:
		parts = append(parts, "not recorded")
	case one.RecordInput:
		parts = append(parts, fmt.Sprintf("recorded with input (%s)", one.Recording))
	default:
		parts = append(parts, fmt.Sprintf("recorded (%s)", one.Recording))
	}
	if one.MaxSession != "" {
		parts = append(parts, "ends after "+one.MaxSession)
	}
	if one.Idle != "" {
		parts = append(parts, "ends when idle for "+one.Idle)
	}
	return strings.Join(parts, "; ")
}

func actionNames() string {
	var names []string
	for _, action := range allActions() {
		names = append(names, string(action))
	}
	return strings.Join(names, ", ")
}
