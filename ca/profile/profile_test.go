package profile_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"maps"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca/profile"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func newKey(t testing.TB) (ssh.PublicKey, ssh.Signer) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s.PublicKey(), s
}

func nets(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestUserCertificate(t *testing.T) {
	key, _ := newKey(t)
	cert, err := profile.DefaultRules().Certificate(profile.Request{
		Kind: profile.User, PublicKey: key, KeyID: "alice@example.com",
		Principals:      []string{"root", "deploy", "root"},
		SourceAddresses: nets("2001:db8::/32", "192.0.2.0/24", "10.1.2.3/32", "192.0.2.0/24"),
	}, 42, noon)
	if err != nil {
		t.Fatal(err)
	}
	if cert.CertType != ssh.UserCert || cert.Serial != 42 || cert.KeyId != "alice@example.com" {
		t.Errorf("certificate %+v", cert)
	}
	if !slices.Equal(cert.ValidPrincipals, []string{"root", "deploy"}) {
		t.Errorf("principals %q", cert.ValidPrincipals)
	}
	if got := time.Unix(int64(cert.ValidAfter), 0); !got.Equal(noon.Add(-time.Minute)) {
		t.Errorf("valid after %s", got)
	}
	if got := time.Unix(int64(cert.ValidBefore), 0); !got.Equal(noon.Add(12 * time.Hour)) {
		t.Errorf("valid before %s", got)
	}
	want := map[string]string{"source-address": "10.1.2.3/32,192.0.2.0/24,2001:db8::/32"}
	if !maps.Equal(cert.CriticalOptions, want) {
		t.Errorf("critical options %q", cert.CriticalOptions)
	}
	extensions := slices.Sorted(maps.Keys(cert.Extensions))
	if !slices.Equal(extensions, []string{
		"permit-X11-forwarding", "permit-agent-forwarding",
		"permit-port-forwarding", "permit-pty", "permit-user-rc",
	}) {
		t.Errorf("extensions %q", extensions)
	}
}

func TestHostCertificate(t *testing.T) {
	key, _ := newKey(t)
	cert, err := profile.DefaultRules().Certificate(profile.Request{
		Kind: profile.Host, PublicKey: key,
		Principals: []string{"Web1.Example.com", "web1", "2001:DB8:0::1", "192.0.2.1", "web1.example.com"},
	}, 1, noon)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"web1.example.com", "web1", "2001:db8::1", "192.0.2.1"}; !slices.Equal(cert.ValidPrincipals, want) {
		t.Errorf("principals %q, want %q", cert.ValidPrincipals, want)
	}
	if cert.KeyId != "web1.example.com" || cert.CertType != ssh.HostCert {
		t.Errorf("key ID %q, type %d", cert.KeyId, cert.CertType)
	}
	if len(cert.CriticalOptions)+len(cert.Extensions) != 0 {
		t.Errorf("options %q and extensions %q in a host certificate", cert.CriticalOptions, cert.Extensions)
	}
	if got := cert.ValidBefore - uint64(noon.Unix()); got != 90*24*3600 {
		t.Errorf("lives %d s", got)
	}
}

func TestExtensions(t *testing.T) {
	key, _ := newKey(t)
	for name, c := range map[string]struct {
		e      profile.Extensions
		forced string
		want   []string
		err    string
	}{
		"none":         {e: profile.Extensions{None: true}, want: nil},
		"none but pty": {e: profile.Extensions{None: true, Enable: []string{"permit-pty"}}, want: []string{"permit-pty"}},
		"without X11": {
			e:    profile.Extensions{Disable: []string{"permit-X11-forwarding", "permit-user-rc"}},
			want: []string{"permit-agent-forwarding", "permit-port-forwarding", "permit-pty"},
		},
		"forced command": {forced: "/bin/true", want: []string{"permit-pty"}},
		"forced command with forwarding": {
			forced: "/bin/true", e: profile.Extensions{Enable: []string{"permit-port-forwarding"}},
			want: []string{"permit-port-forwarding", "permit-pty"},
		},
		"security key": {
			e:    profile.Extensions{None: true, Enable: []string{"no-touch-required"}},
			want: []string{"no-touch-required"},
		},
		"unknown":  {e: profile.Extensions{Enable: []string{"permit-everything"}}, err: "unknown extension"},
		"unknown2": {e: profile.Extensions{Disable: []string{"pty"}}, err: "unknown extension"},
		"both":     {e: profile.Extensions{Enable: []string{"permit-pty"}, Disable: []string{"permit-pty"}}, err: "both enabled and disabled"},
	} {
		t.Run(name, func(t *testing.T) {
			cert, err := profile.DefaultRules().Certificate(profile.Request{
				Kind: profile.User, PublicKey: key, KeyID: "a", Principals: []string{"b"},
				Extensions: c.e, ForceCommand: c.forced,
			}, 1, noon)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error %v, want one with %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := slices.Sorted(maps.Keys(cert.Extensions)); !slices.Equal(got, c.want) {
				t.Errorf("extensions %q, want %q", got, c.want)
			}
		})
	}
}

