//go:build linux

package testenv

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// operatorHash is OperatorPassword as crypt(3) keeps it.
const operatorHash = "$6$fleetcatestenv$3qOUDdjPGXhx3rfE6PHAImPq516iikoI1WTBLSW2ZjRrh1CmXlnkRG0ly0wkzM5MxYj01O7b.feMR1Kcjaq6.1"

const (
	adminID    = 1000
	operatorID = 1001
)

// etcClear are the parts of the machine's /etc that a host has its own of, or
// that would make its logins differ from machine to machine.
var etcClear = []string{
	"/etc/ssh", "/etc/dropbear", "/etc/sudoers.d", "/etc/update-motd.d", "/etc/motd", "/etc/nologin",
	"/etc/default/ssh", "/etc/profile.d",
}

// etcFiles returns the host's own files, except those of its SSH server.
func etcFiles(h *Host, config HostConfig, address, authorized string) ([]machineFile, error) {
	shell := "/bin/bash"
	if config.System.Busybox {
		shell = "/bin/sh"
	}
	accounts, err := systemAccounts(shell)
	if err != nil {
		return nil, err
	}
	// An empty resolv.conf stands for a name server on the host itself, where
	// nothing listens: names that aren't in /etc/hosts fail at once.
	texts := map[string]string{
		"/etc/hostname":    h.name + "\n",
		"/etc/hosts":       "127.0.0.1 localhost\n" + address + " " + h.name + "\n",
		"/etc/resolv.conf": "\n",
		"/etc/environment": "\n",
		"/etc/bash.bashrc": "\n",
		"/etc/passwd":      accounts.passwd,
		"/etc/group":       accounts.group,
		"/etc/sudoers": "Defaults env_reset\nDefaults mail_badpass\nDefaults use_pty\nDefaults secure_path=\"" + systemPath + "\"\n" +
			"root ALL=(ALL:ALL) ALL\n%sudo ALL=(ALL:ALL) ALL\n@includedir /etc/sudoers.d\n",
		"/etc/sudoers.d/90-admin": Admin + " ALL=(ALL:ALL) NOPASSWD:ALL\n",
	}
	files := []machineFile{
		{Path: "/etc/shadow", Mode: 0o640, GID: accounts.shadowGID, Content: []byte(accounts.shadow)},
		{Path: "/etc/gshadow", Mode: 0o640, GID: accounts.shadowGID, Content: []byte(accounts.gshadow)},
	}
	for path, text := range texts {
		mode := uint32(0o644)
		if strings.HasPrefix(path, "/etc/sudoers") {
			mode = 0o440
		}
		files = append(files, machineFile{Path: path, Mode: mode, Content: []byte(text)})
	}
	for _, l := range []struct {
		home string
		id   int
	}{{"/root", 0}, {"/home/" + Admin, adminID}, {"/home/" + Operator, operatorID}} {
		files = append(files,
			machineFile{Path: l.home, Mode: 0o700, UID: l.id, GID: l.id},
			machineFile{Path: l.home + "/.ssh", Mode: 0o700, UID: l.id, GID: l.id},
			machineFile{Path: l.home + "/.ssh/authorized_keys", Mode: 0o600, UID: l.id, GID: l.id, Content: []byte(authorized)})
	}
	return files, nil
}

type accounts struct {
	passwd, shadow, group, gshadow string
	shadowGID                      int
}

