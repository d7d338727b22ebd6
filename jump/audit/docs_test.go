package audit

import (
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the examples in docs/audit.md")

const (
	page       = "../../docs/audit.md"
	pageBegin  = "<!-- examples, written by go test ./jump/audit -update -->\n```json\n"
	pageEnd    = "```\n"
	exampleDay = "2026-11-21"
)

// examples is a short day of a jump host.
func examples() []Event {
	yes, no, zero, length, torn := true, false, 0, uint64(1024), uint64(17)
	const (
		session    = "0deg2esqw00dj94jwfrsev875m"
		connection = "0deg2es4k01hq3w2b7k9m5xv8c"
		digest     = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
		seal       = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"
		ca         = "SHA256:Kz9PjPzSVUbG0lwmEvKnAmGzmGrdm5Pk3h0AQz0vQfQ"
	)
	of := func(e Event) Event {
		e.User, e.Login, e.Host, e.SID, e.Connection = "joe", "root", "web01", session, connection
		e.LocalAddr, e.RemoteAddr = "192.0.2.1:3023", "198.51.100.7:50514"
		return e
	}
	return []Event{
		{Event: EventServerStart, Success: &yes},
		{
			Event: EventAuth, User: "joe", Login: "root", Connection: connection, Success: &yes,
			LocalAddr: "192.0.2.1:3023", RemoteAddr: "198.51.100.7:50514", Serial: 7361200549921874327, CA: ca,
		},
		{
			Event: EventAuth, Login: "root\x1b[2J", Success: &no, Code: "plain_key",
			Error:     "this key has no certificate of a user CA that is trusted here",
			LocalAddr: "192.0.2.1:3023", RemoteAddr: "203.0.113.9:41200",
		},
		{
			Event: EventSessionReject, User: "joe", Login: "root", Host: "db01", Connection: connection,
			RemoteAddr: "198.51.100.7:50514", Code: "login", Error: `login "root" is not permitted on db01`,
		},
		of(Event{
			Event: EventSessionStart, HostAddr: "10.0.0.11:22", Way: "subsystem", Role: "admins", Mode: "strict", Kind: "terminal",
			Size: "80:25", Serial: 7361200549921874327, CA: ca,
		}),
		of(Event{Event: EventResize, Size: "120:40"}),
		of(Event{Event: EventExec, Command: "tar -C /tmp -xf 'a\nb.tar'", ExitCode: &zero, Duration: Seconds(1250 * time.Millisecond)}),
		of(Event{Event: EventSCP, Action: "write", Path: "/etc/motd", Len: &length, SHA256: digest, Result: "ok"}),
		of(Event{Event: EventSFTP, Action: "rename", Path: "/srv/a\u202etxt", Target: "/srv/b", Result: "Permission denied"}),
		of(Event{
			Event: EventPort, Action: "local", Path: "198.51.100.7:50514", Target: "db01:5432", BytesIn: 840, BytesOut: 12034,
			Duration: Seconds(63 * time.Second),
		}),
		of(Event{
			Event: EventSessionEnd, Kind: "terminal", Mode: "strict", ExitError: "signal KILL", BytesIn: 213, BytesOut: 48210,
			Duration: Seconds(125 * time.Second), Recording: seal,
		}),
		{Event: EventPlay, User: "ann", RemoteAddr: "198.51.100.8:50002", Login: "root", Host: "web01", SID: session, Kind: "terminal"},
		{Event: EventDamage, Path: exampleDay + extension, Target: exampleDay + extension + asideExtension, Len: &torn, Reason: tornReason},
	}
}

// TestExamples holds the page's examples against what is written, and verifies
// them as a log.
func TestExamples(t *testing.T) {
	dir := t.TempDir()
	c := newClock()
	c.add(-12 * time.Hour)
	l := openLog(t, Config{Dir: dir, ServerID: "jump.example.com", Now: c.now})
	for _, e := range examples() {
		must(t, l.Record(t.Context(), e))
		c.add(1500 * time.Millisecond)
	}
	must(t, l.Close())
	want, err := os.ReadFile(filepath.Join(dir, exampleDay+extension))
	must(t, err)
	text, err := os.ReadFile(page)
	must(t, err)
	before, rest, ok := strings.Cut(string(text), pageBegin)
	got, after, ok2 := strings.Cut(rest, pageEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no examples between %q and %q", page, pageBegin, pageEnd)
	}
	if *update {
		must(t, os.WriteFile(page, []byte(before+pageBegin+string(want)+pageEnd+after), 0o644))
		return
	}
	if got != string(want) {
		t.Errorf("the examples in %s are not what is written; go test ./jump/audit -update\n%s", page, want)
	}
	must(t, os.WriteFile(filepath.Join(dir, exampleDay+extension), []byte(got), 0o600))
	if r := mustVerify(t, dir); r.Records != uint64(len(examples())) {
		t.Errorf("report %+v", r)
	}
}

// TestPageIsWhole looks for each event and each field in the page's tables.
func TestPageIsWhole(t *testing.T) {
	text, err := os.ReadFile(page)
	must(t, err)
	inTable := func(name string) bool {
		for line := range strings.SplitSeq(string(text), "\n") {
			if first, _, ok := strings.Cut(strings.TrimPrefix(line, "| "), " | "); ok && strings.HasPrefix(line, "| ") &&
				slices.Contains(strings.Split(first, ", "), "`"+name+"`") {
				return true
			}
		}
		return false
	}
	for _, name := range eventNames(t) {
		if !inTable(name) {
			t.Errorf("event %s is not in %s", name, page)
		}
	}
	for _, typ := range []reflect.Type{reflect.TypeFor[Event](), reflect.TypeFor[Record]()} {
		for field := range typ.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name != "" && name != "-" && !inTable(name) {
				t.Errorf("field %s is not in %s", name, page)
			}
		}
	}
	for _, tc := range escapes {
		if strings.Contains(string(text), "| `"+tc.escaped+"` |") {
			return
		}
	}
	t.Errorf("%s shows none of the tested escapes", page)
}

// eventNames are the values of the Event… constants.
func eventNames(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "event.go", nil, 0)
	must(t, err)
	var names []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "Event") {
			return true
		}
		name, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		must(t, err)
		names = append(names, name)
		return true
	})
	if len(names) < 20 {
		t.Fatalf("found only %q", names)
	}
	return names
}
