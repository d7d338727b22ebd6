package jump

import "golang.org/x/crypto/ssh"

// shownKeys are what the jump host shows for itself: its certificate, and for
// clients that know no host certificates (libssh, PuTTY before 0.78) the bare key
// in it, which they have to be told of, as sshd does. OpenSSH asks for the
// certificate where it trusts the CA. What is shown on behalf of hosts is a
// certificate only.
func shownKeys(shown ssh.Signer) []ssh.Signer {
	cert, ok := shown.PublicKey().(*ssh.Certificate)
	if !ok {
		return []ssh.Signer{shown}
	}
	signer, ok := shown.(ssh.AlgorithmSigner)
	if !ok {
		return []ssh.Signer{shown}
	}
	bare := ssh.AlgorithmSigner(bareKey{signer, cert.Key})
	if cert.Key.Type() == ssh.KeyAlgoRSA {
		// Not by SHA-1, which x/crypto would offer too.
		limited, err := ssh.NewSignerWithAlgorithms(bare, []string{ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512})
		if err != nil {
			return []ssh.Signer{shown}
		}
		bare = limited
	}
	return []ssh.Signer{shown, bare}
}

// bareKey signs as the key that a certificate is for.
type bareKey struct {
	ssh.AlgorithmSigner
	key ssh.PublicKey
}

func (b bareKey) PublicKey() ssh.PublicKey { return b.key }
