package transfer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
)

// Bounds on what an SFTP session can make the parser keep.
const (
	// maxPacket is OpenSSH's own bound on both sides, SFTP_MAX_MSG_LENGTH.
	maxPacket = 256 << 10
	// maxAnswer is how much of an answer is looked at; the rest of long ones, a
	// list of names, is passed over.
	maxAnswer = 1 << 10
	// maxHandle is the longest handle of section 6.2 of the draft.
	maxHandle = 256
	// maxMemory bounds requests without answer and open files, paths included.
	maxMemory = 16 << 20
	// maxHeldInAll bounds what all open files hold, see content.
	maxHeldInAll = 8 << 20
	// What one of them costs beside its paths, generously.
	requestCost = 256
	fileCost    = 1 << 10
)

// Packet types of draft-ietf-secsh-filexfer-02 section 3.
const (
	fxpInit          = 1
	fxpVersion       = 2
	fxpOpen          = 3
	fxpClose         = 4
	fxpRead          = 5
	fxpWrite         = 6
	fxpLstat         = 7
	fxpFstat         = 8
	fxpSetstat       = 9
	fxpFsetstat      = 10
	fxpOpendir       = 11
	fxpReaddir       = 12
	fxpRemove        = 13
	fxpMkdir         = 14
	fxpRmdir         = 15
	fxpRealpath      = 16
	fxpStat          = 17
	fxpRename        = 18
	fxpReadlink      = 19
	fxpSymlink       = 20
	fxpStatus        = 101
	fxpHandle        = 102
	fxpData          = 103
	fxpName          = 104
	fxpAttrs         = 105
	fxpExtended      = 200
	fxpExtendedReply = 201
)

// SFTPParser follows SFTP version 3, draft-ietf-secsh-filexfer-02 with the
// extensions and deviations that OpenSSH lists in its PROTOCOL file.
//
// FromClient and FromHost may each be called by a goroutine of its own, with
// bytes that are about to be passed on, so that a request is always seen before
// its answer. Once one of them has returned an error both return it for ever:
// the stream is not, or no longer, understood. Operations are emitted when their
// last answer has come, those on files when the file is closed, one at a time
// and while the parser is locked: emit must not call it.
//
// Packet types and extensions that aren't known are passed over; that they were
// used is emitted.
type SFTPParser struct {
	mu   sync.Mutex
	emit func(Operation)
	err  error

	client, host stream
	begun        bool // the client has sent fxpInit

	requests  map[uint32]*request // the oldest of each id, see request.next
	sequence  uint64              // of requests
	lastCut   uint64              // of the one after the last that set a length
	opening   int                 // requests that will give a handle
	files     map[string]*file    // by handle, those that the client hasn't closed
	early     []*file             // used before their handle was given
	memory    int                 // used, of maxMemory
	holding   budget
	sizes     sizes
	questions uint64
}

// NewSFTPParser returns a parser of one SFTP session.
func NewSFTPParser(emit func(Operation)) *SFTPParser {
	return &SFTPParser{
		emit:     emit,
		requests: map[uint32]*request{},
		files:    map[string]*file{},
		holding:  budget{maxHeldInAll},
	}
}

// FromClient takes bytes that are about to be passed on to the host.
func (p *SFTPParser) FromClient(data []byte) error { return p.take(&p.client, data) }

// FromHost takes bytes that are about to be passed on to the client.
func (p *SFTPParser) FromHost(data []byte) error { return p.take(&p.host, data) }

// Close emits what was begun and not ended. The parser takes nothing more.
func (p *SFTPParser) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if errors.Is(p.err, errClosed) {
		return
	}
	p.err = errClosed
	p.abandon()
	if p.questions > 0 {
		p.emit(Operation{Protocol: ProtocolSFTP, Action: ActionStat, Count: p.questions, Result: OK, Complete: true})
	}
}

// headerSize is the length and the type of a packet.
const headerSize = 5

