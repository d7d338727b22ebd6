package program

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fleetca/fleetca/cmd/terminal"
)

type testCLI struct {
	Do         doCmd      `cmd:"" help:"Do it."`
	Completion Completion `cmd:"" help:"Print the completion script for a shell."`
	Complete   Complete   `cmd:"" hidden:""`

	Flags `embed:""`
}

type doCmd struct {
	How  string `enum:"well,badly,coded,hinted,silently,slowly" default:"well" help:"How."`
	What string `arg:"" optional:"" help:"What."`
}

func (*doCmd) Help() string { return "${name} does it. ${exit_codes}" }

func (d *doCmd) Run(ctx context.Context, a *App, cfg Config) error {
	failure := fmt.Errorf("doing %s: it broke\x1b[31m", d.What)
	switch d.How {
	case "badly":
		return failure
	case "coded":
		return fmt.Errorf("wrapped: %w", WithCode(7, failure))
	case "hinted":
		return terminal.Hint(failure, "try again")
	case "silently":
		return WithCode(ExitFailed, ErrSilent)
	case "slowly":
		return fmt.Errorf("waiting: %w", context.Canceled)
	}
	fmt.Fprintf(a.Stdout, "%s did %s\n", cfg.Name, d.What)
	return nil
}

func TestRun(t *testing.T) {
	cfg := Config{Name: "doer", Description: "It does.", ExitCodes: "Exit codes: many."}
	tests := []struct {
		args        string
		code        int
		out, errors string // contained
	}{
		{"do x", 0, "doer did x\n", ""},
		{"do x --how badly", 1, "", "doer: doing x: it broke\\x1b[31m\n"},
		{"do x --how coded", 7, "", "doer: wrapped: doing x"},
		{"do x --how hinted", 1, "", "\nhint: try again\n"},
		{"do --how silently", 1, "", ""},
		{"do --how slowly", 130, "", "doer: interrupted\n"},
		{"do --how never", 2, "", "hint: doer --help lists"},
		{"", 2, "", "expected one of"},
		{"--color always do --how badly", 1, "", "\x1b[31mdoer:\x1b[0m"},
		{"--help", 0, "Exit codes: many.", ""},
		{"do --help", 0, "doer does it. Exit codes: many.", ""},
		{"completion --help", 0, "source <(doer completion bash)", ""},
		{"completion bash", 0, "complete -o default -F _doer doer\n", ""},
		{"complete -- d", 0, "do\n", ""},
		{"complete -- do --", 0, "--how\n", ""},
		{"--version", 0, Version(), ""},
	}
	for _, tt := range tests {
		var out, errs strings.Builder
		code := Run(t.Context(), cfg, testApp(&out, &errs), new(testCLI), strings.Fields(tt.args))
		if code != tt.code || !strings.Contains(out.String(), tt.out) || !strings.Contains(errs.String(), tt.errors) ||
			tt.errors == "" && errs.Len() > 0 {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q", tt.args, code, out.String(), errs.String())
		}
	}
}

func TestCompletions(t *testing.T) {
	for words, want := range map[string]string{
		"":               "do completion",
		"do --h":         "--help --how",
		"do --how sl":    "slowly",
		"completion ":    "bash zsh fish",
		"do --how=well ": "",
	} {
		var out, errs strings.Builder
		args := append([]string{"complete", "--"}, strings.Split(words, " ")...)
		if code := Run(t.Context(), Config{Name: "doer"}, testApp(&out, &errs), new(testCLI), args); code != 0 {
			t.Fatalf("%q: exit code %d: %s", words, code, errs.String())
		}
		if got := strings.Join(strings.Fields(out.String()), " "); got != want {
			t.Errorf("%q: %q, want %q", words, got, want)
		}
	}
}

func TestWithCode(t *testing.T) {
	if WithCode(3, nil) != nil {
		t.Error("a code made an error of nil")
	}
	cause := errors.New("why")
	if err := WithCode(3, cause); !errors.Is(err, cause) || err.Error() != "why" {
		t.Errorf("the code changed the error: %v", err)
	}
}

func testApp(out, errs *strings.Builder) *App {
	getenv := func(string) string { return "" }
	return &App{Stdin: strings.NewReader(""), Stdout: out, Stderr: errs, Getenv: getenv, Now: time.Now, Term: terminal.New(getenv)}
}
