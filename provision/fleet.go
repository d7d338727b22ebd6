// Package provision makes a fleet of sshd hosts match the plan: each host
// trusts the user CA and shows certificates of the host CA.
//
// A host goes through connect, gather, plan, upload, commit, verify and confirm.
// It never leaves a host that can't be reached: a change stays only when a new
// connection has proved it, otherwise the host undoes it by itself. It refuses
// to move private keys, to take a host's names from the host, and to change a
// host that another run holds.
package provision

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca"
	"github.com/fleetca/fleetca/inventory"
	"github.com/fleetca/fleetca/provision/remote"
)

// Config says what a Provisioner does, and to whom it talks.
type Config struct {
	// Dialer opens the connections. Required. Its HostCAs hold HostCA.
	Dialer *remote.Dialer
	// Authority signs the host certificates. Required, unless Check is set.
	Authority *ca.Authority
	// HostCA is the host CA's public key. Required.
	HostCA ssh.PublicKey
	// UserCAs are the keys that hosts shall trust for people. Required.
	UserCAs []ssh.PublicKey
	// DefaultTTL is the life of a host certificate where the inventory says
	// nothing. Required.
	DefaultTTL time.Duration
	// Forks is how many hosts are worked on at once; DefaultForks() if zero.
	Forks int
	// RollbackAfter is how long a host waits for its confirmation before it
	// puts itself back; 60 s if zero, at least 5 s.
	RollbackAfter time.Duration
	// HostTimeout bounds the whole run of one host; 5 min if zero.
	HostTimeout time.Duration
	// Check stops after the plan: nothing is written and nothing signed.
	Check bool
	// Batches takes the hosts in batches; empty means all at once.
	Batches Batches
	// MaxFailPercent ends the run when more than this share of a batch has
	// failed. Below zero never; zero at the first failure.
	MaxFailPercent int
	// Observe is called for every event, from many goroutines, and must return
	// soon. Optional.
	Observe func(Event)
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

const (
	defaultRollbackAfter = 60 * time.Second
	minRollbackAfter     = 5 * time.Second
	defaultHostTimeout   = 5 * time.Minute
)

// DefaultForks is how many hosts are worked on at once unless told otherwise:
// enough to hide the round trips of a distant fleet, few enough not to queue on
// this machine's processors.
func DefaultForks() int { return min(32*runtime.GOMAXPROCS(0), 256) }

// Provisioner provisions fleets. It is safe for concurrent use.
type Provisioner struct {
	cfg Config
}

// New returns a Provisioner, or an error that names the field of cfg that is
// missing or wrong.
func New(cfg Config) (*Provisioner, error) {
	switch {
	case cfg.Dialer == nil:
		return nil, errors.New("provision: Config.Dialer is not set")
	case cfg.HostCA == nil:
		return nil, errors.New("provision: Config.HostCA is not set")
	case len(cfg.UserCAs) == 0:
		return nil, errors.New("provision: Config.UserCAs is empty")
	case cfg.Authority == nil && !cfg.Check:
		return nil, errors.New("provision: Config.Authority is not set")
	case cfg.DefaultTTL <= 0:
		return nil, errors.New("provision: Config.DefaultTTL is not set")
	case cfg.Forks < 0:
		return nil, fmt.Errorf("provision: Config.Forks is %d", cfg.Forks)
	case cfg.MaxFailPercent > 100:
		return nil, fmt.Errorf("provision: Config.MaxFailPercent is %d", cfg.MaxFailPercent)
	case cfg.RollbackAfter != 0 && cfg.RollbackAfter < minRollbackAfter:
		return nil, fmt.Errorf("provision: Config.RollbackAfter is %s: at least %s is needed", cfg.RollbackAfter, minRollbackAfter)
	}
	if cfg.Forks == 0 {
		cfg.Forks = DefaultForks()
	}
	if cfg.RollbackAfter == 0 {
		cfg.RollbackAfter = defaultRollbackAfter
	}
	if cfg.HostTimeout == 0 {
		cfg.HostTimeout = defaultHostTimeout
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Observe == nil {
		cfg.Observe = func(Event) {}
	}
	return &Provisioner{cfg}, nil
}

// Run provisions hosts and reports on each. When ctx ends no further host is
// started; those that are being worked on come to their end, one way or the
// other, before Run returns. The report says what failed; Report.Err gathers
// it.
func (p *Provisioner) Run(ctx context.Context, hosts []*inventory.Host) *Report {
	report := &Report{Hosts: make([]HostReport, len(hosts))}
	for i, h := range hosts {
		report.Hosts[i] = HostReport{Host: h.Name, State: NotStarted}
	}
	start := 0
	for _, end := range p.cfg.Batches.split(len(hosts)) {
		if !p.batch(ctx, hosts[start:end], report.Hosts[start:end], report) {
			break
		}
		start = end
	}
	if report.Count(NotStarted) == 0 {
		report.Stopped = "" // it would have been, had there been more hosts
	} else {
		report.Interrupted = ctx.Err() != nil
	}
	return report
}

// batch works on hosts, Forks at a time, and reports whether the next batch may
// begin.
func (p *Provisioner) batch(ctx context.Context, hosts []*inventory.Host, out []HostReport, report *Report) bool {
	var (
		mu     sync.Mutex // guards failed and report
		failed int
		wg     sync.WaitGroup
		slots  = make(chan struct{}, p.cfg.Forks)
	)
	tooMany := func() bool {
		mu.Lock()
		defer mu.Unlock()
		if p.cfg.MaxFailPercent < 0 || failed == 0 || failed*100 <= p.cfg.MaxFailPercent*len(hosts) {
			return false
		}
		if report.Stopped == "" {
			report.Stopped = fmt.Sprintf("%d of %d hosts failed", failed, len(hosts))
		}
		return true
	}
	for i, h := range hosts {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil || tooMany() {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			// A host that was begun is brought to its end: Ctrl-C must not leave
			// it to the rollback.
			out[i] = p.host(context.WithoutCancel(ctx), h)
			if out[i].Err != nil {
				mu.Lock()
				failed++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return ctx.Err() == nil && !tooMany()
}
