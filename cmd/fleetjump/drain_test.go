package main

import (
	"syscall"
	"testing"

	"github.com/fleetca/fleetca/jump/store"
)

// TestDrainIsSeen: who stops a server sees for whom it waits, and can end them.
func TestDrainIsSeen(t *testing.T) {
	const command = "echo begun; cat"
	s := newFleetSite(t, usualStore+"drain_timeout: 10m\n", "web1")
	p := s.person(t, "ann")
	srv := s.start(t)
	p.at(srv)
	session := p.terminal(0, "web1", command)
	session.says("begun")
	srv.signal(syscall.SIGTERM)
	srv.logs("msg=draining")
	var e store.Session
	eventually(t, "the session is listed", func() bool {
		var found bool
		e, found = s.find(t, command)
		return found
	})
	if e.State != store.Open {
		t.Fatalf("the session that is waited for: %+v", e)
	}
	if code, _, errs := s.run(t, "sessions", "end", e.ID); code != 0 {
		t.Errorf("ending it: exit code %d, %s", code, errs)
	}
	if code := session.ends(); code != 255 {
		t.Errorf("the session: exit code %d", code)
	}
	if code := srv.ends(); code != 0 {
		t.Errorf("the server: exit code %d", code)
	}
}
