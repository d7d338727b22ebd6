package trust_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca/trust"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

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

// makeCert signs a certificate that is good unless change makes it otherwise.
func makeCert(t testing.TB, authority ssh.Signer, certType uint32, principals []string, change func(*ssh.Certificate)) *ssh.Certificate {
	t.Helper()
	c := &ssh.Certificate{
		Key: newSigner(t).PublicKey(), Serial: 7, CertType: certType, KeyId: "id", ValidPrincipals: principals,
		ValidAfter: uint64(noon.Add(-time.Minute).Unix()), ValidBefore: uint64(noon.Add(time.Hour).Unix()),
	}
	if change != nil {
		change(c)
	}
	if err := c.SignCert(rand.Reader, authority); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestHostCertificate(t *testing.T) {
	hostCA, other := newSigner(t), newSigner(t)
	cas := []ssh.PublicKey{other.PublicKey(), hostCA.PublicKey()}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaSigner, err := ssh.NewSignerFromKey(rsaKey)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := ssh.NewSignerWithAlgorithms(rsaSigner.(ssh.AlgorithmSigner), []string{ssh.KeyAlgoRSA})
	if err != nil {
		t.Fatal(err)
	}
	host := func(principals []string, change func(*ssh.Certificate)) *ssh.Certificate {
		return makeCert(t, hostCA, ssh.HostCert, principals, change)
	}
	nested := host([]string{"web1"}, nil)
	spoiled := host([]string{"web1"}, nil)
	spoiled.ValidPrincipals = []string{"web2"}
	unsigned := host([]string{"web1"}, nil)
	unsigned.Signature = nil
	for _, c := range []struct {
		name string
		cert *ssh.Certificate
		cas  []ssh.PublicKey
		host string
		now  time.Time
		is   error
		want string
	}{
		{"good", host([]string{"web1"}, nil), cas, "web1", noon, nil, ""},
		{"second name", host([]string{"db", "web1"}, nil), cas, "web1", noon, nil, ""},
		{"case of the name", host([]string{"web1"}, nil), cas, "WEB1", noon, nil, ""},
		{"case of the principal", host([]string{"Web1"}, nil), cas, "web1", noon, nil, ""},
		{"at the last second", host([]string{"web1"}, nil), cas, "web1", noon.Add(time.Hour - time.Second), nil, ""},
		{"over", host([]string{"web1"}, nil), cas, "web1", noon.Add(time.Hour), trust.ErrExpired, "ended at 2026-11-21T13:00:00Z"},
		{"early", host([]string{"web1"}, nil), cas, "web1", noon.Add(-61 * time.Second), trust.ErrNotYetValid, "begins at"},
		{"before the epoch", host([]string{"web1"}, nil), cas, "web1", time.Unix(-5, 0), trust.ErrNotYetValid, ""},
		{"other name", host([]string{"web2"}, nil), cas, "web1", noon, trust.ErrName, `["web2"]`},
		{"no principals", host(nil, nil), cas, "web1", noon, nil, "no principals"},
		{"wildcard", host([]string{"*"}, nil), cas, "web1", noon, nil, "refused"},
		{"wildcard beside", host([]string{"web1", "*.com"}, nil), cas, "web1", noon, nil, "refused"},
		{"comma", host([]string{"web1", "a,b"}, nil), cas, "web1", noon, nil, "refused"},
		{"newline", host([]string{"web1", "a\nb"}, nil), cas, "web1", noon, nil, "refused"},
		{"space", host([]string{"web1", "a b"}, nil), cas, "web1", noon, nil, "refused"},
		{"empty principal", host([]string{"web1", ""}, nil), cas, "web1", noon, nil, "refused"},
		{"no name", host([]string{"web1"}, nil), cas, "", noon, nil, "no host name"},
		{"user certificate", makeCert(t, hostCA, ssh.UserCert, []string{"web1"}, nil), cas, "web1", noon, nil, "got a user certificate"},
		{"foreign CA", makeCert(t, newSigner(t), ssh.HostCert, []string{"web1"}, nil), cas, "web1", noon, trust.ErrUnknownAuthority, "SHA256:"},
		{"no CAs", host([]string{"web1"}, nil), nil, "web1", noon, trust.ErrUnknownAuthority, ""},
		{"nil CA", host([]string{"web1"}, nil), []ssh.PublicKey{nil}, "web1", noon, trust.ErrUnknownAuthority, ""},
		{"changed after signing", spoiled, cas, "web2", noon, trust.ErrUnknownAuthority, "does not verify"},
		{"unsigned", unsigned, cas, "web1", noon, trust.ErrUnknownAuthority, "no signature"},
		{"nothing", nil, cas, "web1", noon, nil, "not given"},
		{"critical option", host([]string{"web1"}, func(c *ssh.Certificate) {
			c.CriticalOptions = map[string]string{"source-address": "10.0.0.0/8"}
		}), cas, "web1", noon, nil, "can't be honoured"},
		{"SHA-1", makeCert(t, weak, ssh.HostCert, []string{"web1"}, nil), []ssh.PublicKey{rsaSigner.PublicKey()}, "web1", noon, trust.ErrUnknownAuthority, "SHA-1"},
		{"a certificate as authority", host([]string{"web1"}, nil), []ssh.PublicKey{nested}, "web1", noon, trust.ErrUnknownAuthority, ""},
		{"for ever", host([]string{"web1"}, func(c *ssh.Certificate) { c.ValidBefore = ssh.CertTimeInfinity }), cas, "web1", noon, nil, ""},
		{"starts after all time", host([]string{"web1"}, func(c *ssh.Certificate) {
			c.ValidAfter, c.ValidBefore = 1<<63, ssh.CertTimeInfinity
		}), cas, "web1", noon, trust.ErrNotYetValid, "beyond all calendars"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := trust.HostCertificate(c.cert, c.cas, c.host, c.now)
			if c.is == nil && c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || (c.is != nil && !errors.Is(err, c.is)) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v; want %v with %q", err, c.is, c.want)
			}
		})
	}
}

