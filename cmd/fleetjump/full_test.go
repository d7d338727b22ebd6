package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fleetca/fleetca/jump/store"
	"github.com/fleetca/fleetca/testenv/fleettest"
)

const (
	// smallStore fits the disk of 192 MiB that smallDisk mounts.
	smallStore = "store: {dir: state/store, reserve: 96MiB, close_reserve: 64MiB, ballast: 16MiB}\n"
	fullText   = "recording store full"
)

// smallDisk mounts one for recordings and audit log.
func (s *fleetSite) smallDisk(t *testing.T) string {
	t.Helper()
	dir := s.path("state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=192m,mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestFullDisk fills the disk of a running server: by its sessions, and by
// another program.
func TestFullDisk(t *testing.T) {
	fleettest.NeedRoot(t)
	s := newFleetSite(t, smallStore, "web1")
	s.smallDisk(t)
	p := s.person(t, "ann")
	srv := s.start(t)
	p.at(srv)

	s.works(t, p, "echo before")
	var running []*process
	for way := range 3 {
		running = append(running, p.terminal(way, "web1", noise(way)))
	}
	for way, r := range running {
		if code := r.ends(); code == 0 {
			t.Errorf("way %d: exit code 0", way)
		}
		told(t, r)
		e := s.ended(t, noise(way))
		if e.State != store.Ended || !strings.HasPrefix(e.Reason, fullText) {
			t.Errorf("way %d: %+v", way, e)
		}
		if kept, got := s.raw(t, e.ID), shown(r); !strings.HasPrefix(kept, got) {
			t.Errorf("way %d: the client got %d bytes, of which %d are recorded", way, len(got), len(kept))
		}
	}
	s.refuses(t, p)
	s.intact(t)

	// What its own words advise.
	for way := range running {
		e, _ := s.find(t, noise(way))
		if code, _, errs := s.run(t, "sessions", "rm", e.ID); code != 0 {
			t.Fatalf("sessions rm: %d %s", code, errs)
		}
	}
	s.recovers(t, p)

	// Now another program takes all that is there.
	running = running[:0]
	for way := range 3 {
		r := p.terminal(way, "web1", "while echo x; do sleep 0.05; done")
		r.says("x\r\n")
		running = append(running, r)
	}
	free := s.fillDisk(t)
	for way, r := range running {
		if code := r.ends(); code == 0 {
			t.Errorf("way %d: exit code 0", way)
		}
		told(t, r)
	}
	s.refuses(t, p)
	if !srv.running() {
		t.Fatal("the server has ended")
	}
	free()
	s.recovers(t, p)
	s.intact(t)
	if e, ok := s.find(t, "echo before"); !ok || s.raw(t, e.ID) != "before\r\n" {
		t.Error("what was recorded before is gone")
	}
	eventually(t, "no session looks as if it still ran", func() bool {
		return !slices.ContainsFunc(s.list(t), func(e store.Session) bool { return e.State == store.Open })
	})
	srv.signal(syscall.SIGTERM)
	if code := srv.ends(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	s.intact(t)
	for _, e := range s.list(t) {
		// The other program may have been faster than a seal, ballast and all;
		// the server has said so then.
		unsealed := strings.Contains(srv.errs.String(), `msg="the recording is not sealed"`)
		if e.State != store.Ended && (e.State != store.Interrupted || !unsealed) {
			t.Errorf("%+v", e)
		}
	}
}

// noise is a command whose output can't be compressed to nothing.
func noise(n int) string { return "base64 -w 100 /dev/urandom #" + string(rune('0'+n)) }

// shown is the output of a session that was ended, without what the jump host
// says in the end.
func shown(r *process) string {
	out, _, _ := strings.Cut(r.out.String(), "\r\nfleetjump: ")
	return out
}

// told says whether the person read why the session ended.
func told(t *testing.T, r *process) {
	t.Helper()
	all := r.out.String() + r.errs.String()
	if !strings.Contains(all, "fleetjump: "+fullText) || !strings.Contains(all, "hint: ") {
		t.Errorf("the person at %q was told %q", r.cmd.Args, all[max(0, len(all)-300):])
	}
}

// refuses looks whether new sessions are refused, by each way.
func (s *fleetSite) refuses(t *testing.T, p *person) {
	t.Helper()
	for way := range 3 {
		r := p.terminal(way, "web1", "echo let in")
		if code := r.ends(); code != 255 || strings.Contains(r.out.String(), "let in") {
			t.Errorf("exit code %d, %q", code, r.out.String())
		}
		told(t, r)
	}
}

// works runs a command on each way.
func (s *fleetSite) works(t *testing.T, p *person, command string) {
	t.Helper()
	for way := range 3 {
		r := p.terminal(way, "web1", command)
		if code := r.ends(); code != 0 {
			t.Errorf("way %d: exit code %d, %q %q", way, code, r.out.String(), r.errs.String())
		}
	}
}

// recovers waits until sessions are possible again, without any restart.
func (s *fleetSite) recovers(t *testing.T, p *person) {
	t.Helper()
	eventually(t, "work goes on", func() bool { return p.terminal(2, "web1", "true").ends() == 0 })
	s.works(t, p, "echo after")
}

// fillDisk takes all that is free on the small disk, again and again, until it
// is told to give it back.
func (s *fleetSite) fillDisk(t *testing.T) (free func()) {
	t.Helper()
	path := s.path("state/others")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		defer f.Close()
		for n := 1 << 20; ; {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := io.Copy(f, bytes.NewReader(make([]byte, n))); errors.Is(err, unix.ENOSPC) {
				n = max(n/2, 4096)
			}
		}
	}()
	return func() {
		close(stop)
		<-done
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}
