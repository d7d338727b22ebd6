package remote

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// farewell is how long a server gets to confirm that a channel is closed. After
// that the whole connection is.
const farewell = 2 * time.Second

// openAttempts is how often a refused session is asked for again, after the
// first time with a pause of openPause.
const (
	openAttempts = 10
	openPause    = 50 * time.Millisecond
)

// Conn is a connection to one host. Its methods may be called from several
// goroutines; each Run is a session of its own.
type Conn struct {
	d          *Dialer
	host       string
	client     *ssh.Client
	hostKey    ssh.PublicKey
	becomeUser string

	running sync.WaitGroup // goroutines that Close waits for

	// spare is a session channel that is being opened for whoever comes next,
	// which saves each a round trip. Servers count it as a session, so whoever
	// finds that it was refused asks again.
	spare chan opened

	mu      sync.Mutex // guards the following
	closed  bool
	uploads map[string][]string // names in folders that Upload made
}

func newConn(d *Dialer, t *target, l *link) *Conn {
	c := &Conn{
		d: d, host: t.host, client: l.client, hostKey: l.hostKey, becomeUser: t.becomeUser,
		spare: make(chan opened, 1), uploads: map[string][]string{},
	}
	c.prepare()
	return c
}

// HostKey returns the key as the host showed it: an *ssh.Certificate if it was
// one.
func (c *Conn) HostKey() ssh.PublicKey { return c.hostKey }

// ServerVersion is the server's own word on what it is, such as
// "SSH-2.0-OpenSSH_9.2p1 Debian-2": untrusted, but never longer than 255 bytes.
func (c *Conn) ServerVersion() string { return string(c.client.ServerVersion()) }

// User is the login that the connection was made for.
func (c *Conn) User() string { return c.client.User() }

// Close ends the connection and everything that still runs over it.
func (c *Conn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	_ = c.client.Close() // what it says matters to nobody any more
	c.running.Wait()
	_ = c.client.Wait()
	return nil
}

// start runs f in a goroutine that Close waits for.
func (c *Conn) start(f func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	c.running.Go(f)
	return nil
}

// channel is a session channel.
type channel struct {
	ssh.Channel
	requests <-chan *ssh.Request
	ended    chan struct{} // closed when the server has closed it
}

type opened struct {
	ch  *channel
	err error
}

// prepare opens the spare channel. At most one is being opened or waiting.
func (c *Conn) prepare() {
	if c.start(func() { c.spare <- c.openNow() }) != nil {
		c.spare <- opened{err: ErrClosed}
	}
}

func (c *Conn) openNow() opened {
	ch, requests, err := c.client.OpenChannel("session", nil)
	if err != nil {
		return opened{err: err}
	}
	return opened{ch: &channel{Channel: ch, requests: requests, ended: make(chan struct{})}}
}

