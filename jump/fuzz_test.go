package jump

import (
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/fleetca/fleetca/cmd/terminal"
)

// FuzzParseProxy: whatever a client asks for, it is refused or means one host and
// one port, and asking for that again means the same.
func FuzzParseProxy(f *testing.F) {
	for _, seed := range []string{
		"", "sftp", "proxy:", "proxy:web1", "proxy:web1:22", "proxy:web1:22@main", "proxy:web1@main", "proxy:@", "proxy:web1:@", "proxy:web1:0",
		"proxy:web1:65535", "proxy:web1:65536", "proxy:web1:-1", "proxy:web1:+22", "proxy:web1:022", "proxy:web1:22 ", "proxy: web1:22",
		"proxy:[::1]:22", "proxy:[::1]", "proxy:[::1", "proxy:[]:22", "proxy:[::1]22", "proxy:::1:22", "proxy:fe80::1%eth0:22", "proxy:web1:22:23",
		"proxy:web1:22@a@b", "proxy:web1\x00:22", "proxy:\x1b]0;x\a:22", "proxy:web1\n:22", "PROXY:web1:22", "proxy:web1:２２", "proxy:\xff\xfe:22",
		"proxy:" + strings.Repeat("a", 1018), "proxy:" + strings.Repeat("a", 1019), "proxy:web1:99999999999999999999",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, subsystem string) {
		r, ours, err := parseProxy(subsystem)
		if ours != strings.HasPrefix(subsystem, "proxy:") {
			t.Fatalf("%q: ours is %v", subsystem, ours)
		}
		if !ours || err != nil {
			if r != (proxyRequest{}) {
				t.Fatalf("%q: refused, and yet %+v", subsystem, r)
			}
			if err != nil && terminal.Clean(err.Error()) != err.Error() {
				t.Fatalf("%q: the error %q is not fit to be shown", subsystem, err)
			}
			return
		}
		if r.Host == "" || r.Port < 0 || r.Port > 65535 || len(subsystem) > maxProxyRequest ||
			!strings.Contains(subsystem, r.Host) || strings.Contains(r.Cluster, "@") {
			t.Fatalf("%q: %+v", subsystem, r)
		}
		if strings.ContainsAny(r.Host, "[]@") {
			return // it is no name; Resolve refuses it
		}
		again := proxyPrefix + r.Host
		if r.Port != 0 {
			again = proxyPrefix + net.JoinHostPort(r.Host, strconv.Itoa(r.Port))
		} else if strings.Contains(r.Host, ":") {
			again = proxyPrefix + "[" + r.Host + "]"
		}
		if r.Cluster != "" {
			again += "@" + r.Cluster
		}
		if len(again) > maxProxyRequest {
			return
		}
		if same, _, err := parseProxy(again); err != nil || same != r {
			t.Fatalf("%q: %+v, and %q: %+v, %v", subsystem, r, again, same, err)
		}
	})
}
