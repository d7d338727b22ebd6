package jump

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/jump/access"
	"github.com/fleetca/fleetca/jump/audit"
	"github.com/fleetca/fleetca/jump/live"
	"github.com/fleetca/fleetca/jump/recording"
	"github.com/fleetca/fleetca/jump/relay"
	"github.com/fleetca/fleetca/jump/store"
	"github.com/fleetca/fleetca/jump/transfer"
)

// program is what a client asks to run.
type program struct {
	action  access.Action
	kind    store.Kind
	command string // what will run: as the client gave it, or forced; empty for a shell
	asked   string // what the client gave where another command is forced
	scp     *transfer.SCP
}

// programOf reads a shell, exec or subsystem request. A command line is scp only
// if all of it is: what merely begins with scp is a command like any other.
func (s *session) programOf(r *ssh.Request) (program, error) {
	p := program{action: access.Shell, kind: store.KindCommand}
	if s.pty != nil {
		p.kind = store.KindTerminal
	}
	switch r.Type {
	case relay.TypeExec:
		e, err := relay.ParseExec(r.Payload)
		if err != nil {
			return p, err
		}
		p.action, p.command = access.Exec, e.Command
		if scp, ok := transfer.ParseSCP(e.Command); ok {
			p.action = access.SCP
			if s.pty == nil {
				p.kind, p.scp = store.KindSCP, &scp
			}
		}
	case relay.TypeSubsystem:
		e, err := relay.ParseSubsystem(r.Payload)
		if err != nil {
			return p, err
		}
		p.action, p.command = access.Exec, "subsystem "+e.Name
		if e.Name == "sftp" {
			if s.pty != nil {
				return p, errors.New("sftp and a terminal don't go together")
			}
			p.action, p.kind = access.SFTP, store.KindSFTP
		}
	}
	return p, nil
}

// start decides on the program, and begins the recording before it is passed on.
func (s *session) start(ctx context.Context, r *ssh.Request) *refusal {
	if s.started() {
		return &refusal{codeProtocol, "there is a program on this channel already", ""}
	}
	p, err := s.programOf(r)
	if err != nil {
		return &refusal{codeProtocol, err.Error(), ""}
	}
	d := s.link.decide(p.action)
	if p.action == access.SCP && d.Code == access.CodeAction {
		// Whoever may run commands may run this one.
		d = s.link.decide(access.Exec)
	}
	if !d.Allowed {
		return refusedByRule(d)
	}
	if forced := s.link.who.certificate().ForceCommand; forced != "" {
		// The host runs that in place of what was asked for.
		p.asked, p.command, p.scp = p.command, forced, nil
		if p.kind != store.KindTerminal {
			p.kind = store.KindCommand
			if d.Action == access.SFTP {
				p.kind = store.KindSFTP // internal-sftp
			}
		}
	}
	s.decision, s.command, s.asked = d, p.command, p.asked
	return s.beginRecording(ctx, p)
}

func (s *session) beginRecording(ctx context.Context, p program) *refusal {
	l := s.link
	srv := l.outer.server
	entry := l.entry(s.id, p.kind, s.decision)
	options := recording.Options{
		Session: entry, Mode: entry.Mode, Input: s.decision.RecordInput,
		SCP: p.scp, OnFile: s.file, OnFallback: func(why string) error { return s.fallback(ctx, why) },
		Whole: p.action == access.Shell,
	}
	if p.asked != "" {
		options.Asked = []byte(p.asked)
	}
	for _, e := range s.env {
		options.Env = append(options.Env, recording.EnvVar{Name: e.Name, Value: e.Value})
	}
	if p.command != "" {
		options.Command = []byte(p.command)
	}
	if s.pty != nil {
		options.Term = s.pty.Term
		options.Session.Columns, options.Session.Rows = s.pty.Columns, s.pty.Rows
	}
	rec, err := srv.recorder.Start(ctx, options)
	if err != nil {
		return refusalOf(err)
	}
	s.rec, s.begun = rec, entry.Started
	s.active.Store(entry.Started.UnixNano())
	e := l.startEvent(entry)
	e.Command, e.Asked = p.command, p.asked
	if s.pty != nil {
		e.Size = fmt.Sprintf("%d:%d", s.pty.Columns, s.pty.Rows)
	}
	if refused := srv.recordStart(ctx, e, rec); refused != nil {
		return refused
	}
	if s.banner != "" {
		_ = rec.Note("banner", s.banner)
	}
	close(s.recSet)
	s.remove = srv.live.Add(live.Entry{Session: rec.Session(), End: func(reason string) {
		s.stop(endingOf(reason))
	}})
	if refused := l.outer.closing(); refused != nil {
		s.stop(refused) // it began while the others were being told
	}
	b := bounds{"session", s.decision, rec, &s.active, srv.now, s.stop}
	s.watching.Go(func() { b.watch(ctx) })
	s.log.Info("session started", "kind", string(p.kind), "mode", entry.Mode, "role", entry.Role)
	return nil
}

