package krl

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/testenv"
	"github.com/fleetca/fleetca/testenv/fleettest"
)

func write(t *testing.T, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func keygen(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "ssh-keygen", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ssh-keygen %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// asked is what ssh-keygen -Q says of each key, with the list in a file.
func asked(t *testing.T, list string, keys []ssh.PublicKey) []bool {
	t.Helper()
	dir := t.TempDir()
	args := []string{"-Q", "-f", list}
	for i, k := range keys {
		args = append(args, write(t, filepath.Join(dir, fmt.Sprintf("%04d.pub", i)), ssh.MarshalAuthorizedKey(k)))
	}
	out, err := exec.CommandContext(t.Context(), "ssh-keygen", args...).Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != len(keys) {
		t.Fatalf("%d answers for %d keys: %v\n%s", len(lines), len(keys), err, out)
	}
	revoked := make([]bool, len(keys))
	for i, line := range lines {
		switch {
		case strings.HasSuffix(line, ": REVOKED"):
			revoked[i] = true
		case !strings.HasSuffix(line, ": ok"):
			t.Fatalf("answer %q", line)
		}
	}
	return revoked
}

// world is a random set of CAs, keys and certificates.
type world struct {
	r     *rand.Rand
	cas   []ssh.Signer
	keys  []ssh.PublicKey
	asked []ssh.PublicKey
}

func newWorld(t *testing.T, r *rand.Rand) *world {
	w := &world{r: r}
	for range 3 {
		w.cas = append(w.cas, newSigner(t))
	}
	for range 12 {
		w.keys = append(w.keys, newSigner(t).PublicKey())
	}
	w.asked = append(w.asked, w.keys...)
	for _, ca := range w.cas {
		w.asked = append(w.asked, ca.PublicKey())
	}
	for range 150 {
		w.asked = append(w.asked, newCertificate(t, w.cas[r.IntN(3)], w.keys[r.IntN(len(w.keys))], w.serial(), w.id()))
	}
	return w
}

// serial returns a number that is often near others, and now and then at an end.
func (w *world) serial() uint64 {
	switch w.r.IntN(10) {
	case 0:
		return 0
	case 1:
		return math.MaxUint64 - w.r.Uint64N(40)
	case 2:
		return w.r.Uint64()
	default:
		return w.r.Uint64N(400)
	}
}

func (w *world) id() string { return fmt.Sprintf("person %d", w.r.IntN(40)) }

// revocation is one line of ssh-keygen's specification and the same for us.
type revocation struct {
	line  string
	apply func(b *Builder, ca ssh.PublicKey) error
}

// revocations are random; those of one CA, and others that have none.
func (w *world) revocations() (certs, keys []revocation) {
	for range w.r.IntN(60) {
		first := max(w.serial(), 1)
		switch w.r.IntN(5) {
		case 0:
			id := w.id()
			certs = append(certs, revocation{"id: " + id, func(b *Builder, ca ssh.PublicKey) error { return b.KeyID(ca, id) }})
		case 1:
			// ssh-keygen wants more than one in a range.
			first = min(first, math.MaxUint64-1)
			last := first + 1 + min(w.r.Uint64N(30), math.MaxUint64-1-first)
			certs = append(certs, revocation{fmt.Sprintf("serial: %d-%d", first, last), func(b *Builder, ca ssh.PublicKey) error {
				return b.SerialRange(ca, first, last)
			}})
		default:
			certs = append(certs, revocation{fmt.Sprintf("serial: %d", first), func(b *Builder, ca ssh.PublicKey) error { return b.Serial(ca, first) }})
		}
	}
	for range w.r.IntN(4) {
		key := w.keys[w.r.IntN(len(w.keys))]
		if w.r.IntN(12) == 0 {
			key = w.cas[w.r.IntN(3)].PublicKey()
		}
		text := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
		switch w.r.IntN(3) {
		case 0:
			keys = append(keys, revocation{"key: " + text, func(b *Builder, _ ssh.PublicKey) error { return b.Key(key) }})
		case 1:
			keys = append(keys, revocation{"sha1: " + text, func(b *Builder, _ ssh.PublicKey) error { return b.SHA1(key) }})
		default:
			keys = append(keys, revocation{"sha256: " + text, func(b *Builder, _ ssh.PublicKey) error { return b.SHA256(key) }})
		}
	}
	return certs, keys
}

// TestSameAsSSHKeygen makes random lists twice, with ssh-keygen and with the
// builder, and asks ssh-keygen and this package about the same keys in each.
func TestSameAsSSHKeygen(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			w := newWorld(t, rand.New(rand.NewPCG(seed, 1)))
			dir := t.TempDir()
			theirs := filepath.Join(dir, "theirs")
			ours := Builder{Version: seed + 1, Generated: time.Unix(1e9, 0), Comment: "of the fleet"}
			for n, ca := range []ssh.PublicKey{nil, w.cas[0].PublicKey(), w.cas[1].PublicKey()} {
				certs, keys := w.revocations()
				var spec strings.Builder
				for _, r := range append(certs, keys...) {
					fmt.Fprintln(&spec, r.line)
					if err := r.apply(&ours, ca); err != nil {
						t.Fatal(err)
					}
				}
				args := []string{"-k", "-f", theirs, "-z", fmt.Sprint(seed + 1), "-C", "of the fleet", "-s", "none"}
				if ca != nil {
					args[len(args)-1] = write(t, filepath.Join(dir, "ca.pub"), ssh.MarshalAuthorizedKey(ca))
				}
				if n > 0 {
					args = append(args, "-u")
				}
				keygen(t, append(args, write(t, filepath.Join(dir, "spec"), []byte(spec.String())))...)
			}
			data, err := os.ReadFile(theirs)
			if err != nil {
				t.Fatal(err)
			}
			fromTheirs, err := Parse(data)
			if err != nil {
				t.Fatal(err)
			}
			fromTheirs.generated = 1e9
			fromOurs := mustParse(t, &ours)
			same(t, fromTheirs, fromOurs)

			mine := write(t, filepath.Join(dir, "mine"), marshal(t, &ours))
			inTheirs, inOurs := asked(t, theirs, w.asked), asked(t, mine, w.asked)
			number := 0
			for i, key := range w.asked {
				got := fromOurs.Revoked(key)
				if got {
					number++
				}
				if got != inTheirs[i] || got != inOurs[i] || got != fromTheirs.Revoked(key) {
					t.Errorf("key %d %T: revoked %v; by ssh-keygen %v in its list, %v in ours", i, key, got, inTheirs[i], inOurs[i])
				}
			}
			t.Logf("%d of %d revoked; ssh-keygen's list has %d bytes, ours %d", number, len(w.asked), len(data), len(marshal(t, &ours)))
		})
	}
}

