package provision

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/fleetca/fleetca/provision/remote"
)

// ScriptError is a failure that one of our scripts reported, after it left
// everything as it was or put it back.
type ScriptError struct {
	// Reason is one word: busy, write, upload, changed, refused, effective,
	// reload, rolled_back or confirmed.
	Reason string
	// Text is the host's own words: untrusted, one line.
	Text string
}

func (e *ScriptError) Error() string {
	switch e.Reason {
	case "busy":
		return "the host is held by a run: " + e.Text
	case "effective":
		return "the candidate configuration would change more than it should: " + e.Text
	case "refused":
		return "sshd refuses the candidate configuration: " + e.Text
	case "reload":
		return "reloading sshd failed, and the host is back as it was: " + e.Text
	default:
		return e.Text
	}
}

// script runs one of our scripts and reads its answer. An error that is not a
// *ScriptError says that the script's end is not known.
func (r *hostRun) script(ctx context.Context, conn *remote.Conn, script, nonce string) (armed bool, err error) {
	result, err := conn.Run(ctx, script)
	armed, done, refused := answer(result.Stdout, nonce)
	switch {
	case refused != nil:
		return armed, refused
	case err != nil:
		return armed, err
	case !done:
		return armed, fmt.Errorf("the script on the host ended early: exit status %d, stderr %s", result.ExitStatus, quoted(result.Stderr))
	}
	return armed, nil
}

// answer reads what a script said: lines that begin with the nonce.
func answer(out []byte, nonce string) (armed, done bool, refused error) {
	for line := range bytes.Lines(out) {
		text, ok := bytes.CutPrefix(bytes.TrimRight(line, "\r\n"), []byte(nonce+" "))
		if !ok {
			continue
		}
		word, rest, _ := strings.Cut(string(text), " ")
		switch word {
		case "armed":
			armed = true
		case "finished":
			done = true
		case "error":
			reason, detail, _ := strings.Cut(rest, " ")
			refused = &ScriptError{Reason: reason, Text: strings.TrimSpace(detail)}
		}
	}
	return armed, done && refused == nil, refused
}

// quoted shortens what a host said for an error text.
func quoted(b []byte) string {
	const most = 300
	b = bytes.TrimSpace(b)
	if len(b) > most {
		return fmt.Sprintf("%q…", b[:most])
	}
	return fmt.Sprintf("%q", b)
}
