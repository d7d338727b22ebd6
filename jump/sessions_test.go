package jump_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/creack/pty"

	"github.com/fleetca/fleetca/jump/access"
	"github.com/fleetca/fleetca/jump/store"
	"github.com/fleetca/fleetca/jump/store/badgerstore"
)

// TestTerminal: a shell under a real terminal is recorded byte for byte, with its
// sizes, and what is typed only where the role says so.
func TestTerminal(t *testing.T) {
	quiet, keen := openRole(), openRole()
	quiet.Identities = []string{"joe"}
	keen.Name, keen.Identities, keen.RecordInput = "keen", []string{"ann"}, true
	w := newWorld(t, worldConfig{roles: []access.Role{quiet, keen}})
	for i, who := range []string{"joe", "ann"} {
		t.Run(who, func(t *testing.T) {
			p := w.person(personConfig{identity: who})
			cmd := p.ssh(append([]string{"-tt"}, p.ways()["jump"]("web1")...)...)
			tty, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: 91, Rows: 33})
			if err != nil {
				t.Fatal(err)
			}
			defer tty.Close()
			var seen syncBuffer
			copied := make(chan struct{})
			go func() {
				defer close(copied)
				_, _ = io.Copy(&seen, tty)
			}()
			send := func(s string) {
				if _, err := io.WriteString(tty, s); err != nil {
					t.Fatal(err)
				}
			}
			// Before ssh has made the terminal raw, it would echo by itself.
			w.eventually("the shell prompts", func() bool { return strings.ContainsAny(seen.String(), "#$") })
			send("stty size; echo first-$((40+2))\n")
			w.eventually("the first command has run", func() bool {
				return strings.Contains(seen.String(), "first-42") && strings.Contains(seen.String(), "33 91")
			})
			if err := pty.Setsize(tty, &pty.Winsize{Cols: 70, Rows: 20}); err != nil {
				t.Fatal(err)
			}
			w.eventually("the new size has arrived", func() bool {
				if strings.Contains(seen.String(), "20 70") {
					return true
				}
				send("stty size\n")
				return false
			})
			send("printf '\\377\\303\\050 \\342\\202\\254\\n'; exit 3\n")
			<-copied
			if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 3 {
				t.Fatalf("ssh: %v", err)
			}
			s := w.sessions(i + 1)[i]
			if s.Kind != store.KindTerminal || s.ExitStatus == nil || *s.ExitStatus != 3 || s.Identity != who {
				t.Errorf("session %+v", s)
			}
			// What the client shows is what the host sent, but for its own
			// farewell.
			shown, _, _ := strings.Cut(seen.String(), "Connection to ")
			if raw := w.raw(s.ID); strings.TrimRight(raw, "\r\n") != strings.TrimRight(shown, "\r\n") {
				t.Errorf("recorded %q\nshown    %q", raw, shown)
			}
			if n := len(w.events("resize")); n < i+1 {
				t.Errorf("%d resize events", n)
			}
			if typed := w.typed(s.ID); strings.Contains(typed, "first-$((40+2))") != (who == "ann") {
				t.Errorf("recorded input %q", typed)
			}
		})
	}
}

// syncBuffer is a buffer for two goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestExits: how a program ends reaches the client and the recording.
func TestExits(t *testing.T) {
	w := newWorld(t, worldConfig{})
	p := w.person(personConfig{})
	for i, c := range []struct {
		command string
		code    int
		signal  string
	}{
		{"exit 0", 0, ""},
		{"exit 200", 200, ""},
		{"kill -TERM $$", 255, "TERM"},
		{"kill -KILL $$", 255, "KILL"},
	} {
		r := p.run(p.ssh(append(p.ways()["subsystem"]("web1"), c.command)...))
		s := w.sessions(i + 1)[i]
		if r.code != c.code || s.ExitSignal != c.signal || c.signal == "" && (s.ExitStatus == nil || int(*s.ExitStatus) != c.code) {
			t.Errorf("%s: got %+v and %+v", c.command, r, s)
		}
	}
}

// TestBulk: 100 MiB of binary output reach the client unchanged, the digest is
// recorded, and as terminal output every byte is.
func TestBulk(t *testing.T) {
	w := newWorld(t, worldConfig{})
	p := w.person(personConfig{})
	const size = 100 << 20
	command := fmt.Sprintf("head -c %d /dev/urandom | tee >(sha256sum >&2)", size)
	for name, way := range p.ways() {
		if name == "subsystem inner" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			cmd := p.ssh(append(way("web1"), "bash -c "+quote(command))...)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			h := sha256.New()
			n, err := io.Copy(h, out)
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Fatalf("%v\n%s", err, stderr.String())
			}
			sum := hex.EncodeToString(h.Sum(nil))
			if n != size || !strings.HasPrefix(stderr.String(), sum) {
				t.Fatalf("%d bytes with digest %s; the host says %s", n, sum, stderr.String())
			}
			all := w.sessions(len(w.events("session.start")))
			s := all[len(all)-1]
			if !strings.Contains(w.exported(s.ID), sum) {
				t.Errorf("the digest %s of the output is not recorded", sum)
			}
		})
	}
}

