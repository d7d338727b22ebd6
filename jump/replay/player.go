package replay

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"github.com/fleetca/fleetca/jump/cast"
)

// PlayOptions say how Play plays.
type PlayOptions struct {
	// Out is the viewer's terminal, in raw mode. It must be set.
	Out io.Writer
	// Keys is what the viewer types; nil if nothing. See Play.
	Keys io.Reader
	// Speed is 1 if zero; Play keeps it between MinSpeed and MaxSpeed.
	Speed float64
	// MaxIdle is the longest wait between two events, before Speed; zero means
	// no limit.
	MaxIdle time.Duration
	// Start is where in the recording to begin; what was drawn before is drawn
	// at once.
	Start time.Duration
	// Raw hands the host's bytes to the viewer's terminal as they are, without
	// Filter.
	Raw bool
	// Size is the size of the viewer's terminal in cells. Nil, or zero from
	// it, means as large as need be.
	Size func() (columns, rows int)
	// Notice makes a line of text of an event that draws nothing, such as a
	// gap or a file operation; "" for those that shall not be seen. Nil shows
	// none. The text goes through Filter.
	Notice func(cast.Event) string
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// Speeds that '{' and '}' reach.
const (
	MinSpeed = 1.0 / 16
	MaxSpeed = 64.0
)

// Play plays a recording.
func Play(ctx context.Context, events iter.Seq2[cast.Event, error], o PlayOptions) error {
	return errors.ErrUnsupported
}
