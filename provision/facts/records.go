package facts

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// repeats are the words that may begin several lines.
var repeats = map[string]bool{
	"followed": true, "included": true, "begin": true, "run": true, "tool": true,
	"hostkey": true, "hostkey-source": true, "hostkey-public": true, "hostkey-problem": true,
	"unit-file": true, "unit-enabled": true, "init": true, "link": true, "target": true,
}

const (
	maxHostKeys = 64
	maxFiles    = 1_000
)

// record takes one line.
func (p *parser) record(word, value string) (err error) {
	f := p.facts
	switch word {
	case "config":
		f.ConfigFile, err = absolute(value)
		f.Dir = path.Dir(f.ConfigFile)
	case "uid":
		f.UID, err = whole(value)
	case "kernel":
		f.Kernel, err = plain(value)
	case "release":
		f.Release, err = plain(value)
	case "hostname":
		f.Hostname, err = plain(value)
	case "sshd":
		f.SSHD, err = absolute(value)
	case "status":
		p.status, err = whole(value)
	case "writable":
		f.Writable, err = yes(value)
	case "selinux":
		f.SELinux, err = selinux(value)
	case "peer":
		f.Peer, err = peer(value)
	case "followed":
		// Several files may include the same.
		if !slices.Contains(f.Followed, value) {
			f.Followed, err = one(absolute, f.Followed, value)
		}
	case "included":
		f.Included, err = one(absolute, f.Included, value)
	case "run":
		f.Run.Entries, err = one(plain, f.Run.Entries, value)
	case "odd":
		return errors.New("the name of a file holds control characters")
	case "begin":
		return p.section(value)
	case "tool":
		name, at, _ := strings.Cut(value, " ")
		if f.Tools[name], err = plain(at); err == nil {
			_, err = plain(name)
		}
	case "link", "target":
		return p.links(word, value)
	case "hostkey", "hostkey-source", "hostkey-public", "hostkey-problem":
		return p.hostKey(word, value)
	default:
		return p.reload(word, value)
	}
	return err
}

// reload takes the lines about how sshd is reloaded.
func (p *parser) reload(word, value string) (err error) {
	r := &p.facts.Reload
	switch word {
	case "pid":
		// In a container sshd may well be process 1.
		if r.PID, err = whole(value); err == nil && r.PID < 1 {
			return errors.New("no such process")
		}
	case "pid-found":
		if value != "pidfile" && value != "parents" {
			return errors.New("unknown value")
		}
		r.Found = value
	case "pid-command":
		r.Command = printable(value)
	case "unit":
		if r.Unit, err = plain(value); err == nil && !isUnit(value) {
			return errors.New("not a unit of sshd")
		}
	case "systemd":
		r.Systemd, err = yes(value)
	case "unit-file":
		r.Units, err = one(plain, r.Units, value)
	case "unit-enabled":
		r.Enabled, err = one(plain, r.Enabled, value)
	case "init":
		r.InitScripts, err = one(absolute, r.InitScripts, value)
	default:
		return errors.New("unknown word")
	}
	return err
}

// isUnit lets through names of sshd's own units: this name may end up in a
// systemctl command.
func isUnit(name string) bool {
	stem, ok := strings.CutSuffix(name, ".service")
	return ok && strings.HasPrefix(stem, "ssh") &&
		strings.Trim(stem, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:@") == ""
}

func (p *parser) links(word, value string) error {
	if word == "link" {
		if p.link != "" {
			return errors.New("the link before has no target")
		}
		var err error
		p.link, err = absolute(value)
		return err
	}
	if p.link == "" {
		return errors.New("no link")
	}
	if _, twice := p.facts.Files[p.link]; twice {
		return errors.New("second target")
	}
	if len(p.facts.Files) >= maxFiles {
		return fmt.Errorf("more than %d files", maxFiles)
	}
	p.facts.Files[p.link] = File{Link: printable(value)}
	p.link = ""
	return nil
}

// one adds a checked value to a list of different ones.
func one(check func(string) (string, error), list []string, value string) ([]string, error) {
	value, err := check(value)
	if err != nil {
		return nil, err
	}
	if slices.Contains(list, value) {
		return nil, errors.New("said twice")
	}
	if len(list) >= maxFiles {
		return nil, fmt.Errorf("more than %d of them", maxFiles)
	}
	return append(list, value), nil
}

func yes(value string) (bool, error) {
	if value != "yes" {
		return false, errors.New("value isn't \"yes\"")
	}
	return true, nil
}

func selinux(value string) (string, error) {
	switch value {
	case "1":
		return "enforcing", nil
	case "0":
		return "permissive", nil
	}
	return "", errors.New("unknown value")
}

func peer(value string) (Peer, error) {
	words := strings.Fields(value)
	if len(words) != 4 {
		return Peer{}, errors.New("not four words")
	}
	p := Peer{ClientAddress: words[0], ServerAddress: words[2]}
	for _, port := range []struct {
		to   *int
		word string
	}{{&p.ClientPort, words[1]}, {&p.ServerPort, words[3]}} {
		n, err := whole(port.word)
		if err != nil || n > 65535 {
			return Peer{}, errors.New("bad port")
		}
		*port.to = n
	}
	return p, nil
}
