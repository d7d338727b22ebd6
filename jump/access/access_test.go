package access

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func hosts(names ...string) func(string) bool {
	return func(h string) bool { return slices.Contains(names, h) }
}

func everywhere(string) bool { return true }

// everything is what a certificate holds unless less was asked for.
func everything() map[string]string {
	return map[string]string{
		"permit-pty": "", "permit-port-forwarding": "", "permit-agent-forwarding": "", "permit-X11-forwarding": "",
	}
}

func certificate(principals ...string) Certificate {
	return Certificate{Principals: principals, Extensions: everything()}
}

func forced(command string, principals ...string) Certificate {
	c := certificate(principals...)
	c.ForceCommand = command
	return c
}

func without(extension string, principals ...string) Certificate {
	c := certificate(principals...)
	delete(c.Extensions, extension)
	return c
}

// house is a set of roles as a team would have them.
func house() Rules {
	return Rules{Roles: []Role{
		{
			Name: "admins", Identities: []string{"ann", "*@ops"}, Logins: []string{"*"}, Hosts: everywhere,
			Permit: Actions(), MaxSession: 8 * time.Hour, Idle: time.Hour, RecordInput: true,
		},
		{
			Name: "deploy", Principals: []string{"team-*"}, Logins: []string{"app", "app-?"}, Hosts: hosts("web1", "web2"),
			Permit: []Action{Exec, SFTP}, Recording: BestEffort, Idle: 10 * time.Minute,
		},
		{
			Name: "readers", Identities: []string{"joe"}, Logins: []string{"joe", "log"}, Hosts: hosts("web1", "db1"),
			Permit: []Action{Shell}, Recording: Off,
		},
		{Name: "copy", Identities: []string{"cid"}, Logins: []string{"cid"}, Hosts: hosts("web1"), Permit: []Action{SFTP}},
		{Name: "no-db-root", Deny: true, Identities: []string{"*"}, Logins: []string{"root"}, Hosts: hosts("db1")},
		{Name: "no-x11", Deny: true, Permit: []Action{X11}},
		{Name: "no-db-copies", Deny: true, Principals: []string{"team-*"}, Hosts: hosts("web2"), Permit: []Action{SFTP, SCP}},
		{Name: "gone", Deny: true, Identities: []string{"eve@ops"}},
	}}
}

