package config

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/fleetca/fleetca/ca/profile"
)

// text is a single value that isn't empty and has no control characters.
func (v value) text() (string, bool) {
	n := v.target()
	switch {
	case n.Kind != yaml.ScalarNode || n.Tag == "!!null":
		v.fail("must be a single value, not %s", kindName(n))
	case n.Value == "":
		v.fail("is empty")
	case !utf8.ValidString(n.Value) || strings.ContainsFunc(n.Value, func(r rune) bool { return !unicode.IsPrint(r) }):
		v.fail("%q holds characters that can't be printed", n.Value)
	default:
		return n.Value, true
	}
	return "", false
}

// into stores the text, if there is one.
func (v value) into(to *string) {
	if v.given() {
		if s, ok := v.text(); ok {
			*to = s
		}
	}
}

// texts are single values; one alone needs no list. An empty list is a mistake.
func (v value) texts() []string {
	if !v.given() {
		return nil
	}
	var out []string
	items := v.items()
	for _, item := range items {
		if s, ok := item.text(); ok {
			out = append(out, s)
		}
	}
	if len(items) == 0 {
		v.fail("the list is empty")
	}
	return out
}

func (v value) boolean(to *bool) {
	if !v.given() {
		return
	}
	s, ok := v.text()
	if !ok {
		return
	}
	switch s {
	case "true":
		*to = true
	case "false":
		*to = false
	default:
		v.fail("%q is neither true nor false", s)
	}
}

// choice stores one of the known words.
func (v value) choice(to *string, known ...string) {
	if !v.given() {
		return
	}
	s, ok := v.text()
	switch {
	case !ok:
	case !slices.Contains(known, s):
		v.fail("%w", unknownWord(s, known))
	default:
		*to = s
	}
}

func unknownWord(word string, known []string) error {
	if near := nearest(word, known); near != "" {
		return fmt.Errorf("unknown value %q; did you mean %q?", word, near)
	}
	return fmt.Errorf("unknown value %q; there are %s", word, strings.Join(known, ", "))
}

func (v value) duration(to *time.Duration, least, most time.Duration) {
	if !v.given() {
		return
	}
	s, ok := v.text()
	if !ok {
		return
	}
	d, err := profile.ParseTTL(s)
	switch {
	case err != nil:
		v.fail("%q is not a duration such as 30s, 15m, 8h, 30d or 1h30m", s)
	case d < least || d > most:
		v.fail("%s is out of range: from %s to %s", s, profile.FormatTTL(least), profile.FormatTTL(most))
	default:
		*to = d
	}
}

// sizes are the units of sizes in bytes.
var sizes = map[string]uint64{
	"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
	"kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
}

func parseSize(s string) (uint64, bool) {
	digits := len(s) - len(strings.TrimLeft(s, "0123456789"))
	n, err := strconv.ParseUint(s[:digits], 10, 64)
	unit, known := sizes[strings.TrimLeft(s[digits:], " ")]
	if err != nil || !known || n > math.MaxInt64/unit {
		return 0, false
	}
	return n * unit, true
}

func formatSize(n uint64) string {
	for _, unit := range []string{"TiB", "GiB", "MiB", "KiB"} {
		if n >= sizes[unit] && n%sizes[unit] == 0 {
			return fmt.Sprintf("%d%s", n/sizes[unit], unit)
		}
	}
	return fmt.Sprintf("%dB", n)
}

func (v value) size(to *uint64, least, most uint64) {
	if !v.given() {
		return
	}
	s, ok := v.text()
	if !ok {
		return
	}
	n, ok := parseSize(s)
	switch {
	case !ok:
		v.fail("%q is not a size such as 512MiB or 10GiB", s)
	case n < least || n > most:
		v.fail("%s is out of range: from %s to %s", s, formatSize(least), formatSize(most))
	default:
		*to = n
	}
}

func (v value) count(to *int) {
	if !v.given() {
		return
	}
	const most = 1_000_000
	s, ok := v.text()
	if !ok {
		return
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > most {
		v.fail("%q is not a number from 1 to %d", s, most)
		return
	}
	*to = n
}

// path is a file or folder; relative ones begin where jump.yaml is.
func (r *reading) path(v value) (string, bool) {
	if !v.given() {
		return "", false
	}
	s, ok := v.text()
	if !ok {
		return "", false
	}
	return r.resolve(s), true
}

func (r *reading) resolve(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(r.dir, path)
}
