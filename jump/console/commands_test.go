package console

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/fleetca/fleetca/jump/access"
	"github.com/fleetca/fleetca/jump/audit"
	"github.com/fleetca/fleetca/jump/cast"
	"github.com/fleetca/fleetca/jump/live"
	"github.com/fleetca/fleetca/jump/recording"
	"github.com/fleetca/fleetca/jump/store"
)

func TestList(t *testing.T) {
	f := newFixture(t)
	alice, bob, running := f.three()
	out := f.must(auditor, "sessions ls")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[0], "ID            STARTED (UTC)") {
		t.Fatalf("ls:\n%s", out)
	}
	for i, want := range [][]string{
		{short(running.ID), "2026-11-21 13:00:00", "1h", "alice", "web02", "sftp", "running"},
		{short(bob.ID), "2026-11-21 12:01:00", "1m", "bob", "deploy", "DB1", "command", "interrupted", `evil \x1b]52;c;aGk=\x07 --flag`},
		{short(alice.ID), "alice", "web01", "terminal", "  0"},
	} {
		for _, text := range want {
			if !strings.Contains(lines[i+1], text) {
				t.Errorf("line %q lacks %q", lines[i+1], text)
			}
		}
	}
	for filter, want := range map[string]int{
		"--user alice": 2, "--user 'b*'": 1, "--login root": 2, "--host 'web*'": 2, "--host db1": 1, "--kind sftp": 1,
		"--state open": 1, "--state interrupted": 1, "--since 90m": 1, "--since 2026-11-21T12:00:30": 2, "--until 2026-11-21": 0,
		"--limit 1": 1, "--user a --host w": 0, "--limit 0": 3,
	} {
		out := f.must(auditor, "sessions ls --json "+filter)
		if got := strings.Count(out, "\n"); got != want {
			t.Errorf("%s lists %d, want %d", filter, got, want)
		}
		for line := range strings.Lines(out) {
			var s listed
			if err := json.Unmarshal([]byte(line), &s); err != nil || !store.ValidID(s.ID) {
				t.Errorf("%s: %q: %v", filter, line, err)
			}
		}
	}
	if _, errs, _ := f.run(auditor, "sessions ls --limit 2"); !strings.Contains(errs, "only the latest 2 are listed") {
		t.Errorf("the limit is silent: %q", errs)
	}
	f.refused(auditor, "sessions ls --since yesterday", 2, "hint: say how long ago")
	f.refused(auditor, "sessions ls --limit=-1", 2, "-1 is negative")
	f.refused(auditor, "sessions ls --kind video", 2, "--kind must be one of")
	f.refused(auditor, "sessions", 2, "expected one of")
	f.refused(auditor, "", 2, "expected one of")
}

func TestZone(t *testing.T) {
	f := newFixture(t)
	f.three()
	var out bytes.Buffer
	zone := Zone("Asia/Tokyo", time.UTC)
	argv := []string{"sessions", "ls", "--until", "2026-11-21 21:00:30"}
	if code := f.Run(t.Context(), auditor, argv, Streams{Out: &out, Err: io.Discard, Zone: zone}); code != 0 {
		t.Fatal(code)
	}
	if got := out.String(); !strings.Contains(got, "STARTED (JST)") || !strings.Contains(got, "2026-11-21 21:00:00") || strings.Count(got, "\n") != 2 {
		t.Errorf("in Tokyo:\n%s", got)
	}
	for _, bad := range []string{"", "../../etc/passwd", "/etc/localtime", "Nowhere", "Local", "UTC+3\x00"} {
		if Zone(bad, zone) != zone {
			t.Errorf("TZ=%q is taken for a zone", bad)
		}
	}
}

