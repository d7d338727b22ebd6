package templates

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const testNonce = "0123456789ABCDEFGHIJ"

// renderings are the run's scripts in each of their shapes, with values that a
// shell would trip over were they not quoted.
func renderings(t *testing.T) map[string]string {
	t.Helper()
	dir := "/etc/it's $(here)/fleetca"
	hup := Reload{Run: "r1", PID: 42, PIDFile: "/run/ss hd.pid", SSHD: "/usr/sbin/sshd", ConfigFile: "/etc/ssh/sshd_config", Unit: "ssh.service"}
	commit := Commit{
		Run: "r1", Nonce: testNonce, Dir: dir, Stage: "/home/o'neil/.stage", SSHD: "/usr/sbin/sshd",
		ConfigFile: "/etc/ssh/sshd_config", Spec: "user=o'neil,host=::1,addr=::1,laddr=::1,lport=22", HoldMinutes: 3,
		Uploaded: []Digest{{strings.Repeat("a", 64), "user_ca.pub"}}, Reloads: true, Reload: hup,
	}
	full := commit
	full.Files, full.Replaced = []string{"user_ca.pub", "a b-cert.pub"}, []string{"a b-cert.pub"}
	full.Previous, full.Created = []Digest{{strings.Repeat("b", 64), dir + "/a b-cert.pub"}}, []string{dir + "/user_ca.pub"}
	full.Config = &ConfigFile{Path: "/etc/ssh/sshd_config.d/00-fleetca.conf", Folder: "/etc/ssh/sshd_config.d", MakeFolder: true}
	full.Candidate, full.Expected, full.Rollback = "Banner it's\r\nPort 22", []string{"banner it's", "port 22"}, "#!/bin/sh\n"
	block := full
	block.Config = &ConfigFile{Path: "/etc/ssh/sshd_config", Folder: "/etc/ssh", Exists: true, SHA256: strings.Repeat("c", 64), WasSHA256: strings.Repeat("d", 64)}
	block.Reload = Reload{Run: "r1", Command: "rc-service sshd reload && echo 'done'", SSHD: "/usr/sbin/sshd", ConfigFile: "/etc/ssh/sshd_config"}
	keysOnly := commit
	keysOnly.Files, keysOnly.Reloads = []string{"user_ca.pub"}, false
	systemd := commit
	systemd.Reload = Reload{Run: "r1", Unit: "sshd.service"}
	initScript := commit
	initScript.Reload = Reload{Run: "r1", Script: "/etc/init.d/ssh"}
	inetd := commit
	inetd.Reload = Reload{Run: "r1", SSHD: "/usr/sbin/sshd", ConfigFile: "/etc/ssh/sshd_config"}
	reloadOnly := commit
	reloadOnly.Uploaded, reloadOnly.Stage = nil, ""
	rollback := func(c Commit) Rollback {
		return Rollback{
			Run: c.Run, Dir: c.Dir, RollbackSeconds: 60, Config: c.Config, Replaced: c.Replaced,
			CreatedFiles: []string{"user_ca.pub"}, Reloads: c.Reloads, Reload: c.Reload,
		}
	}
	out := map[string]string{}
	for name, r := range map[string]interface{ Render() (string, error) }{
		"commit": commit, "commit full": full, "commit block": block, "commit keys": keysOnly, "commit reload": reloadOnly,
		"commit systemd": systemd, "commit init": initScript, "commit inetd": inetd,
		"rollback": rollback(commit), "rollback full": rollback(full), "rollback block": rollback(block),
		"confirm": Confirm{Run: "r1", Nonce: testNonce, Dir: dir, Stage: "/s"}, "confirm backup": Confirm{Run: "r1", Nonce: testNonce, Dir: dir, Stage: "/s", Keep: true, ConfigName: "sshd_config"},
		"undo": Undo{"r1", testNonce, dir, full.Previous}, "recover": Recover{testNonce, dir},
	} {
		text, err := r.Render()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out[name] = text
	}
	return out
}

func TestRunScriptsAreShell(t *testing.T) {
	for name, text := range renderings(t) {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "script.sh")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, shell := range [][]string{
				{"dash", "-n", file},
				{"bash", "--posix", "-n", file},
				{"busybox", "sh", "-n", file},
				// SC2016: the $(here) of the test's own folder.
				// SC2317: functions that only some shapes call.
				// SC3013: -ef is in every shell that sshd hosts have.
				// SC2034: variables that only some shapes use.
				{"shellcheck", "-s", "sh", "-e", "SC2016,SC2317,SC3013,SC2034", file},
			} {
				if out, err := exec.Command(shell[0], shell[1:]...).CombinedOutput(); err != nil {
					t.Errorf("%s: %v\n%s", strings.Join(shell[:2], " "), err, out)
				}
			}
		})
	}
}

func TestRunScriptsRefuse(t *testing.T) {
	for name, r := range map[string]interface{ Render() (string, error) }{
		"newline in a folder":   Confirm{Run: "r1", Nonce: testNonce, Dir: "/etc/ssh\nrm -rf /", Stage: "/s"},
		"relative folder":       Confirm{Run: "r1", Nonce: testNonce, Dir: "etc", Stage: "/s"},
		"run ID with a slash":   Confirm{Run: "../r1", Nonce: testNonce, Dir: "/etc/ssh", Stage: "/s"},
		"short nonce":           Confirm{Run: "r1", Nonce: "x", Dir: "/etc/ssh", Stage: "/s"},
		"file outside":          Commit{Run: "r1", Nonce: testNonce, Dir: "/d", Stage: "/s", SSHD: "/sshd", ConfigFile: "/c", Files: []string{"../x"}},
		"file that is a switch": Commit{Run: "r1", Nonce: testNonce, Dir: "/d", Stage: "/s", SSHD: "/sshd", ConfigFile: "/c", Files: []string{"-rf"}},
		"rollback at once":      Rollback{Run: "r1", Dir: "/d"},
		"reload with a newline": Rollback{Run: "r1", Dir: "/d", RollbackSeconds: 1, Reloads: true, Reload: Reload{Command: "a\nb"}},
	} {
		if text, err := r.Render(); err == nil {
			t.Errorf("%s: rendered %q", name, text)
		}
	}
	if text, err := (DropIn{UserCAFile: "/etc/ssh/a\nPermitRootLogin yes"}).Render(); err == nil {
		t.Errorf("newline in a path: rendered %q", text)
	}
}
