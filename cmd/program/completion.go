package program

import (
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// Completion is the command "completion". The scripts ask the program for the
// words, so they never fall behind it. Complete belongs beside it.
type Completion struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help is shown below the flags' summary.
func (*Completion) Help() string {
	return `bash: source <(${name} completion bash)
zsh:  source <(${name} completion zsh)
fish: ${name} completion fish | source

${exit_codes}`
}

// Run prints the script.
func (c *Completion) Run(a *App, cfg Config) error {
	_, err := io.WriteString(a.Stdout, strings.ReplaceAll(completionScripts[c.Shell], "${name}", cfg.Name))
	return err
}

var completionScripts = map[string]string{
	"bash": `_${name}() {
	local words
	mapfile -t words < <("${COMP_WORDS[0]}" complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
	COMPREPLY=("${words[@]}")
}
complete -o default -F _${name} ${name}
`,
	"zsh": `_${name}() {
	local -a found
	found=("${(@f)$("${words[1]}" complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
	if [[ -n "${found[1]}" ]]; then compadd -a found; else _files; fi
}
compdef _${name} ${name}
`,
	"fish": `complete -c ${name} -a '(${name} complete -- (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'
`,
}

// Complete is the hidden command "complete", which prints the words that may
// stand in place of the last one.
type Complete struct {
	Words []string `arg:"" optional:"" passthrough:""`
}

// Run prints a word a line.
func (c *Complete) Run(a *App, kctx *kong.Context) error {
	words := c.Words
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	for _, word := range completions(kctx.Model.Node, words) {
		fmt.Fprintln(a.Stdout, word)
	}
	return nil
}

// completions are the words that may stand in place of the last one.
func completions(node *kong.Node, words []string) []string {
	if len(words) == 0 {
		words = []string{""}
	}
	last := words[len(words)-1]
	flags := append([]*kong.Flag(nil), node.Flags...)
	var waiting *kong.Flag // for its value
	for _, word := range words[:len(words)-1] {
		if waiting != nil {
			waiting = nil
			continue
		}
		if strings.HasPrefix(word, "-") {
			if flag := flagNamed(flags, word); flag != nil && !flag.IsBool() && !strings.Contains(word, "=") {
				waiting = flag
			}
			continue
		}
		for _, child := range node.Children {
			if child.Name == word {
				node = child
				flags = append(flags, child.Flags...)
				break
			}
		}
	}
	var found []string
	offer := func(word string) {
		if strings.HasPrefix(word, last) {
			found = append(found, word)
		}
	}
	switch {
	case waiting != nil:
		for _, value := range enumOf(waiting.Value) {
			offer(value)
		}
	case strings.HasPrefix(last, "-"):
		for _, flag := range flags {
			if !flag.Hidden {
				offer("--" + flag.Name)
			}
		}
	default:
		for _, child := range node.Children {
			if child.Type == kong.CommandNode && !child.Hidden {
				offer(child.Name)
			}
		}
		for _, positional := range node.Positional {
			for _, value := range enumOf(positional) {
				offer(value)
			}
		}
	}
	return found
}

func enumOf(v *kong.Value) []string {
	if v.Enum == "" {
		return nil
	}
	return strings.Split(v.Enum, ",")
}

// flagNamed finds the flag that a word such as --limit, --limit=web or -l is.
func flagNamed(flags []*kong.Flag, word string) *kong.Flag {
	name, _, _ := strings.Cut(strings.TrimLeft(word, "-"), "=")
	for _, flag := range flags {
		if flag.Name == name || len(word) == 2 && string(flag.Short) == name {
			return flag
		}
	}
	return nil
}
