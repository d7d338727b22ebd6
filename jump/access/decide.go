package access

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// extensions are those that sshd asks for.
var extensions = map[Action]string{
	Pty:              "permit-pty",
	LocalForwarding:  "permit-port-forwarding",
	RemoteForwarding: "permit-port-forwarding",
	AgentForwarding:  "permit-agent-forwarding",
	X11:              "permit-X11-forwarding",
}

var titles = map[Action]string{
	Connect:          "logging in",
	Shell:            "a shell",
	Exec:             "running commands",
	SFTP:             "sftp",
	SCP:              "scp",
	Pty:              "a terminal",
	LocalForwarding:  "local and dynamic port forwarding",
	RemoteForwarding: "remote port forwarding",
	AgentForwarding:  "agent forwarding to the host",
	X11:              "X11 forwarding",
}

// Decide answers a request. A role that denies wins over any that permit; what
// no role permits is refused. Several roles that permit add up: the strictest
// recording mode and the smallest limits of them are in force, and input is
// recorded if any of them says so.
func (r Rules) Decide(q Request) Decision {
	if d, ok := check(q); !ok {
		return d
	}
	wanted := wants(q)
	allowing, refusal := r.allowing(q, wanted)
	if len(allowing) == 0 {
		return refusal
	}
	// Denials come after: a person without any role hears just that.
	if d, denied := r.denied(q, allowing, wanted); denied {
		return d
	}
	if name, ok := extensions[q.Action]; ok {
		if _, has := q.Certificate.Extensions[name]; !has {
			return Decision{
				Code: CodeExtension, Action: q.Action, Role: allowing[0].Name,
				Reason: fmt.Sprintf("the certificate of %q does not permit %s: it lacks the extension %s",
					q.Identity, titles[q.Action], name),
			}
		}
	}
	return granted(q, allowing)
}

func check(q Request) (Decision, bool) {
	d := Decision{Code: CodeInvalid, Action: q.Action}
	switch {
	case q.Identity == "":
		d.Reason = "the certificate names no identity"
	case q.Host == "":
		d.Reason = "no host is given"
	case q.Login == "":
		d.Reason = "no login is given"
	case titles[q.Action] == "":
		d.Reason = fmt.Sprintf("there is no action %q", string(q.Action))
	default:
		return d, true
	}
	return d, false
}

// wants gives the actions of which one must be permitted and not denied.
func wants(q Request) []Action {
	switch q.Action {
	case Connect:
		return Actions()
	case Pty:
		return []Action{Shell, Exec}
	}
	forced, ok := forcedAction(q)
	switch {
	case !ok:
		return []Action{q.Action}
	case q.Action == Shell && forced == Exec:
		return []Action{Exec, Shell} // whoever may have a shell may run the command
	}
	return []Action{forced}
}

// forcedAction is what runs in place of the action, if the certificate forces
// a command: sshd runs that whatever is asked for.
func forcedAction(q Request) (Action, bool) {
	force := q.Certificate.ForceCommand
	if force == "" || !slices.Contains([]Action{Shell, Exec, SFTP, SCP}, q.Action) {
		return q.Action, false
	}
	if force == "internal-sftp" || strings.HasPrefix(force, "internal-sftp ") {
		return SFTP, true
	}
	return Exec, true
}

// allowing gives the roles that permit the request, or why there is none: how
// far the role got that got furthest.
func (r Rules) allowing(q Request, wanted []Action) ([]*Role, Decision) {
	var found []*Role
	furthest := CodeNoRole
	for i := range r.Roles {
		role := &r.Roles[i]
		if role.Deny {
			continue
		}
		code := role.permits(q, wanted)
		if code == CodeAllowed {
			found = append(found, role)
		}
		if rank(code) > rank(furthest) {
			furthest = code
		}
	}
	return found, refusal(q, furthest)
}

var order = []Code{CodeNoRole, CodeHost, CodeLogin, CodePrincipal, CodeAction, CodeAllowed}

func rank(c Code) int { return slices.Index(order, c) }

// permits tells what of a role that permits stands against the request first.
func (role *Role) permits(q Request, wanted []Action) Code {
	byIdentity := matchAny(role.Identities, q.Identity)
	byPrincipal := slices.ContainsFunc(q.Certificate.Principals, func(p string) bool {
		return matchAny(role.Principals, p)
	})
	switch {
	case !byIdentity && !byPrincipal:
		return CodeNoRole
	case role.Hosts == nil || !role.Hosts(q.Host):
		return CodeHost
	case !matchAny(role.Logins, q.Login):
		return CodeLogin
	case !byPrincipal && !slices.Contains(q.Certificate.Principals, q.Login):
		return CodePrincipal
	case !slices.ContainsFunc(wanted, func(a Action) bool { return slices.Contains(role.Permit, a) }):
		return CodeAction
	}
	return CodeAllowed
}

