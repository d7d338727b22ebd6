package jump

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

// streamConn is the connection within a channel: bytes go through the channel,
// and the remote address is the client's real one, so that source-address holds
// on the inner connection too.
type streamConn struct {
	ssh.Channel
	local, remote net.Addr

	// checked is how much of sshPrefix has been seen. It belongs to the one
	// goroutine that reads.
	checked    int
	looksRight atomic.Bool // all of it
}

func newStreamConn(ch ssh.Channel, local net.Addr, client netip.AddrPort) *streamConn {
	return &streamConn{Channel: ch, local: local, remote: net.TCPAddrFromAddrPort(client)}
}

// sshPrefix is what an SSH identification string begins with (RFC 4253 §4.2).
// x/crypto would skip other lines before it, which only servers may send.
const sshPrefix = "SSH-2.0-"

var errNotSSH = errors.New("what came was not SSH")

// Read refuses what doesn't begin as SSH does.
func (c *streamConn) Read(p []byte) (int, error) {
	n, err := c.Channel.Read(p)
	for i := 0; i < n && c.checked < len(sshPrefix); i++ {
		if p[i] != sshPrefix[c.checked] {
			return 0, errNotSSH
		}
		if c.checked++; c.checked == len(sshPrefix) {
			c.looksRight.Store(true)
		}
	}
	return n, err
}

// Close leaves the channel open while nothing has come that looks like SSH: its
// owner may want to say so, and closes it.
func (c *streamConn) Close() error {
	if !c.looksRight.Load() {
		return nil
	}
	return c.Channel.Close()
}

func (c *streamConn) LocalAddr() net.Addr  { return c.local }
func (c *streamConn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline and its like have no meaning for a channel; who needs a limit
// closes the channel.
func (c *streamConn) SetDeadline(time.Time) error      { return nil }
func (c *streamConn) SetReadDeadline(time.Time) error  { return nil }
func (c *streamConn) SetWriteDeadline(time.Time) error { return nil }

// proxyRequest is what a client asks for by the subsystem
// proxy:HOST:PORT[@CLUSTER].
type proxyRequest struct {
	Host    string
	Port    int // 0: none was given
	Cluster string
}

const proxyPrefix = "proxy:"

// maxProxyRequest is the longest such request, in bytes.
const maxProxyRequest = 1024

// parseProxy reads a subsystem's name. It is false where that isn't about us,
// and an error where it is wrong.
func parseProxy(subsystem string) (proxyRequest, bool, error) {
	var r proxyRequest
	rest, ok := strings.CutPrefix(subsystem, proxyPrefix)
	if !ok {
		return r, false, nil
	}
	if len(subsystem) > maxProxyRequest {
		return r, true, errors.New("the request proxy:… is too long")
	}
	wrong := func(why string) (proxyRequest, bool, error) {
		return proxyRequest{}, true, fmt.Errorf("%q is not proxy:HOST:PORT or proxy:HOST:PORT@CLUSTER: %s", subsystem, why)
	}
	address, cluster, given := strings.Cut(rest, "@")
	if given && (cluster == "" || strings.Contains(cluster, "@")) {
		return wrong("there is no cluster after @")
	}
	host, port := address, ""
	switch {
	case strings.HasPrefix(address, "["):
		end := strings.IndexByte(address, ']')
		if end < 0 {
			return wrong("a bracket is open")
		}
		host = address[1:end]
		after := address[end+1:]
		if after != "" {
			if port, ok = strings.CutPrefix(after, ":"); !ok {
				return wrong("something follows the bracket")
			}
			if port == "" {
				return wrong("there is no port after the colon")
			}
		}
	case strings.Count(address, ":") == 1:
		host, port, _ = strings.Cut(address, ":")
		if port == "" {
			return wrong("there is no port after the colon")
		}
	case strings.Count(address, ":") > 1:
		// An IPv6 address without brackets, as ssh's %h gives it: the last part
		// is the port. It will be refused as an address, by name.
		i := strings.LastIndexByte(address, ':')
		host, port = address[:i], address[i+1:]
	}
	if host == "" {
		return wrong("there is no host")
	}
	if port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || port[0] == '0' || port[0] == '+' {
			return wrong(fmt.Sprintf("%q is not a port", port))
		}
		r.Port = int(n)
	}
	r.Host, r.Cluster = host, cluster
	return r, true, nil
}