// TestNestedAuthority holds that a certificate that is signed with the key of
// another certificate does not inherit the trust in that certificate's CA.
func TestNestedAuthority(t *testing.T) {
	root, leaf := newSigner(t), newSigner(t)
	middle := makeCert(t, root, ssh.HostCert, []string{"web1"}, func(c *ssh.Certificate) { c.Key = leaf.PublicKey() })
	child := makeCert(t, leaf, ssh.HostCert, []string{"web1"}, nil)
	child.SignatureKey = middle
	for _, cas := range [][]ssh.PublicKey{{root.PublicKey()}, {middle}, {root.PublicKey(), middle}} {
		if err := trust.HostCertificate(child, cas, "web1", noon); !errors.Is(err, trust.ErrUnknownAuthority) {
			t.Errorf("child of a certificate: %v", err)
		}
	}
	if err := trust.Authority(middle); err == nil {
		t.Error("a certificate passes as authority")
	}
}

func TestUserCertificate(t *testing.T) {
	userCA := newSigner(t)
	cas := []ssh.PublicKey{userCA.PublicKey()}
	user := func(change func(*ssh.Certificate)) *ssh.Certificate {
		return makeCert(t, userCA, ssh.UserCert, []string{"root", "deploy"}, change)
	}
	option := func(name, value string) *ssh.Certificate {
		return user(func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{name: value} })
	}
	inside := netip.MustParseAddr("192.0.2.9")
	for _, c := range []struct {
		name string
		cert *ssh.Certificate
		use  trust.Use
		is   error
		want string
	}{
		{"good", user(nil), trust.Use{Login: "deploy"}, nil, ""},
		{"other login", user(nil), trust.Use{Login: "admin"}, trust.ErrName, ""},
		{"case counts", user(nil), trust.Use{Login: "Root"}, trust.ErrName, ""},
		{"no login", user(nil), trust.Use{}, nil, "no login"},
		{"any login", user(nil), trust.Use{AnyLogin: true}, nil, ""},
		{"any login and one", user(nil), trust.Use{AnyLogin: true, Login: "root"}, nil, "both one login and any"},
		{"any login, no principals", makeCert(t, userCA, ssh.UserCert, nil, nil), trust.Use{AnyLogin: true}, nil, "no principals"},
		{"any login, a bad principal", makeCert(t, userCA, ssh.UserCert, []string{"root", "*"}, nil), trust.Use{AnyLogin: true}, nil, "is refused"},
		{"any login, outside", option("source-address", "10.0.0.0/8"), trust.Use{AnyLogin: true, Source: inside}, nil, "not valid from 192.0.2.9"},
		{"host certificate", makeCert(t, userCA, ssh.HostCert, []string{"root"}, nil), trust.Use{Login: "root"}, nil, "got a host certificate"},
		{"no principals", makeCert(t, userCA, ssh.UserCert, nil, nil), trust.Use{Login: "root"}, nil, "no principals"},
		{"inside", option("source-address", "10.0.0.0/8,192.0.2.0/24"), trust.Use{Login: "root", Source: inside}, nil, ""},
		{"inside, mapped", option("source-address", "192.0.2.0/24"), trust.Use{Login: "root", Source: netip.MustParseAddr("::ffff:192.0.2.9")}, nil, ""},
		{"single address", option("source-address", "192.0.2.9"), trust.Use{Login: "root", Source: inside}, nil, ""},
		{"outside", option("source-address", "10.0.0.0/8"), trust.Use{Login: "root", Source: inside}, nil, "not valid from 192.0.2.9"},
		{"source not known", option("source-address", "10.0.0.0/8"), trust.Use{Login: "root"}, nil, "address is not known"},
		{"source junk", option("source-address", "everywhere"), trust.Use{Login: "root", Source: inside}, nil, "neither an address nor"},
		{"source empty", option("source-address", ""), trust.Use{Login: "root", Source: inside}, nil, "neither an address nor"},
		{"forced, not enforced", option("force-command", "date"), trust.Use{Login: "root"}, nil, `"force-command" can't be honoured`},
		{"forced, enforced", option("force-command", "date"), trust.Use{Login: "root", ForceCommand: true}, nil, ""},
		{"unknown option", option("moon-phase", "full"), trust.Use{Login: "root", ForceCommand: true}, nil, `"moon-phase" can't be honoured`},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := trust.UserCertificate(c.cert, cas, c.use, noon)
			if c.is == nil && c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || (c.is != nil && !errors.Is(err, c.is)) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v; want %v with %q", err, c.is, c.want)
			}
		})
	}
}

