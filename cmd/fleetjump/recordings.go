package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"reflect"
	"strconv"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/jump/access"
	"github.com/fleetca/fleetca/jump/audit"
	"github.com/fleetca/fleetca/jump/config"
	"github.com/fleetca/fleetca/jump/console"
	"github.com/fleetca/fleetca/jump/store"
	"github.com/fleetca/fleetca/jump/store/badgerstore"
)

// recordings runs one of the console's commands: in the running server if one
// answers, since that has the store open; else here.
type recordings struct {
	app    *program.App
	config string
	words  []string // the command and its flags
	play   bool
}

func (r *recordings) run(ctx context.Context) error {
	socket, err := adminSocket(r.config)
	if err != nil {
		return program.WithCode(program.ExitUsage, terminal.Hint(err, "--config or $FLEETJUMP_CONFIG says where jump.yaml is"))
	}
	if socket != "" {
		server, err := dialAdmin(ctx, socket)
		if err == nil {
			return r.remote(ctx, server)
		} else if !errors.Is(err, errNoServer) {
			return err
		}
	}
	return r.local(ctx, socket)
}

// local opens the store of a server that doesn't run.
func (r *recordings) local(ctx context.Context, socket string) (err error) {
	cfg, _, err := config.Load(ctx, r.config)
	if err != nil {
		return program.WithCode(program.ExitUsage, terminal.Hint(err,
			"no server answers, so the recordings are opened here: run this as the server's user, with all that its configuration names"))
	}
	if err := checkThere(cfg.Store.Dir); err != nil {
		return err
	}
	s, err := badgerstore.Open(ctx, storeConfig(cfg, nil))
	if err != nil {
		return lockedHint(err, socket)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	log, err := audit.Open(ctx, audit.Config{Dir: cfg.AuditDir, Store: s, ServerID: cfg.Name, Now: r.app.Now})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()

	streams := console.Streams{Out: r.app.Stdout, Err: r.app.Stderr, Zone: time.Local}
	tty, err := openTerminal(r.app, r.play)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tty.restore()) }()
	if tty != nil {
		streams.Terminal, streams.Size = true, tty.size
		if tty.raw {
			streams.In = r.app.Stdin
		}
	}
	// Who can open the files can read them all anyway.
	caller := console.Caller{Identity: account(), Client: "local", Scope: access.All, Remove: true, Audit: true}
	return exit(console.New(console.Config{Store: s, Audit: log, Now: r.app.Now}).Run(ctx, caller, r.words, streams))
}

// exit ends with the console's code; the console has told why.
func exit(code int) error {
	if code == 0 {
		return nil
	}
	return program.WithCode(code, program.ErrSilent)
}

// account names who runs this in the audit log, apart from identities.
func account() string {
	name := strconv.Itoa(os.Getuid())
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	return "local:" + name
}

// checkThere refuses to make a store only to look at it. That it isn't somebody
// else's, whom files of ours would keep out of it, config.Load has checked.
func checkThere(dir string) error {
	_, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return terminal.Hint(fmt.Errorf("there are no recordings: %q does not exist", dir), "fleetjump serve makes it; is this the server's configuration?")
	} else if err != nil {
		return fmt.Errorf("looking at the recording store: %w", err)
	}
	return nil
}

func lockedHint(err error, socket string) error {
	switch {
	case !errors.Is(err, store.ErrLocked):
		return err
	case socket == "":
		return terminal.Hint(err, "set admin_socket in jump.yaml, and recordings are reached through the running server; or use ssh: ssh JUMPHOST sessions ls")
	default:
		return terminal.Hint(err, "nothing answers at admin_socket "+socket+": the server is stopping, or was started with another configuration")
	}
}

// words are the command line without the flags that are this program's own.
// Commands that run elsewhere are parsed here first, so that mistakes, help
// and completion need no server.
func words(kctx *kong.Context) []string {
	var command, flags, args []string
	own := map[*kong.Value]bool{}
	for _, f := range kctx.Model.Flags {
		own[f.Value] = true
	}
	for _, p := range kctx.Path {
		switch {
		case p.Command != nil:
			command = append(command, p.Command.Name)
		case p.Flag != nil && !own[p.Flag.Value]:
			own[p.Flag.Value] = true // a repeated one has all its values
			for _, v := range values(p.Flag.Target) {
				flags = append(flags, "--"+p.Flag.Name+"="+v)
			}
		case p.Positional != nil && !own[p.Positional]:
			own[p.Positional] = true
			args = append(args, values(p.Positional.Target)...)
		}
	}
	if len(args) > 0 {
		args = append([]string{"--"}, args...)
	}
	return append(append(command, flags...), args...)
}

func values(target reflect.Value) []string {
	if target.Kind() == reflect.Pointer {
		target = target.Elem()
	}
	if target.Kind() != reflect.Slice {
		return []string{fmt.Sprint(target.Interface())}
	}
	var out []string
	for i := range target.Len() {
		out = append(out, values(target.Index(i))...)
	}
	return out
}

// tty is the person's terminal.
type tty struct {
	in, out *os.File
	state   *term.State
	raw     bool
}

// openTerminal returns nil if stdout is no terminal. With keys, and if stdin is
// one too, it is put into raw mode until restore.
func openTerminal(a *program.App, keys bool) (*tty, error) {
	out, ok := a.Stdout.(*os.File)
	if !ok || !terminal.IsTerminal(out) {
		return nil, nil
	}
	t := &tty{out: out}
	if !keys || !terminal.IsTerminal(a.Stdin) {
		return t, nil
	}
	t.in = a.Stdin.(*os.File)
	var err error
	if t.state, err = term.MakeRaw(int(t.in.Fd())); err != nil {
		return nil, fmt.Errorf("making the terminal raw: %w", err)
	}
	t.raw = true
	return t, nil
}

// restore makes the terminal what it was. A second call does nothing.
func (t *tty) restore() error {
	if t == nil || !t.raw {
		return nil
	}
	t.raw = false
	return term.Restore(int(t.in.Fd()), t.state)
}

func (t *tty) size() (columns, rows int) {
	columns, rows, err := term.GetSize(int(t.out.Fd()))
	if err != nil {
		return 0, 0
	}
	return columns, rows
}
