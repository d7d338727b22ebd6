package provision

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca/profile"
	"github.com/fleetca/fleetca/inventory"
	"github.com/fleetca/fleetca/provision/facts"
	"github.com/fleetca/fleetca/provision/plan"
	"github.com/fleetca/fleetca/provision/remote"
	"github.com/fleetca/fleetca/templates"
)

// hostRun is the run of one host; it is used by one goroutine.
type hostRun struct {
	p        *Provisioner
	host     *inventory.Host
	settings inventory.Settings
	report   HostReport
	conn     *remote.Conn // as the host was found
	plan     *plan.Plan
}

// host brings one host through all phases.
func (p *Provisioner) host(ctx context.Context, h *inventory.Host) HostReport {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.HostTimeout)
	defer cancel()
	r := &hostRun{p: p, host: h, report: HostReport{Host: h.Name, State: Failed}}
	begun := time.Now()
	r.report.Err = r.run(ctx)
	r.report.Took = time.Since(begun)
	if r.conn != nil {
		_ = r.conn.Close() // the connection's work is done or has failed already
	}
	r.emit(Event{State: r.report.State, Err: r.report.Err})
	return r.report
}

// run returns the error that ended the host's run. The report's state is
// Failed until something else has been reached.
func (r *hostRun) run(ctx context.Context) (err error) {
	r.begin(Connect)
	if r.settings, err = r.host.Settings(); err != nil {
		return err
	}
	if r.conn, err = r.p.cfg.Dialer.Dial(ctx, r.host, remote.Options{}); err != nil {
		return err
	}
	if err := plan.Able(r.conn.ServerVersion()); err != nil {
		return err
	}
	r.begin(Gather)
	found, err := r.gather(ctx)
	if err != nil {
		return err
	}
	r.begin(Planned)
	if r.plan, err = r.makePlan(found); err != nil {
		return err
	}
	for _, note := range r.plan.Notes {
		r.note(note)
	}
	for _, s := range r.plan.Steps {
		step := StepReport(s)
		r.report.Steps = append(r.report.Steps, step)
		r.emit(Event{Step: &step})
	}
	switch {
	case len(r.plan.Steps) == 0:
		r.report.State = Unchanged
		return nil
	case r.p.cfg.Check:
		r.report.State = WouldChange
		return nil
	}
	return r.apply(ctx)
}

func (r *hostRun) begin(phase Phase) {
	r.report.Phase = phase
	r.emit(Event{})
}

func (r *hostRun) emit(e Event) {
	e.Time, e.Host, e.Phase = r.p.cfg.Now(), r.host.Name, r.report.Phase
	r.p.cfg.Observe(e)
}

func (r *hostRun) note(text string) {
	r.report.Notes = append(r.report.Notes, text)
	r.emit(Event{Note: text})
}

// gather runs the probe, and first cleans up after a run that died on the
// host: what the plan is made from must be the host's real state.
func (r *hostRun) gather(ctx context.Context) (*facts.Facts, error) {
	found, err := r.probe(ctx)
	if errors.Is(err, facts.ErrChanged) {
		found, err = r.probe(ctx) // a file was being written just then
	}
	if err != nil || !found.Run.Exists || found.Effective == nil {
		// With a configuration that sshd refuses nothing is touched: a recovery
		// would reload it. The plan says why.
		return found, err
	}
	if r.p.cfg.Check {
		r.note("another run is under way on the host, or has died there")
		return found, nil
	}
	nonce := rand.Text()
	script, err := plan.Recover(found.Dir, nonce)
	if err != nil {
		return nil, err
	}
	if _, err := r.script(ctx, r.conn, script, nonce); err != nil {
		return nil, err
	}
	r.note("an earlier run had died on the host: what it left was put back")
	return r.probe(ctx)
}

func (r *hostRun) probe(ctx context.Context) (*facts.Facts, error) {
	nonce := rand.Text()
	script, err := templates.Probe{Nonce: nonce, ConfigFile: r.settings.SSHDConfig, Login: r.conn.User()}.Render()
	if err != nil {
		return nil, err
	}
	result, err := r.conn.Run(ctx, script)
	if err != nil {
		return nil, fmt.Errorf("running the probe: %w", err)
	}
	found, err := facts.Parse(result.Stdout, nonce)
	if err != nil {
		return nil, fmt.Errorf("reading what the probe printed (exit status %d, stderr %s): %w", result.ExitStatus, quoted(result.Stderr), err)
	}
	return found, nil
}

func (r *hostRun) makePlan(found *facts.Facts) (*plan.Plan, error) {
	ttl, err := TTL(r.host, r.settings, r.p.cfg.DefaultTTL)
	if err != nil {
		return nil, err
	}
	return plan.New(found, plan.Wanted{
		Names: Names(r.host.Name, r.settings), TTL: ttl,
		UserCAs: r.p.cfg.UserCAs, HostCA: r.p.cfg.HostCA,
		Reload: r.settings.Reload, Shown: r.conn.HostKey(),
		Identification: r.conn.ServerVersion(), Login: r.conn.User(),
		Now: r.p.cfg.Now(),
	})
}

// apply carries the plan out. From the commit on the host undoes the change by
// itself unless it is confirmed; a crash of this process anywhere below leaves
// it to that.
func (r *hostRun) apply(ctx context.Context) error {
	r.begin(Upload)
	delivery, err := r.deliver(ctx)
	if err != nil {
		return err
	}
	stage, err := r.upload(ctx, delivery)
	if err != nil {
		return err
	}
	r.begin(Commit)
	if err := r.commit(ctx, delivery, stage); err != nil {
		return err
	}
	r.begin(Verify)
	proof, err := r.verify(ctx, delivery)
	if err != nil {
		return errors.Join(fmt.Errorf("verifying from outside: %w", err), r.undo(ctx, delivery))
	}
	defer proof.Close()
	r.begin(Confirm)
	if err := r.confirm(ctx, proof, delivery); err != nil {
		return err
	}
	r.report.State = Changed
	return nil
}