func TestDecide(t *testing.T) {
	for _, c := range []struct {
		name   string
		q      Request
		code   Code
		role   string
		reason string // part of it
	}{
		{"permitted", Request{"ann", certificate("root"), "root", "web1", Shell}, CodeAllowed, "admins", `role "admins" permits a shell to "ann" as "root" on host "web1"`},
		{"by glob", Request{"bob@ops", certificate("bob"), "bob", "web1", Exec}, CodeAllowed, "admins", "running commands"},
		{"connect", Request{"joe", certificate("joe"), "joe", "web1", Connect}, CodeAllowed, "readers", "logging in"},
		{"pty with shell", Request{"joe", certificate("joe"), "joe", "web1", Pty}, CodeAllowed, "readers", "a terminal"},
		{"pty with exec", Request{"x", certificate("team-a"), "app", "web1", Pty}, CodeAllowed, "deploy", "a terminal"},

		{"no identity", Request{"", certificate("root"), "root", "web1", Shell}, CodeInvalid, "", "no identity"},
		{"no host", Request{"ann", certificate("root"), "root", "", Shell}, CodeInvalid, "", "no host"},
		{"no login", Request{"ann", certificate("root"), "", "web1", Shell}, CodeInvalid, "", "no login"},
		{"no action", Request{"ann", certificate("root"), "root", "web1", ""}, CodeInvalid, "", `no action ""`},
		{"unknown action", Request{"ann", certificate("root"), "root", "web1", "fly"}, CodeInvalid, "", `no action "fly"`},

		{"nobody's", Request{"zoe", certificate("root"), "root", "web1", Shell}, CodeNoRole, "", `no role is about "zoe"`},
		{"case of identity", Request{"Ann", certificate("root"), "root", "web1", Shell}, CodeNoRole, "", `"Ann"`},
		{"not a part of it", Request{"ann2", certificate("root"), "root", "web1", Shell}, CodeNoRole, "", ""},
		{"other host", Request{"joe", certificate("joe"), "joe", "web2", Shell}, CodeHost, "", `no role lets "joe" on host "web2"`},
		{"other login", Request{"joe", certificate("joe", "root"), "root", "web1", Shell}, CodeLogin, "", `log in as "root" on host "web1"`},
		{"not a principal", Request{"joe", certificate("joe"), "log", "web1", Shell}, CodePrincipal, "", `login "log" is not among the principals of the certificate of "joe" ("joe")`},
		{"no principal at all", Request{"joe", certificate(), "log", "web1", Shell}, CodePrincipal, "", "it has none"},
		{"wildcard principal is a name", Request{"joe", certificate("*"), "log", "web1", Shell}, CodePrincipal, "", ""},
		{"other action", Request{"joe", certificate("joe"), "joe", "web1", Exec}, CodeAction, "", `no role permits running commands to "joe" as "joe" on host "web1"`},
		{"scp is not sftp", Request{"cid", certificate("cid"), "cid", "web1", SCP}, CodeAction, "", "permits scp"},
		{"pty needs more than sftp", Request{"cid", certificate("cid"), "cid", "web1", Pty}, CodeAction, "", "a terminal"},
		{"furthest role explains", Request{"joe", certificate("joe", "team-a"), "root", "db1", Shell}, CodeLogin, "", ""},

		{"by principal, other login", Request{"x", certificate("team-a"), "app", "web1", Exec}, CodeAllowed, "deploy", ""},
		{"by principal, glob", Request{"x", certificate("team-a"), "app-1", "web1", Exec}, CodeAllowed, "deploy", ""},
		{"by principal, too long", Request{"x", certificate("team-a"), "app-12", "web1", Exec}, CodeLogin, "", ""},
		{"other principal", Request{"x", certificate("tea"), "app", "web1", Exec}, CodeNoRole, "", ""},
		{"identity is no principal", Request{"team-a", certificate("x"), "app", "web1", Exec}, CodeNoRole, "", ""},

		{"denied login", Request{"ann", certificate("root"), "root", "db1", Shell}, CodeDenied, "no-db-root", `role "no-db-root" denies logging in to "ann" as "root" on host "db1"`},
		{"denied to connect", Request{"ann", certificate("root"), "root", "db1", Connect}, CodeDenied, "no-db-root", ""},
		{"denied elsewhere only", Request{"ann", certificate("root"), "root", "web1", Connect}, CodeAllowed, "admins", ""},
		{"denied action", Request{"ann", certificate("root"), "root", "web1", X11}, CodeDenied, "no-x11", "denies X11 forwarding"},
		{"other action than denied", Request{"ann", certificate("root"), "root", "web1", AgentForwarding}, CodeAllowed, "admins", ""},
		{"denied person", Request{"eve@ops", certificate("eve"), "eve", "web1", Connect}, CodeDenied, "gone", "logging in"},
		{"one action left", Request{"x", certificate("team-a"), "app", "web2", Connect}, CodeAllowed, "deploy", ""},
		{"denied by principal", Request{"x", certificate("team-a"), "app", "web2", SFTP}, CodeDenied, "no-db-copies", "denies sftp"},
		{"no role comes before denied", Request{"zoe", certificate("root"), "root", "db1", Shell}, CodeNoRole, "", ""},

		{"no pty", Request{"ann", without("permit-pty", "root"), "root", "web1", Pty}, CodeExtension, "admins", "does not permit a terminal: it lacks the extension permit-pty"},
		{"shell without pty", Request{"ann", without("permit-pty", "root"), "root", "web1", Shell}, CodeAllowed, "admins", ""},
		{"no local forwarding", Request{"ann", without("permit-port-forwarding", "root"), "root", "web1", LocalForwarding}, CodeExtension, "admins", "local and dynamic port forwarding"},
		{"no remote forwarding", Request{"ann", without("permit-port-forwarding", "root"), "root", "web1", RemoteForwarding}, CodeExtension, "admins", "remote port forwarding"},
		{"no agent", Request{"ann", without("permit-agent-forwarding", "root"), "root", "web1", AgentForwarding}, CodeExtension, "admins", "permit-agent-forwarding"},
		{"no extensions at all", Request{"ann", Certificate{Principals: []string{"root"}}, "root", "web1", RemoteForwarding}, CodeExtension, "admins", ""},
		{"forwarding", Request{"ann", certificate("root"), "root", "web1", LocalForwarding}, CodeAllowed, "admins", ""},

		{"forced, shell", Request{"ann", forced("date", "root"), "root", "web1", Shell}, CodeAllowed, "admins", ""},
		{"forced, sftp", Request{"ann", forced("date", "root"), "root", "web1", SFTP}, CodeAllowed, "admins", ""},
		{"forced command, shell only", Request{"joe", forced("date", "joe"), "joe", "web1", Shell}, CodeAllowed, "readers", ""},
		{"forced command, sftp only", Request{"cid", forced("bash", "cid"), "cid", "web1", SFTP}, CodeForceCommand, "", "forces a command, and no role permits running commands"},
		{"forced sftp", Request{"cid", forced("internal-sftp", "cid"), "cid", "web1", SFTP}, CodeAllowed, "copy", ""},
		{"forced sftp with options", Request{"cid", forced("internal-sftp -R", "cid"), "cid", "web1", SFTP}, CodeAllowed, "copy", ""},
		{"forced sftp, shell asked", Request{"cid", forced("internal-sftp", "cid"), "cid", "web1", Shell}, CodeAllowed, "copy", ""},
		{"forced sftp, shell permitted", Request{"joe", forced("internal-sftp", "joe"), "joe", "web1", Shell}, CodeForceCommand, "", "no role permits sftp"},
		{"no forced sftp", Request{"cid", forced("internal-sftp2", "cid"), "cid", "web1", SFTP}, CodeForceCommand, "", ""},
		{"forced, forwarding", Request{"ann", forced("date", "root"), "root", "web1", LocalForwarding}, CodeAllowed, "admins", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := house().Decide(c.q)
			if d.Code != c.code || d.Role != c.role || d.Allowed != (c.code == CodeAllowed) || !strings.Contains(d.Reason, c.reason) || d.Reason == "" {
				t.Errorf("got %+v; want code %s, role %q, a reason with %q", d, c.code, c.role, c.reason)
			}
			if strings.Contains(d.Reason, "\n") {
				t.Errorf("the reason has several lines: %q", d.Reason)
			}
		})
	}
}

