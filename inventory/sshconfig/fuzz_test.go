package sshconfig

import (
	"errors"
	"strings"
	"testing"
)

var seeds = []string{
	"",
	"Host web1\n Port 22\n",
	"Match host web* user u # c\n Port 2\nMatch all\n User x\n",
	"Match host \"a,b\" !exec \"x y\"\n",
	"ProxyJump u@one:2201,[::1]:22,ssh://v@three:2203 # home\n",
	"IdentityFile \"/a b\" # c\nIdentityFile '/c d'\nCertificateFile /e\\ f\n",
	"HostName %h.example.com\nHostKeyAlias a#b\nUserKnownHostsFile none\n",
	"ConnectTimeout 1w2d3h4m5s\r\nStrictHostKeyChecking=accept-new\r\n",
	"IgnoreUnknown a*\nAbc d\nIdentityAgent $X\n\x00\xff",
	"\"Port\" 22\nhost\"a\" b\n=\n #\n",
}

// FuzzParse holds that no text makes the parser fail other than by an error
// with a place, that every line of the file is accounted for, and that what
// comes out of a lookup is usable.
func FuzzParse(f *testing.F) {
	for _, s := range seeds {
		f.Add(s)
	}
	env := environment{user: "u", home: "/home/u", uid: "1", hostname: "here.example.com", getenv: func(n string) (string, bool) { return "/" + n, n != "" }}
	f.Fuzz(func(t *testing.T, text string) {
		for l := range strings.Lines(text) {
			if k, _ := cutKeyword(l); strings.EqualFold(k, "include") {
				return // would read this machine's files
			}
		}
		r := reader{env: env, user: true}
		parsed, err := r.parse("fuzz", []byte(text), 0)
		if err != nil {
			return
		}
		want := 0
		for l := range strings.SplitSeq(text, "\n") {
			if k, _ := cutKeyword(l); k != "" {
				want++
			}
		}
		if len(parsed.lines) != want {
			t.Fatalf("%d lines with a keyword, %d parsed", want, len(parsed.lines))
		}
		c := &Config{files: []*file{parsed}, env: env}
		s, err := c.Lookup("web1", Override{})
		if err != nil {
			var at *Error
			if !errors.As(err, &at) || at.Line == 0 {
				t.Fatalf("no place in %v", err)
			}
			return
		}
		if s.HostName == "" || s.Port < 1 || s.Port > 65535 || s.User == "" {
			t.Fatalf("unusable: %+v", s)
		}
		if strings.ContainsAny(s.HostName, " \n'\"$;") {
			t.Fatalf("host name %q", s.HostName)
		}
	})
}

func FuzzParseJump(f *testing.F) {
	for _, s := range []string{"a", "u@a:1,b", "[::1]:22", "ssh://u@[::1]:22/", "none", ",", "@", "a:b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		hops, err := parseJump(s)
		if err != nil || hops == nil {
			return
		}
		var words []string
		for _, h := range hops {
			words = append(words, h.String())
		}
		again, err := parseJump(strings.Join(words, ","))
		if err != nil || len(again) != len(hops) {
			t.Fatalf("%q gave %q, which gives %v, %v", s, words, again, err)
		}
		for i := range hops {
			if hops[i] != again[i] {
				t.Fatalf("%q: %+v became %+v", s, hops[i], again[i])
			}
		}
	})
}

// FuzzMatchPattern compares with the plain recursive definition.
func FuzzMatchPattern(f *testing.F) {
	f.Add("web1", "web*")
	f.Add("web1", "w?b*1*")
	f.Add("*", "?")
	f.Fuzz(func(t *testing.T, s, pattern string) {
		if len(s) > 12 || len(pattern) > 12 {
			return
		}
		if got, want := MatchPattern(s, pattern), slowMatch(s, pattern); got != want {
			t.Fatalf("%q against %q: %v, want %v", s, pattern, got, want)
		}
	})
}

func slowMatch(s, pattern string) bool {
	switch {
	case pattern == "":
		return s == ""
	case pattern[0] == '*':
		return slowMatch(s, pattern[1:]) || s != "" && slowMatch(s[1:], pattern)
	case s == "":
		return false
	}
	return (pattern[0] == '?' || pattern[0] == s[0]) && slowMatch(s[1:], pattern[1:])
}
