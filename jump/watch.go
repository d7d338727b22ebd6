package jump

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca/trust"
	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/jump/access"
	"github.com/fleetca/fleetca/jump/audit"
	"github.com/fleetca/fleetca/jump/config"
	"github.com/fleetca/fleetca/jump/live"
	"github.com/fleetca/fleetca/jump/store"
)

const (
	// watchEvery is how often the files of the configuration are looked at.
	watchEvery = 2 * time.Second
	// retryEvery is how often a configuration that could not be read is tried
	// again.
	retryEvery = 30 * time.Second
	// spaceEvery is how often the store's free space is looked at.
	spaceEvery = time.Second
	// retainEvery is how often old recordings are looked for.
	retainEvery = 10 * time.Minute
)

// Reload reads the configuration again. A bad version is refused as a whole and
// the old one stays; a good one serves new connections. Running sessions go on,
// except those whose certificate isn't accepted any more.
func (s *Server) Reload(ctx context.Context) error { return s.reload(ctx, false) }

// reload is Reload. told says that a failure has been told of before, and isn't
// again.
func (s *Server) reload(ctx context.Context, told bool) error {
	if s.cfg.Reload == nil {
		return errors.New("reloading: this server's configuration can't change")
	}
	c, warnings, err := s.cfg.Reload(ctx)
	var set *settings
	if err == nil {
		set, err = s.prepare(c)
	}
	if err != nil && told {
		return err
	}
	ok := err == nil
	e := audit.Event{Event: audit.EventServerReload, Success: &ok}
	if err != nil {
		e.Error = err.Error()
		s.log.Error("configuration not reloaded, the old one stays", "error", terminal.CleanLines(err.Error()))
		_ = s.record(ctx, e)
		return err
	}
	s.settings.Store(set)
	for _, w := range append(warnings, needRestart(s.cfg.Settings, c)...) {
		s.log.Warn("configuration", "warning", terminal.Clean(w))
	}
	s.log.Info("configuration reloaded")
	_ = s.record(ctx, e)
	s.endRevoked()
	return nil
}

// needRestart says which changes a running server doesn't take up. old is what it
// was started with.
func needRestart(old, c *config.Config) []string {
	var out []string
	for _, k := range []struct {
		key  string
		same bool
	}{
		{"name", old.Name == c.Name},
		{"listen", slices.Equal(old.Listen, c.Listen)},
		{"admin_socket", old.AdminSocket == c.AdminSocket},
		{"store", old.Store.Dir == c.Store.Dir && old.Store.Reserve == c.Store.Reserve &&
			old.Store.CloseReserve == c.Store.CloseReserve && old.Store.Ballast == c.Store.Ballast},
		{"audit_dir", old.AuditDir == c.AuditDir},
		{"max_stream", old.MaxStream == c.MaxStream},
	} {
		if !k.same {
			out = append(out, k.key+" has changed: that takes effect when the jump host is started anew")
		}
	}
	return out
}

// endRevoked ends the connections of people whose certificates the present
// settings don't accept.
func (s *Server) endRevoked() {
	c := s.settings.Load().config
	s.mu.Lock()
	outers := make([]*outer, 0, len(s.outers))
	for o := range s.outers {
		outers = append(outers, o)
	}
	s.mu.Unlock()
	for _, o := range outers {
		o.mu.Lock()
		people := append([]*person(nil), o.people...)
		o.mu.Unlock()
		for _, p := range people {
			if refused := unaccepted(c, p); refused != nil {
				s.endConnection(o, refused)
				break
			}
		}
	}
}

// unaccepted says why settings don't accept somebody who was let in before.
func unaccepted(c *config.Config, p *person) *refusal {
	switch {
	case c.Revoked != nil && c.Revoked.Revoked(p.cert):
		return &refusal{codeRevoked, "your certificate was revoked", ""}
	case !trusted(c.UserCAs, p.cert.SignatureKey):
		return &refusal{codeCertificate, "your certificate's CA is not trusted any more", ""}
	}
	return nil
}

