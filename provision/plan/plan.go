// Package plan turns what is known of a host and what is wanted of it into
// steps, and the steps into the files and scripts that carry them out.
//
// It is pure: it connects to nothing, signs nothing and reads no clock. It
// refuses a host whose present configuration it can't keep working, and it
// never takes a name for a certificate from the host.
package plan

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca/profile"
	"github.com/fleetca/fleetca/ca/trust"
	"github.com/fleetca/fleetca/provision/facts"
	"github.com/fleetca/fleetca/provision/sshdconfig"
)

// Names on the host.
const (
	// Folder is our folder beside sshd_config.
	Folder = "fleetca"
	// UserCAName is the TrustedUserCAKeys file in it.
	UserCAName = "user_ca.pub"
	// DropInName is our file in a drop-in folder: text that sorts before what
	// distributions and people put there.
	DropInName = "00-fleetca.conf"
)

// Wanted is what a host shall look like.
type Wanted struct {
	// Names are the principals of its certificates, lower case, the inventory
	// name first.
	Names []string
	// UserCAs are the keys to trust for people.
	UserCAs []ssh.PublicKey
	// HostCA signs the host certificates.
	HostCA ssh.PublicKey
	// TTL is the life of a new certificate.
	TTL time.Duration
	// Reload is a command that takes the place of our own way to reload sshd.
	Reload string
	// Shown is the key, or certificate, that sshd has just shown.
	Shown ssh.PublicKey
	// Identification is the server's SSH identification string.
	Identification string
	// Login is who connects.
	Login string
	// Now is the time.
	Now time.Time
}

// Reason says why a host is refused, for hints.
type Reason string

// The reasons.
const (
	NotOpenSSH   Reason = "not_openssh"
	TooOld       Reason = "too_old"
	NoSSHD       Reason = "no_sshd"
	NoRights     Reason = "no_rights"
	ReadOnly     Reason = "read_only"
	DiskFull     Reason = "disk_full"
	BrokenConfig Reason = "broken_config"
	NoHostKeys   Reason = "no_host_keys"
	OtherCA      Reason = "other_host_certificate"
	CannotKeep   Reason = "cannot_keep"
)

// Refusal is returned by New for a host that can't be provisioned as it is.
type Refusal struct {
	Reason Reason
	Text   string
}

func (r *Refusal) Error() string { return r.Text }

func refuse(reason Reason, format string, args ...any) error {
	return &Refusal{reason, fmt.Sprintf(format, args...)}
}

// Step is one change, the unit of --check, --diff and reports. Before and After
// are what a diff shows: a file's text, or what a certificate says.
type Step struct {
	Name   string
	Path   string
	Detail string
	Before []byte
	After  []byte
}

// Plan is what has to be done on one host.
type Plan struct {
	// Steps is empty when nothing is to do.
	Steps []Step
	// Certificates have to be signed, in this order, before Deliver.
	Certificates []Certificate
	// Names and TTL go into them.
	Names []string
	TTL   time.Duration
	// Notes are worth telling and need no change.
	Notes []string

	dir     string // our folder
	facts   *facts.Facts
	login   string
	userCA  []byte // nil when it stays
	config  *configChange
	hostCAs []string // HostCertificate paths in the end
	reloads bool
	reload  string
}

// minFree is the space a run needs at most, with room to spare.
const minFree = 1 << 20

