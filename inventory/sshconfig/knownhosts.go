package sshconfig

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // the format of hashed names in known_hosts
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/crypto/ssh"
)

// x/crypto's knownhosts differs from OpenSSH in what matters here: one bad
// line spoils the whole file, names are compared with regard to case, a line
// without a port doesn't stand for other ports, @revoked applies to all hosts,
// and every lookup walks every line. So the files are read here.

const (
	maxKnownHosts = 64 << 20
	markerCA      = "@cert-authority"
	markerRevoked = "@revoked"
	hashMagic     = "|1|"
)

// KnownLine is one line of a known_hosts file.
type KnownLine struct {
	file   string
	number int
	marker string // "", markerCA or markerRevoked
	// Either patterns or salt and hash.
	patterns   []string // lower case, with their ! in front
	salt, hash []byte
	keyType    string
	blob       []byte
}

// Place is where the line stands: "file:line".
func (l *KnownLine) Place() string { return l.file + ":" + strconv.Itoa(l.number) }

// key parses the key when it is needed. Like OpenSSH, which passes over such
// lines, it says no to a key of unknown type or one that isn't what it says.
func (l *KnownLine) key() (ssh.PublicKey, bool) {
	key, err := ssh.ParsePublicKey(l.blob)
	if err != nil || key.Type() != l.keyType {
		return nil, false
	}
	if _, isCert := key.(*ssh.Certificate); isCert {
		return nil, false
	}
	return key, true
}

// matches says whether the line is about the name: "host" or "[host]:port".
func (l *KnownLine) matches(name string) bool {
	if l.hash != nil {
		return hmac.Equal(hashName(name, l.salt), l.hash)
	}
	return MatchPatterns(name, l.patterns)
}

func hashName(name string, salt []byte) []byte {
	mac := hmac.New(sha1.New, salt)
	mac.Write([]byte(name))
	return mac.Sum(nil)
}

// parseKnownLine reads one line. It is false for blank lines, comments and
// lines that OpenSSH passes over.
func parseKnownLine(text string) (KnownLine, bool) {
	var l KnownLine
	fields := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\r\n", r) })
	if len(fields) == 0 || fields[0][0] == '#' {
		return l, false
	}
	if strings.HasPrefix(fields[0], "@") {
		if l.marker = fields[0]; l.marker != markerCA && l.marker != markerRevoked {
			return l, false
		}
		fields = fields[1:]
	}
	if len(fields) < 3 {
		return l, false
	}
	var err error
	if l.blob, err = base64.StdEncoding.DecodeString(fields[2]); err != nil {
		return l, false
	}
	l.keyType = fields[1]
	if names := fields[0]; strings.HasPrefix(names, "|") {
		rest, ok := strings.CutPrefix(names, hashMagic)
		salt, hash, two := strings.Cut(rest, "|")
		if !ok || !two {
			return l, false
		}
		if l.salt, err = base64.StdEncoding.DecodeString(salt); err != nil || len(l.salt) != sha1.Size {
			return l, false
		}
		if l.hash, err = base64.StdEncoding.DecodeString(hash); err != nil || len(l.hash) != sha1.Size {
			return l, false
		}
	} else {
		l.patterns = strings.Split(strings.ToLower(names), ",")
	}
	return l, true
}

// KnownHosts is one known_hosts file in memory. Lines with plain names are
// found by them, so that ten thousand hosts don't walk ten thousand lines each.
// It is safe for concurrent use.
type KnownHosts struct {
	path string

	mu    sync.RWMutex
	state fileState // of the file when it was last read
	exact map[string][]*KnownLine
	other []*KnownLine // wildcards, negations and hashed names
}

// fileState tells whether a file may have changed.
type fileState struct {
	inode, size uint64
	modified    int64
}

func stateOf(info fs.FileInfo) fileState {
	s := fileState{size: uint64(info.Size()), modified: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode = st.Ino
	}
	return s
}

// LoadKnownHosts reads a file. One that isn't there knows nobody. Lines that
// OpenSSH passes over are passed over.
func LoadKnownHosts(path string) (*KnownHosts, error) {
	k := &KnownHosts{path: path}
	if err := k.Refresh(); err != nil {
		return nil, err
	}
	return k, nil
}

// Refresh reads the file again if it has changed since it was read.
func (k *KnownHosts) Refresh() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	f, err := os.Open(k.path)
	if errors.Is(err, fs.ErrNotExist) {
		k.state = fileState{}
		k.index(nil)
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading known hosts: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && stateOf(info) == k.state {
		return nil
	}
	if err := k.read(f); err != nil {
		return fmt.Errorf("reading known hosts: %w", err)
	}
	return nil
}

// read takes the whole file; the caller holds mu.
func (k *KnownHosts) read(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		k.index(nil) // such as /dev/null
		return nil
	}
	if info.Size() > maxKnownHosts {
		return fmt.Errorf("%s is larger than %d bytes", k.path, maxKnownHosts)
	}
	data := make([]byte, info.Size())
	n, err := f.ReadAt(data, 0)
	if err != nil && n < len(data) {
		return err
	}
	k.state = stateOf(info)
	k.index(data)
	return nil
}

func (k *KnownHosts) index(data []byte) {
	k.exact, k.other = map[string][]*KnownLine{}, nil
	number := 0
	for text := range bytes.Lines(data) {
		number++
		if l, ok := parseKnownLine(string(text)); ok {
			l.file, l.number = k.path, number
			k.add(&l)
		}
	}
}

func (k *KnownHosts) add(l *KnownLine) {
	if l.hash != nil || slices.ContainsFunc(l.patterns, func(p string) bool { return strings.ContainsAny(p, "*?!") }) {
		k.other = append(k.other, l)
		return
	}
	for i, name := range l.patterns {
		if !slices.Contains(l.patterns[:i], name) {
			k.exact[name] = append(k.exact[name], l)
		}
	}
}

// lines returns the lines about the name.
func (k *KnownHosts) lines(name string) []*KnownLine {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.find(name)
}

func (k *KnownHosts) find(name string) []*KnownLine {
	name = strings.ToLower(name)
	found := slices.Clone(k.exact[name])
	for _, l := range k.other {
		if l.matches(name) {
			found = append(found, l)
		}
	}
	return found
}
