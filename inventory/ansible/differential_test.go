package ansible

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/fleetca/fleetca/inventory"
)

// literals are values of INI variables: what Python's literal_eval makes of
// them, or that it leaves them strings.
var literals = []string{
	"", " ", "5", "-5", "+5", "--5", "- 5", "-(5)", "(-5)", "-(-5)", "((5))", "(5", "5)", "5,", ",5", ",", "1,2,", "1,,2", "(,)", "()", "(1,)", "[,]",
	"0", "00", "0_0", "01", "0x1F", "0X1f", "0x", "0x_1", "0x1_", "0o17", "0O7", "0o8", "0b101", "0b2", "1_000", "1__0", "_1", "1_",
	"1.5", "1.", ".5", ".", "1e5", "1E+5", "1e", "1e-5", "1_0.0_1e1_0", "1.2.3", "10.0.0.1", "1e400", "-1e400", "1if", "1 2", "12abc", "0x1g", "1.e5", "1._5", "01.5", "00.5", "010e1",
	"123456789012345678901234567890", "-9223372036854775808", "9223372036854775808",
	"True", "true", "False", "None", "none", "Truee", "True1", "True_", "Trueé", "not True", "-True", "True,False",
	"'a'", `"a"`, "'a", `"a'`, "'a' 'b'", "'a''b'", "'a' b", "'''a'''", `"""a"b"""`, "''", "''''''", "'''a''", "r'\\n'", "R'\\''", "u'x'", "U'x'", "b'x'", "B'x'", "br'\\x'", "rb'x'", "ur'x'", "bu'x'", "f'x'", "b'x' 'y'", "b'é'",
	`'\n\t\\\'\"\a\b\f\r\v'`, `'\x41\u00e9\U0001F600\101\0'`, `'\x4'`, `'\u12'`, `'\q\8'`, `'\777'`, `b'\xc3\xa9'`, `b'\u00e9'`, `'\`, `'\'`, "'\\\\'", "'é'", `'\U00110000'`,
	"[]", "[1]", "[1, 2]", "[1, 2,]", "[1 2]", "[[[]]]", "[1, 'a', None, True, 1.5, [2], {'k': 'v'}, (3,)]", "[", "]", "[1", "[a]", "[1,]x", "[1] # c", "[1 # c", "[]]",
	"{}", "{'a': 1}", "{'a': 1,}", "{,}", "{'a'}", "{'a':}", "{1: 2, 'b': {3: [4]}}", "{None: 1, True: 2, 1.5: 3}", "{'a': 1 'b': 2}", "{1: 'int', True: 'bool', 1.0: 'float'}", "{'a': x}", "{[]: 1}", "{[]: x}", "{**a}",
	"foo", "foo bar", "a=b", "a,b", "web[1:3]", "{{ x }}", "{% x %}", "/path/to", "http://x:80/", "~/x", "1 # comment", "'a' # b", "foo # b", "#", "1 < 2", "1+2", "1-2", "lambda: 0", "*a", "(yield)", "a.b", "a()", "set()", "x if y else z",
	"5\t", "\t5", "5 ", "\f5", "5\f", "\u00a05", "5;", "5:", ":5", "192.168.1.1:22", "yes", "no", "on", "null", "~", "2001-12-14", "12:30", "1_000.5", "$x", "@x", "`x`", "\\", "a\\", "-", "+", "'a'[0]", "b''", "''r''", "'a'\tu'b'",
}

// yamlDocuments are compared whole.
var yamlDocuments = []string{
	"", "~", "---", "--- 5", "a", "a: b", "a: b\nc", "- a\n- b", "[a, b", "{a: b}", "a: [1, 2]\nb: {c: d}", "a: *x", "a: &x 1\nb: *x", "a: &x [*x]", "--- a\n--- b", "%YAML 1.1\n---\na: 1", "%YAML 1.2\n---\na: yes",
	"a: !!str 5\nb: !!int '0x1f'\nc: !!bool 'on'\nd: !!float 1\ne: !!null x\nf: !!seq [a]\ng: !!map {a: b}", "a: !foo b", "a: !!python/unicode x", "a: !!int x", "a: !!bool x", "a: !!float x", "a: =", "=: a", "? a\n: b", "? [a]\n: b", "? {a: b}\n: c",
	"<<: {a: 1}", "<<: [{a: 1, b: 1}, {a: 2}]", "<<: 5", "<<: [5]", "a: 1\n<<: {a: 2, b: 3}", "a: &m {x: 1, <<: {y: 2}}\nb: {<<: *m, z: 3}", "\"<<\": {a: 1}", "a: &m {x: 1}\n<<: *m\n<<: {w: 1}",
	"a: 'x\n  y'", "a: \"x\\\n  y\"", "a: |\n  x\n  y\n", "a: >-\n  x\n  y\n", "a: |2\n   x\n", "a:\n- b\n- c", "a: b: c", "a:\n\t b", "'a': \"b\"", "a: \"\\x41\\u00e9\\U0001F600\\e\\N\"", "a: '", "a: @b", "a: `b", "a: %b", "a: - b", "- - - a", "a: ! 'x'",
	"{\"a\": 1e5, \"b\": 1.0, \"c\": [null, true], \"d\": \"\\ud83d\\ude00\\/\"}", "{\"a\": 1, \"a\": 2}", "[1, 2", "{\"a\": 01}", "{'a': 1}", "{\"a\": NaNx}", "5", "\"x\"", "[{\"__ansible_unsafe\": \"x\"}]", "{\"a\": 1} x", "\ufeffa: b", "a: \u00e9", "a: b #c", "a: b#c", "#c", "a: 2001-02-30", "a: 2001-12-14t25:00:00Z", "a: 2001-12-14 21:59:43.5 +5:30", "a: 2001-12-14 21:59:43.123456789 -00:30", "a: 2001-12-14T21:59:43", "a: 0001-01-01", "a: 0000-01-01",
}

