package inventory

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

// hostWith builds a host with variables said in hosts.yaml, line 7.
func hostWith(t *testing.T, vars map[string]any) *Host {
	t.Helper()
	b := NewBuilder()
	at := Position{File: "hosts.yaml", Line: 7}
	if err := b.AddHost("web1", "ungrouped", 0, at); err != nil {
		t.Fatal(err)
	}
	for name, value := range vars {
		if err := b.Set("web1", name, Variable{Value: value, Position: at}); err != nil {
			t.Fatal(err)
		}
	}
	inv, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	h, _ := inv.Host("web1")
	return h
}

const fingerprint = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"

func TestSettings(t *testing.T) {
	for _, test := range []struct {
		name string
		vars map[string]any
		want Settings
	}{
		{"nothing", nil, Settings{}},
		{"null is nothing", map[string]any{"ansible_host": nil, "ansible_port": nil, "ansible_become": nil, "fleetca_labels": nil, "fleetca_principals": nil}, Settings{}},
		{"yaml", map[string]any{
			"ansible_host": "192.0.2.1", "ansible_port": int64(2222), "ansible_user": "admin", "ansible_ssh_private_key_file": "~/.ssh/id",
			"ansible_become": true, "ansible_become_user": "root", "ansible_become_method": "sudo",
			"fleetca_principals": []any{"web1", "web1.example.com"}, "fleetca_labels": map[string]any{"env": "prod", "rack": int64(5), "canary": true},
			"fleetca_sshd_config": "/opt/ssh/sshd_config", "fleetca_reload": "systemctl reload ssh", "fleetca_host_key_fingerprints": []any{fingerprint}, "fleetca_cert_ttl": "30d",
		}, Settings{
			Address: "192.0.2.1", Port: 2222, User: "admin", PrivateKeyFile: "~/.ssh/id", Become: true, BecomeUser: "root", BecomeMethod: "sudo",
			Principals: []string{"web1", "web1.example.com"}, Labels: map[string]string{"env": "prod", "rack": "5", "canary": "true"},
			SSHDConfig: "/opt/ssh/sshd_config", Reload: "systemctl reload ssh", HostKeyFingerprints: []string{fingerprint}, CertTTL: "30d",
		}},
		{
			"texts, as INI has them",
			map[string]any{"ansible_port": "22", "ansible_become": "Yes", "fleetca_principals": "a, b.example.com", "fleetca_labels": "env=prod, team=web", "fleetca_host_key_fingerprints": fingerprint},
			Settings{Port: 22, Become: true, Principals: []string{"a", "b.example.com"}, Labels: map[string]string{"env": "prod", "team": "web"}, HostKeyFingerprints: []string{fingerprint}},
		},
		{
			"the later name wins, as in Ansible",
			map[string]any{"ansible_host": "a", "ansible_ssh_host": "b", "ansible_port": int64(1), "ansible_ssh_port": int64(2), "ansible_user": "u", "ansible_ssh_user": "v", "ansible_private_key_file": "k", "ansible_ssh_private_key_file": "l"},
			Settings{Address: "b", Port: 2, User: "v", PrivateKeyFile: "l"},
		},
		{"unsafe text is no template", map[string]any{"fleetca_reload": Unsafe("echo {{")}, Settings{Reload: "echo {{"}},
		{"templates elsewhere don't matter", map[string]any{"motd": "{{ x }}", "secret": Vault("x")}, Settings{}},
		{"jump", map[string]any{"ansible_ssh_common_args": "-C -o ControlMaster=auto -o ProxyJump=a@b:22,c"}, Settings{ProxyJump: "a@b:22,c"}},
		{"jump, other forms", map[string]any{"ansible_ssh_extra_args": `-o "ProxyJump b"`}, Settings{ProxyJump: "b"}},
		{"jump, first wins", map[string]any{"ansible_ssh_common_args": "-Jx", "ansible_ssh_extra_args": "-oproxyjump=y -J z"}, Settings{ProxyJump: "x"}},
		{"jump by a command", map[string]any{"ansible_ssh_common_args": `-o ForwardAgent=yes -o ProxyCommand="ssh -W %h:%p -q -p 2222 a@b"`}, Settings{ProxyJump: "a@b:2222"}},
		{"jump by a command, first wins", map[string]any{"ansible_ssh_common_args": `-o 'ProxyCommand ssh b -W %h:%p' -J c`}, Settings{ProxyJump: "b"}},
		{"method in full", map[string]any{"ansible_become_method": "ansible.builtin.sudo", "ansible_connection": "ssh"}, Settings{BecomeMethod: "sudo"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := hostWith(t, test.vars).Settings()
			if err != nil || !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, %v\nwant %+v", got, err, test.want)
			}
		})
	}
}

