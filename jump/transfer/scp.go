package transfer

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strings"
	"sync"
)

// Bounds on what an scp stream can make the parser keep. OpenSSH takes lines of
// 16 KiB, and Linux paths of 4 KiB; OpenSSH asks and waits, so that one answer is
// outstanding at a time, while simpler clients send a file or more ahead.
const (
	maxLine       = 16 << 10
	maxSCPPath    = 8 << 10
	maxSCPDepth   = 1000
	maxUnanswered = 256
	maxAhead      = 4096
)

// What becomes of an operation that never came to its end.
const interrupted = "interrupted"

// SCPParser follows the old scp protocol, as scp.c of OpenSSH speaks it: one
// side, the source, sends a line for each file (C), directory (D) and its end
// (E), times (T), and the content; the other, the sink, answers each with a zero
// byte or with 1 or 2 and a message.
//
// FromClient and FromHost may each be called by a goroutine of its own, with
// bytes that are about to be passed on, so that a request is always seen before
// its answer. Once one of them has returned an error both return it for ever:
// the stream is not, or no longer, understood. Operations are emitted in order
// and one at a time, while the parser is locked: emit must not call it.
type SCPParser struct {
	mu   sync.Mutex
	scp  SCP
	emit func(Operation)
	err  error

	// The source's side.
	state     scpState
	line      []byte
	dirs      []scpDir
	file      *scpFile // its content is passing
	remaining uint64
	taken     uint64 // bytes of the source that were understood

	// The sink's side.
	asked   []question
	answers []answer // given before they were asked for; from clients only
	code    byte     // of the message that is being read; 0 if none is
	message []byte
}

type scpState int

const (
	scpLine    scpState = iota // a line begins or goes on
	scpContent                 // of p.file, p.remaining bytes to come
	scpTrailer                 // a byte that says how the content went
	scpMessage                 // a line after that byte
)

// scpDir is a directory that the source is in.
type scpDir struct {
	path, within string
	entries      uint64
	mode         uint32
}

// scpFile is a file whose line was sent.
type scpFile struct {
	op   Operation
	hash hash.Hash
	size uint64
}

// question is something that the sink must answer.
type question struct {
	kind byte   // 'S' start, 'T', 'C', 'D', 'E', or 'X' after the content
	at   uint64 // SCPParser.taken when it was asked
	file *scpFile
	dir  scpDir
}

type answer struct {
	code    byte
	message string
}

// NewSCPParser returns a parser of the stream that the command s starts.
func NewSCPParser(s SCP, emit func(Operation)) *SCPParser {
	return &SCPParser{scp: s, emit: emit, asked: []question{{kind: 'S'}}}
}

// FromClient takes bytes that are about to be passed on to the host.
func (p *SCPParser) FromClient(data []byte) error { return p.take(data, !p.scp.Source) }

// FromHost takes bytes that are about to be passed on to the client.
func (p *SCPParser) FromHost(data []byte) error { return p.take(data, p.scp.Source) }

func (p *SCPParser) take(data []byte, source bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	var err error
	if source {
		err = p.fromSource(data)
	} else {
		err = p.fromSink(data)
	}
	if err != nil {
		p.err = fmt.Errorf("following scp: %w", err)
	}
	return p.err
}

// Close emits what was begun and not ended. The parser takes nothing more.
func (p *SCPParser) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if errors.Is(p.err, errClosed) {
		return
	}
	p.err = errClosed
	for _, q := range p.asked {
		switch {
		case q.kind == 'X':
			p.finish(q.file, interrupted)
		case q.kind == 'D' && !p.scp.Source, q.kind == 'E' && p.scp.Source:
			p.emitDir(q.dir, interrupted)
		}
	}
	if p.file != nil {
		p.finish(p.file, interrupted)
	}
	for i := len(p.dirs) - 1; i >= 0 && p.scp.Source; i-- {
		p.emitDir(p.dirs[i], interrupted)
	}
}

var errClosed = errors.New("closed")

func (p *SCPParser) action() string {
	if p.scp.Source {
		return ActionRead
	}
	return ActionWrite
}