// TestBulkTerminal: the same through a terminal, recorded whole.
func TestBulkTerminal(t *testing.T) {
	w := newWorld(t, worldConfig{})
	p := w.person(personConfig{})
	const size = 100 << 20
	// UTF-8 and bytes that aren't, cut anywhere by packets.
	command := fmt.Sprintf("stty raw -echo; { head -c %d /dev/urandom; printf '\\342\\202\\254\\303\\244'; } ", size)
	cmd := p.ssh(append([]string{"-tt"}, append(p.ways()["login"]("web1"), command)...)...)
	h := sha256.New()
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = h, &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	_ = in.Close()
	s := w.sessions(1)[0]
	raw := w.raw(s.ID)
	if sum := sha256.Sum256([]byte(raw)); len(raw) < size || !bytes.Equal(sum[:], h.Sum(nil)) {
		t.Errorf("recorded %d bytes with digest %x, shown %x", len(raw), sum, h.Sum(nil))
	}
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// TestFiles: scp in both protocols and sftp are recorded by file, without the
// content.
func TestFiles(t *testing.T) {
	w := newWorld(t, worldConfig{})
	p := w.person(personConfig{})
	content := bytes.Repeat([]byte("some text that would be found\n"), 50_000)
	sum := fmt.Sprintf("%x", sha256.Sum256(content))
	local := filepath.Join(p.home, "file")
	if err := os.WriteFile(local, content, 0o640); err != nil {
		t.Fatal(err)
	}
	remote := filepath.Join(t.TempDir(), "there")
	options := []string{"-F", p.config, "-A", "-o", p.proxyCommand("-A"), "-q"}
	put := func(flags ...string) []string { return append(append(flags, options...), local, "web1:"+remote) }
	get := func(flags ...string) []string {
		return append(append(flags, options...), "web1:"+remote, local+".back")
	}
	n := 0
	for _, c := range []struct {
		name, event, action string
		cmd                 []string
		stdin               string
	}{
		{"scp put", "sftp", "write", append([]string{"scp"}, put()...), ""},
		{"scp get", "sftp", "read", append([]string{"scp"}, get()...), ""},
		{"scp -O put", "scp", "write", append([]string{"scp", "-O"}, put()...), ""},
		{"scp -O get", "scp", "read", append([]string{"scp", "-O"}, get()...), ""},
		{"sftp put", "sftp", "write", append(append([]string{"sftp", "-b", "-"}, options...), "web1"), "put " + local + " " + remote + "\n"},
		{"scp by -J", "sftp", "write", []string{"scp", "-q", "-F", p.config, "-A", "-J", "jump", local, "web1:" + remote}, ""},
		{"scp -O by -J", "scp", "write", []string{"scp", "-O", "-q", "-F", p.config, "-A", "-J", "jump", local, "web1:" + remote}, ""},
		{"scp by login%host", "sftp", "write", []string{"scp", "-q", "-F", p.config, "-A", local, w.login + "%web1@jump:" + remote}, ""},
		{"scp -O by login%host", "scp", "write", []string{"scp", "-O", "-q", "-F", p.config, "-A", local, w.login + "%web1@jump:" + remote}, ""},
		{"sftp get", "sftp", "read", append(append([]string{"sftp", "-b", "-"}, options...), "web1"), "get " + remote + " " + local + ".back\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_ = os.Remove(local + ".back")
			cmd := p.command(c.cmd[0], c.cmd[1:]...)
			cmd.Stdin = strings.NewReader(c.stdin)
			if r := p.run(cmd); r.code != 0 {
				t.Fatalf("got %+v", r)
			}
			n++
			s := w.sessions(n)[n-1]
			if string(s.Kind) != c.event {
				t.Errorf("kind %q, want %q", s.Kind, c.event)
			}
			found := false
			for _, e := range w.events(c.event) {
				found = found || e.SID == s.ID && e.SHA256 == sum && e.Path == remote && strings.Contains(string(e.Line), fmt.Sprintf(`"action":%q`, c.action))
			}
			if !found {
				t.Errorf("no %s event with action %s of %s and digest %s", c.event, c.action, remote, sum)
			}
			if all := w.exported(s.ID); strings.Contains(all, "would be found") || !strings.Contains(all, sum) {
				t.Errorf("recorded: %.500s", all)
			}
			if got, err := os.ReadFile(remote); err != nil || !bytes.Equal(got, content) {
				t.Errorf("the file arrived as %d bytes, %v", len(got), err)
			}
		})
	}
}

