package inventory

import (
	"errors"
	"strings"
)

// harmless are options of ssh that change nothing about whom a connection
// reaches or how it is proven, so that fleetca can leave them out.
var harmless = map[string]bool{
	"controlmaster": true, "controlpersist": true, "controlpath": true,
	"compression": true, "serveraliveinterval": true, "serveralivecountmax": true,
	"tcpkeepalive": true, "loglevel": true,
	"forwardagent": true, // an agent is never forwarded, whatever is said
}

// proxyJump reads the ssh arguments that Ansible would put on ssh's command
// line. The first ProxyJump wins, as it does there.
func (r *reader) proxyJump(names []string) string {
	jump := ""
	for _, name := range names {
		words, err := splitWords(r.text(name))
		if err != nil {
			r.fail(name, "%s", err)
		}
		found, problem := jumpOf(words)
		if problem != "" {
			r.fail(name, "%s", problem)
		}
		if jump == "" {
			jump = found
		}
	}
	return jump
}

// jumpOf finds the value of -J, -o ProxyJump or a ProxyCommand that means the
// same, and says what else there is that fleetca can't honour.
func jumpOf(words []string) (jump, problem string) {
	for len(words) > 0 {
		word := words[0]
		words = words[1:]
		if word == "-C" || word == "-q" {
			continue
		}
		flag, value := word, ""
		if len(word) > 2 && (strings.HasPrefix(word, "-o") || strings.HasPrefix(word, "-J")) {
			flag, value = word[:2], word[2:]
		} else if word == "-o" || word == "-J" {
			if len(words) == 0 {
				return "", word + " has no value"
			}
			value, words = words[0], words[1:]
		}
		switch flag {
		case "-J":
		case "-o":
			var option string
			option, value = splitOption(value)
			if harmless[strings.ToLower(option)] {
				continue
			}
			if strings.EqualFold(option, "ProxyCommand") {
				var ok bool
				if value, ok = JumpOfCommand(value); !ok {
					return "", "this ProxyCommand is not supported here: programs are not run; if it leads through a jump host, say -J"
				}
			} else if !strings.EqualFold(option, "ProxyJump") {
				return "", "the ssh option " + option + " is not supported here; say it in ssh_config or with fleetca's own options"
			}
		default:
			return "", "the ssh argument " + word + " is not supported here; of these arguments fleetca honours -J and -o ProxyJump"
		}
		if value == "" {
			return "", "ProxyJump has no value"
		}
		if jump == "" {
			jump = value
		}
	}
	return jump, ""
}

// JumpOfCommand returns what ProxyJump would say in place of a ProxyCommand: of
// "none", and of ssh -W %h:%p [-q] [-p PORT] [USER@]HOST, with the arguments in
// any order. It is false for everything else, which only running the program
// would do right.
func JumpOfCommand(command string) (jump string, ok bool) {
	words, err := splitWords(command)
	if err != nil || len(words) == 0 {
		return "", false
	}
	if len(words) == 1 && strings.EqualFold(words[0], "none") {
		return "none", true
	}
	if words[0] != "ssh" && words[0] != "/usr/bin/ssh" {
		return "", false
	}
	forward, port, destination := "", "", ""
	for words = words[1:]; len(words) > 0; words = words[1:] {
		flag, into := words[0], &destination
		switch {
		case flag == "-q":
			continue
		case strings.HasPrefix(flag, "-W"):
			into = &forward
		case strings.HasPrefix(flag, "-p"):
			into = &port
		case strings.HasPrefix(flag, "-"):
			return "", false
		}
		value := flag
		if into != &destination {
			if value = flag[2:]; value == "" {
				if words = words[1:]; len(words) == 0 {
					return "", false
				}
				value = words[0]
			}
		}
		if *into != "" || value == "" {
			return "", false
		}
		*into = value
	}
	if forward != "%h:%p" && forward != "[%h]:%p" || strings.Trim(port, "0123456789") != "" {
		return "", false
	}
	return jumpHost(destination, port)
}

// jumpHost puts together [user@]host[:port] from ssh's arguments. Anything that
// a shell, ssh or ProxyJump would take for more than a letter is refused.
func jumpHost(destination, port string) (jump string, ok bool) {
	plain := func(s, more string) bool {
		return s != "" && strings.IndexFunc(s, func(r rune) bool {
			letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
			return !letter && !strings.ContainsRune("._-"+more, r)
		}) < 0
	}
	user, host, hasUser := strings.Cut(destination, "@")
	if !hasUser {
		user, host = "", destination
	}
	if !plain(host, ":") || hasUser && !plain(user, "") || strings.EqualFold(host, "none") {
		return "", false
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if hasUser {
		host = user + "@" + host
	}
	if port != "" {
		host += ":" + port
	}
	return host, true
}

// splitOption splits "Key=value" and "Key value" as ssh does.
func splitOption(text string) (option, value string) {
	text = strings.TrimSpace(text)
	i := strings.IndexAny(text, "= \t")
	if i < 0 {
		return text, ""
	}
	return text[:i], strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(text[i:]), "="))
}

// splitWords splits like a POSIX shell, without any expansion, as Ansible does
// with these variables.
func splitWords(text string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord := false
	quote := rune(0)
	escaped := false
	for _, c := range text {
		switch {
		case escaped:
			if quote == '"' && c != '"' && c != '\\' {
				word.WriteByte('\\')
			}
			word.WriteRune(c)
			escaped = false
		case c == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '\'' || c == '"':
			quote, inWord = c, true
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			if inWord {
				words = append(words, word.String())
				word.Reset()
			}
			inWord = false
		default:
			word.WriteRune(c)
			inWord = true
		}
	}
	if quote != 0 || escaped {
		return nil, errors.New("a quote is not closed")
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}
