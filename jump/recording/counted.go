package recording

import (
	"regexp"
	"slices"
	"strings"
)

// countOnly says whether a command line is, as a whole, the server side of
// rsync or git, as their clients send it. Of those only the number of bytes is
// recorded, as long as the host answers in their protocol.
//
// A host may have another program by that name, which no jump host can see;
// speech makes it at least wrap what it says as the right one does.
func countOnly(command []byte) bool { return protocolOf(command) != "" }

// protocolOf is "rsync" or "git" for a command that is only counted.
func protocolOf(command []byte) string {
	words, ok := shellWords(string(command))
	switch {
	case !ok || len(words) < 2 || !isServer(words):
		return ""
	case words[0] == "rsync":
		return "rsync"
	}
	return "git"
}

func isServer(words []string) bool {
	switch words[0] {
	case "git-upload-pack", "git-receive-pack", "git-upload-archive":
		return len(words) == 2 && !strings.HasPrefix(words[1], "-")
	case "git":
		return len(words) == 3 && !strings.HasPrefix(words[2], "-") &&
			slices.Contains([]string{"upload-pack", "receive-pack", "upload-archive"}, words[1])
	case "rsync":
		return rsyncServer(words[1:])
	}
	return false
}

var (
	// rsyncShort are options such as -vlogDtpre.iLsfxCIvu, of which what comes
	// after the e tells what the client can do, and is no remote shell.
	rsyncShort = regexp.MustCompile(`^-[a-df-zA-Z0-9]*(e[0-9]*\.[a-zA-Z0-9]*)?$`)
	rsyncLong  = regexp.MustCompile(`^--([a-z0-9-]+)(=.*)?$`)
)

// rsyncOptions are those of rsync 3.4's options.c that its client hands to a
// server. None of them runs a program or makes a daemon.
var rsyncOptions = strings.Fields(`
	append backup backup-dir block-size bwlimit checksum-choice checksum-seed compare-dest
	compress compress-choice compress-level contimeout copy-dest copy-devices copy-unsafe-links
	debug delay-updates delete delete-after delete-before delete-delay delete-during
	delete-excluded delete-missing-args existing fake-super files-from force from0 fsync fuzzy
	groupmap iconv ignore-errors ignore-existing ignore-missing-args info inplace link-dest
	list-only log-format log-out-format max-alloc max-delete max-size min-size mkpath modify-window
	munge-links new-compress no-implied-dirs no-inc-recursive no-r no-relative numeric-ids old-args
	old-compress one-file-system open-noatime out-format partial partial-dir
	preallocate qsort remove-sent-files remove-source-files safe-links server size-only
	skip-compress specials stats stderr stop-after stop-at suffix super temp-dir timeout use-qsort
	usermap write-devices zc zl`)

// rsyncServer takes the arguments of rsync: --server [--sender] options . path…
func rsyncServer(args []string) bool {
	if args[0] != "--server" {
		return false
	}
	for i, a := range args[1:] {
		if a == "." {
			paths := args[i+2:]
			return len(paths) > 0 && !slices.ContainsFunc(paths, isOption)
		}
		if a == "--sender" && i == 0 || rsyncShort.MatchString(a) && a != "-" {
			continue
		}
		m := rsyncLong.FindStringSubmatch(a)
		if m == nil || !slices.Contains(rsyncOptions, m[1]) {
			return false
		}
	}
	return false
}

func isOption(word string) bool { return strings.HasPrefix(word, "-") }

// shellWords splits a command line as all shells do that a login may have. It
// returns false for a line that would make one of them do more than run one
// program with these words: expand, but for file names, redirect, or run
// another program; and for one that they don't agree on.
func shellWords(line string) ([]string, bool) {
	var words []string
	var word []byte
	inWord := false
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == ' ':
			if inWord {
				words = append(words, string(word))
			}
			word, inWord = nil, false
			continue
		case c == '\'':
			quoted, _, closed := strings.Cut(line[i+1:], "'")
			// fish takes a backslash within quotes for an escape, csh an
			// exclamation mark for history.
			if !closed || strings.ContainsAny(quoted, `\!`) || strings.ContainsFunc(quoted, isControl) {
				return nil, false
			}
			word = append(word, quoted...)
			i += len(quoted) + 1
		case c == '\\':
			// Before a letter or digit it means something in fish.
			if i++; i == len(line) || isControl(rune(line[i])) || isAlphanumeric(line[i]) {
				return nil, false
			}
			word = append(word, line[i])
		case isControl(rune(c)), strings.IndexByte("\"$`;&|<>()#!{}^", c) >= 0:
			return nil, false
		case !inWord && strings.IndexByte("*?[=", c) >= 0:
			// It may stand for a name that begins with a dash; in zsh for a
			// program's path.
			return nil, false
		default:
			word = append(word, c)
		}
		inWord = true
	}
	if inWord {
		words = append(words, string(word))
	}
	// A first word with an equals sign is an assignment to the environment.
	return words, len(words) > 0 && !strings.Contains(words[0], "=")
}

func isControl(c rune) bool { return c < ' ' || c == 0x7f }

func isAlphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
