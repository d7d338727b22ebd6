package keyring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// ErrNoAgent means that no ssh-agent is running as far as we were told.
var ErrNoAgent = errors.New("no ssh-agent: SSH_AUTH_SOCK is not set")

// Agent is a connection to an ssh-agent. It is safe for concurrent use.
type Agent struct {
	agent.ExtendedAgent
	conn net.Conn
}

// DialAgent connects to the agent that listens on socket, the value of
// SSH_AUTH_SOCK. An empty socket gives ErrNoAgent.
func DialAgent(ctx context.Context, socket string) (*Agent, error) {
	if socket == "" {
		return nil, ErrNoAgent
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("connecting to ssh-agent: %w", err)
	}
	return &Agent{ExtendedAgent: agent.NewClient(conn), conn: conn}, nil
}

// Close ends the connection. Signatures that are under way fail.
func (a *Agent) Close() error { return a.conn.Close() }

// ErrNotInAgent means that the agent does not hold a key.
var ErrNotInAgent = errors.New("ssh-agent does not hold the key")

// FromAgent gives a signer for the key pub that ag holds, on a hardware token
// or in memory. RSA keys sign with SHA-512. It returns an error that wraps
// ErrNotInAgent when ag does not hold pub, and refuses certificates.
func FromAgent(ag agent.ExtendedAgent, pub ssh.PublicKey) (ssh.Signer, error) {
	if ag == nil || pub == nil {
		return nil, errors.New("key in ssh-agent: agent and public key are needed")
	}
	plain, err := ssh.ParsePublicKey(pub.Marshal())
	if err != nil {
		return nil, fmt.Errorf("key in ssh-agent: %w", err)
	}
	if _, ok := plain.(*ssh.Certificate); ok {
		return nil, errors.New("key in ssh-agent: expected a plain public key, got a certificate")
	}
	keys, err := ag.List()
	if err != nil {
		return nil, fmt.Errorf("listing the keys in ssh-agent: %w", err)
	}
	for _, k := range keys {
		if bytes.Equal(k.Marshal(), plain.Marshal()) {
			return &agentSigner{agent: ag, pub: plain}, nil
		}
	}
	return nil, fmt.Errorf("%w %s", ErrNotInAgent, ssh.FingerprintSHA256(plain))
}

// agentSigner signs through an agent.
type agentSigner struct {
	agent agent.ExtendedAgent
	pub   ssh.PublicKey
}

var _ ssh.AlgorithmSigner = (*agentSigner)(nil)

func (s *agentSigner) PublicKey() ssh.PublicKey { return s.pub }

func (s *agentSigner) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	algorithm := s.pub.Type()
	if algorithm == ssh.KeyAlgoRSA {
		algorithm = ssh.KeyAlgoRSASHA512
	}
	return s.SignWithAlgorithm(rand, data, algorithm)
}

// SignWithAlgorithm refuses an answer of another type than the one asked for:
// old agents know no flags and sign with SHA-1.
func (s *agentSigner) SignWithAlgorithm(_ io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	var flags agent.SignatureFlags
	switch algorithm {
	case ssh.KeyAlgoRSASHA256:
		flags = agent.SignatureFlagRsaSha256
	case ssh.KeyAlgoRSASHA512:
		flags = agent.SignatureFlagRsaSha512
	case s.pub.Type():
	default:
		return nil, fmt.Errorf("a key of type %q can't sign as %q", s.pub.Type(), algorithm)
	}
	sig, err := s.agent.SignWithFlags(s.pub, data, flags)
	if err != nil {
		return nil, fmt.Errorf("signing with the key in ssh-agent: %w", err)
	}
	if sig.Format != algorithm {
		return nil, fmt.Errorf("ssh-agent made a signature of type %q, not %q", sig.Format, algorithm)
	}
	return sig, nil
}
