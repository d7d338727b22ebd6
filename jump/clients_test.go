package jump_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fleetca/fleetca/jump/replay"
	"github.com/fleetca/fleetca/jump/store"
)

// roads are the ways in, in the order of the matrix.
var roads = []string{"subsystem", "jump", "login"}

const (
	direct = "direct"
	// times says that an operation keeps the files' times.
	times = true
)

// operation is one thing that people do with a client. It is done directly and
// by each way in, and must come to the same.
type operation struct {
	client string // first word of the row
	what   string
	// script is for bash, in $HERE, a folder of the client's. $THERE is one of
	// the host's, which is the same machine; $SSH is ssh with its options,
	// $CONFIG its file, and the host is always called web1.
	script string
	times  bool
	// recorded is how its sessions are.
	recorded string
	// not says by way why it can't be done; the client's words then are the
	// proof.
	not map[string]refused
	// none says why it can't be done on this machine at all.
	none string
}

// refused is what doesn't work, why, and what the client says.
type refused struct{ why, says string }

// outcome is all that an operation leaves.
type outcome struct {
	result
	files string
}

// stand is a world with one person, and configurations for all ways in.
type stand struct {
	*world
	p     *client
	dir   string // of the operations, of the same name for all
	known map[string]bool
}

func newStand(t testing.TB, c worldConfig) *stand {
	w := newWorld(t, c)
	s := &stand{world: w, p: w.person(personConfig{}), known: map[string]bool{}}
	s.dir = filepath.Join(s.p.home, "work")
	common := fmt.Sprintf("Host *\n  User %s\n  IdentityFile %s\n  IdentityAgent %s\n  UserKnownHostsFile %s\n  GlobalKnownHostsFile /dev/null\n"+
		"  StrictHostKeyChecking yes\n  LogLevel ERROR\n  KexAlgorithms curve25519-sha256\n",
		w.login, s.p.key, s.p.socket, filepath.Join(s.p.home, "known_hosts"))
	jumpHost := fmt.Sprintf("Host jump\n  HostName 127.0.0.1\n  Port %d\n  HostKeyAlias jump.example.com\n", w.port)
	for _, road := range append([]string{direct}, roads...) {
		var b strings.Builder
		b.WriteString(jumpHost)
		for _, h := range w.fleet.Hosts() {
			host, port, _ := net.SplitHostPort(h.Addr())
			fmt.Fprintf(&b, "Host %s\n", h.Name())
			switch road {
			case direct:
				fmt.Fprintf(&b, "  HostName %s\n  Port %s\n  HostKeyAlias %s\n", host, port, h.Name())
			case "subsystem":
				fmt.Fprintf(&b, "  Port %s\n  ProxyCommand ssh -F %s -A %%r@jump -s proxy:%%h:%%p\n", port, s.config(road))
			case "jump":
				fmt.Fprintf(&b, "  Port %s\n  ProxyJump jump\n", port)
			case "login":
				fmt.Fprintf(&b, "  HostName 127.0.0.1\n  Port %d\n  HostKeyAlias jump.example.com\n  User %s%%%s\n", w.port, w.login, h.Name())
			}
		}
		s.p.put("config-"+road, []byte(b.String()+common))
	}
	return s
}

func (s *stand) config(road string) string { return filepath.Join(s.p.home, "config-"+road) }

// ssh is ssh with its options for a way in. Where the configuration has the
// agent offered to the jump host, nothing more is needed.
func (s *stand) ssh(road string) string {
	if road == "subsystem" {
		return "ssh -F " + s.config(road)
	}
	return "ssh -A -F " + s.config(road)
}

// here and there are the folders of the client and of the host.
func (s *stand) here() string  { return filepath.Join(s.dir, "here") }
func (s *stand) there() string { return filepath.Join(s.dir, "there") }

