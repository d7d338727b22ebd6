package transfer

import (
	"errors"
	"fmt"
)

// Status codes of section 7 of the draft.
const (
	statusOK  = 0
	statusEOF = 1
)

var statusTexts = []string{
	"ok", "end of file", "no such file", "permission denied", "failure", "bad message",
	"no connection", "connection lost", "operation unsupported",
}

var errUnknownHandle = errors.New("the host accepts a handle that it never gave")

// answer takes a packet of the host.
func (p *SFTPParser) answer(kind byte, body reader) error {
	if !p.begun {
		return fmt.Errorf("it begins with an answer of type %d", kind)
	}
	var err error
	id := body.uint32(&err)
	if kind == fxpVersion {
		if err == nil && id != 3 {
			return fmt.Errorf("version %d, only 3 is understood", id)
		}
		return err
	}
	if err != nil {
		return err
	}
	r := p.requests[id]
	if r == nil {
		return errors.New("an answer to what nobody asked")
	}
	if r.next != nil {
		r.next.last = r.last
		p.requests[id] = r.next
	} else {
		delete(p.requests, id)
	}
	p.memory -= r.cost
	if err := p.answered(r, kind, body); err != nil {
		return err
	}
	if kind == fxpData && p.host.content > 0 {
		return nil // the rest when the content has passed
	}
	p.settled(r)
	return nil
}

// settled ends a request that isn't waited for any longer.
func (p *SFTPParser) settled(r *request) {
	if r.kind == fxpOpen || r.kind == fxpOpendir {
		p.opening--
		p.dropEarly()
	}
	if r.file != nil {
		r.file.waiting--
		p.finish(r.file)
	}
}

func (p *SFTPParser) answered(r *request, kind byte, body reader) error {
	switch kind {
	case fxpStatus:
		return p.status(r, body)
	case fxpHandle:
		return p.opened(r, body)
	case fxpData:
		return p.data(r, body)
	case fxpName:
		if r.kind != fxpReaddir {
			return nil // realpath, readlink and their like
		}
		var err error
		n := body.uint32(&err)
		if r.file == nil || r.file.early {
			return errUnknownHandle
		}
		r.file.entries += uint64(n)
		return err
	case fxpAttrs:
		p.told(r, body)
		return nil
	case fxpExtendedReply:
		p.emitOp(r, OK)
		return nil
	default:
		return fmt.Errorf("an answer of type %d", kind)
	}
}

// status takes the answer of most requests.
func (p *SFTPParser) status(r *request, body reader) error {
	var err error
	code := body.uint32(&err)
	if err != nil {
		return err
	}
	ok := code == statusOK
	if ok && r.handle && (r.file == nil || r.file.early) {
		return errUnknownHandle
	}
	result := OK
	if !ok {
		// The message is missing in answers of old servers.
		var missing error
		if result = clip(body.string(&missing)); missing != nil || result == "refused" {
			result = fmt.Sprintf("status %d", code)
			if code < uint32(len(statusTexts)) {
				result = statusTexts[code]
			}
		}
	}
	f := r.file
	switch r.kind {
	case fxpOpen, fxpOpendir:
		if ok {
			return errors.New("a file is opened without a handle")
		}
		p.emit(Operation{Protocol: ProtocolSFTP, Action: openAction(r), Path: r.path, Mode: r.mode, Result: result})
	case fxpRead:
		switch {
		case ok:
			return errors.New("a read is answered without content")
		case f == nil:
		case code == statusEOF:
			f.endsAt(r.offset)
		default:
			f.fail(result)
		}
	case fxpWrite:
		switch {
		case f == nil:
		case ok:
			f.written.accept(r.offset, uint64(r.length))
		default:
			f.written.lose(&p.holding)
			f.fail(result)
		}
	case fxpReaddir:
		if f != nil && code != statusEOF {
			f.fail(result)
		}
	case fxpClose:
		if f != nil {
			f.closed = true
			if !ok {
				f.fail(result)
			}
		}
	case fxpFsetstat:
		if f != nil && !ok && r.resizes {
			f.written.lose(&p.holding)
			f.written.scattered = true
		}
	}
	p.emitOp(r, result)
	return nil
}

// emitOp emits what a request was about.
func (p *SFTPParser) emitOp(r *request, result string) {
	if r.op == nil {
		return
	}
	op := *r.op
	// Handles may have been used before it was known what they stand for.
	switch {
	case r.file == nil:
	case op.Action == ActionSetstat:
		op.Path = r.file.path
	case op.Action == ActionCopy:
		op.Path, op.Target = r.source.path, r.file.path
	}
	op.Protocol, op.Result, op.Complete = ProtocolSFTP, result, result == OK
	p.emit(op)
}

// opened takes a handle.
func (p *SFTPParser) opened(r *request, body reader) error {
	var err error
	handle := body.string(&err)
	switch {
	case err != nil:
		return err
	case r.kind != fxpOpen && r.kind != fxpOpendir:
		return errors.New("a handle that nobody asked for")
	case len(handle) > maxHandle:
		return fmt.Errorf("a handle of %d bytes", len(handle))
	}
	return p.open(handle, r)
}

// data takes the beginning of what was read.
func (p *SFTPParser) data(r *request, body reader) error {
	var err error
	n := body.uint32(&err)
	switch {
	case err != nil:
		return err
	case r.kind != fxpRead:
		return errors.New("content that nobody asked for")
	case r.file == nil || r.file.early:
		return errUnknownHandle
	case n > r.length:
		return errors.New("more content than was asked for")
	}
	r.length = n
	r.file.reading = true
	return p.host.expect(n, r, r.offset)
}

// told keeps sizes of files, to know later whether all of one has passed.
func (p *SFTPParser) told(r *request, body reader) {
	var err error
	a := body.attributes(&err)
	if err != nil || !a.has(attrSize) || !a.regular() {
		return
	}
	switch {
	case r.kind == fxpFstat && r.file != nil:
		r.file.size, r.file.sized = a.size, true
	case r.kind == fxpStat, r.kind == fxpLstat && a.has(attrMode):
		p.sizes.put(r.path, a.size)
	}
}

// sizes remembers the sizes of the files that were asked about last.
type sizes struct {
	entries [32]struct {
		path string
		size uint64
		set  bool
	}
	at int
}

// maxSizePath is the longest path that Linux opens.
const maxSizePath = 4096

func (s *sizes) put(path string, size uint64) {
	if len(path) > maxSizePath {
		return
	}
	for i := range s.entries {
		if e := &s.entries[i]; e.set && e.path == path {
			e.size = size
			return
		}
	}
	e := &s.entries[s.at]
	e.path, e.size, e.set = path, size, true
	s.at = (s.at + 1) % len(s.entries)
}

func (s *sizes) get(path string) (uint64, bool) {
	for _, e := range s.entries {
		if e.set && e.path == path {
			return e.size, true
		}
	}
	return 0, false
}
