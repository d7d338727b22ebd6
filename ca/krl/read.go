package krl

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/crypto/ssh"
)

// The numbers of PROTOCOL.krl.
const (
	magic         = "SSHKRL\n\x00"
	formatVersion = 1

	sectionCertificates = 1
	sectionKeys         = 2
	sectionSHA1         = 3
	sectionSignature    = 4
	sectionSHA256       = 5
	sectionExtension    = 255

	certSerialList   = 0x20
	certSerialRange  = 0x21
	certSerialBitmap = 0x22
	certKeyID        = 0x23
	certExtension    = 0x39
)

// maxBignum is the most bytes of a big number that OpenSSH reads.
const maxBignum = 2048

var errShort = errors.New("ends in the middle")

// Parse reads a binary list or, as sshd does if there is no binary list's mark
// at the beginning, a text with one public key a line. An empty file is an empty
// text, which revokes nothing.
func Parse(data []byte) (*List, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("reading revocation list: %d bytes are more than %d", len(data), MaxSize)
	}
	l := &List{newContent()}
	var err error
	if rest, ok := bytes.CutPrefix(data, []byte(magic)); ok {
		err = l.read(rest)
	} else {
		err = l.readText(data)
	}
	if err != nil {
		return nil, fmt.Errorf("reading revocation list: %w", err)
	}
	return l, nil
}

// read reads what follows the mark.
func (l *List) read(data []byte) error {
	r := reader{data}
	if v, err := r.uint32(); err != nil {
		return err
	} else if v != formatVersion {
		return fmt.Errorf("format %d is not known", v)
	}
	var err error
	if l.version, err = r.uint64(); err != nil {
		return err
	}
	if l.generated, err = r.uint64(); err != nil {
		return err
	}
	// Flags and a reserved string, which OpenSSH passes over as well.
	if _, err = r.uint64(); err != nil {
		return err
	}
	if _, err = r.string(); err != nil {
		return err
	}
	if l.comment, err = r.cstring(); err != nil {
		return fmt.Errorf("comment: %w", err)
	}
	ranges := 0
	for n := 1; len(r.data) > 0; n++ {
		kind, body, err := r.section()
		if err == nil {
			err = l.readSection(kind, body, &ranges)
		}
		if err != nil {
			return fmt.Errorf("section %d, of type %d: %w", n, kind, err)
		}
	}
	for _, s := range l.scopes {
		s.serials = merge(s.serials)
	}
	return nil
}

func (l *List) readSection(kind byte, body reader, ranges *int) error {
	switch kind {
	case sectionCertificates:
		return l.readCertificates(body, ranges)
	case sectionKeys, sectionSHA1, sectionSHA256:
		for len(body.data) > 0 {
			blob, err := body.string()
			if err != nil {
				return err
			}
			if err := l.addBlob(kind, blob); err != nil {
				return err
			}
		}
		return nil
	case sectionExtension:
		return readExtension(body)
	case sectionSignature:
		return errors.New("signed lists are not supported, as in OpenSSH 9.4 and later")
	default:
		return errors.New("not known")
	}
}

func (l *List) addBlob(kind byte, blob []byte) error {
	switch kind {
	case sectionKeys:
		l.keys[string(blob)] = struct{}{}
	case sectionSHA1:
		if len(blob) != 20 {
			return fmt.Errorf("SHA-1 hash of %d bytes", len(blob))
		}
		l.sha1s[[20]byte(blob)] = struct{}{}
	case sectionSHA256:
		if len(blob) != 32 {
			return fmt.Errorf("SHA-256 hash of %d bytes", len(blob))
		}
		l.sha256s[[32]byte(blob)] = struct{}{}
	}
	return nil
}

// readExtension passes over an extension that isn't critical. OpenSSH has
// extensions since 9.4 and knows none.
func readExtension(r reader) error {
	name, err := r.cstring()
	if err != nil {
		return err
	}
	critical, err := r.byte()
	if err != nil {
		return err
	}
	if _, err := r.string(); err != nil {
		return err
	}
	if critical != 0 {
		return fmt.Errorf("critical extension %q is not known", name)
	}
	return r.end()
}

func (l *List) readCertificates(r reader, ranges *int) error {
	blob, err := r.string()
	if err != nil {
		return err
	}
	if _, err := r.string(); err != nil { // reserved
		return err
	}
	ca := anyCA
	if len(blob) > 0 {
		// Written again, since keys are compared and not the bytes they came in.
		key, err := ssh.ParsePublicKey(blob)
		if err != nil {
			return fmt.Errorf("key of the CA: %w", err)
		}
		ca = string(key.Marshal())
	}
	s := l.scope(ca)
	for len(r.data) > 0 {
		kind, body, err := r.section()
		if err == nil {
			before := len(s.serials)
			err = s.readSection(kind, body)
			if *ranges += len(s.serials) - before; *ranges > maxRanges {
				err = fmt.Errorf("more than %d separate serials", maxRanges)
			}
		}
		if err != nil {
			return fmt.Errorf("certificate section of type 0x%02x: %w", kind, err)
		}
	}
	return nil
}

