package jump

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/jump/access"
	"github.com/fleetca/fleetca/jump/audit"
	"github.com/fleetca/fleetca/jump/live"
	"github.com/fleetca/fleetca/jump/recording"
	"github.com/fleetca/fleetca/jump/relay"
	"github.com/fleetca/fleetca/jump/route"
	"github.com/fleetca/fleetca/jump/store"
)

// grants are the channel types that the host may open towards the client: those
// that the client has asked for on this link, and that it was allowed.
type grants struct {
	mu      sync.Mutex
	allowed map[string]bool
}

func (g *grants) allow(channelType string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.allowed == nil {
		g.allowed = map[string]bool{}
	}
	g.allowed[channelType] = true
}

func (g *grants) has(channelType string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.allowed[channelType]
}

// globalRequests handles the client's global requests, one after the other.
func (l *link) globalRequests(ctx context.Context, requests <-chan *ssh.Request) {
	for r := range requests {
		ok, reply := l.globalRequest(ctx, r)
		if r.WantReply {
			_ = r.Reply(ok, reply)
		}
	}
}

func (l *link) globalRequest(ctx context.Context, r *ssh.Request) (bool, []byte) {
	switch r.Type {
	case relay.TypeKeepAlive:
		return l.passKeepAlive(r)
	case relay.TypeNoMoreSessions:
		l.noMore.Store(true)
		return true, nil
	case relay.TypeTCPIPForward, relay.TypeStreamLocalForward:
		if d := l.decide(access.RemoteForwarding); !d.Allowed {
			l.note(l.refuse(ctx, refusedByRule(d)))
			return false, nil
		}
		l.grants.allow(map[string]string{
			relay.TypeTCPIPForward: relay.ChannelForwardedTCPIP, relay.TypeStreamLocalForward: relay.ChannelForwardedStreamLocal,
		}[r.Type])
		if l.broken == nil {
			l.awaitOffer(ctx)
		}
	case relay.TypeCancelTCPIPForward, relay.TypeCancelStreamLocalForward:
	default:
		return false, nil
	}
	up, refused := l.upstream(ctx)
	if refused != nil {
		return false, nil
	}
	ok, reply, err := up.Conn.SendRequest(r.Type, r.WantReply, r.Payload)
	return ok && err == nil, reply
}

// passKeepAlive asks the host, if it has been reached, so that a client learns
// when that is gone.
func (l *link) passKeepAlive(r *ssh.Request) (bool, []byte) {
	up := l.reached()
	if up == nil {
		return true, nil
	}
	ok, reply, err := up.Conn.SendRequest(r.Type, r.WantReply, r.Payload)
	return ok && err == nil, reply
}

// hostRequests answers the host's global requests. What it says about its own
// host keys is not for the client, who has shaken hands with us.
func (l *link) hostRequests(up *route.Upstream) {
	err := relay.Requests(context.Background(), up.Requests, l.down, func(r *ssh.Request) relay.Verdict {
		if r.Type == relay.TypeKeepAlive {
			return relay.Verdict{Action: relay.Pass}
		}
		return relay.Verdict{}
	})
	if err != nil {
		_ = up.Conn.Close()
		go ssh.DiscardRequests(up.Requests)
	}
}

// hostChannels handles the channels that the host opens.
func (l *link) hostChannels(ctx context.Context, work *sync.WaitGroup, up *route.Upstream) {
	for nc := range up.Channels {
		if !l.grants.has(nc.ChannelType()) {
			reject(nc, ssh.Prohibited, refusef(codeProtocol, "", "the client did not ask for %q", nc.ChannelType()))
			continue
		}
		if !l.outer.channels.add() {
			reject(nc, ssh.ResourceShortage, &refusal{codeLimit, "too many channels on this connection", ""})
			continue
		}
		l.active.add()
		work.Go(func() {
			defer l.outer.channels.done()
			defer l.active.done()
			l.forwardIn(ctx, nc)
		})
	}
}