func refusal(q Request, code Code) Decision {
	d := Decision{Code: code, Action: q.Action}
	switch code {
	case CodeNoRole:
		d.Reason = fmt.Sprintf("no role is about %q", q.Identity)
	case CodeHost:
		d.Reason = fmt.Sprintf("no role lets %q on host %q", q.Identity, q.Host)
	case CodeLogin:
		d.Reason = fmt.Sprintf("no role lets %q log in as %q on host %q", q.Identity, q.Login, q.Host)
	case CodePrincipal:
		d.Reason = fmt.Sprintf("login %q is not among the principals of the certificate of %q (%s)",
			q.Login, q.Identity, quoted(q.Certificate.Principals))
	case CodeAction:
		d.Reason = fmt.Sprintf("no role permits %s to %q as %q on host %q", titles[q.Action], q.Identity, q.Login, q.Host)
		if forced, ok := forcedAction(q); ok && forced != q.Action {
			d.Code, d.Action = CodeForceCommand, forced
			d.Reason = fmt.Sprintf("the certificate of %q forces a command, and no role permits %s as %q on host %q",
				q.Identity, titles[forced], q.Login, q.Host)
		}
	}
	return d
}

// quoted lists names, and not so many that the line gets lost in them.
func quoted(names []string) string {
	const most = 8
	var words []string
	for _, n := range names[:min(len(names), most)] {
		words = append(words, fmt.Sprintf("%q", n))
	}
	switch {
	case len(names) == 0:
		return "it has none"
	case len(names) > most:
		words = append(words, "…")
	}
	return strings.Join(words, ", ")
}

// denied tells whether a role denies the request. Connect and Pty are denied
// once nothing is left that they would be good for.
func (r Rules) denied(q Request, allowing []*Role, wanted []Action) (Decision, bool) {
	var left []Action
	for _, a := range wanted {
		if slices.ContainsFunc(allowing, func(role *Role) bool { return slices.Contains(role.Permit, a) }) {
			left = append(left, a)
		}
	}
	for i := range r.Roles {
		role := &r.Roles[i]
		if !role.Deny || !role.about(q) {
			continue
		}
		left = slices.DeleteFunc(left, func(a Action) bool {
			return len(role.Permit) == 0 || slices.Contains(role.Permit, a)
		})
		if len(left) > 0 {
			continue
		}
		what := titles[q.Action]
		if len(role.Permit) == 0 {
			what = titles[Connect]
		}
		return Decision{
			Code: CodeDenied, Role: role.Name, Action: q.Action,
			Reason: fmt.Sprintf("role %q denies %s to %q as %q on host %q", role.Name, what, q.Identity, q.Login, q.Host),
		}, true
	}
	return Decision{}, false
}

// about tells whether a role that denies is about the request, but for the
// action.
func (role *Role) about(q Request) bool {
	return role.aboutPerson(q.Identity, q.Certificate.Principals) &&
		(role.Hosts == nil || role.Hosts(q.Host)) &&
		(len(role.Logins) == 0 || matchAny(role.Logins, q.Login))
}

func (role *Role) aboutPerson(identity string, principals []string) bool {
	if role.Deny && len(role.Identities) == 0 && len(role.Principals) == 0 {
		return true
	}
	return matchAny(role.Identities, identity) ||
		slices.ContainsFunc(principals, func(p string) bool { return matchAny(role.Principals, p) })
}

// granted adds up the roles that permit.
func granted(q Request, roles []*Role) Decision {
	d := Decision{
		Allowed: true, Code: CodeAllowed, Role: roles[0].Name, Recording: Off,
		Reason: fmt.Sprintf("role %q permits %s to %q as %q on host %q", roles[0].Name, titles[q.Action], q.Identity, q.Login, q.Host),
	}
	d.Action, _ = forcedAction(q)
	for _, role := range roles {
		d.Recording = stricter(d.Recording, role.Recording)
		d.RecordInput = d.RecordInput || role.RecordInput
		d.MaxSession = smaller(d.MaxSession, role.MaxSession)
		d.Idle = smaller(d.Idle, role.Idle)
	}
	return d
}

func stricter(a, b Mode) Mode {
	switch {
	case a == Off && b == Off:
		return Off
	case (a == Off || a == BestEffort) && (b == Off || b == BestEffort):
		return BestEffort
	}
	return Strict
}

func smaller(a, b time.Duration) time.Duration {
	if a <= 0 || b > 0 && b < a {
		return max(b, 0)
	}
	return a
}

// Reading says what somebody may do with recordings and the audit log: all
// that the roles about that person allow together. A role that denies, and
// says neither of which hosts, nor logins, nor actions, shuts a person out of
// this too.
func (r Rules) Reading(identity string, principals []string) ReadingDecision {
	d := ReadingDecision{Scope: None}
	if identity == "" {
		return d
	}
	for i := range r.Roles {
		role := &r.Roles[i]
		if !role.aboutPerson(identity, principals) {
			continue
		}
		if role.Deny {
			if role.Hosts == nil && len(role.Permit) == 0 && (len(role.Logins) == 0 || slices.Contains(role.Logins, "*")) {
				return ReadingDecision{Scope: None, Roles: []string{role.Name}}
			}
			continue
		}
		if role.reads() || role.ReadAudit {
			d.Roles = append(d.Roles, role.Name)
		}
		if role.reads() && d.Scope != All {
			d.Scope = role.Recordings
		}
		d.Audit = d.Audit || role.ReadAudit
	}
	for i := range r.Roles {
		// Removing goes with the widest scope only: a role that may remove a
		// person's own recordings says nothing about those of others.
		role := &r.Roles[i]
		if !role.Deny && role.RemoveRecordings && role.Recordings == d.Scope && role.reads() &&
			role.aboutPerson(identity, principals) {
			d.Remove = true
		}
	}
	return d
}

func (role *Role) reads() bool { return role.Recordings == Own || role.Recordings == All }
