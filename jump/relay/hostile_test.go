package relay

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
)

// TestLinger has a client close its channel, or vanish, while the host takes
// none of its input.
func TestLinger(t *testing.T) {
	for name, leave := range map[string]func(l *lab) error{
		"closed": func(l *lab) error { return l.client.Close() },
		"gone":   func(l *lab) error { return l.clientConn.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, l *lab) {
				l.relay(t.Context(), Config{Request: pass, Linger: time.Minute})
				l.start()
				go func() { _, _ = l.client.Write(make([]byte, 8<<20)) }()
				synctest.Wait()
				_ = leave(l)
				began := time.Now()
				if _, ok := <-l.host.Requests; ok {
					t.Error("the host's channel isn't closed")
				}
				if took := time.Since(began); took < time.Minute || took > 2*time.Minute {
					t.Errorf("the host was given up after %v", took)
				}
				l.ended(nil)
			})
		})
	}
}

// TestLingerMoves has the client close its channel while the host takes its
// input slowly: it gets all of it.
func TestLingerMoves(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		l.relay(t.Context(), Config{Request: pass, Linger: time.Minute})
		l.start()
		const size = 3 << 20
		write(t, l.client, strings.Repeat("x", size))
		check(t, l.client.Close())
		got := 0
		b := make([]byte, 1<<16)
		for {
			n, err := l.host.Read(b)
			got += n
			if err != nil {
				break
			}
			time.Sleep(20 * time.Second)
		}
		if got != size {
			t.Errorf("the host got %d bytes", got)
		}
		l.ended(nil)
	})
}

// TestLostAtOnce ends ctx when the client's connection is lost, as callers
// should: the host that takes nothing is closed in the same moment.
func TestLostAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		gone := errors.New("client gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() {
			_ = l.downConn.Wait()
			cancel(gone)
		}()
		l.relay(ctx, Config{Request: pass})
		l.start()
		go func() { _, _ = l.client.Write(make([]byte, 8<<20)) }()
		synctest.Wait()
		began := time.Now()
		_ = l.clientConn.Close()
		if _, ok := <-l.host.Requests; ok || time.Since(began) > 0 {
			t.Errorf("the host's channel was closed after %v", time.Since(began))
		}
		l.ended(gone)
	})
}

// wedge makes the client's end deaf: x/crypto/ssh stops reading a connection
// when nobody receives a channel's requests.
func (l *lab) wedge() {
	for range 40 {
		_, err := l.host.SendRequest(TypeEndOfWrite, false, nil)
		check(l.t, err)
	}
	synctest.Wait()
}

// TestGrace has a client that answers nothing, neither the request under way
// nor the close. Its connection is closed after a while.
func TestGrace(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		ended := errors.New("ended")
		ctx, cancel := context.WithCancelCause(t.Context())
		l.down.Conn = l.downConn
		l.relay(ctx, Config{Request: pass, Grace: time.Minute, Farewell: func(error) []byte { return []byte("bye") }})
		l.start()
		l.wedge()
		cancel(ended)
		began := time.Now()
		// The host isn't made to wait.
		if _, ok := <-l.host.Requests; ok || time.Since(began) > 0 {
			t.Errorf("the host's channel was closed after %v", time.Since(began))
		}
		_ = l.downConn.Wait()
		if took := time.Since(began); took != time.Minute {
			t.Errorf("the client's connection was closed after %v", took)
		}
		l.ended(ended)
		_ = l.clientConn.Close()
		for range l.client.Requests {
			continue
		}
	})
}

// TestFarewellNotTaken has a client whose window for it is full.
func TestFarewellNotTaken(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		ended := errors.New("ended")
		ctx, cancel := context.WithCancelCause(t.Context())
		l.relay(ctx, Config{Request: pass, Grace: time.Minute, Farewell: func(error) []byte { return []byte("bye") }})
		l.start()
		go func() { _, _ = l.host.Stderr().Write(make([]byte, 8<<20)) }()
		synctest.Wait()
		cancel(ended)
		began := time.Now()
		if _, ok := <-l.client.Requests; ok || time.Since(began) != time.Minute {
			t.Errorf("the client's channel was closed after %v", time.Since(began))
		}
		l.ended(ended)
	})
}

