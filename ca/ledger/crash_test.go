package ledger_test

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/fleetca/fleetca/ca"
	"github.com/fleetca/fleetca/ca/ledger"
	"github.com/fleetca/fleetca/ca/profile"
)

// issuerEnv makes the test binary an issuer, which is killed without warning.
const issuerEnv = "FLEETCA_TEST_ISSUE_INTO"

// fullEnv makes the test binary one that meets a full disk.
const fullEnv = "FLEETCA_TEST_FILL_UP"

func TestMain(m *testing.M) {
	if path := os.Getenv(issuerEnv); path != "" {
		fmt.Fprintln(os.Stderr, issueForEver(path))
		os.Exit(1)
	}
	if path := os.Getenv(fullEnv); path != "" {
		if err := fillUp(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// issueForEver prints each certificate the moment it exists, from several
// goroutines at once. Only an error ends it.
func issueForEver(path string) error {
	l, err := ledger.Open(ledger.Config{Path: path})
	if err != nil {
		return err
	}
	defer l.Close()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return err
	}
	authority, err := ca.New(ca.Config{Kind: profile.User, Signer: signer, Rules: profile.DefaultRules(), Ledger: l})
	if err != nil {
		return err
	}
	request := profile.Request{Kind: profile.User, PublicKey: signer.PublicKey(), KeyID: "alice", Principals: []string{"root"}}
	errs := make(chan error)
	for range 4 {
		go func() {
			for {
				certs, err := authority.Sign(context.Background(), request, request)
				if err != nil {
					errs <- err
					return
				}
				for _, c := range certs {
					// One write a line, so that lines do not mix.
					_, _ = os.Stdout.Write(ssh.MarshalAuthorizedKey(c))
				}
			}
		}()
	}
	return <-errs
}

// TestKilledWhileIssuing kills issuers, two at a time on one ledger, at moments
// that differ from round to round. Every certificate that got out is in the
// ledger, and the ledger stays readable but for lines that a kill tore.
func TestKilledWhileIssuing(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	var mu sync.Mutex
	issued := map[uint64]string{} // serial to fingerprint
	const rounds = 12
	for round := range rounds {
		var both sync.WaitGroup
		for half := range 2 {
			both.Go(func() {
				for _, c := range issueAndKill(t, exe, path, 1+7*round+3*half) {
					mu.Lock()
					issued[c.Serial] = ssh.FingerprintSHA256(c.Key)
					mu.Unlock()
				}
			})
		}
		both.Wait()
	}
	if len(issued) < rounds*2 {
		t.Fatalf("only %d certificates in %d rounds", len(issued), rounds)
	}
	entries, torn := 0, 0
	for e, err := range ledger.List(path) {
		var d *ledger.DamagedError
		switch {
		case err == nil:
			entries++
			if key, ok := issued[e.Serial]; ok && key != e.Key {
				t.Errorf("serial %d: recorded for %s, issued for %s", e.Serial, e.Key, key)
			}
			delete(issued, e.Serial)
		case errors.As(err, &d):
			torn++
		default:
			t.Fatal(err)
		}
	}
	if len(issued) > 0 {
		t.Errorf("%d certificates were issued and are not in the ledger", len(issued))
	}
	if torn > rounds*2 {
		t.Errorf("%d torn lines after %d kills", torn, rounds*2)
	}
	t.Logf("%d entries, %d torn lines", entries, torn)
}

// issueAndKill gives the certificates that came out of an issuer, which is
// killed after a number of them.
func issueAndKill(t *testing.T, exe, path string, after int) []*ssh.Certificate {
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), issuerEnv+"="+path)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Error(err)
		return nil
	}
	if err := cmd.Start(); err != nil {
		t.Error(err)
		return nil
	}
	var certs []*ssh.Certificate
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		key, _, _, _, err := ssh.ParseAuthorizedKey(lines.Bytes())
		if err != nil {
			break // the kill cut the line
		}
		certs = append(certs, key.(*ssh.Certificate))
		if len(certs) == after {
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
	}
	_ = cmd.Wait() // it was killed
	if stderr.Len() > 0 {
		t.Errorf("issuer said %s", stderr.String())
	}
	if len(certs) < after {
		t.Errorf("issuer ended after %d certificates of %d", len(certs), after)
	}
	return certs
}
