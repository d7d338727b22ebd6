package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
)

func is(err, want error) bool {
	if want == nil {
		return err == nil
	}
	return errors.Is(err, want)
}

// TestSession runs a session through its whole life and looks at what the
// client got in which order.
func TestSession(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		l.relay(t.Context(), Config{Request: pass})
		l.start()
		write(t, l.client, "in")
		check(t, l.client.CloseWrite())
		if got := read(t, l.host); got != "in" {
			t.Errorf("the host read %q", got)
		}
		write(t, l.host, "out")
		write(t, l.host.Stderr(), "err")
		check(t, l.host.CloseWrite())
		status := ssh.Marshal(ExitStatus{3})
		_, err := l.host.SendRequest(TypeExitStatus, false, status)
		check(t, err)
		check(t, l.host.Close())
		if got := read(t, l.client) + read(t, l.client.Stderr()); got != "outerr" {
			t.Errorf("the client read %q", got)
		}
		r := <-l.client.Requests
		if r == nil || r.Type != TypeExitStatus || string(r.Payload) != string(status) {
			t.Errorf("the client got %+v, want the exit status", r)
		}
		if r, ok := <-l.client.Requests; ok {
			t.Errorf("the client got %+v, want the channel closed", r)
		}
		l.ended(nil)
	})
}

// TestNothingBeforeStart sends input before the program is started, as sshd
// would lose it.
func TestNothingBeforeStart(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		l.relay(t.Context(), Config{
			Request: func(_ context.Context, _ Side, r *ssh.Request) Verdict {
				l.note(r.Type)
				return Verdict{Action: Pass, Answered: func(bool, []byte) { l.note("verdict") }}
			},
			Answered: func(_ Side, _ *ssh.Request, ok bool) { l.note(fmt.Sprint(ok)) },
			Data:     func(from Side, _ bool, p []byte) error { l.note(from.String() + " " + string(p)); return nil },
		})
		write(t, l.client, "early")
		check(t, l.client.CloseWrite())
		write(t, l.host, "early too")
		synctest.Wait()
		l.expect()
		go func() {
			for r := range l.host.Requests {
				_ = r.Reply(r.Type != TypeShell, nil)
			}
		}()
		if ok, err := l.client.SendRequest(TypeShell, true, nil); ok || err != nil {
			t.Fatalf("shell answered %v, %v", ok, err)
		}
		synctest.Wait()
		l.expect("shell", "verdict", "false")
		go func() {
			_, _ = l.client.SendRequest(TypeSubsystem, true, ssh.Marshal(Subsystem{"sftp"}))
		}()
		if got := read(t, l.host); got != "early" {
			t.Errorf("the host read %q", got)
		}
		check(t, l.host.Close())
		if got := read(t, l.client); got != "early too" {
			t.Errorf("the client read %q", got)
		}
		l.ended(nil)
		if got := strings.Join(l.events[3:6], " "); got != "subsystem verdict true" {
			t.Errorf("then came %s", got)
		}
	})
}

// TestOneProgram wants the second program on a channel refused without
// anybody being asked.
func TestOneProgram(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		l.relay(t.Context(), Config{Request: func(_ context.Context, _ Side, r *ssh.Request) Verdict {
			l.note(r.Type)
			return Verdict{Action: Pass}
		}})
		l.start()
		if ok, err := l.client.SendRequest(TypeShell, true, nil); ok || err != nil {
			t.Errorf("a second program was answered %v, %v", ok, err)
		}
		l.expect("exec")
		check(t, l.client.Close())
		l.ended(nil)
	})
}

