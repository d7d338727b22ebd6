package recording

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var countOnlyLines = []string{
	"git-upload-pack '/srv/x.git'",
	"git upload-pack 'x.git'",
	"git-receive-pack '~/my repo'",
	`git-receive-pack 'it'\''s.git'`,
	`git-receive-pack 'wow'\!'.git'`,
	"git-upload-archive 'x.git'",
	"rsync --server --sender -vlogDtpre.iLsfxCIvu . /srv/a /srv/b",
	"rsync --server -e.LsfxCIvu --delete --timeout=30 . dir/",
	"rsync --server -vvlHogDtpAXrze30.0 --partial-dir=.part . x",
	`rsync --server --sender -logDtpre.iLsfxC . /srv/with\ space/x*`,
	"rsync --server --sender -logDtpre.iLsfxC . /srv/./a",
}

var commandLines = []string{
	"", " ", "sh", "git", "git-upload-pack", "git-upload-pack 'x' 'y'", "git-upload-pack --help",
	"git-upload-pack 'x'; sh", "git-upload-pack 'x' && sh", "git-upload-pack $(sh)", "git-upload-pack `sh`",
	"git-upload-pack 'x'\nsh", "git-upload-pack 'x' > /etc/passwd", "git-upload-pack \"x\"", "git-upload-pack 'x",
	"X=1 git-upload-pack 'x'", "git -c core.sshCommand=sh upload-pack x", "git upload-pack --strict x", "./git-upload-pack x",
	"git-shell", `git-upload-pack 'a\'' ; sh'`, `git-upload-pack \x2d\x2dhelp`, "git-upload-pack 'a!b'", "git-upload-pack *",
	"git-upload-pack {a,b}", "git-upload-pack a\\", "git-upload-pack x #", "git-upload-pack x ^y",
	"rsync", "rsync --server", "rsync --server .", "rsync --server . --daemon", "rsync --server --daemon .",
	"rsync --server --daemon . x", "rsync --server -e sh . x", "rsync --server --rsh=sh . x", "rsync -a . x",
	"rsync --server --sender -e.LsfxC /srv", "rsync --server --config=/tmp/x . x", "rsync --sender --server . x",
	"rsync --server -logDtpresh . x", "rsync --server -logDtpre.iLsfxC . *", "rsync --server -- . x", "rsync --server - . x",
	"rsync --server --log-file=/etc/cron.d/x . x", "rsync --server --rsync-path=sh . x", "rsync --server . x; sh",
	"rsync\x00 --server . x", "/usr/bin/rsync --server . x",
}

func TestCountOnly(t *testing.T) {
	for _, line := range countOnlyLines {
		if !countOnly([]byte(line)) {
			t.Errorf("%q would be recorded whole", line)
		}
	}
	for _, line := range commandLines {
		if countOnly([]byte(line)) {
			t.Errorf("%q would only be counted", line)
		}
	}
}

// TestShellsAgree runs what is only counted in real shells, with programs that
// print their words.
func TestShellsAgree(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"git", "git-upload-pack", "git-receive-pack", "git-upload-archive", "rsync"} {
		script := "#!/bin/sh\nprintf '%s\\n' \"${0##*/}\" \"$@\" >> \"$WORDS\"\n"
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(script), 0o700))
	}
	for _, shell := range []string{"sh", "bash"} {
		for _, line := range countOnlyLines {
			words, _ := shellWords(line)
			out := filepath.Join(t.TempDir(), "words")
			cmd := exec.Command(shell, "-c", line)
			cmd.Dir = dir
			cmd.Env = []string{"PATH=" + dir + ":/usr/bin:/bin", "WORDS=" + out, "HOME=/nowhere"}
			if text, err := cmd.CombinedOutput(); err != nil || len(text) > 0 {
				t.Fatalf("%s -c %q: %v\n%s", shell, line, err, text)
			}
			got, err := os.ReadFile(out)
			must(t, err)
			if ran := strings.Split(strings.TrimSuffix(string(got), "\n"), "\n"); !slices.Equal(ran, words) {
				t.Errorf("%s -c %q ran %q, shellWords says %q", shell, line, ran, words)
			}
		}
	}
}

// FuzzCountOnly checks that no line that is only counted holds anything that a
// shell acts on.
func FuzzCountOnly(f *testing.F) {
	for _, line := range slices.Concat(countOnlyLines, commandLines) {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if !countOnly(line) {
			return
		}
		words, ok := shellWords(string(line))
		if !ok || !slices.Contains([]string{"git", "git-upload-pack", "git-receive-pack", "git-upload-archive", "rsync"}, words[0]) {
			t.Fatalf("%q is counted as %q", line, words)
		}
		// What is left once quoted and escaped bytes are gone.
		plain, quoted := "", false
		for i := 0; i < len(line); i++ {
			switch c := line[i]; {
			case c == '\'':
				quoted = !quoted
			case quoted:
			case c == '\\':
				i++
			default:
				plain += string(rune(c))
			}
		}
		if quoted || strings.ContainsAny(plain, "\"$`;&|<>()#!{}^\n\r\x00") {
			t.Fatalf("%q is only counted", line)
		}
	})
}
