package replay

import "unicode/utf8"

// sink takes what a parser has understood, piece by piece.
type sink interface {
	// print draws a character: never a control, U+FFFD for bytes that are not
	// UTF-8.
	print(r rune)
	// text draws printable ASCII. It is valid until the call returns.
	text(b []byte)
	// control is a C0 control other than those that begin or cancel sequences.
	control(c byte)
	// escape is ESC, perhaps an intermediate byte, and a final byte.
	escape(inter, final byte)
	// sequence is a control sequence. It is valid until the call returns.
	sequence(s *sequence)
	// omitted tells that a string with so many bytes, at least one, was left
	// out.
	omitted(n int)
}

// sequence is CSI, a private prefix (one of <=>?) or 0, parameters as they came
// (digits, ';' and ':'), an intermediate byte or 0, and a final byte.
type sequence struct {
	prefix byte
	params []byte
	inter  byte
	final  byte
}

// parser splits what is meant for a terminal (ECMA-48, and the states of DEC's
// VT500) into characters, controls and sequences. Strings (OSC, DCS, APC, PM,
// SOS, and screen's ESC k) are left out: no sink has a use for them. Sequences
// may be split anywhere between calls of write.
//
// Two things differ from most terminals, so that nothing hides from a reviewer
// in a string that never ends: a control ends a string, and there are no
// 8-bit controls but in UTF-8.
type parser struct {
	sink  sink
	state parserState
	// seq is the sequence being read, bad says that it is not one to pass on.
	seq   sequence
	bad   bool
	inter byte
	rune  [utf8.UTFMax]byte
	have  int
	// c2 says that the byte before, inside a string, was 0xC2: it begins the
	// UTF-8 form of the string terminator.
	c2 bool
	// omitted counts the bytes of the string that is being left out.
	omitted int
}

type parserState byte

const (
	ground parserState = iota
	escaped
	inSequence
	inString
)

// maxParams bounds the parameters of a sequence, in bytes. Longer sequences
// are left out.
const maxParams = 128

const (
	bel = 0x07
	lf  = 0x0a
	cr  = 0x0d
	can = 0x18
	sub = 0x1a
	esc = 0x1b
	del = 0x7f
)

func (p *parser) write(b []byte) {
	for len(b) > 0 {
		n := 0
		if p.state == ground && p.have == 0 {
			for n < len(b) && b[n] >= 0x20 && b[n] < del {
				n++
			}
		}
		if n > 0 {
			p.sink.text(b[:n])
			b = b[n:]
			continue
		}
		p.step(b[0])
		b = b[1:]
	}
}

func (p *parser) step(c byte) {
	if p.state != inString {
		p.take(c)
		return
	}
	if p.take(c); p.state == inString {
		p.omitted++
	} else {
		p.tell()
	}
}

// tell tells of the string that was left out.
func (p *parser) tell() {
	if p.omitted > 0 {
		p.sink.omitted(p.omitted)
		p.omitted = 0
	}
}

// take takes a byte of any kind.
func (p *parser) take(c byte) {
	if c >= 0x80 && p.state != inString {
		p.abort()
		p.high(c)
		return
	}
	if c >= 0x80 {
		if p.c2 && c == 0x9c {
			p.state = ground
		}
		p.c2 = c == 0xc2
		return
	}
	p.flush()
	p.c2 = false
	switch {
	case c == esc:
		p.state, p.inter, p.bad = escaped, 0, false
	case c == can || c == sub:
		p.state = ground
	case c < 0x20:
		p.c0(c)
	case c == del:
	case p.state == ground:
		p.sink.print(rune(c))
	case p.state == escaped:
		p.escape(c)
	case p.state == inSequence:
		p.csi(c)
	}
}

// c0 carries a control out, also inside of a sequence, as terminals do. NUL
// is padding.
func (p *parser) c0(c byte) {
	if c == 0 {
		return
	}
	if p.state == inString {
		p.state = ground
		if c == bel {
			return
		}
	}
	p.sink.control(c)
}

func (p *parser) escape(c byte) {
	if c <= 0x2f {
		if p.inter != 0 {
			p.bad = true
		}
		p.inter = c
		return
	}
	p.state = ground
	if p.inter != 0 {
		if !p.bad {
			p.sink.escape(p.inter, c)
		}
		return
	}
	switch c {
	case '[':
		p.state, p.bad = inSequence, false
		p.seq = sequence{params: p.seq.params[:0]}
	case ']', 'P', 'X', '^', '_', 'k':
		p.state = inString
	default:
		p.sink.escape(0, c)
	}
}

func (p *parser) csi(c byte) {
	switch {
	case c >= 0x40:
		p.state = ground
		if !p.bad {
			p.seq.final = c
			p.sink.sequence(&p.seq)
		}
	case c <= 0x2f:
		p.bad = p.bad || p.seq.inter != 0
		p.seq.inter = c
	case p.seq.inter != 0:
		p.bad = true
	case c >= '<':
		p.bad = p.bad || p.seq.prefix != 0 || len(p.seq.params) > 0
		p.seq.prefix = c
	case len(p.seq.params) == maxParams:
		p.bad = true
	default:
		p.seq.params = append(p.seq.params, c)
	}
}

// abort gives up a sequence that a byte has broken which cannot be in one.
func (p *parser) abort() {
	if p.state != inString {
		p.state = ground
	}
}

// high takes a byte of a character of several bytes.
func (p *parser) high(c byte) {
	p.rune[p.have] = c
	p.have++
	if !utf8.FullRune(p.rune[:p.have]) {
		return
	}
	r, size := utf8.DecodeRune(p.rune[:p.have])
	switch {
	case r != utf8.RuneError || size > 1:
		p.have = 0
		p.print(r)
	case p.have == 1:
		p.have = 0
		p.sink.print(utf8.RuneError)
	default:
		// What came before was a good beginning that c doesn't go on with.
		p.have = 0
		p.sink.print(utf8.RuneError)
		p.high(c)
	}
}

// print takes a character of several bytes. The controls among them are the
// 8-bit forms of ESC and a letter.
func (p *parser) print(r rune) {
	if r >= 0x80 && r < 0xa0 {
		p.state, p.inter, p.bad = escaped, 0, false
		p.escape(byte(r) - 0x40)
		return
	}
	p.sink.print(r)
}

// flush shows a character that was never finished.
func (p *parser) flush() {
	if p.have > 0 {
		p.have = 0
		p.sink.print(utf8.RuneError)
	}
}

// end tells of all that was never finished.
func (p *parser) end() {
	p.flush()
	p.tell()
}
