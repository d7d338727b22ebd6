package sshconfig

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// That what is known is what ssh takes for known is held by the tests of
// provision/remote, which dial real servers.

func newKey(t testing.TB) ssh.PublicKey {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func authorized(key ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

func TestRecordSeesOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "known_hosts")
	k, err := LoadKnownHosts(path)
	if err != nil {
		t.Fatal(err)
	}
	mine, theirs := newKey(t), newKey(t)
	// Somebody else writes after we have read, and replaces the file.
	other := path + ".new"
	if err := os.WriteFile(other, []byte("web1 "+authorized(theirs)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}
	if err := k.Record(context.Background(), "web1", mine, false); !errors.Is(err, ErrKeyChanged) {
		t.Errorf("got %v", err)
	}
	if err := k.Record(context.Background(), "web2", mine, false); err != nil {
		t.Error(err)
	}
	if s, _ := (KnownFiles{k}).Check(HostName{Host: "WEB2"}, mine, nil); s != KeyKnown {
		t.Errorf("status %v", s)
	}
}

// TestAlgorithms holds that nothing signed with SHA-1 is ever asked for, and
// that what is known is asked for first.
func TestAlgorithms(t *testing.T) {
	all := append(PlainAlgorithms(), CertAlgorithms()...)
	for _, a := range all {
		if strings.Contains(a, "ssh-rsa") || strings.Contains(a, "dss") {
			t.Errorf("%s is offered", a)
		}
	}
	if len(CertAlgorithms()) < 5 || len(PlainAlgorithms()) < 6 {
		t.Errorf("few algorithms: %q", all)
	}
	rsa := "ssh-rsa AAAAB3NzaC1yc2E="
	for _, tt := range []struct {
		known     string
		authority bool
		first     string
	}{
		{"", false, ssh.KeyAlgoED25519},
		{"", true, ssh.CertAlgoED25519v01},
		{"web1 " + rsa, false, ssh.KeyAlgoRSASHA512},
		{"[web1]:2222 " + rsa, false, ssh.KeyAlgoRSASHA512},
		{"other " + rsa, false, ssh.KeyAlgoED25519},
		{"web1 " + rsa, true, ssh.CertAlgoED25519v01},
		{"@cert-authority web* " + rsa, false, ssh.CertAlgoED25519v01},
		{"@revoked web* " + rsa, false, ssh.KeyAlgoED25519},
	} {
		k := &KnownHosts{path: "test"}
		k.index([]byte(tt.known))
		if got := (KnownFiles{k}).Algorithms(HostName{Host: "web1", Port: 2222}, tt.authority); got[0] != tt.first {
			t.Errorf("%q, %v: %q first, want %s", tt.known, tt.authority, got, tt.first)
		}
	}
}

func FuzzKnownHosts(f *testing.F) {
	const key = " ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMkQIoPXSxo6xHLyzd9NZKaiZ3Ew0bZt7YDRzSYxTPxk"
	for _, s := range []string{
		"", "# x\n", "web1" + key + "\n", "@cert-authority *.example.com,!x" + key + " comment\n",
		"@revoked [web1]:2222" + key + "\r\n", "|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg=" + key,
		"|1|x|y" + key + "\n|2|a|b" + key + "\n", "web1 ssh-rsa AAAA\n", "@x y z\n",
	} {
		f.Add(s)
	}
	probe, _, _, _, err := ssh.ParseAuthorizedKey([]byte(strings.TrimSpace(key)))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		k := &KnownHosts{path: "fuzz"}
		k.index([]byte(text))
		for _, name := range []string{"web1", "[web1]:2222", "a.example.com"} {
			for _, l := range k.find(name) {
				if !l.matches(name) {
					t.Fatalf("%s is found for %q and doesn't match", l.Place(), name)
				}
			}
			s, lines := judge(k.find(name), probe)
			if s == KeyKnown {
				// What is known must be whole in the text.
				if len(lines) != 1 || !strings.Contains(text, strings.Fields(key)[1]) {
					t.Fatalf("%q known from %q", name, text)
				}
			}
		}
	})
}

func BenchmarkKnownHosts(b *testing.B) {
	key := newKey(b)
	var text strings.Builder
	for i := range 10_000 {
		text.WriteString("host" + strings.Repeat("x", i%7) + "," + "10.0." + command10k(i) + " " + authorized(key) + "\n")
	}
	k := &KnownHosts{}
	k.index([]byte(text.String()))
	for b.Loop() {
		if s, _ := judge(k.lines("10.0.5000"), key); s != KeyKnown {
			b.Fatal("not found")
		}
	}
}

func command10k(i int) string {
	return string([]byte{byte('0' + i/1000%10), byte('0' + i/100%10), byte('0' + i/10%10), byte('0' + i%10)})
}
