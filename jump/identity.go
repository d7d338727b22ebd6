package jump

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"unicode"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca/trust"
	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/jump/access"
	"github.com/fleetca/fleetca/jump/route"
)

// person is who somebody has proved to be, by the signature of the key in a
// certificate. It is made in verified and nowhere else.
type person struct {
	identity string
	cert     *ssh.Certificate
	client   netip.AddrPort
}

// certificate is what access decides by.
func (p *person) certificate() access.Certificate {
	return access.Certificate{
		Principals:   p.cert.ValidPrincipals,
		Extensions:   p.cert.Extensions,
		ForceCommand: p.cert.CriticalOptions["force-command"],
	}
}

// maxIdentity is the longest key ID that is taken for an identity, in bytes.
const maxIdentity = 253

// personKey is where a verified person is kept in ssh.Permissions.
type personKey struct{}

// authenticator lets one connection in, or not. It gathers why keys were
// refused, for the log, the audit and the person.
type authenticator struct {
	server *Server
	client netip.AddrPort
	// want is whom the outer connection belongs to; nil on that itself.
	want *person

	mu     sync.Mutex
	banner ssh.ServerPreAuthConn
	// refused is the most telling refusal so far.
	refused *refusal
	told    bool
}

// authAlgorithms are the signature algorithms that clients may prove a key
// with: SHA-1 is not among them.
var authAlgorithms = []string{
	ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
	ssh.KeyAlgoSKECDSA256, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512,
}

// config is what x/crypto needs to serve one connection.
func (a *authenticator) config(hostKeys ...ssh.Signer) *ssh.ServerConfig {
	c := &ssh.ServerConfig{
		Config:                    route.Algorithms(),
		ServerVersion:             serverVersion,
		MaxAuthTries:              maxAuthTries,
		PublicKeyAuthAlgorithms:   authAlgorithms,
		PublicKeyCallback:         a.offered,
		VerifiedPublicKeyCallback: a.verified,
		// ssh comes here once all its keys were refused: the only moment at
		// which a person can be told what all of them lacked.
		KeyboardInteractiveCallback: a.exhausted,
		PreAuthConnCallback: func(c ssh.ServerPreAuthConn) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.banner = c
		},
	}
	for _, key := range hostKeys {
		c.AddHostKey(key)
	}
	return c
}

const (
	// ssh tells only servers that call themselves OpenSSH when nobody reads a
	// session's output any more (eow@openssh.com): "ssh host yes | head" would
	// never end. The comment after it says what we are.
	serverVersion = "SSH-2.0-OpenSSH_9.2 fleetjump"
	// maxAuthTries is more than sshd's 6: agents hold keys for other places,
	// and those that are only offered count as well.
	maxAuthTries = 20
)

// errNotLetIn is all that the protocol says; the banner says more.
var errNotLetIn = errors.New("not let in")

// offered says whether a key may be used. Nothing is known of the client yet:
// it may not have the key.
func (a *authenticator) offered(conn ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	cert, refused := a.check(key)
	if refused != nil {
		a.note(refused)
		return nil, errNotLetIn
	}
	// x/crypto checks the source address too, before and after the signature.
	perms := &ssh.Permissions{}
	if list, bound := cert.CriticalOptions["source-address"]; bound {
		perms.CriticalOptions = map[string]string{"source-address": list}
	}
	return perms, nil
}

// verified comes after the client's signature was found good.
func (a *authenticator) verified(conn ssh.ConnMetadata, key ssh.PublicKey, perms *ssh.Permissions, _ string) (*ssh.Permissions, error) {
	cert, refused := a.check(key)
	if refused != nil {
		a.note(refused)
		return nil, errNotLetIn
	}
	p := &person{identity: cert.KeyId, cert: cert, client: a.client}
	if a.want != nil && a.want.identity != p.identity {
		a.note(refusef(codeIdentity, "use the same certificate for both",
			"you are %q towards the jump host and %q within that connection", a.want.identity, p.identity))
		return nil, errNotLetIn
	}
	perms.ExtraData = map[any]any{personKey{}: p}
	return perms, nil
}

