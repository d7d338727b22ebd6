package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// sudo runs the shell with another user's rights. A password is written only
// when sudo asks for it by a marker that nobody else can know, and only once: a
// second question means that it was wrong.
type sudo struct {
	host, user string
	password   []byte // nil for none
	prompt     string
	refused    func() // remembers that the password is wrong on this host
}

var userShape = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*\$?$`)

func checkBecomeUser(user string) error {
	if len(user) > 64 || !userShape.MatchString(user) {
		return fmt.Errorf("%.100q is not the name of a user to become", user)
	}
	return nil
}

// sudo prepares one use of sudo. The password is asked for here, once for the
// fleet; a host that refused it isn't given it again.
func (c *Conn) sudo(ctx context.Context) (*sudo, error) {
	s := &sudo{host: c.host, user: c.becomeUser, prompt: marker("password")}
	d := c.d
	d.mu.Lock()
	bad := d.badSudo[c.host]
	d.mu.Unlock()
	if bad {
		return nil, &BecomeError{
			Host: s.host, User: s.user, Reason: BecomeWrongPassword,
			Err: errors.New("not tried again, so that the login isn't locked"),
		}
	}
	s.refused = func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.badSudo[c.host] = true
	}
	if d.cfg.BecomePassword == nil {
		return s, nil
	}
	var err error
	s.password, err = d.become.get(ctx, d.cfg.BecomePassword)
	if err == nil && bytes.ContainsAny(s.password, "\r\n\x00") {
		err = errors.New("the password holds a line end")
	}
	if err != nil {
		return nil, &BecomeError{Host: s.host, User: s.user, Reason: BecomeOther, Err: fmt.Errorf("asking for sudo's password: %w", err)}
	}
	return s, nil
}

// command is the line for the login's shell; see run.command.
func (s *sudo) command(ready string) string {
	how := "-n"
	if s.password != nil {
		how = "-S -p " + s.prompt + ":"
	}
	outer := `LC_ALL=C; PATH=$PATH:/usr/local/bin:/usr/bin; export LC_ALL PATH; ` +
		`exec sudo ` + how + ` -H -u ` + s.user + ` -- /bin/sh -c "$1" sh "$SSH_CONNECTION"`
	inner := begin(ready, "$1", s.password != nil)
	return `/bin/sh -c '` + outer + `' sh '` + inner + `'`
}

// begin returns nil when the script may be written. Without a password that is
// at once, since sudo -n reads nothing; with one, when the shell says that it is
// ready. It gives up when stop is closed, with nil, because then the channel is
// closed as well.
func (s *sudo) begin(r *run, w interface{ Write([]byte) (int, error) }, stop <-chan struct{}) error {
	if s.password == nil {
		return nil
	}
	written := false
	for {
		if _, ready := r.stderr.after(r.ready); ready {
			return nil
		}
		switch asked := r.stderr.count(s.prompt); {
		case asked > 1:
			s.refused()
			return &BecomeError{Host: s.host, User: s.user, Reason: BecomeWrongPassword}
		case asked == 1 && !written:
			written = true
			line := append(bytes.Clone(s.password), '\n')
			_, err := w.Write(line)
			clear(line)
			if err != nil {
				return nil // the channel is closed; its end tells why
			}
		}
		select {
		case <-r.stderr.more:
		case <-stop:
			return nil
		}
	}
}

// explain turns sudo's words into a reason. They are English, since LC_ALL=C.
func (s *sudo) explain(stderr []byte, status int) error {
	text := strings.ToLower(string(stderr))
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(text, w) {
				return true
			}
		}
		return false
	}
	e := &BecomeError{Host: s.host, User: s.user, Reason: BecomeOther}
	asked := s.password != nil && strings.Contains(text, strings.ToLower(s.prompt))
	switch {
	case has("sudo: not found", "sudo: command not found", "sudo: no such file", "sudo: permission denied"):
		e.Reason = BecomeMissing
	case has("must have a tty", "a terminal is required", "no tty present"):
		e.Reason = BecomeNeedsTerminal
	case has("not in the sudoers", "not allowed to", "may not run sudo"):
		e.Reason = BecomeNotAllowed
	case has("password is required"), has("password was provided") && !asked:
		e.Reason = BecomeNeedsPassword
		if s.password != nil {
			e.Reason = BecomeWrongPassword
		}
	case has("incorrect password", "incorrect authentication", "authentication failure", "try again"):
		e.Reason = BecomeWrongPassword
	}
	if e.Reason == BecomeWrongPassword && asked {
		s.refused()
	}
	e.Output = tail([]byte(strings.ReplaceAll(string(stderr), s.prompt+":", "")))
	if len(bytes.TrimSpace(e.Output)) == 0 {
		e.Output = nil
	}
	if e.Reason == BecomeOther {
		e.Err = fmt.Errorf("exit status %d", status)
	}
	return e
}