// TestNotSCP: what only begins as scp is recorded as a command.
func TestNotSCP(t *testing.T) {
	w := newWorld(t, worldConfig{})
	p := w.person(personConfig{})
	cmd := p.ssh(append(p.ways()["jump"]("web1"), "scp -t /nonexistent/x; echo secret work")...)
	r := p.run(cmd)
	if !strings.Contains(r.stdout, "secret work") {
		t.Fatalf("got %+v", r)
	}
	if s := w.sessions(1)[0]; s.Kind != store.KindCommand || !strings.Contains(w.raw(s.ID), "secret work") {
		t.Errorf("session %+v", s)
	}
}

// TestManyAtOnce: 200 sessions at once, each with output of its own, each
// recorded whole.
func TestManyAtOnce(t *testing.T) {
	st, err := badgerstore.Open(context.Background(), badgerstore.Config{
		Dir: filepath.Join(t.TempDir(), "store"), Reserve: 96 << 20, CloseReserve: 64 << 20, Ballast: 32 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	w := newWorld(t, worldConfig{store: st})
	p := w.person(personConfig{extra: "ControlMaster no"})
	goOn := filepath.Join(w.dir, "go")
	const masters, each = 25, 8
	var work sync.WaitGroup
	for m := range masters {
		work.Go(func() {
			// Several sessions on each connection, as ControlMaster has them; sshd
			// allows ten.
			control := filepath.Join(p.home, fmt.Sprintf("c%d", m))
			way := p.ways()[[]string{"subsystem", "jump", "login"}[m%3]]("web1")
			// By -J the agent comes with a session only, so the master has one.
			master := p.ssh(append(append([]string{"-M", "-S", control}, way...), "cat")...)
			hold, err := master.StdinPipe()
			if err != nil {
				t.Error(err)
				return
			}
			if err := master.Start(); err != nil {
				t.Error(err)
				return
			}
			defer func() {
				_ = hold.Close()
				_ = master.Wait()
			}()
			w.eventually("the master is there", func() bool {
				_, err := os.Stat(control)
				return err == nil
			})
			var inner sync.WaitGroup
			for i := range each {
				inner.Go(func() {
					word := fmt.Sprintf("session-%d-%d", m, i)
					r := p.run(p.ssh(append(append([]string{"-S", control}, way...), fmt.Sprintf("seq 1 1500; while ! test -e %s; do sleep 0.3; done; seq 1501 3000; echo %s", goOn, word))...))
					if r.code != 0 || !strings.HasSuffix(r.stdout, "\n3000\n"+word+"\n") {
						t.Errorf("%s: code %d, %d bytes, %s", word, r.code, len(r.stdout), r.stderr)
					}
				})
			}
			inner.Wait()
		})
	}
	// All of them run at once, and the masters' own with them.
	w.eventually("all sessions run", func() bool {
		n := 0
		for _, err := range st.Sessions(context.Background(), store.Query{State: store.Open}) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		return n == masters*(each+1)
	})
	if err := os.WriteFile(goOn, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	work.Wait()
	seen := map[string]bool{}
	begun := len(w.events("session.start"))
	for _, s := range w.sessions(begun) {
		if i := strings.Index(s.Command, "echo session-"); i >= 0 {
			word := s.Command[i+len("echo "):]
			if raw := w.raw(s.ID); !strings.HasSuffix(raw, "\n3000\n"+word+"\n") || !strings.HasPrefix(raw, "1\n2\n") {
				t.Errorf("%s: recorded %d bytes", word, len(raw))
			}
			seen[word] = true
		}
	}
	if len(seen) != masters*each {
		t.Errorf("%d sessions recorded, want %d", len(seen), masters*each)
	}
}

// exported is a recording as JSON lines, with bytes as they are.
func (w *world) exported(id string) string {
	w.t.Helper()
	var b strings.Builder
	for e := range w.recorded(id) {
		b.Write(e.Data)
		b.WriteByte('\n')
	}
	return b.String()
}

// TestNobodyReads: a program whose output nobody reads any more ends, as on a
// direct connection.
func TestNobodyReads(t *testing.T) {
	w := newWorld(t, worldConfig{})
	p := w.person(personConfig{})
	for name, way := range p.ways() {
		t.Run(name, func(t *testing.T) {
			words := append(append([]string{"ssh", "-F", p.config}, way("web1")...), "yes")
			for i := range words {
				words[i] = quote(words[i])
			}
			r := p.run(p.command("bash", "-c", strings.Join(words, " ")+" | head -n 2"))
			if r.stdout != "y\ny\n" || r.code != 0 {
				t.Errorf("got %+v", r)
			}
		})
	}
}