// forwardOut is a channel of the client's to somewhere that the host reaches.
func (l *link) forwardOut(ctx context.Context, nc ssh.NewChannel) {
	to, refused := l.forwardTarget(nc)
	d := l.decide(access.LocalForwarding)
	if refused == nil && !d.Allowed {
		refused = refusedByRule(d)
	}
	if refused != nil {
		reject(nc, ssh.Prohibited, l.refuse(ctx, refused))
		return
	}
	up, refused := l.upstream(ctx)
	if refused != nil {
		reject(nc, ssh.ConnectionFailed, refused)
		return
	}
	ch, requests, err := up.Conn.OpenChannel(nc.ChannelType(), nc.ExtraData())
	if err != nil {
		rejectAs(nc, err)
		return
	}
	far := relay.Channel{Channel: ch, Requests: requests, Conn: up.Conn}
	l.forward(ctx, nc, far, up.Conn, d, recording.Forward{Kind: "local", From: l.who.client.String(), To: to})
}

// rejectAs refuses a channel as the other side refused its own.
func rejectAs(nc ssh.NewChannel, err error) {
	reason := ssh.ConnectionFailed
	if e, ok := err.(*ssh.OpenChannelError); ok {
		reason = e.Reason
	}
	_ = nc.Reject(reason, openError(err))
}

// forwardTarget says where a channel leads to. A forwarding is no way around the
// recording: the sshd of a host in the inventory is reached as a destination.
func (l *link) forwardTarget(nc ssh.NewChannel) (string, *refusal) {
	if nc.ChannelType() == relay.ChannelDirectStreamLocal {
		d, err := relay.ParseDirectStreamLocal(nc.ExtraData())
		if err != nil {
			return "", &refusal{codeProtocol, err.Error(), ""}
		}
		return d.Path, nil
	}
	d, err := relay.ParseDirectTCPIP(nc.ExtraData())
	if err != nil {
		return "", &refusal{codeProtocol, err.Error(), ""}
	}
	if terminal.Clean(d.Host) != d.Host {
		return "", refusef(codeDestination, "", "%q is no host", d.Host)
	}
	to := net.JoinHostPort(d.Host, strconv.FormatUint(uint64(d.Port), 10))
	if host, known := l.outer.set.router.LeadsTo(l.dest, d.Host, int(d.Port)); known {
		return "", refusef(codeDestination, "ssh to it through the jump host", "%q is %s of the inventory: a forwarding to its sshd would not be recorded", to, host)
	}
	return to, nil
}

// forwardIn is a channel of the host's to the client.
func (l *link) forwardIn(ctx context.Context, nc ssh.NewChannel) {
	f := recording.Forward{To: l.who.client.String()}
	action := access.RemoteForwarding
	switch nc.ChannelType() {
	case relay.ChannelAgent:
		f.Kind, f.From, action = "agent", l.dest.Name, access.AgentForwarding
	case relay.ChannelX11:
		f.Kind, f.From, action = "x11", l.dest.Name, access.X11
	case relay.ChannelForwardedTCPIP:
		d, err := relay.ParseForwardedTCPIP(nc.ExtraData())
		if err != nil {
			reject(nc, ssh.ConnectionFailed, &refusal{codeProtocol, err.Error(), ""})
			return
		}
		f.Kind, f.From = "remote", fmt.Sprintf("%s:%d", d.Address, d.Port)
	case relay.ChannelForwardedStreamLocal:
		d, err := relay.ParseForwardedStreamLocal(nc.ExtraData())
		if err != nil {
			reject(nc, ssh.ConnectionFailed, &refusal{codeProtocol, err.Error(), ""})
			return
		}
		f.Kind, f.From = "remote", d.Path
	}
	// The rules may have changed since it was asked for.
	d := l.decide(action)
	if !d.Allowed {
		reject(nc, ssh.Prohibited, l.refuse(ctx, refusedByRule(d)))
		return
	}
	ch, requests, err := openChannel(ctx, l.down, nc.ChannelType(), nc.ExtraData())
	if err != nil {
		rejectAs(nc, err)
		return
	}
	l.forward(ctx, nc, relay.Channel{Channel: ch, Requests: requests, Conn: l.down}, l.down, d, f)
}

