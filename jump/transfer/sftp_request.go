package transfer

import (
	"errors"
	"fmt"
	"strings"
)

// request is one that waits for its answer.
type request struct {
	id       uint32
	kind     byte
	sequence uint64
	cost     int
	next     *request // with the same id, made later
	last     *request // of those, kept by the first

	op   *Operation // to be emitted with the answer's result
	path string     // of what is opened, or asked about
	// flags and mode of fxpOpen.
	flags, mode uint32
	file        *file // whose handle is used; nil if it isn't known
	handle      bool  // a handle is used
	source      *file // of a copy to file
	resizes     bool  // the length of file is set
	// offset and length of a read or write.
	offset uint64
	length uint32
}

// request takes a packet of the client.
func (p *SFTPParser) request(kind byte, body reader) error {
	if kind == fxpInit {
		p.begun = true
		return nil
	}
	if !p.begun {
		return fmt.Errorf("it begins with a packet of type %d", kind)
	}
	var err error
	r := &request{kind: kind, sequence: p.sequence, id: body.uint32(&err)}
	p.sequence++
	switch kind {
	case fxpOpen:
		r.path, r.flags = body.string(&err), body.uint32(&err)
		r.mode = body.attributes(&err).mode & modeBits
		p.opening++
	case fxpOpendir:
		r.path = body.string(&err)
		p.opening++
	case fxpClose, fxpRead, fxpWrite, fxpFsetstat, fxpReaddir, fxpFstat:
		err = p.useHandle(r, body)
	case fxpExtended:
		err = p.extended(r, body)
	default:
		err = p.pathRequest(r, body)
	}
	if err != nil {
		return err
	}
	return p.wait(r)
}

// wait keeps the request until it is answered.
func (p *SFTPParser) wait(r *request) error {
	r.cost = requestCost + len(r.path)
	if r.op != nil {
		r.cost += len(r.op.Path) + len(r.op.Target)
	}
	if err := p.charge(r.cost); err != nil {
		return err
	}
	if r.file != nil {
		r.file.waiting++
	}
	if first := p.requests[r.id]; first != nil {
		// Ids should be unique; hosts answer in order all the same.
		first.last.next, first.last = r, r
		return nil
	}
	r.last = r
	p.requests[r.id] = r
	return nil
}

// charge notes memory that is used; given back as a negative number.
func (p *SFTPParser) charge(n int) error {
	if p.memory += n; p.memory > maxMemory {
		return errors.New("too much is asked without an answer, or open at once")
	}
	return nil
}

// useHandle takes the requests that begin with a handle.
func (p *SFTPParser) useHandle(r *request, body reader) error {
	var err error
	handle := body.string(&err)
	if r.kind == fxpRead || r.kind == fxpWrite {
		r.offset, r.length = body.uint64(&err), body.uint32(&err)
	}
	var a attributes
	if r.kind == fxpFsetstat {
		a = body.attributes(&err)
	}
	if err != nil {
		return err
	}
	r.handle = true
	if r.file, err = p.lookup(handle, r.sequence); err != nil {
		return err
	}
	switch r.kind {
	case fxpWrite:
		return p.client.expect(r.length, r, r.offset)
	case fxpFstat:
		p.questions++
	case fxpClose:
		p.forget(handle, r.file)
	case fxpFsetstat:
		if a.has(attrSize) {
			p.cut(r.file)
		}
		if r.file == nil {
			return nil
		}
		r.resizes = a.has(attrSize)
		if r.resizes && r.file.resize(a.size, &p.holding) && a.flags == attrSize {
			// It cuts the file where the upload ended: part of the upload.
			return nil
		}
		r.op = &Operation{Action: ActionSetstat, Mode: a.mode & modeBits, Changed: a.String()}
	}
	return nil
}

// pathRequest takes the requests that name a path.
func (p *SFTPParser) pathRequest(r *request, body reader) error {
	var err error
	op := &Operation{}
	switch r.kind {
	case fxpLstat, fxpStat, fxpRealpath, fxpReadlink:
		p.questions++
		r.path = body.string(&err)
		return err
	case fxpSetstat:
		p.setstat(op, &body, &err)
	case fxpRemove:
		op.Action, op.Path = ActionRemove, body.string(&err)
	case fxpMkdir:
		op.Action, op.Path = ActionMkdir, body.string(&err)
		op.Mode = body.attributes(&err).mode & modeBits
	case fxpRmdir:
		op.Action, op.Path = ActionRmdir, body.string(&err)
	case fxpRename:
		op.Action, op.Path, op.Target = ActionRename, body.string(&err), body.string(&err)
	case fxpSymlink:
		// OpenSSH takes these the other way round than the draft, and all
		// clients have followed: section 4.1 of its PROTOCOL file.
		op.Action, op.Target, op.Path = ActionSymlink, body.string(&err), body.string(&err)
	default:
		op.Action, op.Path = ActionOther, fmt.Sprintf("packet type %d", r.kind)
	}
	r.op = op
	return err
}