// TestFlood sends requests without end while the first is not decided yet. It
// ends the relay, not the memory; sizes of windows, of which only the last
// counts, may be as many as they like.
func TestFlood(t *testing.T) {
	tests := []struct {
		name, request string
		number, size  int
		want          error
	}{
		{"many", TypeEnv, maxWaiting + 2, 8, ErrTooManyRequests},
		{"large", TypeExec, 9, 1 << 17, ErrTooManyRequests},
		{"within", TypeEnv, maxWaiting - 1, 8, nil},
		{"resizes", TypeWindowChange, 10 * maxWaiting, 16, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, l *lab) {
				decided := make(chan struct{})
				passed := 0
				l.relay(t.Context(), Config{Request: func(ctx context.Context, _ Side, _ *ssh.Request) Verdict {
					select {
					case <-decided:
					case <-ctx.Done():
					}
					passed++
					return Verdict{Action: Pass}
				}})
				go func() {
					for range l.host.Requests {
						continue
					}
				}()
				_, err := l.client.SendRequest(TypePty, false, nil)
				check(t, err)
				synctest.Wait()
				for range test.number {
					if _, err := l.client.SendRequest(test.request, false, bytes.Repeat([]byte{1}, test.size)); err != nil {
						break
					}
				}
				synctest.Wait()
				if test.want == nil {
					close(decided)
					check(t, l.client.Close())
				}
				l.ended(test.want)
				switch {
				case test.request == TypeWindowChange && passed != 2:
					t.Errorf("%d requests were passed on, want the first and the last", passed)
				case test.name == "within" && passed != test.number+1:
					t.Errorf("%d requests were passed on", passed)
				}
			})
		})
	}
}

// TestCollusion has both sides ask and neither answer, with more requests
// behind than fit anywhere. The end of ctx ends it nevertheless.
func TestCollusion(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		ended := errors.New("ended")
		ctx, cancel := context.WithCancelCause(t.Context())
		l.relay(ctx, Config{Request: pass})
		for _, c := range []Channel{l.client, l.host} {
			go func() { _, _ = c.SendRequest(TypeKeepAlive, true, nil) }()
			synctest.Wait()
			for range 500 {
				_, err := c.SendRequest(TypeSignal, false, nil)
				check(t, err)
			}
		}
		synctest.Wait()
		cancel(ended)
		l.ended(ended)
		for _, c := range []Channel{l.client, l.host} {
			for range c.Requests {
				continue
			}
		}
	})
}

// TestRequestsAfterClose has the host go on asking while the rest of the input
// is still passed to it, after the client closed its channel. Nobody is asked
// about that.
func TestRequestsAfterClose(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		l.relay(t.Context(), Config{Request: func(_ context.Context, from Side, r *ssh.Request) Verdict {
			if from == Upstream {
				l.note(r.Type)
			}
			return Verdict{Action: Pass}
		}})
		l.start()
		go func() { _, _ = l.client.Write(make([]byte, 8<<20)) }()
		synctest.Wait()
		check(t, l.client.Close())
		synctest.Wait()
		for range 100 {
			if ok, err := l.host.SendRequest(TypeExitStatus, true, nil); ok || err != nil {
				t.Fatalf("answered %v, %v", ok, err)
			}
		}
		l.ended(nil)
		l.expect()
	})
}

// TestCopy pumps a channel without programs.
func TestCopy(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		var down, up bytes.Buffer
		go func() {
			l.result <- Copy(t.Context(), l.down, l.up, func(from Side, p []byte) error {
				if from == Downstream {
					down.Write(p)
				} else {
					up.Write(p)
				}
				return nil
			})
		}()
		write(t, l.client, "question")
		check(t, l.client.CloseWrite())
		if got := read(t, l.host); got != "question" {
			t.Errorf("the host read %q", got)
		}
		go func() {
			for r := range l.client.Requests {
				_ = r.Reply(true, nil)
			}
		}()
		if ok, err := l.host.SendRequest(TypeKeepAlive, true, nil); !ok || err != nil {
			t.Errorf("keepalive answered %v, %v", ok, err)
		}
		if ok, err := l.host.SendRequest(TypeExec, true, nil); ok || err != nil {
			t.Errorf("exec answered %v, %v", ok, err)
		}
		write(t, l.host, "answer")
		check(t, l.host.Close())
		if got := read(t, l.client); got != "answer" {
			t.Errorf("the client read %q", got)
		}
		l.ended(nil)
		if down.String() != "question" || up.String() != "answer" {
			t.Errorf("seen were %q and %q", &down, &up)
		}
	})
}

// TestCopyRefused ends a forwarding that its caller doesn't want any more.
func TestCopyRefused(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		enough := errors.New("enough")
		go func() {
			l.result <- Copy(t.Context(), l.down, l.up, func(Side, []byte) error { return enough })
		}()
		write(t, l.host, "x")
		if got := read(t, l.client) + read(t, l.host); got != "" {
			t.Errorf("read %q", got)
		}
		l.ended(enough)
	})
}
