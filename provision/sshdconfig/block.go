package sshdconfig

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

const (
	blockBegin = "# BEGIN fleetca"
	blockEnd   = "# END fleetca"
	// blockNote tells the person who opens the file what the block is.
	blockNote = ": written by fleetca, which replaces everything up to the END line"
)

// ErrMarkers is wrapped by errors about marker lines that don't pair up. The
// text needs a person: what was ours can't be told from what wasn't.
var ErrMarkers = errors.New("damaged fleetca markers")

// WithBlock puts a block of settings, between marker lines, at the very top
// of the text of an sshd_config, where they come before any Match and any
// other setting. A block that is there already is replaced. Every other byte
// stays. A block that holds a Match or an Include is refused: a Match would
// swallow the settings that follow it.
func WithBlock(text, block []byte) ([]byte, error) {
	rest, err := WithoutBlock(text)
	if err != nil {
		return nil, err
	}
	if err := checkBlock(block); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.WriteString(blockBegin + blockNote + "\n")
	out.Write(block)
	if len(block) > 0 && block[len(block)-1] != '\n' {
		out.WriteByte('\n')
	}
	out.WriteString(blockEnd + "\n")
	out.Write(rest)
	return out.Bytes(), nil
}

// WithoutBlock is the text without the block, and the text itself if there is
// none.
func WithoutBlock(text []byte) ([]byte, error) {
	begin, _, _, end, err := findBlock(text)
	if err != nil {
		return nil, err
	}
	return append(bytes.Clone(text[:begin]), text[end:]...), nil
}

// Block is what stands between the markers; found is false if there is no
// block.
func Block(text []byte) (block []byte, found bool, err error) {
	begin, inner, innerEnd, end, err := findBlock(text)
	if err != nil || begin == end {
		return nil, false, err
	}
	return bytes.Clone(text[inner:innerEnd]), true, nil
}

func checkBlock(block []byte) error {
	f, err := Parse("block", block)
	if err != nil {
		return err
	}
	for _, d := range f.Directives() {
		if d.Problem != "" {
			return fmt.Errorf("adding a block to sshd_config: %s: %s", d.Position, d.Problem)
		}
		if d.Keyword == "match" || d.Keyword == "include" {
			return fmt.Errorf("adding a block to sshd_config: %s: %q doesn't belong in it", d.Position, d.Keyword)
		}
	}
	for line := range bytes.Lines(block) {
		if marker(line) != "" {
			return fmt.Errorf("adding a block to sshd_config: it holds the marker line %q", bytes.TrimSpace(line))
		}
	}
	return nil
}

// findBlock says where the block begins, where its inside begins and ends,
// and where what follows it begins: four zeroes without a block.
func findBlock(text []byte) (begin, inner, innerEnd, end int, err error) {
	open, number, at := 0, 0, 0
	closed := 0
	for line := range bytes.Lines(text) {
		number++
		next := at + len(line)
		switch marker(line) {
		case blockBegin:
			if open > 0 {
				return 0, 0, 0, 0, fmt.Errorf("%w: line %d begins a block again after line %d", ErrMarkers, number, open)
			}
			open, begin, inner = number, at, next
		case blockEnd:
			if open == 0 || closed > 0 {
				return 0, 0, 0, 0, fmt.Errorf("%w: line %d ends a block that isn't open", ErrMarkers, number)
			}
			closed, innerEnd, end = number, at, next
		}
		at = next
	}
	if open > 0 && closed == 0 {
		return 0, 0, 0, 0, fmt.Errorf("%w: the block that line %d begins has no end", ErrMarkers, open)
	}
	return begin, inner, innerEnd, end, nil
}

// marker tells which marker a line is, if any. White space around it and
// words after it don't count: editors leave the one, we wrote the other.
func marker(line []byte) string {
	s := strings.Trim(string(line), blanks)
	for _, m := range []string{blockBegin, blockEnd} {
		after, ok := strings.CutPrefix(s, m)
		if ok && (after == "" || strings.ContainsAny(after[:1], ": \t")) {
			return m
		}
	}
	return ""
}
