//go:build linux

package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fleetca/fleetca/testenv"
	"github.com/fleetca/fleetca/testenv/background"
)

// way is one way to the host, as arguments for ssh.
type way struct {
	name string
	args []string
}

// what is measured of each way.
const (
	connecting  = "connect to first output"
	downloading = "download"
	drawing     = "terminal"
)

// jumpBench measures sessions through fleetjump, beside plain ssh and ssh -J
// through a real sshd.
type jumpBench struct {
	options
	dir     string
	fleet   *testenv.Fleet
	env     []string
	ways    []way
	took    map[string]map[string][]time.Duration // measure, way
	started int                                   // sessions through fleetjump
}

// terminalMiB is how much is drawn on a terminal, which is slow by itself.
const terminalMiB = 32

func runJump(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "fleetca-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	host := testenv.HostConfig{KeyTypes: []string{testenv.Ed25519}}
	fleet, err := testenv.Start(ctx, testenv.Config{Names: []string{"host", "bastion"}, Host: host})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fleet.Close()) }()
	b := &jumpBench{options: o, dir: dir, fleet: fleet, took: map[string]map[string][]time.Duration{}}
	b.env = append(os.Environ(), "PATH="+filepath.Dir(o.fleetca)+":"+os.Getenv("PATH"), "FLEETCA_DIR="+b.path("ca"),
		"SSH_AUTH_SOCK="+b.path("agent"), "FLEETJUMP_CONFIG="+b.path("jump/jump.yaml"), "TERM=xterm")
	stop, err := b.prepare(ctx)
	defer func() { err = errors.Join(err, stop()) }()
	if err != nil {
		return err
	}
	if err := b.measure(ctx); err != nil {
		return err
	}
	if err := b.check(ctx); err != nil {
		return err
	}
	b.print()
	return nil
}

func (b *jumpBench) path(name string) string { return filepath.Join(b.dir, name) }

// sh runs a command of the preparations.
func (b *jumpBench) sh(ctx context.Context, line string) (string, error) {
	cmd := b.command(ctx, "sh", "-c", line)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", line, err, out)
	}
	return string(out), nil
}

func (b *jumpBench) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = b.dir, b.env
	return cmd
}

