package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/jump"
	"github.com/fleetca/fleetca/jump/audit"
	"github.com/fleetca/fleetca/jump/config"
	"github.com/fleetca/fleetca/jump/store"
	"github.com/fleetca/fleetca/jump/store/badgerstore"
)

// serveCmd is "fleetjump serve".
type serveCmd struct {
	LogFormat string `enum:"text,json" default:"text" help:"Log lines on stderr: text or json."`
	Verbose   bool   `short:"v" help:"Log more."`
}

// Help is shown below the flags' summary.
func (*serveCmd) Help() string {
	return `Runs in the foreground until SIGINT or SIGTERM; then it takes no new sessions,
gives the running ones drain_timeout and seals their recordings. A second signal
ends it at once. SIGHUP rereads the configuration, which is also reread when its
files change; running sessions go on.

` + exitCodesHelp
}

// Run serves until ctx ends.
func (c *serveCmd) Run(ctx context.Context, a *program.App, path configPath) (err error) {
	log := c.logger(a)
	// From the first moment to the last: a SIGHUP that nobody takes ends the
	// process, and the recordings of a server that drains would have no seal.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	cfg, err := loadConfig(ctx, log, path)
	if err != nil {
		return err
	}
	st, err := badgerstore.Open(ctx, storeConfig(cfg, log))
	if err != nil {
		return storeHint(err)
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	journal, err := audit.Open(ctx, audit.Config{Dir: cfg.AuditDir, Store: st, ServerID: cfg.Name, Now: a.Now, Log: log})
	if err != nil {
		return fmt.Errorf("opening the audit log: %w", err)
	}
	defer func() { err = errors.Join(err, journal.Close()) }()
	server, err := jump.New(jump.Config{
		Settings: cfg, Store: st, Audit: journal, Log: log, Now: a.Now, Software: "fleetjump " + program.Version(),
		Reload: func(ctx context.Context) (*config.Config, []string, error) { return config.Load(ctx, string(path)) },
	})
	if err != nil {
		return err
	}
	if err := server.Listen(ctx); err != nil {
		return err
	}
	for _, address := range server.Addresses() {
		log.Info("listening", "address", address.String())
	}
	yes := true
	if err := journal.Record(ctx, audit.Event{Event: audit.EventServerStart, Success: &yes}); err != nil {
		return err
	}
	var reloading sync.WaitGroup
	reloading.Go(func() { reloadOnHangup(ctx, server, hangups) })
	err = server.Serve(ctx)
	reloading.Wait()
	stop := journal.Record(context.WithoutCancel(ctx), audit.Event{Event: audit.EventServerStop, Success: &yes})
	log.Info("stopped")
	return errors.Join(err, stop)
}

func (c *serveCmd) logger(a *program.App) *slog.Logger {
	options := &slog.HandlerOptions{Level: slog.LevelInfo}
	if c.Verbose {
		options.Level = slog.LevelDebug
	}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(a.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(a.Stderr, options))
}

// loadConfig reads jump.yaml; its warnings go to the log.
func loadConfig(ctx context.Context, log *slog.Logger, path configPath) (*config.Config, error) {
	cfg, warnings, err := config.Load(ctx, string(path))
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = terminal.Hint(err, "fleetca jump init makes one; --config says where it is")
		}
		return nil, program.WithCode(program.ExitUsage, err)
	}
	for _, w := range warnings {
		log.Warn("configuration", "warning", strings.TrimSpace(terminal.Clean(w)))
	}
	return cfg, nil
}

// storeConfig is how the store of a configuration is opened.
func storeConfig(cfg *config.Config, log *slog.Logger) badgerstore.Config {
	return badgerstore.Config{
		Dir: cfg.Store.Dir, Reserve: cfg.Store.Reserve, CloseReserve: cfg.Store.CloseReserve, Ballast: cfg.Store.Ballast, Log: log,
	}
}

func storeHint(err error) error {
	if errors.Is(err, store.ErrLocked) {
		return terminal.Hint(err, "a fleetjump is running with this store already")
	}
	return err
}

// reloadOnHangup rereads the configuration on SIGHUP until ctx ends. What is
// wrong with a new version is in the log; the old one stays.
func reloadOnHangup(ctx context.Context, server *jump.Server, hangups <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			_ = server.Reload(ctx)
		}
	}
}
