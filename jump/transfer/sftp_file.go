package transfer

import (
	"cmp"
	"errors"
	"slices"
)

// Flags of fxpOpen, section 6.3 of the draft.
const (
	openRead      = 0x1
	openWrite     = 0x2
	openAppend    = 0x4
	openCreate    = 0x8
	openTruncate  = 0x10
	openExclusive = 0x20
)

// maxEarly is how many handles a client may use before they were given.
const maxEarly = 64

// file is an open file or directory.
type file struct {
	path        string
	flags, mode uint32
	directory   bool
	cost        int

	// early is true while the handle is used without having been given: a client
	// that guesses handles needn't wait for them, and OpenSSH's are easy to
	// guess. since is the first request that used it, closing that it was closed.
	early   bool
	handle  string
	since   uint64
	closing bool

	waiting int // requests on it without answer
	closed  bool
	result  string // the first failure

	read, written content
	reading       bool // something was asked for
	entries       uint64
	copied        bool // a copy on the host was made from or to it
	// fresh is true if nothing was in the file but what was written.
	fresh bool
	// size is what the host said; end that a read found nothing there.
	size, end     uint64
	sized, hasEnd bool
	emitted       bool
}

// lookup returns the file of a handle. If it isn't known but may be one that is
// just being opened, a file is made up for it.
func (p *SFTPParser) lookup(handle string, sequence uint64) (*file, error) {
	if f := p.files[handle]; f != nil {
		return f, nil
	}
	if p.opening == 0 || len(handle) > maxHandle {
		return nil, nil
	}
	for _, f := range p.early {
		if f.handle == handle && !f.closing {
			return f, nil
		}
	}
	if len(p.early) >= maxEarly {
		return nil, errors.New("too many handles are guessed")
	}
	f := &file{early: true, handle: handle, since: sequence, cost: fileCost + len(handle)}
	f.written.write = true
	p.early = append(p.early, f)
	return f, p.charge(f.cost)
}

// forget makes a handle free for another file; the client has closed it.
func (p *SFTPParser) forget(handle string, f *file) {
	if f == nil {
		return
	}
	f.closing = true
	if p.files[handle] == f {
		delete(p.files, handle)
	}
}

// open notes what a handle stands for.
func (p *SFTPParser) open(handle string, r *request) error {
	f := &file{}
	i := slices.IndexFunc(p.early, func(f *file) bool { return f.handle == handle && f.since > r.sequence })
	if i >= 0 {
		f = p.early[i]
		p.early = slices.Delete(p.early, i, i+1)
		p.memory -= f.cost
	}
	f.early, f.handle = false, ""
	f.path, f.flags, f.mode, f.directory = r.path, r.flags, r.mode, r.kind == fxpOpendir
	f.written.write = true
	f.fresh = f.fresh || f.flags&openTruncate != 0 || f.flags&openCreate != 0 && f.flags&openExclusive != 0
	f.cost = fileCost + len(handle) + len(f.path)
	if p.lastCut > r.sequence {
		f.written.lose(&p.holding) // see cut
	}
	if size, ok := p.sizes.get(f.path); ok && !f.sized {
		f.size, f.sized = size, true
	}
	if !f.closing {
		if old := p.files[handle]; old != nil {
			// The host gives a handle that it hadn't taken back.
			old.closed = true
			old.fail(interrupted)
			p.finish(old)
		}
		p.files[handle] = f
	}
	return p.charge(f.cost)
}

// dropEarly forgets handles that were guessed wrong.
func (p *SFTPParser) dropEarly() {
	if p.opening > 0 {
		return
	}
	p.early = slices.DeleteFunc(p.early, func(f *file) bool {
		if f.waiting > 0 {
			return false
		}
		p.drop(f)
		return true
	})
}

// drop gives back what a file takes.
func (p *SFTPParser) drop(f *file) {
	p.memory -= f.cost
	f.read.lose(&p.holding)
	f.written.lose(&p.holding)
}

// pass takes content of the file.
func (f *file) pass(fromClient bool, offset uint64, data []byte, b *budget) {
	if fromClient {
		f.written.pass(offset, data, b)
		return
	}
	f.read.pass(offset, data, b)
}