// fromSource takes lines, contents and messages.
func (p *SCPParser) fromSource(data []byte) error {
	for len(data) > 0 {
		switch p.state {
		case scpContent:
			n := min(uint64(len(data)), p.remaining)
			p.file.hash.Write(data[:n])
			p.file.op.Size += n
			p.remaining -= n
			p.taken += n
			data = data[n:]
			if p.remaining == 0 {
				p.state = scpTrailer
			}
			continue
		case scpTrailer:
			c := data[0]
			data = data[1:]
			p.taken++
			if err := p.trailer(c); err != nil {
				return err
			}
			continue
		case scpLine, scpMessage:
			line, rest, whole := bytes.Cut(data, []byte{'\n'})
			if len(p.line)+len(line) > maxLine {
				return errors.New("a line is too long")
			}
			p.line = append(p.line, line...)
			p.taken += uint64(len(data) - len(rest))
			data = rest
			if !whole {
				return p.noise()
			}
			text := string(p.line)
			p.line = p.line[:0]
			if err := p.sourceLine(text); err != nil {
				return err
			}
		}
	}
	return nil
}

// noise refuses early what can't become a line of the protocol.
func (p *SCPParser) noise() error {
	if p.state == scpLine && len(p.line) > 0 && bytes.IndexByte([]byte("TCDE\x01\x02"), p.line[0]) < 0 {
		return fmt.Errorf("a line begins with %q", p.line[0])
	}
	return nil
}

// trailer takes the byte after the content.
func (p *SCPParser) trailer(c byte) error {
	switch c {
	case 0:
		p.file.op.SHA256 = hex.EncodeToString(p.file.hash.Sum(nil))
		p.file.op.Result = OK
		return p.contentEnds()
	case 1, 2:
		p.state = scpMessage
		return nil
	default:
		return fmt.Errorf("the content of %q is followed by %q", p.file.op.Path, c)
	}
}

// contentEnds asks for the sink's word on the file.
func (p *SCPParser) contentEnds() error {
	f := p.file
	p.file, p.state = nil, scpLine
	return p.ask(question{kind: 'X', file: f})
}

func (p *SCPParser) sourceLine(text string) error {
	if p.state == scpMessage {
		// The source couldn't read all of the file and sent something else.
		p.file.op.Result = clip(text)
		return p.contentEnds()
	}
	if text == "" {
		return errors.New("an empty line")
	}
	rest := text[1:]
	switch kind := text[0]; kind {
	case 1, 2:
		// It can't send what it was asked for. Nothing is answered.
		at := Operation{Protocol: ProtocolSCP, Action: p.action(), Path: p.scp.Path, Result: clip(rest)}
		if n := len(p.dirs); n > 0 {
			at.Path, at.Within = p.dirs[n-1].path, p.dirs[n-1].within
		}
		p.emit(at)
		return nil
	case 'T':
		return p.ask(question{kind: 'T'})
	case 'C', 'D':
		return p.begin(kind, rest)
	case 'E':
		if rest != "" || len(p.dirs) == 0 {
			return errors.New("the end of a directory that wasn't begun")
		}
		d := p.dirs[len(p.dirs)-1]
		p.dirs = p.dirs[:len(p.dirs)-1]
		return p.ask(question{kind: 'E', dir: d})
	default:
		return fmt.Errorf("a line begins with %q", kind)
	}
}

// begin takes the rest of a C or D line: mode, size and name.
func (p *SCPParser) begin(kind byte, rest string) error {
	mode, size, name, err := parseRecord(rest)
	if err != nil {
		return err
	}
	path, within := p.place(name)
	if len(path) > maxSCPPath || len(within) > maxSCPPath || len(p.dirs) >= maxSCPDepth {
		return errors.New("directories are nested too deeply")
	}
	if n := len(p.dirs); n > 0 {
		p.dirs[n-1].entries++
	}
	if kind == 'D' {
		d := scpDir{path: path, within: within, mode: mode}
		p.dirs = append(p.dirs, d)
		return p.ask(question{kind: 'D', dir: d})
	}
	f := &scpFile{size: size, hash: sha256.New(), op: Operation{
		Protocol: ProtocolSCP, Action: p.action(), Path: path, Within: within, Mode: mode,
	}}
	p.file, p.remaining, p.state = f, size, scpContent
	if size == 0 {
		p.state = scpTrailer
	}
	return p.ask(question{kind: 'C', file: f})
}