// fresh makes the folders anew.
func (s *stand) fresh(t *testing.T) {
	t.Helper()
	if err := os.RemoveAll(s.dir); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{s.there(), filepath.Join(s.here(), "tree", "sub folder")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	put := func(name, content string, mode os.FileMode) {
		path := filepath.Join(s.here(), "tree", name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		when := time.Unix(1_600_000_000, 0)
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
	put("large", strings.Repeat("0123456789abcdef\n", 40_000), 0o640)
	put("empty", "", 0o600)
	put("run.sh", "#!/bin/sh\necho ran\n", 0o755)
	put("sub folder/\xe4 b\xffc", "\x00\x01\xff", 0o444)
}

// run does an operation's script by one way.
func (s *stand) run(t *testing.T, road, script string, keepTimes bool) outcome {
	t.Helper()
	s.fresh(t)
	cmd := s.p.command("bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = s.here()
	cmd.Env = append(cmd.Env, "HERE="+s.here(), "THERE="+s.there(), "WAY="+road, "SSH="+s.ssh(road), "CONFIG="+s.config(road),
		"LOGIN="+s.login, "FORWARD="+map[bool]string{true: "", false: "-A"}[road == "subsystem"], "TZ=UTC", "PYTHONDONTWRITEBYTECODE=1")
	return outcome{result: s.p.run(cmd), files: snapshot(t, s.dir, keepTimes)}
}

// snapshot is all that is in a folder.
func snapshot(t *testing.T, dir string, keepTimes bool) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		fmt.Fprintf(&b, "%q %v", name, info.Mode())
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " to %q", to)
		case info.Mode().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %d %x", len(content), sha256.Sum256(content))
			if keepTimes {
				fmt.Fprintf(&b, " %d", info.ModTime().Unix())
			}
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// ended waits until all sessions have, and returns those that are new.
func (s *stand) ended(t *testing.T) []store.Session {
	t.Helper()
	var fresh []store.Session
	s.eventually("the sessions have ended", func() bool {
		fresh = nil
		for e, err := range s.store.Sessions(context.Background(), store.Query{}) {
			if err != nil {
				t.Fatal(err)
			}
			if e.State == store.Open {
				return false
			}
			if !s.known[e.ID] {
				fresh = append(fresh, e)
			}
		}
		return true
	})
	for _, e := range fresh {
		s.known[e.ID] = true
		if v, err := replay.Verify(context.Background(), s.store, e.ID); err != nil || !v.Intact() || e.State != store.Ended {
			t.Errorf("recording of %q: %v, %v, %s", e.Command, v, err, e.State)
		}
	}
	return fresh
}

// kinds are the kinds of sessions, without repetition.
func kinds(all []store.Session) string {
	var names []string
	for _, e := range all {
		names = append(names, "`"+string(e.Kind)+"`")
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}

// try does an operation in all ways and returns its row.
func (s *stand) try(t *testing.T, op operation) row {
	r := row{client: op.client, what: op.what, recorded: op.recorded, ways: map[string]string{}}
	if op.none != "" {
		r.recorded = "not tried: " + op.none
		return r
	}
	want := s.run(t, direct, op.script, op.times)
	if want.code != 0 {
		t.Fatalf("directly: %+v", want)
	}
	for _, road := range roads {
		got := s.run(t, road, op.script, op.times)
		all := s.ended(t)
		if no, ok := op.not[road]; ok {
			r.ways[road] = "no: " + no.why
			if got.code == 0 || !strings.Contains(got.stderr, no.says) {
				t.Errorf("by %s, which can't work: %+v", road, got.result)
			}
			continue
		}
		r.ways[road] = "yes"
		if got != want {
			r.ways[road] = "differs"
			t.Errorf("by %s: got %d, stdout %q, stderr %q, want %d, %q, %q", road, got.code, got.stdout, got.stderr, want.code, want.stdout, want.stderr)
			if got.files != want.files {
				t.Errorf("by %s: got files\n%swant\n%s", road, got.files, want.files)
			}
			continue
		}
		if k := kinds(all); k != op.recorded {
			t.Errorf("by %s: recorded as %s, want %s", road, k, op.recorded)
		}
	}
	return r
}

// openSSH are the operations of OpenSSH's own programs, and of those that run
// its ssh.
func openSSH() []operation {
	return []operation{
		{
			client: "OpenSSH", what: "`ssh`: command, stdin, stdout and stderr apart, exit status", recorded: "`command`",
			script: `printf 'in\000\377' | $SSH web1 'cat; echo err >&2; exit 7' || echo "exit $?"`,
		},
		{
			client: "OpenSSH", what: "`ssh -tt`: terminal", recorded: "`terminal`",
			script: `$SSH -q -tt web1 'stty size; test -t 0 && echo $TERM; exit 5' </dev/null || echo "exit $?"`,
		},
		{
			client: "OpenSSH", what: "`ssh -T`: shell without terminal", recorded: "`command`",
			script: `echo 'echo $((40+2)); echo err >&2; exit 3' | $SSH -T web1 || echo "exit $?"`,
		},
		{
			client: "OpenSSH", what: "ControlMaster, ControlPersist", recorded: "`command`",
			script: `cm="-o ControlMaster=auto -o ControlPath=$HERE/cm -o ControlPersist=60"
				$SSH $cm web1 'echo one; exit 4' 2>/dev/null || echo "exit $?"
				$SSH $cm web1 'echo two; echo err >&2; exit 5' || echo "exit $?"
				for i in 1 2 3; do $SSH $cm web1 "cat; echo $i" <<<"in $i" >out$i & done; wait; cat out?
				$SSH $cm -O check web1 2>&1 | sed 's/=.*//'
				$SSH $cm -O exit web1 2>/dev/null`,
		},
		{
			client: "OpenSSH", what: "`scp` over SFTP: folders, modes, times, errors", recorded: "`sftp`", times: times,
			script: scpScript("-s"),
		},
		{
			client: "OpenSSH", what: "`scp -O`: the same over the old protocol", recorded: "`scp`", times: times,
			script: scpScript("-O"),
		},
		{
			client: "OpenSSH", what: "`sftp -b`: put, get, chmod, rename, links, folders, resumed transfers", recorded: "`sftp`", times: times,
			script: `sftp -q $FORWARD -F $CONFIG -b - web1 <<-END
				put -p -r tree $THERE/
				cd $THERE
				rename tree/run.sh tree/ran.sh
				chmod 700 tree/ran.sh
				symlink tree/large link
				ln tree/empty hard
				mkdir made
				rmdir made
				rm tree/empty
				get -p tree/large back
				reput -p $HERE/tree/large hard
				-get nothing
				ls -1 tree
				END`,
		},
		{
			client: "OpenSSH", what: "`sftp`, typed", recorded: "`sftp`",
			script: `printf 'cd %s\nput tree/large\nls\nget large back\nbye\n' $THERE | sftp -q $FORWARD -F $CONFIG web1`,
		},
		{
			client: "rsync", what: "push, pull, change, delete", recorded: "`command`", times: times,
			script: `export RSYNC_RSH="$SSH"
				rsync -ai tree/ web1:$THERE/tree/
				echo more >>tree/large; rm tree/empty; touch -d @1600000100 tree/large tree
				rsync -ai --delete --checksum tree/ web1:$THERE/tree/
				rsync -a web1:$THERE/tree/ back/
				rsync -a web1:$THERE/nothing back/ || echo "exit $?"`,
		},
		{
			client: "git", what: "clone, push, fetch, refused push", recorded: "`command`",
			script: `export GIT_SSH_COMMAND="$SSH" GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_DATE=@1600000000 GIT_COMMITTER_DATE=@1600000000
				git init -q --bare -b main $THERE/r.git; rm -r $THERE/r.git/hooks
				git clone -q web1:$THERE/r.git clone 2>&1 | sort
				cd clone; git config user.name a; git config user.email a@b
				cp -r ../tree .; git add .; git commit -q -m one; git push -q origin HEAD:main
				git clone -q web1:$THERE/r.git ../second
				git fetch -q; git rev-parse origin/main; git log --format=%H -1
				git commit -q --amend -m two; git push origin HEAD:main || echo "exit $?"
				rm -rf .git ../second/.git`,
		},
	}
}

func scpScript(flag string) string {
	return fmt.Sprintf(`copy="scp %s -q -p $FORWARD -F $CONFIG"
		$copy -r tree web1:$THERE/
		$copy web1:$THERE/tree/run.sh copy
		$copy -r web1:$THERE/tree back
		$copy web1:$THERE/nothing x || echo "exit $?"
		$copy tree/large web1:$THERE/no/such/folder || echo "exit $?"`, flag)
}

// mounted is the operation of sshfs, or why this machine can't mount.
func mounted(t *testing.T) operation {
	t.Helper()
	noAgent := refused{"it runs ssh with `-a`, so that no agent is offered", "remote host has disconnected"}
	op := operation{
		client: "sshfs", what: "mount, write, read, rename, link, remove", recorded: "`sftp`",
		script: `mkdir mnt; sshfs -o ssh_command="$SSH" web1:$THERE mnt; trap 'fusermount3 -u mnt' EXIT
			cp -r tree mnt/; cmp tree/large mnt/tree/large; mv mnt/tree/run.sh mnt/ran.sh; chmod 700 mnt/ran.sh
			ln -s ran.sh mnt/link; cat mnt/link; rm mnt/tree/empty; echo more >>mnt/tree/large; truncate -s 100 mnt/tree/large
			ls mnt mnt/tree; ! cat mnt/nothing`,
		not: map[string]refused{"jump": noAgent, "login": noAgent},
	}
	if err := fuse(t.TempDir()); err != nil {
		op.none = "no FUSE on this machine"
		t.Logf("sshfs: %v", err)
	}
	return op
}

// fuse says why nothing can be mounted on a folder, which containers often
// forbid.
func fuse(folder string) error {
	dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer dev.Close()
	if os.Geteuid() != 0 {
		return nil // fusermount3 is for others
	}
	err = unix.Mount("probe", folder, "fuse.probe", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", dev.Fd()))
	if err != nil {
		return fmt.Errorf("mounting: %w", err)
	}
	return unix.Unmount(folder, unix.MNT_DETACH)
}

// TestClients: what people do with the usual clients comes to the same through
// the jump host as directly, and is recorded. The table in docs/clients.md is
// made of it.
func TestClients(t *testing.T) {
	s := newStand(t, worldConfig{hosts: []string{"web1"}})
	var m matrix
	all := slices.Concat(openSSH(), []operation{mounted(t)}, s.putty(t), s.paramiko(t))
	for _, op := range all {
		t.Run(op.client+" "+op.what, func(t *testing.T) { m.rows = append(m.rows, s.try(t, op)) })
	}
	m.versions = map[string]string{
		"OpenSSH": version(t, `OpenSSH_([0-9.]+p[0-9]+)`, "ssh", "-V"), "rsync": version(t, `version ([0-9.]+)`, "rsync", "--version"),
		"git": version(t, `version ([0-9.]+)`, "git", "--version"), "sshfs": version(t, `SSHFS version ([0-9.]+)`, "sshfs", "--version"),
		"PuTTY":    version(t, `Release ([0-9.]+)`, "plink", "-V"),
		"Paramiko": version(t, `([0-9.]+)`, "/usr/bin/python3", "-c", "import paramiko; print(paramiko.__version__)"),
	}
	if len(m.rows) == len(all) { // not where only some were asked for
		m.check(t, "clients")
	}
}
