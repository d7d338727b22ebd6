//go:build linux

package testenv

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
)

// ports are the TCP ports that a fleet has taken, for as long as it lives:
// a server that is stopped for a while must find its port free again.
//
// A port is taken by binding an abstract Unix socket named after it, which
// other fleets on the machine respect and which the kernel frees when this
// process dies. Others are avoided by staying below the range from which
// outgoing connections get their ports, and by trying.
type ports struct {
	mu    sync.Mutex
	taken []net.Listener
}

const lowestPort = 10240

func (p *ports) take() (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	highest := 65535
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		if fields := strings.Fields(string(text)); len(fields) == 2 {
			if low, err := strconv.Atoi(fields[0]); err == nil && low > lowestPort+2000 {
				highest = low
			}
		}
	}
	for range 1000 {
		port := lowestPort + rand.N(highest-lowestPort)
		taken, err := net.Listen("unix", "@fleetca-testenv/port/"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		probe, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			_ = taken.Close()
			continue
		}
		if err := probe.Close(); err != nil {
			return 0, fmt.Errorf("giving up a port that was tried: %w", err)
		}
		p.taken = append(p.taken, taken)
		return port, nil
	}
	return 0, errors.New("finding a free port: all that were tried are in use")
}

func (p *ports) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.taken {
		_ = l.Close()
	}
	p.taken = nil
}
