package replay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"strings"
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
	// Size is the size of the viewer's terminal in cells, asked for at the end
	// to place the cursor. Nil, or zero from it, means unknown.
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

// seekStep is how far the arrow keys go.
const seekStep = 5 * time.Second

var errRewind = errors.New("rewind")

// Play draws a recording on o.Out as it happened. It returns nil at the end of
// the events or when the viewer quits, otherwise their error, o.Out's or
// ctx.Err(). In every case it first puts the terminal back: main screen,
// attributes, visible cursor, on a line of its own.
//
// Keys: space pauses, '.' draws the next output and pauses, ']' goes on to the
// next event that is not output, '{' and '}' halve and double the speed, left
// and right (or h and l) seek by five seconds, 'q', ^C and ^D quit. Seeking
// back ranges over events again. Times are those after MaxIdle.
//
// Keys is read in a goroutine. It has ended when Play returns if Keys is an
// *os.File, which must stay open until then, or has a SetReadDeadline that works;
// otherwise it ends with the next byte or at the end of Keys, which the caller
// then brings about.
func Play(ctx context.Context, events iter.Seq2[cast.Event, error], o PlayOptions) error {
	if o.Out == nil {
		return errors.New("playing a recording: Out is not set")
	}
	if math.IsNaN(o.Speed) || o.Speed < 0 || o.MaxIdle < 0 {
		return fmt.Errorf("playing a recording: speed %v, longest idle time %v", o.Speed, o.MaxIdle)
	}
	if o.Speed == 0 {
		o.Speed = 1
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	keyboard, err := newKeyboard(o.Keys)
	if err != nil {
		return err
	}
	defer keyboard.close()
	p := &player{
		o: o, keys: keyboard.keys, filter: NewFilter(o.Out),
		speed: min(max(o.Speed, MinSpeed), MaxSpeed), start: o.Start, mark: o.Now(),
	}
	err = p.pass(ctx, events)
	for errors.Is(err, errRewind) {
		if err = p.clear(); err == nil {
			err = p.pass(ctx, events)
		}
	}
	if errors.Is(err, errQuit) {
		err = nil
	}
	if restoring := p.restore(); err == nil {
		err = restoring
	}
	return err
}

var errQuit = errors.New("quit")

// player is one replay.
type player struct {
	o      PlayOptions
	keys   <-chan key
	filter *Filter
	speed  float64
	paused bool
	// The position is where the viewer is, on the recording's time after
	// MaxIdle: at, when the clock showed mark, and moving on from there unless
	// paused. Whatever is before the position is due.
	at   time.Duration
	mark time.Time
	// One of these makes events due before their time: until a start, up to the
	// next marker, or one output.
	start    time.Duration
	toMarker bool
	step     bool
	// terminal says that there was one, so that line ends are whole.
	terminal bool
}

// position is where the viewer is by now.
func (p *player) position() time.Duration {
	if p.paused {
		return p.at
	}
	return p.at + time.Duration(float64(p.o.Now().Sub(p.mark))*p.speed)
}

// move sets the position; the clock runs on from there.
func (p *player) move(at time.Duration) { p.at, p.mark = max(at, 0), p.o.Now() }

// pass plays from the first event on; before the position that is at once.
func (p *player) pass(ctx context.Context, events iter.Seq2[cast.Event, error]) error {
	var now, last time.Duration
	for ev, err := range events {
		if err != nil {
			return err
		}
		idle := ev.At - last
		if p.o.MaxIdle > 0 {
			idle = min(idle, p.o.MaxIdle)
		}
		last = ev.At
		before := now
		now += idle
		if err := p.wait(ctx, ev, before, now); err != nil {
			return err
		}
		if err := p.draw(ev); err != nil {
			return fmt.Errorf("writing to the terminal: %w", err)
		}
	}
	return nil
}

// wait returns when the event at the position now is due; drawn is the position
// of the one before it.
func (p *player) wait(ctx context.Context, ev cast.Event, drawn, now time.Duration) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		p.bring(ev, now)
		ahead := now - p.position()
		if ahead <= 0 {
			select {
			case k := <-p.keys:
				if err := p.press(k, drawn); err != nil {
					return err
				}
				continue
			default:
			}
			p.arrived(ev, now)
			return nil
		}
		var due <-chan time.Time
		var timer *time.Timer
		if !p.paused {
			timer = time.NewTimer(time.Duration(math.Ceil(float64(ahead) / p.speed)))
			due = timer.C
		}
		var err error
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case k := <-p.keys:
			err = p.press(k, drawn)
		case <-due:
		}
		if timer != nil {
			timer.Stop()
		}
		if err != nil {
			return err
		}
	}
}