func TestForcedAction(t *testing.T) {
	rules := house()
	for _, c := range []struct {
		command string
		action  Action
		want    Action
	}{
		{"date", Shell, Exec},
		{"date", Exec, Exec},
		{"date", SFTP, Exec},
		{"date", SCP, Exec},
		{"date", Pty, Pty},
		{"date", LocalForwarding, LocalForwarding},
		{"internal-sftp", Shell, SFTP},
		{"internal-sftp", SCP, SFTP},
		{"", SCP, SCP},
	} {
		d := rules.Decide(Request{"ann", forced(c.command, "root"), "root", "web1", c.action})
		if !d.Allowed || d.Action != c.want {
			t.Errorf("%s with %q forced: %+v; want %s", c.action, c.command, d, c.want)
		}
	}
}

func TestDeniedForcedCommand(t *testing.T) {
	rules := house()
	rules.Roles = append(rules.Roles, Role{Name: "no-exec", Deny: true, Permit: []Action{Exec, Shell}})
	d := rules.Decide(Request{"ann", forced("date", "root"), "root", "web1", SFTP})
	if d.Code != CodeDenied || d.Role != "no-exec" {
		t.Errorf("a forced command hid behind sftp: %+v", d)
	}
}

// TestZero holds that nothing said is nothing permitted.
func TestZero(t *testing.T) {
	q := Request{"ann", certificate("root"), "root", "web1", Shell}
	if d := (Rules{}).Decide(q); d.Allowed || d.Code != CodeNoRole {
		t.Errorf("no roles: %+v", d)
	}
	full := Role{Name: "r", Identities: []string{"ann"}, Logins: []string{"root"}, Hosts: everywhere, Permit: []Action{Shell}}
	for name, c := range map[string]struct {
		change func(*Role)
		code   Code
	}{
		"nothing missing": {func(*Role) {}, CodeAllowed},
		"identities":      {func(r *Role) { r.Identities = nil }, CodeNoRole},
		"empty pattern":   {func(r *Role) { r.Identities = []string{""} }, CodeNoRole},
		"logins":          {func(r *Role) { r.Logins = nil }, CodeLogin},
		"hosts":           {func(r *Role) { r.Hosts = nil }, CodeHost},
		"permit":          {func(r *Role) { r.Permit = nil }, CodeAction},
		"all":             {func(r *Role) { *r = Role{} }, CodeNoRole},
	} {
		role := full
		c.change(&role)
		if d := (Rules{Roles: []Role{role}}).Decide(q); d.Code != c.code {
			t.Errorf("%s: %+v, want %s", name, d, c.code)
		}
		role.Deny = true
		if d := (Rules{Roles: []Role{full, role}}).Decide(q); d.Code != CodeDenied && name != "empty pattern" {
			t.Errorf("%s, denying: %+v", name, d)
		}
	}
}

