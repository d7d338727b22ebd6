package terminal

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// slowAfter is how long something may take before the board names it.
const slowAfter = 3 * time.Second

// Board is the one line that says how far a long run is: how many are done,
// running and failed, and what the slow ones are doing. On anything but a
// terminal it writes nothing. Its methods may be called concurrently.
type Board struct {
	out   io.Writer
	term  *Terminal
	total int
	now   func() time.Time

	mu      sync.Mutex
	running map[string]job
	done    int
	failed  int
	drawn   bool

	stop    chan struct{}
	stopped chan struct{}
}

type job struct {
	doing string
	since time.Time
}

// NewBoard starts a board for total jobs on out. Close ends it.
func NewBoard(term *Terminal, out io.Writer, total int, now func() time.Time) *Board {
	b := &Board{
		out: out, term: term, total: total, now: now,
		running: map[string]job{},
		stop:    make(chan struct{}), stopped: make(chan struct{}),
	}
	go b.loop(IsTerminal(out))
	return b
}

func (b *Board) loop(live bool) {
	defer close(b.stopped)
	if !live {
		<-b.stop
		return
	}
	tick := time.NewTicker(150 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			b.mu.Lock()
			b.draw()
			b.mu.Unlock()
		case <-b.stop:
			b.mu.Lock()
			b.erase()
			b.mu.Unlock()
			return
		}
	}
}

// Doing says what a job does now. The first call begins the job.
func (b *Board) Doing(name, what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	j, ok := b.running[name]
	if !ok {
		j.since = b.now()
	}
	j.doing = what
	b.running[name] = j
}

// Done ends a job.
func (b *Board) Done(name string, failed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.running, name)
	b.done++
	if failed {
		b.failed++
	}
}

// Print writes text, which is cleaned and should end in a newline, above the
// board.
func (b *Board) Print(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.erase()
	fmt.Fprint(b.out, CleanLines(text))
}

// Close removes the board.
func (b *Board) Close() {
	close(b.stop)
	<-b.stopped
}

func (b *Board) erase() {
	if b.drawn {
		fmt.Fprint(b.out, "\r\x1b[K")
		b.drawn = false
	}
}

func (b *Board) draw() {
	if b.term.asking.Load() {
		return
	}
	line := b.line(Width(b.out) - 1)
	fmt.Fprint(b.out, "\r\x1b[K"+line)
	b.drawn = true
}

func (b *Board) line(width int) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%d/%d done, %d running", b.done, b.total, len(b.running))
	if b.failed > 0 {
		fmt.Fprintf(&s, ", %d failed", b.failed)
	}
	type slow struct {
		name string
		job
	}
	var slows []slow
	now := b.now()
	for name, j := range b.running {
		if now.Sub(j.since) >= slowAfter {
			slows = append(slows, slow{name, j})
		}
	}
	slices.SortFunc(slows, func(x, y slow) int {
		return cmp.Or(x.since.Compare(y.since), cmp.Compare(x.name, y.name))
	})
	for i, j := range slows {
		more := fmt.Sprintf("%s %s %s (%ds)", separator(i), Clean(j.name), Clean(j.doing), int(now.Sub(j.since).Seconds()))
		if s.Len()+len(more) > width {
			break
		}
		s.WriteString(more)
	}
	line := s.String()
	return line[:min(len(line), max(width, 0))]
}

func separator(i int) string {
	if i == 0 {
		return "; slow:"
	}
	return ","
}