// check says whether a key is a certificate that lets somebody in.
func (a *authenticator) check(key ssh.PublicKey) (*ssh.Certificate, *refusal) {
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return nil, refusef(codePlainKey, "get a certificate of the user CA and load it: ssh-add KEY, with KEY-cert.pub beside it",
			"the jump host lets in user certificates only, and got the plain key %s", ssh.FingerprintSHA256(key))
	}
	// The present settings, not those that the connection began with: what was
	// revoked meanwhile lets nobody in within it either.
	cfg := a.server.settings.Load().config
	err := trust.UserCertificate(cert, cfg.UserCAs, trust.Use{AnyLogin: true, Source: a.client.Addr(), ForceCommand: true}, a.server.now())
	switch {
	case errors.Is(err, trust.ErrExpired), errors.Is(err, trust.ErrNotYetValid):
		return nil, &refusal{codeExpired, err.Error(), "get a new certificate, or check the clocks"}
	case errors.Is(err, trust.ErrUnknownAuthority):
		return nil, &refusal{codeCertificate, err.Error(), "the jump host trusts other user CAs: check user_cas in jump.yaml"}
	case err != nil:
		return nil, &refusal{codeCertificate, err.Error(), "get another certificate"}
	case cfg.Revoked != nil && cfg.Revoked.Revoked(cert):
		return nil, refusef(codeRevoked, "get a new certificate", "certificate of %q with serial %d is revoked", cert.KeyId, cert.Serial)
	}
	if err := checkIdentity(cert.KeyId); err != nil {
		return nil, &refusal{codeCertificate, err.Error(), "get a certificate with a key ID that names you"}
	}
	return cert, nil
}

func checkIdentity(id string) error {
	if id == "" {
		return errors.New("the certificate has no key ID, so it doesn't say who you are")
	}
	if len(id) > maxIdentity || strings.ContainsFunc(id, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
		return fmt.Errorf("the certificate's key ID %.60q can't be an identity", id)
	}
	return nil
}

// note remembers a refusal, and tells the person at once what is wrong with a
// certificate. Plain keys are passed over: ssh often offers a key first and its
// certificate next.
func (a *authenticator) note(r *refusal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.refused == nil || a.refused.code == codePlainKey {
		a.refused = r
	}
	if r.code != codePlainKey {
		a.say(r)
	}
}

// exhausted is called when the client has no key left.
func (a *authenticator) exhausted(ssh.ConnMetadata, ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.refused == nil {
		a.refused = &refusal{
			codePlainKey, "the jump host lets in user certificates only, and got no key at all",
			"get a certificate of the user CA and load it: ssh-add KEY, with KEY-cert.pub beside it",
		}
	}
	if !a.told {
		a.say(a.refused)
	}
	return nil, errNotLetIn
}

// say is called with mu held. A client that doesn't read its banners is cut
// off by the time limit for logging in.
func (a *authenticator) say(r *refusal) {
	if a.banner == nil {
		return
	}
	a.told = true
	_ = a.banner.SendAuthBanner(strings.ReplaceAll(r.lines(), "\r", ""))
}

// shookHands tells whether the key exchange was completed.
func (a *authenticator) shookHands() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.banner != nil
}

// failure is why nobody was let in. err is what the handshake returned.
func (a *authenticator) failure(err error) *refusal {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.refused != nil {
		return a.refused
	}
	return &refusal{codeProtocol, "no login: " + terminal.Clean(err.Error()), ""}
}

// personOf is who a finished handshake has proved.
func personOf(conn *ssh.ServerConn) (*person, error) {
	if conn.Permissions != nil {
		if p, ok := conn.Permissions.ExtraData[personKey{}].(*person); ok {
			return p, nil
		}
	}
	return nil, errors.New("the connection has no verified identity")
}

// addrPort is a connection's remote address.
func addrPort(a net.Addr) (netip.AddrPort, error) {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("%v is not a TCP address", a)
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}
