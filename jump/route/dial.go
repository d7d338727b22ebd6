package route

import (
	"context"
	"errors"

	"golang.org/x/crypto/ssh"
)

// Upstream is a connection to a host that has let us in.
type Upstream struct {
	// Conn, Channels and Requests are as ssh.NewClientConn returns them; the
	// caller must serve both channels until they are closed.
	Conn     ssh.Conn
	Channels <-chan ssh.NewChannel
	Requests <-chan *ssh.Request
	// HostKey is what the host has shown: an *ssh.Certificate if one was
	// required.
	HostKey ssh.PublicKey
	// Address is host:port as connected to, with the address that was reached.
	Address string
	// Banner is what the host said before it let us in, cut off at 16 KiB. It
	// is untrusted text.
	Banner string
	// Attempts is how many connections it took.
	Attempts int
}

// Dial connects to the destination and logs in with the signer, which should be
// a certificate's. See the package's errors for what can go wrong.
//
// notice, if not nil, is called from the calling goroutine with one line of
// clean text whenever the person should know why it takes time.
//
// ctx bounds Dial, not the connection that it returns.
func (r *Router) Dial(ctx context.Context, d Destination, login string, signer ssh.Signer, notice func(string)) (*Upstream, error) {
	return nil, errors.New("not finished")
}
