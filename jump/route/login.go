package route

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	maxBanner = 16 << 10
	// patience is how long a signature or a host may take before the person is
	// told what is being waited for.
	patience = 3 * time.Second
)

// contextSigner is a signer that can be interrupted.
type contextSigner interface {
	signContext(ctx context.Context, data []byte, algorithm string) (*ssh.Signature, error)
}

// login is the part of an attempt in which we say who we are. It offers one
// certificate, once.
type login struct {
	signer ssh.Signer
	cert   *ssh.Certificate
	ctx    func() context.Context // of the attempt, which the library doesn't pass on
	clocks []*budget              // that stand still during a signature
	tell   *teller

	// x/crypto logs in on the goroutine that asked it for a connection.
	began   bool     // the host has said what it takes
	methods []string // those that the host takes
	partial bool
	signed  bool
	err     error // of the signer
	banner  strings.Builder
}

var errNothingLeft = errors.New("nothing left to offer")

// next is the ssh.ClientAuthCallback.
func (l *login) next(c *ssh.ClientAuthContext) (ssh.AuthMethod, error) {
	l.began, l.methods = true, c.AllowedMethods
	l.partial = len(c.PartialSuccessMethods) > 0
	if l.partial || slices.Contains(c.TriedMethods, "publickey") || !slices.Contains(c.AllowedMethods, "publickey") {
		return nil, errNothingLeft
	}
	return ssh.PublicKeys((*offer)(l)), nil
}

func (l *login) hear(banner string) error {
	l.banner.WriteString(banner[:min(len(banner), maxBanner-l.banner.Len())])
	return nil
}

// offer is the login as a signer: while the agent signs, perhaps only after a
// person has confirmed it, no time is counted, and SHA-1 is never signed with.
type offer login

var _ ssh.MultiAlgorithmSigner = (*offer)(nil)

func (o *offer) PublicKey() ssh.PublicKey { return o.cert }

func (o *offer) Algorithms() []string {
	ours := signatureAlgorithms(o.cert)
	if s, ok := o.signer.(ssh.MultiAlgorithmSigner); ok {
		ours = slices.DeleteFunc(ours, func(a string) bool { return !slices.Contains(s.Algorithms(), a) })
	}
	return ours
}

func (o *offer) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return o.SignWithAlgorithm(rand, data, signatureAlgorithms(o.cert)[0])
}

func (o *offer) SignWithAlgorithm(rand io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	for _, b := range o.clocks {
		b.pause()
		defer b.resume()
	}
	defer o.tell.after(patience, "waiting for your ssh-agent to sign (does it ask for confirmation or a touch?)")()
	signature, err := o.sign(rand, data, algorithm)
	o.signed, o.err = err == nil, err
	return signature, err
}

func (o *offer) sign(rand io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	if s, ok := o.signer.(contextSigner); ok {
		return s.signContext(o.ctx(), data, algorithm)
	}
	if s, ok := o.signer.(ssh.AlgorithmSigner); ok {
		return s.SignWithAlgorithm(rand, data, algorithm)
	}
	signature, err := o.signer.Sign(rand, data)
	if err == nil && signature.Format != algorithm {
		return nil, fmt.Errorf("the signer signs as %q, not as %q", signature.Format, algorithm)
	}
	return signature, err
}
