package facts

import "errors"

// Parse reads what the probe printed. The nonce is the one that the probe was
// rendered with.
func Parse(out []byte, nonce string) (*Facts, error) {
	return nil, errors.New("reading facts: not built")
}
