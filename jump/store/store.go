// Package store is the contract for where a jump host keeps what it recorded:
// an index entry for each session, the session's blocks (jump/cast makes and
// reads them), and audit records for queries.
//
// A store is written in batches. A batch is applied whole or not at all, also
// when the process is killed in the middle of it, and batches are applied in
// the order in which Write took them; so what is found after a crash is always
// what was there after some batch, and never less than what was acknowledged.
//
// It refuses: batches beyond MaxBatchBytes and MaxBatchItems; sessions whose
// ID isn't one of NewID; new sessions while space is low, and everything but
// closing batches while it is nearly gone. It never looks into blocks, never
// deletes what it wasn't told to, and never repairs by dropping data.
//
// Implementations pass the suite in jump/store/storetest.
package store

import (
	"context"
	"errors"
	"iter"
	"time"
)

// Limits of one batch. Whatever is within them is taken, by every
// implementation.
const (
	// MaxBatchBytes bounds what Batch.Size counts.
	MaxBatchBytes = 4 << 20
	// MaxBatchItems bounds Sessions, Blocks, Audit and Remove together.
	MaxBatchItems = 512
)

var (
	// ErrNotFound means that there is no such session or record, or that a
	// block's session is not open.
	ErrNotFound = errors.New("not found in the store")
	// ErrFull means that there isn't room for this batch: it wasn't applied.
	// Later batches may be taken again, since space can come back.
	ErrFull = errors.New("the recording store is full")
	// ErrFailed means that the store can't be written until it is opened
	// again; the error that it comes wrapped with tells why.
	ErrFailed = errors.New("the recording store has failed")
	// ErrClosed means that the store was closed.
	ErrClosed = errors.New("the recording store is closed")
	// ErrTooBig means that a batch is beyond MaxBatchBytes or MaxBatchItems.
	ErrTooBig = errors.New("the batch is too big for the recording store")
	// ErrInvalid means that a batch isn't well formed: an ID that isn't one
	// of NewID, a session without a state, an audit record without a sequence
	// number.
	ErrInvalid = errors.New("the batch is not valid")
	// ErrLocked means that another process has the store open: most likely a
	// running server, through which recordings are reached then.
	ErrLocked = errors.New("the recording store is in use by another process")
)

// State says how far a session is.
type State string

const (
	// Open sessions are being recorded.
	Open State = "open"
	// Ended sessions were closed in order; their last block is a seal.
	Ended State = "ended"
	// Interrupted sessions were Open when their process died, or lost their
	// end in another way. They are readable up to their last block.
	Interrupted State = "interrupted"
)

// Kind says what went through a session.
type Kind string

const (
	KindTerminal Kind = "terminal" // a pty
	KindCommand  Kind = "command"  // a command without a pty
	KindSCP      Kind = "scp"      // the old scp protocol
	KindSFTP     Kind = "sftp"     // sftp, and scp over it
	KindForward  Kind = "forward"  // a forwarded port, X11 or agent use
)

// Session is the index entry of one recorded SSH session channel, or of one
// forwarding. It is kept as JSON, so fields may be added.
type Session struct {
	ID         string `json:"id"`                   // of NewID
	Connection string `json:"connection,omitempty"` // what the sessions of one client connection share
	Identity   string `json:"identity,omitempty"`   // key ID of the user certificate
	Login      string `json:"login,omitempty"`      // account on the host
	Host       string `json:"host,omitempty"`       // name that was asked for, lower case
	Address    string `json:"address,omitempty"`    // where the host was reached, host:port
	Client     string `json:"client,omitempty"`     // where the client came from, address:port
	ServerID   string `json:"server_id,omitempty"`  // which jump host recorded
	Way        string `json:"way,omitempty"`        // "subsystem", "direct-tcpip" or "login"
	Role       string `json:"role,omitempty"`       // the role that allowed it
	Serial     uint64 `json:"serial,omitempty"`     // of the user certificate
	CA         string `json:"ca,omitempty"`         // fingerprint of the CA that signed it
	Kind       Kind   `json:"kind,omitempty"`
	Mode       string `json:"mode,omitempty"` // "strict", "best_effort" or "off"

	// Command is the printable form, for lists; the exact bytes are in the
	// recording.
	Command string `json:"command,omitempty"`

	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"` // zero while Open; of an Interrupted session the time of its last block
	State   State     `json:"state"`
	Reason  string    `json:"reason,omitempty"` // why it ended, if not by itself

	ExitStatus *uint32 `json:"exit_status,omitempty"`
	ExitSignal string  `json:"exit_signal,omitempty"`

	Columns uint32 `json:"columns,omitempty"` // of the terminal at the start
	Rows    uint32 `json:"rows,omitempty"`

	// Of a session in state Open these are as of the last put. Opening a store
	// counts Blocks, Bytes and StoredBytes of interrupted sessions anew.
	Blocks      uint32 `json:"blocks"`
	Bytes       uint64 `json:"bytes"`        // raw: the sum of Block.Raw
	StoredBytes uint64 `json:"stored_bytes"` // the sum of the lengths of Block.Data
	Gaps        uint32 `json:"gaps,omitempty"`
}

