package remote

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// TestHostileGreeting holds that whatever a server says before it has let us
// in, Dial ends soon, with little memory, and with a typed error.
func TestHostileGreeting(t *testing.T) {
	endless := func(piece string) func(net.Conn) {
		return func(c net.Conn) {
			text := []byte(strings.Repeat(piece, 1000))
			for {
				if _, err := c.Write(text); err != nil {
					return
				}
			}
		}
	}
	silent := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	for _, tt := range []struct {
		name   string
		handle func(net.Conn)
		silent bool
	}{
		{"silence", silent, true},
		{"endless lines", endless("hello\r\n"), false},
		{"endless long lines", endless(strings.Repeat("x", 200) + "\n"), false},
		{"endless line", endless("x"), false},
		{"escape sequences", endless("\x1b]52;c;x\a\n"), false},
		{"endless version", func(c net.Conn) { _, _ = c.Write([]byte("SSH-2.0-")); endless("x")(c) }, false},
		{"version, then silence", func(c net.Conn) { _, _ = c.Write([]byte("SSH-2.0-x\r\n")); silent(c) }, true},
		{"version, then rubbish", func(c net.Conn) { _, _ = c.Write([]byte("SSH-2.0-x\r\n")); endless("\xff\x00")(c) }, false},
		{"another protocol", func(c net.Conn) { _, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")); silent(c) }, true},
		{"version 1", func(c net.Conn) { _, _ = c.Write([]byte("SSH-1.5-x\r\n")); silent(c) }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr := listen(t, tt.handle)
			d := newDialer(t, Config{Timeout: 2 * time.Second}, "IdentityAgent none\n")
			_, err := d.Dial(t.Context(), at(t, "web1", "u", addr, nil), Options{})
			var unreachable *UnreachableError
			if !errors.As(err, &unreachable) {
				t.Fatalf("got %v", err)
			}
			if strings.HasPrefix(tt.name, "endless") && errors.Is(err, errTimeout) {
				t.Errorf("ended late: %v", err)
			}
			if unreachable.Silent && !tt.silent {
				t.Errorf("silent: %v", err)
			}
			if len(err.Error()) > 2000 || strings.ContainsAny(err.Error(), "\x1b\a\n") {
				t.Errorf("error %.300q", err.Error())
			}
		})
	}
}

// TestConnectTimeout holds that ssh_config's ConnectTimeout ends the wait.
func TestConnectTimeout(t *testing.T) {
	addr := listen(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	d := newDialer(t, Config{Timeout: time.Hour}, "ConnectTimeout 1\n")
	_, err := d.Dial(t.Context(), at(t, "web1", "u", addr, nil), Options{})
	var unreachable *UnreachableError
	if !errors.As(err, &unreachable) || !unreachable.Silent {
		t.Errorf("got %v", err)
	}
}

// TestBannerFlood holds that endless banners during authentication end.
func TestBannerFlood(t *testing.T) {
	text := strings.Repeat("banner ", 4000)
	config := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) {
		return nil, errors.New("no")
	}}
	config.PreAuthConnCallback = func(c ssh.ServerPreAuthConn) {
		for c.SendAuthBanner(text) == nil {
		}
	}
	addr, key := serve(t, config, nil)
	d := newDialer(t, Config{Timeout: 20 * time.Second}, "IdentityAgent none\nIdentityFile none\n")
	_, err := d.Dial(t.Context(), pinned(t, "web1", addr, key), Options{})
	if !errors.Is(err, errTooTalkative) {
		t.Errorf("got %v", err)
	}
}

// hostileSession dials a server whose sessions are handled by f.
func hostileSession(t *testing.T, cfg Config, vars map[string]any, f func(ssh.Channel, <-chan *ssh.Request)) *Conn {
	t.Helper()
	addr, key := serve(t, &ssh.ServerConfig{NoClientAuth: true}, f)
	h := pinned(t, "web1", addr, key)
	for k, v := range at(t, "", "", addr, vars).Vars {
		if k != "ansible_user" {
			h.Vars[k] = v
		}
	}
	d := newDialer(t, cfg, "IdentityAgent none\nIdentityFile none\n")
	return dial(t, d, h)
}

func accept(requests <-chan *ssh.Request) {
	for r := range requests {
		_ = r.Reply(true, nil)
	}
}

