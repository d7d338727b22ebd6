//go:build linux

package testenv

import (
	"bytes"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// process is a line of the process table. The start time tells it from a later
// process with the same id.
type process struct {
	pid, parent int
	started     string
	zombie      bool
}

func readProcess(pid int) (process, bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return process{}, false
	}
	// The name stands in brackets and may itself hold spaces and brackets.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 20 {
		return process{}, false
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return process{}, false
	}
	return process{pid: pid, parent: parent, started: fields[19], zombie: fields[0] == "Z"}, true
}

func processTable() []process {
	folder, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer folder.Close()
	names, _ := folder.Readdirnames(-1)
	var table []process
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if p, ok := readProcess(pid); ok {
			table = append(table, p)
		}
	}
	return table
}

// below returns all processes that descend from those with the given ids,
// without these themselves.
func below(pids ...int) []process {
	children := map[int][]process{}
	for _, p := range processTable() {
		children[p.parent] = append(children[p.parent], p)
	}
	var found []process
	for len(pids) > 0 {
		next := children[pids[0]]
		pids = pids[1:]
		found = append(found, next...)
		for _, p := range next {
			pids = append(pids, p.pid)
		}
	}
	return found
}

// alive says whether p is still that process and runs.
func (p process) alive() bool {
	now, ok := readProcess(p.pid)
	return ok && now.started == p.started && !now.zombie
}

// killTrees kills the given processes and all below them. Each is stopped
// before its children are looked for, so that none can slip away by forking.
func killTrees(roots []process) {
	stopped := map[int]process{}
	stop := func(found []process) (news bool) {
		for _, p := range found {
			if was, ok := stopped[p.pid]; ok && was.started == p.started {
				continue
			}
			_ = unix.Kill(p.pid, unix.SIGSTOP)
			stopped[p.pid] = p
			news = true
		}
		return news
	}
	stop(roots)
	for {
		var pids []int
		for _, p := range roots {
			pids = append(pids, p.pid)
		}
		if !stop(below(pids...)) {
			break
		}
	}
	for _, p := range stopped {
		if p.alive() {
			_ = unix.Kill(p.pid, unix.SIGKILL)
		}
	}
}

// servedOn says whether p belongs to an SSH session of the server on that port
// of loopback, as its environment tells.
func (p process) servedOn(port int) bool {
	environment, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/environ")
	if err != nil {
		return false
	}
	suffix := []byte(" 127.0.0.1 " + strconv.Itoa(port))
	for variable := range bytes.SplitSeq(environment, []byte{0}) {
		if bytes.HasPrefix(variable, []byte("SSH_CONNECTION=")) && bytes.HasSuffix(variable, suffix) {
			return true
		}
	}
	return false
}
