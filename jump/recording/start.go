package recording

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/jump/cast"
	"github.com/fleetca/fleetca/jump/store"
)

// maxText bounds text of clients and hosts in events that are JSON, where each
// byte may need six.
const maxText = 2 << 10

// Start begins a recording: the index entry and the first block, with the
// header and the command, are given to the store. In mode strict it waits until
// they are durable; an error says that the store does not take them, or has not
// within 5 seconds; it is an *Error then. ctx bounds Start only. Close must be
// called.
func (r *Recorder) Start(ctx context.Context, o Options) (*Recording, error) {
	switch {
	case r.c.Store == nil:
		return nil, errors.New("starting a recording: Store not set")
	case o.Mode != Strict && o.Mode != BestEffort && o.Mode != Off:
		return nil, fmt.Errorf("starting a recording: unknown mode %q", o.Mode)
	}
	s := o.Session
	if s.Started.IsZero() {
		s.Started = r.c.Now()
	}
	if s.ID == "" {
		s.ID = store.NewID(s.Started)
	}
	if s.Command == "" {
		s.Command = terminal.Clean(cut(string(o.Command), maxText))
	}
	s.Mode, s.State = o.Mode, store.Open
	// The writer outlives Start's caller: Close ends it.
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	rec := &Recording{
		c: r.c, mode: o.Mode, started: s.Started, session: s, cancel: cancel,
		begun: make(chan struct{}, 1), plenty: make(chan struct{}, 1),
		closing: make(chan struct{}), failed: make(chan struct{}), done: make(chan struct{}),
	}
	if err := rec.streams.init(rec, o); err != nil {
		cancel()
		return nil, fmt.Errorf("starting a recording: %w", err)
	}
	err := rec.open(ctx, o)
	if err == nil {
		go rec.run(background)
		return rec, nil
	}
	if !rec.launched() {
		rec.ease()
		cancel()
		return nil, err
	}
	// The store may yet take it: then it must not look like a session that runs.
	r.ending.Go(func() {
		go rec.run(background)
		ctx, cancel := context.WithTimeout(background, giveUp)
		defer cancel()
		_ = rec.Close(ctx, err.Error()) // Start has said so
	})
	return nil, err
}

// open writes what comes first.
func (r *Recording) open(ctx context.Context, o Options) error {
	first := &batch{}
	if r.mode == Off {
		r.unsaved = []*batch{first}
	} else {
		if err := r.header(o); err != nil {
			return fmt.Errorf("starting a recording: %w", err)
		}
		var err error
		if first, err = r.block(0); err != nil {
			return fmt.Errorf("starting a recording: %w", err)
		}
	}
	first.index = true
	if r.mode != Strict {
		// Who may go on without a recording doesn't wait long for it.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	err := r.write(ctx, first, false)
	if r.mode != Strict {
		return nil
	}
	if err == nil {
		err = r.durable(ctx)
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("starting a recording: %w", err)
	}
	return failure(err)
}

// durable waits for what was written first.
func (r *Recording) durable(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startPatience, errSilent)
	defer cancel()
	if err := r.landed(ctx); err != nil {
		return context.Cause(ctx)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failing
}

// launched says whether the store may yet take what it was given.
func (r *Recording) launched() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.unsaved, func(b *batch) bool { return b.flying })
}

func (r *Recording) header(o Options) error {
	s := r.session
	r.writer.encoder = cast.NewEncoder(cast.Header{
		Session: s.ID, Identity: s.Identity, Login: s.Login, Host: s.Host, Client: s.Client,
		ServerID: s.ServerID, Started: s.Started, Kind: string(s.Kind), Mode: o.Mode, Term: o.Term,
		Columns: s.Columns, Rows: s.Rows, Input: o.Input, Software: r.c.Software,
	})
	if err := r.circumstances(o); err != nil {
		return err
	}
	if o.Command == nil {
		return nil
	}
	return r.writer.encoder.Add(cast.Event{At: r.now(), Kind: cast.Command, Data: o.Command})
}

const (
	// maxAsked is how much is kept of a command that does not run.
	maxAsked = 32 << 10
	// maxEnv is how much the variables may take: half of what a block holds.
	maxEnv = cast.MaxBlock / 2
)

// asked is the value of a note: text to read, and the bytes where that isn't
// all of them.
type asked struct {
	Command string `json:"command"`
	Raw     []byte `json:"raw,omitempty"`
	Bytes   int    `json:"bytes"`
	SHA256  string `json:"sha256,omitempty"`
}

// circumstances notes what the command runs under: what was asked for in its
// place, which a forced command may read, and the environment.
func (r *Recording) circumstances(o Options) error {
	add := func(kind string, v any) error {
		data, err := noteData(kind, v)
		if err != nil {
			return err
		}
		return r.writer.encoder.Add(cast.Event{At: r.now(), Kind: cast.Note, Data: data})
	}
	if o.Asked != nil {
		a := asked{Command: cut(string(o.Asked), maxText), Bytes: len(o.Asked)}
		if len(a.Command) < len(o.Asked) || !utf8.ValidString(a.Command) {
			a.Raw = o.Asked[:min(len(o.Asked), maxAsked)]
		}
		if len(a.Raw) < len(o.Asked) && a.Raw != nil {
			a.SHA256 = fmt.Sprintf("%x", sha256.Sum256(o.Asked))
		}
		if err := add("asked", a); err != nil {
			return err
		}
	}
	for i, v := range o.Env {
		if r.writer.encoder.Pending() > maxEnv {
			return add("env_left_out", len(o.Env)-i)
		}
		if err := add("env", EnvVar{cut(v.Name, maxText), cut(v.Value, maxText)}); err != nil {
			return err
		}
	}
	return nil
}

// now is the time since the start, which never goes back. r.mu is held, or
// nobody else has r yet.
func (r *Recording) now() time.Duration {
	r.latest = max(r.latest, r.c.Now().Sub(r.started))
	return r.latest
}

// Close ends and seals the recording. reason says why the session ended, if not
// by itself. It waits until the seal is durable or ctx ends; the error says that
// the recording has no seal, which is also so if it failed before and the store
// still doesn't take what was recorded until then. Calls that wait for room
// return ErrClosed. For a call that hangs, in OnFile or OnFallback, it waits 5
// seconds; then it seals without what is only known after it.
func (r *Recording) Close(ctx context.Context, reason string) error {
	// An ended ctx ends the writer, even in the middle of a write.
	stop := context.AfterFunc(ctx, r.cancel)
	defer stop()
	r.ease()
	r.mu.Lock()
	first := !r.closed
	r.closed = true
	r.broadcast()
	if first {
		r.session.Reason = reason
		if reason == "" && r.err != nil {
			r.session.Reason = r.err.Error()
		}
		if r.gap != nil {
			r.markGap()
		}
	}
	r.mu.Unlock()
	if first {
		close(r.closing)
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		if !ended(r.done, grace) {
			return fmt.Errorf("sealing recording %s: %w", r.ID(), ctx.Err())
		}
	}
	r.cancel()
	if r.sealing != nil && ctx.Err() != nil {
		return fmt.Errorf("sealing recording %s: %w", r.ID(), ctx.Err())
	}
	return r.sealing
}

// ended waits for a channel to be closed, for some time.
func ended(c <-chan struct{}, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-c:
		return true
	case <-timer.C:
		return false
	}
}
