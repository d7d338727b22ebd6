package relay

import (
	"fmt"

	"golang.org/x/crypto/ssh"
)

// Types of channel requests.
//
// eow@openssh.com ends `ssh host yes | head` and is sent to OpenSSH only: by its
// client if our version, as server, begins with "SSH-2.0-OpenSSH", by sshd if
// the one that we have as client does. Without it such commands run for ever.
const (
	TypePty          = "pty-req"                    // RFC 4254 §6.2
	TypeX11          = "x11-req"                    // RFC 4254 §6.3.1
	TypeEnv          = "env"                        // RFC 4254 §6.4
	TypeShell        = "shell"                      // RFC 4254 §6.5, no payload
	TypeExec         = "exec"                       // RFC 4254 §6.5
	TypeSubsystem    = "subsystem"                  // RFC 4254 §6.5
	TypeWindowChange = "window-change"              // RFC 4254 §6.7
	TypeFlowControl  = "xon-xoff"                   // RFC 4254 §6.8
	TypeSignal       = "signal"                     // RFC 4254 §6.9
	TypeExitStatus   = "exit-status"                // RFC 4254 §6.10
	TypeExitSignal   = "exit-signal"                // RFC 4254 §6.10
	TypeBreak        = "break"                      // RFC 4335 §3
	TypeAgent        = "auth-agent-req@openssh.com" // PROTOCOL.agent, no payload
	TypeEndOfWrite   = "eow@openssh.com"            // PROTOCOL §2.1, no payload
)

// TypeKeepAlive is a request of either kind, without payload, that is only
// sent for its answer: OpenSSH's sshd asks on a channel while there is one.
const TypeKeepAlive = "keepalive@openssh.com"

// Types of global requests.
//
// Not all should be passed on. no-more-sessions@openssh.com is for whoever
// answers the client's channels to heed: OpenSSH's client sends it right behind
// the request for its session, so that it would overtake that on its way to the
// host, and sshd ends the connection of one that opens a session after it.
// hostkeys-00@openssh.com would teach clients the host's keys for what they
// know by another.
const (
	TypeTCPIPForward             = "tcpip-forward"                          // RFC 4254 §7.1
	TypeCancelTCPIPForward       = "cancel-tcpip-forward"                   // RFC 4254 §7.1
	TypeStreamLocalForward       = "streamlocal-forward@openssh.com"        // PROTOCOL §2.4
	TypeCancelStreamLocalForward = "cancel-streamlocal-forward@openssh.com" // PROTOCOL §2.4
	TypeNoMoreSessions           = "no-more-sessions@openssh.com"           // PROTOCOL §2.2, no payload
	TypeHostKeys                 = "hostkeys-00@openssh.com"                // PROTOCOL §2.5
	TypeHostKeysProve            = "hostkeys-prove-00@openssh.com"          // PROTOCOL §2.5
)

// Types of channels.
const (
	ChannelSession              = "session"                           // RFC 4254 §6.1, no payload
	ChannelX11                  = "x11"                               // RFC 4254 §6.3.2
	ChannelDirectTCPIP          = "direct-tcpip"                      // RFC 4254 §7.2
	ChannelForwardedTCPIP       = "forwarded-tcpip"                   // RFC 4254 §7.2
	ChannelDirectStreamLocal    = "direct-streamlocal@openssh.com"    // PROTOCOL §2.4
	ChannelForwardedStreamLocal = "forwarded-streamlocal@openssh.com" // PROTOCOL §2.4
	ChannelAgent                = "auth-agent@openssh.com"            // PROTOCOL.agent, no payload
)

// The payloads. Each is turned into bytes by [ssh.Marshal]. Strings are bytes
// as the peer chose them: any length that fits a packet, any characters.
type (
	// PtyRequest asks for a terminal, RFC 4254 §6.2. Columns and Rows are
	// characters, Width and Height pixels, Modes the encoded modes of §8.
	PtyRequest struct {
		Term                         string
		Columns, Rows, Width, Height uint32
		Modes                        string
	}
	// WindowChange tells of a terminal's new size, RFC 4254 §6.7.
	WindowChange struct {
		Columns, Rows, Width, Height uint32
	}
	// X11Request asks for X11 forwarding, RFC 4254 §6.3.1. Cookie is in hex.
	X11Request struct {
		SingleConnection bool
		Protocol, Cookie string
		Screen           uint32
	}
	// Env sets a variable of the environment, RFC 4254 §6.4.
	Env struct {
		Name, Value string
	}
	// Exec starts a command, RFC 4254 §6.5.
	Exec struct {
		Command string
	}
	// Subsystem starts a subsystem, RFC 4254 §6.5.
	Subsystem struct {
		Name string
	}
	// FlowControl says whether the client may stop output by itself,
	// RFC 4254 §6.8.
	FlowControl struct {
		ClientCanDo bool
	}
	// Signal is to be delivered to the program, RFC 4254 §6.9. The name has no
	// "SIG" before it.
	Signal struct {
		Name string
	}
	// Break asks for a break of so many milliseconds, RFC 4335 §3.
	Break struct {
		Length uint32
	}
	// ExitStatus tells how the program ended, RFC 4254 §6.10.
	ExitStatus struct {
		Status uint32
	}
	// ExitSignal tells which signal ended the program, RFC 4254 §6.10.
	ExitSignal struct {
		Signal            string
		Core              bool
		Message, Language string
	}
	// TCPIPForward asks for a listener on the host, and with the other type of
	// request for its end, RFC 4254 §7.1. Port 0 lets the host choose; then its
	// answer is a [TCPIPForwardReply].
	TCPIPForward struct {
		Address string
		Port    uint32
	}
	// TCPIPForwardReply is the port that the host chose, RFC 4254 §7.1.
	TCPIPForwardReply struct {
		Port uint32
	}
	// DirectTCPIP opens a channel to where the client wants to be connected,
	// RFC 4254 §7.2.
	DirectTCPIP struct {
		Host       string
		Port       uint32
		Origin     string
		OriginPort uint32
	}
	// ForwardedTCPIP opens a channel for a connection to a listener that was
	// asked for by [TCPIPForward], RFC 4254 §7.2.
	ForwardedTCPIP struct {
		Address    string
		Port       uint32
		Origin     string
		OriginPort uint32
	}
	// X11Open opens a channel for an X11 client on the host, RFC 4254 §6.3.2.
	X11Open struct {
		Origin     string
		OriginPort uint32
	}
	// StreamLocalForward asks for a listener on a Unix socket of the host, and
	// with the other type of request for its end, PROTOCOL §2.4.
	StreamLocalForward struct {
		Path string
	}
	// DirectStreamLocal opens a channel to a Unix socket of the host,
	// PROTOCOL §2.4.
	DirectStreamLocal struct {
		Path         string
		Reserved     string
		ReservedPort uint32
	}
	// ForwardedStreamLocal opens a channel for a connection to a listener that
	// was asked for by [StreamLocalForward], PROTOCOL §2.4.
	ForwardedStreamLocal struct {
		Path     string
		Reserved string
	}
)

