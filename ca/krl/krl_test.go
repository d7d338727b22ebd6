package krl

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

func newSigner(t testing.TB) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newCertificate(t testing.TB, ca ssh.Signer, key ssh.PublicKey, serial uint64, id string, principals ...string) *ssh.Certificate {
	t.Helper()
	cert := &ssh.Certificate{
		Key: key, Serial: serial, CertType: ssh.UserCert, KeyId: id, ValidPrincipals: principals,
		ValidBefore: ssh.CertTimeInfinity,
	}
	if err := cert.SignCert(rand.Reader, ca); err != nil {
		t.Fatal(err)
	}
	return cert
}

func mustParse(t testing.TB, b *Builder) *List {
	t.Helper()
	data, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	l, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestRevoked(t *testing.T) {
	ca, other := newSigner(t), newSigner(t)
	key := newSigner(t).PublicKey()
	cert := newCertificate(t, ca, key, 7, "joe")
	none := newCertificate(t, ca, key, 0, "joe")
	nested := *cert
	nested.SignatureKey = cert
	for _, test := range []struct {
		name  string
		build func(*Builder) error
		// What is revoked: the key, the certificate, the one with serial 0.
		key, cert, none bool
	}{
		{"nothing", func(*Builder) error { return nil }, false, false, false},
		{"key", func(b *Builder) error { return b.Key(key) }, true, true, true},
		{"key by its certificate", func(b *Builder) error { return b.Key(cert) }, true, true, true},
		{"sha1", func(b *Builder) error { return b.SHA1(key) }, true, true, true},
		{"sha256", func(b *Builder) error { return b.SHA256(cert) }, true, true, true},
		{"key of the CA", func(b *Builder) error { return b.Key(ca.PublicKey()) }, false, true, true},
		{"hash of the CA", func(b *Builder) error { return b.SHA256(ca.PublicKey()) }, false, true, true},
		{"key of another CA", func(b *Builder) error { return b.Key(other.PublicKey()) }, false, false, false},
		{"serial", func(b *Builder) error { return b.Serial(ca.PublicKey(), 7) }, false, true, false},
		{"serial of any CA", func(b *Builder) error { return b.Serial(nil, 7) }, false, true, false},
		{"serial of another CA", func(b *Builder) error { return b.Serial(other.PublicKey(), 7) }, false, false, false},
		{"range", func(b *Builder) error { return b.SerialRange(ca.PublicKey(), 1, math.MaxUint64) }, false, true, false},
		{"range beside", func(b *Builder) error { return b.SerialRange(ca.PublicKey(), 8, 900) }, false, false, false},
		{"key ID", func(b *Builder) error { return b.KeyID(ca.PublicKey(), "joe") }, false, true, true},
		{"key ID of any CA", func(b *Builder) error { return b.KeyID(nil, "joe") }, false, true, true},
		{"key ID of another CA", func(b *Builder) error { return b.KeyID(other.PublicKey(), "joe") }, false, false, false},
		{"key ID in another case", func(b *Builder) error { return b.KeyID(nil, "Joe") }, false, false, false},
		{"certificate", func(b *Builder) error { return b.Certificate(cert) }, false, true, false},
		{"certificate without serial", func(b *Builder) error { return b.Certificate(none) }, false, true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			var b Builder
			if err := test.build(&b); err != nil {
				t.Fatal(err)
			}
			l := mustParse(t, &b)
			if got := l.Revoked(key); got != test.key {
				t.Errorf("key revoked: %v", got)
			}
			if got := l.Revoked(cert); got != test.cert {
				t.Errorf("certificate revoked: %v", got)
			}
			if got := l.Revoked(none); got != test.none {
				t.Errorf("certificate with serial 0 revoked: %v", got)
			}
			if l.Empty() != (test.name == "nothing") {
				t.Errorf("empty: %v", l.Empty())
			}
			for _, bad := range []ssh.PublicKey{nil, (*ssh.Certificate)(nil), &ssh.Certificate{}, &nested} {
				if !l.Revoked(bad) {
					t.Errorf("%T that is none is not revoked", bad)
				}
			}
		})
	}
	if (*List)(nil).Revoked(key) || !(*List)(nil).Empty() {
		t.Error("no list revokes something")
	}
}

