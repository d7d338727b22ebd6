package main

import (
	"encoding/json"
	"io"
	"sync"
	"time"

	"github.com/fleetca/fleetca/provision"
)

// jsonLine is one line of provision --json: a step of a host's plan, a note, or
// (with state) how the host ended.
type jsonLine struct {
	Time   string `json:"time"`
	Host   string `json:"host"`
	Phase  string `json:"phase,omitempty"`
	Step   string `json:"step,omitempty"`
	Path   string `json:"path,omitempty"`
	Detail string `json:"detail,omitempty"`
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
	Note   string `json:"note,omitempty"`
	State  string `json:"state,omitempty"`
	Error  string `json:"error,omitempty"`
	Hint   string `json:"hint,omitempty"`
}

// jsonLog writes events as they happen, each line whole.
type jsonLog struct {
	mu   sync.Mutex
	enc  *json.Encoder
	diff bool
}

func newJSONLog(out io.Writer, diff bool) *jsonLog {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	return &jsonLog{enc: enc, diff: diff}
}

func (l *jsonLog) event(e provision.Event) {
	line := jsonLine{
		Time: e.Time.UTC().Format(time.RFC3339Nano), Host: e.Host,
		Phase: string(e.Phase), Note: e.Note, State: string(e.State),
	}
	switch {
	case e.Step != nil:
		line.Step, line.Path, line.Detail = e.Step.Name, e.Step.Path, e.Step.Detail
		if l.diff {
			line.Before, line.After = string(e.Step.Before), string(e.Step.After)
		}
	case e.State != "":
		if e.Err != nil {
			line.Error, line.Hint = firstLine(e.Err), hintFor(e.Err)
		}
	case e.Note == "":
		return // a phase that begins
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.enc.Encode(line) // stdout is gone: the exit code still tells
}

// notStarted says so of hosts whose turn never came.
func (l *jsonLog) notStarted(now time.Time, report *provision.Report) {
	for _, h := range report.Hosts {
		if h.State == provision.NotStarted {
			l.event(provision.Event{Time: now, Host: h.Host, State: h.State})
		}
	}
}
