package recording

import (
	"crypto/sha256"
	"errors"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/fleetca/fleetca/jump/cast"
	"github.com/fleetca/fleetca/jump/store"
	"github.com/fleetca/fleetca/jump/transfer"
)

// streams are what passes through a session, and what is kept of it.
type streams struct {
	stdin, stdout, stderr stream
	// parser follows a file copy; nil for other kinds.
	parser *parser
	// speech follows rsync and git; nil for other commands. It belongs to stdout.
	speech *speech
	// fell says that the bytes were not what the command promised: the session
	// is an ordinary command from then on, if that is allowed.
	fell    atomic.Bool
	decided chan struct{} // closed once it is known whether it is
	allowed func(why string) error
}

// parser is a transfer.SCPParser or SFTPParser.
type parser struct {
	fromClient, fromHost func([]byte) error
	close                func()
	name                 string
}

// state is what a stream is taken for.
type state int

const (
	plainly state = iota // kept up to the limit, counted, digested
	parsed               // a file copy, which streams.parser follows
	counted              // rsync or git, as long as the host speaks like one
)

var errNoCommand = errors.New("a session of kind scp needs the command")

// init decides what is kept.
func (s *streams) init(r *Recording, o Options) error {
	s.stdin = stream{name: "stdin", kind: cast.Input}
	s.stdout = stream{name: "stdout", kind: cast.Output}
	s.stderr = stream{name: "stderr", kind: cast.Stderr}
	s.allowed, s.decided = o.OnFallback, make(chan struct{})
	if o.Session.Kind == store.KindTerminal {
		s.stdout.limit, s.stderr.limit = math.MaxUint64, math.MaxUint64
		if o.Input {
			s.stdin.limit = math.MaxUint64
		}
		return nil
	}
	if o.Session.Kind == store.KindForward {
		return nil // its endpoints and bytes come by Forward
	}
	s.stdout.limit, s.stderr.limit = r.c.MaxStream, r.c.MaxStream
	if o.Whole {
		s.stdout.limit, s.stderr.limit = math.MaxUint64, math.MaxUint64
	}
	if o.Input {
		s.stdin.limit = r.c.MaxStream
	}
	for _, one := range s.all() {
		one.hash, one.full = sha256.New(), one.limit
		one.tail.size = int(min(tailSize, one.limit))
	}
	emit := func(op transfer.Operation) { r.file(op, o.OnFile) }
	switch o.Session.Kind {
	case store.KindSCP:
		if o.SCP == nil {
			return errNoCommand
		}
		p := transfer.NewSCPParser(*o.SCP, emit)
		s.parser = &parser{p.FromClient, p.FromHost, p.Close, "scp"}
	case store.KindSFTP:
		p := transfer.NewSFTPParser(emit)
		s.parser = &parser{p.FromClient, p.FromHost, p.Close, "sftp"}
	default:
		if name := protocolOf(o.Command); name != "" {
			s.speech = newSpeech(name)
			s.stdin.count()
			s.stdout.count()
		}
		return nil
	}
	s.stdin.state, s.stdout.state = parsed, parsed
	return nil
}

func (s *streams) all() []*stream { return []*stream{&s.stdin, &s.stdout, &s.stderr} }

// refuses is why a call that records nothing by itself is refused.
func (r *Recording) refuses() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refusal()
}

// follow lets the parser see bytes. False says that they, or others before, are
// not of its protocol.
func (s *stream) follow(r *Recording, p []byte) bool {
	if r.streams.fallen() {
		return false
	}
	parser := r.streams.parser
	see := parser.fromHost
	if s.kind == cast.Input {
		see = parser.fromClient
	}
	err := see(p)
	if err == nil {
		return true
	}
	if r.fallBack("this is not " + parser.name + ": " + err.Error()) {
		parser.close() // tells of files that were begun
	}
	return false
}

// looksCounted says whether the host speaks a protocol that is only counted;
// what the client sends is what the host's bytes are.
func (s *stream) looksCounted(r *Recording, p []byte) bool {
	if r.streams.fallen() {
		return false
	}
	speech := r.streams.speech
	if s.kind == cast.Input || speech.follow(p) {
		return true
	}
	r.fallBack("this is not " + speech.name)
	return false
}

// fallBack makes the session one of a command, if that is allowed; otherwise it
// takes nothing any more. False says that this was decided already.
func (r *Recording) fallBack(why string) bool {
	s := &r.streams
	if !s.fell.CompareAndSwap(false, true) {
		<-s.decided
		return false
	}
	defer close(s.decided)
	why = cut(why, maxText)
	r.mu.Lock()
	r.session.Kind = store.KindCommand
	r.indexed = time.Time{} // the index is told with the next block
	r.remark("recorded_as_command", why)
	r.mu.Unlock()
	if s.allowed == nil {
		return true
	}
	if err := s.allowed(why); err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.remark("refused", cut(err.Error(), maxText))
		r.denied = err
		r.broadcast()
	}
	return true
}

// fallen says whether the session is one of a command, once it is decided what
// follows from that.
func (s *streams) fallen() bool {
	if !s.fell.Load() {
		return false
	}
	<-s.decided
	return true
}

// remark notes a text. r.mu is held. The call that follows tells of failures.
func (r *Recording) remark(kind, text string) {
	if data, err := noteData(kind, text); err == nil { // text always is JSON
		_, _ = r.put(cast.Note, data)
	}
}

// close records what is known at the end. The recording takes no other calls
// any more; those that waited are leaving.
func (s *streams) close(r *Recording) {
	if s.parser != nil && !s.fell.Load() {
		s.parser.close()
	}
	for _, one := range s.all() {
		one.mu.Lock()
		defer one.mu.Unlock()
	}
	if r.mode == Off {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	at := r.now()
	end := func(kind cast.Kind, p []byte) (uint64, error) {
		for piece := range slices.Chunk(p, cast.MaxData) {
			r.append(kind, piece)
		}
		return uint64(len(p)), nil
	}
	for _, one := range s.all() {
		if one.state == parsed && s.fell.Load() {
			_ = one.settle(at, end) // end takes all
		}
		_ = one.flushTail(at, end)
	}
	for _, one := range s.all() {
		if one.hash == nil && one.rest == nil && one.bytes == one.kept {
			continue // kept whole, or nothing
		}
		if data, err := one.summary(); err == nil { // numbers always are JSON
			r.append(cast.Stream, data)
		}
	}
}

// file records an operation on a file and tells who wants to know.
func (r *Recording) file(op transfer.Operation, tell func(transfer.Operation)) {
	if tell != nil {
		tell(op)
	}
	data, err := marshal(op)
	if err != nil {
		// A path that no host would take. Its beginning tells enough.
		op.Path, op.Target = cut(op.Path, maxText), cut(op.Target, maxText)
		op.Result = cut(op.Result, maxText)
		if data, err = marshal(op); err != nil {
			return
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.mode == Off:
	case r.closed:
		r.append(cast.File, data) // begun and not ended: a bounded number
	default:
		_, _ = r.put(cast.File, data) // the call that gave the bytes tells of failures
	}
}
