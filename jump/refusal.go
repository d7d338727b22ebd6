package jump

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/jump/access"
	"github.com/fleetca/fleetca/jump/relay"
	"github.com/fleetca/fleetca/jump/route"
	"github.com/fleetca/fleetca/jump/store"
)

// refusal is a no, or a failure, that the person at the client gets to read:
// one line and a hint. The code is for the audit.
type refusal struct {
	code string
	text string
	hint string
}

// Error is the line.
func (r *refusal) Error() string { return r.text }

// lines is what appears on the person's terminal. It may be in raw mode, so
// lines end in a carriage return too.
func (r *refusal) lines() string {
	s := "fleetjump: " + terminal.Clean(r.text) + "\r\n"
	if r.hint != "" {
		s += "hint: " + terminal.Clean(r.hint) + "\r\n"
	}
	return s
}

// line is for places that have room for one line only.
func (r *refusal) line() string {
	if r.hint == "" {
		return terminal.Clean(r.text)
	}
	return terminal.Clean(r.text + " (" + r.hint + ")")
}

// Codes of refusals that the access rules don't give.
const (
	codePlainKey    = "plain_key"
	codeCertificate = "certificate"
	codeExpired     = "certificate_expired"
	codeRevoked     = "certificate_revoked"
	codeSource      = "source_address"
	codeIdentity    = "identity"
	codeNoAgent     = "no_agent"
	codeAgent       = "agent"
	codeDestination = "destination"
	codeUnreachable = "unreachable"
	codeHostKey     = "host_key"
	codeHostLogin   = "host_login"
	codeStoreFull   = "store_full"
	codeStore       = "store"
	codeLimit       = "limit"
	codeDraining    = "draining"
	codeProtocol    = "protocol"
	codeHost        = "host"
	codeAdmin       = "administrator"
)

// refusalOf turns what other packages return into what the person reads.
func refusalOf(err error) *refusal {
	if r := (*refusal)(nil); errors.As(err, &r) {
		return r
	}
	if r := destinationRefusal(err); r != nil {
		return r
	}
	if r := upstreamRefusal(err); r != nil {
		return r
	}
	switch {
	case errors.Is(err, store.ErrFull):
		return &refusal{
			codeStoreFull, "recording store full: sessions that can't be recorded are not allowed",
			"the jump host's administrator has to make room: fleetjump sessions rm, or a bigger disk",
		}
	case errors.Is(err, store.ErrFailed), errors.Is(err, store.ErrClosed):
		return &refusal{
			codeStore, "the recording store has failed: sessions that can't be recorded are not allowed",
			"the jump host's log says why",
		}
	case errors.Is(err, context.DeadlineExceeded):
		return &refusal{codeUnreachable, "the host did not answer in time", "try again, or ask whether the host is up"}
	}
	return &refusal{codeHost, err.Error(), ""}
}

// draining is told to whoever comes, or is still there, when the server stops.
func draining() *refusal {
	return &refusal{codeDraining, "the jump host is shutting down", "try again in a moment"}
}

// endingOf is what a person reads whose session is ended for a reason.
func endingOf(reason string) *refusal {
	for _, r := range []*refusal{draining(), refusalOf(store.ErrFull)} {
		if r.text == reason {
			return r
		}
	}
	return &refusal{codeAdmin, reason, ""}
}

// unaudited is the refusal of what can't be audited.
func unaudited(err error) *refusal {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return &refusal{codeStoreFull, "recording store full: what can't be audited is not allowed", refusalOf(store.ErrFull).hint}
	}
	return &refusal{codeStore, "the audit log can't be written: what can't be audited is not allowed", "the jump host's log says why"}
}

func destinationRefusal(err error) *refusal {
	var (
		unknown   *route.UnknownHostError
		ambiguous *route.AmbiguousHostError
		port      *route.PortError
		address   *route.AddressError
	)
	switch {
	case errors.As(err, &unknown):
		return &refusal{codeDestination, err.Error(), "use a name that the jump host's inventory lists"}
	case errors.As(err, &ambiguous):
		return &refusal{codeDestination, err.Error(), "use one of these full names"}
	case errors.As(err, &port):
		return &refusal{codeDestination, err.Error(), "leave the port out, or use the one in the inventory"}
	case errors.As(err, &address):
		return &refusal{codeDestination, err.Error(), "use the host's name in the inventory"}
	}
	return nil
}

