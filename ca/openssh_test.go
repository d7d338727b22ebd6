package ca_test

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca"
	"github.com/fleetca/fleetca/ca/profile"
)

// shown is what ssh-keygen -L says of a certificate.
type shown map[string]string

// show has ssh-keygen read a certificate. Lists are joined with a space.
func show(t *testing.T, cert *ssh.Certificate) shown {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key-cert.pub")
	write(t, path, string(ssh.MarshalAuthorizedKey(cert)))
	cmd := exec.Command("ssh-keygen", "-L", "-f", path)
	cmd.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("ssh-keygen -L: %v\n%s", err, out)
	}
	field := regexp.MustCompile(`^        ([A-Z][A-Za-z ]+):(?: (.*))?$`)
	got, name := shown{}, ""
	for line := range strings.Lines(string(out)) {
		line = strings.TrimRight(line, "\n")
		if m := field.FindStringSubmatch(line); m != nil {
			name, got[m[1]] = m[1], strings.TrimSpace(m[2])
		} else if rest, ok := strings.CutPrefix(line, "                "); ok {
			got[name] = strings.TrimSpace(got[name] + " " + strings.TrimSpace(rest))
		}
	}
	return got
}

// keyTypes are all types that a CA or a certified key may have.
var keyTypes = []string{"ed25519", "ecdsa", "rsa"}

func authority(t *testing.T, kind profile.Kind, signer ssh.Signer, now func() time.Time) *ca.Authority {
	t.Helper()
	a, err := ca.New(ca.Config{Kind: kind, Signer: signer, Rules: profile.DefaultRules(), Ledger: &memory{}, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestKeygenReadsEveryField compares each field of certificates, of every type
// of key signed by every type of CA, with what ssh-keygen -L reads.
func TestKeygenReadsEveryField(t *testing.T) {
	for _, caType := range keyTypes {
		for _, keyType := range keyTypes {
			t.Run(keyType+" by "+caType, func(t *testing.T) {
				signer, key := newSigner(t, caType), newSigner(t, keyType).PublicKey()
				a := authority(t, profile.User, signer, func() time.Time { return noon })
				h := authority(t, profile.Host, signer, func() time.Time { return noon })
				user, err := a.Sign(t.Context(), profile.Request{
					Kind: profile.User, PublicKey: key, KeyID: "alice@example.com", Principals: []string{"root", `CORP\bob`}, TTL: 8 * time.Hour,
					SourceAddresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")},
					ForceCommand:    `/usr/bin/backup --to "x y"`,
					Extensions:      profile.Extensions{Enable: []string{"permit-agent-forwarding"}},
				})
				if err != nil {
					t.Fatal(err)
				}
				host, err := h.Sign(t.Context(), profile.Request{
					Kind: profile.Host, PublicKey: key, Principals: []string{"Web1.example.com", "web1", "192.0.2.1"},
				})
				if err != nil {
					t.Fatal(err)
				}
				compare(t, show(t, user[0]), shown{
					"Type":             user[0].Type() + " user certificate",
					"Public key":       keyName(key) + "-CERT " + ssh.FingerprintSHA256(key),
					"Signing CA":       keyName(signer.PublicKey()) + " " + ssh.FingerprintSHA256(signer.PublicKey()) + " (using " + user[0].Signature.Format + ")",
					"Key ID":           `"alice@example.com"`,
					"Serial":           fmt.Sprint(user[0].Serial),
					"Valid":            "from 2026-11-21T11:59:00 to 2026-11-21T20:00:00",
					"Principals":       `root CORP\bob`,
					"Critical Options": `force-command /usr/bin/backup --to "x y" source-address 192.0.2.0/24,2001:db8::/32`,
					"Extensions":       "permit-agent-forwarding permit-pty",
				})
				compare(t, show(t, host[0]), shown{
					"Type":             host[0].Type() + " host certificate",
					"Public key":       keyName(key) + "-CERT " + ssh.FingerprintSHA256(key),
					"Signing CA":       keyName(signer.PublicKey()) + " " + ssh.FingerprintSHA256(signer.PublicKey()) + " (using " + host[0].Signature.Format + ")",
					"Key ID":           `"web1.example.com"`,
					"Serial":           fmt.Sprint(host[0].Serial),
					"Valid":            "from 2026-11-21T11:59:00 to 2027-02-19T12:00:00",
					"Principals":       "web1.example.com web1 192.0.2.1",
					"Critical Options": "(none)",
					"Extensions":       "(none)",
				})
				if caType == "rsa" && user[0].Signature.Format != "rsa-sha2-512" {
					t.Errorf("RSA CA signed as %s", user[0].Signature.Format)
				}
			})
		}
	}
}

func keyName(k ssh.PublicKey) string {
	switch k.Type() {
	case ssh.KeyAlgoED25519:
		return "ED25519"
	case ssh.KeyAlgoRSA:
		return "RSA"
	}
	return "ECDSA"
}

func compare(t *testing.T, got, want shown) {
	t.Helper()
	if !maps.Equal(got, want) {
		for _, name := range slices.Sorted(maps.Keys(want)) {
			if got[name] != want[name] {
				t.Errorf("%s: ssh-keygen reads %q, want %q", name, got[name], want[name])
			}
		}
		for name := range got {
			if _, ok := want[name]; !ok {
				t.Errorf("ssh-keygen reads %s: %q", name, got[name])
			}
		}
	}
}

// TestDefaultsEqualKeygen: the default extensions are those of ssh-keygen.
func TestDefaultsEqualKeygen(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"ca", "key"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, name)).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v\n%s", err, out)
		}
	}
	if out, err := exec.Command("ssh-keygen", "-q", "-s", filepath.Join(dir, "ca"), "-I", "id", "-n", "root", filepath.Join(dir, "key.pub")).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	data, err := os.ReadFile(filepath.Join(dir, "key-cert.pub"))
	if err != nil {
		t.Fatal(err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(bytes.TrimSpace(data))
	if err != nil {
		t.Fatal(err)
	}
	a := authority(t, profile.User, newSigner(t, "ed25519"), nil)
	certs, err := a.Sign(t.Context(), request(t))
	if err != nil {
		t.Fatal(err)
	}
	if theirs := key.(*ssh.Certificate).Extensions; !maps.Equal(certs[0].Extensions, theirs) {
		t.Errorf("extensions %q, ssh-keygen gives %q", certs[0].Extensions, theirs)
	}
}
