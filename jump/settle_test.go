package jump

import (
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
)

type silentChannel struct {
	ssh.Channel
	closed int
}

func (c *silentChannel) Close() error {
	c.closed++
	return nil
}

type silentConn struct{ closed chan struct{} }

func (c *silentConn) Close() error {
	close(c.closed)
	return nil
}

// TestSettle: a client that doesn't close a channel that we have closed, whose
// buffers x/crypto keeps, loses its connection; the place isn't free before.
func TestSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ch, conn := &silentChannel{}, &silentConn{make(chan struct{})}
		begun := time.Now()
		settle(ch, conn.closed, conn) // its end ends the channel as well
		if took := time.Since(begun); took != closeTime || ch.closed != 1 {
			t.Errorf("it took %v, and %d closes", took, ch.closed)
		}
		gone := make(chan struct{})
		time.AfterFunc(time.Second, func() { close(gone) })
		begun = time.Now()
		settle(ch, gone, &silentConn{}) // closing a nil channel would panic
		if took := time.Since(begun); took != time.Second {
			t.Errorf("it took %v", took)
		}
	})
}