// TestClockSkew: a certificate that was just made holds on a host whose clock
// is half a minute behind, not on one that is five minutes behind, and its end
// moves with the host's clock.
func TestClockSkew(t *testing.T) {
	authority := newSigner(t)
	cert := makeCert(t, authority, ssh.HostCert, []string{"web1"}, nil)
	cas := []ssh.PublicKey{authority.PublicKey()}
	for skew, is := range map[time.Duration]error{
		-30 * time.Second: nil, -5 * time.Minute: trust.ErrNotYetValid, 5 * time.Minute: nil,
		time.Hour - 5*time.Minute: nil, time.Hour + 5*time.Minute: trust.ErrExpired,
	} {
		if err := trust.HostCertificate(cert, cas, "web1", noon.Add(skew)); !errors.Is(err, is) {
			t.Errorf("skew %s: %v, want %v", skew, err, is)
		}
	}
}

// FuzzCertificate feeds the bytes of certificates: whatever is changed in them,
// only what the authority signed passes.
func FuzzCertificate(f *testing.F) {
	authority := newSigner(f)
	cas := []ssh.PublicKey{authority.PublicKey()}
	good := makeCert(f, authority, ssh.HostCert, []string{"web1"}, nil)
	other := makeCert(f, authority, ssh.UserCert, []string{"root"}, func(c *ssh.Certificate) {
		c.CriticalOptions = map[string]string{"source-address": "10.0.0.0/8"}
	})
	for _, c := range []*ssh.Certificate{good, other} {
		if _, err := ssh.ParsePublicKey(c.Marshal()); err != nil {
			f.Fatalf("seed does not load: %v", err)
		}
		f.Add(c.Marshal())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := ssh.ParsePublicKey(data)
		if err != nil {
			return
		}
		cert, ok := key.(*ssh.Certificate)
		if !ok {
			return
		}
		if trust.HostCertificate(cert, cas, "web1", noon) == nil && !sameSigned(cert, good) {
			t.Fatalf("accepted a certificate that was never signed: %+v", cert)
		}
		_ = trust.UserCertificate(cert, cas, trust.Use{Login: "root", Source: netip.MustParseAddr("10.0.0.1")}, noon)
	})
}

// sameSigned compares what the signature covers.
func sameSigned(a, b *ssh.Certificate) bool {
	x, y := *a, *b
	x.Signature, y.Signature = nil, nil
	return bytes.Equal(x.Marshal(), y.Marshal())
}