// open returns a session channel. Opening can't be given up: when ctx ends
// first, the channel is the next one's. A refused one is asked for again: the
// refusal may be from when another session was open, and a server that allows
// few (MaxSessions) takes a moment to notice that one has ended.
func (c *Conn) open(ctx context.Context) (*channel, error) {
	for left := openAttempts; ; left-- {
		var o opened
		select {
		case o = <-c.spare:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		c.prepare()
		var refused *ssh.OpenChannelError
		if left == 0 || !errors.As(o.err, &refused) {
			return o.ch, o.err
		}
		if left == openAttempts {
			continue
		}
		select {
		case <-time.After(openPause):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// abandon closes a channel without waiting for what it was used for. A server
// that doesn't confirm soon loses the connection: nothing else would end our
// reading from it.
func (c *Conn) abandon(ch *channel) {
	_ = ch.Close()
	timer := time.NewTimer(farewell)
	defer timer.Stop()
	select {
	case <-ch.ended:
	case <-timer.C:
		_ = c.client.Close()
		<-ch.ended
	}
}

// request sends a channel request without waiting for the answer, so that what
// belongs to it can follow at once.
func (c *Conn) request(ch *channel, name, payload string) (*answered, error) {
	a := &answered{refused: make(chan error, 1), granted: make(chan struct{})}
	err := c.start(func() {
		ok, err := ch.SendRequest(name, true, ssh.Marshal(struct{ Value string }{payload}))
		switch {
		case err == nil && ok:
			close(a.granted)
		case err == nil:
			a.refused <- errRefused
		}
		// Otherwise the channel is closed; its end tells more.
	})
	return a, err
}

// answered is the answer to a request: one of the two, or neither if the
// channel was closed.
type answered struct {
	refused chan error
	granted chan struct{}
}

// mayFollow returns when what belongs to a request may be sent: at once to
// OpenSSH, which keeps it until the request is granted. Dropbear throws away
// what comes before, and then ends the session.
func (c *Conn) mayFollow(a *answered, stop <-chan struct{}) bool {
	if strings.Contains(c.ServerVersion(), "OpenSSH") {
		return true
	}
	select {
	case <-a.granted:
		return true
	case <-stop:
		return false
	}
}

var errRefused = errors.New("the server refuses the request")

// Result is what a script left behind.
type Result struct {
	// Stdout and Stderr are the script's, without what the login's start-up
	// files said before it.
	Stdout, Stderr []byte
	ExitStatus     int
}

// marker is a word that nobody can guess.
func marker(kind string) string { return "fleetca-" + kind + "-" + rand.Text() }

// Run runs a POSIX sh script on the host and waits for its end: as the user
// that the inventory says to become, by sudo, else as the login. The script is
// a complete text; it travels on stdin and is not begun before the host has all
// of it. Its commands read nothing from stdin. In its environment LC_ALL is C
// and FLEETCA_PEER is the login's SSH_CONNECTION, which sudo would drop.
//
// A script that ends with a status other than 0 is no error. Errors:
// *BecomeError where sudo didn't run it, *ScriptError where it didn't run to a
// known end; the Result then holds what came so far.
func (c *Conn) Run(ctx context.Context, script string) (Result, error) {
	r := &run{conn: c, ready: marker("ready")}
	if c.becomeUser != "" {
		var err error
		if r.sudo, err = c.sudo(ctx); err != nil {
			return Result{}, err
		}
	}
	return r.do(ctx, script)
}

// run is one run of a script.
type run struct {
	conn  *Conn
	ready string // the word that the shell says when it begins
	sudo  *sudo  // nil for the login itself

	stdout, stderr *output
}

// text is what goes to stdin: the word by which begin knows that nothing before
// the script was eaten, then the script as a group. The group is run only when
// it is complete, so a connection that breaks halfway runs nothing; and with its
// stdin taken away no command in it can eat the rest.
func (r *run) text(script string) string {
	return r.ready + "\n{\n" + script + "\n} </dev/null\nexit\n"
}

// command is the line for the login's shell, whatever shell that is: it has no
// newline, backslash or exclamation mark, and nothing between its single quotes
// that any of sh, bash, busybox, ksh, zsh, fish and csh would change.
func (r *run) command() string {
	if r.sudo == nil {
		return "/bin/sh -c '" + begin(r.ready, "$SSH_CONNECTION", false) + "'"
	}
	return r.sudo.command(r.ready)
}

// begin is the program that starts the shell. Start-up files of the login may
// write and read what they like before it: the ready word on stdout and stderr
// tells where the script's own output begins, and the one on stdin that they
// left all of the script. If early, it says that it is ready before it reads.
func begin(ready, peer string, early bool) string {
	say := "echo " + ready + "; echo " + ready + " >&2; "
	check := `IFS= read -r x; [ "$x" = ` + ready + ` ] || exit 125; `
	if early {
		check = say + check
	} else {
		check += say
	}
	return check + "FLEETCA_PEER=" + peer + "; LC_ALL=C; export FLEETCA_PEER LC_ALL; unset x; exec /bin/sh -s"
}

func (r *run) do(ctx context.Context, script string) (Result, error) {
	c := r.conn
	fail := func(err error) error { return &ScriptError{Host: c.host, Err: err} }
	ch, err := c.open(ctx)
	if err != nil {
		return Result{}, fail(fmt.Errorf("opening a session: %w", err))
	}
	r.stdout, r.stderr = newOutput(c.d.cfg.MaxOutput), newOutput(c.d.cfg.MaxOutput)
	ended := make(chan end, 1)
	// Everything below ends when the server closes the channel, and abandon
	// makes sure that it does.
	var readers sync.WaitGroup
	readers.Go(func() { ended <- waitForEnd(ch) })
	readers.Go(func() { r.stdout.fill(ch) })
	readers.Go(func() { r.stderr.fill(ch.Stderr()) })
	answer, err := c.request(ch, "exec", r.command())
	if err != nil {
		c.abandon(ch)
		readers.Wait()
		return Result{}, fail(err)
	}
	var writer sync.WaitGroup
	stop := make(chan struct{})
	denied := make(chan error, 1)
	writer.Go(func() {
		if !c.mayFollow(answer, stop) {
			return
		}
		if r.sudo != nil {
			if err := r.sudo.begin(r, ch, stop); err != nil {
				denied <- err
				return
			}
		}
		if _, err := io.WriteString(ch, r.text(script)); err == nil {
			_ = ch.CloseWrite()
		}
	})
	err = r.wait(ctx, ch, answer.refused, denied)
	if err != nil {
		c.abandon(ch)
	}
	close(stop)
	readers.Wait()
	_ = ch.Close()
	writer.Wait()
	return r.result(<-ended, err)
}

// wait returns when the server has closed the channel, or with the reason to
// close it ourselves.
func (r *run) wait(ctx context.Context, ch *channel, refused, denied <-chan error) error {
	select {
	case <-ch.ended:
		return nil
	case err := <-refused:
		return fmt.Errorf("running a command: %w", err)
	case err := <-denied:
		return err
	case <-r.stdout.full:
		return fmt.Errorf("stdout: %w (%d bytes)", ErrTooMuchOutput, r.stdout.limit)
	case <-r.stderr.full:
		return fmt.Errorf("stderr: %w (%d bytes)", ErrTooMuchOutput, r.stderr.limit)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// result judges how a run ended. err is why we ended it, if we did.
func (r *run) result(e end, err error) (Result, error) {
	stdout, outReady := r.stdout.after(r.ready)
	stderr, errReady := r.stderr.after(r.ready)
	started := outReady || errReady
	result := Result{Stdout: stdout, Stderr: stderr, ExitStatus: e.status}
	var become *BecomeError
	if errors.As(err, &become) {
		return Result{}, become
	}
	failure := &ScriptError{Host: r.conn.host, Started: started, Signal: e.signal, Output: tail(stderr), Err: err}
	switch {
	case err != nil:
		failure.EndUnknown = !e.known && !errors.Is(err, errRefused)
		return result, failure
	case started && e.known && e.signal == "":
		return result, nil
	case e.known && e.signal == "" && r.sudo != nil:
		return Result{}, r.sudo.explain(stderr, e.status)
	case e.known && e.signal == "":
		failure.Err = fmt.Errorf("exit status %d, stdout %s", e.status, quoted(stdout))
	case !e.known:
		failure.EndUnknown = true
		failure.Err = errors.New("the connection was lost")
	}
	return result, failure
}

func tail(b []byte) []byte { return b[max(0, len(b)-maxQuote):] }

// end is how a command ended, if known.
type end struct {
	known  bool
	status int
	signal string
}

// waitForEnd takes the server's requests on the channel until it is closed.
func waitForEnd(ch *channel) end {
	defer close(ch.ended)
	var e end
	for request := range ch.requests {
		switch request.Type {
		case "exit-status":
			var m struct{ Status uint32 }
			if ssh.Unmarshal(request.Payload, &m) == nil {
				e.known, e.status = true, int(m.Status)
			}
		case "exit-signal":
			var m struct {
				Signal     string
				CoreDumped bool
				Error      string
				Language   string
			}
			if ssh.Unmarshal(request.Payload, &m) == nil {
				e.known, e.signal = true, m.Signal
			}
		}
		if request.WantReply {
			_ = request.Reply(false, nil)
		}
	}
	return e
}
