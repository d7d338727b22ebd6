//go:build linux

// Command bench provisions a fleet of real sshd hosts on loopback with fleetca,
// with Ansible, and with nothing but the connections and host-side commands that
// the safety of fleetca's design needs (the floor), in turn, and prints the
// ratios. With -jump it runs sessions through fleetjump, through a real sshd and
// directly (jump.go). It is no test: it fails only when something can't be run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/fleetca/fleetca/testenv"
)

type options struct {
	fleetca string
	hosts   int
	rounds  int
	ansible int
	forks   int
	size    int
}

func main() {
	var o options
	jump := flag.Bool("jump", false, "measure fleetjump, and not provisioning")
	flag.IntVar(&o.size, "size", 256, "MiB of a download, with -jump")
	floorOf := flag.String("floor", "", "internal: run the floor for the hosts in this file")
	flag.IntVar(&o.hosts, "hosts", 100, "size of the fleet")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds of fleetca and the floor; of downloads, with -jump")
	flag.IntVar(&o.ansible, "ansible-rounds", 1, "rounds of Ansible, which takes minutes")
	flag.IntVar(&o.forks, "forks", 0, "hosts at once for fleetca and the floor (default: fleetca's own)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case *floorOf != "":
		err = runFloor(ctx, *floorOf, o.forks)
	case flag.NArg() != 1:
		err = errors.New("usage: bench [flags] PATH_OF_FLEETCA")
	default:
		if o.fleetca, err = filepath.Abs(flag.Arg(0)); err != nil {
			break
		}
		if *jump {
			err = runJump(ctx, o)
		} else {
			err = run(ctx, o)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// cost is what one run took: time, and the CPU of the client side alone.
type cost struct{ wall, cpu time.Duration }

type bench struct {
	options
	fleet *testenv.Fleet
	dir   string
	costs map[string][]cost
}

func run(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "fleetca-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Fprintf(os.Stderr, "starting %d sshd hosts\n", o.hosts)
	config := testenv.Config{Names: []string{fmt.Sprintf("host[001:%03d]", o.hosts)}}
	// A hundred hosts that make and remove files on one disk are in each other's
	// way as real ones are not: ext4 passes over inodes that were freed lately.
	const memory = "/dev/shm"
	if info, err := os.Stat(memory); err == nil && info.IsDir() {
		config.Parent = memory
	}
	fleet, err := testenv.Start(ctx, config)
	if err != nil {
		return err
	}
	defer fleet.Close()
	b := &bench{options: o, fleet: fleet, dir: dir, costs: map[string][]cost{}}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	for round := range max(o.rounds, o.ansible) {
		if round < o.rounds {
			if err := b.round(ctx, "fleetca", b.fleetcaCommand); err != nil {
				return err
			}
			if err := b.round(ctx, "floor", b.floorCommand); err != nil {
				return err
			}
		}
		if round < o.ansible {
			if err := b.round(ctx, "ansible", b.ansibleCommand); err != nil {
				return err
			}
		}
	}
	b.print()
	return nil
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

// prepare makes a CA and what Ansible needs to do the same work.
func (b *bench) prepare(ctx context.Context) error {
	if err := b.fleet.Inventory(b.path("hosts.yaml"), testenv.InventoryConfig{
		HostVars: func(h *testenv.Host) map[string]any {
			return map[string]any{"bench_dir": filepath.Dir(h.ConfigPath()), "bench_pid": h.PIDFile()}
		},
	}); err != nil {
		return err
	}
	if err := b.fleet.KnownHosts(b.path("known_hosts")); err != nil {
		return err
	}
	if err := os.WriteFile(b.path("ssh_config"), fmt.Appendf(nil, "UserKnownHostsFile %s\nStrictHostKeyChecking yes\n", b.path("known_hosts")), 0o600); err != nil {
		return err
	}
	init := exec.CommandContext(ctx, b.fleetca, "init", "--ca-dir", b.path("ca"), "--no-passphrase")
	if out, err := init.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", init, err, out)
	}
	return errors.Join(b.writeFloor(), b.writePlaybook())
}

// round resets the fleet, then runs the way twice: for the work, and with
// nothing left to do.
func (b *bench) round(ctx context.Context, way string, command func(context.Context) *exec.Cmd) error {
	if err := b.reset(ctx); err != nil {
		return err
	}
	if way == "floor" {
		if err := b.layOut(); err != nil {
			return err
		}
	}
	for _, run := range []string{"first run", "second run"} {
		if way == "floor" && run == "second run" {
			continue
		}
		c, err := measure(command(ctx))
		if err != nil {
			return fmt.Errorf("%s, %s: %w", way, run, err)
		}
		key := way + ", " + run
		b.costs[key] = append(b.costs[key], c)
		fmt.Fprintf(os.Stderr, "%-22s %8.1f ms/host wall %8.1f ms/host CPU\n", key, b.perHost(c.wall), b.perHost(c.cpu))
	}
	return nil
}

func (b *bench) perHost(d time.Duration) float64 {
	return float64(d.Microseconds()) / 1000 / float64(b.hosts)
}

// measure runs a command to its end. Its CPU includes that of its children that
// it has waited for, and none of the fleet's.
func measure(cmd *exec.Cmd) (cost, error) {
	begun := time.Now()
	out, err := cmd.CombinedOutput()
	wall := time.Since(begun)
	if err != nil {
		return cost{}, fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return cost{wall, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}, nil
}

// reset puts the hosts back as they were made.
func (b *bench) reset(ctx context.Context) error {
	for _, h := range b.fleet.Hosts() {
		dir := filepath.Dir(h.ConfigPath())
		err := errors.Join(
			os.RemoveAll(filepath.Join(dir, "fleetca")),
			os.RemoveAll(filepath.Join(dir, "sshd_config.d", "00-fleetca.conf")),
		)
		if err == nil {
			err = h.Reload(ctx)
		}
		if err != nil {
			return fmt.Errorf("resetting %s: %w", h.Name(), err)
		}
	}
	return nil
}

func (b *bench) fleetcaCommand(ctx context.Context) *exec.Cmd {
	args := []string{
		"provision", "--inventory", b.path("hosts.yaml"), "--ca-dir", b.path("ca"),
		"--ssh-config", b.path("ssh_config"), "--json",
	}
	if b.forks > 0 {
		args = append(args, "--forks", fmt.Sprint(b.forks))
	}
	return exec.CommandContext(ctx, b.fleetca, args...)
}

func (b *bench) floorCommand(ctx context.Context) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	return exec.CommandContext(ctx, self, "-floor", b.path("floor.json"), "-forks", fmt.Sprint(b.forks))
}

func (b *bench) ansibleCommand(ctx context.Context) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "ansible-playbook", "-i", b.path("hosts.yaml"), b.path("playbook.yaml"))
	cmd.Env = append(os.Environ(), "ANSIBLE_CONFIG="+b.path("ansible.cfg"))
	return cmd
}

// median of the wall times, or of the CPU times.
func median(costs []cost, of func(cost) time.Duration) time.Duration {
	var all []time.Duration
	for _, c := range costs {
		all = append(all, of(c))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

func wall(c cost) time.Duration { return c.wall }
func cpu(c cost) time.Duration  { return c.cpu }

func (b *bench) print() {
	fmt.Printf("\n| %d hosts, one machine for fleet and client | runs | wall ms a host | client CPU ms a host |\n| --- | --- | --- | --- |\n", b.hosts)
	for _, key := range []string{"floor, first run", "fleetca, first run", "fleetca, second run", "ansible, first run", "ansible, second run"} {
		if costs := b.costs[key]; len(costs) > 0 {
			fmt.Printf("| %s | %d | %.1f | %.1f |\n", key, len(costs), b.perHost(median(costs, wall)), b.perHost(median(costs, cpu)))
		}
	}
	fmt.Printf("\n| ratio of wall times | is | aim |\n| --- | --- | --- |\n")
	b.ratio("fleetca, first run", "floor, first run", "at most 1.5")
	b.ratio("fleetca, first run", "ansible, first run", "at most 0.05")
	b.ratio("fleetca, second run", "ansible, second run", "at most 0.05")
}

func (b *bench) ratio(a, of, aim string) {
	if len(b.costs[a]) == 0 || len(b.costs[of]) == 0 {
		return
	}
	r := float64(median(b.costs[a], wall)) / float64(median(b.costs[of], wall))
	fmt.Printf("| %s / %s | %.3f | %s |\n", a, of, r, aim)
}