func upstreamRefusal(err error) *refusal {
	var (
		unreachable *route.UnreachableError
		hostKey     *route.HostKeyError
		login       *route.LoginRefusedError
		noCert      *route.NoCertificateError
		agentErr    *route.AgentError
	)
	switch {
	case errors.As(err, &unreachable):
		return &refusal{codeUnreachable, err.Error(), "ask whether the host is up, and whether the jump host may reach it"}
	case errors.As(err, &hostKey):
		return &refusal{codeHostKey, err.Error(), hostKeyHint(hostKey)}
	case errors.As(err, &login):
		return &refusal{codeHostLogin, err.Error(), "the host has to trust the user CA (fleetca provision), have that login, and accept a principal of your certificate for it"}
	case errors.As(err, &noCert):
		if noCert.HoldsKey {
			return &refusal{codeAgent, err.Error(), "load the certificate too: ssh-add KEY again, with KEY-cert.pub beside it; an agent that then still lists no certificate (ssh-add -L) can't hold any, as GNOME Keyring and old gpg-agents: start ssh-agent"}
		}
		return &refusal{codeAgent, err.Error(), "load it with ssh-add KEY, with KEY-cert.pub beside it; agents that can't hold certificates (GNOME Keyring, old gpg-agent) don't do: start ssh-agent"}
	case errors.As(err, &agentErr):
		return &refusal{codeAgent, err.Error(), "keys that are bound to destinations (ssh-add -h) or need confirmation may refuse; try ssh-add KEY without"}
	}
	return nil
}

func hostKeyHint(e *route.HostKeyError) string {
	switch e.Problem {
	case route.PlainKey:
		return "the host has no host certificate yet: fleetca provision gives it one"
	case route.OtherCA:
		return "the host is certified by another CA than the jump host trusts: check host_cas in jump.yaml"
	case route.WrongName:
		return "add the name to the host's fleetca_principals and run fleetca provision, or use a name that the certificate lists"
	case route.Expired, route.NotYetValid:
		return "run fleetca provision to renew it, or check the clocks"
	case route.Revoked:
		return "the host's key was revoked: don't connect before its administrator has explained"
	}
	return "compare the host's key with what its administrator says"
}

// refusedByRule is the refusal of an access decision.
func refusedByRule(d access.Decision) *refusal {
	hint := "fleetjump access check explains a decision; ask who keeps jump.yaml"
	switch d.Code {
	case access.CodePrincipal:
		hint = "ask for a certificate that lists this login as a principal"
	case access.CodeExtension:
		hint = "your certificate was issued without that permission"
	}
	return &refusal{string(d.Code), d.Reason, hint}
}

// tell writes lines to a client that may not read; it waits a moment at most,
// so that a session's end is not held up by the one who is told of it.
func tell(w io.Writer, text string) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.WriteString(w, text)
	}()
	timer := time.NewTimer(tellTime)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		// The write ends when the channel is closed, which follows.
	}
}

const tellTime = 2 * time.Second

// exitRefused is the exit status of a session that didn't come about: what ssh
// itself exits with when a connection fails.
const exitRefused = 255

// end tells a session's client why it ends, and ends it.
func end(ch ssh.Channel, r *refusal) {
	tell(ch.Stderr(), r.lines())
	sendExit(ch, exitRefused)
	_ = ch.Close()
}

func sendExit(ch ssh.Channel, status uint32) {
	_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(relay.ExitStatus{Status: status}))
}

// oneLine is for channel rejections.
func reject(nc ssh.NewChannel, reason ssh.RejectionReason, r *refusal) {
	_ = nc.Reject(reason, strings.TrimSpace(r.line()))
}

func refusef(code, hint, format string, args ...any) *refusal {
	return &refusal{code, fmt.Sprintf(format, args...), hint}
}
