package transfer

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// parser is either of the two.
type parser interface {
	FromClient([]byte) error
	FromHost([]byte) error
	Close()
}

// replay gives frames to a parser, cut at random places, or not if r is nil.
func replay(t testing.TB, frames []frame, r *rand.Rand) []Operation {
	t.Helper()
	var ops []Operation
	emit := func(op Operation) { ops = append(ops, op) }
	var p parser
	switch first := frames[0]; first.kind {
	case 's':
		p = NewSFTPParser(emit)
	default:
		s, ok := ParseSCP(string(first.data))
		if !ok {
			t.Fatalf("%q is not taken for an scp", first.data)
		}
		p = NewSCPParser(s, emit)
	}
	for _, f := range frames[1:] {
		take := p.FromClient
		if f.kind == 'h' {
			take = p.FromHost
		}
		for data := f.data; len(data) > 0; {
			n := len(data)
			if r != nil {
				n = 1 + r.IntN(min(n, 1+r.IntN(3000)))
			}
			if err := take(bytes.Clone(data[:n])); err != nil {
				t.Fatalf("%s: %v", frames[0].data, err)
			}
			data = data[n:]
		}
	}
	p.Close()
	return ops
}

// operations runs a program and tells what the parsers saw, once as it passed
// and again cut into random pieces.
func (s *stage) operations(t *testing.T, fails bool, name string, args ...string) []Operation {
	t.Helper()
	var all []Operation
	for _, frames := range s.run(t, fails, name, args...) {
		ops := replay(t, frames, nil)
		for seed := range uint64(5) {
			if again := replay(t, frames, rand.New(rand.NewPCG(seed, 0))); !slices.Equal(again, ops) {
				t.Errorf("cut at other places:\n%s\nat once:\n%s", s.show(again), s.show(ops))
			}
		}
		all = append(all, ops...)
	}
	return all
}

var times = regexp.MustCompile(`times \d+ \d+`)

// show writes operations one a line, with short names for the folders and digests.
func (s *stage) show(ops []Operation) string {
	var b strings.Builder
	for _, o := range ops {
		if o.Action == ActionStat {
			continue // their number depends on the version
		}
		fmt.Fprintf(&b, "%s %s %s", o.Protocol, o.Action, o.Path)
		if o.Target != "" {
			fmt.Fprintf(&b, " -> %s", o.Target)
		}
		if o.Within != "" {
			fmt.Fprintf(&b, " (%s)", o.Within)
		}
		if o.Action == ActionRead || o.Action == ActionWrite {
			fmt.Fprintf(&b, " %d", o.Size)
		}
		if o.Offset > 0 {
			fmt.Fprintf(&b, " from %d", o.Offset)
		}
		if o.Mode > 0 {
			fmt.Fprintf(&b, " %04o", o.Mode)
		}
		if o.Changed != "" {
			fmt.Fprintf(&b, " [%s]", times.ReplaceAllString(o.Changed, "times"))
		}
		if o.SHA256 != "" {
			b.WriteString(" " + o.SHA256[:8])
		}
		fmt.Fprintf(&b, ": %s", o.Result)
		if !o.Complete {
			b.WriteString(", incomplete")
		}
		b.WriteByte('\n')
	}
	return strings.NewReplacer(s.home, "HOME", s.local, "LOCAL").Replace(b.String())
}

// expect compares what was seen with lines as show writes them; "{x}" is the
// short digest of content x.
func (s *stage) expect(t *testing.T, ops []Operation, contents map[string][]byte, want ...string) {
	t.Helper()
	text := strings.Join(want, "\n") + "\n"
	for _, name := range slices.Sorted(maps.Keys(contents)) {
		sum := sha256.Sum256(contents[name])
		text = strings.ReplaceAll(text, "{"+name+"}", hex.EncodeToString(sum[:4]))
	}
	if got := s.show(ops); got != text {
		t.Errorf("seen:\n%s\nwant:\n%s", got, text)
	}
}