func TestSettingsRefused(t *testing.T) {
	for _, test := range []struct {
		variable string
		value    any
		want     string
	}{
		{"ansible_host", "{{ ip }}", `"{{ ip }}" is a Jinja template`},
		{"ansible_host", "{% if x %}", "is a Jinja template"},
		{"ansible_host", "-oProxyCommand=x", "starts with a dash"},
		{"ansible_host", "a b", "white space"},
		{"ansible_host", "a\nb", "control character"},
		{"ansible_host", []any{"a"}, "must be a single value"},
		{"ansible_user", Vault("x"), "encrypted with ansible-vault"},
		{"ansible_user", true, "is the truth value true; put it in quotes"},
		{"ansible_user", 1.5, "is the number 1.5; put it in quotes"},
		{"ansible_user", "-l", "starts with a dash"},
		{"ansible_port", int64(0), "not a port"},
		{"ansible_port", int64(65536), "not a port"},
		{"ansible_port", "ssh", "not a port"},
		{"ansible_port", int64(-22), "not a port"},
		{"ansible_become", "maybe", "not a truth value"},
		{"ansible_become", 1.0, "not a truth value"},
		{"ansible_become_method", "doas", `"doas" is not supported`},
		{"ansible_become_user", "-i", "starts with a dash"},
		{"ansible_connection", "local", "is not SSH"},
		{"ansible_ssh_common_args", "-o StrictHostKeyChecking=no", "the ssh option StrictHostKeyChecking is not supported"},
		{"ansible_ssh_common_args", "-o ProxyCommand='nc %h %p'", "this ProxyCommand is not supported"},
		{"ansible_ssh_common_args", "-o ProxyCommand='ssh -i key -W %h:%p x'", "this ProxyCommand is not supported"},
		{"ansible_ssh_common_args", "-F x", "the ssh argument -F is not supported"},
		{"ansible_ssh_common_args", "-J", "-J has no value"},
		{"ansible_ssh_common_args", "-o ProxyJump=", "ProxyJump has no value"},
		{"ansible_ssh_common_args", "-o 'x", "a quote is not closed"},
		{"fleetca_principals", []any{"*"}, "wildcard"},
		{"fleetca_principals", []any{"a,b"}, "comma"},
		{"fleetca_principals", []any{""}, "empty item"},
		{"fleetca_principals", "a,,b", "empty item"},
		{"fleetca_principals", []any{"a", "{{ x }}"}, "Jinja"},
		{"fleetca_labels", []any{"a"}, "must be a mapping"},
		{"fleetca_labels", "prod", "not of the form key=value"},
		{"fleetca_labels", map[string]any{"a b": "c"}, "can't be the key of a label"},
		{"fleetca_labels", map[string]any{"a": []any{}}, "must be a single value"},
		{"fleetca_sshd_config", "etc/sshd_config", "not a clean absolute path"},
		{"fleetca_sshd_config", "/etc/../x", "not a clean absolute path"},
		{"fleetca_host_key_fingerprints", "MD5:00", "not of the form SHA256:"},
		{"fleetca_reload", "a\nb", "control character"},
		{"fleetca_principal", "web1", "is not a variable that fleetca knows"},
	} {
		_, err := hostWith(t, map[string]any{test.variable: test.value}).Settings()
		var setting *SettingError
		if !errors.As(err, &setting) || setting.Variable != test.variable || !strings.Contains(setting.Problem, test.want) {
			t.Errorf("%s %v: got %v, want %q", test.variable, test.value, err, test.want)
		} else if !strings.HasPrefix(err.Error(), "hosts.yaml:7: "+test.variable+` of host "web1": `) {
			t.Errorf("the error doesn't say where: %v", err)
		}
	}
}
