package jump_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca/krl"
	"github.com/fleetca/fleetca/jump/access"
	"github.com/fleetca/fleetca/jump/config"
	"github.com/fleetca/fleetca/jump/relay"
	"github.com/fleetca/fleetca/jump/store"
)

// TestOfferedKeys: whatever keys are offered before, the identity is that of the
// one that signed (CVE-2024-45337).
func TestOfferedKeys(t *testing.T) {
	calm(t)
	w := newWorld(t, worldConfig{hosts: []string{"web1"}})
	a, b, c := w.attacker("ann", nil), w.attacker("bob", nil), w.attacker("cat", nil)
	good := 0
	for _, order := range [][]*attacker{{a, b, c}, {a, c, b}, {b, a, c}, {b, c, a}, {c, a, b}, {c, b, a}} {
		for _, who := range order {
			var signers []ssh.Signer
			for _, offered := range order {
				signers = append(signers, offerOnly(offered))
			}
			last := order[len(order)-1]
			v, err := who.outer("anybody", append(signers, offerThenSign(last, who, who))...)
			if err != nil {
				t.Fatalf("%v: %s", err, v.banner)
			}
			good++
			if got := w.lastLogin(good); got != who.cert.KeyId {
				t.Errorf("%s signed, %s was let in", who.cert.KeyId, got)
			}
			_ = v.Close()
			// And a certificate whose key others have.
			for _, other := range order {
				if other == who {
					continue
				}
				if _, err := who.outer("anybody", offerOnly(who), offerThenSign(other, who, other)); err == nil {
					t.Errorf("%s was let in by a signature of %s", who.cert.KeyId, other.cert.KeyId)
				}
			}
		}
	}
}

func bound(option, value string) func(*ssh.Certificate) {
	return func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{option: value} }
}

// TestOfferedSource: a restriction belongs to its certificate, and to no other
// that is offered on the connection.
func TestOfferedSource(t *testing.T) {
	calm(t)
	w := newWorld(t, worldConfig{hosts: []string{"web1"}})
	free, away, here := w.attacker("free", nil), w.attacker("away", bound("source-address", "192.0.2.0/24")),
		w.attacker("here", bound("source-address", "127.0.0.1/32"))
	for i, c := range []struct {
		offered, signed *attacker
		may             bool
	}{
		{away, free, true},
		{here, free, true},
		{away, here, true},
		{free, here, true},
		{free, away, false},
		{here, away, false},
		{away, away, false},
	} {
		for _, signer := range [][]ssh.Signer{
			{offerOnly(c.offered), c.signed},
			{offerOnly(c.signed), offerOnly(c.offered), c.signed},
			{offerOnly(c.offered), offerThenSign(free, c.signed, c.signed)},
		} {
			if v, err := c.offered.outer("anybody", signer...); (err == nil) != c.may {
				t.Errorf("%d: offered %s, signed %s: %v %s", i, c.offered.cert.KeyId, c.signed.cert.KeyId, err, v.banner)
			} else if err != nil && !strings.Contains(v.banner, "not valid from 127.0.0.1") {
				t.Errorf("%d: told %q", i, v.banner)
			}
		}
	}
	here.from = net.IPv4(127, 0, 0, 2)
	if _, err := here.outer("anybody"); err == nil {
		t.Error("let in from another address")
	}
}

// TestInnerIdentity: within a connection nobody is somebody else.
func TestInnerIdentity(t *testing.T) {
	calm(t)
	w := newWorld(t, worldConfig{hosts: []string{"web1"}})
	joe, ann, again := w.attacker("joe", nil), w.attacker("ann", nil), w.attacker("joe", nil)
	for _, way := range []string{"direct", "subsystem"} {
		for _, signers := range [][]ssh.Signer{
			{ann},
			{offerOnly(joe), ann},
			{offerOnly(ann), offerThenSign(joe, ann, ann)},
		} {
			v, err := joe.enter(way, "web1", signers...)
			if want := `you are "joe" towards the jump host and "ann" within`; err == nil || !strings.Contains(v.banner, want) {
				t.Errorf("%s: %v %q, want %q", way, err, v.banner, want)
			}
		}
		if v, err := joe.enter(way, "web1", offerOnly(ann), again); err != nil {
			t.Errorf("%s: another certificate of the same person: %v %q", way, err, v.banner)
		}
	}
	found := 0
	for _, e := range w.events("auth") {
		if e.Code == "identity" && e.User == "joe" && strings.Contains(e.Error, "ann") {
			found++
		}
	}
	if found != 6 {
		t.Errorf("%d events about it, want 6", found)
	}
}

