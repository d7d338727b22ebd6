package audit

import "time"

// Names of events. Others may be recorded too; docs/audit.md tells what each of
// these has in it.
const (
	EventAuth          = "auth"           // somebody logged in to the jump host, or failed to
	EventSessionStart  = "session.start"  // a session begins
	EventSessionEnd    = "session.end"    // a session has ended
	EventSessionReject = "session.reject" // a destination, session or forwarding was refused
	EventSessionJoin   = "session.join"   // somebody watches a running session
	EventSessionLeave  = "session.leave"  // and has stopped
	EventSessionStop   = "session.stop"   // somebody ends another one's session
	EventExec          = "exec"           // a command has ended
	EventSCP           = "scp"            // a file passed by the old scp protocol
	EventSFTP          = "sftp"           // an operation on a file over SFTP
	EventPort          = "port"           // a forwarding has ended
	EventResize        = "resize"         // a terminal changed its size

	EventShow   = "recording.show"   // somebody looks at the details of a recording
	EventPlay   = "recording.play"   // somebody plays a recording
	EventExport = "recording.export" // somebody exports a recording
	EventVerify = "recording.verify" // somebody verifies recordings
	EventRemove = "recording.remove" // somebody, or the retention, removes a recording

	EventAuditRead    = "audit.read"   // somebody searches or verifies the audit log
	EventDamage       = "audit.damage" // the audit log was found damaged; written by this package
	EventServerStart  = "server.start"
	EventServerReload = "server.reload"
	EventServerStop   = "server.stop"
)

// Event is what happened. Strings are as the client, host or person gave them:
// Record escapes them. Empty fields are left out of the line.
type Event struct {
	// Event is the kind of event; required.
	Event string `json:"event"`
	// Time is when it happened; Record sets it if it is zero.
	Time time.Time `json:"time"`
	// User is the identity: the key ID of a verified certificate. Empty if
	// nobody proved who they are.
	User string `json:"user,omitempty"`
	// Login is the account on the host.
	Login string `json:"login,omitempty"`
	// SID is the ID of the session, which is that of its recording.
	SID string `json:"sid,omitempty"`
	// Connection groups the sessions of one connection of a client.
	Connection string `json:"connection,omitempty"`
	// ServerID names the jump host; Record sets it.
	ServerID string `json:"server_id,omitempty"`
	// LocalAddr and RemoteAddr are the two ends of the client's connection.
	LocalAddr  string `json:"addr.local,omitempty"`
	RemoteAddr string `json:"addr.remote,omitempty"`
	// Host is the destination as the inventory names it.
	Host string `json:"host,omitempty"`
	// HostAddr is the address that was connected to.
	HostAddr string `json:"addr.host,omitempty"`
	// Way is how the client came: "subsystem", "direct-tcpip" or "login".
	Way string `json:"way,omitempty"`
	// Role is the name of the role that allowed or denied.
	Role string `json:"role,omitempty"`
	// Mode is the recording mode.
	Mode string `json:"mode,omitempty"`
	// Kind is what is recorded: "terminal", "command", "scp", "sftp", "forward".
	Kind string `json:"kind,omitempty"`

	// Serial and CA are those of the user certificate; the serial is text in
	// the line, since it has more digits than JavaScript's numbers hold.
	Serial uint64 `json:"cert.serial,omitempty,string"`
	CA     string `json:"cert.ca,omitempty"`

	// Success tells how it went; nil where that means nothing.
	Success *bool `json:"success,omitempty"`
	// Error is what went wrong, as the person saw it.
	Error string `json:"error,omitempty"`
	// Reason is why it was decided so, or why a session ended.
	Reason string `json:"reason,omitempty"`
	// Code is the reason for machines.
	Code string `json:"code,omitempty"`

	// Command is what the client asked to run, exactly, or what the certificate
	// forces.
	Command string `json:"command,omitempty"`
	// Asked is what the client asked to run where Command was forced instead.
	Asked string `json:"asked,omitempty"`
	// ExitCode is the exit status; nil if there was none. ExitError says why.
	ExitCode  *int   `json:"exitCode,omitempty"`
	ExitError string `json:"exitError,omitempty"`
	// Size is that of the terminal, columns:rows.
	Size string `json:"size,omitempty"`

	// Action is what was done to Path: "read", "write", "rename", "remove" …
	Action string `json:"action,omitempty"`
	// Path is a file as it was asked for, Target the other one of a rename or
	// link. Of a forwarding they are its two ends.
	Path   string `json:"path,omitempty"`
	Target string `json:"target,omitempty"`
	// Within is set for an scp to a path that may be a directory, which the
	// protocol doesn't tell: the file is Path, or Within if Path was one.
	Within string `json:"within,omitempty"`
	// Len is how many bytes of the file passed; nil where none could.
	Len *uint64 `json:"len,omitempty"`
	// SHA256 is the digest of the file, in hex, if the whole of it passed.
	SHA256 string `json:"sha256,omitempty"`
	// Result is "ok" or what the host answered.
	Result string `json:"result,omitempty"`

	// BytesIn came from the client, BytesOut went to it.
	BytesIn  uint64 `json:"bytes.in,omitempty"`
	BytesOut uint64 `json:"bytes.out,omitempty"`
	// Duration is how long it took, in seconds in the line.
	Duration Seconds `json:"duration,omitempty"`
	// Recording is the SHA-256 of the recording's last block, in hex, which
	// seals all blocks before it.
	Recording string `json:"recording,omitempty"`

	// Cut names the fields of which the line has only the beginning, the first
	// 16 KiB. Record sets it.
	Cut []string `json:"cut,omitempty"`
}

// Seconds is a duration that is a number of seconds in JSON.
type Seconds time.Duration
