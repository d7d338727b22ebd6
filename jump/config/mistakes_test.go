package config

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/fleetca/fleetca/ca/keyring"
)

// TestMistakes changes one thing in the minimal file. A change "a => b"
// replaces a; any other text is added in front.
func TestMistakes(t *testing.T) {
	f := newFolder(t)
	f.key(t, "other")
	f.write(t, "junk.pub", "# keys\n"+certLine(f.user.PublicKey())+"ssh-ed25519 AAAA\n")
	f.write(t, "options.pub", "cert-authority "+certLine(f.user.PublicKey()))
	f.write(t, "cert.pub", certLine(f.certificate(t, nil)))
	f.write(t, "empty.pub", "# none\n")
	f.write(t, "open.pub", certLine(f.user.PublicKey()))
	f.write(t, "broken.krl", "SSHKRL\n\x00broken")
	f.write(t, "loose_ca", "")
	f.write(t, "odd.yaml", "all: {hosts: {odd: {ansible_connection: local}}}")
	if err := errors.Join(os.Chmod(f.path("open.pub"), 0o666), os.Chmod(f.path("loose_ca"), 0o644),
		os.Mkdir(f.path("openstore"), 0o755), os.Chmod(f.path("openstore"), 0o755)); err != nil {
		t.Fatal(err)
	}
	key, err := keyring.Generate(keyring.Ed25519)
	if err == nil {
		err = keyring.Write(f.path("locked_ca"), key, "", []byte("passphrase"))
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ change, want string }{
		{"nam: x", `jump.yaml:1: nam: unknown key "nam"; did you mean "name"?`},
		{"userCAs: x", `jump.yaml:1: userCAs: unknown key "userCAs"; did you mean "user_cas"?`},
		{"zzzzzzzzz: x", `jump.yaml:1: zzzzzzzzz: unknown key "zzzzzzzzz"; there are name, cluster, listen,`},
		{"listen: ':1'\nlisten: ':2'", "jump.yaml:2: listen: is said twice"},
		{"<<: {name: a}", `jump.yaml:1: merging with "<<" is not supported`},
		{"? [a]\n: b", "jump.yaml:1: a key must be a word"},
		{"name: jump.example.com => ", "jump.yaml: name: is missing: the jump host's name"},
		{"jump.example.com => jump example", `jump.yaml:1: name: "jump example" is not a host name`},
		{"jump.example.com => '*.example.com'", `jump.yaml:1: name: "*.example.com" is not a host name`},
		{"name: jump.example.com => name:", "jump.yaml:1: name: must be a single value, not nothing"},
		{"name: jump.example.com => name: [a, b]", "jump.yaml:1: name: must be a single value, not a list"},
		{`name: jump.example.com => name: "a\nb"`, `jump.yaml:1: name: "a\nb" holds characters that can't be printed`},
		{"jump.example.com => other.example.com", `jump.yaml:2: host_certificate: host certificate for "other.example.com": not valid for this name`},
		{"cluster: a/b", `jump.yaml:1: cluster: "a/b" is not a name of letters`},
		{"listen: [':22', 3023]", `jump.yaml:1: listen[1]: "3023" is not an address`},
		{"listen: ':ssh'", `jump.yaml:1: listen: ":ssh": "ssh" is not a port`},
		{"listen: ':70000'", `jump.yaml:1: listen: ":70000": "70000" is not a port`},
		{"listen: [':22', ':22']", `jump.yaml:1: listen[1]: ":22" is said twice`},
		{"listen: []", "jump.yaml:1: listen: the list is empty"},
		{"admin_socket: " + strings.Repeat("x", 108), "has over 107 characters"},

		{"host_key: host_key => ", "jump.yaml: host_key: is missing"},
		{"jump_ca: jump_ca => jump_ca: nothing", "jump.yaml:3: jump_ca: open nothing: no such file"},
		{"jump_ca: jump_ca => jump_ca: loose_ca", "jump.yaml:3: jump_ca: reading private key: \"loose_ca\" has mode 0644"},
		{"jump_ca: jump_ca => jump_ca: locked_ca", `jump.yaml:3: jump_ca: reading private key "locked_ca": it is encrypted with a passphrase`},
		{"jump_ca: jump_ca => jump_ca: host_ca", "jump.yaml:3: jump_ca: the host CA and the jump CA are one key; they must differ"},
		{"jump_ca: jump_ca => jump_ca: user_ca", "jump.yaml:3: jump_ca: the user CA and the jump CA are one key"},
		{"jump_ca: jump_ca => jump_ca: host_key", "the jump CA and the jump host's own key are one key"},
		{"host_ca.pub => user_ca.pub", "jump.yaml:5: host_cas: the user CA and the host CA are one key"},
		{"host_ca.pub => [host_ca.pub, user_ca.pub]", "jump.yaml:5: host_cas[1]: the user CA and the host CA are one key"},
		{"host_ca.pub => other.pub", `jump.yaml:2: host_certificate: host certificate for "jump.example.com": not signed by a trusted authority`},
		{"host_cas: host_ca.pub => ", "jump.yaml: host_cas: is missing"},
		{"host_ca.pub => []", "jump.yaml:5: host_cas: the list is empty, and hosts have to show certificates"},
		{"user_cas: user_ca.pub => ", "jump.yaml: user_cas: is missing"},
		{"user_ca.pub => []", "jump.yaml:4: user_cas: the list is empty"},
		{"user_ca.pub => junk.pub", `jump.yaml:4: user_cas: "junk.pub", line 3: no public key in it`},
		{"user_ca.pub => options.pub", `"options.pub", line 1: options before the key`},
		{"user_ca.pub => cert.pub", `"cert.pub", line 1: expected a plain public key, got a certificate`},
		{"user_ca.pub => user_ca", `"user_ca", line 1: this is a private key`},
		{"user_ca.pub => empty.pub", `"empty.pub": no public key in it`},
		{"user_ca.pub => open.pub", `"open.pub" has mode 0666: everybody may change it`},
		{"user_ca.pub => .", "is not a plain file"},
		{"host_certificate: host_key.pub", `host_certificate: "host_key.pub" is a plain public key, not a certificate`},
		{"host_certificate: hosts.yaml", `"hosts.yaml" is not a file with one certificate`},
		{"host_key: host_key => host_key: other\nhost_certificate: host_key-cert.pub", `"host_key-cert.pub" is not a certificate of host_key`},
		{"host_key: host_key => host_key: other", "jump.yaml:2: host_certificate: open other-cert.pub: no such file"},
		{"revoked_keys: nothing", "jump.yaml:1: revoked_keys: open nothing: no such file"},
		{"revoked_keys: broken.krl", `jump.yaml:1: revoked_keys: "broken.krl":`},

		{"inventory: hosts.yaml => ", "jump.yaml: inventory: is missing"},
		{"inventory: hosts.yaml => inventory: []", "jump.yaml:6: inventory: the list is empty"},
		{"inventory: hosts.yaml => inventory: nothing.yaml", "jump.yaml:6: inventory: reading inventory"},
		{"hosts.yaml => [hosts.yaml, odd.yaml]", `jump.yaml:6: inventory: host "odd" can't be used:`},
		{"require_host_certificate: maybe", `jump.yaml:1: require_host_certificate: "maybe" is neither true nor false`},
		{"known_hosts: nothing", "jump.yaml:1: known_hosts: open nothing"},
		{"hosts: {}", "jump.yaml:1: hosts: must be a list, not a mapping"},
		{"hosts: [{hosts: web}]", "jump.yaml:1: hosts[0]: it says nothing about these hosts"},
		{"hosts: [{require_host_certificate: false}]", "jump.yaml:1: hosts[0]: it says neither hosts nor labels"},
		{"hosts:\n- {hosts: db1, require_host_certificate: true}\n- {hosts: db, require_host_certificate: false}", `jump.yaml:3: hosts[1]: it disagrees with an entry above about host "db1"`},

		{"dial_timeout: 10", `jump.yaml:1: dial_timeout: "10" is not a duration such as 30s`},
		{"dial_timeout: 1h", "jump.yaml:1: dial_timeout: 1h is out of range: from 1s to 10m"},
		{"drain_timeout: 0s", `drain_timeout: "0s" is not a duration`},
		{"max_stream: 10", `jump.yaml:1: max_stream: "10" is not a size such as 512MiB or 10GiB`},
		{"max_stream: 99999999999999999999GiB", "is not a size"},
		{"max_stream: 99999999TiB", "is not a size"},
		{"max_stream: 2GiB", "2GiB is out of range: from 1KiB to 1GiB"},
		{"store: {dir: state/store} => ", "jump.yaml: store: is missing"},
		{"{dir: state/store} => {reserve: 1GiB}", "jump.yaml:7: store: it says no dir"},
		{"{dir: state/store} => {dir: openstore}", `jump.yaml:7: store.dir: "openstore" has mode 0755`},
		{"{dir: state/store} => {dir: hosts.yaml}", `"hosts.yaml" is not a folder`},
		{"{dir: state/store} => {dir: s, reserve: 256MiB}", "close_reserve (256MiB) must be below reserve (256MiB)"},
		{"{dir: state/store} => {dir: s, retain: 1d}", `jump.yaml:7: store.retain: unknown key "retain"; did you mean "retain_for"?`},
		{"audit_dir: state/audit => audit_dir: state/store", "is store.dir already"},
		{"audit_dir: state/audit => ", "jump.yaml: audit_dir: is missing"},
		{"accept_env: {}", "must be a single value, not a mapping"},
		{"limits: {connections: 0}", `jump.yaml:1: limits.connections: "0" is not a number from 1 to 1000000`},
		{"limits: {connection: 1}", `limits.connection: unknown key "connection"; did you mean "connections"?`},
	} {
		t.Run(c.change, func(t *testing.T) {
			from, to, replace := strings.Cut(c.change, " => ")
			text := from + "\n" + minimal
			if replace {
				if text = strings.Replace(minimal, from, to, 1); text == minimal {
					t.Fatal("nothing to replace")
				}
			}
			if got := f.mistakes(t, text); len(got) != 1 || !strings.Contains(got[0], c.want) {
				t.Errorf("got\n%s\nwant %s", strings.Join(got, "\n"), c.want)
			}
		})
	}
}