// TestInnerSource: source-address holds within, for the client's own address.
func TestInnerSource(t *testing.T) {
	calm(t)
	w := newWorld(t, worldConfig{hosts: []string{"web1"}})
	joe := w.attacker("joe", nil)
	joe.from = net.IPv4(127, 0, 0, 2)
	for list, may := range map[string]bool{
		"127.0.0.2/32": true, "127.0.0.0/8": true, "127.0.0.1/32": false, "192.0.2.0/24": false, "0.0.0.0/32": false, "::1/128": false,
	} {
		inner := w.attacker("joe", bound("source-address", list))
		inner.from = joe.from
		for _, way := range []string{"direct", "subsystem"} {
			if v, err := joe.enter(way, "web1", inner); (err == nil) != may || !may && !strings.Contains(v.banner, "not valid from 127.0.0.2") {
				t.Errorf("%s, %s: %v %q", list, way, err, v.banner)
			}
		}
		if _, err := inner.enter("login", "web1"); (err == nil) != may {
			t.Errorf("%s, login: %v", list, err)
		}
	}
}

// TestForgedCertificates: only what a plain key of the user CA has signed for
// people is one.
func TestForgedCertificates(t *testing.T) {
	calm(t)
	w := newWorld(t, worldConfig{hosts: []string{"web1"}})
	between := w.attacker("between", nil) // a person's certificate as a CA
	for name, make := range map[string]func(a *attacker){
		"signed by a certificate": func(a *attacker) {
			nested := *a.cert
			nested.SignatureKey, nested.Signature = between.cert, nil
			signed := nested.Marshal()
			signature, err := between.Sign(rand.Reader, signed[:len(signed)-4])
			if err != nil {
				t.Fatal(err)
			}
			nested.Signature = signature
			a.show(&nested)
		},
		"signed by the key of a certificate": func(a *attacker) {
			plain, err := ssh.NewSignerFromSigner(between.private)
			if err != nil {
				t.Fatal(err)
			}
			a.show(authority{plain}.sign(t, a.cert.Key, ssh.UserCert, "joe", []string{w.login}, nil))
		},
		"signed by itself": func(a *attacker) {
			plain, err := ssh.NewSignerFromSigner(a.private)
			if err != nil {
				t.Fatal(err)
			}
			a.show(authority{plain}.sign(t, a.cert.Key, ssh.UserCert, "joe", []string{w.login}, nil))
		},
		"signed by the host CA": func(a *attacker) {
			a.show(w.hostCA.sign(t, a.cert.Key, ssh.UserCert, "joe", []string{w.login}, nil))
		},
		"signed by the jump CA": func(a *attacker) {
			a.show(w.jumpCA.sign(t, a.cert.Key, ssh.UserCert, "joe", []string{w.login}, nil))
		},
		"for a host": func(a *attacker) {
			a.show(w.userCA.sign(t, a.cert.Key, ssh.HostCert, "joe", []string{w.login}, nil))
		},
		"changed afterwards": func(a *attacker) {
			changed := *a.cert
			changed.KeyId = "ann"
			a.show(&changed)
		},
		"names the CA, signed by another": func(a *attacker) {
			changed := w.jumpCA.sign(t, a.cert.Key, ssh.UserCert, "joe", []string{w.login}, nil)
			changed.SignatureKey = w.userCA.PublicKey()
			a.show(changed)
		},
	} {
		a := w.attacker("joe", nil)
		before := a.cert
		make(a)
		if a.cert == before {
			t.Errorf("%s: nothing was forged", name)
		}
		for _, way := range byHand {
			if v, err := a.enter(way, "web1"); err == nil {
				t.Errorf("%s: let in by %s", name, way)
			} else if !strings.Contains(v.banner, "fleetjump: ") && name != "signed by a certificate" {
				t.Errorf("%s: told nothing: %v", name, err)
			}
		}
	}
	if n := len(w.events("auth")); n < 8*len(byHand) {
		t.Errorf("%d auth events", n)
	}
}

