package jump

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/jump/audit"
	"github.com/fleetca/fleetca/jump/config"
	"github.com/fleetca/fleetca/jump/console"
	"github.com/fleetca/fleetca/jump/live"
	"github.com/fleetca/fleetca/jump/recording"
	"github.com/fleetca/fleetca/jump/route"
	"github.com/fleetca/fleetca/jump/store"
)

// Config is what a Server is made of. It isn't changed afterwards.
type Config struct {
	// Settings are what jump.yaml says. Required.
	Settings *config.Config
	// Reload reads it again, with warnings. Nil: the settings never change.
	Reload func(context.Context) (*config.Config, []string, error)
	// Store and Audit take what happens. Required; the caller closes them after
	// Serve has returned.
	Store store.Store
	Audit *audit.Log
	// Software names this program and its version in recordings.
	Software string
	// Log takes what operators care for; nil discards it.
	Log *slog.Logger
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// Server is a jump host. Its methods may be called concurrently.
type Server struct {
	cfg      Config
	log      *slog.Logger
	now      func() time.Time
	recorder *recording.Recorder
	live     *live.Registry
	console  *console.Console
	settings atomic.Pointer[settings]
	limits   limits
	unsealed unsealed

	listeners []net.Listener
	admin     net.Listener
	draining  atomic.Bool

	mu     sync.Mutex // guards outers
	outers map[*outer]struct{}
	// conns counts the goroutines of connections; Serve waits for them.
	conns sync.WaitGroup
}

// settings are what a connection is served by from its beginning to its end.
type settings struct {
	config *config.Config
	router *route.Router
	mint   *mint
}

// New checks the configuration and makes a Server that doesn't listen yet.
func New(c Config) (*Server, error) {
	switch {
	case c.Settings == nil:
		return nil, errors.New("jump server: Settings are missing")
	case c.Store == nil:
		return nil, errors.New("jump server: Store is missing")
	case c.Audit == nil:
		return nil, errors.New("jump server: Audit is missing")
	}
	s := &Server{cfg: c, log: c.Log, now: c.Now, live: live.New(), outers: map[*outer]struct{}{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.recorder = recording.New(recording.Config{
		Store: c.Store, Now: s.now, MaxStream: c.Settings.MaxStream, Software: c.Software, Log: s.log,
	})
	s.console = console.New(console.Config{Store: c.Store, Audit: c.Audit, Live: s.live, Now: s.now})
	set, err := s.prepare(c.Settings)
	if err != nil {
		return nil, err
	}
	s.settings.Store(set)
	return s, nil
}

// prepare makes what connections are served by out of a configuration.
func (s *Server) prepare(c *config.Config) (*settings, error) {
	router, err := route.New(route.Config{
		Inventory: c.Inventory, HostCAs: c.HostCAs, RequireCertificate: c.RequireHostCertificate,
		Revoked:    func(k ssh.PublicKey) bool { return c.Revoked != nil && c.Revoked.Revoked(k) },
		KnownHosts: c.KnownHosts, DialTimeout: c.DialTimeout, KeepAlive: c.KeepAlive, Now: s.now, Log: s.log,
	})
	if err != nil {
		return nil, fmt.Errorf("jump server: %w", err)
	}
	if c.JumpCA == nil || c.HostSigner == nil {
		return nil, errors.New("jump server: the jump CA's key and the host key are needed")
	}
	m, err := newMint(c.JumpCA, s.now)
	if err != nil {
		return nil, err
	}
	return &settings{config: c, router: router, mint: m}, nil
}

// Listen opens the listeners that the configuration names. It is called once,
// before Serve.
func (s *Server) Listen(ctx context.Context) error {
	c := s.settings.Load().config
	var lc net.ListenConfig
	for _, address := range c.Listen {
		l, err := lc.Listen(ctx, "tcp", address)
		if err != nil {
			s.closeListeners()
			return fmt.Errorf("listening on %s: %w", address, err)
		}
		s.listeners = append(s.listeners, l)
	}
	if len(s.listeners) == 0 {
		return errors.New("there is no address to listen on")
	}
	if c.AdminSocket != "" {
		l, err := listenAdmin(ctx, c.AdminSocket)
		if err != nil {
			s.closeListeners()
			return err
		}
		s.admin = l
	}
	return nil
}

// Addresses are where it listens.
func (s *Server) Addresses() []net.Addr {
	out := make([]net.Addr, len(s.listeners))
	for i, l := range s.listeners {
		out[i] = l.Addr()
	}
	return out
}

func (s *Server) closeClientListeners() {
	for _, l := range s.listeners {
		_ = l.Close()
	}
}

func (s *Server) closeListeners() {
	s.closeClientListeners()
	if s.admin != nil {
		_ = s.admin.Close()
	}
}

// Serve serves until ctx ends, then takes no new sessions, gives the running ones
// the drain timeout, ends what is left, and returns when all is recorded.
func (s *Server) Serve(ctx context.Context) error {
	// What connections do outlives ctx by the drain; hard ends all of it.
	hard, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var accepting sync.WaitGroup
	for _, l := range s.listeners {
		accepting.Go(func() { s.accept(hard, l, s.serveClient) })
	}
	if s.admin != nil {
		accepting.Go(func() { s.accept(hard, s.admin, s.serveAdmin) })
	}
	var watching sync.WaitGroup
	watching.Go(func() { s.watchFiles(ctx) })
	watching.Go(func() { s.watchSpace(hard) })
	watching.Go(func() { s.retain(ctx) })

	<-ctx.Done()
	s.draining.Store(true)
	// The admin socket stays for the drain: who waits for it wants to see for
	// whom, and may end them.
	s.closeClientListeners()
	s.drain()
	s.closeListeners()
	accepting.Wait()
	cancel()
	s.conns.Wait()
	watching.Wait()
	s.recorder.Wait()
	return s.cfg.Audit.Sync(context.WithoutCancel(ctx))
}

// drain waits for the running sessions, and ends them when their time is over.
func (s *Server) drain() {
	timeout := s.settings.Load().config.DrainTimeout
	if n := s.live.Len(); n > 0 {
		s.log.Info("draining", "sessions", n, "timeout", timeout)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if s.live.Wait(ctx) == nil {
		return
	}
	s.live.EndAll(draining().text)
	ctx, cancel = context.WithTimeout(context.Background(), sealTime)
	defer cancel()
	if err := s.live.Wait(ctx); err != nil {
		s.log.Warn("sessions did not end in time", "sessions", s.live.Len())
	}
}

// sealTime is how long sessions that were ended may take to seal their
// recordings.
const sealTime = 10 * time.Second

// accept serves each connection in a goroutine of its own.
func (s *Server) accept(ctx context.Context, l net.Listener, serve func(context.Context, net.Conn)) {
	for pause := time.Duration(0); ; {
		conn, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of file descriptors, most likely: it passes.
			s.log.Error("accepting a connection failed", "error", err)
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			select {
			case <-time.After(pause):
				continue
			case <-ctx.Done():
				return
			}
		}
		pause = 0
		s.conns.Go(func() { serve(ctx, conn) })
	}
}