func trusted(cas []ssh.PublicKey, key ssh.PublicKey) bool {
	return slices.ContainsFunc(cas, func(ca ssh.PublicKey) bool { return trust.Same(ca, key) })
}

// watchFiles reloads when a file of the configuration has changed and has then
// been left alone for one round, so that half of a change is not taken for it.
func (s *Server) watchFiles(ctx context.Context) {
	if s.cfg.Reload == nil {
		return
	}
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	loaded := stamp(s.settings.Load().config.Files())
	last := loaded
	var failed bool
	var failedAt time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := stamp(s.settings.Load().config.Files())
		changed := now != loaded && now == last
		// What a bad version lacked may come to be without any of the known files
		// changing.
		again := failed && s.now().Sub(failedAt) >= retryEvery
		last = now
		if !changed && !again {
			continue
		}
		failed, failedAt = s.reload(ctx, !changed) != nil, s.now()
		loaded = stamp(s.settings.Load().config.Files())
		last = loaded
	}
}

// stamp says what files look like: it differs when one has changed.
func stamp(paths []string) string {
	var b strings.Builder
	one := func(path string, info fs.FileInfo, err error) {
		if err != nil {
			fmt.Fprintf(&b, "%s -\n", path)
			return
		}
		fmt.Fprintf(&b, "%s %d %d %v %v\n", path, info.Size(), info.ModTime().UnixNano(), info.Mode(), inode(info))
	}
	for _, path := range paths {
		info, err := os.Stat(path)
		one(path, info, err)
		if err != nil || !info.IsDir() {
			continue
		}
		entries, err := os.ReadDir(path)
		if err != nil {
			continue
		}
		for _, e := range entries {
			full := filepath.Join(path, e.Name())
			info, err := os.Stat(full)
			one(full, info, err)
		}
	}
	return b.String()
}

// inode tells two files of the same name, size and time apart.
func inode(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}

// watchSpace ends the running sessions when the store is about to be full: it
// still has the room to seal their recordings.
func (s *Server) watchSpace(ctx context.Context) {
	ticker := time.NewTicker(spaceEvery)
	defer ticker.Stop()
	was := store.Plenty
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		s.unsealed.settle(ctx, s.cfg.Store, s.now())
		space := s.cfg.Store.Space()
		if space.Level != was {
			s.log.Warn("recording store", "space", space.Level.String(), "free", space.Free, "used", space.Used)
		}
		if space.Level == store.Full && s.live.Len() > 0 {
			s.live.Each(func(e live.Entry) bool {
				if e.Session.Mode != string(access.BestEffort) && e.Session.Mode != string(access.Off) {
					e.End(refusalOf(store.ErrFull).text)
				}
				return true
			})
		}
		was = space.Level
	}
}

// retain removes recordings that are older, or more, than the configuration
// keeps.
func (s *Server) retain(ctx context.Context) {
	ticker := time.NewTicker(retainEvery)
	defer ticker.Stop()
	for {
		c := s.settings.Load().config.Store
		policy := store.Policy{For: c.RetainFor, Bytes: c.RetainBytes}
		if policy != (store.Policy{}) {
			_, err := store.Retain(ctx, s.cfg.Store, policy, s.now(), s.recordRetention)
			if err != nil && ctx.Err() == nil {
				s.log.Error("removing old recordings", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// recordRetention puts into the audit which recordings the retention is about
// to remove.
func (s *Server) recordRetention(ctx context.Context, old []store.Session) error {
	for _, e := range old {
		if err := s.record(ctx, audit.Event{
			Event: audit.EventRemove, SID: e.ID, Login: e.Login, Host: e.Host,
			Reason: "retention: it was a recording of " + e.Identity,
		}); err != nil {
			return err
		}
	}
	// On disk before they are gone.
	return s.cfg.Audit.Sync(ctx)
}