// TestRefusals asserts the reason of each refusal.
func TestRefusals(t *testing.T) {
	key, signer := newKey(t)
	nested := &ssh.Certificate{Key: key, CertType: ssh.UserCert, ValidPrincipals: []string{"x"}, ValidBefore: ssh.CertTimeInfinity}
	if err := nested.SignCert(rand.Reader, signer); err != nil {
		t.Fatal(err)
	}
	user := func(change func(*profile.Request)) profile.Request {
		r := profile.Request{Kind: profile.User, PublicKey: key, KeyID: "alice", Principals: []string{"root"}}
		change(&r)
		return r
	}
	host := func(change func(*profile.Request)) profile.Request {
		r := profile.Request{Kind: profile.Host, PublicKey: key, Principals: []string{"web1"}}
		change(&r)
		return r
	}
	principal := func(p string) profile.Request {
		return user(func(r *profile.Request) { r.Principals = []string{"root", p} })
	}
	name := func(p string) profile.Request {
		return host(func(r *profile.Request) { r.Principals = []string{"web1", p} })
	}
	id := func(s string) profile.Request { return user(func(r *profile.Request) { r.KeyID = s }) }
	ttl := func(d time.Duration) profile.Request { return user(func(r *profile.Request) { r.TTL = d }) }
	withKey := func(k ssh.PublicKey) profile.Request {
		return user(func(r *profile.Request) { r.PublicKey = k })
	}
	forced := func(s string) profile.Request { return user(func(r *profile.Request) { r.ForceCommand = s }) }
	from := func(p ...netip.Prefix) profile.Request {
		return user(func(r *profile.Request) { r.SourceAddresses = p })
	}
	many := make([]string, profile.MaxPrincipals+1)
	for i := range many {
		many[i] = "p"
	}
	for _, c := range []struct {
		name string
		req  profile.Request
		want string
	}{
		{"no kind", user(func(r *profile.Request) { r.Kind = "" }), "kind of certificate not set"},
		{"odd kind", user(func(r *profile.Request) { r.Kind = "jump" }), "unknown kind"},
		{"no principals", user(func(r *profile.Request) { r.Principals = nil }), "no principals"},
		{"no host principals", host(func(r *profile.Request) { r.Principals = []string{} }), "no principals"},
		{"many principals", user(func(r *profile.Request) { r.Principals = many }), "257 principals"},
		{"empty principal", principal(""), "principal is empty"},
		{"wildcard", principal("*"), "holds '*'"},
		{"wildcard inside", principal("ro?t"), "holds '?'"},
		{"comma", principal("root,deploy"), "holds ','"},
		{"space", principal("root deploy"), "holds ' '"},
		{"newline", principal("root\n"), `holds '\n'`},
		{"NUL", principal("root\x00"), `holds '\x00'`},
		{"escape", principal("\x1b[2J"), `holds '\x1b'`},
		{"right-to-left", principal("root\u202e"), `holds '\u202e'`},
		{"not UTF-8", principal("ro\xfft"), "holds"},
		{"dash", principal("-oProxyCommand"), "begins with a dash"},
		{"long principal", principal(strings.Repeat("a", 129)), "129 bytes"},
		{"host wildcard", name("*.example.com"), "holds '*'"},
		{"host with port", name("[web1]:2222"), "holds '['"},
		{"host with port 2", name("web1:2222"), "holds ':'"},
		{"host trailing dot", name("web1."), "empty label"},
		{"host empty", name(""), "host name is empty"},
		{"host comma", name("a,b"), "holds ','"},
		{"host zone", name("fe80::1%eth0"), "zone"},
		{"host dash", name("-web"), "dash"},
		{"host long", name(strings.Repeat("a.", 127)), "254 bytes"},
		{"host long label", name(strings.Repeat("a", 64) + ".com"), "over 63"},
		{"no key ID", id(""), "key ID is empty"},
		{"key ID newline", id("alice\nAccepted"), `holds '\n'`},
		{"key ID space", id("alice (serial 1)"), "holds ' '"},
		{"key ID dash", id("-v"), "begins with a dash"},
		{"key ID long", id(strings.Repeat("a", 254)), "254 bytes"},
		{"ttl negative", ttl(-time.Hour), "under a second"},
		{"ttl tiny", ttl(time.Millisecond), "under a second"},
		{"ttl fraction", ttl(1500 * time.Millisecond), "whole seconds"},
		{"ttl long", ttl(30*time.Hour + time.Second), "life of 1d6h1s is over the maximum of 1d6h for user certificates"},
		{"ttl host long", host(func(r *profile.Request) { r.TTL = 399 * 24 * time.Hour }), "over the maximum of 398d"},
		{"no key", withKey(nil), "public key not set"},
		{"certificate", withKey(nested), "got a certificate"},
		{"wrapped certificate", withKey(wrapped{nested}), "got a certificate"},
		{"DSA", withKey(dsaKey(t)), `type "ssh-dss" refused`},
		{"short RSA", withKey(rsaKey(t, 1024)), "1024 bits"},
		{"forced newline", forced("true\nrm"), "newline"},
		{"forced tab", forced("a\tb"), "unprintable"},
		{"forced blank", forced("  "), "blank"},
		{"forced long", forced(strings.Repeat("a", 4097)), "4097 bytes"},
		{"forced not UTF-8", forced("\xff"), "not UTF-8"},
		{"source invalid", from(netip.Prefix{}), "invalid source address"},
		{"source host bits", from(netip.MustParsePrefix("10.0.0.5/24")), `the network is "10.0.0.0/24"`},
		{"source mapped", from(netip.MustParsePrefix("::ffff:10.0.0.0/104")), "IPv4 written as IPv6"},
		{"source many", from(make([]netip.Prefix, 65)...), "65 source addresses"},
		{"host source", host(func(r *profile.Request) { r.SourceAddresses = nets("10.0.0.0/8") }), "can't have source addresses"},
		{"host forced", host(func(r *profile.Request) { r.ForceCommand = "x" }), "can't have a forced command"},
		{"host extension", host(func(r *profile.Request) { r.Extensions.None = true }), "can't have extensions"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cert, err := profile.DefaultRules().Certificate(c.req, 1, noon)
			if err == nil || cert != nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("certificate %v, error %v; want an error with %q", cert, err, c.want)
			}
			if strings.ContainsAny(err.Error(), "\n\x1b\x00") {
				t.Errorf("error carries control characters: %q", err)
			}
		})
	}
	if _, err := profile.DefaultRules().Certificate(user(func(*profile.Request) {}), 0, noon); err == nil {
		t.Error("serial zero accepted")
	}
	if _, err := (profile.Rules{}).Certificate(user(func(*profile.Request) {}), 1, noon); err == nil {
		t.Error("zero rules permit something")
	}
	if _, err := profile.DefaultRules().Certificate(user(func(*profile.Request) {}), 1, time.Unix(0, 0)); err == nil {
		t.Error("a clock at the epoch wraps the validity around")
	}
	var long *profile.TooLongError
	if _, err := profile.DefaultRules().Certificate(ttl(48*time.Hour), 1, noon); !errors.As(err, &long) || long.Max != 30*time.Hour {
		t.Errorf("error %v is not a TooLongError with the maximum", err)
	}
}

