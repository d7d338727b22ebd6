package profile

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

const (
	day  = 24 * time.Hour
	week = 7 * day
)

// units are the units of a lifetime, longest first. A day has 24 hours.
var units = []struct {
	name byte
	size time.Duration
}{
	{'w', week},
	{'d', day},
	{'h', time.Hour},
	{'m', time.Minute},
	{'s', time.Second},
}

// ParseTTL reads a lifetime: numbers with the units w, d, h, m, s, longest first,
// such as 8h, 30d, 1w or 1h30m. Zero, a number without unit, and more than
// ten years are refused.
func ParseTTL(s string) (time.Duration, error) {
	var total time.Duration
	rest, next := s, 0
	for rest != "" {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		if digits == 0 || digits == len(rest) {
			return 0, badTTL(s)
		}
		n, err := strconv.ParseInt(rest[:digits], 10, 64)
		if err != nil {
			return 0, badTTL(s)
		}
		unit := next
		for unit < len(units) && units[unit].name != rest[digits] {
			unit++
		}
		if unit == len(units) {
			return 0, badTTL(s)
		}
		size := units[unit].size
		if n > int64((math.MaxInt64-total)/size) {
			return 0, fmt.Errorf("lifetime %q is over %s", s, FormatTTL(longest))
		}
		total += time.Duration(n) * size
		rest, next = rest[digits+1:], unit+1
	}
	switch {
	case s == "":
		return 0, badTTL(s)
	case total == 0:
		return 0, fmt.Errorf("lifetime %q is zero", s)
	case total > longest:
		return 0, fmt.Errorf("lifetime %q is over %s", s, FormatTTL(longest))
	}
	return total, nil
}

func badTTL(s string) error {
	return fmt.Errorf("lifetime %q is not of the form 8h, 30d, 1w or 1h30m", s)
}

// FormatTTL writes a lifetime so that ParseTTL reads it back, in days, hours,
// minutes and seconds. Fractions of a second are cut off.
func FormatTTL(d time.Duration) string {
	var b strings.Builder
	if d < 0 {
		b.WriteByte('-')
		d = -d
	}
	for _, u := range units[1:] {
		if n := d / u.size; n > 0 {
			b.WriteString(strconv.FormatInt(int64(n), 10))
			b.WriteByte(u.name)
			d -= n * u.size
		}
	}
	if s := b.String(); s != "" && s != "-" {
		return s
	}
	return "0s"
}
