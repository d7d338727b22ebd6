package store

import (
	"fmt"
	"slices"
)

// What an entry costs beside its data, in Batch.Size: an upper bound of what
// its key and the bookkeeping take.
const itemOverhead = 256

// Items counts what the batch holds.
func (b Batch) Items() int {
	return len(b.Sessions) + len(b.Blocks) + len(b.Audit) + len(b.Remove)
}

// Size is what the batch counts for against MaxBatchBytes and against the
// bytes that a store queues: its data and 256 bytes for each item.
func (b Batch) Size() int {
	n := itemOverhead * b.Items()
	for _, s := range b.Sessions {
		n += len(s.ID) + len(s.Connection) + len(s.Identity) + len(s.Login) + len(s.Host) +
			len(s.Address) + len(s.Client) + len(s.ServerID) + len(s.Way) + len(s.Role) + len(s.CA) +
			len(s.Kind) + len(s.Mode) + len(s.Command) + len(s.State) + len(s.Reason) + len(s.ExitSignal)
	}
	for _, k := range b.Blocks {
		n += len(k.Data)
	}
	for _, a := range b.Audit {
		n += len(a.Event) + len(a.Identity) + len(a.Login) + len(a.Host) + len(a.Session) +
			len(a.Path) + len(a.SHA256) + len(a.Line)
	}
	return n
}

// Ends says whether the batch is taken while the level is Full: it is Closing,
// or only removes.
func (b Batch) Ends() bool {
	return b.Closing || len(b.Remove) > 0 && len(b.Sessions)+len(b.Blocks) == 0
}

// Check returns an error that wraps ErrTooBig or ErrInvalid for a batch that
// no store takes.
func (b Batch) Check() error {
	if n := b.Items(); n > MaxBatchItems {
		return fmt.Errorf("%w: %d items, of at most %d", ErrTooBig, n, MaxBatchItems)
	}
	if n := b.Size(); n > MaxBatchBytes {
		return fmt.Errorf("%w: %d bytes, of at most %d", ErrTooBig, n, MaxBatchBytes)
	}
	for _, s := range b.Sessions {
		switch {
		case !ValidID(s.ID):
			return fmt.Errorf("%w: session ID %q", ErrInvalid, s.ID)
		case s.State != Open && s.State != Ended && s.State != Interrupted:
			return fmt.Errorf("%w: session %s in state %q", ErrInvalid, s.ID, s.State)
		}
	}
	for _, k := range b.Blocks {
		if !ValidID(k.Session) {
			return fmt.Errorf("%w: block of session ID %q", ErrInvalid, k.Session)
		}
	}
	for _, a := range b.Audit {
		if a.Sequence == 0 {
			return fmt.Errorf("%w: audit record without a sequence number", ErrInvalid)
		}
	}
	for _, id := range b.Remove {
		if !ValidID(id) {
			return fmt.Errorf("%w: session ID %q to remove", ErrInvalid, id)
		}
	}
	return nil
}

// CheckReplace returns an error that wraps ErrInvalid if b may not put e in
// place of old, which the store has: what isn't Open anymore is never opened
// again and gets no blocks.
func CheckReplace(old, e Session, b Batch) error {
	if old.State == Open {
		return nil
	}
	if e.State == Open || slices.ContainsFunc(b.Blocks, func(k Block) bool { return k.Session == e.ID }) {
		return fmt.Errorf("%w: session %s is %s already", ErrInvalid, e.ID, old.State)
	}
	return nil
}