// New plans one host. The error is a *Refusal when the host can't be
// provisioned as it is.
func New(f *facts.Facts, w Wanted) (*Plan, error) {
	if len(w.Names) == 0 || len(w.UserCAs) == 0 || w.HostCA == nil || w.TTL <= 0 || w.Now.IsZero() {
		return nil, errors.New("planning: Wanted is not complete")
	}
	if err := able(f, w); err != nil {
		return nil, err
	}
	p := &Plan{
		Names: w.Names, TTL: w.TTL,
		dir: path.Join(f.Dir, Folder), facts: f, login: w.Login, reload: w.Reload,
	}
	texts, err := f.Texts()
	if err != nil {
		return nil, refuse(CannotKeep, "%v", err)
	}
	source := sshdconfig.Source{Main: f.ConfigFile, Files: texts, Followed: f.Followed}
	resolved, err := sshdconfig.Resolve(source)
	if err != nil {
		return nil, refuse(BrokenConfig, "reading the sshd configuration: %v", err)
	}
	if err := p.planUserCAs(w, resolved); err != nil {
		return nil, err
	}
	if err := p.planCertificates(w); err != nil {
		return nil, err
	}
	if err := p.planConfig(resolved); err != nil {
		return nil, err
	}
	p.planReload(w)
	if len(p.Steps) > 0 && f.FreeBytes >= 0 && f.FreeBytes < minFree {
		return nil, refuse(DiskFull, "%s has %d KiB left: at least %d are needed to change anything safely", f.Dir, f.FreeBytes>>10, minFree>>10)
	}
	return p, nil
}

// Able tells, before anything is asked of the host, whether what it says of
// itself can be provisioned at all.
func Able(identification string) error {
	major, minor, openssh := facts.SSHVersion(identification)
	if !openssh {
		return refuse(NotOpenSSH, "the server is not OpenSSH: it says %q", identification)
	}
	if major < 7 || major == 7 && minor < 4 {
		return refuse(TooOld, "OpenSSH %d.%d is too old: 7.4 or later is needed", major, minor)
	}
	return nil
}

func able(f *facts.Facts, w Wanted) error {
	if err := Able(w.Identification); err != nil {
		return err
	}
	switch main := f.Files[f.ConfigFile]; {
	case f.SSHD == "":
		return refuse(NoSSHD, "no sshd program was found on the host")
	case !main.Exists:
		return refuse(BrokenConfig, "there is no %s", f.ConfigFile)
	case main.Truncated:
		return refuse(CannotKeep, "%s is longer than %d KiB", f.ConfigFile, facts.MaxContent>>10)
	case !f.Writable && f.UID == 0:
		return refuse(ReadOnly, "%s can't be written to: the file system is read-only", f.Dir)
	case !f.Writable:
		return refuse(NoRights, "login %q may not write to %s", w.Login, f.Dir)
	case !main.Read:
		return refuse(NoRights, "login %q may not read %s", w.Login, f.ConfigFile)
	case f.Effective == nil:
		return refuse(BrokenConfig, "sshd refuses its present configuration: %s", f.EffectiveProblem)
	}
	return nil
}

func (p *Plan) note(format string, args ...any) {
	p.Notes = append(p.Notes, fmt.Sprintf(format, args...))
}

// stale tells whether one of our files has to be written: it isn't there, says
// something else, or others could change it.
func (p *Plan) stale(name string, want []byte) bool {
	file := p.facts.Files[name]
	return !file.Exists || !file.Read || file.Truncated || string(file.Content) != string(want) || p.unsafe(name)
}

func (p *Plan) unsafe(name string) bool {
	file := p.facts.Files[name]
	return file.Link != "" || !file.Regular || file.UID != p.facts.UID || file.Mode&0o022 != 0
}

func (p *Plan) planUserCAs(w Wanted, resolved *sshdconfig.Config) error {
	f := p.facts
	ours := path.Join(p.dir, UserCAName)
	var present []ssh.PublicKey
	from := f.Effective.First("trustedusercakeys")
	switch file := f.Files[from]; {
	case from == "":
	case !file.Exists:
		p.note("TrustedUserCAKeys %s does not exist: no user CA was trusted", from)
	case !file.Read:
		return refuse(CannotKeep, "TrustedUserCAKeys %s can't be read, so its keys can't be kept", from)
	case file.Truncated:
		return refuse(CannotKeep, "TrustedUserCAKeys %s is longer than %d KiB, so its keys can't be kept", from, facts.MaxContent>>10)
	default:
		keys, broken := trustedKeys(file.Content)
		if broken > 0 {
			p.note("%s:%d is not a public key: sshd passes over it and every line after it, and so does fleetca", from, broken)
		}
		present = keys
		if from != ours && len(keys) > 0 {
			p.note("the %d user CA keys of %s stay trusted", len(keys), from)
		}
	}
	for _, s := range resolved.InMatch("trustedusercakeys") {
		p.note("%s:%d sets TrustedUserCAKeys within a Match block: it stays in force there", s.File, s.Line)
	}
	want := userCAFile(w.UserCAs, present)
	if p.stale(ours, want) {
		p.userCA = want
		p.Steps = append(p.Steps, Step{Name: "write user CA keys", Path: ours, Before: f.Files[ours].Content, After: want})
	}
	return nil
}