func TestRoleMistakes(t *testing.T) {
	f := newFolder(t)
	head, _, _ := strings.Cut(minimal, "roles:")
	const good = "name: r, identities: a, logins: a, hosts: all"
	for _, c := range []struct{ role, want string }{
		{"identities: a, logins: a, hosts: all, permit: all", "roles[0]: it has no name"},
		{"name: a b, identities: a, logins: a, hosts: all, permit: all", `roles[0].name: "a b" is not a name of up to 64 letters`},
		{"name: r, logins: a, hosts: all, permit: all", "roles[0]: it says neither identities nor principals"},
		{"name: r, identities: [], logins: a, hosts: all, permit: all", "roles[0].identities: the list is empty"},
		{"name: r, identities: [''], logins: a, hosts: all, permit: all", "roles[0].identities[0]: is empty"},
		{"name: r, identities: a, hosts: all, permit: all", "roles[0]: it says no logins"},
		{"name: r, identities: a, logins: a, permit: all", "roles[0]: it says neither hosts nor labels"},
		{good, "roles[0]: it says neither permit nor deny"},
		{good + ", permit: []", "roles[0].permit: the list is empty"},
		{good + ", permit: [shel]", `roles[0].permit[0]: unknown value "shel"; did you mean "shell"?`},
		{good + ", permit: [connect]", `roles[0].permit[0]: unknown value "connect"; there are shell, exec,`},
		{good + ", permit: [all]", "roles[0].permit[0]: all stands alone"},
		{good + ", permit: true", "roles[0].permit: must be all, or a list"},
		{good + ", permit: all, deny: all", "roles[0]: a role either permits or denies"},
		{good + ", deny: []", "roles[0].deny: the list is empty"},
		{good + ", deny: true", "roles[0].deny: must be all, or a list"},
		{good + ", deny: all, idle: 5m", "roles[0].idle: has no place in a role that denies"},
		{good + ", permit: all, recording: strikt", `roles[0].recording: unknown value "strikt"; did you mean "strict"?`},
		{good + ", permit: all, recordings: mine", `roles[0].recordings: unknown value "mine"; there are none, own, all`},
		{good + ", permit: all, remove_recordings: true", "roles[0].remove_recordings: whose, is said by recordings"},
		{good + ", permit: all, record_input: on", `roles[0].record_input: "on" is neither true nor false`},
		{good + ", permit: all, max_session: forever", `roles[0].max_session: "forever" is not a duration`},
		{good + ", permit: all, recordng: off", `roles[0].recordng: unknown key "recordng"; did you mean "recording"?`},

		{"name: r, identities: a, logins: a, hosts: 'web:!wbe2', permit: all", `roles[0].hosts: no host matches pattern "wbe2"`},
		{"name: r, identities: a, logins: a, hosts: ['web,&prd'], permit: all", `roles[0].hosts[0]: no host matches pattern "prd"`},
		{"name: r, identities: a, logins: a, hosts: '~(', permit: all", `roles[0].hosts: pattern "~("`},
		{"name: r, identities: a, logins: a, hosts: '@list', permit: all", `"@list" is not a pattern of hosts`},
		{"name: r, identities: a, logins: a, hosts: [], permit: all", "roles[0].hosts: the list is empty"},
		{"name: r, identities: a, logins: a, hosts: '!', permit: all", `"!" is not a pattern of hosts`},
		{"name: r, identities: a, logins: a, labels: [env=prod], permit: all", "roles[0].labels: must be a mapping such as {env: prod}, not a list"},
		{"name: r, identities: a, logins: a, labels: {}, permit: all", "roles[0].labels: must be a mapping"},
		{"name: r, identities: a, logins: a, labels: {'a=b': c}, permit: all", `"a=b" can't be the key of a label`},
		{"name: r, hosts: wbe, deny: all", `roles[0].hosts: no host matches pattern "wbe"`},
		{"name: r, hosts: 'db:&web', deny: all", "roles[0].hosts: no host matches limit"},
		{"name: r, labels: {env: prd}, deny: all", `roles[0].labels: no host matches label "env=prd"`},
		{"name: r, hosts: db, labels: {env: prod}, deny: all", "roles[0].hosts: no host matches label"},
	} {
		t.Run(c.role, func(t *testing.T) {
			got := f.mistakes(t, head+"roles:\n  - {"+c.role+"}\n")
			if len(got) != 1 || !strings.HasPrefix(got[0], "jump.yaml:10: ") || !strings.Contains(got[0], c.want) {
				t.Errorf("got\n%s\nwant %s", strings.Join(got, "\n"), c.want)
			}
		})
	}
	got := f.mistakes(t, head+"roles:\n- {name: r, deny: all}\n- {name: r, deny: all}\n")
	if want := `jump.yaml:11: roles[1]: the name "r" is that of the role in line 10`; len(got) != 1 || got[0] != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
