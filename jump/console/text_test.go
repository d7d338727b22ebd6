package console

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode"
)

func TestPoint(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	c := &call{Config: Config{Now: func() time.Time { return now }}, Streams: Streams{Zone: time.FixedZone("X", 3600)}}
	for text, want := range map[string]string{
		"":                     "0001-01-01T00:00:00Z",
		"90m":                  "2026-11-21T10:30:00Z",
		"1d":                   "2026-11-20T12:00:00Z",
		"2026-11-21":           "2026-11-20T23:00:00Z",
		"2026-11-21 09:30":     "2026-11-21T08:30:00Z",
		"2026-11-21T09:30:15":  "2026-11-21T08:30:15Z",
		"2026-11-21T09:30:15Z": "2026-11-21T09:30:15Z",
	} {
		if got, err := c.point("since", text); err != nil || got.UTC().Format(time.RFC3339) != want {
			t.Errorf("%q is %v, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"now", "5", "-1h", "2026-13-01", "21.11.2026"} {
		if got, err := c.point("since", text); err == nil || !strings.HasPrefix(err.Error(), "--since: ") {
			t.Errorf("%q is %v, %v", text, got, err)
		}
	}
}

func TestShown(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 1234 * time.Millisecond: "1.2s", 59999 * time.Millisecond: "1m0s",
		61 * time.Second: "1m1s", 2*time.Hour + 29*time.Second: "2h", 49*time.Hour + time.Minute: "2d1h1m",
	} {
		if got := duration(d); got != want {
			t.Errorf("%v is shown as %q, want %q", d, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 5 << 30: "5.0 GiB", 1 << 63: "8192.0 PiB"} {
		if got := size(n); got != want {
			t.Errorf("%d is shown as %q, want %q", n, got, want)
		}
	}
	if got := cut("zürich", 3); got != "zü…" {
		t.Errorf("cut: %q", got)
	}
}

func TestLineWriter(t *testing.T) {
	var b strings.Builder
	w := &lineWriter{w: &b}
	for _, s := range []string{"a\nb\r", "\nc\n", "\n", "", "d"} {
		if n, err := w.Write([]byte(s)); n != len(s) || err != nil {
			t.Errorf("%q: %d, %v", s, n, err)
		}
	}
	if got := b.String(); got != "a\r\nb\r\nc\r\n\r\nd" {
		t.Errorf("written: %q", got)
	}
}

func FuzzWriteJSON(f *testing.F) {
	for _, s := range []string{"", "plain <&>", "\x1b[31m\x7f", "\u009b1m\u202e\u2028", "\xff\xfe", "\U000e0001\U0001f511", "a\nb\"\\"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var b strings.Builder
		if err := writeJSON(&b, map[string]string{"k": s}); err != nil {
			t.Fatal(err)
		}
		line := strings.TrimSuffix(b.String(), "\n")
		for _, r := range line {
			if !unicode.IsPrint(r) {
				t.Fatalf("%q lets %U through", line, r)
			}
		}
		var back map[string]string
		if err := json.Unmarshal([]byte(line), &back); err != nil || back["k"] != strings.ToValidUTF8(s, "\ufffd") && !strings.Contains(back["k"], "\ufffd") {
			t.Fatalf("%q became %q, %v", s, back["k"], err)
		}
	})
}