// TestListingOfOurs: ssh-keygen shows what was put in.
func TestListingOfOurs(t *testing.T) {
	ca, key := newSigner(t).PublicKey(), newSigner(t).PublicKey()
	hash := sha256.Sum256(key.Marshal())
	b := Builder{Version: 42, Comment: "of the fleet", Generated: time.Unix(1e9, 0)}
	for _, err := range []error{
		b.Serial(ca, 5), b.SerialRange(ca, 100, 2000), b.KeyID(ca, "joe"), b.Key(key), b.SHA256(key), b.Serial(nil, math.MaxUint64),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	out := keygen(t, "-Q", "-l", "-f", write(t, filepath.Join(t.TempDir(), "krl"), marshal(t, &b)))
	for _, want := range []string{
		"# KRL version 42\n", "# Comment: of the fleet\n", "serial: 5\n", "serial: 100-2000\n", "id: joe\n",
		"serial: 18446744073709551615\n", "hash: " + ssh.FingerprintSHA256(key) + " # ssh-ed25519\n",
		"hash: SHA256:" + hex.EncodeToString(hash[:]) + "\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// TestDamageAsOpenSSH cuts and changes a list everywhere, and accepts exactly
// what ssh-keygen accepts.
func TestDamageAsOpenSSH(t *testing.T) {
	signer := newSigner(t)
	ca := signer.PublicKey()
	cert := newCertificate(t, signer, ca, 20, "joe")
	var b Builder
	for _, err := range []error{
		b.Serial(ca, 5), b.SerialRange(ca, 100, 2000), b.Serial(nil, 1), b.Serial(nil, 3), b.Serial(nil, 6), b.Serial(nil, 8),
		b.KeyID(ca, "joe"), b.Key(ca), b.SHA1(ca), b.SHA256(ca),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	data := marshal(t, &b)
	path := filepath.Join(t.TempDir(), "krl")
	pub := write(t, filepath.Join(t.TempDir(), "cert.pub"), ssh.MarshalAuthorizedKey(cert))
	compare := func(what string, data []byte) {
		t.Helper()
		l, err := Parse(data)
		ours := "refused"
		if err == nil {
			ours = fmt.Sprint("revoked ", l.Revoked(cert))
		}
		out, _ := exec.CommandContext(t.Context(), "ssh-keygen", "-Q", "-f", write(t, path, data), pub).CombinedOutput()
		theirs := "refused"
		switch {
		case bytes.Contains(out, []byte(": REVOKED\n")):
			theirs = "revoked true"
		case bytes.Contains(out, []byte(": ok\n")):
			theirs = "revoked false"
		}
		if ours != theirs {
			t.Errorf("%s: %s (%v), by ssh-keygen %s:\n%s", what, ours, err, theirs, out)
		}
	}
	compare("whole", data)
	for n := len(magic); n < len(data); n++ {
		compare(fmt.Sprint("cut at ", n), data[:n])
	}
	r := rand.New(rand.NewPCG(1, 2))
	for n := len(magic); n < len(data); n++ {
		damaged := bytes.Clone(data)
		damaged[n] ^= byte(1 + r.IntN(255))
		compare(fmt.Sprintf("byte %d from %d to %d", n, data[n], damaged[n]), damaged)
	}
}

// TestTextAsSSHD gives a real sshd plain lists and binary ones, and refuses
// exactly the logins that it refuses.
func TestTextAsSSHD(t *testing.T) {
	ca, other := newSigner(t), newSigner(t)
	dir := t.TempDir()
	cas := append(ssh.MarshalAuthorizedKey(ca.PublicKey()), ssh.MarshalAuthorizedKey(other.PublicKey())...)
	list := write(t, filepath.Join(dir, "revoked"), nil)
	fleet := fleettest.Start(t, testenv.Config{Host: testenv.HostConfig{
		KeyTypes: []string{testenv.Ed25519},
		Top:      "TrustedUserCAKeys " + write(t, filepath.Join(dir, "cas"), cas) + "\nRevokedKeys " + list,
	}})
	host := fleet.Hosts()[0]
	key, second := newSigner(t), newSigner(t)
	cert := newCertificate(t, ca, key.PublicKey(), 4, "joe", host.Login())
	certs := []*ssh.Certificate{
		cert,
		newCertificate(t, other, key.PublicKey(), 0, "sue", host.Login()),
		newCertificate(t, ca, second.PublicKey(), 5, "joe", host.Login()),
	}
	signers := []ssh.Signer{fleet.Signer()}
	for i, s := range []ssh.Signer{key, key, second} {
		c, err := ssh.NewCertSigner(certs[i], s)
		if err != nil {
			t.Fatal(err)
		}
		signers = append(signers, c)
	}
	line := func(k ssh.PublicKey) string { return string(ssh.MarshalAuthorizedKey(k)) }
	var b Builder
	for _, err := range []error{b.Serial(ca.PublicKey(), 4), b.KeyID(nil, "sue")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"empty":         "",
		"comments":      "# none\n\n",
		"key":           line(key.PublicKey()),
		"key with CRLF": strings.ReplaceAll(line(second.PublicKey()), "\n", "\r\n"),
		"blank CRLF":    line(key.PublicKey()) + "\r\n",
		"CA":            "  " + line(ca.PublicKey()) + "# more\n" + line(fleet.Signer().PublicKey()),
		"certificate":   line(cert),
		"garbage last":  "# all is lost\ngarbage\n",
		"option":        "cert-authority " + line(key.PublicKey()),
		"binary":        string(marshal(t, &b)),
		"damaged":       string(marshal(t, &b)[:60]),
	} {
		write(t, list, []byte(text))
		l, err := Parse([]byte(text))
		for i, s := range signers {
			want := err != nil || l.Revoked(s.PublicKey())
			c, dialed := ssh.Dial("tcp", host.Addr(), &ssh.ClientConfig{
				User: host.Login(), Auth: []ssh.AuthMethod{ssh.PublicKeys(s)},
				HostKeyCallback:   ssh.FixedHostKey(host.PublicKeys()[0]),
				HostKeyAlgorithms: []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoRSASHA256},
			})
			if dialed == nil {
				c.Close()
			} else if !strings.Contains(dialed.Error(), "unable to authenticate") {
				t.Fatal(dialed)
			}
			if (dialed != nil) != want {
				t.Errorf("list %q, signer %d: revoked %v (%v); sshd: %v", name, i, want, err, dialed)
			}
		}
	}
}

// TestLongBitmaps: OpenSSH reads bitmaps of at most 16,384 bits, so that more
// must be split.
func TestLongBitmaps(t *testing.T) {
	var b Builder
	for serial := uint64(1); serial < 1e5; serial += 2 {
		if err := b.Serial(nil, serial); err != nil {
			t.Fatal(err)
		}
	}
	out := keygen(t, "-Q", "-l", "-f", write(t, filepath.Join(t.TempDir(), "krl"), marshal(t, &b)))
	if n := strings.Count(out, "serial: "); n != 5e4 || !strings.Contains(out, "serial: 99999\n") {
		t.Errorf("ssh-keygen lists %d serials", n)
	}
}
