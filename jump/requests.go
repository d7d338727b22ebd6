package jump

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/jump/access"
	"github.com/fleetca/fleetca/jump/audit"
	"github.com/fleetca/fleetca/jump/recording"
	"github.com/fleetca/fleetca/jump/relay"
)

// request decides on a request of either side of a session.
func (s *session) request(ctx context.Context, from relay.Side, r *ssh.Request) relay.Verdict {
	if from == relay.Upstream {
		return s.fromHost(r)
	}
	action, refused := s.fromClient(ctx, r)
	if refused != nil {
		if s.refusals++; s.refusals > maxRefusals {
			s.stop(&refusal{codeProtocol, "too many requests that are not permitted", ""})
			return relay.Verdict{}
		}
		s.link.refuse(ctx, refused)
		tell(s.ch.Stderr(), refused.lines())
	}
	verdict := relay.Verdict{Action: action}
	if action == relay.Pass && relay.StartsProgram(r.Type) {
		verdict.Answered = func(ok bool, _ []byte) { s.declined.Store(!ok) }
	}
	return verdict
}

// maxRefusals is how many requests of one session are refused before it is ended.
const maxRefusals = 16

// fromHost decides on a request of the host's. What is passed on is made anew of
// what was understood, so that nothing unseen travels with it; of several ends
// only the first is one.
func (s *session) fromHost(r *ssh.Request) relay.Verdict {
	pass := func(payload any) relay.Verdict {
		return relay.Verdict{Action: relay.Pass, Payload: ssh.Marshal(payload)}
	}
	switch r.Type {
	case relay.TypeExitStatus:
		if e, err := relay.ParseExitStatus(r.Payload); err == nil && s.setExit(recording.Exit{Status: &e.Status}) {
			return pass(e)
		}
	case relay.TypeExitSignal:
		e, err := relay.ParseExitSignal(r.Payload)
		if err != nil {
			return relay.Verdict{}
		}
		e.Signal, e.Message, e.Language = terminal.Clean(e.Signal), terminal.Clean(e.Message), ""
		if s.setExit(recording.Exit{Signal: e.Signal, Core: e.Core, Message: e.Message}) {
			return pass(e)
		}
	case relay.TypeFlowControl:
		if e, err := relay.ParseFlowControl(r.Payload); err == nil {
			return pass(e)
		}
	case relay.TypeKeepAlive, relay.TypeEndOfWrite:
		return relay.Verdict{Action: relay.Pass, Payload: []byte{}}
	}
	return relay.Verdict{}
}

// setExit keeps the first end.
func (s *session) setExit(e recording.Exit) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.exit.Status != nil || s.exit.Signal != "" {
		return false
	}
	s.exit = e
	return true
}

// fromClient decides on a request of the client's. A refusal is told and
// audited.
func (s *session) fromClient(ctx context.Context, r *ssh.Request) (relay.Action, *refusal) {
	switch r.Type {
	case relay.TypeShell, relay.TypeExec, relay.TypeSubsystem:
		if refused := s.start(ctx, r); refused != nil {
			// The client reads the reason in place of its program's output. After
			// a no, OpenSSH would show nothing of what follows.
			// The answer goes out before the session is cut off.
			answered(r)
			s.stop(s.link.refuse(ctx, refused))
			return relay.Drop, nil
		}
		return relay.Pass, nil
	case relay.TypePty:
		return s.wantPty(r)
	case relay.TypeAgent:
		s.link.offerAgent(s.link.down)
		if d := s.link.decide(access.AgentForwarding); !d.Allowed {
			// The agent is for the jump host itself, then; nothing was refused
			// that the person would miss.
			return relay.Drop, nil
		}
		s.link.grants.allow(relay.ChannelAgent)
		return relay.Pass, nil
	case relay.TypeX11:
		if d := s.link.decide(access.X11); !d.Allowed {
			return relay.Refuse, refusedByRule(d)
		}
		s.link.grants.allow(relay.ChannelX11)
		return relay.Pass, nil
	case relay.TypeEnv:
		e, err := relay.ParseEnv(r.Payload)
		if err != nil || s.started() || len(s.env) >= maxEnv || !s.link.outer.acceptsEnv(e.Name) {
			return relay.Refuse, nil // as sshd: without a word
		}
		s.env = append(s.env, e)
		return relay.Pass, nil
	case relay.TypeWindowChange:
		return s.resize(ctx, r), nil
	case relay.TypeSignal:
		if sig, err := relay.ParseSignal(r.Payload); err == nil && s.started() {
			if err := s.rec.Signal(sig.Name); err == nil {
				return relay.Pass, nil
			}
		}
		return relay.Refuse, nil
	case relay.TypeBreak, relay.TypeKeepAlive, relay.TypeEndOfWrite, relay.TypeFlowControl:
		return relay.Pass, nil
	}
	return relay.Refuse, nil
}

func (s *session) wantPty(r *ssh.Request) (relay.Action, *refusal) {
	p, err := relay.ParsePtyRequest(r.Payload)
	if err != nil || s.started() {
		return relay.Refuse, nil
	}
	if d := s.link.decide(access.Pty); !d.Allowed {
		return relay.Refuse, refusedByRule(d)
	}
	s.pty = &p
	return relay.Pass, nil
}

func (s *session) resize(ctx context.Context, r *ssh.Request) relay.Action {
	w, err := relay.ParseWindowChange(r.Payload)
	if err != nil || s.pty == nil {
		return relay.Refuse
	}
	same := s.pty.Columns == w.Columns && s.pty.Rows == w.Rows
	s.pty.Columns, s.pty.Rows = w.Columns, w.Rows
	if s.started() && !same {
		if err := s.rec.Resize(w.Columns, w.Rows); err != nil {
			return relay.Refuse
		}
		// Whoever drags a window makes many; the recording has them all.
		if now := s.link.outer.server.now(); now.Sub(s.resized) >= time.Second {
			s.resized = now
			e := s.event(audit.EventResize)
			e.Size = fmt.Sprintf("%d:%d", w.Columns, w.Rows)
			_ = s.link.outer.server.record(ctx, e)
		}
	}
	return relay.Pass
}

// maxEnv is how many variables a session may set, as in sshd.
const maxEnv = 128

func (s *session) started() bool {
	select {
	case <-s.recSet:
		return true
	default:
		return false
	}
}

// acceptsEnv is sshd's AcceptEnv.
func (o *outer) acceptsEnv(name string) bool {
	for _, pattern := range o.set.config.AcceptEnv {
		if access.Match(pattern, name) {
			return true
		}
	}
	return false
}