// TestScope holds every command that reads against what callers may read.
func TestScope(t *testing.T) {
	f := newFixture(t)
	_, bob, _ := f.three()
	nobody := Caller{Identity: "eve"}
	alice := Caller{Identity: "alice", Scope: access.Own}
	unset := Caller{Scope: access.Own}
	commands := []string{
		"sessions show %s", "sessions export %s", "sessions verify %s", "sessions play --speed 0 %s", "play --speed 0 %s",
	}
	for _, id := range []string{bob.ID, short(bob.ID), strings.ToUpper(bob.ID)} {
		for _, cmd := range commands {
			line := fmt.Sprintf(cmd, id)
			f.refused(nobody, line, 1, "you may not read recordings")
			f.refused(alice, line, 1, fmt.Sprintf("no session %q\nhint: sessions ls", id))
			f.refused(unset, line, 1, "no session")
			f.must(auditor, line)
		}
	}
	f.refused(nobody, "sessions ls", 1, "hint: a role of yours in jump.yaml needs recordings: own")
	if got := strings.Count(f.must(alice, "sessions ls --json"), "\n"); got != 2 {
		t.Errorf("alice sees %d sessions of hers, want 2", got)
	}
	if got := f.must(alice, "sessions ls --user bob --json"); got != "" {
		t.Errorf("alice sees bob's: %s", got)
	}
	if got := f.must(unset, "sessions ls --json"); got != "" {
		t.Errorf("without an identity: %s", got)
	}
	if got := strings.Count(f.must(alice, "sessions verify --all --json"), "\n"); got != 2 {
		t.Errorf("alice verifies %d, want 2", got)
	}
	f.refused(alice, "sessions rm "+bob.ID, 1, "you may not remove recordings")
	f.refused(alice, "sessions end "+bob.ID, 1, "you may not end sessions")
	f.refused(alice, "audit", 1, "you may not read the audit log")
	f.refused(alice, "audit --verify", 1, "you may not read the audit log")
	remover := Caller{Identity: "alice", Scope: access.Own, Remove: true}
	f.refused(remover, "sessions rm "+bob.ID, 1, "no session")
	f.refused(remover, "sessions end "+bob.ID, 1, "no session")
}

func TestFind(t *testing.T) {
	f := newFixture(t)
	alice, _, _ := f.three()
	for n := 12; n <= store.IDLength; n++ {
		if out := f.must(auditor, "sessions verify "+alice.ID[:n]); !strings.HasPrefix(out, alice.ID) {
			t.Errorf("%d characters find %q", n, out)
		}
	}
	f.refused(auditor, "sessions show "+alice.ID[:1], 2, "the beginning of several")
	f.refused(auditor, "sessions show ''", 1, "no session")
	f.refused(auditor, "sessions show zzzzz", 1, "no session")
	f.refused(auditor, "sessions show 'l\x1b'", 1, `no session`)
	f.refused(auditor, "sessions show "+alice.ID+"0", 1, "no session")
	f.refused(auditor, "sessions show "+store.NewID(began), 1, "no session")
}

