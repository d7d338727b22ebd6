package recording

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// countOnly says whether a command line is, as a whole, the server side of
// rsync or git, as their clients send it. Of those only the number of bytes is
// recorded, as long as the host answers in their protocol.
//
// A host may have another program by that name, which no jump host can see; the
// protocol check makes it speak at least the beginning of the right language.
func countOnly(command []byte) bool {
	words, ok := shellWords(string(command))
	if !ok || len(words) < 2 {
		return false
	}
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
	skip-compress specials stderr stop-after stop-at suffix super temp-dir timeout use-qsort
	usermap write-devices zc zl`)

// rsyncServer takes the arguments of rsync: --server [--sender] options . path…
func rsyncServer(args []string) bool {
	if args[0] != "--server" {
		return false
	}
	for i, a := range args[1:] {
		if a == "." {
			return len(args[1:]) > i+1 // some path follows
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

// shellWords splits a command line as a POSIX shell does. It returns false for
// a line that would make the shell do more than run one program: expand, but
// for file names, redirect, or run another one.
func shellWords(line string) ([]string, bool) {
	var words []string
	var word strings.Builder
	inWord := false
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == ' ' || c == '\t':
			if inWord {
				words = append(words, word.String())
				word.Reset()
			}
			inWord = false
			continue
		case c == '\'':
			end := strings.IndexByte(line[i+1:], '\'')
			if end < 0 {
				return nil, false
			}
			word.WriteString(line[i+1 : i+1+end])
			i += end + 1
		case c == '\\':
			if i++; i == len(line) || line[i] == '\n' {
				return nil, false
			}
			word.WriteByte(line[i])
		case c < ' ' || c == 0x7f || strings.IndexByte("\"$`;&|<>()#!{}", c) >= 0:
			// Double quotes are harmless but no client uses them; braces and
			// exclamation marks depend on the shell.
			return nil, false
		default:
			word.WriteByte(c)
		}
		inWord = true
	}
	if inWord {
		words = append(words, word.String())
	}
	// A first word with an equals sign is an assignment to the environment.
	return words, len(words) > 0 && !strings.Contains(words[0], "=")
}

// sniffSize is how many of the host's bytes tell the protocol.
const sniffSize = 4

// sniff says whether bytes may be the first of rsync's or git's server: the
// version of rsync's protocol, little-endian, or the length of git's first
// packet, in hex (gitprotocol-common, pkt-line).
func sniff(b []byte) bool {
	b = b[:min(len(b), sniffSize)]
	isRsync := true
	for i, c := range b {
		if i == 0 && (c < 20 || c > 40) || i > 0 && c != 0 {
			isRsync = false
		}
	}
	isGit := true
	for _, c := range b {
		isGit = isGit && (c >= '0' && c <= '9' || c >= 'a' && c <= 'f')
	}
	if isGit && len(b) == sniffSize {
		// 1 to 3 mean something between packets only; 0 is an empty list.
		n, err := strconv.ParseUint(string(b), 16, 16)
		isGit = err == nil && (n == 0 || n > 4 && n <= 65520)
	}
	return isRsync || isGit
}
