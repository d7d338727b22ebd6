package config

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/fleetca/fleetca/jump/access"
)

var roleName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$`)

const maxDuration = 10 * 365 * 24 * time.Hour

func (r *reading) roles() {
	v := r.top["roles"]
	if !v.given() {
		r.warn(0, "roles", "is missing: nobody may do anything")
		return
	}
	if kindName(v.target()) == "nothing" {
		v.warn("there is none: nobody may do anything")
		return
	}
	lines := map[string]int{}
	for _, item := range v.list() {
		role, ok := r.role(item)
		if line, twice := lines[role.Name]; twice && role.Name != "" {
			item.fail("the name %q is that of the role in line %d", role.Name, line)
		}
		lines[role.Name] = item.node.Line
		if ok {
			r.cfg.Rules.Roles = append(r.cfg.Rules.Roles, role)
		}
	}
	if len(r.cfg.Rules.Roles) == 0 && len(r.problems) == 0 {
		v.warn("there is none: nobody may do anything")
	}
}

// granting are the keys that make no sense in a role that denies.
var granting = []string{"recording", "record_input", "max_session", "idle", "recordings", "remove_recordings", "read_audit"}

// role reads one role. It is false for one that had mistakes.
func (r *reading) role(v value) (access.Role, bool) {
	mistakes := len(r.problems)
	var role access.Role
	keys := v.section(append([]string{
		"name", "identities", "principals", "logins", "hosts", "labels", "permit", "deny",
	}, granting...)...)
	if n := keys["name"]; !n.given() {
		v.fail("it has no name")
	} else if n.into(&role.Name); role.Name != "" && !roleName.MatchString(role.Name) {
		n.fail("%q is not a name of up to 64 letters, digits and any of . _ @ + -", role.Name)
	}
	role.Identities = keys["identities"].texts()
	role.Principals = keys["principals"].texts()
	role.Logins = keys["logins"].texts()
	role.Deny = keys["deny"].given()
	if role.Deny {
		r.denying(v, keys, &role)
	} else {
		r.permitting(v, keys, &role)
	}
	r.roleHosts(keys, &role)
	return role, len(r.problems) == mistakes
}

// roleHosts makes out the hosts. A role that says nothing of them leaves Hosts
// nil: none of them, or, if it denies, all.
func (r *reading) roleHosts(keys map[string]value, role *access.Role) {
	patterns, labels := keys["hosts"], keys["labels"]
	if !patterns.given() && !labels.given() {
		return
	}
	hosts := r.choose(patterns, labels, role.Deny)
	if role.Deny && !labels.given() && slices.Equal(patterns.quiet(), []string{"all"}) {
		return // hosts that the inventory gets later are meant as well
	}
	names := make(map[string]bool, len(hosts))
	for _, h := range hosts {
		names[strings.ToLower(h.Name)] = true
	}
	role.Hosts = func(host string) bool { return names[strings.ToLower(host)] }
}

// quiet is texts where mistakes have been told.
func (v value) quiet() []string {
	var out []string
	for _, item := range given(v) {
		if n := item.target(); n.Kind == yaml.ScalarNode {
			out = append(out, n.Value)
		}
	}
	return out
}

func (r *reading) denying(v value, keys map[string]value, role *access.Role) {
	if keys["permit"].given() {
		v.fail("a role either permits or denies; this one does both")
	}
	for _, key := range granting {
		if k := keys[key]; k.given() {
			k.fail("has no place in a role that denies")
		}
	}
	role.Permit = r.actions(keys["deny"])
	if len(role.Permit) == len(access.Actions()) {
		role.Permit = nil // logging in as well
	}
}

func (r *reading) permitting(v value, keys map[string]value, role *access.Role) {
	if len(role.Identities) == 0 && len(role.Principals) == 0 && !keys["identities"].given() && !keys["principals"].given() {
		v.fail(`it says neither identities nor principals: whom it is about ("*" is everybody)`)
	}
	role.Permit = r.actions(keys["permit"])
	mode, scope := string(access.Strict), string(access.None)
	keys["recording"].choice(&mode, string(access.Strict), string(access.BestEffort), string(access.Off))
	keys["recordings"].choice(&scope, string(access.None), string(access.Own), string(access.All))
	role.Recording, role.Recordings = access.Mode(mode), access.Scope(scope)
	keys["record_input"].boolean(&role.RecordInput)
	keys["remove_recordings"].boolean(&role.RemoveRecordings)
	keys["read_audit"].boolean(&role.ReadAudit)
	keys["max_session"].duration(&role.MaxSession, time.Second, maxDuration)
	keys["idle"].duration(&role.Idle, time.Second, maxDuration)

	if role.RemoveRecordings && role.Recordings == access.None {
		keys["remove_recordings"].fail("whose, is said by recordings: own or all")
	}
	if role.RecordInput && role.Recording == access.Off {
		keys["record_input"].warn("has no effect with recording: off")
	}
	r.complete(v, keys, role)
}

// complete refuses a role that by what is missing comes to nothing. One for
// reading recordings alone needs no hosts.
func (r *reading) complete(v value, keys map[string]value, role *access.Role) {
	reads := role.Recordings != access.None || role.ReadAudit
	places := keys["hosts"].given() || keys["labels"].given()
	if reads && !places && !keys["logins"].given() && !keys["permit"].given() {
		return
	}
	if !places {
		v.fail("it says neither hosts nor labels (hosts: all is every host)")
	}
	if !keys["logins"].given() {
		v.fail(`it says no logins ("*" is every login that the certificate lists)`)
	}
	if !keys["permit"].given() {
		v.fail("it says neither permit nor deny: %s, or all", actionNames())
	}
}

// actions reads what is permitted or denied.
func (r *reading) actions(v value) []access.Action {
	var actions []access.Action
	if v.given() && v.target().Kind == yaml.ScalarNode && v.target().Value == "all" {
		return access.Actions()
	}
	if v.given() && v.target().Kind == yaml.ScalarNode && (v.target().Value == "true" || v.target().Value == "false") {
		v.fail("must be all, or a list of some of %s", actionNames())
		return nil
	}
	known := append(strings.Split(actionNames(), ", "), "dynamic_forwarding")
	for _, item := range given(v) {
		s, ok := item.text()
		if !ok {
			continue
		}
		a := access.Action(s)
		switch {
		case s == "dynamic_forwarding":
			// The same on the wire: sshd too can't tell ssh -D from ssh -L.
			a = access.LocalForwarding
		case s == "all":
			item.fail("all stands alone, not in a list")
			continue
		case !slices.Contains(access.Actions(), a):
			item.fail("%w", unknownWord(s, known))
			continue
		}
		if !slices.Contains(actions, a) {
			actions = append(actions, a)
		}
	}
	if v.given() && len(v.items()) == 0 {
		v.fail("the list is empty")
	}
	return actions
}

func actionNames() string {
	var names []string
	for _, a := range access.Actions() {
		names = append(names, string(a))
	}
	return strings.Join(names, ", ")
}
