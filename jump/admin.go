package jump

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/fleetca/fleetca/jump/relay"
)

// The admin socket speaks SSH, since that already has what a command needs:
// arguments, three streams, a terminal with its size, and an exit status. Nobody
// logs in: who may connect is the kernel's word (unix(7), SO_PEERCRED).

// listenAdmin makes the socket, which only its owner may use. A socket that a
// killed server has left behind is replaced; one that answers is not.
func listenAdmin(ctx context.Context, path string) (net.Listener, error) {
	wrong := func(err error) error { return fmt.Errorf("admin socket %s: %w", path, err) }
	var d net.Dialer
	if conn, err := d.DialContext(ctx, "unix", path); err == nil {
		_ = conn.Close()
		return nil, wrong(errors.New("another server answers on it"))
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&os.ModeSocket == 0 {
			return nil, wrong(errors.New("there is a file of that name that is not a socket"))
		}
		if err := os.Remove(path); err != nil {
			return nil, wrong(err)
		}
	}
	// The mode is there from the beginning: nobody can connect in between.
	old := syscall.Umask(0o177)
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	syscall.Umask(old)
	if err != nil {
		return nil, wrong(err)
	}
	return l, nil
}

// peer is the user at the other end.
func peer(conn net.Conn) (uint32, error) {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, errors.New("not a Unix socket")
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return cred.Uid, nil
}

// adminKey is a host key for one connection; the kernel vouches for the rest.
func adminKey() (ssh.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return ssh.NewSignerFromSigner(key)
}

// serveAdmin serves one connection to the admin socket.
func (s *Server) serveAdmin(ctx context.Context, conn net.Conn) {
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	uid, err := peer(conn)
	if err != nil || uid != 0 && uid != uint32(os.Geteuid()) {
		s.log.Warn("admin socket: not let in", "uid", uid, "error", err)
		return
	}
	key, err := adminKey()
	if err != nil {
		s.log.Error("admin socket", "error", err)
		return
	}
	cfg := &ssh.ServerConfig{NoClientAuth: true, ServerVersion: serverVersion}
	cfg.AddHostKey(key)
	sc, channels, requests, err := ssh.NewServerConn(conn, cfg)
	if err != nil {
		s.log.Warn("admin socket", "error", err)
		return
	}
	defer func() { _ = sc.Close() }()
	go ssh.DiscardRequests(requests)
	var work sync.WaitGroup
	for nc := range channels {
		if nc.ChannelType() != relay.ChannelSession {
			_ = nc.Reject(ssh.UnknownChannelType, "only sessions")
			continue
		}
		work.Go(func() { s.adminSession(ctx, nc, uid) })
	}
	work.Wait()
}

func (s *Server) adminSession(ctx context.Context, nc ssh.NewChannel, uid uint32) {
	ch, requests, err := nc.Accept()
	if err != nil {
		return
	}
	defer func() { _ = ch.Close() }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var view screen
	for r := range requests {
		switch r.Type {
		case relay.TypePty:
			p, err := relay.ParsePtyRequest(r.Payload)
			if err == nil {
				view.resize(p.Columns, p.Rows)
			}
			_ = r.Reply(err == nil, nil)
		case relay.TypeEnv:
			_ = r.Reply(view.env(r.Payload), nil)
		case relay.TypeExec:
			e, err := relay.ParseExec(r.Payload)
			_ = r.Reply(err == nil, nil)
			if err != nil {
				return
			}
			go afterStart(requests, &view, cancel)
			s.runCommand(ctx, ch, adminCaller(uid), e.Command, &view, time.Local)
			return
		default:
			_ = r.Reply(false, nil)
		}
	}
}
