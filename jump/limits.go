package jump

import (
	"net/netip"
	"sync"

	"github.com/fleetca/fleetca/jump/config"
)

// limits counts connections: all, those that have not logged in yet, and those
// of one identity. The zero value is ready for use.
type limits struct {
	mu              sync.Mutex
	all             int
	unauthenticated int
	byAddress       map[netip.Addr]int // unauthenticated ones
	byIdentity      map[string]int
}

// arrive counts a connection that has just been accepted, or says why not.
func (l *limits) arrive(from netip.Addr, max config.Limits) *refusal {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.all >= max.Connections:
		return &refusal{codeLimit, "too many connections", "try again later; limits are in jump.yaml"}
	case l.unauthenticated >= max.Unauthenticated, l.byAddress[from] >= perAddress(max.Unauthenticated):
		return &refusal{codeLimit, "too many connections that have not logged in", "try again later; limits are in jump.yaml"}
	}
	l.all++
	l.unauthenticated++
	if l.byAddress == nil {
		l.byAddress = map[netip.Addr]int{}
	}
	l.byAddress[from]++
	return nil
}

// perAddress leaves room for others when one address opens many.
func perAddress(unauthenticated int) int { return max(1, unauthenticated/2) }

// settled counts a connection no longer as one that has not logged in.
func (l *limits) settled(from netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unauthenticated--
	if l.byAddress[from]--; l.byAddress[from] <= 0 {
		delete(l.byAddress, from)
	}
}

// leave ends what arrive began.
func (l *limits) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
}

// login counts a connection for an identity, or says that there are too many.
func (l *limits) login(identity string, max config.Limits) (leave func(), refused *refusal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byIdentity[identity] >= max.PerIdentity {
		return nil, refusef(codeLimit, "close some; limits are in jump.yaml", "%q has %d connections, which is the limit", identity, max.PerIdentity)
	}
	if l.byIdentity == nil {
		l.byIdentity = map[string]int{}
	}
	l.byIdentity[identity]++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.byIdentity[identity]--; l.byIdentity[identity] <= 0 {
			delete(l.byIdentity, identity)
		}
	}, nil
}

// counter counts what is open at a time, at most max unless that is 0.
type counter struct {
	mu      sync.Mutex
	n       int
	max     int
	waiting []chan struct{}
}

func (c *counter) add() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.max > 0 && c.n >= c.max {
		return false
	}
	c.n++
	return true
}

func (c *counter) done() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n--; c.n == 0 {
		for _, w := range c.waiting {
			close(w)
		}
		c.waiting = nil
	}
}

// empty gives a channel that is closed as soon as nothing is open.
func (c *counter) empty() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := make(chan struct{})
	if c.n == 0 {
		close(w)
	} else {
		c.waiting = append(c.waiting, w)
	}
	return w
}