func TestShow(t *testing.T) {
	f := newFixture(t)
	alice, bob, running := f.three()
	out := f.must(auditor, "sessions show "+running.ID)
	for _, want := range []string{
		"session    " + running.ID, "user       alice", "host       web02", "started    2026-11-21 13:00:00 UTC",
		"state      open", "exit       running", "mode strict", "verified   running: intact so far",
		"FILE   SIZE     SHA256  RESULT  PATH", `write  2.0 KiB  abc123  ok      /etc/\x1b[31mpasswd`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("show lacks %q:\n%s", want, out)
		}
	}
	var d details
	if err := json.Unmarshal([]byte(f.must(auditor, "sessions show --json "+alice.ID)), &d); err != nil {
		t.Fatal(err)
	}
	if d.ID != alice.ID || !d.Intact || d.Term != "xterm" || d.Events["output"] != 2 || d.Seconds != 60 {
		t.Errorf("show --json: %+v", d)
	}
	full := f.add(2*time.Minute, store.Session{Identity: "alice", Kind: store.KindTerminal, Client: "192.0.2.1:4", Way: "login", Serial: 7, CA: "SHA256:ca"},
		cast.Event{Kind: cast.Command, Data: []byte("top\x1b[2J")},
		jsonEvent(t, cast.Stream, cast.StreamSummary{Stream: "stdin", Bytes: 4096, Kept: 0, SHA256: "d00d", From: 2048, FromSHA256: "f00d"}),
		jsonEvent(t, cast.Gap, cast.GapSummary{From: 1e6, To: 3e6, Reason: "disk\x07", Bytes: 10}),
		jsonEvent(t, cast.Forward, recording.Forward{Kind: "local", From: "a:1", To: "b:2", In: 1024, Duration: 1.5}),
		cast.Event{Kind: cast.Signal, Data: []byte("INT")},
		cast.Event{Kind: cast.Resize, Data: cast.ResizeData(80, 25)},
		cast.Event{Kind: cast.File, Data: []byte("not JSON")},
		jsonEvent(t, cast.Note, map[string]any{"kind": "asked", "value": map[string]any{"command": "rm \ufffd", "raw": []byte("rm \xff"), "bytes": 4000}}),
		jsonEvent(t, cast.Note, map[string]any{"kind": "env", "value": recording.EnvVar{Name: "LANG", Value: "C\x1b[2J"}}),
		jsonEvent(t, cast.Note, map[string]any{"kind": "env_left_out", "value": 3}),
		jsonEvent(t, cast.Note, map[string]any{"kind": "env", "value": 3}),
		jsonEvent(t, cast.Note, map[string]string{"k": "v\u202e"}))
	out = f.must(auditor, "sessions show "+full.ID)
	for _, want := range []string{
		`command      top\x1b[2J`, "certificate  serial 7 of SHA256:ca", "from         192.0.2.1:4, by login", "stdin        4.0 KiB, 0 B of it recorded, sha256 d00d",
		"stdin        a command's after 2.0 KiB, sha256 f00d",
		`missing      10 B from 1s to 3s: disk\x07`, "signals      INT", "resizes      1", `note         {"k":"v\u202e"}`,
		`asked        rm \xff … (3.9 KiB in all)`, `env          LANG=C\x1b[2J`, "env          and 3 more that were not recorded", `note         {"kind":"env","value":3}`,
		"local       a:1   b:2  1.0 KiB  0 B  1.5s",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("show lacks %q:\n%s", want, out)
		}
	}
	var many []cast.Event
	for range maxDetails + 5 {
		many = append(many, jsonEvent(t, cast.Gap, cast.GapSummary{Bytes: 1}))
	}
	long := f.add(3*time.Minute, store.Session{Identity: "alice", Kind: store.KindTerminal}, many...)
	out, errs, _ := f.run(auditor, "sessions show "+long.ID)
	if strings.Count(out, "\nmissing") != maxDetails || !strings.Contains(errs, "5 more events of kind gap are not shown") {
		t.Errorf("a long one: %d lines, %q", strings.Count(out, "\n"), errs)
	}
	if got := f.events(eventShow); len(got) != 4 || got[0].User != "rita" || got[0].SID != running.ID || got[0].RemoteAddr != "192.0.2.9:5" {
		t.Errorf("showing is audited as %+v", got)
	}
	_ = bob
}

