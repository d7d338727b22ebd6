package remote

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // the format of hashed names in known_hosts
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/fleetca/fleetca/inventory/sshconfig"
)

// x/crypto's knownhosts differs from OpenSSH in what matters here: one bad
// line spoils the whole file, names are compared with regard to case, a line
// without a port doesn't stand for other ports, @revoked applies to all hosts,
// and every lookup walks every line. So the files are read here.

const (
	maxKnownHosts     = 64 << 20
	markerCA          = "@cert-authority"
	markerRevoked     = "@revoked"
	hashMagic         = "|1|"
	knownHostsTimeout = 5 * time.Second
)

// knownLine is one line of a known_hosts file.
type knownLine struct {
	file   string
	number int
	marker string // "", markerCA or markerRevoked
	// Either patterns or salt and hash.
	patterns   []string // lower case, with their ! in front
	salt, hash []byte
	keyType    string
	blob       []byte
}

func (l *knownLine) place() string { return l.file + ":" + strconv.Itoa(l.number) }

// key parses the key when it is needed. Like OpenSSH, which passes over such
// lines, it says no to a key of unknown type or one that isn't what it says.
func (l *knownLine) key() (ssh.PublicKey, bool) {
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
func (l *knownLine) matches(name string) bool {
	if l.hash != nil {
		return hmac.Equal(hashName(name, l.salt), l.hash)
	}
	return sshconfig.MatchPatterns(name, l.patterns)
}

func hashName(name string, salt []byte) []byte {
	mac := hmac.New(sha1.New, salt)
	mac.Write([]byte(name))
	return mac.Sum(nil)
}

// parseKnownLine reads one line. It is false for blank lines, comments and
// lines that OpenSSH passes over.
func parseKnownLine(text string) (knownLine, bool) {
	var l knownLine
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

// knownFile is one known_hosts file in memory. Lines with plain names are
// found by them, so that ten thousand hosts don't walk ten thousand lines each.
type knownFile struct {
	path string

	mu    sync.RWMutex
	state fileState // of the file when it was last read
	exact map[string][]*knownLine
	other []*knownLine // wildcards, negations and hashed names
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

// loadKnown reads a file. One that isn't there knows nobody.
func loadKnown(path string) (*knownFile, error) {
	k := &knownFile{path: path}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		k.index(nil)
		return k, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading known hosts: %w", err)
	}
	defer f.Close()
	if err := k.read(f); err != nil {
		return nil, fmt.Errorf("reading known hosts: %w", err)
	}
	return k, nil
}

// read takes the whole file; the caller holds mu or is alone with k.
func (k *knownFile) read(f *os.File) error {
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

func (k *knownFile) index(data []byte) {
	k.exact, k.other = map[string][]*knownLine{}, nil
	number := 0
	for text := range bytes.Lines(data) {
		number++
		if l, ok := parseKnownLine(string(text)); ok {
			l.file, l.number = k.path, number
			k.add(&l)
		}
	}
}

func (k *knownFile) add(l *knownLine) {
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
func (k *knownFile) lines(name string) []*knownLine {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.find(name)
}

func (k *knownFile) find(name string) []*knownLine {
	name = strings.ToLower(name)
	found := slices.Clone(k.exact[name])
	for _, l := range k.other {
		if l.matches(name) {
			found = append(found, l)
		}
	}
	return found
}

// knownName is the form in which known_hosts has a host on a port.
func knownName(host string, port int) string {
	if port == 0 || port == 22 {
		return host
	}
	return "[" + host + "]:" + strconv.Itoa(port)
}

// status is what known_hosts says about a key.
type status int

const (
	statusNew status = iota
	statusKnown
	statusChanged
	statusRevoked
)

// judge is OpenSSH's check_key_in_hostkeys: a certificate is compared with the
// @cert-authority lines only, a plain key with the plain lines only. The lines
// returned are those that decided.
func judge(lines []*knownLine, key ssh.PublicKey) (status, []*knownLine) {
	plain, marker, wanted := key, "", key
	cert, isCert := key.(*ssh.Certificate)
	if isCert {
		plain, marker, wanted = cert.Key, markerCA, cert.SignatureKey
	}
	result := statusNew
	var decided []*knownLine
	for _, l := range lines {
		known, ok := l.key()
		if !ok {
			continue
		}
		if l.marker == markerRevoked {
			if sameKey(known, plain) || isCert && sameKey(known, cert.SignatureKey) {
				return statusRevoked, []*knownLine{l}
			}
			continue
		}
		if l.marker != marker || result == statusKnown {
			continue
		}
		if sameKey(known, wanted) {
			result, decided = statusKnown, []*knownLine{l}
		} else if !isCert {
			result, decided = statusChanged, append(decided, l)
		}
	}
	return result, decided
}

func sameKey(a, b ssh.PublicKey) bool {
	return bytes.Equal(a.Marshal(), b.Marshal())
}

// errKeyChanged is returned by record where the file has come to hold another
// key of the host since it was read.
var errKeyChanged = errors.New("another key was recorded meanwhile")

// record appends a new host's key, once. Writers of fleetca hold a lock on the
// file, and the line is one write to its end, as ssh itself does it.
//
// A crash leaves the line whole, missing or cut short; a short one is no line
// to ssh or to us, and the next write starts on a line of its own.
func (k *knownFile) record(ctx context.Context, name string, key ssh.PublicKey, hashed bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, knownHostsTimeout)
	defer cancel()
	f, err := k.lock(ctx)
	if err != nil {
		return err
	}
	defer f.Close() // and with it the lock
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file that keeps what is written to it", k.path)
	}
	if stateOf(info) != k.state {
		if err := k.read(f); err != nil {
			return err
		}
	}
	switch s, _ := judge(k.find(name), key); s {
	case statusKnown:
		return nil
	case statusChanged, statusRevoked:
		return errKeyChanged
	}
	shown := name
	if hashed {
		salt := make([]byte, sha1.Size)
		_, _ = rand.Read(salt) // never fails
		shown = hashMagic + base64.StdEncoding.EncodeToString(salt) + "|" +
			base64.StdEncoding.EncodeToString(hashName(name, salt))
	}
	text := shown + " " + key.Type() + " " + base64.StdEncoding.EncodeToString(key.Marshal()) + "\n"
	if size := info.Size(); size > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, size-1); err != nil {
			return err
		}
		if last[0] != '\n' {
			text = "\n" + text
		}
	}
	if _, err := f.WriteString(text); err != nil {
		return err
	}
	if info, err = f.Stat(); err != nil {
		return err
	}
	k.state = stateOf(info)
	l, _ := parseKnownLine(text)
	l.file = k.path
	k.add(&l)
	return nil
}

// lock opens the file for appending, holding its lock, and makes sure that it
// is still the one of that name: ssh-keygen -R replaces it.
func (k *knownFile) lock(ctx context.Context) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(k.path), 0o700); err != nil {
		return nil, err
	}
	for {
		f, err := os.OpenFile(k.path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			ours, err1 := f.Stat()
			there, err2 := os.Stat(k.path)
			if err1 == nil && err2 == nil && os.SameFile(ours, there) {
				return f, nil
			}
		}
		_ = f.Close()
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("locking %s: %w", k.path, err)
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return nil, fmt.Errorf("locking %s: %w", k.path, ctx.Err())
		}
	}
}