func put(t *testing.T, data []byte, path ...string) {
	t.Helper()
	file := filepath.Join(path...)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o640); err != nil {
		t.Fatal(err)
	}
}

func randomBytes(n int) []byte {
	data := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n)})
	r.Read(data) //nolint:errcheck // never fails
	return data
}

var contents = map[string][]byte{
	"none":  nil,
	"small": []byte("hello\n"),
	"zero":  {0},
	"big":   randomBytes(3<<20 + 17),
}

// tree is a folder with names that need care.
func tree(t *testing.T, dir string) {
	put(t, contents["small"], dir, "plain")
	put(t, contents["none"], dir, "empty")
	put(t, contents["big"], dir, "sub", "deep", "big file")
	put(t, contents["zero"], dir, "sub", "\xff\xfe.bin")
}

func sorted(ops []Operation) []Operation {
	slices.SortFunc(ops, func(a, b Operation) int { return strings.Compare(a.Path, b.Path) })
	return ops
}

// TestOldSCP: the real scp -O against a real sshd.
func TestOldSCP(t *testing.T) {
	s := newStage(t)
	remote := func(path string) string { return s.host.Name() + ":" + path }
	t.Run("a file to a new name", func(t *testing.T) {
		s.fresh(t)
		put(t, contents["big"], s.local, "big")
		ops := s.operations(t, false, "scp", "-O", "big", remote(s.home+"/copy"))
		s.expect(t, ops, contents, "scp write HOME/copy (HOME/copy/big) 3145745 0640 {big}: ok")
	})
	t.Run("a file into a folder", func(t *testing.T) {
		s.fresh(t)
		put(t, contents["small"], s.local, "small")
		put(t, contents["none"], s.local, "none")
		ops := s.operations(t, false, "scp", "-O", "-p", "small", remote(s.home))
		s.expect(t, ops, contents, "scp write HOME (HOME/small) 6 0640 {small}: ok")
		ops = s.operations(t, false, "scp", "-O", "none", remote(s.home+"/"))
		s.expect(t, ops, contents, "scp write HOME/none 0 0640 {none}: ok")
		ops = s.operations(t, false, "scp", "-O", "none", "small", remote("'"+s.home+"'"))
		s.expect(t, ops, contents, "scp write HOME/none 0 0640 {none}: ok", "scp write HOME/small 6 0640 {small}: ok")
	})
	t.Run("a tree to the host", func(t *testing.T) {
		s.fresh(t)
		tree(t, s.local+"/tree")
		ops := s.operations(t, false, "scp", "-O", "-r", "-p", "tree", remote(s.home+"/new"))
		s.expect(t, sorted(ops), contents,
			"scp mkdir HOME/new (HOME/new/tree) 0755: ok",
			"scp write HOME/new/empty (HOME/new/tree/empty) 0 0640 {none}: ok",
			"scp write HOME/new/plain (HOME/new/tree/plain) 6 0640 {small}: ok",
			"scp mkdir HOME/new/sub (HOME/new/tree/sub) 0755: ok",
			"scp mkdir HOME/new/sub/deep (HOME/new/tree/sub/deep) 0755: ok",
			"scp write HOME/new/sub/deep/big file (HOME/new/tree/sub/deep/big file) 3145745 0640 {big}: ok",
			"scp write HOME/new/sub/\xff\xfe.bin (HOME/new/tree/sub/\xff\xfe.bin) 1 0640 {zero}: ok",
		)
	})
	t.Run("a tree from the host", func(t *testing.T) {
		s.fresh(t)
		tree(t, s.home+"/tree")
		ops := s.operations(t, false, "scp", "-O", "-r", remote(s.home+"/tree/"), ".")
		s.expect(t, sorted(ops), contents,
			"scp readdir HOME/tree 0755: ok",
			"scp read HOME/tree/empty 0 0640 {none}: ok",
			"scp read HOME/tree/plain 6 0640 {small}: ok",
			"scp readdir HOME/tree/sub 0755: ok",
			"scp readdir HOME/tree/sub/deep 0755: ok",
			"scp read HOME/tree/sub/deep/big file 3145745 0640 {big}: ok",
			"scp read HOME/tree/sub/\xff\xfe.bin 1 0640 {zero}: ok",
		)
	})
	t.Run("quotes and wildcards", func(t *testing.T) {
		s.fresh(t)
		put(t, contents["small"], s.home, "with space")
		put(t, contents["zero"], s.home, "with-dash")
		ops := s.operations(t, false, "scp", "-O", "-T", remote("'"+s.home+"/with space'"), ".")
		s.expect(t, ops, contents, "scp read HOME/with space 6 0640 {small}: ok")
		ops = s.operations(t, false, "scp", "-O", remote(s.home+"/with*"), ".")
		s.expect(t, sorted(ops), contents, "scp read HOME/with space 6 0640 {small}: ok", "scp read HOME/with-dash 1 0640 {zero}: ok")
	})
	t.Run("failures", func(t *testing.T) {
		s.fresh(t)
		put(t, contents["big"], s.local, "big")
		put(t, contents["small"], s.local, "small")
		ops := s.operations(t, true, "scp", "-O", "small", remote(s.home+"/no/where"))
		s.expect(t, ops, contents, "scp write HOME/no/where (HOME/no/where/small) 0 0640: scp: HOME/no/where: No such file or directory, incomplete")
		ops = s.operations(t, true, "scp", "-O", "big", remote("/dev/full"))
		s.expect(t, ops, contents, "scp write /dev/full (/dev/full/big) 3145745 0640 {big}: scp: /dev/full: No space left on device, incomplete")
		ops = s.operations(t, true, "scp", "-O", remote(s.home+"/missing"), ".")
		s.expect(t, ops, contents, "scp read HOME/missing 0: scp: HOME/missing: No such file or directory, incomplete")
		ops = s.operations(t, true, "scp", "-O", "small", "big", remote(s.home+"/missing"))
		s.expect(t, ops, contents, "scp write HOME/missing 0: scp: HOME/missing: No such file or directory, incomplete")
		// The client's own side: its folder can't be made, for there is a file.
		tree(t, s.home+"/small")
		ops = s.operations(t, true, "scp", "-O", "-r", remote(s.home+"/small"), ".")
		if len(ops) == 0 || ops[0].Complete {
			t.Errorf("seen:\n%s", s.show(ops))
		}
	})
}

