package sshdconfig

// Canonical is the name that sshd -T prints for a keyword, in lower case.
func Canonical(keyword string) string {
	keyword = lower(keyword)
	if name, ok := aliases[keyword]; ok {
		return name
	}
	return keyword
}

// aliases are older names that sshd still takes.
var aliases = map[string]string{
	"challengeresponseauthentication": "kbdinteractiveauthentication",
	"dsaauthentication":               "pubkeyauthentication",
	"hostbasedacceptedkeytypes":       "hostbasedacceptedalgorithms",
	"hostdsakey":                      "hostkey",
	"keepalive":                       "tcpkeepalive",
	"pubkeyacceptedkeytypes":          "pubkeyacceptedalgorithms",
	"skeyauthentication":              "kbdinteractiveauthentication",
}

// accumulates are the keywords of which every setting counts.
var accumulates = map[string]bool{
	"acceptenv":       true,
	"allowgroups":     true,
	"allowusers":      true,
	"denygroups":      true,
	"denyusers":       true,
	"hostcertificate": true,
	"hostkey":         true,
	"listenaddress":   true,
	"port":            true,
	"subsystem":       true,
}

// lastWins are the few keywords for which sshd forgot to look whether they
// were set before.
var lastWins = map[string]bool{
	"fingerprinthash":     true,
	"ipqos":               true,
	"streamlocalbindmask": true,
}

// restOfLine are the keywords whose value is the line as it stands.
var restOfLine = map[string]bool{
	"authorizedkeyscommand":       true,
	"authorizedprincipalscommand": true,
	"forcecommand":                true,
	"versionaddendum":             true,
}
