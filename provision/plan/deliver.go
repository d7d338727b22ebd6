package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca/trust"
	"github.com/fleetca/fleetca/provision/facts"
	"github.com/fleetca/fleetca/templates"
)

// File is one file to upload into the staging folder.
type File struct {
	Name    string
	Content []byte
}

// reserved tells whether a staged file of that name would be taken for another.
func reserved(name string) bool { return name == templates.StagedConfig || name == UserCAName }

// Run is one run on one host.
type Run struct {
	// ID names the run in the lock, the rollback and the backup: letters,
	// digits and dashes, sortable by time.
	ID string
	// Nonce marks the scripts' answers among whatever else a login prints.
	Nonce string
	// RollbackAfter is how long the host waits for its confirmation.
	RollbackAfter time.Duration
}

// hold is how long beyond the rollback's delay the lock of a run that died is
// respected: longer than any commit takes.
const hold = 2 * time.Minute

// Delivery is a plan made ready to be carried out.
type Delivery struct {
	plan   *Plan
	run    Run
	commit templates.Commit
	certs  []*ssh.Certificate
	files  []File
}

// Deliver makes the plan ready. certs are the signed Certificates, in order.
func (p *Plan) Deliver(run Run, certs []*ssh.Certificate) (*Delivery, error) {
	if len(certs) != len(p.Certificates) {
		return nil, fmt.Errorf("delivering the plan: %d certificates for %d keys", len(certs), len(p.Certificates))
	}
	d := &Delivery{plan: p, run: run, certs: certs}
	reload := p.reloadWith(run)
	d.commit = templates.Commit{
		Run: run.ID, Nonce: run.Nonce, Dir: p.dir,
		SSHD: p.facts.SSHD, ConfigFile: p.facts.ConfigFile, Spec: spec(p.facts.Peer, p.login),
		HoldMinutes: int((run.RollbackAfter + hold + time.Minute - 1) / time.Minute),
		Reloads:     p.reloads, Reload: reload,
	}
	for i, cert := range certs {
		d.put(p.Certificates[i].Name, ssh.MarshalAuthorizedKey(cert))
	}
	if p.userCA != nil {
		d.put(UserCAName, p.userCA)
	}
	if p.config != nil {
		d.putConfig()
	}
	rollback, err := templates.Rollback{
		Run: run.ID, Dir: p.dir, RollbackSeconds: int(run.RollbackAfter / time.Second),
		Config: d.commit.Config, Replaced: d.commit.Replaced, CreatedFiles: d.created(),
		Reloads: p.reloads, Reload: reload,
	}.Render()
	if err != nil {
		return nil, fmt.Errorf("writing the rollback: %w", err)
	}
	d.commit.Rollback = rollback
	return d, nil
}

// put replaces or makes one file of our folder.
func (d *Delivery) put(name string, content []byte) {
	d.stage(name, content)
	d.commit.Files = append(d.commit.Files, name)
	target := path.Join(d.plan.dir, name)
	if d.was(target) {
		d.commit.Replaced = append(d.commit.Replaced, name)
	}
}

func (d *Delivery) putConfig() {
	c := d.plan.config
	d.stage(templates.StagedConfig, c.text)
	d.commit.Candidate, d.commit.Expected = string(c.candidate), d.plan.expected()
	folder := path.Dir(c.path)
	there := d.plan.facts.Files[folder].Exists
	d.commit.Config = &templates.ConfigFile{
		Path: c.path, Folder: folder, Exists: c.exists,
		// Of other folders nobody has told whether they exist.
		MakeFolder: !there && folder == path.Join(d.plan.facts.Dir, "sshd_config.d"),
		SHA256:     digest("", c.text).SHA256,
		WasSHA256:  digest("", d.plan.facts.Files[c.path].Content).SHA256,
	}
	d.was(c.path)
}

// was records how a file that is about to change looked when the plan was
// made, and reports whether it existed.
func (d *Delivery) was(target string) bool {
	file := d.plan.facts.Files[target]
	if file.Read && !file.Truncated {
		d.commit.Previous = append(d.commit.Previous, digest(target, file.Content))
	}
	if !file.Exists {
		d.commit.Created = append(d.commit.Created, target)
	}
	return file.Exists
}

