package store

import (
	"slices"
	"strings"
	"time"
)

// Query selects sessions. An empty field selects all. Identity, Login and Host
// are globs: * stands for any number of characters, ? for one; Host is matched
// without regard to case.
type Query struct {
	Identity, Login, Host string
	Kind                  Kind
	State                 State
	Since, Until          time.Time // Since <= Started < Until
	Limit                 int       // at most so many; 0 or less: all
}

// Match says whether s is selected, without regard to Limit.
func (q Query) Match(s Session) bool {
	return glob(q.Identity, s.Identity) && glob(q.Login, s.Login) &&
		glob(strings.ToLower(q.Host), strings.ToLower(s.Host)) &&
		(q.Kind == "" || q.Kind == s.Kind) &&
		(q.State == "" || q.State == s.State) &&
		within(s.Started, q.Since, q.Until)
}

// AuditQuery selects audit records. An empty field selects all. Event,
// Identity, Login, Host and Path are globs as in Query; Session and SHA256
// are compared.
type AuditQuery struct {
	FromSequence                       uint64 // Sequence >= FromSequence
	Event, Identity, Login, Host, Path string
	Session, SHA256                    string
	Since, Until                       time.Time // Since <= Time < Until
	Limit                              int       // at most so many; 0 or less: all
}

// Match says whether r is selected, without regard to Limit.
func (q AuditQuery) Match(r AuditRecord) bool {
	return r.Sequence >= q.FromSequence &&
		glob(q.Event, r.Event) && glob(q.Identity, r.Identity) && glob(q.Login, r.Login) &&
		glob(strings.ToLower(q.Host), strings.ToLower(r.Host)) && glob(q.Path, r.Path) &&
		(q.Session == "" || q.Session == r.Session) &&
		(q.SHA256 == "" || strings.EqualFold(q.SHA256, r.SHA256)) &&
		within(r.Time, q.Since, q.Until)
}

func within(t, since, until time.Time) bool {
	return (since.IsZero() || !t.Before(since)) && (until.IsZero() || t.Before(until))
}

// glob matches without backtracking more than to the last star, so that no
// pattern takes exponential time.
func glob(pattern, s string) bool {
	if pattern == "" {
		return true
	}
	p, t := []rune(pattern), []rune(s)
	pi, ti, star, mark := 0, 0, -1, 0
	for ti < len(t) {
		switch {
		case pi < len(p) && p[pi] == '*':
			star, mark = pi, ti
			pi++
		case pi < len(p) && (p[pi] == '?' || p[pi] == t[ti]):
			pi++
			ti++
		case star >= 0:
			mark++
			pi, ti = star+1, mark
		default:
			return false
		}
	}
	return !slices.ContainsFunc(p[pi:], func(r rune) bool { return r != '*' })
}