// TestNewSCP: the real scp over SFTP.
func TestNewSCP(t *testing.T) {
	s := newStage(t)
	remote := func(path string) string { return s.host.Name() + ":" + path }
	s.fresh(t)
	tree(t, s.local+"/tree")
	ops := s.operations(t, false, "scp", "-s", "-r", "tree", remote(s.home+"/new"))
	s.expect(t, sorted(ops), contents,
		"sftp mkdir HOME/new 0755: ok",
		"sftp setstat HOME/new 0755 [mode 0755]: ok",
		"sftp write HOME/new/empty 0 0640 {none}: ok",
		"sftp write HOME/new/plain 6 0640 {small}: ok",
		"sftp mkdir HOME/new/sub 0755: ok",
		"sftp setstat HOME/new/sub 0755 [mode 0755]: ok",
		"sftp mkdir HOME/new/sub/deep 0755: ok",
		"sftp setstat HOME/new/sub/deep 0755 [mode 0755]: ok",
		"sftp write HOME/new/sub/deep/big file 3145745 0640 {big}: ok",
		"sftp write HOME/new/sub/\xff\xfe.bin 1 0640 {zero}: ok",
	)
	ops = s.operations(t, false, "scp", "-s", "-r", remote(s.home+"/new"), "back")
	s.expect(t, sorted(ops), contents,
		"sftp readdir HOME/new: ok",
		"sftp read HOME/new/empty 0 {none}: ok",
		"sftp read HOME/new/plain 6 {small}: ok",
		"sftp readdir HOME/new/sub: ok",
		"sftp readdir HOME/new/sub/deep: ok",
		"sftp read HOME/new/sub/deep/big file 3145745 {big}: ok",
		"sftp read HOME/new/sub/\xff\xfe.bin 1 {zero}: ok",
	)
	// What is there already is cut where the new content ends.
	put(t, contents["small"], s.local, "small")
	ops = s.operations(t, false, "scp", "-s", "small", remote(s.home+"/new/sub/deep/big file"))
	s.expect(t, ops, contents, "sftp write HOME/new/sub/deep/big file 6 0640 {small}: ok")
	ops = s.operations(t, true, "scp", "-s", "small", remote("/dev/full"))
	s.expect(t, ops, contents,
		"sftp setstat /dev/full [size 6]: Bad message, incomplete",
		"sftp write /dev/full 0 0640: Failure, incomplete")
}