// TestTogether holds how roles add up.
func TestTogether(t *testing.T) {
	role := func(name string, mode Mode, longest, idle time.Duration, input bool, permit ...Action) Role {
		return Role{
			Name: name, Identities: []string{"ann"}, Logins: []string{"root"}, Hosts: everywhere, Permit: permit,
			Recording: mode, MaxSession: longest, Idle: idle, RecordInput: input,
		}
	}
	rules := Rules{Roles: []Role{
		role("off", Off, 0, time.Hour, false, Shell, Exec, SFTP),
		role("best", BestEffort, 8*time.Hour, 0, true, Shell, Exec),
		role("strict", Strict, 4*time.Hour, 2*time.Hour, false, Shell),
		role("unset", "", 0, 0, false, SCP),
		role("unknown", "sometimes", -1, -1, false, X11),
	}}
	for action, want := range map[Action]Decision{
		Shell: {Recording: Strict, MaxSession: 4 * time.Hour, Idle: time.Hour, RecordInput: true},
		Exec:  {Recording: BestEffort, MaxSession: 8 * time.Hour, Idle: time.Hour, RecordInput: true},
		SFTP:  {Recording: Off, Idle: time.Hour},
		SCP:   {Recording: Strict},
		X11:   {Recording: Strict},
	} {
		got := rules.Decide(Request{"ann", certificate("root"), "root", "web1", action})
		if !got.Allowed || got.Recording != want.Recording || got.MaxSession != want.MaxSession || got.Idle != want.Idle || got.RecordInput != want.RecordInput {
			t.Errorf("%s: %+v, want %+v", action, got, want)
		}
	}
}

