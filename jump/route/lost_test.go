package route

import (
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// TestChannelOfALostHost holds that a channel that is asked for in the moment in
// which the connection is lost is refused, and doesn't wait for ever (see conn).
// Without that, about one in twenty-five does.
func TestChannelOfALostHost(t *testing.T) {
	hostCA, userCA := newKey(t), newKey(t)
	config := serverConfig(t, hostCA, "web1")
	addr := listen(t, func(c net.Conn) {
		conn, channels, requests, err := ssh.NewServerConn(c, config)
		if err != nil {
			return
		}
		go ssh.DiscardRequests(requests)
		if first, ok := <-channels; ok {
			if _, requests, err := first.Accept(); err == nil {
				go ssh.DiscardRequests(requests)
			}
		}
		_ = c.Close()
		_ = conn.Wait()
	})
	r := routerFor(t, Config{HostCAs: []ssh.PublicKey{hostCA.PublicKey()}}, nil, map[string]string{"web1": addr})
	d, signer := resolve(t, r, "web1"), user(t, userCA, "root")
	for range 200 {
		u, err := r.Dial(t.Context(), d, "root", signer, nil)
		if err != nil {
			t.Fatal(err)
		}
		if ch, requests, err := u.Conn.OpenChannel("session", nil); err == nil {
			go ssh.DiscardRequests(requests)
			_, _ = io.Copy(io.Discard, ch)
		}
		ended := make(chan error, 1)
		go func() {
			_, _, err := u.Conn.OpenChannel("session", nil)
			ended <- err
		}()
		_ = u.Close()
		select {
		case err := <-ended:
			if err == nil {
				t.Error("a lost host opens a channel")
			}
		case <-time.After(20 * time.Second):
			t.Fatal("the channel is never refused")
		}
	}
}
