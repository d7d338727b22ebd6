package route

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// The messages of PROTOCOL.agent (draft-ietf-sshm-ssh-agent) that are used.
// x/crypto's client is not: it believes in answers of 16 MiB and in two million
// keys, can send every other request too, and tells a refusal from a broken
// agent only by the text of its errors.
const (
	agentFailure        = 5
	agentRequestKeys    = 11
	agentKeys           = 12
	agentRequestSign    = 13
	agentSignature      = 14
	agent2Failure       = 30  // as old agents of OpenSSH say it
	agentForeignFailure = 102 // and those of ssh.com

	// The bounds are those of OpenSSH's own agent and client.
	maxAgentRequest = 256 << 10
	maxAgentAnswer  = 256 << 10
	maxAgentKeys    = 2048
)

// AgentSigner gives a signer for the first of certs that the agent behind ag
// holds as a certificate. No other key of the agent is ever used; only the
// requests to list and to sign are sent. RSA keys sign with SHA-2 only.
//
// ctx bounds the life of the signer: when it ends, ag is closed and whatever is
// under way fails at once. Where ag, being closed, doesn't end what reads from
// it, as an SSH channel whose other side doesn't answer, that goroutine lasts as
// long as the connection below. The caller closes ag once the login is done. The
// signer is safe for concurrent use; one request is under way at a time.
//
// Errors are a *NoCertificateError or an *AgentError; Sign's are *AgentError.
func AgentSigner(ctx context.Context, ag io.ReadWriteCloser, certs ...*ssh.Certificate) (ssh.Signer, error) {
	a := &agentConn{rw: ag, turn: make(chan struct{}, 1), over: make(chan struct{})}
	context.AfterFunc(ctx, func() { a.end(context.Cause(ctx)) })
	keys, err := a.list(ctx)
	if err != nil {
		return nil, err
	}
	none := &NoCertificateError{Keys: len(keys)}
	for _, cert := range certs {
		if cert == nil || cert.Key == nil {
			continue
		}
		blob, plain := cert.Marshal(), cert.Key.Marshal()
		if slices.ContainsFunc(keys, func(key []byte) bool { return bytes.Equal(key, blob) }) {
			return &agentSigner{conn: a, cert: cert, blob: blob}, nil
		}
		none.HoldsKey = none.HoldsKey || slices.ContainsFunc(keys, func(key []byte) bool { return bytes.Equal(key, plain) })
	}
	return nil, none
}

// agentSigner signs with one certificate's key.
type agentSigner struct {
	conn *agentConn
	cert *ssh.Certificate
	blob []byte
}

var (
	_ ssh.MultiAlgorithmSigner = (*agentSigner)(nil)
	_ contextSigner            = (*agentSigner)(nil)
)

func (s *agentSigner) PublicKey() ssh.PublicKey { return s.cert }

func (s *agentSigner) Algorithms() []string { return signatureAlgorithms(s.cert) }

func (s *agentSigner) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) {
	return s.signContext(context.Background(), data, s.Algorithms()[0])
}

func (s *agentSigner) SignWithAlgorithm(_ io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	return s.signContext(context.Background(), data, algorithm)
}

// signContext checks what comes back: a signature that isn't good here would
// look like a host that refuses the login.
func (s *agentSigner) signContext(ctx context.Context, data []byte, algorithm string) (*ssh.Signature, error) {
	fail := func(err error) error { return &AgentError{Op: "signing", Err: err} }
	if !slices.Contains(s.Algorithms(), algorithm) {
		return nil, fail(fmt.Errorf("a key of type %q doesn't sign as %q", s.cert.Key.Type(), algorithm))
	}
	var flags agent.SignatureFlags
	switch algorithm {
	case ssh.KeyAlgoRSASHA256:
		flags = agent.SignatureFlagRsaSha256
	case ssh.KeyAlgoRSASHA512:
		flags = agent.SignatureFlagRsaSha512
	}
	answer, err := s.conn.ask(ctx, "signing", ssh.Marshal(struct {
		Type       byte
		Blob, Data []byte
		Flags      uint32
	}{agentRequestSign, s.blob, data, uint32(flags)}))
	if err != nil {
		return nil, err
	}
	signature, err := parseSignature(answer)
	if err != nil {
		return nil, fail(err)
	}
	if signature.Format != algorithm {
		return nil, fail(fmt.Errorf("asked for a signature of type %q, got %.100q", algorithm, signature.Format))
	}
	if err := s.cert.Key.Verify(data, signature); err != nil {
		return nil, fail(errors.New("the signature is not good"))
	}
	return signature, nil
}

// signatureAlgorithms are those that a certificate's key signs a login with, the
// best first. SHA-1 is none of them.
func signatureAlgorithms(cert *ssh.Certificate) []string {
	if t := cert.Key.Type(); t != ssh.KeyAlgoRSA {
		return []string{t}
	}
	return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
}