func TestReading(t *testing.T) {
	who := func(role Role, identities ...string) Role {
		role.Identities = identities
		return role
	}
	rules := Rules{Roles: []Role{
		who(Role{Name: "staff", Recordings: Own}, "*"),
		who(Role{Name: "self-remover", Recordings: Own, RemoveRecordings: true}, "joe", "eva"),
		who(Role{Name: "auditor", Recordings: All, ReadAudit: true}, "eva"),
		{Name: "keeper", Principals: []string{"keepers"}, Recordings: All, RemoveRecordings: true},
		who(Role{Name: "odd", Recordings: "some", RemoveRecordings: true}, "odd"),
		who(Role{Name: "no-root", Deny: true, Logins: []string{"root"}}, "*"),
		who(Role{Name: "no-shell", Deny: true, Permit: []Action{Shell}}, "*"),
		who(Role{Name: "no-web", Deny: true, Hosts: everywhere}, "*"),
		who(Role{Name: "gone", Deny: true, Logins: []string{"*"}}, "eve"),
	}}
	for _, c := range []struct {
		identity   string
		principals []string
		want       ReadingDecision
	}{
		{"ann", nil, ReadingDecision{Scope: Own, Roles: []string{"staff"}}},
		{"joe", nil, ReadingDecision{Scope: Own, Remove: true, Roles: []string{"staff", "self-remover"}}},
		{"eva", nil, ReadingDecision{Scope: All, Audit: true, Roles: []string{"staff", "self-remover", "auditor"}}},
		{"ann", []string{"keepers"}, ReadingDecision{Scope: All, Remove: true, Roles: []string{"staff", "keeper"}}},
		{"odd", nil, ReadingDecision{Scope: Own, Roles: []string{"staff"}}},
		{"eve", []string{"keepers"}, ReadingDecision{Scope: None, Roles: []string{"gone"}}},
		{"", []string{"keepers"}, ReadingDecision{Scope: None}},
	} {
		got := rules.Reading(c.identity, c.principals)
		if got.Scope != c.want.Scope || got.Remove != c.want.Remove || got.Audit != c.want.Audit || !slices.Equal(got.Roles, c.want.Roles) {
			t.Errorf("%q %q: %+v, want %+v", c.identity, c.principals, got, c.want)
		}
	}
	if got := (Rules{}).Reading("ann", nil); got.Scope != None || got.Remove || got.Audit {
		t.Errorf("no roles: %+v", got)
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"", "", false},
		{"*", "", true},
		{"*", "anything", true},
		{"a", "a", true},
		{"a", "A", false},
		{"a", "ab", false},
		{"a*", "a", true},
		{"*b", "aab", true},
		{"*b", "aba", false},
		{"a*c*e", "abcde", true},
		{"a*c*e", "abcd", false},
		{"**", "x", true},
		{"?", "", false},
		{"?", "é", true},
		{"??", "é", false},
		{"é*", "école", true},
		{"*é", "caf\xe9", false},
		{"[a-z]", "b", false},
		{"[a-z]", "[a-z]", true},
		{"a?*", "a", false},
		{"*@ops", "x@ops@ops", true},
		{`\*`, "*", false},
	} {
		if got := Match(c.pattern, c.text); got != c.want {
			t.Errorf("%q matches %q: %v", c.pattern, c.text, got)
		}
	}
	// Not in exponential time.
	if Match(strings.Repeat("*a", 200)+"b", strings.Repeat("a", 5000)) {
		t.Error("matched without the end")
	}
}

// FuzzMatch compares with a slow matcher that is plainly right.
func FuzzMatch(f *testing.F) {
	f.Add("a*b?c", "axxbyc")
	f.Add("*é?", "caféx")
	f.Add("**", "")
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if len(pattern) > 12 || len(text) > 12 || strings.ToValidUTF8(pattern, "") != pattern || strings.ToValidUTF8(text, "") != text {
			return
		}
		if got, want := Match(pattern, text), pattern != "" && slow([]rune(pattern), []rune(text)); got != want {
			t.Errorf("%q matches %q: %v", pattern, text, got)
		}
	})
}

func slow(pattern, text []rune) bool {
	switch {
	case len(pattern) == 0:
		return len(text) == 0
	case pattern[0] == '*':
		return slow(pattern[1:], text) || len(text) > 0 && slow(pattern, text[1:])
	case len(text) == 0:
		return false
	}
	return (pattern[0] == '?' || pattern[0] == text[0]) && slow(pattern[1:], text[1:])
}
