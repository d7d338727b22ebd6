package jump

import (
	"context"
	"net"
	"strconv"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/jump/access"
	"github.com/fleetca/fleetca/jump/audit"
	"github.com/fleetca/fleetca/jump/recording"
	"github.com/fleetca/fleetca/jump/store"
)

// entry is what the store's index says of a session or forwarding of this link
// that begins now.
func (l *link) entry(id string, kind store.Kind, d access.Decision) store.Session {
	cert := l.used()
	return store.Session{
		ID: id, Connection: l.outer.id, Identity: l.who.identity, Login: l.login, Host: l.dest.Host.Name,
		Address: net.JoinHostPort(l.dest.Address, strconv.Itoa(l.dest.Port)), Client: l.who.client.String(),
		ServerID: l.outer.set.config.Name, Way: l.way, Role: d.Role,
		Serial: cert.Serial, CA: ssh.FingerprintSHA256(cert.SignatureKey),
		Kind: kind, Mode: string(d.Recording), Started: l.outer.server.now(), State: store.Open,
	}
}

// event is an audit event about a session or forwarding of this link.
func (l *link) event(name, id string) audit.Event {
	return audit.Event{
		Event: name, User: l.who.identity, Login: l.login, Host: l.dest.Host.Name, SID: id, Connection: l.outer.id,
		LocalAddr: l.outer.conn.LocalAddr().String(), RemoteAddr: l.who.client.String(),
	}
}

// startEvent is the event that an entry's session or forwarding begins.
func (l *link) startEvent(entry store.Session) audit.Event {
	e := l.event(audit.EventSessionStart, entry.ID)
	e.Kind, e.Mode, e.Role, e.Way, e.HostAddr = string(entry.Kind), entry.Mode, entry.Role, entry.Way, entry.Address
	e.Serial, e.CA = entry.Serial, entry.CA
	return e
}

// recordStart audits that what rec records begins. Where that can't be, it seals
// the recording, for as long as that takes at most, and gives the refusal.
func (s *Server) recordStart(ctx context.Context, e audit.Event, rec *recording.Recording) *refusal {
	err := s.record(ctx, e)
	if err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sealTime)
	defer cancel()
	if err := rec.Close(ctx, "the audit log could not be written"); err != nil {
		s.unsealed.add(rec.ID(), "the audit log could not be written")
	}
	return unaudited(err)
}