func (d *Delivery) created() []string {
	var out []string
	for _, name := range d.commit.Files {
		if !slices.Contains(d.commit.Replaced, name) {
			out = append(out, name)
		}
	}
	return out
}

func (d *Delivery) stage(name string, content []byte) {
	d.files = append(d.files, File{name, content})
	d.commit.Uploaded = append(d.commit.Uploaded, digest(name, content))
}

func digest(name string, content []byte) templates.Digest {
	sum := sha256.Sum256(content)
	return templates.Digest{SHA256: hex.EncodeToString(sum[:]), Path: name}
}

// Files are to be uploaded into one folder; there may be none.
func (d *Delivery) Files() []File { return d.files }

// Commit is the script that checks and swaps in what is in the staging folder.
func (d *Delivery) Commit(stage string) (string, error) {
	d.commit.Stage = stage
	return d.commit.Render()
}

// Confirm is the script that makes the change stay. Commit comes before it.
func (d *Delivery) Confirm() (string, error) {
	c := templates.Confirm{Run: d.run.ID, Nonce: d.run.Nonce, Dir: d.plan.dir, Stage: d.commit.Stage}
	c.Keep = d.commit.Keeps()
	if d.commit.Config != nil && d.commit.Config.Exists {
		c.ConfigName = path.Base(d.commit.Config.Path)
	}
	return c.Render()
}

// Undo is the script that rolls back at once.
func (d *Delivery) Undo() (string, error) {
	u := templates.Undo{Run: d.run.ID, Nonce: d.run.Nonce, Dir: d.plan.dir}
	for _, f := range d.commit.Uploaded {
		if f.Path == templates.StagedConfig {
			f.Path = d.commit.Config.Path
		} else {
			f.Path = path.Join(d.plan.dir, f.Path)
		}
		u.Installed = append(u.Installed, f)
	}
	return u.Render()
}

// Recover is the script that cleans up after a run that died.
func Recover(sshdDir, nonce string) (string, error) {
	return templates.Recover{Nonce: nonce, Dir: path.Join(sshdDir, Folder)}.Render()
}

// reloadWith chooses how sshd is reloaded: as the inventory says, by a hang-up
// of the listener, or through whatever starts services here. sshd that is
// started for each connection needs nothing.
func (p *Plan) reloadWith(run Run) templates.Reload {
	r := p.facts.Reload
	out := templates.Reload{Run: run.ID, Command: p.reload, SSHD: p.facts.SSHD, ConfigFile: p.facts.ConfigFile}
	if r.PID > 0 {
		out.PID = r.PID
	}
	// A pid file that didn't lead to the listener is not waited for.
	if r.Found == "pidfile" {
		out.PIDFile = p.facts.Effective.First("pidfile")
	}
	if r.Systemd {
		out.Unit = r.Unit
		for _, unit := range []string{"ssh.service", "sshd.service"} {
			if out.Unit == "" && slices.Contains(r.Units, unit) && len(r.Enabled) == 0 {
				out.Unit = unit
			}
		}
	}
	if len(r.InitScripts) > 0 && !r.Systemd {
		out.Script = r.InitScripts[0]
	}
	return out
}

// Nonce marks the answers of the delivery's scripts.
func (d *Delivery) Nonce() string { return d.run.Nonce }

// Shows tells whether key is a certificate that sshd shows once the plan is in
// force.
func (d *Delivery) Shows(key ssh.PublicKey) bool {
	for _, cert := range d.certs {
		if trust.Same(cert, key) {
			return true
		}
	}
	// A certificate that the plan left alone.
	shown, ok := key.(*ssh.Certificate)
	return ok && d.plan.onDisk(shown) && !d.plan.replaces(shown.Key)
}

// replaces tells whether the plan brings a new certificate for the host key.
func (p *Plan) replaces(key ssh.PublicKey) bool {
	return slices.ContainsFunc(p.Certificates, func(c Certificate) bool { return trust.Same(c.Key, key) })
}

// spec is what the probe asked sshd about with -C: the same question has to be
// asked of the candidate.
func spec(peer facts.Peer, login string) string {
	client, server, port := peer.ClientAddress, peer.ServerAddress, peer.ServerPort
	if client == "" {
		client, server, port = "127.0.0.1", "127.0.0.1", 22
	}
	return fmt.Sprintf("user=%s,host=%s,addr=%s,laddr=%s,lport=%d", login, client, client, server, port)
}
