package transfer

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/fleetca/fleetca/testenv"
	"github.com/fleetca/fleetca/testenv/fleettest"
)

// This test program is also what scp and sftp are given as their ssh (option
// -S): it runs the real ssh and writes down what passes in both directions.
const (
	tapLog  = "TRANSFER_TEST_LOG"  // file to append to
	tapArgs = "TRANSFER_TEST_ARGS" // arguments of ssh up to the host, as JSON
)

func TestMain(m *testing.M) {
	if log := os.Getenv(tapLog); log != "" {
		os.Exit(tap(log))
	}
	os.Exit(m.Run())
}

func tap(log string) int {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	var mu sync.Mutex
	write := func(kind byte, data []byte) {
		mu.Lock()
		defer mu.Unlock()
		frame := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(data)))
		if _, err := out.Write(append(frame, data...)); err != nil {
			panic(err)
		}
	}
	var args []string
	if err := json.Unmarshal([]byte(os.Getenv(tapArgs)), &args); err != nil {
		panic(err)
	}
	command := os.Args[len(os.Args)-1]
	if slices.Contains(os.Args, "-s") {
		args = append([]string{"-s"}, args...)
		write('s', []byte(command))
	} else {
		write('x', []byte(command))
	}
	cmd := exec.Command("ssh", append(args, command)...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, tapLog) })
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		panic(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		panic(err)
	}
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	copying := func(kind byte, to io.WriteCloser, from io.Reader) {
		defer to.Close()
		buffer := make([]byte, 32<<10)
		for {
			n, err := from.Read(buffer)
			if n > 0 {
				// Before it is passed on: an answer never comes before its question.
				write(kind, buffer[:n])
				if _, err := to.Write(buffer[:n]); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}
	go copying('c', stdin, os.Stdin) // ends with this process
	copying('h', os.Stdout, stdout)
	if err := cmd.Wait(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return exit.ExitCode()
		}
		panic(err)
	}
	return 0
}

// frame is what passed in one direction at once.
type frame struct {
	kind byte
	data []byte
}

// stage is a real sshd, and a folder for each side.
type stage struct {
	host        *testenv.Host
	args        string
	local, home string
}

func newStage(t *testing.T) *stage {
	t.Helper()
	fleet := fleettest.Start(t, testenv.Config{Host: testenv.HostConfig{KeyTypes: []string{testenv.Ed25519}}})
	s := &stage{host: fleet.Hosts()[0]}
	cmd, err := s.host.SSH(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	args, err := json.Marshal(cmd.Args[1:])
	if err != nil {
		t.Fatal(err)
	}
	s.args = string(args)
	return s
}

// fresh empties both folders.
func (s *stage) fresh(t *testing.T) {
	t.Helper()
	s.local, s.home = t.TempDir(), t.TempDir()
}

// run runs scp or sftp in the local folder and returns what passed, a list of
// frames for each ssh that it started.
func (s *stage) run(t *testing.T, fails bool, name string, args ...string) [][]frame {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), name, append([]string{"-F", "none", "-S", self}, args...)...)
	cmd.Dir = s.local
	cmd.Env = append(os.Environ(), tapLog+"="+log, tapArgs+"="+s.args)
	out, err := cmd.CombinedOutput()
	if (err != nil) != fails {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var runs [][]frame
	for len(data) > 0 {
		n := binary.BigEndian.Uint32(data[1:])
		f := frame{data[0], data[5 : 5+n]}
		data = data[5+n:]
		if f.kind == 's' || f.kind == 'x' {
			runs = append(runs, nil)
		}
		runs[len(runs)-1] = append(runs[len(runs)-1], f)
	}
	return runs
}