func TestVerdicts(t *testing.T) {
	tests := []struct {
		name    string
		request func(context.Context, Side, *ssh.Request) Verdict
		ok      bool
		got     string // what the host got, if anything
	}{
		{"nobody decides", nil, false, ""},
		{"zero", func(context.Context, Side, *ssh.Request) Verdict { return Verdict{} }, false, ""},
		{"unknown", func(context.Context, Side, *ssh.Request) Verdict { return Verdict{Action: 9} }, false, ""},
		{"drop", func(context.Context, Side, *ssh.Request) Verdict { return Verdict{Action: Drop} }, true, ""},
		{"pass", pass, true, "payload"},
		{"replaced", func(context.Context, Side, *ssh.Request) Verdict {
			return Verdict{Action: Pass, Payload: []byte("other")}
		}, true, "other"},
		{"emptied", func(context.Context, Side, *ssh.Request) Verdict {
			return Verdict{Action: Pass, Payload: []byte{}}
		}, true, "-"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, l *lab) {
				l.relay(t.Context(), Config{Request: test.request})
				go func() {
					for r := range l.host.Requests {
						l.note(string(r.Payload) + strings.Repeat("-", 1-min(len(r.Payload), 1)))
						_ = r.Reply(true, nil)
					}
				}()
				ok, err := l.client.SendRequest(TypeEnv, true, []byte("payload"))
				if ok != test.ok || err != nil {
					t.Errorf("answered %v, %v, want %v", ok, err, test.ok)
				}
				if test.got == "" {
					l.expect()
				} else {
					l.expect(test.got)
				}
				check(t, l.client.Close())
				l.ended(nil)
			})
		})
	}
}

// TestAnswersInOrder wants the next request to wait for the answer to the one
// before, and both sides to be independent of each other.
func TestAnswersInOrder(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		l.relay(t.Context(), Config{Request: pass})
		answers := make(chan bool, 1)
		go func() {
			ok, _ := l.client.SendRequest("first", true, nil)
			answers <- ok
		}()
		first := <-l.host.Requests
		_, err := l.client.SendRequest("second", false, nil)
		check(t, err)
		synctest.Wait()
		select {
		case r := <-l.host.Requests:
			t.Fatalf("%q came before the answer", r.Type)
		default:
		}
		go func() {
			r := <-l.client.Requests
			_ = r.Reply(r.Type == TypeKeepAlive, nil)
		}()
		if ok, err := l.host.SendRequest(TypeKeepAlive, true, nil); !ok || err != nil {
			t.Errorf("keepalive answered %v, %v", ok, err)
		}
		check(t, first.Reply(true, nil))
		if !<-answers {
			t.Error("the answer was turned round")
		}
		if r := <-l.host.Requests; r.Type != "second" {
			t.Errorf("got %q", r.Type)
		}
		check(t, l.client.Close())
		l.ended(nil)
	})
}

// TestFirst hands requests over that were received before.
func TestFirst(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		answers := make(chan bool, 1)
		go func() {
			_, _ = l.client.SendRequest(TypeAgent, false, nil)
			ok, _ := l.client.SendRequest(TypeShell, true, nil)
			answers <- ok
		}()
		l.down.First = []*ssh.Request{<-l.down.Requests}
		l.relay(t.Context(), Config{Request: pass})
		if r := <-l.host.Requests; r.Type != TypeAgent {
			t.Errorf("got %q first", r.Type)
		}
		check(t, (<-l.host.Requests).Reply(true, nil))
		if !<-answers {
			t.Error("refused")
		}
		check(t, l.host.Close())
		l.ended(nil)
	})
}

// TestHalfClose ends the host's output, after which input and the status still
// have their way.
func TestHalfClose(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		l.relay(t.Context(), Config{Request: pass})
		l.start()
		check(t, l.host.CloseWrite())
		if got := read(t, l.client); got != "" {
			t.Errorf("the client read %q", got)
		}
		for _, part := range []string{"still ", "here"} {
			write(t, l.client, part)
			b := make([]byte, len(part))
			if _, err := io.ReadFull(l.host, b); err != nil || string(b) != part {
				t.Fatalf("the host read %q, %v", b, err)
			}
		}
		_, err := l.host.SendRequest(TypeEndOfWrite, false, nil)
		check(t, err)
		if r := <-l.client.Requests; r.Type != TypeEndOfWrite {
			t.Errorf("got %q", r.Type)
		}
		check(t, l.client.CloseWrite())
		if got := read(t, l.host); got != "" {
			t.Errorf("the host read %q", got)
		}
		check(t, l.host.Close())
		l.ended(nil)
	})
}

