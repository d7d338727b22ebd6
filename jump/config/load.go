package config

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/fleetca/fleetca/ca/krl"
	"github.com/fleetca/fleetca/inventory"
	"github.com/fleetca/fleetca/inventory/ansible"
)

// Loader reads jump.yaml. Its zero value is ready for use.
type Loader struct {
	// Now is the clock, for the validity of the jump host's certificate;
	// time.Now if nil.
	Now func() time.Time

	// inventory stands in for ansible.Load, which runs programs.
	inventory func(ctx context.Context, sources ...string) (*inventory.Inventory, error)
}

// Load reads the jump.yaml at path with the zero Loader.
func Load(ctx context.Context, path string) (*Config, []string, error) {
	return Loader{}.Load(ctx, path)
}

// reading is one Load.
type reading struct {
	*document
	cfg *Config
	dir string // where relative paths begin
	now time.Time
	// load reads inventories.
	load func(ctx context.Context, sources ...string) (*inventory.Inventory, error)
	// top are the values of the document by their keys.
	top map[string]value
}

// topKeys are the keys of jump.yaml, in the order of its reference.
var topKeys = []string{
	"name", "cluster", "listen", "admin_socket",
	"host_key", "host_certificate", "jump_ca", "user_cas", "host_cas", "revoked_keys",
	"inventory", "require_host_certificate", "hosts", "known_hosts", "roles",
	"dial_timeout", "login_timeout", "drain_timeout", "keep_alive",
	"store", "audit_dir", "max_stream", "accept_env", "limits",
}

// Load reads the jump.yaml at path and everything that it names. The strings
// are warnings, a line each. Mistakes come all at once as Errors; any other
// error is ctx's. Warnings and errors hold untrusted text.
func (l Loader) Load(ctx context.Context, path string) (*Config, []string, error) {
	if l.Now == nil {
		l.Now = time.Now
	}
	if l.inventory == nil {
		l.inventory = ansible.Load
	}
	d := &document{file: path}
	full, err := filepath.Abs(path)
	if err != nil {
		d.fail(0, "", err)
		return nil, nil, d.problems
	}
	r := &reading{document: d, cfg: &Config{Path: full}, dir: filepath.Dir(full), now: l.Now(), load: l.inventory}
	data, err := r.readFile(full, 1<<20)
	if err != nil {
		d.fail(0, "", err)
		return nil, nil, d.problems
	}
	if top := d.parse(data); top.given() {
		r.top = top.section(topKeys...)
		if kindName(top.target()) == "a mapping" {
			r.read(ctx)
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	if len(d.problems) > 0 {
		d.problems.sort()
		return nil, d.warnings, d.problems
	}
	return r.cfg, d.warnings, nil
}

func (r *reading) read(ctx context.Context) {
	r.identity()
	r.timeouts()
	r.storage()
	r.limits()
	r.revoked()
	r.keys()
	r.inventory(ctx)
	r.hosts()
	r.roles()
	slices.Sort(r.cfg.files)
	r.cfg.files = slices.Compact(r.cfg.files)
}

// missing tells of a key that has to be there.
func (r *reading) missing(key, what string) {
	r.fail(0, key, fmt.Errorf("is missing: %s", what))
}

// readFile reads a file whose content decides who gets in, so nobody but its
// owner and root may have written it.
func (r *reading) readFile(path string, most int64) ([]byte, error) {
	r.cfg.files = append(r.cfg.files, path)
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO must not hang us
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch mode := info.Mode(); {
	case !mode.IsRegular():
		return nil, fmt.Errorf("%q is not a plain file", path)
	case mode&0o002 != 0:
		return nil, fmt.Errorf("%q has mode %#o: everybody may change it", path, mode.Perm())
	}
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%q is larger than %s", path, formatSize(uint64(most)))
	}
	return data, nil
}

// revoked reads the list of revoked keys. One that is named and can't be read
// is a mistake, as it is for sshd: it must not come to nothing being revoked.
func (r *reading) revoked() {
	v := r.top["revoked_keys"]
	path, ok := r.path(v)
	if !ok {
		return
	}
	data, err := r.readFile(path, krl.MaxSize)
	if err != nil {
		v.fail("%w", err)
		return
	}
	list, err := krl.Parse(data)
	if err != nil {
		v.fail("%q: %w", path, err)
		return
	}
	r.cfg.Revoked = list
}

// errEncrypted stands in for a passphrase.
var errEncrypted = errors.New("it is encrypted with a passphrase, which nobody types when a jump host starts")

// always is what RequireHostCertificate is if nothing is said.
func always(*inventory.Host) bool { return true }
