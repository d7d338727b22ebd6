package console

import (
	"context"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/jump/access"
	"github.com/fleetca/fleetca/jump/store"
)

// shortID is how much of an ID lists show: the microsecond in which it was
// made, and a little more. Any unique beginning is understood.
const shortID = 12

func short(id string) string { return id[:min(shortID, len(id))] }

// notFoundError is the same for what isn't there and for what isn't the
// caller's to read.
func notFoundError(id string) error {
	return terminal.Hint(fmt.Errorf("no session %q", id), "sessions ls lists them")
}

// mayReadAny refuses callers who may read nothing at all.
func (c *call) mayReadAny() error {
	if c.caller.Scope == access.Own || c.caller.Scope == access.All {
		return nil
	}
	return errNotPermitted("read recordings", "recordings: own or recordings: all")
}

// find returns the session with this ID, or the only one whose ID begins so,
// if the caller may read it.
func (c *call) find(ctx context.Context, id string) (store.Session, error) {
	if err := c.mayReadAny(); err != nil {
		return store.Session{}, err
	}
	wanted := strings.ToLower(id)
	if store.ValidID(wanted) {
		s, err := c.Store.Session(ctx, wanted)
		if err == nil && c.caller.mayRead(s) {
			s, err = c.present(ctx, s)
		}
		if errors.Is(err, store.ErrNotFound) || err == nil && !c.caller.mayRead(s) {
			return store.Session{}, notFoundError(id)
		}
		return s, err
	}
	since, until, ok := madeBetween(wanted, c.Now())
	if !ok {
		return store.Session{}, notFoundError(id)
	}
	var found store.Session
	for s, err := range c.sessions(ctx, store.Query{Since: since, Until: until}) {
		switch {
		case err != nil:
			return store.Session{}, err
		case !strings.HasPrefix(s.ID, wanted):
		case found.ID != "":
			return store.Session{}, program.WithCode(program.ExitUsage,
				terminal.Hint(fmt.Errorf("%q is the beginning of several sessions' IDs", id), "type more of it; sessions ls --json has whole IDs"))
		default:
			found = s
		}
	}
	if found.ID == "" {
		return found, notFoundError(id)
	}
	return found, nil
}

// findAll is find for several; an ID that is named twice is found once.
func (c *call) findAll(ctx context.Context, ids []string) ([]store.Session, error) {
	var found []store.Session
	seen := map[string]bool{}
	for _, id := range ids {
		s, err := c.find(ctx, id)
		if err != nil {
			return nil, err
		}
		if !seen[s.ID] {
			found = append(found, s)
		}
		seen[s.ID] = true
	}
	return found, nil
}

// slack is how far the time in an ID may be from the session's start.
const slack = 24 * time.Hour

// madeBetween says when sessions started whose IDs begin so, or that none
// does. An ID begins with 56 bits of microseconds.
func madeBetween(prefix string, now time.Time) (since, until time.Time, ok bool) {
	if prefix == "" || len(prefix) >= store.IDLength {
		return since, until, false
	}
	rest := store.IDLength - 1 - len(prefix)
	first, ok1 := madeAt(prefix + strings.Repeat("0", rest) + "0")
	last, ok2 := madeAt(prefix + strings.Repeat("z", rest) + "0")
	if latest := now.Add(slack); last.After(latest) {
		last = latest // further on no store can count
	}
	return first.Add(-slack), last.Add(slack), ok1 && ok2
}

func madeAt(id string) (time.Time, bool) {
	if !store.ValidID(id) {
		return time.Time{}, false
	}
	raw, err := idEncoding.DecodeString(id)
	if err != nil {
		return time.Time{}, false
	}
	return time.UnixMicro(int64(binary.BigEndian.Uint64(raw) >> 8)), true
}

// idEncoding is that of store.NewID.
var idEncoding = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)
