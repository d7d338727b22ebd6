package badgerstore

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetca/fleetca/jump/store"
)

// Tests that kill a store, or let it meet a full disk, run it in a process of
// its own: this program again, with childEnv set to what it is to do and
// dirEnv to where.
const (
	childEnv = "BADGERSTORE_TEST_CHILD"
	dirEnv   = "BADGERSTORE_TEST_DIR"
)

var children = map[string]func(dir string) error{
	"crash":      crashChild,
	"fill":       func(dir string) error { return fillChild(dir, loads["fill"]) },
	"fill_small": func(dir string) error { return fillChild(dir, loads["fill_small"]) },
	"open":       openChild,
	"close":      closeChild,
}

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		if err := children[name](os.Getenv(dirEnv)); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			if errors.Is(err, store.ErrFull) {
				os.Exit(28)
			}
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child is such a process.
type child struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Scanner // lines that it prints
	stderr logBuffer
}

func startChild(t *testing.T, name, dir string) *child {
	t.Helper()
	c := &child{cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(os.Environ(), childEnv+"="+name, dirEnv+"="+dir)
	c.cmd.Stderr = &c.stderr
	if os.Getenv("BADGERSTORE_DEBUG") != "" {
		c.cmd.Stderr = os.Stderr
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.out = bufio.NewScanner(out)
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	})
	return c
}

// await reads lines until one that begins with want.
func (c *child) await(t *testing.T, want string) string {
	t.Helper()
	for c.out.Scan() {
		if strings.HasPrefix(c.out.Text(), want) {
			return c.out.Text()
		}
	}
	_ = c.cmd.Wait()
	t.Fatalf("the child ended without %q: %v\n%s", want, c.cmd.ProcessState, c.stderr.String())
	return ""
}

func (c *child) tell(t *testing.T, line string) {
	t.Helper()
	if _, err := io.WriteString(c.in, line+"\n"); err != nil {
		t.Fatalf("telling the child %q: %v\n%s", line, err, c.stderr.String())
	}
}

// say prints a line for the parent, whole.
func say(format string, a ...any) {
	_, _ = os.Stdout.Write(fmt.Appendf(nil, format+"\n", a...))
}

// childConfig is for a small disk, and doesn't wait long for more to commit.
func childConfig(dir string) Config {
	cfg := small(dir)
	cfg.GroupEvery = 5 * time.Millisecond
	cfg.Log = textLog(os.Stderr)
	return cfg
}

// content is what block number of session id holds in these tests; it can't be
// compressed, and its length differs.
func content(id string, number uint32, most int) []byte {
	r := rand.NewChaCha8(sha256.Sum256(fmt.Appendf(nil, "%s %d", id, number)))
	data := make([]byte, 100+int(r.Uint64()%uint64(most)))
	_, _ = r.Read(data)
	return data
}

func contentBlocks(id string, from, n uint32, most int) []store.Block {
	var blocks []store.Block
	for i := from; i < from+n; i++ {
		data := content(id, i, most)
		blocks = append(blocks, store.Block{Session: id, Number: i, Raw: uint32(2 * len(data)), Data: data})
	}
	return blocks
}

// checkRecording checks a recording made of contentBlocks: whole blocks in
// order, as many as are counted, and not fewer than least.
func checkRecording(ctx context.Context, s store.Store, e store.Session, least uint32, most int) error {
	var n uint32
	var stored uint64
	for k, err := range s.Blocks(ctx, e.ID, 0) {
		if err != nil {
			return err
		}
		if k.Number != n || !bytes.Equal(k.Data, content(e.ID, n, most)) {
			return fmt.Errorf("session %s: block %d is not what was written as block %d", e.ID, k.Number, n)
		}
		stored += uint64(len(k.Data))
		n++
	}
	if n < least {
		return fmt.Errorf("session %s (%s): %d blocks of %d that were acknowledged", e.ID, e.State, n, least)
	}
	if e.Blocks != n || e.StoredBytes != stored || e.Bytes != 2*stored {
		return fmt.Errorf("session %s (%s): has %d blocks of %d bytes, its entry says %d of %d (%d raw)",
			e.ID, e.State, n, stored, e.Blocks, e.StoredBytes, e.Bytes)
	}
	return nil
}

// pending counts what isn't acknowledged yet.
type pending struct {
	mu  sync.Mutex
	err error
	wg  sync.WaitGroup
}

func (p *pending) write(s store.Store, b store.Batch, acknowledged func()) error {
	p.wg.Add(1)
	err := s.Write(context.Background(), b, func(err error) {
		defer p.wg.Done()
		if err == nil {
			acknowledged()
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.err == nil {
			p.err = err
		}
	})
	if err != nil {
		p.wg.Done()
	}
	return err
}

func (p *pending) wait() error {
	p.wg.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func openEntry() store.Session {
	now := time.Now()
	return store.Session{ID: store.NewID(now), Identity: "joe", Login: "root", Host: "web01", Kind: store.KindTerminal, Started: now, State: store.Open}
}
