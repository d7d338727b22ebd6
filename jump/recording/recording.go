// Package recording turns what happens in a session into the blocks of a
// recording (jump/cast) and hands them to a store (jump/store).
//
// It never queues without bound: who is ahead of the store waits. In mode
// strict it refuses to go on when the store does not take the blocks. It does
// not keep the content of copied files, nor what a person types unless it is
// told to, and it takes no command for a file copy by its first word: the whole
// line must be one, and the bytes that pass must be of that protocol.
package recording

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/fleetca/fleetca/jump/cast"
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

// Unwrap returns what the store said.
func (e *Error) Unwrap() error { return e.Err }

// failure makes an Error of what the store said.
func failure(err error) *Error {
	text := "recording store failed"
	switch {
	case errors.Is(err, store.ErrFull):
		text = "recording store full"
	case errors.Is(err, errSilent):
		text = "recording store does not answer"
	}
	return &Error{Text: text, Err: err}
}

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
	// committed, counting 32 for each event besides its data; 1 MiB if zero.
	Buffer int
	// MaxStream is how many bytes of the beginning of each stream of a command
	// are kept, besides up to 256 KiB of its end, which are held in memory until
	// then; 4 MiB if zero.
	MaxStream uint64
	// Software is written into each recording.
	Software string
	// Log is told of the failures that don't end a session; nothing is logged
	// if nil.
	Log *slog.Logger
}

// Recorder starts recordings. It is safe for concurrent use.
type Recorder struct {
	c      Config
	ending sync.WaitGroup
}

