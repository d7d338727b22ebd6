package remote

import (
	"errors"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// lastWord is how long a channel that was asked for may take to be refused once
// the connection has ended.
const lastWord = time.Second

var errLost = errors.New("the connection to the host was lost")

// lossy is a connection on which nobody waits for ever for a channel.
//
// When a connection is lost, x/crypto (v0.58) ends the channels that it knows,
// and refuses to write only a moment later: its reader closes the queue of
// packets (handshakeTransport.readLoop), whereupon mux.loop drops all channels,
// and then records the failure; and the first write that fails returns no error
// (handshakeTransport.writePacket). A channel that is asked for in between is
// known to nobody, and mux.openChannel waits for its answer whatever is closed
// afterwards. That goroutine can't be ended; its caller can be told. Conn asks
// for a spare channel whenever one is taken, so it happened to about one in
// thirty connections that were lost at work, and Close waited for ever.
//
// The same stands in jump/route: no package below both has to do with
// connections.
type lossy struct {
	ssh.Conn
	watch func() <-chan struct{} // gives what is closed when the connection has ended
}

func newLossy(c ssh.Conn) *lossy {
	return &lossy{Conn: c, watch: sync.OnceValue(func() <-chan struct{} {
		ended := make(chan struct{})
		go func() {
			_ = c.Wait() // how it ended is for others to tell
			close(ended)
		}()
		return ended
	})}
}

func (c *lossy) OpenChannel(name string, data []byte) (ssh.Channel, <-chan *ssh.Request, error) {
	type opened struct {
		channel  ssh.Channel
		requests <-chan *ssh.Request
		err      error
	}
	done := make(chan opened, 1)
	go func() {
		channel, requests, err := c.Conn.OpenChannel(name, data)
		done <- opened{channel, requests, err}
	}()
	select {
	case o := <-done:
		return o.channel, o.requests, o.err
	case <-c.watch():
	}
	select {
	case o := <-done:
		return o.channel, o.requests, o.err
	case <-time.After(lastWord):
		return nil, nil, errLost
	}
}
