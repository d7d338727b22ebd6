package audit

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"github.com/fleetca/fleetca/jump/store"
)

// maxProblems is how many problems a report lists; more are counted.
const maxProblems = 1000

// Report is what Verify found.
type Report struct {
	Files   int    `json:"files"`
	Records uint64 `json:"records"`
	// First and Last are sequence numbers. First is over 1 where old files
	// were removed; whether that was right is not for the chain to say.
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
	// LastHash is the SHA-256 of the last line, in hex. It stands for all
	// lines before it: who keeps it elsewhere can't be deceived about them.
	LastHash string `json:"last_hash"`
	// Aside are files with lines that a crash tore.
	Aside []string `json:"aside,omitempty"`
	// Problems are the first thousand of Count.
	Problems []Problem `json:"problems,omitempty"`
	Count    int       `json:"problem_count"`
}

// Problem is one thing that is wrong with the log.
type Problem struct {
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
	Text string `json:"text"`
}

func (p Problem) String() string {
	if p.File == "" {
		return p.Text
	}
	return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Text)
}

// Verify reads all files of a folder and checks numbers and chain. It finds
// what was edited, removed, put in another order or torn, except in the last
// line and after it. The error is that of reading; what is wrong with the log
// is in the report.
func Verify(dir string) (Report, error) {
	v := verifier{}
	return v.verify(context.Background(), dir, place{day: "9999"})
}

// Verify is Verify of the log's own folder. It also tells when the end of the
// files is not what was written last, and when the store's copy of a record
// isn't what stands in the files.
func (l *Log) Verify(ctx context.Context) (Report, error) {
	if err := l.Sync(ctx); err != nil {
		return Report{}, err
	}
	l.mu.Lock()
	upTo, sequence, head := place{l.day, l.size}, l.sequence, l.head
	l.mu.Unlock()
	var v verifier
	if l.store != nil {
		next, stop := iter.Pull2(l.store.Audit(ctx, store.AuditQuery{}))
		defer stop()
		v.copies = next
	}
	report, err := v.verify(ctx, l.dir, upTo)
	if err == nil && sequence > 0 && (v.last != sequence || v.head != head) {
		v.problem("", 0, "the files do not end with record %d, which was written last", sequence)
		report = v.report
	}
	return report, err
}

// verifier goes through the lines.
type verifier struct {
	report Report
	last   uint64 // sequence number of the last record
	head   hash   // of its line
	begun  bool

	copies   func() (store.AuditRecord, error, bool) // nil: there are none
	copy     store.AuditRecord                       // the next one
	compared uint64                                  // sequence number of the last copy that a line was compared with
}

func (v *verifier) problem(file string, line int, format string, args ...any) {
	v.report.Count++
	if len(v.report.Problems) < maxProblems {
		v.report.Problems = append(v.report.Problems, Problem{file, line, fmt.Sprintf(format, args...)})
	}
}

func (v *verifier) verify(ctx context.Context, dir string, upTo place) (Report, error) {
	all, err := days(dir)
	if err != nil {
		return Report{}, fmt.Errorf("verifying audit log: %w", err)
	}
	for _, day := range all {
		if day > upTo.day {
			break
		}
		limit := int64(-1)
		if day == upTo.day {
			limit = upTo.offset
		}
		if err := v.file(ctx, dir, day+extension, limit); err != nil {
			return v.report, fmt.Errorf("verifying audit log: %w", err)
		}
	}
	v.report.Last = v.last
	if v.begun {
		v.report.LastHash = v.head.String()
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), extension+asideExtension) {
			v.report.Aside = append(v.report.Aside, e.Name())
		}
	}
	if err != nil {
		return v.report, fmt.Errorf("verifying audit log: %w", err)
	}
	return v.report, nil
}

func (v *verifier) file(ctx context.Context, dir, name string, limit int64) error {
	v.report.Files++
	number := 0
	for t, err := range readFile(filepath.Join(dir, name), 0, limit) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		number++
		switch {
		case t.long:
			v.problem(name, number, "the line is too long to be a record")
			continue
		case !t.ended:
			v.problem(name, number, "the line is torn")
			continue
		}
		r, err := parse(t.data)
		if err != nil {
			v.problem(name, number, "the line can't be read: %v", err)
			continue
		}
		v.record(name, number, r)
		if err := v.compare(name, number, r); err != nil {
			return err
		}
	}
	return nil
}

// record checks that a record follows the one before.
func (v *verifier) record(name string, number int, r Record) {
	v.report.Records++
	switch {
	case !v.begun:
		v.report.First = r.Sequence
		if r.Sequence == 1 && r.Previous != (hash{}).String() {
			v.problem(name, number, "the first record does not begin the chain")
		}
	case r.Sequence == v.last+2:
		v.problem(name, number, "record %d is missing", v.last+1)
	case r.Sequence > v.last+1:
		v.problem(name, number, "records %d to %d are missing", v.last+1, r.Sequence-1)
	case r.Sequence <= v.last:
		v.problem(name, number, "record %d comes after %d: lines were moved or put in twice", r.Sequence, v.last)
	case r.Previous != v.head.String():
		v.problem(name, number, "record %d does not follow from the line before: record %d was changed", r.Sequence, v.last)
	}
	v.begun = true
	v.last, v.head = r.Sequence, sha256.Sum256(r.Line)
}

// compare compares a record with the store's copy. That the store has fewer is
// no problem; it gets them in time.
func (v *verifier) compare(name string, number int, r Record) error {
	for v.copies != nil && v.copy.Sequence < r.Sequence {
		if v.copy.Sequence > 0 && v.copy.Sequence >= v.report.First && v.copy.Sequence > v.compared {
			v.problem(name, number, "record %d is in the store but not in the files", v.copy.Sequence)
		}
		var err error
		var ok bool
		if v.copy, err, ok = v.copies(); err != nil && !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("reading the store: %w", err)
		} else if !ok {
			v.copies = nil
			return nil
		}
	}
	if v.copies != nil && v.copy.Sequence == r.Sequence {
		v.compared = r.Sequence
		if string(v.copy.Line) != string(r.Line) {
			v.problem(name, number, "record %d is not what the store was given", r.Sequence)
		}
	}
	return nil
}
