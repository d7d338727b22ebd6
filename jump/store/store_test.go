package store

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestNewID(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	var ids []string
	for i := range 1000 {
		id := NewID(now.Add(time.Duration(i) * time.Microsecond))
		if !ValidID(id) || len(id) != 26 || strings.ToLower(id) != id {
			t.Fatalf("ID %q", id)
		}
		ids = append(ids, id)
	}
	if !slices.IsSorted(ids) {
		t.Error("IDs don't sort by time")
	}
	seen := map[string]bool{}
	for range 1000 {
		seen[NewID(now)] = true
	}
	if len(seen) != 1000 {
		t.Errorf("of 1000 IDs of one moment %d differ", len(seen))
	}
	for _, id := range []string{"", "x", ids[0] + "0", ids[0][:25] + "U", ids[0][:25] + "u", ids[0][:25] + "/", NewID(time.Time{})[:25]} {
		if ValidID(id) {
			t.Errorf("%q is taken for an ID", id)
		}
	}
	if id := NewID(time.Time{}); !ValidID(id) || id >= ids[0] {
		t.Errorf("ID of the zero time: %q", id)
	}
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true},
		{"", "x", true},
		{"*", "", true},
		{"*", "a/b", true},
		{"a", "a", true},
		{"a", "ab", false},
		{"a*", "ab", true},
		{"*b", "ab", true},
		{"a*c*e", "abcde", true},
		{"a*c*e", "abcd", false},
		{"?", "é", true},
		{"?", "", false},
		{"?*", "", false},
		{"[a]", "a", false},
		{"[a]", "[a]", true},
		{"\xff*", "\xffx", true},
		{strings.Repeat("*a", 50) + "b", strings.Repeat("a", 5000), false}, // soon
	} {
		if got := glob(c.pattern, c.s); got != c.want {
			t.Errorf("glob(%.20q, %.20q) = %v", c.pattern, c.s, got)
		}
	}
}

// TestAdmissionAfterFailure checks that a recording gets no hole when one of
// its batches fails while later ones are queued.
func TestAdmissionAfterFailure(t *testing.T) {
	var a Admission
	id := NewID(time.Now())
	block := func(n uint32) Batch { return Batch{Blocks: []Block{{Session: id, Number: n}}} }
	accept := func(b Batch) Batch {
		t.Helper()
		if err := a.Accept(b, Plenty); err != nil {
			t.Fatal(err)
		}
		return b
	}
	done := func(b Batch, commit error) error {
		if commit != nil {
			a.Refuse(b, commit)
			return commit
		}
		return a.Apply(b)
	}
	full := errors.Join(ErrFull)
	made := accept(Batch{Sessions: []Session{{ID: id, State: Open}}})
	b0, b1, b2 := accept(block(0)), accept(block(1)), accept(block(2))
	for _, b := range []Batch{made, b0} {
		if err := done(b, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := done(b1, full); !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	// Block 1 is written again while block 2 is still queued.
	if err := a.Accept(block(2), Plenty); !errors.Is(err, ErrInvalid) {
		t.Fatalf("block 2 before block 1: %v", err)
	}
	again, next := accept(block(1)), accept(block(2))
	if err := done(b2, nil); !errors.Is(err, ErrFull) {
		t.Fatalf("a block after one that failed: %v", err)
	}
	for _, b := range []Batch{again, next, accept(block(3))} {
		if err := done(b, nil); err != nil {
			t.Fatalf("written again: %v", err)
		}
	}

	// A session whose first put fails was never there, nor are its blocks.
	id = NewID(time.Now())
	made, b0 = accept(Batch{Sessions: []Session{{ID: id, State: Open}}}), accept(block(0))
	if err := done(made, full); !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	if err := a.Accept(block(1), Plenty); !errors.Is(err, ErrNotFound) {
		t.Fatalf("block of a session that was not made: %v", err)
	}
	if err := done(b0, nil); !errors.Is(err, ErrFull) {
		t.Fatalf("queued block of a session that was not made: %v", err)
	}

	// A session that couldn't be closed is still open, and can be tried again.
	id = NewID(time.Now())
	for _, b := range []Batch{accept(Batch{Sessions: []Session{{ID: id, State: Open}}}), accept(block(0))} {
		if err := done(b, nil); err != nil {
			t.Fatal(err)
		}
	}
	end := Batch{Sessions: []Session{{ID: id, State: Ended}}, Blocks: block(1).Blocks, Closing: true}
	for _, commit := range []error{full, nil} {
		if err := done(accept(end), commit); !errors.Is(err, commit) {
			t.Fatal(err)
		}
	}
	if err := a.Accept(block(2), Plenty); !errors.Is(err, ErrNotFound) {
		t.Fatalf("block of an ended session: %v", err)
	}
	if n := len(a.open); n != 1 {
		t.Errorf("%d sessions are still known, expected the one that is open", n)
	}
}

func TestAdmissionLevels(t *testing.T) {
	running, fresh := NewID(time.Now()), NewID(time.Now())
	put := func(id string, s State) []Session { return []Session{{ID: id, State: s}} }
	block := []Block{{Session: running}}
	for _, c := range []struct {
		name      string
		batch     Batch
		low, full bool // taken
	}{
		{"new session", Batch{Sessions: put(fresh, Open)}, false, false},
		{"new session, said to be closing", Batch{Sessions: put(fresh, Open), Closing: true}, false, false},
		{"put of a running one", Batch{Sessions: put(running, Open)}, true, false},
		{"block of a running one", Batch{Blocks: block}, true, false},
		{"audit", Batch{Audit: []AuditRecord{{Sequence: 1}}}, true, false},
		{"closing", Batch{Sessions: put(running, Ended), Blocks: block, Closing: true}, true, true},
		{"ended", Batch{Sessions: put(running, Ended)}, true, false},
		{"removing", Batch{Remove: []string{running}, Audit: []AuditRecord{{Sequence: 1}}}, true, true},
		{"nothing", Batch{}, true, false},
	} {
		for level, taken := range map[Level]bool{Plenty: true, Low: c.low, Full: c.full} {
			var a Admission
			first := Batch{Sessions: put(running, Open)}
			if err := a.Accept(first, Plenty); err != nil {
				t.Fatal(err)
			}
			if err := a.Apply(first); err != nil {
				t.Fatal(err)
			}
			err := a.Accept(c.batch, level)
			if taken != (err == nil) || err != nil && !errors.Is(err, ErrFull) {
				t.Errorf("%s at level %s: %v", c.name, level, err)
			}
		}
	}
}
