package facts

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// maxOutput is far beyond what an honest host with full files sends.
	maxOutput = 16 << 20
	// maxChatter is how much a login's start-up files may print before the
	// probe begins.
	maxChatter = 64 << 10
	// maxRecords bounds the lines between the sections, and so every list.
	maxRecords  = 5_000
	maxMessages = 16 << 10
)

// ErrIncomplete is wrapped when the output has no end, or no beginning: the
// connection broke, the shell died, or something else than the probe spoke.
var ErrIncomplete = errors.New("the probe's output is incomplete")

// ErrChanged is wrapped when a file changed while the probe was reading it.
// Trying again helps.
var ErrChanged = errors.New("a file changed while the probe was reading it")

// Parse reads what the probe printed; nonce is the one that it was rendered
// with. The errors ErrIncomplete and ErrChanged may be wrapped.
func Parse(out []byte, nonce string) (*Facts, error) {
	f, err := parse(out, nonce)
	if err != nil {
		return nil, fmt.Errorf("reading facts: %w", err)
	}
	return f, nil
}

func parse(out []byte, nonce string) (*Facts, error) {
	if nonce == "" {
		return nil, errors.New("no nonce")
	}
	if len(out) > maxOutput {
		return nil, fmt.Errorf("the probe printed %d bytes, more than %d", len(out), maxOutput)
	}
	greeting := []byte("fleetca-probe 1 " + nonce + "\n")
	at := bytes.Index(out, greeting)
	if at < 0 || at > maxChatter {
		return nil, fmt.Errorf("%w: it doesn't begin", ErrIncomplete)
	}
	p := &parser{
		rest:  out[at+len(greeting):],
		nonce: nonce,
		facts: &Facts{
			UID: -1, FreeBytes: -1, Files: map[string]File{}, Tools: map[string]string{},
			Followed: []string{}, Included: []string{},
		},
		seen:     map[string]bool{},
		sections: map[string][]byte{},
	}
	if err := p.records(); err != nil {
		return nil, err
	}
	if err := p.finish(); err != nil {
		return nil, err
	}
	return p.facts, nil
}

// parser reads lines of a word and its value, and sections of anything.
type parser struct {
	rest     []byte
	nonce    string
	facts    *Facts
	seen     map[string]bool // words that may come only once
	sections map[string][]byte
	link     string // path of the last link line, until its target comes
	status   int
}

func (p *parser) records() error {
	for range maxRecords {
		line, after, ok := bytes.Cut(p.rest, []byte("\n"))
		if !ok {
			return fmt.Errorf("%w: it ends without its end mark", ErrIncomplete)
		}
		if len(line) > maxLine {
			return fmt.Errorf("a line is longer than %d bytes: %q", maxLine, clip(string(line)))
		}
		p.rest = after
		word, value, _ := strings.Cut(string(line), " ")
		if word == "end" {
			if value != p.nonce {
				return fmt.Errorf("wrong end mark %q", clip(value))
			}
			return nil
		}
		if p.seen[word] && !repeats[word] {
			return fmt.Errorf("second line %q", clip(string(line)))
		}
		p.seen[word] = true
		if err := p.record(word, value); err != nil {
			return fmt.Errorf("line %q: %w", clip(string(line)), err)
		}
	}
	return fmt.Errorf("more than %d lines", maxRecords)
}

// section takes everything up to the section's end line. Only the probe knows
// the nonce, so no file can fake that line.
func (p *parser) section(name string) error {
	switch name {
	case "messages", "effective", "ls", "files", "df":
	default:
		return errors.New("unknown section")
	}
	if _, twice := p.sections[name]; twice {
		return errors.New("second section of that name")
	}
	body, after, ok := bytes.Cut(p.rest, []byte("\n"+p.nonce+" end "+name+"\n"))
	if !ok {
		return fmt.Errorf("%w: the section has no end", ErrIncomplete)
	}
	p.sections[name], p.rest = body, after
	return nil
}

// finish puts together what came apart.
func (p *parser) finish() error {
	for _, word := range []string{"config", "uid", "status"} {
		if !p.seen[word] {
			return fmt.Errorf("%w: no line %q", ErrIncomplete, word)
		}
	}
	for _, name := range []string{"messages", "effective", "ls", "files", "df"} {
		if _, ok := p.sections[name]; !ok {
			return fmt.Errorf("%w: no section %q", ErrIncomplete, name)
		}
	}
	if p.link != "" {
		return fmt.Errorf("link %q without its target", p.link)
	}
	if err := p.effective(); err != nil {
		return err
	}
	if err := p.list(); err != nil {
		return err
	}
	if err := p.contents(); err != nil {
		return err
	}
	p.facts.FreeBytes = freeBytes(string(p.sections["df"]))
	p.facts.OS = readOS(string(p.facts.Files["/etc/os-release"].Content))
	if err := p.keys(); err != nil {
		return err
	}
	p.certificates()
	_, p.facts.Run.Exists = p.facts.Files[p.facts.Dir+"/fleetca/run"]
	return nil
}

func (p *parser) effective() error {
	messages := strings.TrimSpace(string(p.sections["messages"]))
	if len(messages) > maxMessages {
		messages = messages[:maxMessages] + "…"
	}
	if p.status == 0 {
		e, err := ParseEffective(p.sections["effective"])
		if err != nil {
			return err
		}
		p.facts.Effective, p.facts.Warnings = e, messages
		return nil
	}
	switch {
	case p.facts.SSHD == "":
		messages = "no sshd was found"
	case messages == "":
		messages = fmt.Sprintf("sshd -T ended with exit status %d", p.status)
	}
	p.facts.EffectiveProblem = messages
	return nil
}

// plain lets through text on one line.
func plain(value string) (string, error) {
	if value == "" {
		return "", errors.New("no value")
	}
	if !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl) {
		return "", errors.New("value isn't plain text")
	}
	return value, nil
}

// absolute lets through paths.
func absolute(value string) (string, error) {
	if !strings.HasPrefix(value, "/") {
		return "", errors.New("value is no absolute path")
	}
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", errors.New("path holds control characters")
	}
	return value, nil
}

func whole(value string) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 || strings.HasPrefix(value, "+") {
		return 0, errors.New("value is no number")
	}
	return n, nil
}