// TestStatusAfterOutput has the caller take its time with the output, so that
// the exit status could overtake it.
func TestStatusAfterOutput(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		l.relay(t.Context(), Config{Request: pass, Data: func(Side, bool, []byte) error {
			time.Sleep(3 * settleTick)
			return nil
		}})
		l.start()
		got := make(chan string, 2)
		for _, r := range []io.Reader{l.client, l.client.Stderr()} {
			go func() { got <- read(t, r) }()
		}
		long := strings.Repeat("x", 1<<18)
		write(t, l.host, long)
		write(t, l.host.Stderr(), long)
		_, err := l.host.SendRequest(TypeExitStatus, false, ssh.Marshal(ExitStatus{0}))
		check(t, err)
		check(t, l.host.CloseWrite())
		<-l.client.Requests
		synctest.Wait()
		for range 2 {
			select {
			case s := <-got:
				if s != long {
					t.Errorf("got %d bytes", len(s))
				}
			default:
				t.Error("the status came before the end of the output")
			}
		}
		check(t, l.host.Close())
		l.ended(nil)
	})
}

// TestStatusBeforeEnd has a client that closes its channel as soon as it has
// ended both ways, as OpenSSH's does, and a program that tells how it ended long
// after its output did.
func TestStatusBeforeEnd(t *testing.T) {
	for name, eow := range map[string]bool{"end of input": false, "input not wanted": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, l *lab) {
				l.relay(t.Context(), Config{Request: pass})
				l.start()
				if eow {
					_, err := l.host.SendRequest(TypeEndOfWrite, false, nil)
					check(t, err)
					<-l.client.Requests
				} else {
					check(t, l.client.CloseWrite())
				}
				check(t, l.host.CloseWrite())
				go func() {
					_, _ = io.ReadAll(l.client)
					_ = l.client.Close()
				}()
				time.Sleep(time.Hour)
				_, err := l.host.SendRequest(TypeExitStatus, false, ssh.Marshal(ExitStatus{0}))
				check(t, err)
				if r := <-l.client.Requests; r == nil || r.Type != TypeExitStatus {
					t.Errorf("got %+v", r)
				}
				l.ended(nil)
			})
		})
	}
}

// TestStatusDoesNotWait wants the exit status at once where the output is held
// open by somebody else, and in a while where the client takes none of it.
func TestStatusDoesNotWait(t *testing.T) {
	for name, test := range map[string]struct {
		bytes int
		limit time.Duration
	}{
		"open": {0, 3 * settleTick},
		"full": {3 << 20, 2 * settleTicks * settleTick},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, l *lab) {
				l.relay(t.Context(), Config{Request: pass})
				l.start()
				write(t, l.host, strings.Repeat("x", test.bytes))
				synctest.Wait()
				began := time.Now()
				_, err := l.host.SendRequest(TypeExitStatus, false, ssh.Marshal(ExitStatus{0}))
				check(t, err)
				<-l.client.Requests
				if took := time.Since(began); took > test.limit {
					t.Errorf("took %v", took)
				}
				check(t, l.client.Close())
				check(t, l.host.Close())
				l.ended(nil)
			})
		})
	}
}