func TestBuilderRefuses(t *testing.T) {
	ca := newSigner(t)
	cert := newCertificate(t, ca, ca.PublicKey(), 1, "x")
	var b Builder
	for want, err := range map[string]error{
		"revoking serials: serial 0 can't be revoked":                                 b.Serial(ca.PublicKey(), 0),
		"revoking serials: range from 9 to 8":                                         b.SerialRange(nil, 9, 8),
		"revoking serials: the CA is given as a certificate, not as a key":            b.Serial(cert, 1),
		`revoking key ID "a\x00b": NUL inside`:                                        b.KeyID(nil, "a\x00b"),
		`revoking key ID "joe": the CA is given as a certificate, not as a key`:       b.KeyID(cert, "joe"),
		"revoking key: none is given":                                                 b.Key(nil),
		"revoking certificate: it has no CA":                                          b.Certificate(&ssh.Certificate{}),
		"writing revocation list: NUL inside the comment":                             failure((&Builder{Comment: "\x00"}).Marshal()),
		"writing revocation list: made before 1970, at 1969-12-31 23:59:59 +0000 UTC": failure((&Builder{Generated: time.Unix(-1, 0).UTC()}).Marshal()),
	} {
		if err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

func failure(_ []byte, err error) error { return err }

// TestMarshalIsDeterministic: the order in which things are revoked, and how
// often, makes no difference.
func TestMarshalIsDeterministic(t *testing.T) {
	ca, other := newSigner(t).PublicKey(), newSigner(t).PublicKey()
	steps := []func(*Builder) error{
		func(b *Builder) error { return b.Serial(ca, 1<<40) },
		func(b *Builder) error { return b.SerialRange(ca, 100, 1000) },
		func(b *Builder) error { return b.SerialRange(ca, 900, 2000) },
		func(b *Builder) error { return b.Serial(other, 3) },
		func(b *Builder) error { return b.KeyID(nil, "a") },
		func(b *Builder) error { return b.KeyID(nil, "b") },
		func(b *Builder) error { return b.Key(ca) },
		func(b *Builder) error { return b.Key(other) },
		func(b *Builder) error { return b.SHA1(ca) },
		func(b *Builder) error { return b.SHA256(other) },
	}
	build := func(steps []func(*Builder) error) []byte {
		b := Builder{Version: 3, Generated: time.Unix(1e9, 0), Comment: "c"}
		for _, s := range steps {
			if err := s(&b); err != nil {
				t.Fatal(err)
			}
		}
		data, err := b.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := b.Marshal(); err != nil || !bytes.Equal(data, again) {
			t.Fatalf("a second call gives other bytes: %v", err)
		}
		return data
	}
	want := build(steps)
	backwards := slices.Clone(steps)
	slices.Reverse(backwards)
	if got := build(append(backwards, steps...)); !bytes.Equal(got, want) {
		t.Errorf("another order gives other bytes:\n%x\n%x", want, got)
	}
	l, err := Parse(want)
	if err != nil {
		t.Fatal(err)
	}
	if l.Version() != 3 || l.Comment() != "c" || !l.Generated().Equal(time.Unix(1e9, 0)) {
		t.Errorf("header: %d %q %v", l.Version(), l.Comment(), l.Generated())
	}
	if got := marshal(t, l.Builder()); !bytes.Equal(got, want) {
		t.Errorf("a builder from the list gives other bytes:\n%x\n%x", want, got)
	}
}

func marshal(t *testing.T, b *Builder) []byte {
	t.Helper()
	data, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestSerialsStaySmall: what is written is near the fewest bytes.
func TestSerialsStaySmall(t *testing.T) {
	for _, test := range []struct {
		name   string
		serial func(i uint64) uint64
		n      uint64
		most   int // bytes in all; 57 of them are the same for every list
	}{
		{"one", func(i uint64) uint64 { return 5 }, 1, 75},
		{"a run", func(i uint64) uint64 { return i + 5 }, 100000, 90},
		{"every second", func(i uint64) uint64 { return 2*i + 1 }, 100000, 27000},
		{"far apart", func(i uint64) uint64 { return i<<40 + 9 }, 1000, 8100},
		{"up to the last", func(i uint64) uint64 { return math.MaxUint64 - 3*i }, 1000, 600},
	} {
		t.Run(test.name, func(t *testing.T) {
			var b Builder
			for i := range test.n {
				if err := b.Serial(nil, test.serial(i)); err != nil {
					t.Fatal(err)
				}
			}
			data := marshal(t, &b)
			if len(data) > test.most {
				t.Errorf("%d bytes, at most %d expected", len(data), test.most)
			}
			l, err := Parse(data)
			if err != nil {
				t.Fatal(err)
			}
			for i := range test.n {
				if !contains(l.scopes[anyCA].serials, test.serial(i)) {
					t.Fatalf("serial %d is not in it", test.serial(i))
				}
			}
			if got, want := l.scopes[anyCA].serials, merge(b.content.scopes[anyCA].serials); !slices.Equal(got, want) {
				t.Errorf("%d ranges, want %d", len(got), len(want))
			}
		})
	}
}

// raw makes a list by hand.
func raw(sections ...[]byte) []byte {
	out := []byte(magic)
	out = binary.BigEndian.AppendUint32(out, formatVersion)
	out = append(out, make([]byte, 24+4)...)
	out = appendString(out, []byte("by hand"))
	return append(out, bytes.Join(sections, nil)...)
}

// certificates makes a section for any CA by hand.
func certificates(kind byte, body []byte) []byte {
	return appendSection(nil, sectionCertificates, appendSection(make([]byte, 8), kind, body))
}

func numbers(n ...uint64) (out []byte) {
	for _, n := range n {
		out = binary.BigEndian.AppendUint64(out, n)
	}
	return out
}

func extension(critical byte) []byte {
	out := append(appendString(nil, []byte("new@example.com")), critical)
	return appendString(out, []byte("contents"))
}

func TestParseRefuses(t *testing.T) {
	ok := certificates(certSerialList, numbers(1))
	key := string(ssh.MarshalAuthorizedKey(newSigner(t).PublicKey()))
	for _, test := range []struct {
		name string
		data []byte
		want string
	}{
		{"too large", make([]byte, MaxSize+1), "33554433 bytes are more than 33554432"},
		{"mark only", []byte(magic), "ends in the middle"},
		{"other format", bytes.Replace(raw(), []byte{0, 0, 0, 1}, []byte{0, 0, 0, 2}, 1), "format 2 is not known"},
		{"NUL in comment", bytes.Replace(raw(), []byte("by hand"), []byte("by\x00hand"), 1), "comment: NUL inside a text"},
		{"unknown section", raw(appendSection(nil, 9, nil)), "section 1, of type 9: not known"},
		{"signature", raw(ok, appendSection(nil, sectionSignature, nil)), "section 2, of type 4: signed lists are not supported"},
		{"critical extension", raw(appendSection(nil, sectionExtension, extension(1))), `critical extension "new@example.com" is not known`},
		{"extension with more", raw(appendSection(nil, sectionExtension, append(extension(0), 0))), "1 bytes are left over"},
		{"critical certificate extension", raw(certificates(certExtension, extension(1))), `type 0x39: critical extension "new@example.com" is not known`},
		{"unknown certificate section", raw(certificates(0x40, nil)), "certificate section of type 0x40: not known"},
		{"half a serial", raw(certificates(certSerialList, make([]byte, 7))), "ends in the middle"},
		{"serial 0", raw(certificates(certSerialList, numbers(0))), "serial 0 can't be revoked"},
		{"range backwards", raw(certificates(certSerialRange, numbers(2, 1))), "range from 2 to 1"},
		{"two ranges", raw(certificates(certSerialRange, numbers(1, 2, 3, 4))), "16 bytes are left over"},
		{"bitmap with serial 0", raw(certificates(certSerialBitmap, appendString(numbers(0), []byte{1}))), "serial 0 can't be revoked"},
		{"bitmap beyond the end", raw(certificates(certSerialBitmap, appendString(numbers(math.MaxUint64), []byte{2}))), "bitmap beyond the last serial"},
		{"negative bitmap", raw(certificates(certSerialBitmap, appendString(numbers(1), []byte{0x80}))), "negative bitmap"},
		{"huge bitmap", raw(certificates(certSerialBitmap, appendString(numbers(1), make([]byte, 2050)))), "bitmap of 2050 bytes is more than 2048"},
		{"NUL in key ID", raw(certificates(certKeyID, appendString(nil, []byte("a\x00b")))), "NUL inside a text"},
		{"short SHA-1", raw(appendSection(nil, sectionSHA1, appendString(nil, make([]byte, 19)))), "SHA-1 hash of 19 bytes"},
		{"long SHA-256", raw(appendSection(nil, sectionSHA256, appendString(nil, make([]byte, 33)))), "SHA-256 hash of 33 bytes"},
		{"CA that is no key", raw(appendSection(nil, sectionCertificates, appendString(appendString(nil, []byte("x")), nil))), "key of the CA: "},
		{"length beyond the end", append(raw(), 1, 0xff, 0xff, 0xff, 0xff), "ends in the middle"},

		{"text: garbage", []byte("garbage"), "line 1: neither a public key nor a binary list"},
		{"text: damaged line", []byte(key + "ssh-ed25519 AAAA\n"), "line 2: public key: "},
		{"text: option", []byte("cert-authority " + key), "line 1: public key: "},
		{"text: other type", []byte(strings.Replace(key, "ssh-ed25519", "ssh-rsa", 1)), `says that it is "ssh-rsa" and is "ssh-ed25519"`},
		{"text: empty line of another system", []byte(key + "\r\n" + key), "line 2: neither"},
		{"text: NUL", []byte(strings.Replace(key, "\n", " \x00\n", 1)), "line 1: NUL in a line"},
		{"text: byte order mark", []byte("\ufeff" + key), `says that it is "\ufeffssh-ed25519"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, err := Parse(test.data)
			if err == nil || l != nil || !strings.HasPrefix(err.Error(), "reading revocation list: ") || !strings.Contains(err.Error(), test.want) {
				t.Errorf("list %v, error %v, want %s", l, err, test.want)
			}
		})
	}
}

// TestParseBombs: a list that unfolds to more than its bytes is refused before
// it takes all memory.
func TestParseBombs(t *testing.T) {
	bits := bytes.Repeat([]byte{0x55}, maxBignum)
	one := appendSection(nil, certSerialBitmap, appendString(numbers(1), bits))
	body := append(make([]byte, 8), bytes.Repeat(one, maxRanges/len(bits)/4+1)...)
	_, err := Parse(raw(appendSection(nil, sectionCertificates, body)))
	if err == nil || !strings.Contains(err.Error(), "more than 4194304 separate serials") {
		t.Error(err)
	}
}

func TestParseTakes(t *testing.T) {
	ca := newSigner(t)
	cert := newCertificate(t, ca, newSigner(t).PublicKey(), 5, "joe")
	for name, data := range map[string][]byte{
		"extension":               raw(appendSection(nil, sectionExtension, extension(0)), certificates(certSerialList, numbers(5))),
		"certificate extension":   raw(certificates(certExtension, extension(0)), certificates(certSerialList, numbers(5))),
		"zeros before a bitmap":   raw(certificates(certSerialBitmap, appendString(numbers(4), []byte{0, 0, 0, 2}))),
		"NUL after a key ID":      raw(certificates(certKeyID, appendString(nil, []byte("joe\x00")))),
		"overlapping, not sorted": raw(certificates(certSerialRange, numbers(4, 9)), certificates(certSerialList, numbers(7, 1))),
		"text":                    slices.Concat([]byte("# gone\n\n \t# too\n  "), ssh.MarshalAuthorizedKey(cert.Key)),
		"text without newline":    bytes.TrimSpace(ssh.MarshalAuthorizedKey(cert.Key)),
		"text with \\r":           bytes.ReplaceAll(ssh.MarshalAuthorizedKey(cert.Key), []byte("\n"), []byte("\r\n")),
		"text with tabs":          bytes.ReplaceAll(ssh.MarshalAuthorizedKey(cert.Key), []byte(" "), []byte("\t \t")),
		"text with the CA":        ssh.MarshalAuthorizedKey(ca.PublicKey()),
		"text with certificate":   ssh.MarshalAuthorizedKey(cert),
	} {
		t.Run(name, func(t *testing.T) {
			l, err := Parse(data)
			if err != nil {
				t.Fatal(err)
			}
			if !l.Revoked(cert) {
				t.Error("the certificate is not revoked")
			}
			if l.Revoked(newCertificate(t, newSigner(t), newSigner(t).PublicKey(), 6, "sue")) != (name == "overlapping, not sorted") {
				t.Error("another certificate is taken for it")
			}
		})
	}
	if l, err := Parse(nil); err != nil || !l.Empty() {
		t.Errorf("an empty file: %v %v", l, err)
	}
}

func TestShortRSAKeysArePassedOver(t *testing.T) {
	t.Setenv("GODEBUG", "rsa1024min=0")
	short, err := rsa.GenerateKey(rand.Reader, 1016)
	if err != nil {
		t.Fatal(err)
	}
	shortKey, err := ssh.NewPublicKey(&short.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	key := newSigner(t).PublicKey()
	l, err := Parse(append(ssh.MarshalAuthorizedKey(shortKey), ssh.MarshalAuthorizedKey(key)...))
	if err != nil {
		t.Fatal(err)
	}
	if !l.Revoked(key) || l.Revoked(shortKey) {
		t.Error("what follows a short RSA key doesn't count")
	}
}

func FuzzParse(f *testing.F) {
	ca := newSigner(f).PublicKey()
	var b Builder
	for i := range uint64(40) {
		if err := b.Serial(ca, 1+3*i); err != nil {
			f.Fatal(err)
		}
	}
	for _, err := range []error{
		b.SerialRange(nil, 1<<20, 1<<30), b.Serial(nil, 1<<50), b.KeyID(ca, "joe"),
		b.Key(ca), b.SHA1(ca), b.SHA256(ca),
	} {
		if err != nil {
			f.Fatal(err)
		}
	}
	full, err := b.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{
		nil, full, raw(), ssh.MarshalAuthorizedKey(ca), []byte("# nothing\n"),
		raw(certificates(certSerialBitmap, appendString(numbers(math.MaxUint64-7), []byte{0, 0x80}))),
		raw(appendSection(nil, sectionExtension, extension(0))),
	} {
		if _, err := Parse(seed); err != nil {
			f.Errorf("seed %q does not load: %v", seed, err)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := Parse(data)
		if err != nil {
			return
		}
		l.Revoked(ca)
		out, err := l.Builder().Marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(out)
		if err != nil {
			t.Fatalf("what was written doesn't load: %v", err)
		}
		same(t, l, again)
	})
}

// same fails if two lists differ in anything but scopes that revoke nothing.
func same(t *testing.T, a, b *List) {
	t.Helper()
	if a.version != b.version || a.comment != b.comment || !a.Generated().Equal(b.Generated()) {
		t.Errorf("headers differ: %d %q %v, %d %q %v", a.version, a.comment, a.Generated(), b.version, b.comment, b.Generated())
	}
	equalSets(t, "keys", a.keys, b.keys)
	equalSets(t, "sha1s", a.sha1s, b.sha1s)
	equalSets(t, "sha256s", a.sha256s, b.sha256s)
	for _, l := range []*List{a, b} {
		for ca, s := range l.scopes {
			if len(s.serials)+len(s.ids) == 0 {
				delete(l.scopes, ca)
			}
		}
	}
	if len(a.scopes) != len(b.scopes) {
		t.Errorf("%d and %d scopes", len(a.scopes), len(b.scopes))
	}
	for ca, s := range a.scopes {
		other := b.scopes[ca]
		if other == nil {
			t.Errorf("scope %q is missing", ca)
			continue
		}
		if !slices.Equal(s.serials, other.serials) {
			t.Errorf("serials differ: %v, %v", s.serials, other.serials)
		}
		equalSets(t, "key IDs", s.ids, other.ids)
	}
}

func equalSets[K comparable](t *testing.T, what string, a, b map[K]struct{}) {
	t.Helper()
	if len(a) != len(b) {
		t.Errorf("%d and %d %s", len(a), len(b), what)
	}
	for k := range a {
		if _, ok := b[k]; !ok {
			t.Errorf("%s: %v is missing", what, k)
		}
	}
}