// setstat fills in an operation that changes attributes of a path.
func (p *SFTPParser) setstat(op *Operation, body *reader, err *error) {
	op.Action, op.Path = ActionSetstat, body.string(err)
	a := body.attributes(err)
	op.Mode, op.Changed = a.mode&modeBits, a.String()
	if !a.has(attrSize) {
		return
	}
	p.cut(nil)
}

// cut is told that the length of some file is set: by its path, or by the handle
// of the one given. Another path may lead to the same file, through a link or
// dots, so what is known of all that are being written is no longer so, also of
// those that are just being opened.
func (p *SFTPParser) cut(except *file) {
	p.lastCut = p.sequence
	for _, f := range p.files {
		if f != except && !f.directory {
			f.written.lose(&p.holding)
		}
	}
}

// extended takes the requests that have names, those of OpenSSH's PROTOCOL file
// and some that others have.
func (p *SFTPParser) extended(r *request, body reader) error {
	var err error
	name := body.string(&err)
	op := &Operation{}
	switch name {
	case "posix-rename@openssh.com":
		op.Action, op.Path, op.Target = ActionRename, body.string(&err), body.string(&err)
	case "hardlink@openssh.com":
		op.Action, op.Target, op.Path = ActionLink, body.string(&err), body.string(&err)
	case "lsetstat@openssh.com":
		p.setstat(op, &body, &err)
	case "copy-data":
		return p.copyData(r, body)
	case "copy-file":
		op.Action, op.Path, op.Target = ActionCopy, body.string(&err), body.string(&err)
	case "fsync@openssh.com", "statvfs@openssh.com", "fstatvfs@openssh.com", "limits@openssh.com",
		"expand-path@openssh.com", "users-groups-by-id@openssh.com", "home-directory",
		"space-available", "vendor-id", "check-file", "check-file-name", "check-file-handle", "md5-hash", "md5-hash-handle":
		p.questions++
		return err
	default:
		op.Action, op.Path = ActionOther, name
	}
	r.op = op
	return err
}

// copyData takes a copy from one open file to another, both on the host.
func (p *SFTPParser) copyData(r *request, body reader) error {
	var err error
	from := body.string(&err)
	body.uint64(&err) // offset
	body.uint64(&err) // length
	to := body.string(&err)
	if err != nil {
		return err
	}
	source, err := p.lookup(from, r.sequence)
	if err != nil {
		return err
	}
	target, err := p.lookup(to, r.sequence)
	if err != nil {
		return err
	}
	r.handle = true
	r.op = &Operation{Action: ActionCopy}
	if source == nil || target == nil {
		return nil
	}
	// What is in the target no longer passed here.
	target.written.lose(&p.holding)
	target.written.scattered = true
	source.copied, target.copied = true, true
	r.file, r.source = target, source
	return nil
}

// Flags of attributes, section 5 of the draft.
const (
	attrSize     = 0x1
	attrOwner    = 0x2
	attrMode     = 0x4
	attrTimes    = 0x8
	attrExtended = 0x80000000

	modeBits = 0o7777
)

type attributes struct {
	flags            uint32
	size             uint64
	uid, gid         uint32
	mode             uint32
	accessed, edited uint32
}

func (a attributes) has(flag uint32) bool { return a.flags&flag != 0 }

// regular says whether the attributes are those of a file with content.
func (a attributes) regular() bool { return !a.has(attrMode) || a.mode&0o170000 == 0o100000 }

// String says what is set.
func (a attributes) String() string {
	var s []string
	if a.has(attrSize) {
		s = append(s, fmt.Sprintf("size %d", a.size))
	}
	if a.has(attrOwner) {
		s = append(s, fmt.Sprintf("owner %d:%d", a.uid, a.gid))
	}
	if a.has(attrMode) {
		s = append(s, fmt.Sprintf("mode %04o", a.mode&modeBits))
	}
	if a.has(attrTimes) {
		s = append(s, fmt.Sprintf("times %d %d", a.accessed, a.edited))
	}
	if a.has(attrExtended) {
		s = append(s, "extended")
	}
	return strings.Join(s, ", ")
}

func (r *reader) attributes(err *error) attributes {
	a := attributes{flags: r.uint32(err)}
	if a.has(attrSize) {
		a.size = r.uint64(err)
	}
	if a.has(attrOwner) {
		a.uid, a.gid = r.uint32(err), r.uint32(err)
	}
	if a.has(attrMode) {
		a.mode = r.uint32(err)
	}
	if a.has(attrTimes) {
		a.accessed, a.edited = r.uint32(err), r.uint32(err)
	}
	return a
}