// agentConn is a conversation with an agent. Once anything goes wrong other
// than a refusal, it is over: nobody knows which answer would come next.
type agentConn struct {
	rw   io.ReadWriteCloser
	turn chan struct{} // holds whoever is asking

	once  sync.Once
	over  chan struct{}
	cause atomic.Pointer[error]
}

// end ends the conversation; the first cause stays.
func (a *agentConn) end(cause error) {
	a.once.Do(func() {
		a.cause.Store(&cause)
		close(a.over)
		_ = a.rw.Close() // what it says matters to nobody any more
	})
}

// ask sends a request and returns the answer, unless it is a refusal.
func (a *agentConn) ask(ctx context.Context, op string, request []byte) ([]byte, error) {
	fail := func(err error) error { return &AgentError{Op: op, Err: err} }
	if len(request) > maxAgentRequest {
		return nil, fail(fmt.Errorf("a request of %d bytes is too long", len(request)))
	}
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-a.over:
		return nil, fail(*a.cause.Load())
	case <-ctx.Done():
		return nil, fail(context.Cause(ctx))
	}
	select {
	case <-a.over: // and what read before may read still
		return nil, fail(*a.cause.Load())
	default:
	}
	type result struct {
		answer []byte
		err    error
	}
	done := make(chan result, 1)
	go func() {
		answer, err := a.exchange(request)
		done <- result{answer, err}
	}()
	var r result
	select {
	case r = <-done:
	case <-a.over:
		return nil, fail(*a.cause.Load())
	case <-ctx.Done():
		a.end(context.Cause(ctx))
		return nil, fail(*a.cause.Load())
	}
	if r.err != nil {
		a.end(r.err)
		return nil, fail(*a.cause.Load())
	}
	switch r.answer[0] {
	case agentFailure, agent2Failure, agentForeignFailure:
		return nil, &AgentError{Op: op, Refused: true, Err: errAgentRefuses}
	}
	return r.answer, nil
}

var errAgentRefuses = errors.New("the agent refuses")

func (a *agentConn) exchange(request []byte) ([]byte, error) {
	message := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(request)), uint32(len(request)))
	if _, err := a.rw.Write(append(message, request...)); err != nil {
		return nil, err
	}
	return readAnswer(a.rw)
}

// readAnswer reads one message. Memory grows with what comes in, not with what
// is announced.
func readAnswer(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size == 0 || size > maxAgentAnswer {
		return nil, fmt.Errorf("an answer of %d bytes is not accepted", size)
	}
	var answer bytes.Buffer
	if n, err := io.CopyN(&answer, r, int64(size)); err != nil {
		if errors.Is(err, io.EOF) && n > 0 {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return answer.Bytes(), nil
}

func (a *agentConn) list(ctx context.Context) ([][]byte, error) {
	answer, err := a.ask(ctx, "listing keys", []byte{agentRequestKeys})
	if err != nil {
		return nil, err
	}
	keys, err := parseKeys(answer)
	if err != nil {
		a.end(err)
		return nil, &AgentError{Op: "listing keys", Err: err}
	}
	return keys, nil
}

// parseKeys returns the public keys of an agent's list, as they are.
func parseKeys(answer []byte) ([][]byte, error) {
	if len(answer) < 5 || answer[0] != agentKeys {
		return nil, errors.New("the answer is not a list of keys")
	}
	count, rest := binary.BigEndian.Uint32(answer[1:]), answer[5:]
	if count > maxAgentKeys {
		return nil, fmt.Errorf("it says that it holds %d keys, more than is accepted", count)
	}
	var keys [][]byte
	for range count {
		key, after, ok := cutString(rest)
		if !ok {
			return nil, errors.New("the list of keys is cut short")
		}
		_, after, ok = cutString(after) // the comment
		if !ok {
			return nil, errors.New("the list of keys is cut short")
		}
		keys, rest = append(keys, key), after
	}
	if len(rest) > 0 {
		return nil, errors.New("there is more behind the list of keys")
	}
	return keys, nil
}

// cutString takes a string (RFC 4251 §5) off the front.
func cutString(b []byte) (s, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	n := binary.BigEndian.Uint32(b)
	if b = b[4:]; uint64(n) > uint64(len(b)) {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}

func parseSignature(answer []byte) (*ssh.Signature, error) {
	if answer[0] != agentSignature {
		return nil, errors.New("the answer is not a signature")
	}
	blob, rest, ok := cutString(answer[1:])
	if !ok || len(rest) > 0 {
		return nil, errors.New("the signature is cut short or followed by more")
	}
	var signature ssh.Signature
	if err := ssh.Unmarshal(blob, &signature); err != nil {
		return nil, errors.New("the signature can't be read")
	}
	return &signature, nil
}