// ask notes that the sink has to answer, and takes an answer given before.
func (p *SCPParser) ask(q question) error {
	if len(p.asked) >= maxUnanswered {
		return errors.New("too much is sent without an answer")
	}
	q.at = p.taken
	p.asked = append(p.asked, q)
	for len(p.asked) > 0 && len(p.answers) > 0 {
		a := p.answers[0]
		p.answers = p.answers[1:]
		if err := p.answered(a); err != nil {
			return err
		}
	}
	return nil
}

// fromSink takes answers.
func (p *SCPParser) fromSink(data []byte) error {
	for len(data) > 0 {
		if p.code == 0 {
			c := data[0]
			data = data[1:]
			switch c {
			case 0:
				if err := p.answer(answer{}); err != nil {
					return err
				}
			case 1, 2:
				p.code = c
			default:
				return fmt.Errorf("an answer begins with %q", c)
			}
			continue
		}
		line, rest, whole := bytes.Cut(data, []byte{'\n'})
		if len(p.message)+len(line) > maxLine {
			return errors.New("a message is too long")
		}
		p.message = append(p.message, line...)
		data = rest
		if whole {
			a := answer{p.code, clip(string(p.message))}
			p.code, p.message = 0, p.message[:0]
			if err := p.answer(a); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *SCPParser) answer(a answer) error {
	if len(p.asked) > 0 {
		return p.answered(a)
	}
	// A client may answer ahead, as printf '\0\0\0' does: the host takes the
	// answers one by one. A host answers only what it was sent; more means that
	// both sides and this parser no longer agree on what is content.
	if !p.scp.Source {
		return errors.New("the host answers what nobody asked")
	}
	if len(p.answers) >= maxAhead {
		return errors.New("too many answers ahead")
	}
	p.answers = append(p.answers, a)
	return nil
}

// answered takes the answer to the oldest question.
func (p *SCPParser) answered(a answer) error {
	q := p.asked[0]
	p.asked = p.asked[1:]
	if a.code != 0 {
		return p.refused(q, a)
	}
	switch q.kind {
	case 'D':
		if !p.scp.Source {
			p.emitDir(q.dir, OK)
		}
	case 'E':
		if p.scp.Source {
			p.emitDir(q.dir, OK)
		}
	case 'X':
		q.file.op.Complete = q.file.op.SHA256 != ""
		p.finish(q.file, OK)
	}
	return nil
}

// refused takes an answer other than zero. The source then goes on with the next
// file; one that had sent more already is out of step with the sink.
func (p *SCPParser) refused(q question, a answer) error {
	switch q.kind {
	case 'C', 'D':
		if q.at != p.taken {
			return errors.New("the source goes on although it was refused")
		}
		// OpenSSH's sink says this after the end of a directory, unasked. Then it
		// isn't about this file, for which the sink waits.
		if strings.Contains(a.message, ": set times: ") {
			return errors.New("the sink answers what nobody asked")
		}
		if q.kind == 'C' {
			p.file, p.state = nil, scpLine
			p.finish(q.file, a.message)
			return nil
		}
		p.dirs = p.dirs[:len(p.dirs)-1]
		p.emitDir(q.dir, a.message)
	case 'E':
		if p.scp.Source {
			p.emitDir(q.dir, a.message)
		}
	case 'X':
		p.finish(q.file, a.message)
	case 'S':
		p.emit(Operation{Protocol: ProtocolSCP, Action: p.action(), Path: p.scp.Path, Result: a.message})
	}
	return nil
}

// finish emits a file. What the source said about it goes before the answer.
func (p *SCPParser) finish(f *scpFile, result string) {
	if f.op.Result == "" || f.op.Result == OK {
		f.op.Result = result
	}
	p.emit(f.op)
}

func (p *SCPParser) emitDir(d scpDir, result string) {
	op := Operation{
		Protocol: ProtocolSCP, Action: ActionMkdir, Path: d.path, Within: d.within,
		Mode: d.mode, Result: result, Complete: result == OK,
	}
	if p.scp.Source {
		op.Action, op.Count = ActionReaddir, d.entries
	}
	p.emit(op)
}
