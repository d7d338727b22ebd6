// Package cast is the recording format: what happened in one session, as events
// with microsecond times in blocks that are compressed, chained by SHA-256 and
// sealed at the end. docs/recording-format.md specifies it.
//
// It refuses to write an event that a reader could not hold, and to read what
// was altered, left out, put in another order, or made to exhaust memory: every
// length and count is checked against a limit before anything is allocated. It
// stores nothing and looks into no event but the first and the last.
//
// The chain shows what happened to a recording to anyone who knows its last
// hash. Somebody who may write to the store can make a new, consistent chain,
// as with any unsigned log; the audit log is where last hashes belong.
package cast

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Version is the version of the format that this package writes and reads.
const Version = 1

const (
	// MaxBlock is the most bytes that a block may hold before compression, and
	// the most that it may store.
	MaxBlock = 1 << 20
	// MaxData is the most bytes of data that one event may hold.
	MaxData = 64 << 10
	// GoodBlock is how many pending bytes are worth a block: more compress no
	// better and only cost memory.
	GoodBlock = 256 << 10
)

// Kind says what an event is. Kinds that a reader doesn't know are to be
// skipped.
type Kind byte

// Kinds of events. Their values are letters, for those who look at bytes.
const (
	// Start is the first event of a recording; JSON, see Header.
	Start Kind = 's'
	// Output is what the host sent, standard output or the terminal's.
	Output Kind = 'o'
	// Stderr is what the host sent on standard error.
	Stderr Kind = 'e'
	// Input is what the client sent, if that is recorded.
	Input Kind = 'i'
	// Resize is a new size of the terminal, see ResizeData.
	Resize Kind = 'r'
	// Command is the command line that was asked for, as bytes. A long one is
	// several events in a row.
	Command Kind = 'c'
	// Stream sums up a stream that was not kept whole; JSON, see StreamSummary.
	Stream Kind = 't'
	// File is one file operation of scp or sftp; JSON.
	File Kind = 'f'
	// Forward is a forwarded connection; JSON.
	Forward Kind = 'p'
	// Signal is a signal that the client sent; its name without "SIG".
	Signal Kind = 'k'
	// Gap says that something was not recorded; JSON, see GapSummary.
	Gap Kind = 'g'
	// Note is anything else worth knowing; JSON.
	Note Kind = 'n'
	// EndKind is the last event of a sealed recording; JSON, see End.
	EndKind Kind = 'x'
)

// String names the kind as exports and lists do.
func (k Kind) String() string {
	switch k {
	case Start:
		return "start"
	case Output:
		return "output"
	case Stderr:
		return "stderr"
	case Input:
		return "input"
	case Resize:
		return "resize"
	case Command:
		return "command"
	case Stream:
		return "stream"
	case File:
		return "file"
	case Forward:
		return "forward"
	case Signal:
		return "signal"
	case Gap:
		return "gap"
	case Note:
		return "note"
	case EndKind:
		return "end"
	default:
		return fmt.Sprintf("kind %d", byte(k))
	}
}

// JSON tells whether the data of events of this kind is a JSON object.
func (k Kind) JSON() bool {
	switch k {
	case Start, Stream, File, Forward, Gap, Note, EndKind:
		return true
	default:
		return false
	}
}

// splits tells whether data of this kind means the same in several events in a
// row as in one.
func (k Kind) splits() bool { return k == Output || k == Stderr || k == Input || k == Command }

// counts tells whether data of this kind is part of what End.Bytes counts.
func (k Kind) counts() bool { return k == Output || k == Stderr || k == Input }

// Event is one thing that happened.
type Event struct {
	// At is the time since Header.Started, kept to the microsecond.
	At   time.Duration
	Kind Kind
	Data []byte
}