// New returns a recorder.
func New(c Config) *Recorder {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Every <= 0 {
		c.Every = 100 * time.Millisecond
	}
	if c.Buffer <= 0 {
		c.Buffer = 1 << 20
	}
	if c.MaxStream == 0 {
		c.MaxStream = 4 << 20
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Recorder{c: c}
}

// Wait waits until the recordings are ended that Start gave up, which takes a
// minute at most, and less once the store is closed. Start isn't called any more.
func (r *Recorder) Wait() { r.ending.Wait() }

// Options describe one session.
type Options struct {
	// Session is the index entry. ID is made if empty, Started is now if zero,
	// Mode and State are set. Kind decides what is kept.
	Session store.Session
	// Mode is Strict, BestEffort or Off; anything else is refused.
	Mode string
	// Input says whether what the person types, or pipes into a command, is
	// kept too.
	Input bool
	// Term is the terminal's type.
	Term string
	// Command is what the client asked to run, exactly; nil for a shell.
	Command []byte
	// Asked is what the client asked for where Command is what a forced command
	// runs in its place; nil if that is the same. Of more than 32 KiB the rest
	// is digested.
	Asked []byte
	// Env is what the client set before, in that order. Names and values are
	// cut to 2 KiB, and altogether to what a block holds.
	Env []EnvVar
	// Whole keeps all of standard output and error, as for a terminal; it is
	// meant for a shell without one.
	Whole bool
	// SCP is the parsed command of a session of kind scp.
	SCP *transfer.SCP
	// OnFile is told of each operation on a file, in every mode, in the
	// goroutine whose bytes completed it, and at the end in one of its own. It
	// may block, which holds the bytes up, and must not call the recording. One
	// that hangs is waited for only so long: it may then return after Close.
	OnFile func(transfer.Operation)
	// OnFallback is told, once, that a session taken for scp, sftp, rsync or
	// git is none, and why; in every mode, in the goroutine whose bytes showed
	// it, before they are passed on. Its error makes that call and all later
	// ones return it: the bytes must not go on. nil allows it. It may block and
	// must not call the recording.
	OnFallback func(why string) error
}

// EnvVar is a variable of the environment, as the client asked to set it.
type EnvVar struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Recording is one session's. Its methods are safe for concurrent use; events
// are kept in the order of the calls. They wait while the store is too far
// behind: by bytes, and in mode strict by time, which is for ever never: then
// the recording fails. They return at once, with the reason, when it has failed
// or is closed.
type Recording struct {
	c       Config
	mode    string
	started time.Time
	streams streams

	begun   chan struct{}      // something is to be written
	plenty  chan struct{}      // and is worth a block already
	closing chan struct{}      // closed by Close
	failed  chan struct{}      // closed with err
	done    chan struct{}      // closed when the writer has ended
	cancel  context.CancelFunc // of the writer

	writer writer // belongs to the writer goroutine

	mu      sync.Mutex
	closed  bool          // no call is taken any more
	over    bool          // nor anything that is known at the end
	err     error         // strict: why the recording has failed
	denied  error         // why the session may not be a command, which it is
	pending *queue        // events that are in no block yet; nil if there are none
	ahead   int           // what they and the blocks that are not committed cost
	waiting int           // calls that wait for room
	change  chan struct{} // closed when one of the above changed; nil if nobody waits
	latest  time.Duration // time of the last event
	alarm   *time.Timer   // strict: looks for what is unsaved for too long
	unsaved []*batch      // what is not committed, in order
	failing error         // why the store did not take something of it
	gap     *gap          // best effort: what is not recorded just now
	exit    Exit
	session store.Session
	indexed time.Time // when the index entry was last given to the store
	hash    string
	sealing error // what came of the seal, once done is closed
}

// gap is a time of which nothing is recorded.
type gap struct {
	from   time.Duration
	reason string
	bytes  uint64
}

// ID is that of the session.
func (r *Recording) ID() string { return r.session.ID }

// Output records bytes that the host wrote to its standard output, or to the
// terminal. They may go to the client when it returned nil.
func (r *Recording) Output(p []byte) error { return r.streams.stdout.take(r, p) }

// Stderr is Output for the standard error.
func (r *Recording) Stderr(p []byte) error { return r.streams.stderr.take(r, p) }

// Input records bytes from the client, or counts them only. They may go to the
// host when it returned nil.
func (r *Recording) Input(p []byte) error { return r.streams.stdin.take(r, p) }

// Resize records a new size of the terminal.
func (r *Recording) Resize(columns, rows uint32) error {
	return r.event(cast.Resize, cast.ResizeData(columns, rows))
}

// maxSignal is longer than any signal's name; a client may send longer ones.
const maxSignal = 256

// Signal records a signal that the client sent (RFC 4254 §6.9), such as "INT".
func (r *Recording) Signal(name string) error {
	return r.event(cast.Signal, []byte(name[:min(len(name), maxSignal)]))
}

// Note records anything else worth knowing: a JSON object of kind and value.
func (r *Recording) Note(kind string, v any) error {
	data, err := noteData(kind, v)
	if err != nil {
		return err
	}
	return r.event(cast.Note, data)
}

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
func (r *Recording) Forward(f Forward) error {
	for _, s := range []*string{&f.Kind, &f.From, &f.To, &f.Error} {
		*s = cut(*s, maxText)
	}
	data, err := marshal(f)
	if err != nil {
		return err
	}
	return r.event(cast.Forward, data)
}

// Exit is how the session's program ended.
type Exit struct {
	Status  *uint32 // exit-status
	Signal  string  // exit-signal (RFC 4254 §6.10), such as "KILL"
	Core    bool
	Message string
}

// Exit says how the program ended; the last call before Close counts.
func (r *Recording) Exit(e Exit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.exit = e
	}
}

// Failed is closed when a strict recording can't go on; Err says why.
func (r *Recording) Failed() <-chan struct{} { return r.failed }

// Err is nil until Failed is closed, and then an *Error.
func (r *Recording) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Session is the index entry with its totals so far; they are final after
// Close.
func (r *Recording) Session() store.Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.session
}

// Hash is the hash of the sealing block, in hex. It stands for the whole
// recording, so it belongs into the audit. It is empty before Close, and if the
// recording isn't sealed.
func (r *Recording) Hash() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.hash
}
