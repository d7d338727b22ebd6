package route

import (
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/cpu"
)

// Algorithms are what the jump host speaks, towards hosts and clients alike:
// x/crypto's own choice still has SHA-1 among the key exchanges and the MACs.
// OpenSSH 7.4 and later know several of each. The client's order decides among
// the ciphers that both know; where the processor does AES by itself, chacha20,
// which x/crypto computes at half that speed, is left out.
func Algorithms() ssh.Config {
	c := ssh.Config{
		KeyExchanges: []string{
			ssh.KeyExchangeMLKEM768X25519, ssh.KeyExchangeCurve25519, ssh.KeyExchangeECDHP256,
			ssh.KeyExchangeECDHP384, ssh.KeyExchangeECDHP521, ssh.KeyExchangeDH16SHA512,
		},
		MACs: []string{ssh.HMACSHA256ETM, ssh.HMACSHA512ETM, ssh.HMACSHA256, ssh.HMACSHA512},
		Ciphers: []string{
			ssh.CipherChaCha20Poly1305, ssh.CipherAES128GCM, ssh.CipherAES256GCM,
			ssh.CipherAES128CTR, ssh.CipherAES192CTR, ssh.CipherAES256CTR,
		},
	}
	if cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ || cpu.ARM64.HasAES && cpu.ARM64.HasPMULL {
		c.Ciphers = c.Ciphers[1:]
	}
	return c
}
