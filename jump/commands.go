package jump

import (
	"context"
	"fmt"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/jump/access"
	"github.com/fleetca/fleetca/jump/console"
	"github.com/fleetca/fleetca/jump/relay"
)

// screen is the terminal of somebody who runs a command of the console.
type screen struct {
	mu            sync.Mutex
	given         bool
	columns, rows uint32
	zone          *time.Location // nil: none was asked for
}

// env takes the one variable that a command of the console looks at.
func (s *screen) env(payload []byte) bool {
	e, err := relay.ParseEnv(payload)
	if err != nil || e.Name != "TZ" {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zone = console.Zone(e.Value, time.UTC)
	return true
}

func (s *screen) location(fallback *time.Location) *time.Location {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.zone != nil {
		return s.zone
	}
	return fallback
}

func (s *screen) resize(columns, rows uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.given, s.columns, s.rows = true, columns, rows
}

func (s *screen) size() (columns, rows int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int(min(s.columns, 10_000)), int(min(s.rows, 10_000))
}

func (s *screen) present() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.given
}

// session serves a session on a connection that isn't bound to a host: the
// proxy subsystem, or a command of the console. There is no shell here.
func (o *outer) session(ctx context.Context, nc ssh.NewChannel) {
	ch, requests, err := nc.Accept()
	if err != nil {
		return
	}
	gone := make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer settle(ch, gone, o.conn)
	left := sync.OnceFunc(func() {
		cancel()
		close(gone)
	})
	var view screen
	for r := range requests {
		switch r.Type {
		case relay.TypeAgent:
			o.agent.Store(true)
			_ = r.Reply(true, nil)
		case relay.TypePty:
			p, err := relay.ParsePtyRequest(r.Payload)
			if err == nil {
				view.resize(p.Columns, p.Rows)
			}
			_ = r.Reply(err == nil, nil)
		case relay.TypeEnv:
			_ = r.Reply(view.env(r.Payload), nil)
		case relay.TypeSubsystem:
			_ = r.Reply(true, nil)
			go afterStart(requests, &view, left)
			o.subsystem(ctx, ch, r)
			return
		case relay.TypeExec, relay.TypeShell:
			_ = r.Reply(true, nil)
			go afterStart(requests, &view, left)
			o.command(ctx, ch, r, &view)
			return
		default:
			_ = r.Reply(false, nil)
		}
	}
	left()
}

// afterStart handles the requests that follow the one for a program, until the
// channel is closed.
func afterStart(requests <-chan *ssh.Request, view *screen, gone func()) {
	for r := range requests {
		if r.Type == relay.TypeWindowChange {
			if w, err := relay.ParseWindowChange(r.Payload); err == nil && view.present() {
				view.resize(w.Columns, w.Rows)
			}
		}
		_ = r.Reply(r.Type == relay.TypeWindowChange || r.Type == relay.TypeKeepAlive, nil)
	}
	gone()
}

// subsystem is proxy:HOST:PORT; there is no other one.
func (o *outer) subsystem(ctx context.Context, ch ssh.Channel, r *ssh.Request) {
	if o.broken != nil {
		end(ch, o.broken)
		return
	}
	name, err := relay.ParseSubsystem(r.Payload)
	if err != nil {
		end(ch, o.refuse(ctx, "", "", &refusal{codeProtocol, err.Error(), ""}))
		return
	}
	asked, ours, err := parseProxy(name.Name)
	switch {
	case err != nil:
		end(ch, o.refuse(ctx, "", "", &refusal{codeDestination, err.Error(), "ProxyCommand ssh -A -p PORT %r@JUMP -s proxy:%h:%p"}))
		return
	case !ours:
		end(ch, o.refuse(ctx, "", "", refusef(codeProtocol, "files are copied to hosts, through it: sftp -o ProxyCommand=… or sftp -J",
			"the jump host has no subsystem %q", name.Name)))
		return
	}
	dest, refused := o.resolve(ctx, asked.Host, asked.Port, asked.Cluster)
	if refused != nil {
		end(ch, refused)
		return
	}
	if refused := o.inner(ctx, ch, dest, waySubsystem); refused != nil {
		end(ch, o.refuse(ctx, dest.Name, "", refused))
		return
	}
	sendExit(ch, 0)
}

// command runs a command of the console for somebody who may.
func (o *outer) command(ctx context.Context, ch ssh.Channel, r *ssh.Request, view *screen) {
	if o.broken != nil {
		end(ch, o.broken)
		return
	}
	line := ""
	if r.Type == relay.TypeExec {
		e, err := relay.ParseExec(r.Payload)
		if err != nil {
			end(ch, &refusal{codeProtocol, err.Error(), ""})
			return
		}
		line = e.Command
	}
	if forced := o.who.certificate().ForceCommand; forced != "" {
		end(ch, o.refuse(ctx, "", o.conn.User(), refusef(codeCertificate, "", "your certificate allows nothing but a certain command on hosts")))
		return
	}
	d := o.server.settings.Load().config.Rules.Reading(o.who.identity, o.who.cert.ValidPrincipals)
	if line == "" || d.Scope == access.None && !d.Audit {
		text := "this is a jump host; it has no shell and no files of its own"
		hint := fmt.Sprintf("ssh -A LOGIN%%HOST@%s, or ssh -A -J %s LOGIN@HOST", o.set.config.Name, o.set.config.Name)
		if line != "" {
			text = "your roles allow none of the jump host's own commands"
			o.refuse(ctx, "", o.conn.User(), refusef("console", "", "%s: %q", text, line))
		}
		end(ch, &refusal{"console", text, hint})
		return
	}
	who := console.Caller{Identity: o.who.identity, Client: o.who.client.String(), Scope: d.Scope, Remove: d.Remove, Audit: d.Audit}
	o.server.runCommand(ctx, ch, who, line, view, time.UTC)
}

// runCommand runs one line of the console.
func (s *Server) runCommand(ctx context.Context, ch ssh.Channel, who console.Caller, line string, view *screen, zone *time.Location) {
	words, err := console.Split(line)
	if err != nil {
		tell(ch.Stderr(), "fleetjump: "+terminal.Clean(err.Error())+"\r\n")
		sendExit(ch, 2)
		return
	}
	streams := console.Streams{In: ch, Out: ch, Err: ch.Stderr(), Terminal: view.present(), Size: view.size, Zone: view.location(zone)}
	if streams.Terminal {
		// With a terminal OpenSSH's is raw: a line feed alone would not return.
		streams.Err = ch
	}
	code := s.console.Run(ctx, who, words, streams)
	_ = ch.CloseWrite()
	sendExit(ch, uint32(code))
}

// adminCaller is who is at the other end of the admin socket.
func adminCaller(uid uint32) console.Caller {
	name := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	return console.Caller{Identity: "local:" + strings.TrimSpace(name), Client: "admin socket", Scope: access.All, Remove: true, Audit: true}
}