// TestUnreadOutput has the host end with output that the client reads much
// later: it must all come, and its status.
func TestUnreadOutput(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		l.relay(t.Context(), Config{Request: pass})
		l.start()
		const size = 3 << 20
		write(t, l.host, strings.Repeat("x", size))
		_, err := l.host.SendRequest(TypeExitStatus, false, ssh.Marshal(ExitStatus{0}))
		check(t, err)
		check(t, l.host.Close())
		_ = l.hostConn.Close()
		time.Sleep(24 * time.Hour)
		if got := read(t, l.client); len(got) != size {
			t.Errorf("the client read %d bytes", len(got))
		}
		if r := <-l.client.Requests; r == nil || r.Type != TypeExitStatus {
			t.Errorf("got %+v", r)
		}
		l.ended(nil)
	})
}

// TestBackPressure wants a host that floods a client which doesn't read to be
// stopped after two windows of 2 MiB and what is in hand.
func TestBackPressure(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		var seen atomic.Int64
		l.relay(t.Context(), Config{Request: pass, Data: func(_ Side, _ bool, p []byte) error {
			seen.Add(int64(len(p)))
			return nil
		}})
		l.start()
		written := make(chan int, 1)
		go func() {
			n := 0
			for chunk := make([]byte, 1<<16); ; {
				m, err := l.host.Write(chunk)
				n += m
				if err != nil {
					written <- n
					return
				}
			}
		}()
		time.Sleep(time.Hour)
		if n, limit := seen.Load(), int64(2<<20+defaultBuffer); n > limit {
			t.Errorf("%d bytes passed, want at most %d", n, limit)
		}
		check(t, l.client.Close())
		if n, limit := <-written, 4<<20+1<<17; n > limit {
			t.Errorf("the host could write %d bytes, want at most %d", n, limit)
		}
		l.ended(nil)
	})
}

// TestDataRefuses ends a session because its bytes can't be recorded: the
// client is told, gets none of them, and both channels are closed.
func TestDataRefuses(t *testing.T) {
	full := errors.New("the store is full")
	for _, stderr := range []bool{false, true} {
		bubble(t, func(t *testing.T, l *lab) {
			l.relay(t.Context(), Config{
				Request:  pass,
				Data:     func(Side, bool, []byte) error { return full },
				Farewell: func(cause error) []byte { return []byte("sorry: " + cause.Error()) },
			})
			l.start()
			if stderr {
				write(t, l.host.Stderr(), "secret")
			} else {
				write(t, l.host, "secret")
			}
			if got := read(t, l.client); got != "" {
				t.Errorf("the client read %q", got)
			}
			if got := read(t, l.client.Stderr()); got != "sorry: the store is full" {
				t.Errorf("the client was told %q", got)
			}
			if _, ok := <-l.host.Requests; ok {
				t.Error("the host's channel isn't closed")
			}
			l.ended(full)
		})
	}
}

// TestContext ends the relay from outside.
func TestContext(t *testing.T) {
	expired := errors.New("the certificate expired")
	bubble(t, func(t *testing.T, l *lab) {
		ctx, cancel := context.WithCancelCause(t.Context())
		l.relay(ctx, Config{Request: pass, Farewell: func(error) []byte { return nil }})
		l.start()
		cancel(expired)
		if got := read(t, l.client) + read(t, l.host); got != "" {
			t.Errorf("read %q", got)
		}
		l.ended(expired)
	})
	bubble(t, func(t *testing.T, l *lab) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(expired)
		l.relay(ctx, Config{Request: pass})
		l.ended(expired)
	})
}

// TestLost cuts either connection.
func TestLost(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		l.relay(t.Context(), Config{Request: pass})
		l.start()
		_ = l.clientConn.Close()
		if _, ok := <-l.host.Requests; ok {
			t.Error("the host's channel isn't closed")
		}
		l.ended(nil)
	})
	bubble(t, func(t *testing.T, l *lab) {
		l.relay(t.Context(), Config{Request: pass})
		l.start()
		write(t, l.host, "last words")
		_ = l.hostConn.Close()
		if got := read(t, l.client); got != "last words" {
			t.Errorf("the client read %q", got)
		}
		if _, ok := <-l.client.Requests; ok {
			t.Error("the client's channel isn't closed")
		}
		l.ended(nil)
	})
}
