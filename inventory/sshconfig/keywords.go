package sshconfig

import (
	"errors"
	"slices"
	"strings"

	"github.com/fleetca/fleetca/inventory"
)

// kind says what a keyword is to us. A keyword that isn't in the table is
// unknown, and an error unless IgnoreUnknown names it.
type kind int

const (
	unknown  kind = iota
	harmless      // concerns nothing that we do
	single        // one argument, first value wins
	several       // one argument, every line adds
	list          // several arguments on one line, first line wins
	whole         // the rest of the line, first value wins
	refused       // matters and can't be honoured, but for the value in harmlessValue
)

var keywords = func() map[string]kind {
	table := map[string]kind{}
	for k, names := range map[kind]string{
		single: `hostname port user identitiesonly identityagent hostkeyalias stricthostkeychecking
			connecttimeout addressfamily hashknownhosts pubkeyauthentication passwordauthentication
			kbdinteractiveauthentication challengeresponseauthentication skeyauthentication
			tisauthentication preferredauthentications ciphers macs kexalgorithms
			hostkeyalgorithms requiredrsasize ignoreunknown`,
		several: `identityfile identityfile2 certificatefile`,
		list:    `userknownhostsfile globalknownhostsfile`,
		whole:   `proxyjump proxycommand`,
		refused: `bindaddress bindinterface canonicalizehostname checkhostip revokedhostkeys
			knownhostscommand pkcs11provider smartcarddevice pubkeyacceptedalgorithms
			pubkeyacceptedkeytypes casignaturealgorithms refuseconnection`,
		harmless: `addkeystoagent batchmode canonicaldomains canonicalizefallbacklocal
			canonicalizemaxdots canonicalizepermittedcnames channeltimeout cipher clearallforwardings
			compression compressionlevel connectionattempts controlmaster controlpath controlpersist
			dynamicforward enableescapecommandline enablesshkeysign escapechar exitonforwardfailure
			fallbacktorsh fingerprinthash forkafterauthentication forwardagent forwardx11
			forwardx11timeout forwardx11trusted gatewayports globalknownhostsfile2
			gssapiauthentication gssapiclientidentity gssapidelegatecredentials gssapikexalgorithms
			gssapikeyexchange gssapirenewalforcesrekey gssapiserveridentity gssapitrustdns
			hostbasedacceptedalgorithms hostbasedauthentication hostbasedkeytypes ipqos
			kbdinteractivedevices localcommand localforward loglevel logverbose
			nohostauthenticationforlocalhost numberofpasswordprompts obscurekeystroketiming
			permitlocalcommand permitremoteopen protocol proxyusefdpass rekeylimit remotecommand
			remoteforward requesttty rhostsauthentication rhostsrsaauthentication rsaauthentication
			securitykeyprovider sendenv serveralivecountmax serveraliveinterval sessiontype setenv
			stdinnull streamlocalbindmask streamlocalbindunlink syslogfacility tag tcpkeepalive tunnel
			tunneldevice updatehostkeys usekeychain useprivilegedport userknownhostsfile2 useroaming
			usersh verifyhostkeydns versionaddendum visualhostkey warnweakcrypto xauthlocation`,
	} {
		for name := range strings.FieldsSeq(names) {
			table[name] = k
		}
	}
	return table
}()

// aliases are old names of keywords.
var aliases = map[string]string{
	"identityfile2":                   "identityfile",
	"challengeresponseauthentication": "kbdinteractiveauthentication",
	"skeyauthentication":              "kbdinteractiveauthentication",
	"tisauthentication":               "kbdinteractiveauthentication",
}