// bring moves the position on to an event that something makes due now.
func (p *player) bring(ev cast.Event, now time.Duration) {
	if p.start > 0 && ev.At >= p.start {
		p.move(max(now-(ev.At-p.start), p.position()))
		p.start = 0
	}
	if p.start > 0 || p.toMarker || p.step {
		p.move(max(now, p.position()))
	}
}

// arrived ends what has brought the event forward.
func (p *player) arrived(ev cast.Event, now time.Duration) {
	drawn := ev.Kind == cast.Output || ev.Kind == cast.Stderr
	if p.step && drawn {
		p.step = false
	}
	if p.toMarker && !drawn && ev.Kind != cast.Input && ev.Kind != cast.Start {
		p.toMarker = false
		p.move(now)
	}
}

// press does what a key asks for. Drawn is the position of the last event that
// was drawn: seeking to before it means to begin again.
func (p *player) press(k key, drawn time.Duration) error {
	at := p.position()
	p.move(at)
	switch k {
	case keyPause:
		p.paused = !p.paused
	case keyStep:
		p.paused, p.step = true, true
	case keyMarker:
		p.toMarker = true
	case keySlower:
		p.speed = max(p.speed/2, MinSpeed)
	case keyFaster:
		p.speed = min(p.speed*2, MaxSpeed)
	case keyForward:
		p.move(at + seekStep)
	case keyBack:
		p.start, p.toMarker, p.step = 0, false, false
		p.move(at - seekStep)
		if p.at < drawn {
			return errRewind
		}
	case keyQuit:
		return errQuit
	case keysEnded:
		// Nobody can go on from a pause any more.
		p.keys, p.paused = nil, false
	}
	return nil
}

func (p *player) draw(ev cast.Event) error {
	switch ev.Kind {
	case cast.Output, cast.Stderr:
		return p.output(ev.Data)
	case cast.Start:
		var h cast.Header
		if json.Unmarshal(ev.Data, &h) == nil {
			p.terminal = hadTerminal(h)
		}
	}
	if p.o.Notice == nil {
		return nil
	}
	text := p.o.Notice(ev)
	if text == "" {
		return nil
	}
	// A sequence that the host has begun must not swallow the notice.
	kept := p.filter.parser
	p.filter.parser = parser{sink: p.filter}
	line := strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\r\n") + "\r\n"
	if p.filter.look.drawn {
		line = "\r\n" + line
	}
	_, err := p.filter.Write([]byte(line))
	p.filter.parser = kept
	return err
}

// hadTerminal tells whether a terminal's line discipline has made \r\n of the
// host's line ends.
func hadTerminal(h cast.Header) bool { return h.Kind == "terminal" || h.Columns > 0 }

func (p *player) output(data []byte) error {
	if p.o.Raw {
		p.filter.track(data)
		_, err := p.o.Out.Write(data)
		return err
	}
	if !p.terminal {
		data = bytes.ReplaceAll(data, []byte("\n"), []byte("\r\n"))
	}
	_, err := p.filter.Write(data)
	return err
}

// track takes note of what raw output changes of the terminal.
func (f *Filter) track(data []byte) {
	f.parser.write(data)
	f.out = f.out[:0]
}

// rawRestore ends a string that raw output may have begun, and what else it may
// have switched on: mouse, focus and paste modes, keypad and cursor keys.
const rawRestore = "\x1b\\\x1b[?9l\x1b[?1000l\x1b[?1001l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1005l\x1b[?1006l" +
	"\x1b[?1015l\x1b[?1016l\x1b[?2004l\x1b[?2026l\x1b[?1l\x1b[?66l\x1b>\x1b[20l\x1b%G"

func (p *player) restore() error {
	if p.o.Raw {
		if _, err := io.WriteString(p.o.Out, rawRestore); err != nil {
			return fmt.Errorf("restoring the terminal: %w", err)
		}
	}
	rows := 0
	if p.o.Size != nil {
		_, rows = p.o.Size()
	}
	if err := p.filter.Restore(rows); err != nil {
		return fmt.Errorf("restoring the terminal: %w", err)
	}
	return nil
}

// clear makes the terminal as it was at the start, for a rewind.
func (p *player) clear() error {
	p.filter.parser = parser{sink: p.filter}
	if p.o.Raw {
		if _, err := io.WriteString(p.o.Out, rawRestore); err != nil {
			return fmt.Errorf("clearing the terminal: %w", err)
		}
	}
	if _, err := p.filter.Write([]byte("\x1bc")); err != nil {
		return fmt.Errorf("clearing the terminal: %w", err)
	}
	return nil
}
