package plan

import (
	"path"
	"slices"
	"strings"

	"github.com/fleetca/fleetca/provision/sshdconfig"
	"github.com/fleetca/fleetca/templates"
)

// configChange is the one configuration file that a run writes: the drop-in,
// or sshd_config with our block.
type configChange struct {
	path      string
	exists    bool
	text      []byte
	candidate []byte // a main file that has the same effect, to check beforehand
	// replaced are the HostCertificate settings that vanish with it.
	replaced []string
}

// ourKeywords are those that must take effect from our file.
var ourKeywords = []string{"TrustedUserCAKeys", "HostCertificate"}

func (p *Plan) planConfig(resolved *sshdconfig.Config) error {
	f := p.facts
	settings, err := templates.DropIn{
		UserCAFile:       path.Join(p.dir, UserCAName),
		HostCertificates: p.hostCAs,
	}.Render()
	if err != nil {
		return refuse(CannotKeep, "writing the sshd settings: %v", err)
	}
	main := f.Files[f.ConfigFile]
	_, hasBlock, err := sshdconfig.Block(main.Content)
	if err != nil {
		return refuse(BrokenConfig, "%s: %v", f.ConfigFile, err)
	}
	if !hasBlock {
		name, reason := p.dropIn(resolved)
		if name != "" {
			p.planDropIn(name, settings)
			return nil
		}
		p.note("the settings go to the top of %s: %s", f.ConfigFile, reason)
	}
	return p.planBlock(settings)
}

// dropIn finds a drop-in file that takes effect before anything else that sets
// our keywords, or says why there is none.
func (p *Plan) dropIn(resolved *sshdconfig.Config) (name, reason string) {
	reason = "it includes no drop-in folder"
	for _, include := range resolved.Includes {
		if !include.Global() || !strings.Contains(path.Base(include.Pattern), "*") {
			continue
		}
		folder := path.Dir(include.Pattern)
		if strings.ContainsAny(folder, "*?[") {
			continue
		}
		if !path.IsAbs(folder) {
			folder = path.Join("/etc/ssh", folder)
		}
		if folder != p.facts.Dir && !strings.HasPrefix(folder, p.facts.Dir+"/") {
			reason = "it includes " + include.Pattern + ", which other programs may read too"
			continue
		}
		candidate := path.Join(folder, DropInName)
		answer := resolved.DropIn(candidate, ourKeywords...)
		if answer.OK {
			return candidate, ""
		}
		reason = answer.Reason
	}
	return "", reason
}

func (p *Plan) planDropIn(name string, settings []byte) {
	present := p.facts.Files[name]
	if !p.stale(name, settings) {
		return
	}
	// In the candidate the settings come first, as they will through the
	// Include; a present drop-in of ours is still included after them.
	main := p.facts.Files[p.facts.ConfigFile].Content
	p.config = &configChange{
		path: name, exists: present.Exists, text: settings,
		candidate: slices.Concat(settings, []byte("\n"), main),
	}
	p.Steps = append(p.Steps, Step{Name: "write sshd drop-in", Path: name, Before: present.Content, After: settings})
}

func (p *Plan) planBlock(settings []byte) error {
	f := p.facts
	main := f.Files[f.ConfigFile]
	text, err := sshdconfig.WithBlock(main.Content, settings)
	if err != nil {
		return refuse(BrokenConfig, "%s: %v", f.ConfigFile, err)
	}
	if string(text) == string(main.Content) {
		return nil
	}
	if main.Link != "" {
		return refuse(CannotKeep, "%s is a symbolic link to %s: replacing it would cut the link", f.ConfigFile, main.Link)
	}
	p.config = &configChange{path: f.ConfigFile, exists: true, text: text, candidate: text, replaced: p.inBlock(main.Content)}
	p.Steps = append(p.Steps, Step{Name: "write sshd_config block", Path: f.ConfigFile, Before: main.Content, After: text})
	return nil
}

// inBlock are the HostCertificate settings of the block that is there now.
func (p *Plan) inBlock(main []byte) []string {
	block, found, err := sshdconfig.Block(main)
	if err != nil || !found {
		return nil
	}
	parsed, err := sshdconfig.Resolve(sshdconfig.Source{Main: "block", Files: map[string][]byte{"block": block}})
	if err != nil {
		return nil
	}
	var out []string
	for _, s := range parsed.Global("HostCertificate") {
		out = append(out, s.Value())
	}
	return out
}

// expected is what sshd -T has to print for the candidate, sorted, each line
// once: what it prints today with nothing but our settings changed.
func (p *Plan) expected() []string {
	var lines []string
	for keyword, values := range p.facts.Effective {
		for _, value := range values {
			switch {
			case keyword == "trustedusercakeys":
			case keyword == "hostcertificate" && slices.Contains(p.config.replaced, value):
			default:
				lines = append(lines, keyword+" "+value)
			}
		}
	}
	lines = append(lines, "trustedusercakeys "+path.Join(p.dir, UserCAName))
	for _, name := range p.hostCAs {
		lines = append(lines, "hostcertificate "+name)
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}
