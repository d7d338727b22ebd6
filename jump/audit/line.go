package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/fleetca/fleetca/jump/store"
)

// maxLine is more than the longest line that encode makes: some forty values
// of maxValue, in each of which JSON doubles the backslashes.
const maxLine = 2 << 20

// hash is the SHA-256 of a line without its newline.
type hash [sha256.Size]byte

func (h hash) String() string { return hex.EncodeToString(h[:]) }

// Record is one line of the log. Its strings are as they stand in the line:
// fit to be printed; Unescape gives what the client sent.
type Record struct {
	Event
	// Sequence counts lines from 1, over all files.
	Sequence uint64 `json:"seq"`
	// Previous is the SHA-256 of the line before this, without its newline, in
	// hex; zeros in the first line.
	Previous string `json:"prev"`
	// Line is the line exactly as written, without its newline.
	Line []byte `json:"-"`
}

// encode makes the line of an event, without its newline.
func encode(e Event, sequence uint64, previous hash) ([]byte, error) {
	if e.Event == "" {
		return nil, errors.New("its name is empty")
	}
	e.escape()
	e.Time = e.Time.UTC().Truncate(time.Microsecond)
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // commands are full of < > &, and this is no HTML
	if err := enc.Encode(Record{Event: e, Sequence: sequence, Previous: previous.String()}); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// escape escapes all strings and cuts those that are too long. By reflection,
// so that a field that is added can't be forgotten.
func (e *Event) escape() {
	e.Cut = nil
	v := reflect.ValueOf(e).Elem()
	for i := range v.NumField() {
		if v.Field(i).Kind() != reflect.String {
			continue
		}
		escaped, all := escapeUpTo(v.Field(i).String(), maxValue)
		v.Field(i).SetString(escaped)
		if !all {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			e.Cut = append(e.Cut, name)
		}
	}
}

// parse reads a line, without its newline.
func parse(line []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(line, &r); err != nil {
		return Record{}, fmt.Errorf("not a JSON object of an audit event: %w", err)
	}
	switch h, err := hex.DecodeString(r.Previous); {
	case r.Event.Event == "":
		return Record{}, errors.New(`not an audit event: "event" is missing`)
	case r.Sequence == 0:
		return Record{}, errors.New(`not an audit event: "seq" is missing`)
	case err != nil || len(h) != sha256.Size:
		return Record{}, errors.New(`not an audit event: "prev" is not a SHA-256 in hex`)
	case r.Time.IsZero():
		return Record{}, errors.New(`not an audit event: "time" is missing`)
	}
	r.Line = line
	return r, nil
}

// stored is what the store keeps of a record.
func (r Record) stored() store.AuditRecord {
	return store.AuditRecord{
		Sequence: r.Sequence, Time: r.Time, Event: r.Event.Event, Identity: r.User, Login: r.Login,
		Host: r.Host, Session: r.SID, Path: r.Path, SHA256: r.SHA256, Line: r.Line,
	}
}

// text is one line of a file.
type text struct {
	data   []byte // without newline; may be kept
	offset int64  // where it begins
	next   int64  // where the next one begins
	ended  bool   // it ends in a newline
	long   bool   // it has over maxLine bytes; data is empty
}

// texts splits what r holds from offset on into lines.
func texts(r io.Reader, offset int64) iter.Seq2[text, error] {
	return func(yield func(text, error) bool) {
		in := bufio.NewReaderSize(r, 64<<10)
		for {
			t := text{offset: offset, next: offset}
			for {
				piece, err := in.ReadSlice('\n')
				t.next += int64(len(piece))
				t.ended = err == nil
				if t.long = t.long || len(t.data)+len(piece) > maxLine; t.long {
					t.data = nil
				} else {
					t.data = append(t.data, piece...)
				}
				if errors.Is(err, bufio.ErrBufferFull) {
					continue
				}
				if err != nil && !errors.Is(err, io.EOF) {
					yield(text{}, err)
					return
				}
				break
			}
			if t.next == offset {
				return
			}
			t.data = bytes.TrimSuffix(t.data, []byte("\n"))
			offset = t.next
			if !yield(t, nil) {
				return
			}
		}
	}
}

// MarshalJSON writes seconds, to the millisecond.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, max(0, time.Duration(s)).Round(time.Millisecond).Seconds(), 'f', -1, 64), nil
}

// UnmarshalJSON reads seconds.
func (s *Seconds) UnmarshalJSON(b []byte) error {
	f, err := strconv.ParseFloat(string(b), 64)
	// More is beyond time.Duration, and no session takes 290 years.
	if err != nil || f < 0 || f > 9e9 {
		return fmt.Errorf("%q is not a number of seconds", b)
	}
	*s = Seconds(time.Duration(f * float64(time.Second)).Round(time.Microsecond))
	return nil
}