// Header is the data of the Start event: whose session it is and what is
// recorded. Text that isn't UTF-8 loses its bad bytes to U+FFFD; text of more
// than 512 bytes is cut.
type Header struct {
	// Version is the format's; the encoder sets it.
	Version  int    `json:"version"`
	Session  string `json:"session"`
	Identity string `json:"identity,omitempty"`
	Login    string `json:"login,omitempty"`
	Host     string `json:"host,omitempty"`
	// Client is the client's address and port, ServerID the jump host's name.
	Client   string `json:"client,omitempty"`
	ServerID string `json:"server_id,omitempty"`
	// Started is when the recording begins, in UTC, to the microsecond.
	Started time.Time `json:"started"`
	// Kind is the session's: terminal, command, scp, sftp, forward.
	Kind string `json:"kind,omitempty"`
	// Mode is the recording mode: strict or best_effort.
	Mode string `json:"mode,omitempty"`
	// Term is the client's TERM, Columns and Rows its first size in cells; zero
	// without a terminal.
	Term    string `json:"term,omitempty"`
	Columns uint32 `json:"columns,omitempty"`
	Rows    uint32 `json:"rows,omitempty"`
	// Input says that what the client typed is recorded.
	Input bool `json:"input,omitempty"`
	// Software is what wrote the recording.
	Software string `json:"software,omitempty"`
}

// End is the data of the last event of a sealed recording.
type End struct {
	// At is the event's time; the encoder writes it as such.
	At time.Duration `json:"-"`
	// Reason is why the session ended if not by itself.
	Reason string `json:"reason,omitempty"`
	// ExitStatus is the command's; nil if the host sent none.
	ExitStatus *uint32 `json:"exit_status,omitempty"`
	// Signal ended the command (RFC 4254 §6.10), perhaps with a core dump.
	Signal string `json:"signal,omitempty"`
	Core   bool   `json:"core,omitempty"`
	// Message is what the host said of the signal.
	Message string `json:"message,omitempty"`
	// Events counts all events, Start and End among them; Bytes is the data of
	// all Output, Stderr and Input events. The encoder sets both.
	Events uint64 `json:"events"`
	Bytes  uint64 `json:"bytes"`
}

// StreamSummary is the data of a Stream event: what went through a stream of
// which not everything was kept.
type StreamSummary struct {
	// Stream is stdin, stdout or stderr.
	Stream string `json:"stream"`
	// Bytes passed, Kept of them are in the recording.
	Bytes uint64 `json:"bytes"`
	Kept  uint64 `json:"kept"`
	// SHA256 of all that passed, in hexadecimal; empty if nobody counted on it.
	SHA256 string `json:"sha256,omitempty"`
	// From is the offset at which the stream turned out to be a command's, and
	// from which what is kept was counted anew; FromSHA256 is of all after it.
	From       uint64 `json:"from,omitempty"`
	FromSHA256 string `json:"from_sha256,omitempty"`
}

// GapSummary is the data of a Gap event: a time of which something is missing.
type GapSummary struct {
	// From and To are microseconds since Header.Started.
	From int64 `json:"from"`
	To   int64 `json:"to"`
	// Reason is why nothing was recorded.
	Reason string `json:"reason,omitempty"`
	// Bytes went by unrecorded.
	Bytes uint64 `json:"bytes"`
}

// ErrResize says that the data of a Resize event isn't two sizes.
var ErrResize = errors.New("data of a resize is not 8 bytes")

// ResizeData is the data of a Resize event: columns and rows, four bytes each,
// big-endian.
func ResizeData(columns, rows uint32) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 8), columns)
	return binary.BigEndian.AppendUint32(b, rows)
}

// ParseResize reads the data of a Resize event, or returns ErrResize.
func ParseResize(data []byte) (columns, rows uint32, err error) {
	if len(data) != 8 {
		return 0, 0, fmt.Errorf("%w but %d", ErrResize, len(data))
	}
	return binary.BigEndian.Uint32(data), binary.BigEndian.Uint32(data[4:]), nil
}
