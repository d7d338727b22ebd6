package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"

	"go.yaml.in/yaml/v3"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/jump/console"
)

// errNoServer says that no server listens at the admin socket.
var errNoServer = errors.New("no server answers")

// adminSocket reads where the server's admin socket is, or "" for none.
// Nothing else of jump.yaml is looked at: who may use the socket needn't be
// able to read the keys that the rest of it names.
func adminSocket(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("reading the configuration: %w", err)
	}
	var settings struct {
		AdminSocket string `yaml:"admin_socket"`
	}
	if err := yaml.Unmarshal(data, &settings); err != nil {
		return "", fmt.Errorf("reading the configuration %q: %w", path, err)
	}
	socket := settings.AdminSocket
	if socket != "" && !filepath.IsAbs(socket) {
		socket = filepath.Join(filepath.Dir(path), socket)
	}
	return socket, nil
}

// dialAdmin connects to a running server. It returns errNoServer if there is
// none.
func dialAdmin(ctx context.Context, socket string) (*ssh.Client, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED):
		return nil, errNoServer // also a socket that a killed server left
	case errors.Is(err, fs.ErrPermission):
		return nil, terminal.Hint(fmt.Errorf("connecting to the server: %w", err), "the admin socket is for its owner: try sudo, or ssh JUMPHOST sessions ls")
	case err != nil:
		return nil, fmt.Errorf("connecting to the server: %w", err)
	}
	if err := checkServer(conn.(*net.UnixConn), socket); err != nil {
		conn.Close()
		return nil, err
	}
	// A server that accepts and then says nothing is not waited for after ctx.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	c, channels, requests, err := ssh.NewClientConn(conn, "admin", &ssh.ClientConfig{
		User: account(),
		// The kernel has said whose process it is.
		HostKeyCallback: ssh.InsecureIgnoreHostKey(),
		ClientVersion:   "SSH-2.0-fleetjump",
	})
	if err != nil {
		conn.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, terminal.Hint(fmt.Errorf("connecting to the server at %q: %w", socket, err), "is this account one that may use the admin socket?")
	}
	return ssh.NewClient(c, channels, requests), nil
}

// checkServer refuses a server that is neither root's, nor ours, nor of the
// account that the socket's folder belongs to: in a folder like /tmp anybody
// could wait at that path.
func checkServer(conn *net.UnixConn, socket string) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var peerErr error
	if err := raw.Control(func(fd uintptr) {
		peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || peerErr != nil {
		return fmt.Errorf("asking whose the server is: %w", errors.Join(err, peerErr))
	}
	if peer.Uid == 0 || int(peer.Uid) == os.Geteuid() {
		return nil
	}
	info, err := os.Stat(filepath.Dir(socket))
	if err != nil {
		return err
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && owner.Uid == peer.Uid {
		return nil
	}
	return fmt.Errorf("the server at %q runs as user #%d, to whom its folder does not belong", socket, peer.Uid)
}

// remote runs the command in the server. Output and errors stay apart unless
// both go to a terminal, so that an export into a file is exact to the byte.
func (r *recordings) remote(ctx context.Context, server *ssh.Client) (err error) {
	defer server.Close()
	// It also ends a Wait below.
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	session, err := server.NewSession()
	if err != nil {
		return fmt.Errorf("opening a session in the server: %w", err)
	}
	session.Stdout, session.Stderr = r.app.Stdout, r.app.Stderr
	if zone := r.app.Getenv("TZ"); zone != "" {
		_ = session.Setenv("TZ", zone) // the server's own is shown otherwise
	}
	tty, err := openTerminal(r.app, r.play)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tty.restore()) }()
	if tty != nil {
		if err := r.pty(session, tty); err != nil {
			return err
		}
		stop := followSize(session, tty)
		defer func() {
			server.Close() // so that telling a size waits for nobody
			stop()
		}()
		if tty.raw {
			session.Stdin = r.app.Stdin
		}
	}
	err = session.Run(console.Join(r.words))
	var status *ssh.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &status):
		return exit(status.ExitStatus())
	}
	// The server is gone, or we are about to be, and with it the end of what was
	// being drawn.
	if tty != nil && tty.raw {
		fmt.Fprint(r.app.Stdout, resetTerminal)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return terminal.Hint(fmt.Errorf("running the command in the server: %w", err), "was the server stopped meanwhile?")
}

// resetTerminal undoes what replaying may have left: attributes, scrolling
// region, hidden cursor, alternate screen, character sets.
const resetTerminal = "\x1b[0m\x1b[r\x1b[?25h\x1b[?1049l\x1b(B\x0f\r\n"

func (r *recordings) pty(session *ssh.Session, t *tty) error {
	name := r.app.Getenv("TERM")
	if name == "" {
		name = "dumb"
	}
	columns, rows := t.size()
	if err := session.RequestPty(name, rows, columns, ssh.TerminalModes{}); err != nil {
		return fmt.Errorf("asking the server for a terminal: %w", err)
	}
	return nil
}

// followSize tells the server of new sizes until the returned function has
// returned.
func followSize(session *ssh.Session, t *tty) func() {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	var done sync.WaitGroup
	done.Go(func() {
		for range changed {
			columns, rows := t.size()
			if session.WindowChange(rows, columns) != nil {
				return
			}
		}
	})
	return func() {
		signal.Stop(changed)
		close(changed)
		done.Wait()
	}
}
