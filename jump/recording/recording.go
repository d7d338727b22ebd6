// Package recording turns what happens in a session into the blocks of a
// recording and hands them to the store.
//
// It never queues without bound: who is ahead of the store waits. In mode
// strict it refuses to go on when the store does not take the blocks. It does
// not keep the content of copied files, nor the input of a person unless it is
// told to.
package recording

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/fleetca/fleetca/jump/store"
	"github.com/fleetca/fleetca/jump/transfer"
)

// The modes of a recording.
const (
	Strict     = "strict"      // what can't be recorded does not happen
	BestEffort = "best_effort" // what can't be recorded is marked as a gap
	Off        = "off"         // only the index entry is kept
)

// ErrClosed is returned by calls after Close.
var ErrClosed = errors.New("recording is closed")

// Error is why a recording failed. Its text is for the person in the session,
// such as "recording store full"; Unwrap gives the cause.
type Error struct {
	Text string
	Err  error
}

func (e *Error) Error() string { return e.Text }
func (e *Error) Unwrap() error { return e.Err }

// Config is what recordings share. It is not changed after New.
type Config struct {
	// Store takes the blocks; without one Start fails.
	Store store.Store
	// Now is the clock; time.Now if nil.
	Now func() time.Time
	// Every is how long an event waits before its block is handed to the
	// store; 100 ms if zero.
	Every time.Duration
	// Buffer is how many bytes a session may be ahead of what the store has
	// committed; 1 MiB if zero.
	Buffer int
	// MaxStream is how many bytes of each stream of a command are kept; 4 MiB
	// if zero.
	MaxStream uint64
	// Software is written into each recording.
	Software string
	// Log is told of failures in mode best_effort; discarded if nil.
	Log *slog.Logger
}

// Recorder starts recordings.
type Recorder struct{}

// New returns a recorder.
func New(c Config) *Recorder { return &Recorder{} }

// Options describe one session.
type Options struct {
	// Session is the index entry. ID is made if empty, Started is now if zero.
	// Kind decides what is kept.
	Session store.Session
	// Mode is Strict, BestEffort or Off; nothing else is taken for one of them.
	Mode string
	// Input says whether what the person types, or pipes into a command, is
	// kept too.
	Input bool
	// Term is the terminal's type.
	Term string
	// Command is what the client asked to run, exactly; nil for a shell.
	Command []byte
	// SCP is the parsed command of a session of kind scp.
	SCP *transfer.SCP
	// OnFile is told of each operation on a file, in every mode, from the
	// goroutine whose bytes completed it. It must not call the recording.
	OnFile func(transfer.Operation)
}

// Start begins a recording. ctx bounds Start only. Close must be called.
func (r *Recorder) Start(ctx context.Context, o Options) (*Recording, error) {
	return nil, errors.New("unfinished")
}

// Recording is one session's. Its methods are safe for concurrent use; events
// are kept in the order of the calls. They wait while the store is too far
// behind and return at once when the recording fails or is closed.
type Recording struct{}

// ID is that of the session.
func (r *Recording) ID() string { return "" }

// Output records bytes that the host wrote to its standard output, or to the
// terminal. They may go to the client when it returned nil.
func (r *Recording) Output(p []byte) error { return nil }

// Stderr is Output for the standard error.
func (r *Recording) Stderr(p []byte) error { return nil }

// Input records bytes from the client.
func (r *Recording) Input(p []byte) error { return nil }

// Resize records a new size of the terminal.
func (r *Recording) Resize(columns, rows uint32) error { return nil }

// Signal records a signal that the client sent (RFC 4254 §6.9), such as "INT".
func (r *Recording) Signal(name string) error { return nil }

// Note records anything else worth knowing; v is stored as JSON.
func (r *Recording) Note(kind string, v any) error { return nil }

// Forward is a forwarding that has ended.
type Forward struct {
	Kind     string  `json:"kind"` // "local", "remote", "x11", "agent"
	From     string  `json:"from,omitempty"`
	To       string  `json:"to,omitempty"`
	In       uint64  `json:"bytes_in"`  // bytes from the client
	Out      uint64  `json:"bytes_out"` // bytes to the client
	Duration float64 `json:"seconds"`
	Error    string  `json:"error,omitempty"`
}

// Forward records a forwarding.
func (r *Recording) Forward(f Forward) error { return nil }

// Exit is how the session's program ended.
type Exit struct {
	Status  *uint32 // exit-status
	Signal  string  // exit-signal (RFC 4254 §6.10), such as "KILL"
	Core    bool
	Message string
}

// Exit says how the program ended; the last call counts.
func (r *Recording) Exit(e Exit) {}

// Failed is closed when a strict recording can't go on; Err says why.
func (r *Recording) Failed() <-chan struct{} { return nil }

// Err is nil while the recording is well. It is an *Error after Failed.
func (r *Recording) Err() error { return nil }

// Close ends and seals the recording. reason says why the session ended, if not
// by itself. It waits until the seal is durable, or ctx ends. The error says
// that the recording is not sealed.
func (r *Recording) Close(ctx context.Context, reason string) error { return nil }

// Session is the index entry with its totals, final after Close.
func (r *Recording) Session() store.Session { return store.Session{} }

// Hash is the SHA-256, in hex, of the sealing block, which holds the chain of
// all before; empty before Close, or if it isn't sealed.
func (r *Recording) Hash() string { return "" }