func TestVerify(t *testing.T) {
	f := newFixture(t)
	alice, bob, running := f.three()
	if out := f.must(auditor, "sessions verify "+alice.ID+" "+bob.ID+" "+alice.ID); strings.Count(out, "\n") != 2 ||
		!strings.Contains(out, alice.ID+"  intact and sealed") || !strings.Contains(out, bob.ID+"  interrupted: intact") {
		t.Errorf("verify: %s", out)
	}
	out, errs, code := f.run(auditor, "sessions verify --all")
	if out != "" || code != 0 || errs != "1 sealed, 1 interrupted, 1 running, 0 not recorded, 0 damaged\n" {
		t.Errorf("verify --all: %q %q %d", out, errs, code)
	}
	f.refused(auditor, "sessions verify", 2, "say which recordings, or --all")
	f.refused(auditor, "sessions verify --all "+bob.ID, 2, "say which recordings, or --all")
	f.refused(auditor, "sessions verify --since 1d "+bob.ID, 2, "--since goes with --all")

	// A recording that was made anew is consistent in itself.
	forged := f.add(3*time.Minute, store.Session{Identity: "alice", Kind: store.KindTerminal}, output(0, "what was done"))
	f.record(audit.Event{Event: audit.EventSessionEnd, Time: began.Add(time.Hour), SID: forged.ID, Recording: strings.Repeat("ab", 32)})
	// And one that is another's under a new name.
	other := forged
	other.ID, other.State = store.NewID(other.Started), store.Open
	var blocks []store.Block
	for b, err := range f.store.Blocks(t.Context(), forged.ID, 0) {
		if err != nil {
			t.Fatal(err)
		}
		b.Session = other.ID
		blocks = append(blocks, b)
	}
	f.write(store.Batch{Sessions: []store.Session{other}, Blocks: blocks})
	other.State = store.Ended
	f.write(store.Batch{Sessions: []store.Session{other}})
	out, errs, code = f.run(auditor, "sessions verify --all")
	if code != 1 || !strings.Contains(out, forged.ID+"  damaged at block 2: its last block is not the one that the audit log names") ||
		!strings.Contains(out, other.ID+"  damaged at block") || !strings.Contains(errs, "2 damaged\nfleetjump: 2 recordings damaged\n") {
		t.Errorf("verify --all of damaged ones: %d\n%s%s", code, out, errs)
	}
	out, _, code = f.run(auditor, "sessions verify --json "+forged.ID)
	var v verified
	if err := json.Unmarshal([]byte(out), &v); err != nil || code != 1 || v.Intact || v.Problem != errSeal.Error() || v.Condition != "damaged" {
		t.Errorf("verify --json: %d %s %v", code, out, err)
	}
	_ = running
}

func TestExport(t *testing.T) {
	f := newFixture(t)
	alice, _, _ := f.three()
	want := "hello world\r\n"
	if got := f.must(auditor, "sessions export --format raw "+alice.ID); got != want {
		t.Errorf("raw: %q", got)
	}
	for _, format := range []string{"asciicast", "asciicast-raw", "text", "json", "native"} {
		if got := f.must(auditor, "sessions export --format "+format+" "+alice.ID); got == "" {
			t.Errorf("%s is empty", format)
		}
	}
	if got := f.events(audit.EventExport); len(got) != 6 || got[0].Action != "raw" || got[0].User != "rita" || got[0].Reason != "recording of alice" {
		t.Errorf("exports are audited as %+v", got)
	}
	var out, errs bytes.Buffer
	s := Streams{Out: &out, Err: &errs, Terminal: true}
	if code := f.Run(t.Context(), auditor, []string{"sessions", "export", "--format", "raw", alice.ID}, s); code != 2 || out.Len() > 0 ||
		!strings.Contains(errs.String(), "not for terminals\r\nhint: ") {
		t.Errorf("raw bytes to a terminal: %d %q %q", code, out.String(), errs.String())
	}
}

func TestPlayWithoutTerminal(t *testing.T) {
	f := newFixture(t)
	alice, bob, running := f.three()
	f.refused(auditor, "play "+alice.ID, 2, "playing needs a terminal\nhint: over SSH: ssh -t")
	f.refused(auditor, "play --speed 0 "+running.ID, 1, "(sftp) drew nothing\nhint: sessions show")
	f.refused(auditor, "play --speed=-1 "+alice.ID, 2, "not between 0 and")
	f.refused(auditor, "play --speed 0 --start 5s "+alice.ID, 2, "--start does not go with it")
	f.refused(auditor, "play --max-idle=-1s "+alice.ID, 2, "not negative")
	if got := f.must(auditor, "play --speed 0 "+alice.ID); got != "hello world\r\n" {
		t.Errorf("play --speed 0: %q", got)
	}
	if got := f.must(auditor, "play --speed 0 "+bob.ID); strings.Contains(got, "title") || !strings.Contains(got, "data") {
		t.Errorf("the title passed: %q", got)
	}
	if got := f.must(auditor, "play --raw --speed 0 "+bob.ID); got != "\x1b]0;title\x07data\n" {
		t.Errorf("--raw: %q", got)
	}
	if got := f.events(audit.EventPlay); len(got) != 3 {
		t.Errorf("%d plays are audited, want 3", len(got))
	}
}