func (f *file) fail(result string) {
	if f.result == "" {
		f.result = result
	}
}

// endsAt notes that nothing is to be read at offset.
func (f *file) endsAt(offset uint64) {
	f.reading = true
	if !f.hasEnd || offset < f.end {
		f.end, f.hasEnd = offset, true
	}
}

// resize is told of a new length as soon as it is asked for, since hosts do one
// thing after the other. It returns true if the length is what was written.
func (f *file) resize(size uint64, b *budget) bool {
	c := &f.written
	switch {
	case !c.lost && len(c.held) == 0 && size == c.next:
		f.fresh = true
		return true
	case c.lost && !c.scattered && c.whole(size):
		f.fresh = true
		return true
	default:
		c.lose(b)
		c.scattered = true
		return false
	}
}

// finish emits a file that is closed, once nothing more is to come.
func (p *SFTPParser) finish(f *file) {
	if f.early {
		p.dropEarly()
		return
	}
	if !f.closed || f.waiting > 0 || f.emitted {
		return
	}
	f.emitted = true
	p.emitFile(f)
	p.drop(f)
}

func (p *SFTPParser) emitFile(f *file) {
	op := Operation{Protocol: ProtocolSFTP, Path: f.path, Result: f.result}
	if op.Result == "" {
		op.Result = OK
	}
	if f.directory {
		op.Action, op.Count, op.Complete = ActionReaddir, f.entries, op.Result == OK
		p.emit(op)
		return
	}
	if f.written.touched || f.flags&openWrite != 0 && (!f.reading || f.flags&openTruncate != 0) && !f.copied {
		p.emitWritten(f, op)
	}
	if f.reading || f.flags&openWrite == 0 && !f.copied {
		p.emitRead(f, op)
	}
}

func (p *SFTPParser) emitWritten(f *file, op Operation) {
	c := &f.written
	op.Action, op.Mode, op.Size, op.Offset = ActionWrite, f.mode, c.accepted, c.first()
	// What is appended goes to the end, whatever offset it says.
	inPlace := f.flags&openAppend == 0 || !c.disorder && f.flags&openTruncate != 0
	if f.fresh && inPlace && c.whole(c.end()) {
		op.Complete = op.Result == OK
		op.SHA256 = c.sum(c.end())
	}
	p.emit(op)
}

func (p *SFTPParser) emitRead(f *file, op Operation) {
	c := &f.read
	op.Action, op.Size, op.Offset = ActionRead, c.accepted, c.first()
	end := c.end()
	known := f.hasEnd && f.end <= end || f.sized && f.size == end
	if f.reading && known && c.whole(end) {
		op.Complete = op.Result == OK
		op.SHA256 = c.sum(end)
	}
	p.emit(op)
}

// abandon emits all that is open or waits, in the order in which it was begun as
// far as that is known.
func (p *SFTPParser) abandon() {
	var waiting []*request
	for _, r := range p.requests {
		for ; r != nil; r = r.next {
			waiting = append(waiting, r)
		}
	}
	slices.SortFunc(waiting, func(a, b *request) int {
		return cmp.Compare(a.sequence, b.sequence)
	})
	open := map[*file]bool{}
	for _, f := range p.files {
		open[f] = true
	}
	for _, r := range waiting {
		if r.kind == fxpOpen || r.kind == fxpOpendir {
			p.emit(Operation{Protocol: ProtocolSFTP, Action: openAction(r), Path: r.path, Mode: r.mode, Result: interrupted})
		}
		p.emitOp(r, interrupted)
		if r.file != nil && !r.file.early {
			open[r.file] = true
		}
	}
	files := make([]*file, 0, len(open))
	for f := range open {
		files = append(files, f)
	}
	slices.SortFunc(files, func(a, b *file) int {
		return cmp.Compare(a.path, b.path)
	})
	for _, f := range files {
		if !f.emitted {
			f.fail(interrupted)
			p.emitFile(f)
		}
	}
}

func openAction(r *request) string {
	switch {
	case r.kind == fxpOpendir:
		return ActionReaddir
	case r.flags&openWrite != 0:
		return ActionWrite
	default:
		return ActionRead
	}
}
