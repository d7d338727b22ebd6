package inventory

import (
	"strings"
	"testing"
)

func TestJumpOfCommand(t *testing.T) {
	for command, want := range map[string]string{
		"none":                                  "none",
		"ssh -W %h:%p bastion":                  "bastion",
		"ssh -q -W %h:%p deploy@bastion":        "deploy@bastion",
		"ssh bastion -W %h:%p":                  "bastion",
		"/usr/bin/ssh -W '[%h]:%p' -p22 -q b-1": "b-1:22",
		`ssh -W "%h:%p" -p 2222 u@fe80::1`:      "u@[fe80::1]:2222",
		"ssh  -W%h:%p\tbastion.example.com":     "bastion.example.com",
	} {
		if got, ok := JumpOfCommand(command); !ok || got != want {
			t.Errorf("%q: %q, %v; want %q", command, got, ok, want)
		}
	}
	for _, command := range []string{
		"", "ssh", "nc %h %p", "ssh bastion nc %h %p", "ssh -W %h:%p", "ssh -W %h:22 bastion", "ssh -W", "ssh -W %h:%p -p",
		"ssh -W %h:%p -p x bastion", "ssh -A -W %h:%p bastion", "ssh -i key -W %h:%p bastion", "ssh -o X=y -W %h:%p bastion",
		"ssh -F x -W %h:%p bastion", "ssh -W %h:%p %r@bastion", "ssh -W %h:%p bastion;id", "ssh -W %h:%p $(id)", "ssh -W %h:%p `id`",
		"ssh -W %h:%p bastion 2>/dev/null", "ssh -W %h:%p a,b", "ssh -W %h:%p a b", "ssh -W %h:%p @b", "ssh -W %h:%p a@", "ssh -W %h:%p a@b@c",
		"ssh -W %h:%p ''", "ssh -W %h:%p ssh://a", "ssh -W %h:%p [::1]", "ssh -W %h:%p 'a", "ssh -W %h:%p -W %h:%p a", "ssh -W %h:%p -- a",
		"ssh -W %h:%p ~a", "ssh -W %h:%p none", "exec ssh -W %h:%p a", "./ssh -W %h:%p a", "ssh -W %h:%p bastion # home",
	} {
		if got, ok := JumpOfCommand(command); ok {
			t.Errorf("%q is taken for %q", command, got)
		}
	}
}

// FuzzJumpOfCommand holds that what comes out is one jump host, or none.
func FuzzJumpOfCommand(f *testing.F) {
	for _, seed := range []string{"none", "ssh -W %h:%p -q -p 22 a@b", "ssh -W '[%h]:%p' ::1", "ssh 'a", "nc"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, command string) {
		jump, ok := JumpOfCommand(command)
		if ok && (jump == "" || strings.HasPrefix(jump, "-") || strings.ContainsAny(jump, " \t\n,%$`;&|<>()'\"\\/~#*?!")) {
			t.Errorf("%q gives %q", command, jump)
		}
	})
}
