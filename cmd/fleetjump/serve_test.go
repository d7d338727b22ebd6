package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/fleetca/fleetca/jump/store"
	"github.com/fleetca/fleetca/templates"
)

// TestDrain stops a server with sessions: one ends by itself in the time that it
// gets, one doesn't.
func TestDrain(t *testing.T) {
	s := newFleetSite(t, usualStore+"drain_timeout: 3s\n", "web1")
	p := s.person(t, "ann")
	srv := s.start(t)
	p.at(srv)
	const quick, slow = "echo begun; read x; echo finished", "echo begun; cat"
	patient, stubborn := p.terminal(0, "web1", quick), p.terminal(1, "web1", slow)
	patient.says("begun")
	stubborn.says("begun")
	// A connection that is there already, of which more could be asked.
	login := p.way(2, "web1")
	master := p.ssh(append([]string{"-M", "-S", p.path("master"), "-N"}, login...)...)
	eventually(t, "a master", func() bool {
		_, err := os.Stat(p.path("master"))
		return err == nil
	})

	srv.signal(syscall.SIGTERM)
	srv.logs("msg=draining")
	srv.signal(syscall.SIGHUP) // as when its terminal goes too
	again := p.ssh(append(append([]string{"-S", p.path("master")}, login...), "echo let in")...)
	if code := again.ends(); code != 255 || strings.Contains(again.out.String(), "let in") {
		t.Errorf("a new session: exit code %d, %q %q", code, again.out.String(), again.errs.String())
	}
	if said := master.errs.String() + again.errs.String(); !strings.Contains(said, "the jump host is shutting down") {
		t.Errorf("a new session was refused with %q", said)
	}
	if _, err := patient.in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	if code := patient.ends(); code != 0 || !strings.Contains(patient.out.String(), "finished") {
		t.Errorf("a session that ends by itself: exit code %d, %q", code, patient.out.String())
	}
	if code := stubborn.ends(); code == 0 {
		t.Error("a session that doesn't: exit code 0")
	}
	if said := stubborn.out.String() + stubborn.errs.String(); !strings.Contains(said, "fleetjump: the jump host is shutting down\r\nhint: ") {
		t.Errorf("it was told %q", said)
	}
	if code := srv.ends(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	master.ends()

	for command, reason := range map[string]string{quick: "", slow: "the jump host is shutting down"} {
		e, _ := s.find(t, command)
		if e.State != store.Ended || e.Reason != reason {
			t.Errorf("%q: %+v", command, e)
		}
	}
	s.intact(t)
	if code, out, errs := s.run(t, "audit", "--event", "server.stop", "--json"); code != 0 || strings.Count(out, "\n") != 1 {
		t.Errorf("audit: %d %q %q", code, out, errs)
	}
}

// TestSecondSignal ends a server that drains.
func TestSecondSignal(t *testing.T) {
	s := newFleetSite(t, usualStore+"drain_timeout: 10m\n", "web1")
	p := s.person(t, "ann")
	srv := s.start(t)
	r := p.at(srv).terminal(2, "web1", "echo begun; cat")
	r.says("begun")
	eventually(t, "the session is in the store", func() bool {
		_, found := s.find(t, "echo begun; cat")
		return found
	})
	srv.signal(syscall.SIGINT)
	srv.logs("msg=draining")
	srv.signal(syscall.SIGTERM)
	if code := srv.ends(); code == 0 {
		t.Error("exit code 0")
	}
	if code := r.ends(); code != 255 {
		t.Errorf("the session: exit code %d", code)
	}
	s.start(t)
	if e, _ := s.find(t, "echo begun; cat"); e.State != store.Interrupted {
		t.Errorf("%+v", e)
	}
	s.intact(t)
}

// TestReload changes the configuration of a running server.
func TestReload(t *testing.T) {
	revoking := usualStore + "revoked_keys: revoked\n"
	s := newFleetSite(t, "", "web1")
	s.put("revoked", nil)
	s.configure(openRoles, revoking)
	ann, bob := s.person(t, "ann"), s.person(t, "bob")
	srv := s.start(t)
	ann.at(srv)
	bob.at(srv)
	running, revoked := ann.terminal(0, "web1", "echo begun; cat"), bob.terminal(1, "web1", "echo begun; cat")
	running.says("begun")
	revoked.says("begun")
	goesOn := func(word string) {
		t.Helper()
		if _, err := running.in.Write([]byte(word + "\n")); err != nil {
			t.Fatal(err)
		}
		running.says(word + "\r\n" + word) // typed, and from cat
	}
	mayRun := func(may bool) {
		t.Helper()
		r := ann.ssh(append(ann.way(2, "web1"), "echo ran")...)
		code := r.ends()
		if ran := r.out.String() == "ran\n"; ran != may || ran != (code == 0) {
			t.Errorf("exit code %d, %q %q", code, r.out.String(), r.errs.String())
		}
		if !may && !strings.Contains(r.errs.String(), "fleetjump: ") {
			t.Errorf("refused with %q", r.errs.String())
		}
	}
	reloaded := 0
	awaitReload := func(text string) {
		t.Helper()
		eventually(t, text, func() bool { return strings.Count(srv.errs.String(), text) > reloaded })
	}
	mayRun(true)

	s.configure(shellRoles, revoking)
	srv.signal(syscall.SIGHUP)
	awaitReload(`msg="configuration reloaded"`)
	mayRun(false)
	goesOn("one")

	// In place, without a signal, and wrong.
	s.configure(strings.ReplaceAll(openRoles, "identities", "identitys"), revoking)
	srv.logs("configuration not reloaded, the old one stays")
	if log := srv.errs.String(); !strings.Contains(log, s.file+":11: ") || !strings.Contains(log, "identitys") {
		t.Errorf("file and line are not in the log:\n%s", log)
	}
	mayRun(false)
	goesOn("two")

	// By another file in its place.
	reloaded = strings.Count(srv.errs.String(), `msg="configuration reloaded"`)
	text, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	s.put("new", []byte(strings.ReplaceAll(string(text), "identitys", "identities")))
	if err := os.Rename(s.path("new"), s.path(templates.JumpConfigFile)); err != nil {
		t.Fatal(err)
	}
	awaitReload(`msg="configuration reloaded"`)
	mayRun(true)
	goesOn("three")

	// A list that the configuration names.
	if out, err := bob.command("ssh-keygen", "-q", "-k", "-f", "krl", "id-cert.pub").CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	krl, err := os.ReadFile(bob.path("krl"))
	if err != nil {
		t.Fatal(err)
	}
	s.put("revoked", krl)
	if code := revoked.ends(); code == 0 {
		t.Error("a revoked session: exit code 0")
	}
	if said := revoked.out.String() + revoked.errs.String(); !strings.Contains(said, "fleetjump: your certificate was revoked\r\n") {
		t.Errorf("a revoked session was told %q", said)
	}
	r := bob.ssh(append(bob.way(2, "web1"), "echo ran")...)
	if code := r.ends(); code != 255 || !strings.Contains(r.errs.String(), "revoked") {
		t.Errorf("whoever is revoked: exit code %d, %q %q", code, r.out.String(), r.errs.String())
	}
	mayRun(true)
	goesOn("four")
	if err := running.in.Close(); err != nil {
		t.Fatal(err)
	}
	s.intact(t)
}

// TestTwoServers starts a second server beside a first one.
func TestTwoServers(t *testing.T) {
	s := newSite(t)
	s.record(t)
	s.serve(t)
	text, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	// The second one in the way of the first, in all and then in part.
	for _, c := range []struct{ old, new, want, hint string }{
		{"", "", "in use by another process", "hint: a fleetjump is running with this store already"},
		{"state/store", "state/store2", "in use by another process", ""},
		{"state/", "state2/", "admin", ""},
	} {
		changed := strings.ReplaceAll(string(text), c.old, c.new)
		if c.old == "" {
			changed = string(text)
		}
		if c.want == "admin" {
			changed = strings.Replace(changed, "state2/admin.sock", "state/admin.sock", 1)
		}
		file := filepath.Join(filepath.Dir(s.file), "second.yaml")
		if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		second := begin(t, command(t, "serve", "--config", file))
		code := second.ends()
		if errs := second.errs.String(); code != 1 || !strings.Contains(errs, c.want) || !strings.Contains(errs, c.hint) {
			t.Errorf("exit code %d, %q", code, errs)
		}
		s.check(t) // the first one has not noticed
	}
}