// wrapped claims to be a plain key.
type wrapped struct{ c *ssh.Certificate }

func (w wrapped) Type() string                            { return ssh.KeyAlgoED25519 }
func (w wrapped) Marshal() []byte                         { return w.c.Marshal() }
func (w wrapped) Verify(d []byte, s *ssh.Signature) error { return w.c.Verify(d, s) }

func rsaKey(t *testing.T, bits int) ssh.PublicKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	p, err := ssh.NewPublicKey(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// dsaKey is a key that OpenSSH has dropped.
func dsaKey(t *testing.T) ssh.PublicKey {
	t.Helper()
	p, err := ssh.ParsePublicKey(ssh.Marshal(struct {
		Name       string
		P, Q, G, Y *big.Int
	}{
		"ssh-dss", new(big.Int).Lsh(big.NewInt(1), 1023), new(big.Int).Lsh(big.NewInt(1), 159),
		big.NewInt(2), big.NewInt(3),
	}))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAllowed(t *testing.T) {
	key, _ := newKey(t)
	for _, p := range []string{"root", "svc_backup", `CORP\alice`, "alice@example.com", "role:admin/prod", "a+b", "_x"} {
		if err := profile.CheckUserPrincipal(p); err != nil {
			t.Errorf("principal %q: %v", p, err)
		}
	}
	for _, ttl := range []time.Duration{time.Second, 30 * time.Hour} {
		cert, err := profile.DefaultRules().Certificate(profile.Request{
			Kind: profile.User, PublicKey: key, KeyID: "a", Principals: []string{"b"}, TTL: ttl,
		}, 1, noon)
		if err != nil {
			t.Errorf("TTL %s: %v", ttl, err)
		} else if got := time.Duration(cert.ValidBefore-cert.ValidAfter) * time.Second; got != ttl+time.Minute {
			t.Errorf("TTL %s: valid for %s", ttl, got)
		}
	}
}

func TestRulesCheck(t *testing.T) {
	good := profile.DefaultRules()
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*profile.Rules){
		"zero":         func(r *profile.Rules) { *r = profile.Rules{} },
		"default over": func(r *profile.Rules) { r.User.Default = r.User.Max + 1 },
		"for ever":     func(r *profile.Rules) { r.Host.Max = 1 << 62 },
		"no default":   func(r *profile.Rules) { r.Host.Default = 0 },
	} {
		r := good
		change(&r)
		if r.Check() == nil {
			t.Errorf("%s: accepted %+v", name, r)
		}
	}
}
