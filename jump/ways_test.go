package jump_test

import (
	"strings"
	"testing"

	"github.com/fleetca/fleetca/jump/store"
)

// TestWaysIn: each way that people come in leads to the host, as themselves, and
// is recorded as what it was.
func TestWaysIn(t *testing.T) {
	w := newWorld(t, worldConfig{})
	p := w.person(personConfig{})
	n := 0
	for name, way := range p.ways() {
		t.Run(name, func(t *testing.T) {
			r := p.run(p.ssh(append(way("web1"), "echo out; echo err >&2; exit 7")...))
			if r.stdout != "out\n" || r.code != 7 || !strings.Contains(r.stderr, "err\n") {
				t.Fatalf("got %+v", r)
			}
			n++
			all := w.sessions(n)
			s := all[len(all)-1]
			if s.Identity != "joe" || s.Login != w.login || s.Host != "web1" || s.Kind != store.KindCommand ||
				s.State != store.Ended || s.ExitStatus == nil || *s.ExitStatus != 7 {
				t.Errorf("session %+v", s)
			}
			if raw := w.raw(s.ID); raw != "out\nerr\n" && raw != "err\nout\n" {
				t.Errorf("recorded %q", raw)
			}
		})
	}
	starts := w.events("session.start")
	if len(starts) != n {
		t.Errorf("%d session.start events, want %d", len(starts), n)
	}
}
