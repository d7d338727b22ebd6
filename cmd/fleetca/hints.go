package main

import (
	"errors"

	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/provision"
	"github.com/fleetca/fleetca/provision/plan"
	"github.com/fleetca/fleetca/provision/remote"
)

// hintFor is what a person can do about a host's failure, or "".
func hintFor(err error) string {
	if hint := terminal.HintOf(err); hint != "" {
		return hint
	}
	var (
		unreachable *remote.UnreachableError
		auth        *remote.AuthError
		hostKey     *remote.HostKeyError
		become      *remote.BecomeError
		refusal     *plan.Refusal
		script      *provision.ScriptError
	)
	switch {
	case errors.As(err, &script):
		return scriptHints[script.Reason]
	case errors.As(err, &refusal):
		return refusalHints[refusal.Reason]
	case errors.As(err, &become):
		return becomeHints[become.Reason]
	case errors.As(err, &hostKey):
		return hostKeyHints[hostKey.Reason]
	case errors.As(err, &auth):
		return authHint(auth)
	case errors.As(err, &unreachable):
		if unreachable.Silent {
			return "is the host up, and does a firewall let port 22 through? fleetca inventory show HOST tells which address is used"
		}
		return "fleetca inventory show HOST tells which address and port are used, and why"
	case errors.Is(err, remote.ErrNoSFTP):
		return "the host's sshd_config needs a line: Subsystem sftp internal-sftp"
	}
	return ""
}

func authHint(err *remote.AuthError) string {
	if err.PasswordRefused {
		return "the password is wrong for this login; was it typed right?"
	}
	if len(err.Tried) == 0 {
		return "load a key into ssh-agent, set ansible_ssh_private_key_file, or use --ask-pass"
	}
	return "try: ssh -v LOGIN@HOST; the login comes from ansible_user or ssh_config"
}

var hostKeyHints = map[remote.HostKeyReason]string{
	remote.HostKeyUnknown:       "compare the fingerprint with the host's own (ssh-keygen -lf), then set fleetca_host_key_fingerprints, connect once with ssh, or use --accept-new-host-keys",
	remote.HostKeyChanged:       "if the host was rebuilt, remove the old key: ssh-keygen -R NAME; otherwise somebody may be in between",
	remote.HostKeyRevoked:       "the key is marked @revoked in known_hosts: find out why before anything else",
	remote.HostKeyNotPinned:     "compare the fingerprint with fleetca_host_key_fingerprints in the inventory",
	remote.HostKeyNoCertificate: "look at the host's sshd log: it says why a HostCertificate was not loaded",
	remote.HostKeyWeak:          "the host needs a longer key: ssh-keygen -A on the host makes what is missing",
	remote.HostKeyNotRecorded:   "is known_hosts writable?",
}

var becomeHints = map[remote.BecomeReason]string{
	remote.BecomeMissing:       "log in as root (ansible_user), or install sudo on the host",
	remote.BecomeNotAllowed:    "the login needs a line in sudoers",
	remote.BecomeNeedsPassword: "use --ask-become-pass (-K)",
	remote.BecomeWrongPassword: "was the sudo password typed right? It was tried once, so as not to lock the account",
	remote.BecomeNeedsTerminal: "remove requiretty for this login in sudoers",
}

var refusalHints = map[plan.Reason]string{
	plan.NotOpenSSH:   "only OpenSSH's sshd knows host certificates and TrustedUserCAKeys; leave the host out with --limit '!HOST'",
	plan.TooOld:       "upgrade the host's OpenSSH",
	plan.NoSSHD:       "set fleetca_sshd_config if sshd lives in an unusual place",
	plan.NoRights:     "set ansible_become: true, or log in as root",
	plan.ReadOnly:     "remount the file system, or build the settings into the host's image",
	plan.DiskFull:     "free some space on the host",
	plan.BrokenConfig: "run sshd -t on the host; nothing was changed",
	plan.NoHostKeys:   "run ssh-keygen -A on the host",
	plan.CannotKeep:   "what fleetca can't read or merge it doesn't replace; move it aside on the host, or make it readable",
	plan.OtherCA:      "remove that HostCertificate line on the host if nobody needs the other CA's certificate any more",
}

var scriptHints = map[string]string{
	"busy":        "wait for the other run; one that died is cleaned up by the next run when its time is over",
	"write":       "is there space left on the host, and is /etc/ssh writable? The recap says whether the host was changed",
	"upload":      "the files changed on their way; try again",
	"changed":     "somebody else is changing the host's sshd configuration; try again when they are done",
	"refused":     "run sshd -t on the host: somebody may be editing its configuration. Nothing was changed",
	"effective":   "fleetca would have changed more than its own settings; please report this with the host's sshd_config. Nothing was changed",
	"reload":      "set fleetca_reload to the command that reloads sshd on this host",
	"rolled_back": "the proof took longer than --rollback-after; give it more time",
}
