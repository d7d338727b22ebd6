package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// full has a value in each field.
func full(t testing.TB) Event {
	t.Helper()
	var e Event
	v := reflect.ValueOf(&e).Elem()
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		switch f := v.Field(i).Addr().Interface().(type) {
		case *string:
			*f = name + "\x1b\\\u202e\xff"
		case *uint64:
			*f = 1<<63 + uint64(i)
		case **uint64:
			n := uint64(i)
			*f = &n
		case **int:
			n := -i
			*f = &n
		case **bool:
			b := i%2 == 0
			*f = &b
		case *time.Time:
			*f = time.Date(2026, 11, 21, 12, 0, 0, 123456000, time.UTC)
		case *Seconds:
			*f = Seconds(1500 * time.Millisecond)
		case *[]string:
		default:
			t.Fatalf("no value for field %s", name)
		}
	}
	return e
}

func TestLine(t *testing.T) {
	e := full(t)
	line, err := encode(e, 7, hash{1})
	must(t, err)
	if bytes.ContainsAny(line, "\n\x1b\xff") || bytes.Contains(line, []byte("\u202e")) {
		t.Errorf("the line can fool a terminal: %q", line)
	}
	r, err := parse(line)
	must(t, err)
	if r.Sequence != 7 || r.Previous != (hash{1}).String() || !bytes.Equal(r.Line, line) {
		t.Errorf("parsed %+v", r)
	}
	// Each value comes back.
	got, want := reflect.ValueOf(&r.Event).Elem(), reflect.ValueOf(e)
	for i := range want.NumField() {
		if want.Field(i).Kind() == reflect.String {
			raw, err := Unescape(got.Field(i).String())
			must(t, err)
			got.Field(i).SetString(raw)
		}
	}
	if !reflect.DeepEqual(r.Event, e) {
		t.Errorf("read back\n%+v\nof\n%+v", r.Event, e)
	}
}

func TestLineNames(t *testing.T) {
	line, err := encode(full(t), 1, hash{})
	must(t, err)
	var m map[string]any
	must(t, json.Unmarshal(line, &m))
	// Those that people know from elsewhere.
	for _, name := range []string{
		"event", "time", "user", "login", "sid", "server_id", "addr.local", "addr.remote", "size",
		"success", "error", "command", "exitCode", "exitError", "path", "len", "action", "seq", "prev",
	} {
		if _, ok := m[name]; !ok {
			t.Errorf("%s is missing in %s", name, line)
		}
	}
	if m["time"] != "2026-11-21T12:00:00.123456Z" || m["duration"] != 1.5 {
		t.Errorf("time %v, duration %v", m["time"], m["duration"])
	}
	if _, ok := m["cert.serial"].(string); !ok {
		t.Errorf("the serial is %T: JavaScript rounds numbers of its length", m["cert.serial"])
	}
	short, err := encode(Event{Event: EventAuth, Time: time.Unix(0, 0), Command: "a < b && c > d"}, 1, hash{})
	must(t, err)
	want := `{"event":"auth","time":"1970-01-01T00:00:00Z","command":"a < b && c > d","seq":1,"prev":"` + (hash{}).String() + `"}`
	if string(short) != want {
		t.Errorf("got  %s\nwant %s", short, want)
	}
}

func TestLongValuesAreCut(t *testing.T) {
	e := full(t)
	v := reflect.ValueOf(&e).Elem()
	for i := range v.NumField() {
		if v.Field(i).Kind() == reflect.String {
			v.Field(i).SetString(strings.Repeat("\\", maxValue))
		}
	}
	line, err := encode(e, 1, hash{})
	must(t, err)
	if len(line) > maxLine {
		t.Errorf("the longest line has %d bytes, more than are read", len(line))
	}
	r, err := parse(line)
	must(t, err)
	if len(r.Command) != maxValue || len(r.Cut) < 20 || r.Cut[0] != "event" {
		t.Errorf("command of %d bytes, cut %q", len(r.Command), r.Cut)
	}
}

func TestNoEvent(t *testing.T) {
	if _, err := encode(Event{}, 1, hash{}); err == nil {
		t.Error("an event without a name was taken")
	}
	if _, err := encode(Event{Event: "x", Time: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}, 1, hash{}); err == nil {
		t.Error("a time that JSON can't hold was taken")
	}
}

const prev = `"prev":"0000000000000000000000000000000000000000000000000000000000000000"`

var lineSeeds = []string{
	`{"event":"auth","time":"2026-11-21T12:00:00Z","seq":1,` + prev + `}`,
	`{"event":"auth","time":"2026-11-21T12:00:00Z","duration":1.5,"cert.serial":"9223372036854775807","seq":1,` + prev + `}`,
	"{}", "", "null", "\x00\x00\x00", `{"event":"auth"`, `[]`,
	`{"event":"auth","time":"2026-11-21T12:00:00Z","seq":0,` + prev + `}`,
	`{"event":"auth","time":"2026-11-21T12:00:00Z","seq":1,"prev":"00"}`,
	`{"event":"auth","seq":1,` + prev + `}`,
	`{"time":"2026-11-21T12:00:00Z","seq":1,` + prev + `}`,
	`{"event":"auth","time":"2026-11-21T12:00:00Z","duration":-1,"seq":1,` + prev + `}`,
}

func TestParse(t *testing.T) {
	for i, line := range lineSeeds {
		if _, err := parse([]byte(line)); (err == nil) != (i < 2) {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// FuzzLines reads files of any bytes: all of them are in some line, and what is
// parsed can be written again as the same record.
func FuzzLines(f *testing.F) {
	for _, line := range lineSeeds {
		f.Add([]byte(line))
		f.Add([]byte(line + "\n" + line + "\n" + line[:len(line)/2]))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		var all []byte
		for text, err := range texts(iotest.HalfReader(bytes.NewReader(file)), 0) {
			must(t, err)
			if int(text.offset) != len(all) {
				t.Fatalf("line at %d, after %d bytes", text.offset, len(all))
			}
			all = append(all, text.data...)
			if text.ended {
				all = append(all, '\n')
			}
			if int(text.next) != len(all) {
				t.Fatalf("next line at %d, after %d bytes", text.next, len(all))
			}
			r, err := parse(text.data)
			if err != nil {
				continue
			}
			again, err := json.Marshal(r)
			must(t, err)
			back, err := parse(again)
			must(t, err)
			r.Line, back.Line = nil, nil
			if r.Time.Equal(back.Time) {
				back.Time = r.Time
			}
			if !reflect.DeepEqual(r, back) {
				t.Fatalf("%+v became %+v", r, back)
			}
		}
		if !bytes.Equal(all, file) {
			t.Fatalf("lines hold %q of %q", all, file)
		}
	})
}

func TestLongLines(t *testing.T) {
	long := strings.Repeat("x", maxLine+1)
	var got []text
	for line, err := range texts(strings.NewReader("a\n"+long+"\nb"), 0) {
		must(t, err)
		got = append(got, line)
	}
	if len(got) != 3 || !got[1].long || got[1].data != nil || string(got[2].data) != "b" || got[2].ended {
		t.Errorf("got %d lines", len(got))
	}
	broken := io.MultiReader(strings.NewReader("a\nb"), iotest.ErrReader(errors.New("bad sector")))
	var last error
	for _, err := range texts(broken, 0) {
		last = err
	}
	if last == nil || last.Error() != "bad sector" {
		t.Errorf("error of reading: %v", last)
	}
}