// harmlessValue reports whether a refused keyword has a value that changes
// nothing for us.
func harmlessValue(keyword, value string) bool {
	args, _ := splitArguments(value)
	if len(args) != 1 {
		return false
	}
	switch value = args[0]; keyword {
	case "canonicalizehostname", "checkhostip":
		no, err := parseFlag(value)
		return err == nil && !no
	case "revokedhostkeys", "knownhostscommand", "pkcs11provider":
		return strings.EqualFold(value, "none")
	case "pubkeyacceptedalgorithms", "pubkeyacceptedkeytypes", "casignaturealgorithms":
		// More algorithms, or another order of preference: ours stay allowed.
		return strings.HasPrefix(value, "+") || strings.HasPrefix(value, "^") || allowsOurs(value)
	}
	return false
}

// ours are the signature algorithms that fleetca uses. Those of certificates
// are these, too, with a name of their own.
var ours = []string{
	"ssh-ed25519", "sk-ssh-ed25519@openssh.com", "rsa-sha2-256", "rsa-sha2-512",
	"ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "sk-ecdsa-sha2-nistp256@openssh.com",
	"ssh-ed25519-cert-v01@openssh.com", "sk-ssh-ed25519-cert-v01@openssh.com",
	"rsa-sha2-256-cert-v01@openssh.com", "rsa-sha2-512-cert-v01@openssh.com",
	"ecdsa-sha2-nistp256-cert-v01@openssh.com", "ecdsa-sha2-nistp384-cert-v01@openssh.com",
	"ecdsa-sha2-nistp521-cert-v01@openssh.com", "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
}

// allowsOurs says whether a plain list of algorithms, such as the one that a
// distribution's policy puts into the system's file, has some that are ours.
// Such a list is there to keep weak ones out, which we don't have at all.
func allowsOurs(list string) bool {
	patterns := strings.Split(list, ",")
	return !strings.HasPrefix(list, "-") && slices.ContainsFunc(ours, func(algorithm string) bool {
		return MatchPatterns(algorithm, patterns)
	})
}

// setting is a value and where it was obtained.
type setting struct {
	value string
	args  []string
	at    *line // nil for an Override
	// understood says that a ProxyCommand could be taken for a ProxyJump.
	understood bool
}

func (s *setting) errorf(format string, args ...any) error {
	at := s.at
	if at == nil {
		at = &line{path: "inventory", written: "setting"}
	}
	return at.errorf(format, args...)
}

// values is what has been obtained for one host so far.
type values struct {
	name     string
	single   map[string]*setting
	identity []*setting
	certs    []*setting
	hops     []Hop
	resolved string
}

func newValues(name string, over Override) (*values, error) {
	v := &values{name: name, single: map[string]*setting{}}
	if over.HostName != "" {
		v.single["hostname"] = &setting{value: strings.ReplaceAll(over.HostName, "%", "%%")}
	}
	if over.User != "" {
		v.single["user"] = &setting{value: over.User}
	}
	if over.Port != 0 {
		v.single["port"] = &setting{value: itoa(over.Port)}
	}
	if over.IdentityFile != "" {
		v.identity = []*setting{{value: over.IdentityFile}}
	}
	switch {
	case len(over.Hops) > 0:
		v.hops = slices.Clone(over.Hops)
		v.single["proxyjump"] = &setting{value: "hops"}
	case over.ProxyJump != "":
		hops, err := parseJump(over.ProxyJump)
		if err != nil {
			return nil, err
		}
		v.hops = hops
		v.single["proxyjump"] = &setting{value: over.ProxyJump}
	}
	return v, nil
}

// apply takes one line that applies to the host.
func (v *values) apply(l *line) error {
	keyword := l.keyword
	if a, ok := aliases[keyword]; ok {
		keyword = a
	}
	switch keywords[l.keyword] {
	case harmless:
		return nil
	case refused:
		if !harmlessValue(keyword, l.rest) {
			return l.errorf("can't be honoured here")
		}
		return nil
	case single, several:
		if len(l.args) != 1 || l.args[0] == "" {
			return l.errorf("takes one argument, not %d", len(l.args))
		}
	case list:
		if err := checkList(l); err != nil {
			return err
		}
	case whole:
		return v.applyProxy(l)
	case unknown:
		if s := v.single["ignoreunknown"]; s != nil && matchList(keyword, strings.ToLower(s.value)) {
			return nil
		}
		return l.errorf("unknown keyword")
	}
	s := &setting{value: l.args[0], args: l.args, at: l}
	switch keywords[l.keyword] {
	case several:
		if keyword == "identityfile" {
			v.identity = add(v.identity, s)
		} else {
			v.certs = add(v.certs, s)
		}
	default:
		if err := checkSingle(keyword, s); err != nil {
			return err
		}
		// To ssh, a time of none is as good as none said.
		said := keyword != "connecttimeout" || s.value != "none"
		if said && v.single[keyword] == nil {
			v.single[keyword] = s
		}
	}
	return nil
}