// prepare makes certificates, a jump host with a store on disk, and what is
// downloaded. It returns what ends the programs that it has started.
func (b *jumpBench) prepare(ctx context.Context) (stop func() error, err error) {
	var agent, server *background.Program
	stop = func() error {
		if agent != nil {
			_ = agent.Stop() // one that is told to end says so by its exit status
		}
		if server != nil {
			return server.Stop()
		}
		return nil
	}
	if err := errors.Join(b.fleet.Inventory(b.path("hosts.yaml"), testenv.InventoryConfig{}), b.fleet.KnownHosts(b.path("known_hosts"))); err != nil {
		return stop, err
	}
	login := b.fleet.Hosts()[0].Login()
	if agent, err = background.Start("ssh-agent -D -a agent >/dev/null", b.dir, b.env, os.Stderr); err != nil {
		return stop, err
	}
	address, err := freeAddress()
	if err != nil {
		return stop, err
	}
	if err := b.writeConfigs(address); err != nil {
		return stop, err
	}
	for _, line := range []string{
		"fleetca init --no-passphrase",
		"printf 'UserKnownHostsFile known_hosts\\nStrictHostKeyChecking yes\\n' >provisioner",
		"fleetca provision --inventory hosts.yaml --ssh-config provisioner",
		"fleetca export --host-ca --domain '*' >ca_only && fleetca export --jump-ca --domain '*' >>ca_only",
		"until [ -S agent ]; do sleep 0.01; done; fleetca sign --user bench --principals " + login + " --agent",
		"fleetca jump init --inventory hosts.yaml --name jump --listen " + address + " --admin bench --out jump",
	} {
		if _, err := b.sh(ctx, line); err != nil {
			return stop, err
		}
	}
	if server, err = background.Start("fleetjump serve --config jump/jump.yaml 2>jump.log", b.dir, b.env, os.Stderr); err != nil {
		return stop, err
	}
	listens := func() bool {
		log, err := os.ReadFile(b.path("jump.log"))
		return err == nil && strings.Contains(string(log), "listening")
	}
	if err := server.Ready(ctx, "it listens", listens); err != nil {
		return stop, err
	}
	b.ways = ways(login)
	return stop, b.writeContent(b.fleet.Hosts()[0].Home())
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// writeConfigs writes two of ssh's configurations: one with its defaults, and
// one that pins what the client otherwise chooses by whom it talks to.
func (b *jumpBench) writeConfigs(address string) error {
	var hosts strings.Builder
	entry := func(name, address string) {
		host, port, _ := net.SplitHostPort(address)
		fmt.Fprintf(&hosts, "Host %s\n\tHostName %s\n\tPort %s\n\tHostKeyAlias %s\n", name, host, port, name)
	}
	for _, h := range b.fleet.Hosts() {
		entry(h.Name(), h.Addr())
	}
	entry("jump", address)
	// Through the jump host the host has its name and no address.
	target := b.fleet.Hosts()[0]
	_, port, _ := net.SplitHostPort(target.Addr())
	fmt.Fprintf(&hosts, "Host through\n\tHostName %s\n\tPort %s\n", target.Name(), port)
	fmt.Fprintf(&hosts, "Host *\n\tUserKnownHostsFile ca_only\n\tGlobalKnownHostsFile none\n\tStrictHostKeyChecking yes\n\tBatchMode yes\n")
	const pinned = "\tKexAlgorithms curve25519-sha256\n\tCiphers aes128-gcm@openssh.com\n"
	return errors.Join(
		os.WriteFile(b.path("defaults"), []byte(hosts.String()), 0o600),
		os.WriteFile(b.path("pinned"), []byte(hosts.String()+pinned), 0o600),
	)
}

const throughFleetjump = "fleetjump, "

func ways(login string) []way {
	user := "User=" + login
	var all []way
	for _, config := range []string{"defaults", "pinned"} {
		all = append(all,
			way{"ssh, " + config, []string{"-F", config, "-o", user, "host"}},
			way{"ssh -J through sshd, " + config, []string{"-F", config, "-o", user, "-J", login + "@bastion", "host"}},
		)
	}
	return append(
		all,
		way{throughFleetjump + "ProxyCommand", []string{
			"-F", "defaults", "-o", user, "-o", "ProxyCommand=ssh -F defaults -A %r@jump -s proxy:%h:%p", "through",
		}},
		way{throughFleetjump + "-J", []string{"-F", "defaults", "-o", user, "-A", "-J", "jump", "through"}},
		way{throughFleetjump + "login%host", []string{"-F", "defaults", "-A", login + "%host@jump"}},
	)
}

// writeContent puts what is downloaded into the login's home: bytes that can't
// be compressed, and for the terminal the same as lines of text.
func (b *jumpBench) writeContent(home string) error {
	random := rand.NewChaCha8([32]byte{})
	file, err := os.Create(filepath.Join(home, "content"))
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := io.CopyN(file, random, int64(b.size)<<20); err != nil {
		return err
	}
	var text strings.Builder
	line := make([]byte, 57) // 76 characters
	for text.Len() < terminalMiB<<20 {
		_, _ = random.Read(line)
		text.WriteString(base64.StdEncoding.EncodeToString(line) + "\n")
	}
	return errors.Join(file.Sync(), os.WriteFile(filepath.Join(home, "text"), []byte(text.String()), 0o600))
}

// measure goes through all ways in turn, over and over, so that what disturbs
// the machine disturbs all of them.
func (b *jumpBench) measure(ctx context.Context) error {
	rounds := []struct {
		what   string
		rounds int
		args   []string
		remote string
		least  int64 // bytes
	}{
		{connecting, 3 * b.rounds, nil, "echo", 1},
		{downloading, b.rounds, nil, "cat ~/content", int64(b.size) << 20},
		{drawing, b.rounds, []string{"-tt"}, "stty -opost; cat ~/text", terminalMiB << 20},
	}
	for _, r := range rounds {
		b.took[r.what] = map[string][]time.Duration{}
		for round := range r.rounds {
			for i := range b.ways {
				w := b.ways[(i+round)%len(b.ways)]
				took, err := b.session(ctx, append(append(slices.Clone(r.args), w.args...), r.remote), r.least)
				if err != nil {
					return fmt.Errorf("%s by %s: %w", r.what, w.name, err)
				}
				b.took[r.what][w.name] = append(b.took[r.what][w.name], took)
				if strings.HasPrefix(w.name, throughFleetjump) {
					b.started++
				}
			}
			fmt.Fprintf(os.Stderr, "%s: round %d of %d\n", r.what, round+1, r.rounds)
		}
	}
	return nil
}

// session runs ssh until that many bytes have come, and then to its end, which
// doesn't count.
func (b *jumpBench) session(ctx context.Context, args []string, bytes int64) (time.Duration, error) {
	cmd := b.command(ctx, "ssh", args...)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	_, short := io.CopyN(io.Discard, out, bytes)
	took := time.Since(begun)
	_, rest := io.Copy(io.Discard, out)
	if err := errors.Join(short, rest, cmd.Wait()); err != nil {
		return 0, fmt.Errorf("%w\n%s", err, complaints.String())
	}
	return took, nil
}

// check makes sure that what was measured was recorded, and is whole.
func (b *jumpBench) check(ctx context.Context) error {
	out, err := b.sh(ctx, "fleetjump sessions verify --all")
	if err != nil {
		return err
	}
	if want := fmt.Sprintf("%d sealed, 0 interrupted, 0 running, 0 not recorded, 0 damaged", b.started); !strings.Contains(out, want) {
		return fmt.Errorf("fleetjump has recorded %q, not %q", strings.TrimSpace(out), want)
	}
	return nil
}

func (b *jumpBench) print() {
	const beside, besidePinned = "ssh -J through sshd, defaults", "ssh -J through sshd, pinned"
	middle := func(what, way string) time.Duration {
		all := slices.Sorted(slices.Values(b.took[what][way]))
		return all[len(all)/2]
	}
	fmt.Printf("\n| medians of %d, %d and %d rounds | %s, ms | %s of %d MiB, MiB/s | %d MiB on a terminal, MiB/s |\n| --- | --- | --- | --- |\n",
		3*b.rounds, b.rounds, b.rounds, connecting, downloading, b.size, terminalMiB)
	for _, w := range b.ways {
		fmt.Printf("| %s | %.0f | %.0f | %.0f |\n", w.name, middle(connecting, w.name).Seconds()*1000,
			float64(b.size)/middle(downloading, w.name).Seconds(), terminalMiB/middle(drawing, w.name).Seconds())
	}
	fmt.Printf("\n| time, as a ratio to ssh -J with ssh's defaults (pinned) | %s | %s | terminal |\n| --- | --- | --- | --- |\n", connecting, downloading)
	for _, w := range b.ways {
		if !strings.HasPrefix(w.name, throughFleetjump) {
			continue
		}
		fmt.Printf("| %s |", w.name)
		for _, what := range []string{connecting, downloading, drawing} {
			took := float64(middle(what, w.name))
			fmt.Printf(" %.2f (%.2f) |", took/float64(middle(what, beside)), took/float64(middle(what, besidePinned)))
		}
		fmt.Println()
	}
}