// Block is one piece of a session's recording.
type Block struct {
	Session string
	Number  uint32 // from 0, without holes
	Raw     uint32 // bytes that Data holds uncompressed; only counted
	Data    []byte // not changed after Write
	// Time is when the block was made. Zero in Write means now.
	Time time.Time
}

// AuditRecord is an audit event as kept for queries. Line is the event as it
// stands in the audit file, the rest is what queries look at.
type AuditRecord struct {
	Sequence uint64 // from 1; the key: a second put of a sequence number replaces the first
	Time     time.Time
	Event    string
	Identity string
	Login    string
	Host     string
	Session  string
	Path     string
	SHA256   string
	Line     []byte // not changed after Write
}

// Batch is what is written whole or not at all. Sessions, blocks and audit
// records are put first, then what Remove names is removed.
type Batch struct {
	// Sessions are put: made, or replaced as a whole. What isn't Open anymore
	// can't be opened again, nor can what was removed be made again.
	Sessions []Session
	// Blocks belong to a session in state Open, or to one that this batch puts,
	// and are numbered from 0 on without holes. A block whose batch failed may
	// be written again, with a later batch; until then, the blocks after it
	// fail too.
	Blocks []Block
	Audit  []AuditRecord
	Remove []string // IDs of sessions that lose entry and blocks; unknown ones are passed over

	// Closing marks a batch that ends recordings in order (or removes some):
	// it is taken while Level is Full.
	Closing bool
	// Soon asks not to wait for more batches before committing.
	Soon bool
}

// Store keeps recordings. All methods are safe for concurrent use.
type Store interface {
	// Write queues a batch. It blocks, until ctx ends, while too many bytes
	// are queued. It returns an error that wraps ErrFull, ErrFailed,
	// ErrClosed, ErrTooBig, ErrInvalid or ErrNotFound if it can't take the
	// batch, or ctx.Err(); then committed is not called. Once Write has returned nil,
	// committed (which may be nil) is called exactly once, from another
	// goroutine, with nil when the batch is durable, or with why it isn't
	// and wasn't applied. Calls of committed come in the order of Write, one
	// at a time; it must not block, and must not call Write, Sync or Close.
	//
	// A batch with a session in state Open that the store doesn't have is
	// refused with ErrFull while the level is Low.
	Write(ctx context.Context, b Batch, committed func(error)) error

	// Sync returns when all batches whose Write returned before are durable
	// or have failed; their own error goes to their committed. It returns
	// ErrFailed and ErrClosed as Write does.
	Sync(ctx context.Context) error

	// Session returns an index entry, or an error that wraps ErrNotFound.
	Session(ctx context.Context, id string) (Session, error)

	// Sessions yields what matches q, latest Started first. It holds nothing
	// while it yields, so that sessions that are put or removed meanwhile may
	// or may not be seen. An error is the last thing that it yields.
	Sessions(ctx context.Context, q Query) iter.Seq2[Session, error]

	// Blocks yields the blocks of a session from number from on that are
	// committed, in order. The error wraps ErrNotFound if there is no such
	// session, also when it is removed meanwhile. Data belongs to the caller.
	Blocks(ctx context.Context, id string, from uint32) iter.Seq2[Block, error]

	// Audit yields what matches q, lowest sequence first.
	Audit(ctx context.Context, q AuditQuery) iter.Seq2[AuditRecord, error]

	// LastAudit returns the record with the highest sequence number, or an
	// error that wraps ErrNotFound.
	LastAudit(ctx context.Context) (AuditRecord, error)

	// Space tells what room there is.
	Space() Space

	// Close commits what is queued, waits for it and for the store's
	// goroutines, and releases the store. Sessions that are still Open will
	// be Interrupted when it is opened again. A second call does nothing.
	Close() error
}

// Level says what a store still takes.
type Level int

const (
	Plenty Level = iota // everything
	Low                 // no new sessions
	Full                // only closing batches: running sessions must close
)

func (l Level) String() string {
	switch l {
	case Plenty:
		return "plenty"
	case Low:
		return "low"
	case Full:
		return "full"
	}
	return "unknown"
}

// Space is what room there is, in bytes.
type Space struct {
	Free  uint64 // on the file system, without what is reserved for root
	Used  uint64 // by the store
	Level Level
}
