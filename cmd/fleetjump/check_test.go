package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca/keyring"
	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/templates"
)

const checkedRoles = `
  - {name: web, identities: [joe], logins: ["*"], hosts: [web], permit: [shell, sftp], max_session: 8h, idle: 10m, record_input: true, recordings: own}
  - {name: gone, identities: [eve], deny: all}
`

// checkFolder makes the folder of a jump host with the jump.yaml that fleetca
// jump init writes, and the roles above.
func checkFolder(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	key := func(name string) ssh.Signer {
		private, err := keyring.Generate(keyring.Ed25519)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := ssh.NewSignerFromSigner(private)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := errors.Join(keyring.Write(path, private, "", nil), keyring.WritePublic(path+".pub", signer.PublicKey(), "")); err != nil {
			t.Fatal(err)
		}
		return signer
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	user, host, own := key("user_ca"), key("host_ca"), key(templates.JumpHostKeyFile)
	key(templates.JumpCAFile)
	certificate := func(name string, kind uint32, by ssh.Signer, options map[string]string, principals ...string) {
		cert := &ssh.Certificate{
			Key: own.PublicKey(), CertType: kind, KeyId: name, ValidPrincipals: principals, Serial: 1, ValidBefore: ssh.CertTimeInfinity,
			Permissions: ssh.Permissions{CriticalOptions: options},
		}
		if err := cert.SignCert(rand.Reader, by); err != nil {
			t.Fatal(err)
		}
		write(name+"-cert.pub", string(ssh.MarshalAuthorizedKey(cert)))
	}
	certificate(templates.JumpHostKeyFile, ssh.HostCert, host, nil, "jump")
	certificate("joe", ssh.UserCert, user, map[string]string{"force-command": "internal-sftp"}, "joe")
	write(templates.InventoryFile, "all: {children: {web: {hosts: {web1: {fleetca_principals: [www]}}}, db: {hosts: {db1: }}}}\n")
	text, err := templates.JumpConfig{
		Name: "jump", Listen: []string{":3023"}, State: "state", Admins: []string{"ann"}, Everyone: false,
	}.Render()
	if err != nil {
		t.Fatal(err)
	}
	write(templates.JumpConfigFile, strings.Replace(text, "roles:\n", "roles:"+checkedRoles, 1))
	return dir
}

// fleetjump runs the program.
func fleetjump(t testing.TB, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	none := func(string) string { return "" }
	a := &program.App{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Getenv: none, Now: time.Now, Term: terminal.New(none)}
	code = program.Run(t.Context(), about, a, new(cli), args)
	return code, out.String(), errs.String()
}

func TestConfigCheck(t *testing.T) {
	dir := checkFolder(t)
	file := filepath.Join(dir, templates.JumpConfigFile)
	code, out, errs := fleetjump(t, "config", "check", "--config", file)
	if want := file + " is good: jump host jump, 2 hosts, 3 roles\n"; code != 0 || out != want || errs != "" {
		t.Errorf("%d, %q, %q", code, out, errs)
	}
	code, out, _ = fleetjump(t, "config", "check", "--config", file, "--json")
	if code != 0 || out != `{"ok":true,"mistakes":[],"warnings":[]}`+"\n" {
		t.Errorf("%d, %q", code, out)
	}

	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	change := func(old, replacement string) {
		t.Helper()
		text := strings.Replace(string(good), old, replacement, 1)
		if text == string(good) {
			t.Fatalf("no %q in\n%s", old, text)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	change("listen:", "lisen:")
	code, out, errs = fleetjump(t, "config", "check", "--config", file)
	if code != 2 || out != "" || !strings.HasPrefix(errs, "fleetjump: "+file+":9: lisen: unknown key \"lisen\"; did you mean \"listen\"?\nhint: ") {
		t.Errorf("%d, %q, %q", code, out, errs)
	}
	change("listen: [\":3023\"]", "lisen: 1\ndial_timeout: \"\\e[2J\"")
	code, _, errs = fleetjump(t, "config", "check", "--config", file)
	if code != 2 || !strings.HasPrefix(errs, "fleetjump: 2 mistakes in the configuration\n"+file+":9: lisen: ") ||
		!strings.Contains(errs, "\n"+file+":10: dial_timeout: \"\\x1b[2J\" holds") || strings.Contains(errs, "\x1b") {
		t.Errorf("%d, %q", code, errs)
	}
	code, out, errs = fleetjump(t, "config", "check", "--config", file, "--json")
	var got checked
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 2 || errs != "" {
		t.Fatalf("%d, %q, %q: %v", code, out, errs, err)
	}
	if got.OK || len(got.Mistakes) != 2 || got.Mistakes[0].Line != 9 || got.Mistakes[0].Field != "lisen" || got.Mistakes[0].File != file {
		t.Errorf("%+v", got)
	}

	change("hosts: [web],", "hosts: [web, wbe],")
	code, out, errs = fleetjump(t, "config", "check", "--config", file)
	if code != 0 || out == "" || !strings.HasPrefix(errs, "warning: "+file) || !strings.Contains(errs, `no host matches pattern "wbe"`) {
		t.Errorf("%d, %q, %q", code, out, errs)
	}
	if err := os.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, templates.JumpCAFile), 0o640); err != nil {
		t.Fatal(err)
	}
	code, _, errs = fleetjump(t, "config", "check", "--config", file)
	if code != 2 || !strings.Contains(errs, "hint: chmod 0600 "+dir+"/jump_ca") {
		t.Errorf("%d, %q", code, errs)
	}
	code, _, errs = fleetjump(t, "config", "check", "--config", filepath.Join(dir, "nothing.yaml"))
	if code != 2 || !strings.Contains(errs, "no such file") || !strings.Contains(errs, "hint: fleetca jump init makes one") {
		t.Errorf("%d, %q", code, errs)
	}
}

func TestAccessCheck(t *testing.T) {
	dir := checkFolder(t)
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"--identity joe --login root --host WWW", 0, `joe as root on web1
connect            yes  role web
pty                yes  role web
shell              yes  role web; recorded with input (strict); ends after 8h; ends when idle for 10m
exec               no   no role permits running commands to "joe" as "root" on host "web1"
sftp               yes  role web; recorded with input (strict); ends after 8h; ends when idle for 10m
scp                no   no role permits scp to "joe" as "root" on host "web1"
local_forwarding   no   no role permits local and dynamic port forwarding to "joe" as "root" on host "web1"
remote_forwarding  no   no role permits remote port forwarding to "joe" as "root" on host "web1"
agent_forwarding   no   no role permits agent forwarding to the host to "joe" as "root" on host "web1"
x11                no   no role permits X11 forwarding to "joe" as "root" on host "web1"
reads recordings: own
`},
		{"--identity joe --login root --host db1", 1, `joe as root on db1
connect  no  no role lets "joe" on host "db1"
reads recordings: own
`},
		{"--identity joe --login root --host web1 --action sftp", 0, `joe as root on web1
sftp  yes  role web; recorded with input (strict); ends after 8h; ends when idle for 10m
`},
		{"--identity joe --login root --host web1 --principal joe --action shell", 1, `joe as root on web1
shell  no  login "root" is not among the principals of the certificate of "joe" ("joe")
`},
		{"--identity ann --login root --host db1 --action x11", 0, `ann as root on db1
x11  yes  role admins; recorded (strict)
`},
		{"--identity eve --login root --host db1 --action pty", 1, `eve as root on db1
pty  no  no role is about "eve"
`},
	} {
		code, out, errs := fleetjump(t, append([]string{"access", "check", "--config", filepath.Join(dir, templates.JumpConfigFile)}, strings.Fields(c.args)...)...)
		if code != c.code || out != c.want || errs != "" {
			t.Errorf("%s: %d, %q\n%s\nwant %d\n%s", c.args, code, errs, out, c.code, c.want)
		}
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--identity", "joe", "--login", "root", "--host", "192.0.2.1"}, 1, "hint: people reach hosts by their names"},
		{[]string{"--identity", "joe", "--login", "root", "--host", "nowhere"}, 1, "nowhere"},
		{[]string{"--identity", "joe", "--login", "root", "--host", "web1", "--action", "fly"}, 2, `--action: there is no "fly"; there are connect, pty, shell,`},
		{[]string{"--login", "root", "--host", "web1"}, 2, "--identity"},
		{[]string{"--certificate", dir + "/user_ca.pub", "--login", "root", "--host", "web1"}, 2, "is not a user certificate"},
		{[]string{"--certificate", dir + "/" + templates.JumpHostKeyFile + "-cert.pub", "--login", "root", "--host", "web1"}, 2, "is not a user certificate"},
		{[]string{"--certificate", dir + "/joe-cert.pub", "--principal", "x", "--login", "root", "--host", "web1"}, 2, "exclude each other"},
	} {
		code, out, errs := fleetjump(t, append([]string{"access", "check", "--config", filepath.Join(dir, templates.JumpConfigFile)}, c.args...)...)
		if code != c.code || out != "" && !strings.HasPrefix(out, "Usage:") || !strings.Contains(errs, c.want) {
			t.Errorf("%q: %d, %q, %q", c.args, code, out, errs)
		}
	}
}

// TestAccessCheckCertificate: a certificate tells more than an identity.
func TestAccessCheckCertificate(t *testing.T) {
	dir := checkFolder(t)
	code, out, errs := fleetjump(t, "access", "check", "--config", filepath.Join(dir, templates.JumpConfigFile),
		"--certificate", filepath.Join(dir, "joe-cert.pub"), "--login", "joe", "--host", "web1", "--json")
	var got explained
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 || errs != "" {
		t.Fatalf("%d, %q, %q: %v", code, out, errs, err)
	}
	answers := map[string]answer{}
	for _, a := range got.Answers {
		answers[string(a.Action)] = a
	}
	if got.Identity != "joe" || !got.Allowed || got.Reading.Scope != "own" || len(got.Answers) != 10 {
		t.Errorf("%+v", got)
	}
	if a := answers["shell"]; !a.Allowed || a.RunsAs != "sftp" || a.Recording != "strict" || a.MaxSession != "8h" || a.Idle != "10m" {
		t.Errorf("a shell with sftp forced: %+v", a)
	}
	if a := answers["pty"]; a.Allowed || a.Code != "certificate_extension" {
		t.Errorf("a terminal without the extension: %+v", a)
	}
}