// add appends a file unless it is there already, as ssh does.
func add(list []*setting, s *setting) []*setting {
	for _, have := range list {
		if have.value == s.value {
			return list
		}
	}
	return append(list, s)
}

func checkList(l *line) error {
	for _, arg := range l.args {
		if arg == "" {
			return l.errorf("empty argument")
		}
		if strings.EqualFold(arg, "none") && len(l.args) > 1 {
			return l.errorf("%q must stand alone", "none")
		}
	}
	if len(l.args) == 0 {
		return l.errorf("no argument")
	}
	return nil
}

// applyProxy handles ProxyJump and ProxyCommand, of which the first one given
// shuts out the other.
func (v *values) applyProxy(l *line) error {
	value := l.rest
	if l.keyword == "proxyjump" {
		// ssh cuts at any #, even inside a word.
		value, _, _ = strings.Cut(value, "#")
		value = strings.TrimRight(value, blanks)
		if _, err := parseJump(value); err != nil {
			return l.errorf("%w", err)
		}
	}
	if v.single["proxyjump"] != nil || v.single["proxycommand"] != nil {
		return nil
	}
	s := &setting{value: value, at: l}
	v.single[l.keyword] = s
	if l.keyword == "proxycommand" {
		// What is no jump host is refused when the settings are put together.
		value, s.understood = inventory.JumpOfCommand(value)
		if !s.understood {
			return nil
		}
	}
	hops, err := parseJump(value)
	if err != nil {
		return l.errorf("%w", err)
	}
	v.hops = hops
	return nil
}

// parseJump reads what ProxyJump and -J take. "none" gives no hops.
func parseJump(s string) ([]Hop, error) {
	if strings.EqualFold(s, "none") {
		return nil, nil
	}
	var hops []Hop
	for word := range strings.SplitSeq(s, ",") {
		hop, err := parseHop(word)
		if err != nil {
			return nil, err
		}
		hops = append(hops, hop)
	}
	return hops, nil
}

// parseHop reads [user@]host[:port] or ssh://[user@]host[:port].
func parseHop(s string) (Hop, error) {
	bad := errors.New("jump host " + quote(s) + " is not [user@]host[:port]")
	rest, uri := strings.CutPrefix(s, "ssh://")
	if uri {
		rest = strings.TrimSuffix(rest, "/")
	}
	var hop Hop
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		if hop.User, rest = rest[:at], rest[at+1:]; hop.User == "" {
			return Hop{}, bad
		}
	}
	host, port, hasPort := rest, "", false
	if inner, ok := strings.CutPrefix(rest, "["); ok {
		var closed bool
		if host, rest, closed = strings.Cut(inner, "]"); !closed {
			return Hop{}, bad
		}
		if rest != "" {
			if port, hasPort = strings.CutPrefix(rest, ":"); !hasPort {
				return Hop{}, bad
			}
		}
	} else if strings.Count(rest, ":") == 1 {
		host, port, hasPort = strings.Cut(rest, ":")
	}
	if hop.Host = host; host == "" || strings.ContainsAny(host, "[]") || checkDestination(host) != nil || checkUser(hop.User) != nil {
		return Hop{}, bad
	}
	if hasPort {
		n, err := parsePort(port)
		if err != nil {
			return Hop{}, bad
		}
		hop.Port = n
	}
	return hop, nil
}
