//go:build linux

package testenv

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"

	"golang.org/x/sys/unix"
)

// lookSystem finds a program of the system, whose folders needn't be on the
// PATH of the person that runs the tests.
func lookSystem(name, debianPackage string) (string, error) {
	for _, folder := range filepath.SplitList(systemPath) {
		path := filepath.Join(folder, name)
		if unix.Access(path, unix.X_OK) == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("looking for %s in %s: %w (Debian has it in %s)", name, systemPath, exec.ErrNotFound, debianPackage)
}

var opensshVersion = regexp.MustCompile(`OpenSSH_(\d+)\.(\d+)`)

// parseVersion reads the version from what sshd -V prints; before 9.2 that is
// a complaint about the option, with the version in it.
func parseVersion(text []byte) (major, minor int, ok bool) {
	m := opensshVersion.FindSubmatch(text)
	if m == nil {
		return 0, 0, false
	}
	major, err := strconv.Atoi(string(m[1]))
	if err != nil {
		return 0, 0, false
	}
	minor, err = strconv.Atoi(string(m[2]))
	return major, minor, err == nil
}

// penalises says whether that sshd has PerSourcePenalties.
func (f *Fleet) penalises(sshd string) bool {
	f.askVersion.Do(func() {
		// The exit status says nothing: old ones fail.
		text, _ := exec.Command(sshd, "-V").CombinedOutput()
		major, minor, ok := parseVersion(text)
		f.newer = ok && (major > 9 || major == 9 && minor >= 8)
	})
	return f.newer
}
