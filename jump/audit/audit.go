// Package audit keeps the journal of who did what through the jump host: one
// JSON object a line, a file a day, each line numbered and holding the SHA-256
// of the line before it.
//
// It refuses to write a value that would fool a terminal or a log (clients
// choose user names, commands and paths: they are escaped, reversibly), to
// change a line that was acknowledged, to let two processes write to one
// folder, and to pass silently over anything that is missing or damaged in it.
// The chain shows what was changed by somebody who did not write all later
// lines anew; against those who can, keep its head elsewhere (Report.LastHash).
package audit

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"time"

	"github.com/fleetca/fleetca/jump/store"
)

// ErrClosed is returned after Close.
var ErrClosed = errors.New("audit log is closed")

// Config says where the log is. It is not changed after Open.
type Config struct {
	// Dir holds the files; it is made with mode 0700 if it does not exist.
	// Required.
	Dir string
	// Store gets each record too, for queries. What it misses, because it was
	// full or a crash came between, it gets later. Nil: queries read the files.
	Store store.Store
	// ServerID names this jump host in each event.
	ServerID string
	// Now is the clock; time.Now if nil.
	Now func() time.Time
	// Log is told when the disk or the store fails; discarded if nil.
	Log *slog.Logger
}

// Log writes the audit. It is safe for concurrent use.
type Log struct{}

// Open opens or makes the log and continues its chain. What a crash left of a
// last line is put aside into a file beside it and told in an audit.damage
// event. Only one process may have the folder open. Close must be called.
func Open(ctx context.Context, c Config) (*Log, error) { return nil, errors.New("unfinished") }

// Record writes an event. When it returns nil the event is in the file, and on
// disk within 100 ms (Sync waits for that). When it returns an error the event
// is not in the log, and a later Record may succeed.
func (l *Log) Record(ctx context.Context, e Event) error { return nil }

// Sync returns when all that was recorded before is on disk.
func (l *Log) Sync(ctx context.Context) error { return nil }

// Close makes everything durable and ends the log.
func (l *Log) Close() error { return nil }

// Record is one line of the log.
type Record struct {
	Event
	Sequence uint64 `json:"seq"`
	Previous string `json:"prev"` // SHA-256 of the line before, in hex; zeros in the first
	Line     []byte `json:"-"`    // exactly as written, without the newline
}

// Query yields the records that match, oldest first.
func (l *Log) Query(ctx context.Context, q store.AuditQuery) iter.Seq2[Record, error] { return nil }

// Report is what Verify found.
type Report struct {
	Files       int       `json:"files"`
	Records     uint64    `json:"records"`
	First, Last uint64    `json:"-"`
	LastHash    string    `json:"last_hash"`
	Problems    []Problem `json:"problems"`
}

// Problem is one thing that is wrong with the log.
type Problem struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Text string `json:"text"`
}

// Verify reads all files of a folder and checks the chain. The error is that of
// reading; what is wrong with the log is in the report.
func Verify(dir string) (Report, error) { return Report{}, nil }

// Verify is Verify of the log's own folder, and also tells when its end, or the
// store's records, are not what was written.
func (l *Log) Verify(ctx context.Context) (Report, error) { return Report{}, nil }
