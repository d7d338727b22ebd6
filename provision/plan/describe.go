package plan

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca/profile"
)

// describe is what a diff shows of a certificate in place of its base64.
func describe(cert *ssh.Certificate) []byte {
	if cert == nil {
		return nil
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "host certificate\n")
	fmt.Fprintf(&b, "  key:   %s %s\n", cert.Key.Type(), ssh.FingerprintSHA256(cert.Key))
	fmt.Fprintf(&b, "  ca:    %s\n", ssh.FingerprintSHA256(cert.SignatureKey))
	fmt.Fprintf(&b, "  names: %s\n", strings.Join(cert.ValidPrincipals, ", "))
	fmt.Fprintf(&b, "  until: %s\n", time.Unix(int64(cert.ValidBefore), 0).UTC().Format(time.RFC3339))
	return b.Bytes()
}

func describeWanted(key ssh.PublicKey, w Wanted) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "host certificate\n")
	fmt.Fprintf(&b, "  key:   %s %s\n", key.Type(), ssh.FingerprintSHA256(key))
	fmt.Fprintf(&b, "  ca:    %s\n", ssh.FingerprintSHA256(w.HostCA))
	fmt.Fprintf(&b, "  names: %s\n", strings.Join(w.Names, ", "))
	fmt.Fprintf(&b, "  until: %s from the signing\n", profile.FormatTTL(w.TTL))
	return b.Bytes()
}