func (p *Plan) planCertificates(w Wanted) error {
	f := p.facts
	used := map[string]bool{}
	for _, hk := range f.HostKeys {
		if hk.PublicKey == nil {
			p.note("host key %s gets no certificate: %s", hk.Path, hk.Problem)
			continue
		}
		if _, err := profile.CheckKey(hk.PublicKey); err != nil {
			p.note("host key %s gets no certificate: %v", hk.Path, err)
			continue
		}
		if err := p.otherCertificate(hk); err != nil {
			return err
		}
		name := strings.TrimSuffix(path.Base(hk.Path), ".pub") + "-cert.pub"
		if reserved(name) || used[name] {
			return refuse(CannotKeep, "host key %s: a certificate file %s is already taken", hk.Path, name)
		}
		used[name] = true
		p.planCertificate(w, hk, name)
	}
	if len(p.hostCAs) == 0 {
		return refuse(NoHostKeys, "sshd has no host key that can be certified")
	}
	return nil
}

func (p *Plan) planCertificate(w Wanted, hk facts.HostKey, name string) {
	file := path.Join(p.dir, name)
	p.hostCAs = append(p.hostCAs, file)
	var cert *ssh.Certificate
	if present := p.facts.Files[file]; present.Read {
		if key, _, _, _, err := ssh.ParseAuthorizedKey(present.Content); err == nil {
			cert, _ = key.(*ssh.Certificate)
		}
	}
	why := whyCertificate(cert, hk.PublicKey, w.HostCA, w.Names, w.Now)
	if why == "" && p.unsafe(file) {
		why = "others could change the file"
	}
	if why == "" {
		return
	}
	p.Certificates = append(p.Certificates, Certificate{Key: hk.PublicKey, Name: name, Reason: why})
	p.Steps = append(p.Steps, Step{
		Name:   "install host certificate for " + path.Base(hk.Path),
		Path:   file,
		Detail: why,
		Before: describe(cert),
		After:  describeWanted(hk.PublicKey, w),
	})
}

// otherCertificate refuses a host whose sshd already shows a certificate that
// isn't ours for the key: it can show only one, the last in its configuration,
// and clients may depend on it.
func (p *Plan) otherCertificate(hk facts.HostKey) error {
	for _, hc := range p.facts.HostCertificates {
		if path.Dir(hc.Path) == p.dir || hc.Certificate == nil || !trust.Same(hc.Certificate.Key, hk.PublicKey) {
			continue
		}
		return refuse(OtherCA, "sshd already shows %s for host key %s, and can show only one certificate for a key", hc.Path, hk.Path)
	}
	return nil
}

// planReload asks for a reload when sshd has to read something that changed,
// and also when the files are right but the running sshd doesn't show them: an
// earlier run, or a person, left it at that.
func (p *Plan) planReload(w Wanted) {
	shown, _ := w.Shown.(*ssh.Certificate)
	why := ""
	switch {
	case p.config != nil || len(p.Certificates) > 0:
		why = "to read the new settings"
	case shown == nil || !p.onDisk(shown):
		why = "the running sshd doesn't show its certificate"
	default:
		return
	}
	p.reloads = true
	p.Steps = append(p.Steps, Step{Name: "reload sshd", Detail: why})
}

// onDisk tells whether the certificate that sshd shows is one of the files.
func (p *Plan) onDisk(shown *ssh.Certificate) bool {
	return slices.ContainsFunc(p.hostCAs, func(name string) bool {
		key, _, _, _, err := ssh.ParseAuthorizedKey(p.facts.Files[name].Content)
		return err == nil && trust.Same(key, shown)
	})
}
