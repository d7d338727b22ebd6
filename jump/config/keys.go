package config

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca/keyring"
	"github.com/fleetca/fleetca/ca/profile"
	"github.com/fleetca/fleetca/ca/trust"
)

// keys reads the jump host's own keys and the authorities. Each key serves one
// purpose.
func (r *reading) keys() {
	purposes := map[string]string{}
	claim := func(v value, key ssh.PublicKey, purpose string) bool {
		bytes := string(key.Marshal())
		if other, taken := purposes[bytes]; taken && other != purpose {
			v.fail("the %s and the %s are one key; they must differ", other, purpose)
			return false
		}
		purposes[bytes] = purpose
		if r.cfg.Revoked != nil && r.cfg.Revoked.Revoked(key) {
			v.warn("the key %s (%s) is revoked by revoked_keys", ssh.FingerprintSHA256(key), purpose)
		}
		return true
	}
	authorities := func(key, purpose string) []ssh.PublicKey {
		v := r.top[key]
		if !v.given() {
			return nil
		}
		var all []ssh.PublicKey
		for _, item := range v.items() {
			for _, pub := range r.authorities(item) {
				if claim(item, pub, purpose) {
					all = append(all, pub)
				}
			}
		}
		return all
	}
	r.cfg.UserCAs = authorities("user_cas", "user CA")
	if v := r.top["user_cas"]; !v.given() {
		r.missing("user_cas", "the files with the public keys of the user CA; without one nobody gets in")
	} else if len(v.items()) == 0 {
		v.fail("the list is empty: nobody would get in")
	}
	r.cfg.HostCAs = authorities("host_cas", "host CA")
	if signer, v := r.private("jump_ca", "the private key of the jump CA"); signer != nil {
		if err := trust.Authority(signer.PublicKey()); err != nil {
			v.fail("%w", err)
		} else if claim(v, signer.PublicKey(), "jump CA") {
			r.cfg.JumpCA = signer
		}
	}
	if signer, v := r.private("host_key", "the jump host's own private key"); signer != nil &&
		claim(v, signer.PublicKey(), "jump host's own key") {
		r.certificate(signer)
	}
}

func (r *reading) private(key, what string) (ssh.Signer, value) {
	v := r.top[key]
	if !v.given() {
		r.missing(key, what)
		return nil, v
	}
	path, ok := r.path(v)
	if !ok {
		return nil, v
	}
	r.cfg.files = append(r.cfg.files, path)
	signer, err := keyring.Load(path, func(string) ([]byte, error) {
		return nil, fmt.Errorf("reading private key %q: %w", path, errEncrypted)
	})
	if err != nil {
		v.fail("%w", err)
		return nil, v
	}
	return signer, v
}

// authorities reads a file with a public key a line. Unlike sshd, which passes
// over what follows a broken line, it takes all of the file or nothing.
func (r *reading) authorities(v value) []ssh.PublicKey {
	path, ok := r.path(v)
	if !ok {
		return nil
	}
	data, err := r.readFile(path, 1<<20)
	if err != nil {
		v.fail("%w", err)
		return nil
	}
	var keys []ssh.PublicKey
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, _, err := keyring.ParsePublic([]byte(line))
		if err == nil {
			err = trust.Authority(key)
		}
		if err != nil {
			v.fail("%q, line %d: %w", path, i+1, err)
			return nil
		}
		if !containsKey(keys, key) {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		v.fail("%q: no public key in it", path)
	}
	return keys
}

func containsKey(keys []ssh.PublicKey, key ssh.PublicKey) bool {
	for _, k := range keys {
		if trust.Same(k, key) {
			return true
		}
	}
	return false
}

// certificate reads the jump host's certificate, beside its key unless
// something else is said.
func (r *reading) certificate(signer ssh.Signer) {
	v := r.top["host_certificate"]
	if !v.given() {
		v = r.top["host_key"]
	}
	path, ok := r.path(v)
	if !ok {
		return
	}
	if !r.top["host_certificate"].given() {
		path += "-cert.pub"
		v.field = "host_certificate"
	}
	data, err := r.readFile(path, 1<<20)
	if err != nil {
		v.fail("%w", err)
		return
	}
	key, _, _, rest, err := ssh.ParseAuthorizedKey(data)
	cert, isCert := key.(*ssh.Certificate)
	switch {
	case err != nil || strings.TrimSpace(string(rest)) != "":
		v.fail("%q is not a file with one certificate", path)
		return
	case !isCert:
		v.fail("%q is a plain public key, not a certificate", path)
		return
	}
	shown, err := ssh.NewCertSigner(cert, signer)
	if err != nil {
		v.fail("%q is not a certificate of host_key", path)
		return
	}
	if r.cfg.Name == "" {
		return // told already
	}
	if r.checkCertificate(v, cert) {
		r.cfg.HostSigner = shown
	}
}

// checkCertificate refuses a certificate that no client would take, but for
// its time: were an expired one refused here, nothing else that changes would
// be read again either, the revoked keys for one.
func (r *reading) checkCertificate(v value, cert *ssh.Certificate) bool {
	authorities := r.cfg.HostCAs
	if len(authorities) == 0 && cert.SignatureKey != nil {
		authorities = []ssh.PublicKey{cert.SignatureKey}
	}
	err := trust.HostCertificate(cert, authorities, r.cfg.Name, r.now)
	if errors.Is(err, trust.ErrExpired) || errors.Is(err, trust.ErrNotYetValid) {
		v.warn("%w: clients will refuse it", err)
		err = trust.HostCertificate(cert, authorities, r.cfg.Name, time.Unix(int64(min(cert.ValidAfter, 1<<40)), 0))
	} else if err == nil {
		r.warnExpiry(v, cert)
	}
	switch {
	case errors.Is(err, trust.ErrUnknownAuthority) && len(r.cfg.HostCAs) > 0:
		v.fail("%w: host_cas doesn't have its CA", err)
	case err != nil:
		v.fail("%w", err)
	}
	return err == nil
}

// warnExpiry speaks up in the last third of a certificate's life, and in the
// last week at the earliest.
func (r *reading) warnExpiry(v value, cert *ssh.Certificate) {
	if cert.ValidBefore > 1<<40 {
		return
	}
	end := time.Unix(int64(cert.ValidBefore), 0)
	life := end.Sub(time.Unix(int64(cert.ValidAfter), 0))
	if left := end.Sub(r.now); left < min(7*24*time.Hour, life/3) {
		v.warn("the certificate expires in %s, at %s", profile.FormatTTL(max(left.Round(time.Minute), time.Minute)), end.UTC().Format(time.RFC3339))
	}
}