func (s *scope) readSection(kind byte, r reader) error {
	switch kind {
	case certSerialList:
		for len(r.data) > 0 {
			serial, err := r.uint64()
			if err != nil {
				return err
			}
			if err := s.add(serial, serial); err != nil {
				return err
			}
		}
	case certSerialRange:
		first, err := r.uint64()
		if err != nil {
			return err
		}
		last, err := r.uint64()
		if err != nil {
			return err
		}
		if err := s.add(first, last); err != nil {
			return err
		}
	case certSerialBitmap:
		first, err := r.uint64()
		if err != nil {
			return err
		}
		number, err := r.bignum()
		if err != nil {
			return err
		}
		if err := s.addBitmap(first, number); err != nil {
			return err
		}
	case certKeyID:
		for len(r.data) > 0 {
			id, err := r.cstring()
			if err != nil {
				return err
			}
			s.ids[id] = struct{}{}
		}
	case certExtension:
		return readExtension(r)
	default:
		return errors.New("not known")
	}
	return r.end()
}

// add revokes serials, under the conditions of
// ssh_krl_revoke_cert_by_serial_range.
func (s *scope) add(first, last uint64) error {
	if first == 0 {
		return errors.New("serial 0 can't be revoked")
	}
	if first > last {
		return fmt.Errorf("range from %d to %d", first, last)
	}
	s.serials = append(s.serials, serialRange{first, last})
	return nil
}

// addBitmap revokes first+n for each bit n of the big-endian number.
func (s *scope) addBitmap(first uint64, number []byte) error {
	number = bytes.TrimLeft(number, "\x00")
	if len(number) == 0 {
		return nil
	}
	top := uint64(len(number)-1)*8 + uint64(bits.Len8(number[0])) - 1
	if first+top < first {
		return errors.New("bitmap beyond the last serial")
	}
	set := func(n uint64) bool { return number[len(number)-1-int(n/8)]>>(n%8)&1 == 1 }
	for n := uint64(0); n <= top; n++ {
		if !set(n) {
			continue
		}
		from := n
		for n < top && set(n+1) {
			n++
		}
		if err := s.add(first+from, first+n); err != nil {
			return err
		}
	}
	return nil
}

// reader takes values in the wire format of RFC 4251 §5 off a list.
type reader struct{ data []byte }

func (r *reader) take(n int) ([]byte, error) {
	if n > len(r.data) {
		return nil, errShort
	}
	b := r.data[:n]
	r.data = r.data[n:]
	return b, nil
}

func (r *reader) byte() (byte, error) {
	b, err := r.take(1)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

func (r *reader) uint32() (uint32, error) {
	b, err := r.take(4)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint32(b), nil
}

func (r *reader) uint64() (uint64, error) {
	b, err := r.take(8)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(b), nil
}

func (r *reader) string() ([]byte, error) {
	n, err := r.uint32()
	if err != nil {
		return nil, err
	}
	if uint64(n) > uint64(len(r.data)) {
		return nil, errShort
	}
	return r.take(int(n))
}

// cstring reads text as sshbuf_get_cstring does: one NUL may end it, none may
// be inside.
func (r *reader) cstring() (string, error) {
	b, err := r.string()
	if err != nil {
		return "", err
	}
	b = bytes.TrimSuffix(b, []byte{0})
	if bytes.IndexByte(b, 0) >= 0 {
		return "", errors.New("NUL inside a text")
	}
	return string(b), nil
}

// bignum reads a number that isn't negative, under the conditions of
// sshbuf_get_bignum2_bytes_direct.
func (r *reader) bignum() ([]byte, error) {
	b, err := r.string()
	switch {
	case err != nil:
		return nil, err
	case len(b) > 0 && b[0]&0x80 != 0:
		return nil, errors.New("negative bitmap")
	case len(b) > maxBignum+1, len(b) == maxBignum+1 && b[0] != 0:
		return nil, fmt.Errorf("bitmap of %d bytes is more than %d", len(b), maxBignum)
	}
	return b, nil
}

func (r *reader) section() (kind byte, body reader, err error) {
	if kind, err = r.byte(); err != nil {
		return 0, reader{}, err
	}
	b, err := r.string()
	return kind, reader{b}, err
}

// end refuses what is left over.
func (r *reader) end() error {
	if len(r.data) > 0 {
		return fmt.Errorf("%d bytes are left over", len(r.data))
	}
	return nil
}
