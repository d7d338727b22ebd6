package console

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/fleetca/fleetca/ca/profile"
	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/cmd/terminal"
)

const timeFormat = "2006-01-02 15:04:05"

// when shows a time in the caller's zone; a table's head names the zone.
func (c *call) when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.In(c.Zone).Format(timeFormat)
}

// Zone returns the time zone that tz, the value of a TZ variable, names, and
// fallback if tz is empty or no zone of the database's.
func Zone(tz string, fallback *time.Location) *time.Location {
	tz = strings.TrimPrefix(tz, ":")
	if tz == "" || tz == "Local" { // which is the server's
		return fallback
	}
	// LoadLocation refuses names that lead out of the database.
	zone, err := time.LoadLocation(tz)
	if err != nil {
		return fallback
	}
	return zone
}

// point reads a point in time: a time before now, such as 2h or 3d, a date, or
// a date with a time.
func (c *call) point(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := profile.ParseTTL(text); err == nil {
		return c.Now().Add(-ago), nil
	}
	for _, layout := range []string{time.DateOnly, "2006-01-02 15:04", "2006-01-02T15:04", timeFormat, "2006-01-02T15:04:05", time.RFC3339} {
		if t, err := time.ParseInLocation(layout, text, c.Zone); err == nil {
			return t, nil
		}
	}
	return time.Time{}, program.WithCode(program.ExitUsage, terminal.Hint(fmt.Errorf("--%s: %q is not a time", flag, text),
		"say how long ago (90m, 12h, 7d), a date (2026-11-21), or both (2026-11-21T09:30)"))
}

// duration shows a length of time, in tenths of a second if it is short.
func duration(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return d.Round(time.Second / 10).String()
	case d < time.Hour:
		return profile.FormatTTL(d.Round(time.Second))
	default:
		return profile.FormatTTL(d.Round(time.Minute))
	}
}

// size shows a number of bytes.
func size(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n), 0
	for f >= 1024 && unit < 5 {
		f /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", f, " KMGTP"[unit])
}

// cut shortens text for a table.
func cut(s string, limit int) string {
	if utf8.RuneCountInString(s) <= limit {
		return s
	}
	return string([]rune(s)[:limit-1]) + "…"
}

// writeJSON writes v as one line. Characters that could fool a terminal are
// \u escapes there: they occur within strings only, where those mean the same.
func writeJSON(w io.Writer, v any) error {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	line := strings.TrimSuffix(b.String(), "\n")
	b.Reset()
	for _, r := range line {
		switch {
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		}
	}
	b.WriteByte('\n')
	_, err := io.WriteString(w, b.String())
	return err
}

// lineWriter writes to a terminal in raw mode, where a new line needs a
// carriage return before it.
type lineWriter struct {
	w  io.Writer
	cr bool // the last byte was a carriage return
}

// Write returns how many of p's bytes were written, not counting what it adds.
func (l *lineWriter) Write(p []byte) (int, error) {
	out := make([]byte, 0, len(p)+16)
	cr := l.cr
	for _, b := range p {
		if b == '\n' && !cr {
			out = append(out, '\r')
		}
		out = append(out, b)
		cr = b == '\r'
	}
	if _, err := l.w.Write(out); err != nil {
		return 0, err
	}
	l.cr = cr
	return len(p), nil
}

// stamp is a time with its zone.
func (c *call) stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.In(c.Zone).Format(timeFormat + " MST")
}

func micros(n int64) string { return duration(time.Duration(n) * time.Microsecond) }

func seconds(f float64) string { return duration(time.Duration(f * float64(time.Second))) }

// number formats n, or is empty for 0.
func number(format string, n uint64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(format, n)
}

// joined puts between what is there of two parts.
func joined(between, a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + between + b
}
