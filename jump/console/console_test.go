package console

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetca/fleetca/jump/access"
	"github.com/fleetca/fleetca/jump/audit"
	"github.com/fleetca/fleetca/jump/cast"
	"github.com/fleetca/fleetca/jump/live"
	"github.com/fleetca/fleetca/jump/recording"
	"github.com/fleetca/fleetca/jump/store"
	"github.com/fleetca/fleetca/jump/store/memstore"
	"github.com/fleetca/fleetca/jump/transfer"
)

var began = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// clock goes on by a second whenever it is looked at.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(time.Second)
	return c.now
}

// fixture is a console on a store in memory and a real audit log.
type fixture struct {
	*Console
	t     *testing.T
	store *memstore.Store
	audit *audit.Log
	live  *live.Registry
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, store: memstore.New(), live: live.New()}
	t.Cleanup(func() { f.store.Close() })
	now := &clock{now: began.Add(2 * time.Hour)}
	var err error
	f.audit, err = audit.Open(t.Context(), audit.Config{Dir: t.TempDir(), Store: f.store, ServerID: "jump", Now: now.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.audit.Close() })
	f.Console = New(Config{Store: f.store, Audit: f.audit, Live: f.live, Now: now.Now})
	return f
}

// auditor may do everything.
var auditor = Caller{Identity: "rita", Client: "192.0.2.9:5", Scope: access.All, Remove: true, Audit: true}

// add stores a session that began so long after began, with these events. An
// ended one is sealed, and told to the audit.
func (f *fixture) add(after time.Duration, s store.Session, events ...cast.Event) store.Session {
	f.t.Helper()
	s.Started = began.Add(after)
	s.ID = store.NewID(s.Started)
	if s.Mode == "" {
		s.Mode = recording.Strict
	}
	if s.State == "" {
		s.State = store.Ended
	}
	e := cast.NewEncoder(cast.Header{
		Session: s.ID, Identity: s.Identity, Started: s.Started, Term: "xterm", Software: "test",
		Columns: s.Columns, Rows: s.Rows,
	})
	var blocks []store.Block
	put := func(data []byte, err error) {
		if err != nil {
			f.t.Fatal(err)
		}
		blocks = append(blocks, store.Block{Session: s.ID, Number: uint32(len(blocks)), Data: data})
		s.StoredBytes += uint64(len(data))
	}
	for _, ev := range events {
		if err := e.Add(ev); err != nil {
			f.t.Fatal(err)
		}
		if ev.Kind == cast.Output {
			s.Bytes += uint64(len(ev.Data))
		}
	}
	put(e.Block())
	if s.State == store.Ended {
		put(e.Seal(cast.End{At: time.Minute, Reason: s.Reason, ExitStatus: s.ExitStatus}))
	}
	if s.State != store.Open {
		s.Ended = s.Started.Add(time.Minute)
	}
	s.Blocks = uint32(len(blocks))
	// Ended sessions take no blocks.
	open := s
	open.State = store.Open
	f.write(store.Batch{Sessions: []store.Session{open}, Blocks: blocks})
	f.write(store.Batch{Sessions: []store.Session{s}})
	if s.State == store.Ended {
		hash := e.LastHash()
		f.record(audit.Event{Event: audit.EventSessionEnd, Time: s.Ended, User: s.Identity, Host: s.Host, SID: s.ID, Recording: hex.EncodeToString(hash[:])})
	}
	return s
}

func (f *fixture) write(b store.Batch) {
	f.t.Helper()
	if err := f.store.Write(f.t.Context(), b, nil); err != nil {
		f.t.Fatal(err)
	}
	if err := f.store.Sync(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) record(e audit.Event) {
	f.t.Helper()
	if err := f.audit.Record(f.t.Context(), e); err != nil {
		f.t.Fatal(err)
	}
}

// run runs a command line without a terminal.
func (f *fixture) run(caller Caller, line string) (out, errs string, code int) {
	f.t.Helper()
	argv, err := Split(line)
	if err != nil {
		f.t.Fatal(err)
	}
	var o, e bytes.Buffer
	code = f.Run(f.t.Context(), caller, argv, Streams{Out: &o, Err: &e})
	return o.String(), e.String(), code
}

// must is run of what must succeed.
func (f *fixture) must(caller Caller, line string) string {
	f.t.Helper()
	out, errs, code := f.run(caller, line)
	if code != 0 {
		f.t.Fatalf("%s: exit code %d: %s", line, code, errs)
	}
	return out
}

// refused is run of what must fail with this text.
func (f *fixture) refused(caller Caller, line string, code int, want string) {
	f.t.Helper()
	out, errs, got := f.run(caller, line)
	if got != code || !strings.Contains(errs, want) || out != "" {
		f.t.Errorf("%s: exit code %d, want %d; stderr %q, want %q; stdout %q", line, got, code, errs, want, out)
	}
}

// events are the audit events of this kind, written out.
func (f *fixture) events(event string) []audit.Record {
	f.t.Helper()
	var found []audit.Record
	for r, err := range f.audit.Query(context.Background(), store.AuditQuery{Event: event}) {
		if err != nil {
			f.t.Fatal(err)
		}
		found = append(found, r)
	}
	return found
}

func output(at time.Duration, text string) cast.Event {
	return cast.Event{At: at, Kind: cast.Output, Data: []byte(text)}
}

func jsonEvent(t *testing.T, kind cast.Kind, v any) cast.Event {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return cast.Event{At: time.Second, Kind: kind, Data: data}
}

func status(n uint32) *uint32 { return &n }

// three are sessions of two people, the last of which runs.
func (f *fixture) three() (alice, bob, running store.Session) {
	alice = f.add(0, store.Session{
		Identity: "alice", Login: "root", Host: "web01", Kind: store.KindTerminal, Columns: 80, Rows: 24, ExitStatus: status(0),
	}, output(0, "hello "), output(time.Second, "world\r\n"))
	bob = f.add(time.Minute, store.Session{
		Identity: "bob", Login: "deploy", Host: "DB1", Kind: store.KindCommand, Command: "evil \x1b]52;c;aGk=\x07 --flag", State: store.Interrupted,
	}, output(0, "\x1b]0;title\x07data\n"))
	running = f.add(time.Hour, store.Session{
		Identity: "alice", Login: "root", Host: "web02", Kind: store.KindSFTP, State: store.Open,
	}, jsonEvent(f.t, cast.File, transfer.Operation{Protocol: "sftp", Action: "write", Path: "/etc/\x1b[31mpasswd", Size: 2048, SHA256: "abc123", Result: "ok", Complete: true}))
	f.live.Add(live.Entry{Session: running, End: func(string) {}})
	return alice, bob, running
}
