package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetca/fleetca/jump/store"
)

// mostAhead is how many bytes a session may be ahead of what the store has
// committed (recording.Config.Buffer): a client never has more than that beyond
// what a crash leaves.
const mostAhead = 1 << 20

// killed is a session that runs when the server is killed.
type killed struct {
	*process
	command  string
	terminal bool
	// acknowledged is what was read out of the store before the kill.
	acknowledged string
}

// TestKilled kills the server at random moments while sessions run, begin and
// end. Nothing is repaired: it is only started again. Each time what had been
// acknowledged is there, of all the rounds before too.
func TestKilled(t *testing.T) {
	rounds := 5
	if os.Getenv("CI") == "true" {
		rounds = 25
	}
	s := newFleetSite(t, usualStore, "web1", "web2")
	p := s.person(t, "ann")
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	var before []*killed
	var hurry *process
	hurried := 0
	var died time.Time
	witnessed, late := 0, time.Duration(0)
	check := func() {
		s.intact(t)
		began := s.began(t)
		listed := map[string]store.Session{}
		for _, e := range s.list(t) {
			listed[e.Command] = e
		}
		for _, k := range before {
			if k.out.Len() > 0 && began[k.command] != 1 {
				t.Errorf("the beginning of %q is audited %d times", k.command, began[k.command])
			}
			if k.ends() == 0 {
				t.Errorf("%q ended well", k.command)
			}
			lag, seen := s.checkKilled(t, k, listed[k.command], died)
			late = max(late, lag)
			if seen {
				witnessed++
			}
		}
		if hurry != nil {
			hurry.ends()
			hurried += strings.Count(hurry.out.String(), "done")
		}
		if n := began["true"]; n < hurried {
			t.Errorf("%d short sessions were audited, %d succeeded", n, hurried)
		}
	}
	for round := range rounds {
		srv := s.start(t)
		p.at(srv)
		check()
		if t.Failed() {
			t.Fatalf("after %d rounds", round)
		}
		before, hurry = s.crowd(p, round), p.hurry()
		stop, watching := s.acknowledge(t, before[0])
		// Every other time while sessions are only beginning.
		if round%2 == 0 {
			eventually(t, "something acknowledged", watching)
		}
		time.Sleep(time.Duration(random.IntN(500)) * time.Millisecond)
		died = time.Now()
		srv.kill()
		stop()
	}
	srv := s.start(t)
	check()
	for _, e := range s.list(t) {
		if e.State == store.Open {
			t.Errorf("after all of it, session %+v is open", e)
		}
	}
	if witnessed < rounds/2 {
		t.Errorf("only in %d of %d rounds anything had been acknowledged", witnessed, rounds)
	}
	t.Logf("%d rounds; what was lost had come to the client %v before the kill at most; %d short sessions", rounds, late, hurried)
	srv.signal(15)
	if code := srv.ends(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	// And the same without a server.
	s.intact(t)
}

// crowd starts sessions of several kinds. The first one is slow, so that each
// of its lines is a moment, and takes another way each time; one ssh is enough
// for the others.
func (s *fleetSite) crowd(p *person, round int) []*killed {
	begin := func(terminal bool, way int, command string) *killed {
		host := fmt.Sprintf("web%d", 1+way%2)
		command = fmt.Sprintf("%s #%d", command, round)
		k := &killed{command: command, terminal: terminal}
		if terminal {
			k.process = p.terminal(way, host, command)
		} else {
			k.process = p.ssh(append(p.way(way, host), command)...)
		}
		return k
	}
	return []*killed{
		begin(true, round, "i=0; while echo $i; do i=$((i+1)); sleep 0.01; done"),
		begin(true, 2, "seq 1 250000; cat"),
		begin(false, 2, "while echo out; do echo err >&2; sleep 0.02; done"),
	}
}

// hurry runs some short sessions one after the other, on one connection.
func (p *person) hurry() *process {
	p.t.Helper()
	ssh := fmt.Sprintf("ssh -F %s -A -S %s -o ControlMaster=auto -o ControlPersist=yes %s%%web1@jump true",
		p.path("config"), p.path("master"), p.s.login)
	return begin(p.t, p.command("sh", "-c", "for i in 1 2 3 4 5 6 7 8; do "+ssh+" && echo done; done"))
}

// began counts the sessions that ran a command, by the audit log. A session is
// in there before its program runs; its recording may be in the group of blocks
// that a crash takes.
func (s *fleetSite) began(t *testing.T) map[string]int {
	t.Helper()
	code, out, errs := s.run(t, "audit", "--event", "session.start", "--json")
	if code != 0 {
		t.Fatalf("audit: %d %s", code, errs)
	}
	n := map[string]int{}
	for line := range strings.Lines(out) {
		var e struct{ Command string }
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		n[e.Command]++
	}
	return n
}

// acknowledge reads a session's recording from the running server again and
// again: what comes has been committed. watching says whether anything has.
func (s *fleetSite) acknowledge(t *testing.T, k *killed) (stop func(), watching func() bool) {
	var mu sync.Mutex
	end := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		id := ""
		for {
			select {
			case <-end:
				return
			case <-time.After(10 * time.Millisecond): // leave something to the sessions
			}
			if id == "" {
				code, out, _ := s.run(t, "sessions", "ls", "--json")
				for line := range strings.Lines(out) {
					if _, after, ok := strings.Cut(line, `"id":"`); ok && code == 0 && strings.Contains(line, k.command) {
						id, _, _ = strings.Cut(after, `"`)
					}
				}
				continue
			}
			// Of a read that the kill cut off, what came counts too.
			_, out, _ := s.run(t, "sessions", "export", "--format", "raw", id)
			mu.Lock()
			if len(out) > len(k.acknowledged) {
				k.acknowledged = out
			}
			mu.Unlock()
		}
	})
	return func() {
			close(end)
			reading.Wait()
		}, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return k.acknowledged != ""
		}
}

// checkKilled compares what is recorded of a session with what its client got
// and with what was acknowledged. lag is for how long the client had had what
// was lost; seen says that something had been acknowledged.
func (s *fleetSite) checkKilled(t *testing.T, k *killed, e store.Session, died time.Time) (lag time.Duration, seen bool) {
	t.Helper()
	got := k.out.String()
	if e.ID == "" {
		if len(got) > mostAhead || k.acknowledged != "" {
			t.Errorf("%q is not listed, its client got %d bytes", k.command, len(got))
		}
		return 0, false
	}
	if e.State != store.Interrupted {
		t.Errorf("%q is %s", k.command, e.State)
	}
	kept := s.raw(t, e.ID)
	if !strings.HasPrefix(kept, k.acknowledged) {
		t.Errorf("%q: %d bytes were acknowledged, %d are there", k.command, len(k.acknowledged), len(kept))
	}
	if !k.terminal {
		// Both outputs, as they came.
		kept = strings.ReplaceAll(kept, "err\n", "")
	}
	if !strings.HasPrefix(kept, got) && !strings.HasPrefix(got, kept) {
		t.Errorf("%q: what is recorded is not what the client got: %d and %d bytes", k.command, len(kept), len(got))
	}
	if len(kept) < len(got)-mostAhead {
		t.Errorf("%q: the client got %d bytes, of which %d are recorded", k.command, len(got), len(kept))
	}
	if when, ok := k.out.since(len(kept)); ok {
		lag = died.Sub(when)
	}
	return lag, k.acknowledged != ""
}