// revoking gives a list of revoked keys.
func revoking(t *testing.T, fill func(*krl.Builder) error) *krl.List {
	t.Helper()
	var b krl.Builder
	if err := fill(&b); err != nil {
		t.Fatal(err)
	}
	data, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	list, err := krl.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestRevokedLogin: what a KRL revokes lets nobody in, by whatever it was named.
func TestRevokedLogin(t *testing.T) {
	var list *krl.List
	w := newWorld(t, worldConfig{hosts: []string{"web1"}, reload: func(w *world) (*config.Config, error) {
		c := *w.settings
		c.Revoked = list
		return &c, nil
	}})
	joe := w.person(personConfig{change: func(c *ssh.Certificate) { c.Serial = 4711 }})
	cert := joe.certificate()
	ca := w.userCA.PublicKey()
	for name, fill := range map[string]func(*krl.Builder) error{
		"serial":      func(b *krl.Builder) error { return b.Serial(ca, 4711) },
		"range":       func(b *krl.Builder) error { return b.SerialRange(ca, 4000, 5000) },
		"key ID":      func(b *krl.Builder) error { return b.KeyID(ca, "joe") },
		"key":         func(b *krl.Builder) error { return b.Key(cert.Key) },
		"hash":        func(b *krl.Builder) error { return b.SHA256(cert.Key) },
		"CA":          func(b *krl.Builder) error { return b.Key(ca) },
		"certificate": func(b *krl.Builder) error { return b.Certificate(cert) },
	} {
		list = revoking(t, fill)
		if err := w.server.Reload(context.Background()); err != nil {
			t.Fatal(err)
		}
		r := joe.run(joe.ssh(append(joe.ways()["jump"]("web1"), "true")...))
		if r.code != 255 || !strings.Contains(r.stderr, `certificate of "joe" with serial 4711 is revoked`) {
			t.Errorf("%s: got %+v", name, r)
		}
	}
	list = revoking(t, func(b *krl.Builder) error { return b.Serial(ca, 4712) })
	if err := w.server.Reload(context.Background()); err != nil {
		t.Fatal(err)
	}
	if r := joe.run(joe.ssh(append(joe.ways()["jump"]("web1"), "true")...)); r.code != 0 {
		t.Errorf("another serial: got %+v", r)
	}
}

// certificate is what the person has.
func (p *client) certificate() *ssh.Certificate {
	p.w.t.Helper()
	data, err := os.ReadFile(filepath.Join(p.home, "id-cert.pub"))
	if err != nil {
		p.w.t.Fatal(err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(data)
	if err != nil {
		p.w.t.Fatal(err)
	}
	return key.(*ssh.Certificate)
}

// TestExpiry: a session doesn't outlive its certificate, and the person reads
// why it ended.
func TestExpiry(t *testing.T) {
	calm(t)
	w := newWorld(t, worldConfig{hosts: []string{"web1"}})
	var all sync.WaitGroup
	n := 0
	for name, way := range w.person(personConfig{}).ways() {
		n++
		p := w.person(personConfig{identity: fmt.Sprint("joe", n), change: func(c *ssh.Certificate) {
			c.ValidBefore = uint64(time.Now().Add(8 * time.Second).Unix())
		}})
		way = p.ways()[name]
		all.Go(func() {
			r := p.run(p.ssh(append(way("web1"), "echo begun; sleep 600")...))
			if r.code != 255 || r.stdout != "begun\n" || !strings.Contains(r.stderr, "fleetjump: your certificate has expired") {
				t.Errorf("%s: got %+v", name, r)
			}
		})
	}
	all.Wait()
	for _, s := range w.sessions(n) {
		if s.State != store.Ended || s.Reason != "your certificate has expired" {
			t.Errorf("session %+v", s)
		}
	}
}

// TestReload: what is revoked or taken away while people are there ends, or
// counts for what they begin from then on; the others notice nothing.
func TestReload(t *testing.T) {
	calm(t)
	var revoked *krl.List
	roles := []access.Role{openRole()}
	w := newWorld(t, worldConfig{hosts: []string{"web1"}, reload: func(w *world) (*config.Config, error) {
		c := *w.settings
		c.Revoked, c.Rules = revoked, access.Rules{Roles: roles}
		return &c, nil
	}})
	reload := func() {
		t.Helper()
		if err := w.server.Reload(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	bad, good, second := w.attacker("bad", func(c *ssh.Certificate) { c.Serial = 66 }), w.attacker("good", nil),
		w.attacker("good", func(c *ssh.Certificate) { c.Serial = 67 })
	type ended struct {
		out string
		err error
	}
	ends := map[string]chan ended{}
	links := map[string]*visit{}
	for name, a := range map[string]*attacker{"bad": bad, "good": good} {
		for _, way := range byHand {
			v, err := a.enter(way, "web1")
			if err != nil {
				t.Fatal(err)
			}
			end := make(chan ended, 1)
			links[name+way], ends[name+way] = v, end
			go func() {
				out, err := v.exec("cat")
				end <- ended{out, err}
			}()
		}
	}
	outer, err := good.outer("anybody")
	if err != nil {
		t.Fatal(err)
	}
	w.eventually("all have begun", func() bool { return len(w.events("session.start")) == 6 })
	revoked = revoking(t, func(b *krl.Builder) error { return b.SerialRange(w.userCA.PublicKey(), 66, 67) })
	reload()
	for _, way := range byHand {
		if e := <-ends["bad"+way]; e.err == nil || !strings.Contains(e.out, "fleetjump: your certificate was revoked") {
			t.Errorf("%s: ended with %q, %v", way, e.out, e.err)
		}
		if out, err := links["bad"+way].exec("echo more"); err == nil || strings.Contains(out, "more") {
			t.Errorf("%s: the revoked one goes on", way)
		}
		if out, err := links["good"+way].exec("echo more"); err != nil || out != "more\n" {
			t.Errorf("%s: %q, %v", way, out, err)
		}
	}
	// Within a connection that is older than the list.
	stream, err := outer.stream("direct", "web1", w.sshdPort("web1"))
	if err != nil {
		t.Fatal(err)
	}
	if v, err := second.handshake(stream, w.login, second); err == nil || !strings.Contains(v.banner, "is revoked") {
		t.Errorf("a revoked certificate was let in on an old connection: %v %q", err, v.banner)
	}
	// Roles count for what begins from now on.
	roles = nil
	reload()
	for _, way := range byHand {
		select {
		case e := <-ends["good"+way]:
			t.Errorf("%s: ended with %q, %v", way, e.out, e.err)
		default:
		}
		out, err := links["good"+way].exec("echo more")
		if err == nil || !strings.Contains(out, "fleetjump: ") {
			t.Errorf("%s: %q, %v after the role was taken away", way, out, err)
		}
	}
}

// TestForceCommandBinds: a certificate that forces a command gives that command on
// hosts, what its extensions name, and nothing of the jump host.
func TestForceCommandBinds(t *testing.T) {
	calm(t)
	w := newWorld(t, worldConfig{hosts: []string{"web1"}})
	force := func(c *ssh.Certificate) {
		c.CriticalOptions = map[string]string{"force-command": "echo forced"}
		c.Extensions = nil
	}
	p := w.person(personConfig{identity: "bot", change: force})
	n := 0
	for name, way := range p.ways() {
		for _, args := range [][]string{{"id"}, nil, {"scp", "-f", "/etc/passwd"}} {
			n++
			r := p.run(p.ssh(append(way("web1"), args...)...))
			s := w.sessions(n)[n-1]
			if r.stdout != "forced\n" || s.Command != "echo forced" || s.Kind != store.KindCommand {
				t.Errorf("%s %q: %+v, recorded as %s %q", name, args, r, s.Kind, s.Command)
			}
		}
		if r := p.run(p.ssh(append(append([]string{"-o", "ExitOnForwardFailure=yes", "-R", "0:localhost:1"}, way("web1")...), "true")...)); r.code != 255 {
			t.Errorf("%s: forwarding: %+v", name, r)
		}
	}
	if r := p.run(p.ssh("jump", "sessions", "ls")); r.code != 255 || !strings.Contains(r.stderr, "nothing but a certain command") {
		t.Errorf("console: %+v", r)
	}
	// The outer certificate may do more; what counts is the inner one, and the
	// host gets no other.
	full, forced := w.attacker("joe", nil), w.attacker("joe", force)
	for _, way := range []string{"direct", "subsystem"} {
		before := len(w.events("session.start"))
		v, err := full.enter(way, "web1", forced)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := v.exec("id"); err == nil || !strings.Contains(out, "fleetjump: ") || len(w.events("session.start")) != before {
			t.Errorf("%s: %q %v: another certificate than the inner one was used", way, out, err)
		}
		_, err = v.Dial("tcp", "127.0.0.1:1")
		if got := rejection(err); !strings.Contains(got, "permit-port-forwarding") {
			t.Errorf("%s: forwarding: %s", way, got)
		}
	}
}

// TestExtensions: what a certificate doesn't permit, no role gives.
func TestExtensions(t *testing.T) {
	calm(t)
	w := newWorld(t, worldConfig{hosts: []string{"web1"}})
	joe := w.attacker("joe", func(c *ssh.Certificate) { c.Extensions = nil })
	for _, way := range byHand {
		v, err := joe.enter(way, "web1")
		if err != nil {
			t.Fatal(err)
		}
		if out, err := v.exec(`echo "agent:$SSH_AUTH_SOCK"`); err != nil || out != "agent:\n" {
			t.Errorf("%s: %q, %v", way, out, err)
		}
		s, err := v.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		var stderr syncBuffer
		s.Stderr = &stderr
		if err := s.RequestPty("xterm", 24, 80, nil); err == nil {
			t.Errorf("%s: there is a terminal", way)
		}
		if ok, err := s.SendRequest(relay.TypeX11, true, ssh.Marshal(relay.X11Request{Protocol: "p", Cookie: "00"})); ok || err != nil {
			t.Errorf("%s: X11: %v %v", way, ok, err)
		}
		if err := s.Run("true"); err != nil || !strings.Contains(stderr.String(), "permit-pty") {
			t.Errorf("%s: %v, told %q", way, err, stderr.String())
		}
		if _, err := v.Dial("tcp", "127.0.0.1:1"); !strings.Contains(rejection(err), "permit-port-forwarding") {
			t.Errorf("%s: local forwarding: %v", way, err)
		}
		if _, err := v.Listen("tcp", "127.0.0.1:0"); err == nil {
			t.Errorf("%s: remote forwarding", way)
		}
		_ = v.Close()
	}
}
