package templates

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// The scripts of one run on one host. All of them know the run by its ID and
// mark their answers with the nonce: "NONCE finished", "NONCE armed", or
// "NONCE error REASON text".

var runShape = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z-]{0,63}$`)

// StagedConfig is the name under which a configuration file is uploaded.
const StagedConfig = "config"

// Digest is a file's SHA-256 in hex.
type Digest struct {
	SHA256 string
	Path   string
}

// ConfigFile is the one configuration file that a run writes.
type ConfigFile struct {
	Path, Folder string
	// Exists tells that there is such a file now, which will be kept.
	Exists bool
	// MakeFolder tells that Folder is missing and has to be made.
	MakeFolder bool
	// SHA256 is of the new text, WasSHA256 of the one that it replaces.
	SHA256, WasSHA256 string
}

// Reload is how sshd is made to read its configuration: by the first of
// Command, PID, Unit and Script that is set. None is needed where every
// connection gets an sshd of its own.
type Reload struct {
	Run string
	// Command is a shell command of the inventory's.
	Command string
	// PID is the listener, hung up by SIGHUP; PIDFile is where it notes that it
	// listens again, if it does.
	PID     int
	PIDFile string
	// Unit and Script are also what starts a listener that has died.
	Unit, Script string
	// SSHD and ConfigFile check the configuration, and start a listener where
	// there is neither Unit nor Script.
	SSHD, ConfigFile string
}

// Commit checks the staged files and the candidate configuration, arms the
// rollback, swaps the files in and reloads sshd.
type Commit struct {
	Run, Nonce string
	// Dir is our folder on the host, Stage where the files were uploaded to, if
	// there are any.
	Dir, Stage string
	SSHD       string
	ConfigFile string
	// Spec is what sshd -T is asked about with -C.
	Spec string
	// HoldMinutes is how long other runs respect the lock.
	HoldMinutes int
	// Uploaded are all staged files, by name.
	Uploaded []Digest
	// Previous are the files that must still be as the plan saw them, Created
	// those that must still be missing.
	Previous []Digest
	Created  []string
	// Files go to Dir; Replaced are those of them that replace another.
	Files, Replaced []string
	// Config is the configuration file that is written, or nil. It is staged as
	// StagedConfig.
	Config *ConfigFile
	// Candidate is a main configuration to check, if there is one to check.
	// Expected is what sshd -T has to print for it, sorted, each line once.
	Candidate string
	Expected  []string
	// Rollback is the script that puts the host back.
	Rollback string
	// Reloads tells that sshd has to be reloaded, with Reload.
	Reloads bool
	Reload  Reload
}

// Keeps tells whether anything is replaced, and so kept.
func (c Commit) Keeps() bool { return len(c.Replaced) > 0 || c.Config != nil && c.Config.Exists }

// Render checks the fields and gives the script for /bin/sh.
func (c Commit) Render() (string, error) {
	if err := checkRun(c.Run, c.Nonce, c.Dir); err != nil {
		return "", fmt.Errorf("rendering the commit: %w", err)
	}
	checked := map[string]string{"SSHD": c.SSHD, "ConfigFile": c.ConfigFile}
	if len(c.Uploaded) > 0 {
		checked["Stage"] = c.Stage
	}
	for field, value := range checked {
		if err := checkPath(field, value); err != nil {
			return "", fmt.Errorf("rendering the commit: %w", err)
		}
	}
	if err := checkNames(c.Files); err != nil {
		return "", fmt.Errorf("rendering the commit: Files: %w", err)
	}
	return render("commit.sh.tmpl", c)
}

// Rollback puts a host back as it was before the run.
type Rollback struct {
	Run, Dir string
	// RollbackSeconds is how long it waits for the confirmation.
	RollbackSeconds int
	Config          *ConfigFile
	// Replaced are put back, CreatedFiles removed again.
	Replaced, CreatedFiles []string
	Reloads                bool
	Reload                 Reload
}

// Render checks the fields and gives the script for /bin/sh.
func (r Rollback) Render() (string, error) {
	if err := checkRun(r.Run, "", r.Dir); err != nil {
		return "", fmt.Errorf("rendering the rollback: %w", err)
	}
	if err := checkNames(slices.Concat(r.Replaced, r.CreatedFiles)); err != nil {
		return "", fmt.Errorf("rendering the rollback: %w", err)
	}
	if r.RollbackSeconds < 1 {
		return "", fmt.Errorf("rendering the rollback: RollbackSeconds is %d", r.RollbackSeconds)
	}
	return render("rollback.sh.tmpl", r)
}

// Confirm makes the change stay.
type Confirm struct {
	Run, Nonce, Dir string
	// Stage is removed, if it is set.
	Stage string
	// Keep tells that files were replaced: they become a backup. ConfigName is
	// the configuration file's name in it, if one was replaced.
	Keep       bool
	ConfigName string
}

// RenameConfig tells whether the kept configuration file needs another name.
func (c Confirm) RenameConfig() bool { return c.ConfigName != "" && c.ConfigName != StagedConfig }

// Render checks the fields and gives the script for /bin/sh.
func (c Confirm) Render() (string, error) {
	if err := checkRun(c.Run, c.Nonce, c.Dir); err != nil {
		return "", fmt.Errorf("rendering the confirmation: %w", err)
	}
	if c.Stage != "" {
		if err := checkPath("Stage", c.Stage); err != nil {
			return "", fmt.Errorf("rendering the confirmation: %w", err)
		}
	}
	return render("confirm.sh.tmpl", c)
}

// Undo rolls back without waiting. Installed are the files as the run left them:
// where they still stand, the change had been confirmed.
type Undo struct {
	Run, Nonce, Dir string
	Installed       []Digest
}

// Render checks the fields and gives the script for /bin/sh.
func (u Undo) Render() (string, error) {
	if err := checkRun(u.Run, u.Nonce, u.Dir); err != nil {
		return "", fmt.Errorf("rendering the undo: %w", err)
	}
	return render("undo.sh.tmpl", u)
}

// Recover cleans up after a run that died.
type Recover struct{ Nonce, Dir string }

// Render checks the fields and gives the script for /bin/sh.
func (r Recover) Render() (string, error) {
	if err := checkRun("recover", r.Nonce, r.Dir); err != nil {
		return "", fmt.Errorf("rendering the recovery: %w", err)
	}
	return render("recover.sh.tmpl", r)
}

// DropIn is the text of our settings for sshd.
type DropIn struct {
	UserCAFile       string
	HostCertificates []string
}

// Render checks the fields and gives the text.
func (d DropIn) Render() ([]byte, error) {
	for _, name := range slices.Concat([]string{d.UserCAFile}, d.HostCertificates) {
		if err := checkPath("file", name); err != nil {
			return nil, fmt.Errorf("rendering the sshd settings: %w", err)
		}
	}
	text, err := render("dropin.tmpl", d)
	return []byte(text), err
}

func checkRun(run, nonce, dir string) error {
	if !runShape.MatchString(run) {
		return fmt.Errorf("run %q: letters, digits and dashes are expected", run)
	}
	if nonce != "" && !nonceShape.MatchString(nonce) {
		return fmt.Errorf("nonce %q isn't 16 to 64 letters and digits", nonce)
	}
	return checkPath("Dir", dir)
}

func checkNames(names []string) error {
	for _, name := range names {
		if name == "" || name != path.Base(name) || strings.HasPrefix(name, "-") || strings.HasPrefix(name, ".") {
			return fmt.Errorf("%q is no file name", name)
		}
	}
	return nil
}