// stream is one direction, taken apart into packets. Of a packet the beginning
// is kept until it can be understood; content is passed on as it comes, the rest
// is passed over.
type stream struct {
	head   []byte // header and what is kept
	size   uint32 // of the packet behind the header
	seen   uint32 // of that
	handed bool   // the beginning was understood

	content uint32   // bytes of content that come next
	of      *request // that they belong to
	at      uint64   // their offset in the file
}

func (p *SFTPParser) take(s *stream, data []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	for len(data) > 0 {
		n, err := p.step(s, data)
		if err != nil {
			p.err = fmt.Errorf("following sftp: %w", err)
			return p.err
		}
		data = data[n:]
	}
	return nil
}

// step takes some of data and says how much.
func (p *SFTPParser) step(s *stream, data []byte) (n int, err error) {
	switch {
	case len(s.head) < headerSize:
		n = min(headerSize-len(s.head), len(data))
		s.head = append(s.head, data[:n]...)
		if len(s.head) < headerSize {
			return n, nil
		}
		size := binary.BigEndian.Uint32(s.head)
		if size == 0 || size > maxPacket {
			return 0, fmt.Errorf("a packet of %d bytes", size)
		}
		s.size = size - 1
	case !s.handed:
		n = min(int(p.wanted(s)-s.seen), len(data))
		s.head = append(s.head, data[:n]...)
		s.seen += uint32(n)
	case s.content > 0:
		n = min(int(s.content), len(data))
		if f := s.of.file; f != nil {
			f.pass(s == &p.client, s.at, data[:n], &p.holding)
		}
		s.content -= uint32(n)
		s.at += uint64(n)
		s.seen += uint32(n)
		if s.content == 0 && s == &p.host {
			s.of.file.read.accept(s.of.offset, uint64(s.of.length))
			p.settled(s.of)
		}
	default:
		n = min(int(s.size-s.seen), len(data))
		s.seen += uint32(n)
	}
	if !s.handed && s.seen >= p.wanted(s) {
		s.handed = true
		if err := p.packet(s); err != nil {
			return 0, err
		}
	}
	if s.handed && s.seen == s.size {
		s.end()
	}
	return n, nil
}

// end makes ready for the next packet, without keeping a buffer that only a long
// packet needed.
func (s *stream) end() {
	head := s.head[:0]
	if cap(head) > 4*maxAnswer {
		head = nil
	}
	*s = stream{head: head}
}

// wanted is how many bytes behind the header must have come for the packet to be
// understood.
func (p *SFTPParser) wanted(s *stream) uint32 {
	const numbers = 8 // an id, and a length
	kind := s.head[headerSize-1]
	switch {
	case s == &p.host && kind == fxpData:
		return min(numbers, s.size)
	case s == &p.host:
		return min(maxAnswer, s.size)
	case kind != fxpWrite:
		return s.size
	case s.seen < numbers:
		return min(numbers, s.size)
	default:
		// id, handle, offset, and the length of the content.
		handle := binary.BigEndian.Uint32(s.head[headerSize+4:])
		return min(numbers+min(handle, maxHandle)+12, s.size)
	}
}

func (p *SFTPParser) packet(s *stream) error {
	kind, body := s.head[headerSize-1], reader{s.head[headerSize:]}
	if s == &p.client {
		return p.request(kind, body)
	}
	return p.answer(kind, body)
}

// expect says that content follows.
func (s *stream) expect(n uint32, of *request, at uint64) error {
	if n > s.size-s.seen {
		return errMalformed
	}
	s.content, s.of, s.at = n, of, at
	return nil
}

var errMalformed = errors.New("a malformed packet")

// reader takes values off a packet. What is missing reads as zero and is told by
// err, so that the values of a packet can be taken in one go.
type reader struct {
	data []byte
}

func (r *reader) take(n uint64, err *error) []byte {
	if n > uint64(len(r.data)) {
		*err = errMalformed
		r.data = nil
		return nil
	}
	b := r.data[:n]
	r.data = r.data[n:]
	return b
}

func (r *reader) uint32(err *error) uint32 {
	if b := r.take(4, err); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64(err *error) uint64 {
	if b := r.take(8, err); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) string(err *error) string {
	return string(r.take(uint64(r.uint32(err)), err))
}
