package transfer

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// The protocols that the parsers understand, as Operation.Protocol has them.
const (
	ProtocolSCP  = "scp"
	ProtocolSFTP = "sftp"
)

// What an Operation did.
const (
	ActionRead    = "read"    // bytes of Path went to the client
	ActionWrite   = "write"   // bytes came from the client into Path
	ActionRename  = "rename"  // Path became Target
	ActionRemove  = "remove"  // Path, a file, was removed
	ActionMkdir   = "mkdir"   // Path, a directory, was made
	ActionRmdir   = "rmdir"   // Path, a directory, was removed
	ActionSetstat = "setstat" // attributes of Path were changed, see Changed
	ActionSymlink = "symlink" // Path was made a symbolic link to Target
	ActionLink    = "link"    // Path was made a hard link to Target
	ActionCopy    = "copy"    // Path was copied to Target on the host itself
	ActionReaddir = "readdir" // Path, a directory, was listed: Count entries
	ActionStat    = "stat"    // Count questions that change nothing, of one session
	ActionOther   = "other"   // a request that this package doesn't know; Path is its name
)

// OK is the Result of an operation that the other side accepted.
const OK = "ok"

// Operation is one thing that was done to a file or directory of the host.
//
// Paths are the bytes that the client or the host named, neither cleaned nor
// made absolute; they needn't be UTF-8. In JSON a path that isn't UTF-8 is
// shown with replacement characters and repeated as base64 in a second member,
// so that nothing is lost.
type Operation struct {
	// Protocol is ProtocolSCP or ProtocolSFTP.
	Protocol string
	// Action is one of the Action constants.
	Action string
	// Path is what it was done to.
	Path string
	// Target is the second path of a rename, link, symlink or copy.
	Target string
	// Within is set for scp into a path that may be a directory, which the old
	// protocol doesn't tell: the file is Path, or Within if Path was a
	// directory of the host before.
	Within string
	// Mode has the permission bits that were asked for, 0 if none were.
	Mode uint32
	// Changed says in words which attributes a setstat changed.
	Changed string
	// Size counts the bytes that passed and were accepted.
	Size uint64
	// Offset is where the first of them was in the file.
	Offset uint64
	// Count is the number of directory entries, or of questions.
	Count uint64
	// SHA256 is the digest of the file's content in hex, set only if all of the
	// file passed and the digest is known for certain.
	SHA256 string
	// Result is OK, or what the side that refused said, clipped and valid UTF-8
	// but not otherwise cleaned.
	Result string
	// Complete is true if the operation ran to its end and was accepted; for a
	// read or write also that every byte of the file passed.
	Complete bool
}

type operationJSON struct {
	Protocol  string `json:"protocol"`
	Action    string `json:"action"`
	Path      string `json:"path,omitempty"`
	PathRaw   string `json:"path_raw,omitempty"`
	Target    string `json:"target,omitempty"`
	TargetRaw string `json:"target_raw,omitempty"`
	Within    string `json:"within,omitempty"`
	WithinRaw string `json:"within_raw,omitempty"`
	Mode      uint32 `json:"mode,omitempty"`
	Changed   string `json:"changed,omitempty"`
	Size      uint64 `json:"size"`
	Offset    uint64 `json:"offset,omitempty"`
	Count     uint64 `json:"count,omitempty"`
	SHA256    string `json:"sha256,omitempty"`
	Result    string `json:"result"`
	Complete  bool   `json:"complete"`
}

// MarshalJSON keeps paths that aren't UTF-8.
func (o Operation) MarshalJSON() ([]byte, error) {
	j := operationJSON{
		Protocol: o.Protocol, Action: o.Action, Mode: o.Mode, Changed: o.Changed,
		Size: o.Size, Offset: o.Offset, Count: o.Count, SHA256: o.SHA256,
		Result: o.Result, Complete: o.Complete,
	}
	j.Path, j.PathRaw = shown(o.Path)
	j.Target, j.TargetRaw = shown(o.Target)
	j.Within, j.WithinRaw = shown(o.Within)
	return json.Marshal(j)
}

// UnmarshalJSON gives back what MarshalJSON was given.
func (o *Operation) UnmarshalJSON(data []byte) error {
	var j operationJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	*o = Operation{
		Protocol: j.Protocol, Action: j.Action, Mode: j.Mode, Changed: j.Changed,
		Size: j.Size, Offset: j.Offset, Count: j.Count, SHA256: j.SHA256,
		Result: j.Result, Complete: j.Complete,
	}
	for _, p := range []struct {
		name       string
		to         *string
		shown, raw string
	}{
		{"path", &o.Path, j.Path, j.PathRaw},
		{"target", &o.Target, j.Target, j.TargetRaw},
		{"within", &o.Within, j.Within, j.WithinRaw},
	} {
		*p.to = p.shown
		if p.raw == "" {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(p.raw)
		if err != nil {
			return fmt.Errorf("reading %s_raw of a file operation: %w", p.name, err)
		}
		*p.to = string(raw)
	}
	return nil
}

// shown returns path as text and, if that loses anything, as base64 too.
func shown(path string) (text, raw string) {
	if utf8.ValidString(path) {
		return path, ""
	}
	return strings.ToValidUTF8(path, "\uFFFD"), base64.StdEncoding.EncodeToString([]byte(path))
}
