package templates

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// Names of the files in a jump host's folder.
const (
	JumpConfigFile  = "jump.yaml"
	JumpUnitFile    = "fleetjump.service"
	JumpHostKeyFile = "ssh_host_ed25519_key"
	JumpCAFile      = "jump_ca"
	UserCAFile      = "user_ca.pub"
	HostCAFile      = "host_ca.pub"
	InventoryFile   = "inventory.yaml"
)

// JumpConfig is a jump host's jump.yaml.
type JumpConfig struct {
	Name   string
	Listen []string
	// State is the folder of recordings, audit log and admin socket: absolute,
	// or relative to jump.yaml.
	State string
	// Admins are identities that may do everything. Everyone lets whoever has
	// a certificate log in. Without either nobody may do anything.
	Admins   []string
	Everyone bool
}

// Render checks the fields and gives the file.
func (c JumpConfig) Render() (string, error) {
	if c.Name == "" || len(c.Listen) == 0 || c.State == "" {
		return "", errors.New("rendering jump.yaml: Name, Listen and State must be set")
	}
	if err := Check(c.Name); err != nil { // it is in a comment, too
		return "", fmt.Errorf("rendering jump.yaml: %w", err)
	}
	var problems []error
	text := func(values ...string) string {
		words := make([]string, len(values))
		for i, v := range values {
			var err error
			if words[i], err = yamlText(v); err != nil {
				problems = append(problems, err)
			}
		}
		return strings.Join(words, ", ")
	}
	data := struct {
		JumpConfig
		NameYAML, ListenYAML, AdminsYAML, SocketYAML, StoreYAML, AuditYAML string
		HostKey, JumpCA, UserCA, HostCA, Inventory                         string
	}{
		JumpConfig: c,
		NameYAML:   text(c.Name), ListenYAML: text(c.Listen...), AdminsYAML: text(c.Admins...),
		SocketYAML: text(path.Join(c.State, "admin.sock")), StoreYAML: text(path.Join(c.State, "store")),
		AuditYAML: text(path.Join(c.State, "audit")),
		HostKey:   JumpHostKeyFile, JumpCA: JumpCAFile, UserCA: UserCAFile, HostCA: HostCAFile, Inventory: InventoryFile,
	}
	if err := errors.Join(problems...); err != nil {
		return "", fmt.Errorf("rendering jump.yaml: %w", err)
	}
	return render("jump.yaml.tmpl", data)
}

// yamlText makes the value one double-quoted scalar of YAML, which takes all of
// Go's escapes for text without control characters.
func yamlText(value string) (string, error) {
	if err := Check(value); err != nil {
		return "", err
	}
	return strconv.Quote(value), nil
}

// JumpUnit is the systemd unit of a jump host.
type JumpUnit struct {
	Name string
	// Binary is where fleetjump is, Folder where jump.yaml is, both on the jump
	// host. Source is what Folder is copied from, for the instructions.
	Binary, Folder, Source string
	// State is the folder that it may write to, on the jump host.
	State string
	User  string
	// LowPort lets it listen below port 1024.
	LowPort bool
	// StopSeconds is how long it may take to stop.
	StopSeconds int
}

var (
	// unitPath is what a unit takes as it is: no spaces, no specifiers.
	unitPath = regexp.MustCompile(`^/[A-Za-z0-9._/@+-]+$`)
	unitUser = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
)

// hidden are the folders that the unit's own protection hides or replaces.
var hidden = []string{"/home", "/root", "/run/user", "/tmp", "/var/tmp", "/dev", "/proc", "/sys"}

// stateFolder is where systemd keeps what a service's StateDirectory names.
const stateFolder = "/var/lib/"

// Render checks the fields and gives the unit.
func (u JumpUnit) Render() (string, error) {
	for field, value := range map[string]string{"Binary": u.Binary, "Folder": u.Folder, "State": u.State} {
		if err := checkUnitPath(value); err != nil {
			return "", fmt.Errorf("rendering the unit: %s: %w", field, err)
		}
	}
	if err := errors.Join(Check(u.Name), Check(u.Source)); err != nil {
		return "", fmt.Errorf("rendering the unit: %w", err)
	}
	if !unitUser.MatchString(u.User) {
		return "", fmt.Errorf("rendering the unit: User: %q is not a name for a system user", u.User)
	}
	if u.StopSeconds < 1 {
		return "", fmt.Errorf("rendering the unit: StopSeconds is %d", u.StopSeconds)
	}
	source, err := Quote(u.Source)
	if err != nil {
		return "", fmt.Errorf("rendering the unit: Source: %w", err)
	}
	if unitPath.MatchString(u.Source) {
		source = u.Source
	}
	u.Source = source
	state, _ := strings.CutPrefix(u.State, stateFolder)
	if state == u.State {
		state = ""
	}
	return render("fleetjump.service.tmpl", struct {
		JumpUnit
		// StateDirectory is State as systemd names what it makes itself.
		StateDirectory string
	}{u, state})
}

func checkUnitPath(value string) error {
	if err := checkPath("path", value); err != nil {
		return err
	}
	if !unitPath.MatchString(value) {
		return fmt.Errorf("%q holds characters that a unit would take for something else", value)
	}
	for _, folder := range hidden {
		if value == folder || strings.HasPrefix(value, folder+"/") {
			return fmt.Errorf("%q can't be reached by a service that has no %s of its own to see", value, folder)
		}
	}
	return nil
}
