//go:build linux

// Package testenv runs fleets of real OpenSSH servers for tests and for the
// demonstration.
//
// [Start] brings up any number of sshd processes on loopback, as the current
// user and without root: each has its own port, host keys, sshd_config, folder
// in place of /etc/ssh, pid file and log, and is reloaded by SIGHUP.
// [StartNamespaced] needs root and brings up hosts as people have them: each in
// network, mount, process and hostname namespaces of its own, with an address of
// its own, port 22, the default paths, the init script, and logins that need
// sudo.
//
// # Nothing stays behind
//
// A fleet's processes are started by a supervisor, which is this same program
// started again (see the init function in supervisor.go). It adopts every
// process that sessions leave in the background, and it holds one end of a
// socket whose other end only the process that called Start has. When that end
// closes, through [Fleet.Close] or because the process died in whatever way,
// SIGKILL included, the supervisor kills everything below it, removes network
// links and files, and ends. It runs in a session of its own, so Ctrl-C on the
// terminal doesn't reach it before it has cleaned up.
//
// If the supervisor itself is killed by SIGKILL, the kernel ends the servers
// that it started, and namespaced hosts with all their processes. Running
// sessions of unprivileged servers live on until they end by themselves, and
// links and files remain until the next fleet starts, which removes those whose
// names carry the process id of a dead supervisor (files in its own parent folder).
// /run/sshd, which sshd needs when it runs as root, is made if missing and left.
//
// # What it refuses
//
// It never imports package testing and never prints: it returns errors, and
// these hold the end of the server's log. It never touches the machine's own
// /etc/ssh, sshd or known_hosts. A namespaced host sees the machine's file
// system read-only. It runs on Linux only.
//
// Needed from Debian: openssh-server, openssh-client and openssh-sftp-server;
// for namespaced hosts also iproute2, util-linux, sudo, busybox (for
// [System.Busybox]) and dropbear-bin (for [System.Dropbear]).
package testenv