// plainScalars are put behind a key, as themselves and in random variations.
var plainScalars = []string{
	"yes", "Yes", "YES", "yEs", "y", "n", "on", "off", "true", "~", "null", "Null", "nULL", "0", "-0", "+0", "00", "007", "08", "0o7", "0x1F", "0X1F", "0xG", "0b1", "0b2", "0b_1", "1_0", "_1", "1:30", "1:60", "1:3:5", "01:30", "-1:30", "1:30.5", "1.5", "1.", ".5", "._5", "-.5", "+.5", "1e5", "1.e5", "1.5e5", "1.5e+5", "1.5e+_5", ".5e-3", ".inf", "-.INF", "+.Inf", ".NaN", "-.nan", "1..5", "1.5.5", "2001-12-14", "2001-1-1", "2001-13-01", "2001-12-14T1:2:3", "0.0", "1_000.5_0", "1__0", "190:20:30.15", "12:34:56", "22:22", "0:0", "0:1", "1:0", "9:59", "123456789012345678901234567890", "-", "--", "+", ".", "..", "0.", "-0.0", "685.230_15e+03", "0b", "0x", "0_", "-0x1f", "+0b11", "-010", "+12", "1e400", "1.0e+400",
}

var wordLines = []string{
	"a", "a b", "a  b\tc", "a 'b c' d", `a "b c" d`, `a="b c"`, `a=b'c'"d"`, "a#b", "a #b", "# a", "a '#' b", `a\ b`, `a\`, `a "b`, "a 'b", `"a\"b"`, `"a\b"`, `'a\b'`, `"a\\b"`, "''", "a '' b", `a"" b`, "''#x", `\#a`, "a\\\tb", `"#"#x`, "é ü", `a=\"b\"`, `a=\'b\'`, "a;b", "a|b&c", "a\u00a0b", `""a`, `a''`, "'a' 'b'", "#", "a 'b#c'", `"$x"`, "a\vb",
}

var addresses = []string{
	"web", "web1", "web-1", "web_1", "-web", "web-", "_web", "web_", "_", "a", "web.example.com", "web..com", ".web", "web.", "web1:22", "web1:", ":22", "web1:22:33", "web1:x", "web1:99999", "192.0.2.1", "192.0.2.1:22", "256.1.1.1", "1.2.3", "1.2.3.4.5", "192.0.2.[1:5]", "192.0.2.[1:5]:22", "::", "::1", "1::", "2001:db8::1", "[2001:db8::1]:22", "[2001:db8::1]", "[::1]:22", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8:9", "::ffff:192.0.2.1", "2001:db8::[1:f]", "[web]:22", "[web[1:3]]:22", "web[1:3]", "web[1:3]:22", "web[a:c]", "web[a:3]", "web[1:3:2]", "web[1:3:a]", "[1:3]web", "[a:c]", "[1:3]", "web[1:3]-[a:c].x", "web[", "web]", "web[]", "web[1]", "web[-1]", "we b", " web", "web ", "wéb", "web/x", "a:b", "a:b:c", "db::x", "web::db", "dead:beef", "fe80::1%eth0", "web!", "*", "web*", "a,b", "", "[:]", "[a]:1", "[a:1]:2", "[a:1]:2:3", "ſ", "K", "web1.[0:9].x-", "_a_b_", "a-_", "0", "1:2", "1:22:2",
}

var ranges = []string{
	"web", "web[1:3]", "web[01:03]", "web[1:03]", "web[01:3]", "web[001:010:3]", "web[a:e]", "web[a:e:2]", "web[e:a]", "web[A:C]", "web[x:C]", "web[ab:cd]", "web[3:1]", "web[:3]", "web[1:]", "web[:]", "web[]", "web[1]", "web[1:2:3:4]", "web[1:2:0]", "web[a:c:0]", "web[1:5:-1]", "web[5:1:-1]", "web[c:a:-1]", "web[a:c:-1]", "web[1:2][a:b]", "[1:2]", "web[1:2", "web1:2]", "web]1:2[", "web[1:2]|", "web[[1:2]]", "web[-2:2]", "web[+1:3]", "web[ 1 : 3 ]", "web[1:a]", "web[a:1]", "web[0:0]", "web[00:00]", "web[09:11]", "web[0a:0b]", "web[1.5:2]", "a[1:2]b[01:02]c[x:y]d", "web[1:2:x]", "web[az:bz]", "web[z:A]",
}

