package transfer

import (
	"errors"
	"strconv"
	"strings"
)

// parseRecord reads "0644 1234 name", as strictly as OpenSSH does.
func parseRecord(s string) (mode uint32, size uint64, name string, err error) {
	modeText, s, ok := strings.Cut(s, " ")
	sizeText, name, ok2 := strings.Cut(s, " ")
	m, err := strconv.ParseUint(modeText, 8, 32)
	if err != nil || len(modeText) != 4 || !ok || !ok2 {
		return 0, 0, "", errors.New("a line that is no record of a file")
	}
	size, err = strconv.ParseUint(sizeText, 10, 63)
	if err != nil || sizeText[0] == '+' || name == "" {
		return 0, 0, "", errors.New("a line that is no record of a file")
	}
	return uint32(m), size, name, nil
}

// place tells where a file or directory of that name is or goes, and where it
// goes if the path that was asked for is a directory.
func (p *SCPParser) place(name string) (path, within string) {
	if n := len(p.dirs); n > 0 {
		d := p.dirs[n-1]
		if d.within != "" {
			within = join(d.within, name)
		}
		return join(d.path, name), within
	}
	asked := p.scp.Path
	switch {
	case p.scp.Source && p.scp.Glob:
		return asked[:strings.LastIndexByte(asked, '/')+1] + name, ""
	case p.scp.Source:
		if trimmed := strings.TrimRight(asked, "/"); trimmed != "" {
			return trimmed, ""
		}
		return asked, ""
	case p.scp.Directory || isDirectory(asked):
		return join(asked, name), ""
	default:
		return asked, join(asked, name)
	}
}

// isDirectory says whether a path can only be a directory by its looks.
func isDirectory(path string) bool {
	last := path[strings.LastIndexByte(path, '/')+1:]
	return last == "" || last == "." || last == ".." || last == path && path[0] == '~'
}

func join(dir, name string) string {
	if strings.HasSuffix(dir, "/") {
		return dir + name
	}
	return dir + "/" + name
}

// maxResult is how much of a message is kept.
const maxResult = 400

// clip makes a message of the other side fit for a Result.
func clip(message string) string {
	if len(message) > maxResult {
		message = message[:maxResult] + "…"
	}
	message = strings.ToValidUTF8(message, "\uFFFD")
	if message == "" || message == OK {
		return "refused"
	}
	return message
}
