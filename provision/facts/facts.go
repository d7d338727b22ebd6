// Package facts reads what a host's probe printed (templates/probe.sh.tmpl)
// into types: which sshd, which files, which host keys, how sshd is reloaded,
// what an earlier run left behind.
//
// It refuses to trust the host: what it printed is data with limits. Output
// that is cut off, too long, out of order, says something twice, or names
// files that weren't asked for is an error, never a half-filled Facts. It
// refuses to decide: what to do about a fact is for provision/plan. It does
// no I/O.
package facts

import (
	"fmt"
	"io/fs"

	"golang.org/x/crypto/ssh"
)

// Facts are what the probe found on one host.
type Facts struct {
	// UID is the user that the probe ran as, 0 if it had root's rights.
	UID int
	// Kernel and Release name the operating system kernel, as uname -s -r.
	Kernel, Release string
	// OS is from /etc/os-release; empty where there is none.
	OS OS
	// Hostname is what the host calls itself. Certificates never take names
	// from here.
	Hostname string
	// SSHD is the path of sshd, empty if none was found.
	SSHD string
	// ConfigFile is the main sshd_config, Dir the folder it is in.
	ConfigFile, Dir string
	// Peer is the connection that the probe ran on; zero if it didn't know.
	Peer Peer
	// Files are the files that were looked at, by path. What the probe looked
	// for and didn't find has a zero File, as has any other path.
	Files map[string]File
	// Followed are the Include patterns, made absolute, whose files are in
	// Files. Included are these files.
	Followed, Included []string
	// Effective is what sshd -T says counts for the login on this connection;
	// nil if it failed, and then EffectiveProblem says how.
	Effective        Effective
	EffectiveProblem string
	// Warnings is what sshd -T had to say beside its result.
	Warnings string
	// HostKeys are the effective host keys, in sshd's order.
	HostKeys []HostKey
	// HostCertificates are the effective HostCertificate files.
	HostCertificates []HostCertificate
	Reload           Reload
	Run              Run
	// Writable tells whether Dir can be written to: false on a read-only file
	// system, and for a plain user in /etc/ssh.
	Writable bool
	// FreeBytes is the space left for Dir, -1 if the host didn't say.
	FreeBytes int64
	// SELinux is "enforcing", "permissive" or, without SELinux, empty.
	SELinux string
	// Tools are the paths of programs that the commit may use, by name.
	Tools map[string]string
}

// OS is the part of os-release that we show and decide by.
type OS struct{ ID, Version, Name string }

// Peer is SSH_CONNECTION, taken apart.
type Peer struct {
	ClientAddress string
	ClientPort    int
	ServerAddress string
	ServerPort    int
}

// File is one file as the probe found it.
type File struct {
	// Exists is false for a symbolic link that leads nowhere.
	Exists bool
	// Link is where the path points, if it is a symbolic link. All else is
	// about the file that it leads to.
	Link string
	// Content is the text, up to MaxContent bytes. Read is false if the probe
	// may not read it, or had no reason to.
	Content []byte
	Read    bool
	// Truncated tells that the file is longer than Content.
	Truncated bool
	Size      int64
	Mode      fs.FileMode // permission, setuid, setgid and sticky bits
	UID, GID  int
	// Regular is false for folders, sockets, devices.
	Regular bool
}

// MaxContent is how much of one file the probe sends.
const MaxContent = 256 << 10

// HostKey is one HostKey of the effective configuration.
type HostKey struct {
	// Path is the file as sshd knows it.
	Path string
	// PublicKey is the key's public half; nil if there was no way to learn
	// it, and then Problem says why.
	PublicKey ssh.PublicKey
	Comment   string
	Source    Source
	Problem   string
}

// Source is where the public half of a host key comes from.
type Source string

const (
	// FromPub is the .pub file beside the key, which belongs to it.
	FromPub Source = "pub"
	// FromKey is the key itself, by ssh-keygen -y: there is no .pub file, or
	// it is of another key, or that can't be told cheaply.
	FromKey Source = "derived"
	// FromPath is the file itself: the private half is in an agent.
	FromPath Source = "self"
	// Unchecked is the .pub file, while the key can't be read.
	Unchecked Source = "unchecked"
)

// HostCertificate is one HostCertificate of the effective configuration.
type HostCertificate struct {
	Path string
	// Certificate is nil if the file is missing or isn't one, and then
	// Problem says so.
	Certificate *ssh.Certificate
	Problem     string
}

// Reload is what the host offers for making sshd read its configuration.
type Reload struct {
	// PID is the process that listens, 0 if none was found: sshd may be
	// started for each connection by a socket unit or inetd.
	PID int
	// Found tells how: "pidfile" or "parents" (of the probe's own shell).
	Found string
	// Command is the process's own command line, for people to read.
	Command string
	// Unit is the systemd unit that the process belongs to, such as
	// "ssh.service".
	Unit string
	// Systemd tells that systemd runs the host.
	Systemd bool
	// Units are those of ssh.service, sshd.service, ssh.socket, sshd.socket
	// that exist, Enabled those sockets that are started at boot.
	Units, Enabled []string
	// InitScripts are those of /etc/init.d/ssh, /etc/init.d/sshd,
	// /etc/rc.d/sshd that exist.
	InitScripts []string
}

// Run is the state of <Dir>/fleetca/run, where a commit keeps its lock and
// its armed rollback.
type Run struct {
	Exists bool
	// Entries are the names in it and one folder below, in order. The
	// contents of the files are in Facts.Files.
	Entries []string
}

// Effective is what sshd -T printed: values by keyword in lower case, in
// order.
type Effective map[string][]string

// First is the keyword's first value, empty if there is none or it is "none".
func (e Effective) First(keyword string) string {
	values := e[keyword]
	if len(values) == 0 || values[0] == "none" {
		return ""
	}
	return values[0]
}

// Texts are the main configuration and everything it includes, by path. It
// fails where one of them could not be read or is too long: what sshd reads
// there is unknown then.
func (f *Facts) Texts() (map[string][]byte, error) {
	texts := map[string][]byte{}
	for _, name := range append([]string{f.ConfigFile}, f.Included...) {
		file := f.Files[name]
		switch {
		case !file.Exists:
			return nil, fmt.Errorf("reading %q of the host: no such file", name)
		case !file.Read:
			return nil, fmt.Errorf("reading %q of the host: permission denied, or not a plain file", name)
		case file.Truncated:
			return nil, fmt.Errorf("reading %q of the host: longer than %d bytes", name, MaxContent)
		}
		texts[name] = file.Content
	}
	return texts, nil
}
