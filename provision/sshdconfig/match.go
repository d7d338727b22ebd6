package sshdconfig

import (
	"fmt"
	"strings"
)

// Match is one Match line: the settings after it, up to the next Match or the
// end of its file, count only for connections that meet all its criteria.
type Match struct {
	Position
	Criteria []Criterion
	// Problem says why sshd would refuse the line. Empty if it would not.
	Problem string
}

// Criterion is one attribute of a Match line and what it must look like.
type Criterion struct {
	Attribute string // in lower case: user, group, host, address, all, …
	Pattern   string // empty for all and invalid-user
}

// All tells whether the line is "Match all". What follows it counts for every
// connection, and sshd reads it like the settings before the first Match too.
func (m *Match) All() bool {
	return m.Problem == "" && len(m.Criteria) == 1 && m.Criteria[0].Attribute == "all"
}

// String is the line as a person would write it.
func (m *Match) String() string {
	words := []string{"Match"}
	for _, c := range m.Criteria {
		words = append(words, c.Attribute)
		if c.Pattern != "" {
			words = append(words, c.Pattern)
		}
	}
	return strings.Join(words, " ")
}

// newMatch reads a Match line. Before OpenSSH 10 its words are split like
// keywords (double quotes only, one '=' between attribute and pattern); from
// then on like arguments. The forms that both accept mean the same, so this
// reads as the earlier one does, and adds the comment at the end.
func newMatch(d Directive) *Match {
	m := &Match{Position: d.Position, Problem: d.Problem}
	if m.Problem != "" {
		return m
	}
	rest := &d.Raw
	next := func() (string, bool) {
		if rest == nil {
			return "", false
		}
		word, after, found := cutWord(*rest, true)
		rest = after
		if !found || word == "" || word[0] == '#' {
			rest = nil
			return "", false
		}
		return word, true
	}
	for {
		word, ok := next()
		if !ok {
			break
		}
		c := Criterion{Attribute: lower(word)}
		if c.Attribute != "all" && c.Attribute != "invalid-user" {
			if c.Pattern, ok = next(); !ok {
				m.Problem = fmt.Sprintf("missing pattern for %q", c.Attribute)
			}
		}
		m.Criteria = append(m.Criteria, c)
	}
	if m.Problem == "" {
		m.Problem = m.check()
	}
	return m
}

func (m *Match) check() string {
	if len(m.Criteria) == 0 {
		return "no criteria"
	}
	for _, c := range m.Criteria {
		switch c.Attribute {
		case "all":
			if len(m.Criteria) > 1 {
				return "\"all\" stands beside other criteria"
			}
		case "user", "group", "host", "address", "localaddress", "localport",
			"rdomain", "invalid-user", "version", "sessiontype", "command":
		default:
			return fmt.Sprintf("unknown attribute %q", c.Attribute)
		}
	}
	return ""
}