func TestRemove(t *testing.T) {
	f := newFixture(t)
	alice, bob, running := f.three()
	f.refused(auditor, "sessions rm "+alice.ID+" "+running.ID, 1, "is running\nhint: sessions end")
	f.refused(auditor, "sessions rm "+alice.ID+" nonsense", 1, "no session")
	if got := f.events(audit.EventRemove); len(got) != 0 {
		t.Errorf("what wasn't removed is audited: %+v", got)
	}
	if _, errs, code := f.run(auditor, "sessions rm "+short(alice.ID)+" "+bob.ID+" "+alice.ID); code != 0 || errs != "removed 2 recordings\n" {
		t.Errorf("rm: %d %q", code, errs)
	}
	if got := strings.Count(f.must(auditor, "sessions ls --json"), "\n"); got != 1 {
		t.Errorf("%d sessions are left", got)
	}
	if got := f.events(audit.EventRemove); len(got) != 2 || got[1].SID != bob.ID || got[1].Host != "DB1" {
		t.Errorf("removing is audited as %+v", got)
	}
	// What can't be audited doesn't happen.
	last := f.add(5*time.Minute, store.Session{Identity: "alice", Kind: store.KindTerminal})
	if err := f.audit.Close(); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range []string{"sessions rm ", "sessions show ", "sessions export ", "sessions verify ", "play --speed 0 "} {
		f.refused(auditor, cmd+last.ID, 1, "in the audit: ")
	}
	if _, err := f.store.Session(t.Context(), last.ID); err != nil {
		t.Errorf("removed without a trace: %v", err)
	}
}

func TestEnd(t *testing.T) {
	f := newFixture(t)
	alice, _, running := f.three()
	var reason string
	f.live.Add(live.Entry{Session: running, End: func(r string) { reason = r }})
	f.must(auditor, "sessions end "+short(running.ID)+" --reason 'go home'")
	if reason != "ended by rita: go home" {
		t.Errorf("the session was ended with %q", reason)
	}
	if got := f.events(eventStop); len(got) != 1 || got[0].SID != running.ID || got[0].Reason != reason {
		t.Errorf("ending is audited as %+v", got)
	}
	f.refused(auditor, "sessions end "+alice.ID, 1, "is not running\n")
	f.cfg.Live = nil
	f.refused(auditor, "sessions end "+alice.ID, 1, "no jump host runs here")
}