// systemAccounts takes over the machine's system accounts, without their
// passwords, and adds root's shell and ours.
func systemAccounts(shell string) (accounts, error) {
	var a accounts
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return a, fmt.Errorf("reading the machine's accounts: %w", err)
	}
	group, err := os.ReadFile("/etc/group")
	if err != nil {
		return a, fmt.Errorf("reading the machine's groups: %w", err)
	}
	a.passwd = fmt.Sprintf("root:x:0:0:root:/root:%s\n", shell)
	a.shadow = "root:*:20000:0:99999:7:::\n"
	for row := range strings.Lines(string(passwd)) {
		if f := strings.Split(row, ":"); len(f) == 7 && f[0] != Root && isSystem(f[0], f[2]) {
			a.passwd += row
			a.shadow += f[0] + ":*:20000:0:99999:7:::\n"
		}
	}
	for row := range strings.Lines(string(group)) {
		f := strings.Split(row, ":")
		if len(f) != 4 || f[0] == "sudo" || !isSystem(f[0], f[2]) {
			continue
		}
		a.group += f[0] + ":x:" + f[2] + ":\n"
		a.gshadow += f[0] + ":*::\n"
		if f[0] == "shadow" {
			a.shadowGID, _ = strconv.Atoi(f[2])
		}
	}
	a.group += "sudo:x:27:" + Operator + "\n"
	a.gshadow += "sudo:*::" + Operator + "\n"
	for _, l := range []struct {
		name string
		id   int
		hash string
	}{{Admin, adminID, "*"}, {Operator, operatorID, operatorHash}} {
		a.passwd += fmt.Sprintf("%s:x:%d:%d::/home/%s:%s\n", l.name, l.id, l.id, l.name, shell)
		a.shadow += l.name + ":" + l.hash + ":20000:0:99999:7:::\n"
		a.group += fmt.Sprintf("%s:x:%d:\n", l.name, l.id)
		a.gshadow += l.name + ":!::\n"
	}
	return a, nil
}

func isSystem(name, id string) bool {
	n, err := strconv.Atoi(id)
	return err == nil && (n < 1000 || name == "nobody" || name == "nogroup") && name != Admin && name != Operator
}

// debianConfig is what remains of Debian's sshd_config without its comments,
// for machines that don't have the original.
const debianConfig = `Include /etc/ssh/sshd_config.d/*.conf
KbdInteractiveAuthentication no
UsePAM yes
X11Forwarding yes
PrintMotd no
AcceptEnv LANG LC_*
Subsystem	sftp	/usr/lib/openssh/sftp-server
`

var (
	includeLine = regexp.MustCompile(`(?m)^Include .*\n`)
	sftpLine    = regexp.MustCompile(`(?m)^Subsystem\s+sftp\s.*\n`)
)

// machineConfig is the host's sshd_config: the one of Debian's package with
// what config changes.
func machineConfig(config HostConfig) string {
	text := debianConfig
	if original, err := os.ReadFile("/usr/share/openssh/sshd_config"); err == nil {
		text = string(original)
	}
	if config.NoDropIns {
		text = includeLine.ReplaceAllString(text, "")
	}
	if config.SFTP != "" {
		text = sftpLine.ReplaceAllString(text, "")
		if config.SFTP != NoSFTP {
			text = lines(text, "Subsystem sftp "+config.SFTP)
		}
	}
	if config.MaxStartups != "" {
		text = lines(text, "MaxStartups "+config.MaxStartups)
	}
	if config.LogLevel != "" {
		text = lines(text, "LogLevel "+config.LogLevel)
	}
	return lines(config.Top, text, config.Bottom)
}

// sshFiles returns the files of the host's SSH server.
func sshFiles(h *Host, config HostConfig, keys []*keyPair) (files []machineFile) {
	files = append(files, machineFile{Path: "/etc/ssh", Mode: 0o755})
	for _, k := range keys {
		path := hostKeyPath("/etc/ssh", k.kind)
		files = append(files,
			machineFile{Path: path, Mode: 0o600, Content: k.private},
			machineFile{Path: path + ".pub", Mode: 0o644, Content: []byte(k.authorized("root@" + h.name))})
	}
	if config.System.Dropbear {
		return append(files, machineFile{Path: "/etc/dropbear", Mode: 0o755})
	}
	if !config.NoDropIns {
		files = append(files, machineFile{Path: "/etc/ssh/sshd_config.d", Mode: 0o755})
	}
	return append(files,
		machineFile{Path: defaultConfigPath, Mode: 0o644, Content: []byte(machineConfig(config))},
		machineFile{Path: "/etc/default/ssh", Mode: 0o644, Content: []byte("SSHD_OPTS=\n")})
}