// forward accepts a channel and pumps it to the far side, which may be the host
// or the client, and keeps a record of it.
func (l *link) forward(ctx context.Context, nc ssh.NewChannel, far relay.Channel, farConn ssh.Conn, d access.Decision, f recording.Forward) {
	srv := l.outer.server
	rec, refused := l.beginForward(ctx, d, f)
	var ch ssh.Channel
	var requests <-chan *ssh.Request
	if refused != nil {
		reject(nc, ssh.Prohibited, l.refuse(ctx, refused))
	} else {
		var err error
		if ch, requests, err = nc.Accept(); err != nil {
			refused = &refusal{codeProtocol, err.Error(), ""}
			f.Error = err.Error()
			l.forwardOver(ctx, rec, f)
		}
	}
	if refused != nil {
		_ = far.Close()
		go ssh.DiscardRequests(far.Requests) // until the close is answered
		return
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer srv.live.Add(live.Entry{Session: rec.Session(), End: func(reason string) { stop(endingOf(reason)) }})()
	if refused := l.outer.closing(); refused != nil {
		stop(refused) // it began while the others were being told
	}
	down, up := relay.Channel{Channel: ch, Requests: requests, Conn: l.down}, far
	if farConn == ssh.Conn(l.down) {
		down, up = far, relay.Channel{Channel: ch, Requests: requests}
	}
	var in, out atomic.Uint64
	var active atomic.Int64
	active.Store(srv.now().UnixNano())
	var watching sync.WaitGroup
	b := bounds{"forwarding", d, rec, &active, srv.now, stop}
	watching.Go(func() { b.watch(ctx) })
	err := relay.Copy(ctx, down, up, func(from relay.Side, p []byte) error {
		active.Store(srv.now().UnixNano())
		if from == relay.Downstream {
			in.Add(uint64(len(p)))
		} else {
			out.Add(uint64(len(p)))
		}
		return nil
	})
	stop(nil)
	watching.Wait()
	f.In, f.Out = in.Load(), out.Load()
	if err != nil && !errors.Is(err, context.Canceled) {
		f.Error = refusalOf(err).text
	}
	l.forwardOver(ctx, rec, f)
}

// beginForward begins the record of a forwarding, without which there is none.
func (l *link) beginForward(ctx context.Context, d access.Decision, f recording.Forward) (*recording.Recording, *refusal) {
	srv := l.outer.server
	entry := l.entry(store.NewID(srv.now()), store.KindForward, d)
	entry.Command = terminal.Clean(f.Kind + " " + f.From + " to " + f.To)
	rec, err := srv.recorder.Start(ctx, recording.Options{Session: entry, Mode: entry.Mode})
	if err != nil {
		return nil, refusalOf(err)
	}
	e := l.startEvent(entry)
	e.Action, e.Path, e.Target = f.Kind, f.From, f.To
	if refused := srv.recordStart(ctx, e, rec); refused != nil {
		return nil, refused
	}
	return rec, nil
}

// forwardOver seals the record of a forwarding and audits its end.
func (l *link) forwardOver(ctx context.Context, rec *recording.Recording, f recording.Forward) {
	srv := l.outer.server
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sealTime)
	defer cancel()
	took := srv.now().Sub(rec.Session().Started)
	f.Duration = took.Seconds()
	_ = rec.Forward(f)
	if err := rec.Close(ctx, f.Error); err != nil {
		l.outer.log.Error("the record of a forwarding is not sealed", "session", rec.ID(), "error", err)
		srv.unsealed.add(rec.ID(), f.Error)
	}
	e := l.event(audit.EventPort, rec.ID())
	e.Action, e.Path, e.Target = f.Kind, f.From, f.To
	e.BytesIn, e.BytesOut, e.Duration, e.Error = f.In, f.Out, audit.Seconds(took), f.Error
	e.Mode, e.Recording = rec.Session().Mode, rec.Hash()
	srv.recordUntil(ctx, e)
}