func TestAudit(t *testing.T) {
	f := newFixture(t)
	failed, n := false, uint64(1<<20)
	f.record(audit.Event{Event: audit.EventAuth, User: "mallory\x1b[0m", Success: &failed, Error: "revoked", RemoteAddr: "203.0.113.1:1"})
	f.record(audit.Event{Event: audit.EventSFTP, User: "alice", Host: "web01", Login: "root", Action: "write", Path: "/etc/passwd", Len: &n, SHA256: strings.Repeat("cd", 32), Result: "ok"})
	f.record(audit.Event{Event: audit.EventSessionStart, User: "alice", Mode: recording.Off, Command: "id", Asked: "ls"})
	f.record(audit.Event{Event: audit.EventSessionEnd, User: "alice", Mode: recording.BestEffort, Reason: "over"})
	f.record(audit.Event{Event: audit.EventSessionEnd, User: "alice", Mode: recording.Strict, Reason: "whole"})
	out := f.must(auditor, "audit")
	if strings.Contains(out, "strict") {
		t.Errorf("audit tells what is as usual:\n%s", out)
	}
	for _, want := range []string{
		`recording off, "id", asked for "ls"`, "recording best_effort, over", "  whole\n",
		"TIME (UTC)", "failed, revoked, from 203.0.113.1:1",
		"write, /etc/passwd, 1.0 MiB, sha256 " + strings.Repeat("cd", 32) + ", ok",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("audit lacks %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "\x1b") || strings.Contains(out, "audit.read") {
		t.Errorf("audit:\n%s", out)
	}
	for filter, want := range map[string]int{
		"--file '*/passwd'": 1, "--file passwd": 0, "--sha256 " + strings.Repeat("CD", 32): 1, "--host 'WEB*'": 1, "--user alice": 4,
		"--event 'sf*'": 1, "--login root": 1, "--since 2026-11-20 --event auth": 1, "--until 2026-11-21 --event auth": 0,
	} {
		out := f.must(auditor, "audit --json "+filter)
		if got := strings.Count(out, "\n"); got != want {
			t.Errorf("%s finds %d, want %d:\n%s", filter, got, want, out)
		}
		for line := range strings.Lines(out) {
			if !json.Valid([]byte(line)) {
				t.Errorf("%s: not JSON: %q", filter, line)
			}
		}
	}
	reads := f.events(audit.EventAuditRead)
	if len(reads) != 10 || reads[0].User != "rita" {
		t.Errorf("%d readings are audited, want 10", len(reads))
	}
	if out := f.must(auditor, "audit --event audit.read --limit 3 --json"); strings.Count(out, "\n") != 3 {
		t.Errorf("--limit 3: %s", out)
	}
	f.refused(auditor, "audit --limit 10001", 2, "the last 10000 at most")
	if _, errs, code := f.run(auditor, "audit --verify"); code != 0 || !strings.Contains(errs, "in 1 file; the last one's hash is ") {
		t.Errorf("--verify: %d %s", code, errs)
	}
	alice, _, _ := f.three()
	if out := f.must(auditor, "audit --json --session "+short(alice.ID)); strings.Count(out, "\n") != 1 {
		t.Errorf("--session: %s", out)
	}
}

func TestHelp(t *testing.T) {
	f := newFixture(t)
	f.cfg.Name = "ssh jump"
	for line, want := range map[string]string{
		"help": "Usage: ssh jump <command>", "--help": "sessions rm", "help sessions ls": "--since=TIME",
		"play --help": "Ctrl-C    quit", "sessions export --help": "ssh jump sessions export ID > session.cast",
		"audit --help": "ssh jump audit --event auth", "sessions end --help": "need remove_recordings: true", "sessions rm --help": "none is removed; should",
	} {
		out, errs, code := f.run(Caller{}, line)
		if code != 0 || errs != "" || !strings.Contains(out, want) || !strings.Contains(out, "Exit codes: 0 all good") {
			t.Errorf("%s: exit code %d, stderr %q, lacks %q:\n%s", line, code, errs, want, out)
		}
	}
}

// TestCtrlC interrupts a command on a terminal in raw mode.
func TestCtrlC(t *testing.T) {
	f := newFixture(t)
	f.three()
	in, keys := io.Pipe()
	defer keys.Close()
	started := make(chan struct{})
	out := writerFunc(func(p []byte) (int, error) {
		select {
		case <-started:
		default:
			close(started)
			go keys.Write([]byte("x\x03"))
		}
		return len(p), nil
	})
	// Nothing ends an export of no end but the key.
	f.cfg.Store = endless{f.cfg.Store}
	var errs bytes.Buffer
	code := f.Run(t.Context(), auditor, []string{"sessions", "ls", "--limit", "0"}, Streams{In: in, Out: out, Err: &errs, Terminal: true})
	if code != 130 || errs.String() != "fleetjump: interrupted\r\n" {
		t.Errorf("exit code %d, stderr %q", code, errs.String())
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// endless has sessions without end.
type endless struct{ store.Store }

func (e endless) Sessions(ctx context.Context, q store.Query) iter.Seq2[store.Session, error] {
	return func(yield func(store.Session, error) bool) {
		for ctx.Err() == nil {
			if !yield(store.Session{ID: store.NewID(began), Started: began, State: store.Ended}, nil) {
				return
			}
		}
		yield(store.Session{}, ctx.Err())
	}
}
