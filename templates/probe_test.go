package templates

import (
	"os/exec"
	"strings"
	"testing"
)

const probeNonce = "0123456789abcdef"

func TestProbeRefusals(t *testing.T) {
	for _, test := range []struct {
		probe Probe
		want  string
	}{
		{Probe{Login: "root"}, "Nonce"},
		{Probe{Nonce: "short", Login: "root"}, "Nonce"},
		{Probe{Nonce: probeNonce + "'", Login: "root"}, "Nonce"},
		{Probe{Nonce: probeNonce}, "Login"},
		{Probe{Nonce: probeNonce, Login: "a,addr=::1"}, "Login"},
		{Probe{Nonce: probeNonce, Login: "a\nb"}, "control character"},
		{Probe{Nonce: probeNonce, Login: "root", ConfigFile: "sshd_config"}, "ConfigFile"},
		{Probe{Nonce: probeNonce, Login: "root", ConfigFile: "/etc/../x"}, "ConfigFile"},
		{Probe{Nonce: probeNonce, Login: "root", ConfigFile: "/etc/\x1b"}, "ConfigFile"},
		{Probe{Nonce: probeNonce, Login: "root", Files: []string{"x"}}, "Files"},
		{Probe{Nonce: probeNonce, Login: "root", Files: []string{"/x\n"}}, "Files"},
	} {
		if _, err := test.probe.Render(); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: got %v, want %s", test.probe, err, test.want)
		}
	}
}

// TestProbeShellcheck has shellcheck read the probe as a script for any POSIX
// shell, with values that need quoting.
func TestProbeShellcheck(t *testing.T) {
	script, err := Probe{
		Nonce: probeNonce, Login: `it's "odd"`, ConfigFile: "/etc/it's ssh/sshd_config", Files: []string{"/a b", "/c"},
	}.Render()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("shellcheck", "-s", "sh", "-")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("shellcheck: %v\n%s", err, out)
	}
	for _, shell := range [][]string{{"dash", "-n"}, {"bash", "--posix", "-n"}, {"busybox", "sh", "-n"}} {
		cmd := exec.Command(shell[0], shell[1:]...)
		cmd.Stdin = strings.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", shell[0], err, out)
		}
	}
}