var patternLists = []string{
	"a", "a,b", "a:b", "a, b", "a b", "a:b,c", "a[1:2]", "a[1:2]:b", "a[1:2],b[0]", "a:&b:!c", "::1", "::1,a", "[::1]:22", "2001:db8::1:a", "~a.*:b", "~[a:b]", "~(a|b):c", "a:", ":a", "", ",", " , ", "a[", "a]", "a[1:2", "web*:db*", "a:22", "a.b:c.d", "@x", "@/a/b:c", "@/a b", "!a", "a:!b[0]", "a::b", "a:b:c", "dead:beef", "all:!web", "a\tb", "ünï:x", "[a:b]:c",
}

// TestDifferential asks Ansible's own functions about many small inputs, the
// tables above and random variations of them.
func TestDifferential(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	request := map[string][]string{
		"literals":  vary(random, literals, 1500, `0123456789_.eExXob"'\[](){},: -+#abrTNn`),
		"words":     vary(random, wordLines, 800, `ab "'\# =`),
		"addresses": vary(random, addresses, 1500, "0123af:.[]-_xz%"),
		"ranges":    vary(random, ranges, 800, "0123ac:[]-"),
		"patterns":  vary(random, patternLists, 800, "ab01:,[]!&~ ."),
		"yaml":      yamlDocuments,
	}
	request["ranges"] = slices.DeleteFunc(request["ranges"], func(s string) bool { return !strings.Contains(s, "[") })
	for _, s := range vary(random, plainScalars, 2500, "0123456789_.:-+eExbTZinfa") {
		if !strings.ContainsAny(s, "#") && !strings.HasPrefix(s, "-") || len(s) > 1 {
			request["yaml"] = append(request["yaml"], "k: "+s)
		}
	}
	answers := askOracle(t, request)
	check := func(kind string, ours func(string) (any, error)) {
		t.Run(kind, func(t *testing.T) {
			for i, input := range request[kind] {
				compareAnswer(t, input, ours, answers[kind][i])
			}
		})
	}
	check("literals", parseValue)
	check("words", func(s string) (any, error) {
		words, err := splitLine(s)
		return asList(words), err
	})
	check("addresses", func(s string) (any, error) {
		host, port, ok := inventory.ParseAddress(s)
		if !ok {
			return nil, errNoLiteral
		}
		return []any{host, int64(port)}, nil
	})
	check("ranges", func(s string) (any, error) {
		names, err := inventory.Expand(s)
		return asList(names), err
	})
	check("patterns", func(s string) (any, error) { return asList(inventory.SplitPatterns(s)), nil })
	check("yaml", func(s string) (any, error) {
		n, _, err := parseData("test", []byte(s), nil)
		if err != nil {
			return nil, err
		}
		return n.plain(), nil
	})
}

func asList(words []string) any {
	list := make([]any, len(words))
	for i, w := range words {
		list[i] = w
	}
	return list
}

// vary adds n inputs that are given ones with a character changed, added or
// removed, or two of them joined.
func vary(random *rand.Rand, given []string, n int, alphabet string) []string {
	all := append([]string(nil), given...)
	for range n {
		s := []byte(given[random.IntN(len(given))])
		for range 1 + random.IntN(2) {
			at, c := random.IntN(len(s)+1), alphabet[random.IntN(len(alphabet))]
			switch random.IntN(4) {
			case 0:
				s = append(s[:at:at], append([]byte{c}, s[at:]...)...)
			case 1:
				if at < len(s) {
					s = append(s[:at:at], s[at+1:]...)
				}
			case 2:
				if at < len(s) {
					s[at] = c
				}
			default:
				s = append(s, given[random.IntN(len(given))]...)
			}
		}
		all = append(all, strings.ToValidUTF8(string(s), "x"))
	}
	return all
}

// compareAnswer lets us refuse, or take as text, what JSON can't say.
func compareAnswer(t *testing.T, input string, ours func(string) (any, error), theirs oracleResult) {
	t.Helper()
	got, err := ours(input)
	for _, beyond := range []string{"not JSON serializable", "keys must be str", "unhashable"} {
		if strings.Contains(theirs.Error, beyond) {
			return
		}
	}
	if bytes.Contains(theirs.Value, []byte(`\udc`)) {
		return // half a character: what Python makes of bytes that aren't UTF-8
	}
	if (err != nil) != (theirs.Error != "") {
		t.Errorf("%q: %#v, %v; Ansible says %s%s", input, got, err, theirs.Value, theirs.Error)
		return
	}
	if err != nil {
		return
	}
	data, err := json.Marshal(jsonValue(got))
	if err != nil {
		t.Fatal(err)
	}
	a, errA := parseJSON("ours", data)
	b, errB := parseJSON("theirs", theirs.Value)
	if errA != nil || errB != nil {
		t.Fatalf("%q: %v, %v", input, errA, errB)
	}
	if !reflect.DeepEqual(a.plain(), b.plain()) {
		t.Errorf("%q: %s, Ansible says %s", input, data, theirs.Value)
	}
}
