package templates

import (
	"fmt"
	"regexp"
	"strings"
)

// Probe is the script that gathers facts about a host. It changes nothing
// there. What it prints is read by provision/facts.
type Probe struct {
	// Nonce is a new random word for each run: it marks where the probe's
	// own lines begin, so that no file's content can pass for them, and where
	// the output ends. 16 to 64 letters and digits.
	Nonce string
	// ConfigFile is sshd's main configuration, /etc/ssh/sshd_config if empty.
	ConfigFile string
	// Login is the account for which the effective configuration is asked.
	Login string
	// Files are more files to read, by absolute path.
	Files []string
}

var nonceShape = regexp.MustCompile(`^[0-9A-Za-z]{16,64}$`)

// Render checks the fields and gives the script for /bin/sh.
func (p Probe) Render() (string, error) {
	if p.ConfigFile == "" {
		p.ConfigFile = "/etc/ssh/sshd_config"
	}
	if !nonceShape.MatchString(p.Nonce) {
		return "", fmt.Errorf("rendering the probe: Nonce: %q isn't 16 to 64 letters and digits", p.Nonce)
	}
	if err := checkPath("ConfigFile", p.ConfigFile); err != nil {
		return "", fmt.Errorf("rendering the probe: %w", err)
	}
	// sshd -C splits its argument at commas.
	if p.Login == "" || strings.Contains(p.Login, ",") {
		return "", fmt.Errorf("rendering the probe: Login: %q can't be asked for", p.Login)
	}
	for _, f := range p.Files {
		if err := checkPath("Files", f); err != nil {
			return "", fmt.Errorf("rendering the probe: %w", err)
		}
	}
	return render("probe.sh.tmpl", p)
}
