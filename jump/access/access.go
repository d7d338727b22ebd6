// Package access decides what a person may do through the jump host: rules and
// a request in, a decision with its reason out. It is pure: it reads no file
// and no clock, and asks nobody.
//
// It refuses whatever no role permits, and whatever any role denies. An unset
// field permits nothing and denies everything: a role without hosts lets
// nobody anywhere, a role that denies without hosts denies them all. What the
// certificate says binds as well, as sshd would have it: its principals, its
// permit-… extensions and its forced command.
package access

import "time"

// Action is something that a person asks for on a host.
type Action string

// The actions. A role names all of them but Connect and Pty.
const (
	// Connect is logging in at all. It goes with any other action.
	Connect Action = "connect"
	// Shell is an interactive shell.
	Shell Action = "shell"
	// Exec is a command, rsync and git among them, and any subsystem other
	// than sftp.
	Exec Action = "exec"
	// SFTP is the sftp subsystem, which today's scp uses too.
	SFTP Action = "sftp"
	// SCP is scp over its old protocol: a command that is nothing but that.
	SCP Action = "scp"
	// Pty is a terminal. It goes with Shell or Exec.
	Pty Action = "pty"
	// LocalForwarding is a connection from the client to somewhere the host
	// reaches (ssh -L). Dynamic forwarding (ssh -D) is the same on the wire.
	LocalForwarding Action = "local_forwarding"
	// RemoteForwarding is a port on the host that leads to the client (ssh -R).
	RemoteForwarding Action = "remote_forwarding"
	// AgentForwarding is the client's agent at the host's service. The agent
	// that the jump host itself needs for logging in is not asked about here.
	AgentForwarding Action = "agent_forwarding"
	// X11 is X11 forwarding.
	X11 Action = "x11"
)

// Actions are those that a role may permit or deny, in the order in which they
// are shown.
func Actions() []Action {
	return []Action{Shell, Exec, SFTP, SCP, LocalForwarding, RemoteForwarding, AgentForwarding, X11}
}

// Mode says what becomes of a session that can't be recorded.
type Mode string

// The modes, strictest first. An unset or unknown one is taken for Strict.
const (
	// Strict ends the session.
	Strict Mode = "strict"
	// BestEffort lets it go on and marks the gap.
	BestEffort Mode = "best_effort"
	// Off records nothing.
	Off Mode = "off"
)

// Scope says whose recordings somebody may read.
type Scope string

// The scopes. An unset or unknown one is taken for None.
const (
	None Scope = "none"
	Own  Scope = "own"
	All  Scope = "all"
)

// Role says who may do what where, or, with Deny, who may not.
//
// It is about a person if one of Identities matches the identity, or one of
// Principals matches a principal of the certificate. In Identities, Principals
// and Logins '*' stands for any characters and '?' for one; case matters. In a
// role that denies, an empty list, and nil for Hosts, stand for all of them.
type Role struct {
	Name string
	Deny bool

	Identities []string
	// Principals lift the rule that the login must be a principal of the
	// certificate: hosts with AuthorizedPrincipalsFile let a principal in
	// under other logins.
	Principals []string
	Logins     []string
	// Hosts tells whether a host, by its inventory name, is meant.
	Hosts func(host string) bool
	// Permit is what is permitted, or, with Deny, what is denied.
	Permit []Action

	// What follows is for roles that permit.

	Recording   Mode
	RecordInput bool
	// MaxSession and Idle limit sessions; zero is no limit.
	MaxSession, Idle time.Duration

	// Recordings is whose recordings may be read; RemoveRecordings allows to
	// remove those as well.
	Recordings       Scope
	RemoveRecordings bool
	ReadAudit        bool
}

// Certificate is what decides of a user certificate. It has been verified
// before.
type Certificate struct {
	Principals   []string
	Extensions   map[string]string
	ForceCommand string
}

// Request is one thing that is asked for.
type Request struct {
	Identity    string
	Certificate Certificate
	Login       string
	// Host is the inventory name.
	Host   string
	Action Action
}

// Code says for programs why a decision is as it is.
type Code string

// The codes, the nearest to success last.
const (
	// CodeInvalid: the request itself lacks something.
	CodeInvalid Code = "invalid_request"
	// CodeNoRole: no role is about this person.
	CodeNoRole Code = "no_role"
	// CodeHost: none of the person's roles is about this host.
	CodeHost Code = "host"
	// CodeLogin: none of those permits this login.
	CodeLogin Code = "login"
	// CodePrincipal: the certificate doesn't list the login.
	CodePrincipal Code = "principal"
	// CodeAction: none of those permits this action.
	CodeAction Code = "action"
	// CodeForceCommand: the certificate forces a command, and none of those
	// permits commands.
	CodeForceCommand Code = "force_command"
	// CodeDenied: a role denies it.
	CodeDenied Code = "denied"
	// CodeExtension: the certificate lacks the extension for it.
	CodeExtension Code = "certificate_extension"
	// CodeAllowed: nothing stands against it.
	CodeAllowed Code = "allowed"
)

// Decision is the answer to a Request. The zero value refuses.
type Decision struct {
	Allowed bool
	// Reason is one line for people. What clients chose in it is quoted.
	Reason string
	Code   Code
	// Role is the first role that permits, or the one that denies.
	Role string
	// Action is what it comes down to on the host: the one asked for, unless
	// the certificate forces a command.
	Action Action

	// What follows is set if Allowed.

	Recording        Mode
	RecordInput      bool
	MaxSession, Idle time.Duration
}

// ReadingDecision is what somebody may do with recordings and the audit log.
// The zero value is nothing.
type ReadingDecision struct {
	Scope Scope
	// Remove is about recordings within Scope.
	Remove bool
	Audit  bool
	// Roles are the roles that say so.
	Roles []string
}

// Rules are the roles of a jump host. The zero value permits nothing.
type Rules struct {
	Roles []Role
}