// confirm makes the change stay. Where its answer is lost the host is asked
// what became of it.
func (r *hostRun) confirm(ctx context.Context, proof *remote.Conn, delivery *plan.Delivery) error {
	script, err := delivery.Confirm()
	if err == nil {
		_, err = r.script(ctx, proof, script, delivery.Nonce())
	}
	if err == nil {
		return nil
	}
	undone := r.undo(ctx, delivery)
	if refused := (*ScriptError)(nil); errors.As(undone, &refused) && refused.Reason == "confirmed" {
		r.note("the answer to the confirmation was lost; the change stays")
		return nil
	}
	return errors.Join(fmt.Errorf("confirming: %w", err), undone)
}

// deliver has the certificates signed and makes the plan ready.
func (r *hostRun) deliver(ctx context.Context) (*plan.Delivery, error) {
	requests := make([]profile.Request, len(r.plan.Certificates))
	for i, c := range r.plan.Certificates {
		requests[i] = profile.Request{
			Kind: profile.Host, PublicKey: c.Key, KeyID: r.host.Name,
			Principals: r.plan.Names, TTL: r.plan.TTL,
		}
	}
	var certs []*ssh.Certificate
	if len(requests) > 0 {
		var err error
		if certs, err = r.p.cfg.Authority.Sign(ctx, requests...); err != nil {
			return nil, fmt.Errorf("signing host certificates: %w", err)
		}
	}
	id := r.p.cfg.Now().UTC().Format("20060102T150405Z") + "-" + strings.ToLower(rand.Text()[:8])
	return r.plan.Deliver(plan.Run{ID: id, Nonce: rand.Text(), RollbackAfter: r.p.cfg.RollbackAfter}, certs)
}

func (r *hostRun) upload(ctx context.Context, delivery *plan.Delivery) (string, error) {
	if len(delivery.Files()) == 0 {
		return "", nil // a reload alone
	}
	files := make([]remote.File, 0, len(delivery.Files()))
	for _, f := range delivery.Files() {
		files = append(files, remote.File{Name: f.Name, Content: f.Content, Mode: 0o644})
	}
	stage, err := r.conn.Upload(ctx, files)
	if err != nil {
		return "", errors.Join(fmt.Errorf("uploading: %w", err), r.discard(ctx, stage))
	}
	return stage, nil
}

// discardTimeout bounds the removal of what was uploaded for nothing.
const discardTimeout = 10 * time.Second

// discard removes a staging folder that no script will remove.
func (r *hostRun) discard(ctx context.Context, stage string) error {
	if stage == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), discardTimeout)
	defer cancel()
	return r.conn.RemoveUpload(ctx, stage)
}

// commit runs the commit script and says in the report what became of the host
// if it failed.
func (r *hostRun) commit(ctx context.Context, delivery *plan.Delivery, stage string) error {
	script, err := delivery.Commit(stage)
	if err != nil {
		return errors.Join(err, r.discard(ctx, stage))
	}
	armed, err := r.script(ctx, r.conn, script, delivery.Nonce())
	var (
		refused *ScriptError
		become  *remote.BecomeError
		cut     *remote.ScriptError
	)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		if armed {
			r.report.State = RolledBack
		}
		return err
	case errors.As(err, &become), errors.As(err, &cut) && !cut.Started && !cut.EndUnknown:
		return errors.Join(err, r.discard(ctx, stage)) // nothing of it was run
	}
	// Nobody can tell how far it came; what it armed goes off by itself.
	r.report.State = RollingBack
	return fmt.Errorf("%w (if the host was changed it puts itself back within %s)", err, r.p.cfg.RollbackAfter)
}

// verify opens a new connection that trusts nothing but the host CA, and
// returns it when the host shows a certificate that is part of the plan. The
// old sshd may answer for a moment after the reload. Attempts are spaced: since
// OpenSSH 9.8 a client that goes away before it logs in is penalised.
func (r *hostRun) verify(ctx context.Context, delivery *plan.Delivery) (*remote.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, r.p.cfg.RollbackAfter*2/3)
	defer cancel()
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 4*time.Second) {
		conn, err := r.p.cfg.Dialer.Dial(ctx, r.host, remote.Options{HostCertificateOnly: true})
		if err == nil {
			if delivery.Shows(conn.HostKey()) {
				return conn, nil
			}
			_ = conn.Close()
			err = errors.New("the host still shows an earlier certificate")
		} else if wrongKey := (*remote.HostKeyError)(nil); !errors.As(err, &wrongKey) {
			return nil, err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, err
		}
	}
}

// undoTimeout leaves the host the time to restart its sshd. There is no use in
// asking for longer than RollbackAfter.
const undoTimeout = 45 * time.Second

// undo asks the host, on the connection from before the change, to roll back
// now. When it can't be asked it will do so by itself.
func (r *hostRun) undo(ctx context.Context, delivery *plan.Delivery) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(undoTimeout, r.p.cfg.RollbackAfter))
	defer cancel()
	r.report.State = RollingBack
	script, err := delivery.Undo()
	if err != nil {
		return err
	}
	if _, err := r.script(ctx, r.conn, script, delivery.Nonce()); err != nil {
		return fmt.Errorf("the host could not be asked to roll back, and does so by itself within %s: %w", r.p.cfg.RollbackAfter, err)
	}
	r.report.State = RolledBack
	return nil
}
