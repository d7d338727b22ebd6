package ca

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca/profile"
)

// Entry is what the ledger holds of one certificate. Times are in UTC, in whole
// seconds.
type Entry struct {
	// Time is when it was recorded.
	Time time.Time `json:"time,omitzero"`
	// Serial is written as a string, since many JSON readers round numbers
	// of more than 53 bits.
	Serial      uint64       `json:"serial,string"`
	Kind        profile.Kind `json:"kind"`
	KeyID       string       `json:"key_id"`
	Principals  []string     `json:"principals"`
	ValidAfter  time.Time    `json:"valid_after"`
	ValidBefore time.Time    `json:"valid_before"`
	// Key and CA are SHA-256 fingerprints, as ssh-keygen -l prints them.
	Key     string `json:"key"`
	KeyType string `json:"key_type"`
	CA      string `json:"ca"`
	// CriticalOptions and Extensions are as in the certificate.
	CriticalOptions map[string]string `json:"critical_options,omitempty"`
	Extensions      []string          `json:"extensions,omitempty"`
	// By is who issued it, as far as known.
	By string `json:"by,omitempty"`
}

// Describe is the entry of a signed certificate, without the time and the author
// of the record.
func Describe(cert *ssh.Certificate) Entry {
	return newEntry(cert, cert.SignatureKey, "", time.Time{})
}

func newEntry(cert *ssh.Certificate, authority ssh.PublicKey, by string, now time.Time) Entry {
	kind := profile.User
	if cert.CertType == ssh.HostCert {
		kind = profile.Host
	}
	var extensions []string
	for name := range cert.Extensions {
		extensions = append(extensions, name)
	}
	slices.Sort(extensions)
	return Entry{
		Time:            now.UTC().Truncate(time.Second),
		Serial:          cert.Serial,
		Kind:            kind,
		KeyID:           cert.KeyId,
		Principals:      cert.ValidPrincipals,
		ValidAfter:      time.Unix(int64(cert.ValidAfter), 0).UTC(),
		ValidBefore:     time.Unix(int64(cert.ValidBefore), 0).UTC(),
		Key:             ssh.FingerprintSHA256(cert.Key),
		KeyType:         cert.Key.Type(),
		CA:              ssh.FingerprintSHA256(authority),
		CriticalOptions: cert.CriticalOptions,
		Extensions:      extensions,
		By:              by,
	}
}

// Check tells whether an entry that was read says what every entry must say.
func (e Entry) Check() error {
	switch {
	case e.Serial == 0:
		return errors.New("no serial")
	case e.Kind != profile.User && e.Kind != profile.Host:
		return fmt.Errorf("unknown kind %q", string(e.Kind))
	case len(e.Principals) == 0:
		return errors.New("no principals")
	case e.Key == "" || e.CA == "":
		return errors.New("no fingerprints")
	case e.ValidAfter.IsZero() || !e.ValidAfter.Before(e.ValidBefore):
		return errors.New("no validity")
	}
	return nil
}