func TestHostileSessions(t *testing.T) {
	exit := func(ch ssh.Channel) {
		_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ S uint32 }{0}))
		_ = ch.Close()
	}
	for _, tt := range []struct {
		name    string
		session func(ssh.Channel, <-chan *ssh.Request)
		unknown bool // EndUnknown
	}{
		{"endless output", func(ch ssh.Channel, rs <-chan *ssh.Request) {
			go accept(rs)
			b := bytes.Repeat([]byte("x"), 30_000)
			for {
				if _, err := ch.Write(b); err != nil {
					return
				}
			}
		}, true},
		{"refuses exec", func(_ ssh.Channel, rs <-chan *ssh.Request) {
			for r := range rs {
				_ = r.Reply(false, nil)
			}
		}, false},
		{"closes at once", func(ch ssh.Channel, rs <-chan *ssh.Request) {
			go accept(rs)
			_ = ch.Close()
		}, true},
		{"a good end without a start", func(ch ssh.Channel, rs <-chan *ssh.Request) {
			go accept(rs)
			exit(ch)
		}, false},
		{"odd requests", func(ch ssh.Channel, rs <-chan *ssh.Request) {
			go accept(rs)
			_, _ = ch.SendRequest("exit-status", false, []byte{1})
			_, _ = ch.SendRequest("auth-agent-req@openssh.com", true, nil)
			_, _ = ch.SendRequest("exit-signal", true, []byte("x"))
			_ = ch.Close()
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := hostileSession(t, Config{MaxOutput: 1 << 20}, nil, tt.session)
			_, err := c.Run(t.Context(), "echo")
			var script *ScriptError
			if !errors.As(err, &script) || script.EndUnknown != tt.unknown || script.Started {
				t.Errorf("got %#v: %v", script, err)
			}
		})
	}
}

// TestSilentSession holds that a server which answers nothing doesn't hold a
// caller beyond its ctx.
func TestSilentSession(t *testing.T) {
	for _, doing := range []string{"run", "upload"} {
		began, once := make(chan struct{}), sync.Once{} // the spare session begins, too
		c := hostileSession(t, Config{}, nil, func(_ ssh.Channel, rs <-chan *ssh.Request) {
			once.Do(func() { close(began) })
			for range rs { // never answered, never closed
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-began
			cancel()
		}()
		var err error
		if doing == "run" {
			_, err = c.Run(ctx, "echo")
		} else {
			_, err = c.Upload(ctx, []File{{Name: "a"}})
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", doing, err)
		}
	}
}

// TestHostileSFTP holds that a server which answers rubbish to SFTP is left.
func TestHostileSFTP(t *testing.T) {
	c := hostileSession(t, Config{}, nil, func(ch ssh.Channel, rs <-chan *ssh.Request) {
		go accept(rs)
		for {
			if _, err := ch.Write(bytes.Repeat([]byte{0xff}, 1000)); err != nil {
				return
			}
		}
	})
	if _, err := c.Upload(t.Context(), []File{{Name: "a"}}); !errors.Is(err, ErrNoSFTP) {
		t.Errorf("got %v", err)
	}
}

// TestNoAgentForHosts holds that a host that asks for an agent gets none.
func TestNoAgentForHosts(t *testing.T) {
	answer := make(chan error, 1)
	config := &ssh.ServerConfig{NoClientAuth: true}
	_, key := serve(t, config, nil) // adds the host key
	addr := listen(t, func(conn net.Conn) {
		c, channels, requests, err := ssh.NewServerConn(conn, config)
		if err != nil {
			answer <- err
			return
		}
		defer c.Close()
		go ssh.DiscardRequests(requests)
		_, _, err = c.OpenChannel("auth-agent@openssh.com", nil)
		answer <- err
		for ch := range channels {
			_ = ch.Reject(ssh.Prohibited, "")
		}
	})
	d := newDialer(t, Config{}, "ForwardAgent yes\nIdentityAgent "+startAgent(t)+"\nIdentityFile none\n")
	dial(t, d, pinned(t, "web1", addr, key))
	var refused *ssh.OpenChannelError
	if err := <-answer; !errors.As(err, &refused) {
		t.Errorf("the host was given a channel to an agent: %v", err)
	}
}

// TestHostileSudo holds that a host which isn't asked by sudo gets no password.
func TestHostileSudo(t *testing.T) {
	for _, said := range []string{"Password: ", "[sudo] password for u: ", "fleetca-password-:", "fleetca-password-AAAA:"} {
		got := make(chan []byte, 1)
		c := hostileSession(t, Config{BecomePassword: func(context.Context) ([]byte, error) {
			return []byte("hunter2"), nil
		}}, map[string]any{"ansible_become": true}, func(ch ssh.Channel, rs <-chan *ssh.Request) {
			go accept(rs)
			_, _ = ch.Stderr().Write([]byte(said))
			go func() {
				all, _ := io.ReadAll(ch)
				got <- all
			}()
			_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ S uint32 }{1}))
			_ = ch.Close()
		})
		_, err := c.Run(t.Context(), "echo secret script")
		var become *BecomeError
		if !errors.As(err, &become) {
			t.Errorf("%q: %v", said, err)
		}
		_ = c.Close()
		if all := <-got; len(all) != 0 {
			t.Errorf("%q made us write %q", said, all)
		}
	}
}

// TestNothingLeft holds that goroutines end with what started them.
func TestNothingLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("connections", func(t *testing.T) {
		for range 3 {
			began, once := make(chan struct{}), sync.Once{} // the spare session begins, too
			c := hostileSession(t, Config{}, nil, func(_ ssh.Channel, rs <-chan *ssh.Request) {
				once.Do(func() { close(began) })
				for range rs {
				}
			})
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				<-began
				cancel()
			}()
			_, _ = c.Run(ctx, "echo")
			_ = c.Close()
		}
	})
	deadline := time.Now().Add(20 * time.Second)
	for runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), stacks[:runtime.Stack(stacks, true)])
		}
		runtime.Gosched()
	}
}