// parse reads a payload of which nothing may be left over.
func parse[T any](name string, payload []byte) (T, error) {
	var v T
	if err := ssh.Unmarshal(payload, &v); err != nil {
		var none T
		return none, fmt.Errorf("reading %s of %d bytes: %w", name, len(payload), err)
	}
	return v, nil
}

// ParsePtyRequest reads the payload of pty-req.
func ParsePtyRequest(payload []byte) (PtyRequest, error) {
	return parse[PtyRequest](TypePty, payload)
}

// ParseWindowChange reads the payload of window-change.
func ParseWindowChange(payload []byte) (WindowChange, error) {
	return parse[WindowChange](TypeWindowChange, payload)
}

// ParseX11Request reads the payload of x11-req.
func ParseX11Request(payload []byte) (X11Request, error) {
	return parse[X11Request](TypeX11, payload)
}

// ParseEnv reads the payload of env.
func ParseEnv(payload []byte) (Env, error) {
	return parse[Env](TypeEnv, payload)
}

// ParseExec reads the payload of exec.
func ParseExec(payload []byte) (Exec, error) {
	return parse[Exec](TypeExec, payload)
}

// ParseSubsystem reads the payload of subsystem.
func ParseSubsystem(payload []byte) (Subsystem, error) {
	return parse[Subsystem](TypeSubsystem, payload)
}

// ParseFlowControl reads the payload of xon-xoff.
func ParseFlowControl(payload []byte) (FlowControl, error) {
	return parse[FlowControl](TypeFlowControl, payload)
}

// ParseSignal reads the payload of signal.
func ParseSignal(payload []byte) (Signal, error) {
	return parse[Signal](TypeSignal, payload)
}

// ParseBreak reads the payload of break.
func ParseBreak(payload []byte) (Break, error) {
	return parse[Break](TypeBreak, payload)
}

// ParseExitStatus reads the payload of exit-status.
func ParseExitStatus(payload []byte) (ExitStatus, error) {
	return parse[ExitStatus](TypeExitStatus, payload)
}

// ParseExitSignal reads the payload of exit-signal.
func ParseExitSignal(payload []byte) (ExitSignal, error) {
	return parse[ExitSignal](TypeExitSignal, payload)
}

// ParseTCPIPForward reads the payload of tcpip-forward and
// cancel-tcpip-forward.
func ParseTCPIPForward(payload []byte) (TCPIPForward, error) {
	return parse[TCPIPForward](TypeTCPIPForward, payload)
}

// ParseTCPIPForwardReply reads the answer to tcpip-forward with port 0.
func ParseTCPIPForwardReply(payload []byte) (TCPIPForwardReply, error) {
	return parse[TCPIPForwardReply]("answer to "+TypeTCPIPForward, payload)
}

// ParseDirectTCPIP reads what a direct-tcpip channel is opened with.
func ParseDirectTCPIP(payload []byte) (DirectTCPIP, error) {
	return parse[DirectTCPIP](ChannelDirectTCPIP, payload)
}

// ParseForwardedTCPIP reads what a forwarded-tcpip channel is opened with.
func ParseForwardedTCPIP(payload []byte) (ForwardedTCPIP, error) {
	return parse[ForwardedTCPIP](ChannelForwardedTCPIP, payload)
}

// ParseX11Open reads what an x11 channel is opened with.
func ParseX11Open(payload []byte) (X11Open, error) {
	return parse[X11Open](ChannelX11, payload)
}

// ParseStreamLocalForward reads the payload of streamlocal-forward@openssh.com
// and cancel-streamlocal-forward@openssh.com.
func ParseStreamLocalForward(payload []byte) (StreamLocalForward, error) {
	return parse[StreamLocalForward](TypeStreamLocalForward, payload)
}

// ParseDirectStreamLocal reads what a direct-streamlocal@openssh.com channel is
// opened with.
func ParseDirectStreamLocal(payload []byte) (DirectStreamLocal, error) {
	return parse[DirectStreamLocal](ChannelDirectStreamLocal, payload)
}

// ParseForwardedStreamLocal reads what a forwarded-streamlocal@openssh.com
// channel is opened with.
func ParseForwardedStreamLocal(payload []byte) (ForwardedStreamLocal, error) {
	return parse[ForwardedStreamLocal](ChannelForwardedStreamLocal, payload)
}
