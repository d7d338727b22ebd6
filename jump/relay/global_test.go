package relay

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
)

func (l *lab) requests(ctx context.Context, decide func(*ssh.Request) Verdict) {
	go func() { l.result <- Requests(ctx, l.downConn.requests, l.upConn, decide) }()
}

func passGlobals(*ssh.Request) Verdict { return Verdict{Action: Pass} }

func TestRequests(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		var answered []bool
		l.requests(t.Context(), func(r *ssh.Request) Verdict {
			v := Verdict{Answered: func(ok bool, reply []byte) { answered = append(answered, ok && len(reply) == 4) }}
			switch r.Type {
			case TypeKeepAlive, TypeTCPIPForward:
				v.Action = Pass
			case TypeNoMoreSessions:
				v.Action, v.Payload = Pass, []byte("replaced")
			case TypeHostKeysProve:
				v.Action, v.Reply = Drop, []byte("signatures")
			}
			return v
		})
		go func() {
			for r := range l.hostConn.requests {
				l.note(r.Type + " " + string(r.Payload))
				if r.Type == TypeTCPIPForward {
					_ = r.Reply(true, ssh.Marshal(TCPIPForwardReply{4711}))
				} else {
					_ = r.Reply(false, nil)
				}
			}
		}()
		tests := []struct {
			request string
			want    bool
			ok      bool
			reply   string
		}{
			{TypeKeepAlive, true, false, ""},
			{TypeTCPIPForward, true, true, string(ssh.Marshal(TCPIPForwardReply{4711}))},
			{TypeHostKeysProve, true, true, "signatures"},
			{TypeNoMoreSessions, false, false, ""},
			{TypeStreamLocalForward, true, false, ""},
		}
		for _, test := range tests {
			ok, reply, err := l.clientConn.SendRequest(test.request, test.want, []byte("payload"))
			if ok != test.ok || string(reply) != test.reply || err != nil {
				t.Errorf("%s answered %v, %q, %v", test.request, ok, reply, err)
			}
		}
		_ = l.clientConn.Close()
		l.ended(nil)
		synctest.Wait()
		l.expect(TypeKeepAlive+" payload", TypeTCPIPForward+" payload", TypeNoMoreSessions+" replaced")
		if len(answered) != 2 || answered[0] || !answered[1] {
			t.Errorf("answered %v", answered)
		}
	})
}

func TestRequestsNobodyDecides(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		l.requests(t.Context(), nil)
		if ok, _, err := l.clientConn.SendRequest(TypeKeepAlive, true, nil); ok || err != nil {
			t.Errorf("answered %v, %v", ok, err)
		}
		_ = l.clientConn.Close()
		l.ended(nil)
	})
}

// TestRequestsUnanswered has a host that never answers.
func TestRequestsUnanswered(t *testing.T) {
	ended := errors.New("ended")
	bubble(t, func(t *testing.T, l *lab) {
		ctx, cancel := context.WithCancelCause(t.Context())
		l.requests(ctx, passGlobals)
		go func() { _, _, _ = l.clientConn.SendRequest(TypeKeepAlive, true, nil) }()
		synctest.Wait()
		began := time.Now()
		cancel(ended)
		l.ended(ended)
		if took := time.Since(began); took != defaultWait {
			t.Errorf("it took %v", took)
		}
	})
	bubble(t, func(t *testing.T, l *lab) {
		l.requests(t.Context(), passGlobals)
		go func() { _, _, _ = l.clientConn.SendRequest(TypeKeepAlive, true, nil) }()
		synctest.Wait()
		for range maxWaiting + 1 {
			if _, _, err := l.clientConn.SendRequest("x", false, nil); err != nil {
				break
			}
		}
		l.ended(ErrTooManyRequests)
	})
}