// event is an audit event about this session.
func (s *session) event(name string) audit.Event { return s.link.event(name, s.id) }

// fallback decides on a session that was taken for a file copy and is something
// else: whoever may only copy files gets nothing else by it.
func (s *session) fallback(ctx context.Context, why string) error {
	s.log.Warn("not what its command said", "why", why)
	if d := s.link.decide(access.Exec); !d.Allowed {
		r := refusedByRule(d)
		r.text = "what came was no file copy (" + why + "): " + r.text
		return s.link.refuse(ctx, r)
	}
	return nil
}

// file audits an operation on a file.
func (s *session) file(op transfer.Operation) {
	name := audit.EventSFTP
	if op.Protocol == "scp" {
		name = audit.EventSCP
	}
	e := s.event(name)
	e.Action, e.Path, e.Within, e.Target, e.SHA256, e.Result = op.Action, op.Path, op.Within, op.Target, op.SHA256, op.Result
	if op.Action == "read" || op.Action == "write" {
		e.Len = &op.Size
	}
	err := s.link.outer.server.record(context.Background(), e)
	if err != nil && s.decision.Recording == access.Strict {
		s.stop(unaudited(err))
	}
}

// over seals the recording and audits the end. err is what the relay returned.
func (s *session) over(ctx context.Context, err error) {
	if !s.started() {
		return
	}
	reason := s.reason(err)
	s.mu.Lock()
	exit := s.exit
	s.mu.Unlock()
	s.rec.Exit(exit)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sealTime)
	defer cancel()
	closeErr := s.rec.Close(ctx, reason)
	if closeErr != nil {
		s.log.Error("the recording is not sealed", "error", closeErr)
		s.link.outer.server.unsealed.add(s.id, reason)
	}
	srv := s.link.outer.server
	took := audit.Seconds(srv.now().Sub(s.begun))
	if s.command != "" {
		e := s.event(audit.EventExec)
		e.Command, e.Asked, e.Duration = s.command, s.asked, took
		setExit(&e, exit)
		_ = srv.record(ctx, e)
	}
	e := s.event(audit.EventSessionEnd)
	e.Reason, e.Duration, e.BytesIn, e.BytesOut, e.Recording = reason, took, s.in.Load(), s.out.Load(), s.rec.Hash()
	e.Kind, e.Mode = string(s.rec.Session().Kind), string(s.decision.Recording)
	if closeErr != nil {
		e.Error = closeErr.Error()
	}
	setExit(&e, exit)
	srv.recordUntil(ctx, e)
	s.remove()
	s.log.Info("session ended", "reason", reason, "took", srv.now().Sub(s.begun))
}

// reason is why the session ended, if not by itself. err is what the relay
// returned.
func (s *session) reason(err error) string {
	s.mu.Lock()
	exited := s.exit.Status != nil || s.exit.Signal != ""
	s.mu.Unlock()
	switch {
	case err != nil && !errors.Is(err, context.Canceled):
		return refusalOf(err).text
	case exited:
		// Clients that know their exit status don't wait for the rest.
		return ""
	case s.declined.Load():
		return "the host did not start the program"
	case err != nil:
		return "the client's connection ended"
	}
	// x/crypto closes the channels of a lost connection a moment before it says
	// that it is lost.
	timer := time.NewTimer(200 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-s.link.hostLost:
		return "the connection to the host ended"
	case <-timer.C:
		return "the client closed the session before its program ended"
	}
}

func setExit(e *audit.Event, exit recording.Exit) {
	if exit.Status != nil {
		code := int(*exit.Status)
		e.ExitCode = &code
	}
	if exit.Signal != "" {
		e.ExitError = "signal " + exit.Signal
		if exit.Message != "" {
			e.ExitError += ": " + exit.Message
		}
	}
}