// TestSFTP: the real sftp with a batch.
func TestSFTP(t *testing.T) {
	s := newStage(t)
	s.fresh(t)
	for name, data := range contents {
		put(t, data, s.local, name)
	}
	half := contents["big"][:1<<20]
	put(t, half, s.local, "half")
	put(t, half, s.home, "half")
	batch := strings.ReplaceAll(`
put big HOME/a
put -p none HOME/b
get HOME/a fetched
reget HOME/a half
reput big HOME/half
rename HOME/a HOME/c
ln HOME/c HOME/hard
ln -s target HOME/soft
mkdir HOME/dir
mkdir HOME/dir
chmod 600 HOME/c
chown 1234 HOME/missing
ls HOME
cp HOME/c HOME/copy
rm HOME/b
rmdir HOME/dir
get HOME/missing
put big HOME/no/where
rename HOME/missing HOME/x
df HOME
`, "HOME", s.home)
	batch = strings.ReplaceAll(batch, "\n", "\n-") // go on after failures
	put(t, []byte(strings.Trim(batch, "\n-")), s.local, "batch")
	ops := s.operations(t, false, "sftp", "-b", "batch", s.host.Name())
	var entries uint64
	for _, op := range ops {
		if op.Action == ActionReaddir {
			entries = op.Count
		}
	}
	// Both dots, b, c, dir, half, hard and soft.
	if want := uint64(8); entries != want {
		t.Errorf("%d entries listed, want %d", entries, want)
	}
	if i := slices.IndexFunc(ops, func(op Operation) bool { return op.Action == ActionStat }); i != len(ops)-1 || ops[i].Count < 10 {
		t.Errorf("questions are not counted: %+v", ops)
	}
	s.expect(t, ops, contents,
		"sftp write HOME/a 3145745 0640 {big}: ok",
		"sftp setstat HOME/b 0640 [mode 0640, times]: ok",
		"sftp write HOME/b 0 0640 {none}: ok",
		"sftp read HOME/a 3145745 {big}: ok",
		"sftp read HOME/a 2097169 from 1048576: ok, incomplete",
		"sftp write HOME/half 2097169 from 1048576 0640: ok, incomplete",
		"sftp rename HOME/a -> HOME/c: ok",
		"sftp link HOME/hard -> HOME/c: ok",
		"sftp symlink HOME/soft -> target: ok",
		"sftp mkdir HOME/dir 0777: ok",
		"sftp mkdir HOME/dir 0777: Failure, incomplete",
		"sftp setstat HOME/c 0600 [mode 0600]: ok",
		"sftp readdir HOME/: ok",
		"sftp copy HOME/c -> HOME/copy: ok",
		"sftp remove HOME/b: ok",
		"sftp rmdir HOME/dir: ok",
		"sftp write HOME/no/where 0 0640: No such file, incomplete",
		"sftp rename HOME/missing -> HOME/x: No such file, incomplete",
	)
	if data, err := os.ReadFile(s.home + "/half"); err != nil || !bytes.Equal(data, contents["big"]) {
		t.Errorf("reput: %v", err)
	}
}
