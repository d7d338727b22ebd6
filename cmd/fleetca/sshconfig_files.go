package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/templates"
)

// sshFiles are the files of a person's ssh: its own config, and ours beside it.
type sshFiles struct {
	dir   string
	tilde bool // ssh, too, finds dir as ~/.ssh
	name  string
}

// newSSHFiles finds ssh's folder. ssh goes by the home folder of the account
// and not by HOME, so "~" is only written where these are one.
func newSSHFiles(a *program.App, dir, name string) (*sshFiles, error) {
	f := &sshFiles{dir: dir, name: name}
	account := ""
	if u, err := user.LookupId(strconv.Itoa(os.Getuid())); err == nil && u.HomeDir != "" {
		account = filepath.Join(u.HomeDir, ".ssh")
	}
	if dir == "" {
		home := a.Getenv("HOME")
		if !filepath.IsAbs(home) {
			return nil, program.WithCode(program.ExitUsage, terminal.Hint(errors.New("where ssh's files are can't be told: HOME is not set"), "say so with --ssh-dir DIR"))
		}
		f.dir = filepath.Join(home, ".ssh")
		if account != "" && f.dir != filepath.Clean(account) {
			warn(a, "ssh itself reads %s, whatever HOME says", filepath.Join(account, "config"))
		}
	}
	f.tilde = f.dir == account
	return f, nil
}

// path is where a file of ours is, shown how ssh_config names it.
func (f *sshFiles) path(suffix string) string { return filepath.Join(f.dir, f.name+"_"+suffix) }

func (f *sshFiles) shown(suffix string) string {
	if f.tilde {
		return "~/.ssh/" + f.name + "_" + suffix
	}
	return f.path(suffix)
}

// write puts the files in place, each in one step: first what nobody reads yet,
// the Include line last. A crash in between leaves ssh as it was, or with both
// files of one of the two runs and the other's CA keys; running it again mends
// that.
func (f *sshFiles) write(a *program.App, config, known string) error {
	include, err := templates.Argument(f.shown("config"))
	if err != nil {
		return program.WithCode(program.ExitUsage, err)
	}
	main := filepath.Join(f.dir, "config")
	// What can be wrong shows before anything is written.
	old, mode, err := readConfig(main)
	if err != nil {
		return err
	}
	for _, suffix := range []string{"known_hosts", "config"} {
		if err := checkOurs(f.path(suffix)); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return err
	}
	wanted := includeFirst(old, "Include "+include, f.isOurs)
	for _, file := range []struct {
		path, text string
		mode       fs.FileMode
	}{
		{f.path("known_hosts"), known, 0o600},
		{f.path("config"), config, 0o600},
		{main, wanted, mode},
	} {
		done, err := putFile(file.path, file.text, file.mode)
		if err != nil {
			return fmt.Errorf("writing %q: %w", file.path, err)
		}
		fmt.Fprintf(a.Stdout, "%-9s  %s\n", done, terminal.Clean(file.path))
	}
	return nil
}

// isOurs says whether an argument of Include means our file and nothing else.
func (f *sshFiles) isOurs(argument string) bool {
	base := f.name + "_config"
	return argument == base || argument == "~/.ssh/"+base || argument == filepath.Join(f.dir, base)
}

// readConfig reads ssh's own configuration, which needn't exist, and says which
// mode it has to have.
func readConfig(path string) (string, fs.FileMode, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(path); err == nil {
			return "", 0, program.WithCode(program.ExitUsage, fmt.Errorf("%q is a link to a file that doesn't exist", path))
		}
		return "", 0o600, nil
	}
	if err != nil {
		return "", 0, err
	}
	if !info.Mode().IsRegular() {
		return "", 0, program.WithCode(program.ExitUsage, fmt.Errorf("%q is not a file", path))
	}
	text, err := os.ReadFile(path)
	return string(text), info.Mode().Perm(), err
}

// checkOurs refuses a path at which something is that we haven't written.
func checkOurs(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var text []byte
	if info.Mode().IsRegular() {
		if text, err = os.ReadFile(path); err != nil {
			return err
		}
	}
	if strings.HasPrefix(string(text), templates.ClientMark) {
		return nil
	}
	return program.WithCode(program.ExitUsage, terminal.Hint(fmt.Errorf("%q was not written by fleetca and won't be replaced", path), "move it away, or choose another name by --name or another folder"))
}

// includeFirst makes line the first line of a configuration, and the only one
// that includes our file alone. Further down it would apply only to the Host
// block it is in, and come after what should give way.
func includeFirst(text, line string, ours func(argument string) bool) string {
	var b strings.Builder
	b.WriteString(line + "\n")
	for l := range strings.Lines(text) {
		if argument, ok := includes(l); !ok || !ours(argument) {
			b.WriteString(l)
		}
	}
	return b.String()
}

// includes gives the argument of an Include line that has only one.
func includes(line string) (argument string, ok bool) {
	const keyword = "include"
	line = strings.TrimSpace(line)
	if len(line) <= len(keyword) || !strings.EqualFold(line[:len(keyword)], keyword) {
		return "", false
	}
	rest := strings.TrimLeft(line[len(keyword):], " \t=")
	if len(rest) == len(line)-len(keyword) { // a longer word
		return "", false
	}
	if inner, found := strings.CutPrefix(rest, `"`); found {
		inner, after, closed := strings.Cut(inner, `"`)
		return inner, closed && after == ""
	}
	return rest, !strings.ContainsAny(rest, " \t\"")
}

// putFile replaces a file in one step unless it is what it should be. A link is
// followed: what it leads to is replaced.
func putFile(path, text string, mode fs.FileMode) (done string, err error) {
	done = "written"
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		path = resolved
		old, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		info, err := os.Stat(path)
		if err != nil {
			return "", err
		}
		if string(old) == text && info.Mode().Perm() == mode {
			return "unchanged", nil
		}
		done = "changed"
	}
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".new-") // with mode 0600
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temp.Name()))
		}
	}()
	_, err = temp.WriteString(text)
	if err := errors.Join(err, temp.Chmod(mode), temp.Sync(), temp.Close()); err != nil {
		return "", err
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return "", err
	}
	return done, syncFolder(filepath.Dir(path))
}
