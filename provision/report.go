package provision

import (
	"fmt"
	"time"

	"github.com/hashicorp/go-multierror"
)

// Phase is a part of one host's run, as docs/design.md describes them.
type Phase string

// The phases, in order.
const (
	Connect Phase = "connect"
	Gather  Phase = "gather"
	Planned Phase = "plan"
	Upload  Phase = "upload"
	Commit  Phase = "commit"
	Verify  Phase = "verify"
	Confirm Phase = "confirm"
)

// State says how a host's run ended.
type State string

// The states.
const (
	// Unchanged: nothing was to do.
	Unchanged State = "unchanged"
	// Changed: the host was changed, verified and confirmed.
	Changed State = "changed"
	// WouldChange: a check found something to do, and did nothing.
	WouldChange State = "would_change"
	// Failed: the host is as it was before the run.
	Failed State = "failed"
	// RolledBack: the host had been changed, could not be verified, and has
	// put itself back.
	RolledBack State = "rolled_back"
	// RollingBack: the same, but the host could not be asked any more whether it
	// is back; it puts itself back when its time is over.
	RollingBack State = "rolling_back"
	// NotStarted: the run ended before the host's turn.
	NotStarted State = "not_started"
)

// Event is something that happened to a host. Step is set when the event is
// about one step of the plan, State on a host's last event, Note when there is
// something to tell that is no failure.
type Event struct {
	Time  time.Time
	Host  string
	Phase Phase
	Step  *StepReport
	State State
	Note  string
	Err   error
}

// StepReport is one step of a host's plan. Before and After are the file's
// texts, for a diff; both are public.
type StepReport struct {
	Name   string
	Path   string
	Detail string
	Before []byte
	After  []byte
}

// HostReport is what became of one host.
type HostReport struct {
	Host  string
	State State
	// Phase is the last one that began; empty when the host was not started.
	Phase Phase
	Steps []StepReport
	Notes []string
	// Took is the time from the first connection to the end.
	Took time.Duration
	Err  error
}

// Report is what became of a fleet. Hosts are in the order they were given.
type Report struct {
	Hosts []HostReport
	// Interrupted is set when hosts were left out because ctx ended.
	Interrupted bool
	// Stopped says why no further host was started, when it was not ctx.
	Stopped string
}

// Count returns how many hosts are in any of the states.
func (r *Report) Count(states ...State) int {
	n := 0
	for _, h := range r.Hosts {
		for _, s := range states {
			if h.State == s {
				n++
			}
		}
	}
	return n
}

// Err gathers the errors of the hosts that failed, or returns nil.
func (r *Report) Err() error {
	var all *multierror.Error
	for _, h := range r.Hosts {
		if h.Err != nil {
			all = multierror.Append(all, &HostError{Host: h.Host, Phase: h.Phase, Err: h.Err})
		}
	}
	return all.ErrorOrNil()
}

// HostError says in which phase a host failed.
type HostError struct {
	Host  string
	Phase Phase
	Err   error
}

func (e *HostError) Error() string { return fmt.Sprintf("%s: %s: %v", e.Host, e.Phase, e.Err) }

func (e *HostError) Unwrap() error { return e.Err }
