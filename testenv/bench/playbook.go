//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
)

// playbook does with Ansible what fleetca provision does, without the rollback
// and without the second proof, in the way that roles for SSH CAs do it.
const playbook = `- hosts: all
  gather_facts: false
  vars:
    keys: [ed25519, ecdsa, rsa]
  tasks:
    - name: folder
      file: {path: "{{ bench_dir }}/fleetca", state: directory, mode: "0755"}
    - name: user CA keys
      copy: {src: %[1]q, dest: "{{ bench_dir }}/fleetca/user_ca.pub", mode: "0644"}
    - name: host keys
      slurp: {src: "{{ bench_dir }}/ssh_host_{{ item }}_key.pub"}
      loop: "{{ keys }}"
      register: public
      loop_control: {label: "{{ item }}"}
    - name: keep the host keys
      copy: {content: "{{ item.content | b64decode }}", dest: "%[2]s/{{ inventory_hostname }}-{{ item.item }}.pub"}
      delegate_to: localhost
      loop: "{{ public.results }}"
      loop_control: {label: "{{ item.item }}"}
    - name: sign
      command:
        cmd: ssh-keygen -q -s %[3]q -h -I {{ inventory_hostname }} -n {{ inventory_hostname }} -V +90d %[2]s/{{ inventory_hostname }}-{{ item }}.pub
        creates: "%[2]s/{{ inventory_hostname }}-{{ item }}-cert.pub"
      delegate_to: localhost
      loop: "{{ keys }}"
    - name: certificates
      copy: {src: "%[2]s/{{ inventory_hostname }}-{{ item }}-cert.pub", dest: "{{ bench_dir }}/fleetca/ssh_host_{{ item }}_key-cert.pub", mode: "0644"}
      loop: "{{ keys }}"
      notify: reload
    - name: settings
      copy:
        dest: "{{ bench_dir }}/sshd_config.d/00-fleetca.conf"
        content: |
          TrustedUserCAKeys {{ bench_dir }}/fleetca/user_ca.pub
          {%% for key in keys %%}
          HostCertificate {{ bench_dir }}/fleetca/ssh_host_{{ key }}_key-cert.pub
          {%% endfor %%}
      notify: reload
    - name: check
      command: /usr/sbin/sshd -t -f {{ fleetca_sshd_config }}
      changed_when: false
    - meta: flush_handlers
    - name: what is presented
      command: ssh-keyscan -c -t ed25519 -p {{ ansible_port }} {{ ansible_host }}
      delegate_to: localhost
      register: shown
      changed_when: false
      failed_when: "'cert' not in shown.stdout"
      retries: 5
      delay: 1
      until: "'cert' in shown.stdout"
  handlers:
    - name: reload
      shell: kill -HUP $(cat {{ bench_pid }})
`

const ansibleConfig = `[defaults]
forks = 25
stdout_callback = minimal
[ssh_connection]
pipelining = True
ssh_args = -F %s -o ControlMaster=auto -o ControlPersist=60s
control_path_dir = %s
`

func (b *bench) writePlaybook() error {
	return errors.Join(
		os.MkdirAll(b.path("signed"), 0o700),
		os.MkdirAll(b.path("cm"), 0o700),
		os.WriteFile(b.path("playbook.yaml"), fmt.Appendf(nil, playbook, b.path("ca/user_ca.pub"), b.path("signed"), b.path("ca/host_ca")), 0o600),
		os.WriteFile(b.path("ansible.cfg"), fmt.Appendf(nil, ansibleConfig, b.path("ssh_config"), b.path("cm")), 0o600),
	)
}
