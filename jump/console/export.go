package console

import (
	"bufio"
	"context"
	"errors"
	"slices"

	"github.com/fleetca/fleetca/cmd/program"
	"github.com/fleetca/fleetca/cmd/terminal"
	"github.com/fleetca/fleetca/jump/audit"
	"github.com/fleetca/fleetca/jump/replay"
)

// exportCmd is "sessions export".
type exportCmd struct {
	ID     string `arg:"" help:"ID, or its beginning."`
	Format string `enum:"asciicast,asciicast-raw,text,raw,json,native" default:"asciicast" help:"asciicast, text, raw, json, asciicast-raw or native."`
}

// Help is shown below the flags' summary.
func (*exportCmd) Help() string {
	return `Formats:

    asciicast      for asciinema play, with nothing in it that does more than draw
    asciicast-raw  the same as the host sent it
    text           what could be read on the terminal, for grep
    raw            exactly the bytes that the client received
    json           a line an event, bytes in base64
    native         the recording's own format, as docs/recording-format.md has it

    ${name} sessions export ID > session.cast
    asciinema play session.cast

Of a damaged recording comes what is before the damage, and exit code 1.

${exit_codes}`
}

// Run has the command run.
func (cmd *exportCmd) Run(do Do) error { return do(cmd) }

// forFiles are bytes that a terminal would obey.
var forFiles = []replay.Format{replay.Raw, replay.Native}

func (cmd *exportCmd) run(ctx context.Context, c *call) error {
	format := replay.Format(cmd.Format)
	if c.Terminal && slices.Contains(forFiles, format) {
		return program.WithCode(program.ExitUsage, terminal.Hint(errors.New("format "+cmd.Format+" is not for terminals"),
			"write it to a file or a pipe (with ssh: without -t), or use --format text"))
	}
	s, err := c.find(ctx, cmd.ID)
	if err != nil {
		return err
	}
	if err := c.record(ctx, audit.Event{Event: audit.EventExport, Action: cmd.Format}, s); err != nil {
		return err
	}
	out := bufio.NewWriterSize(c.Out, 64<<10)
	err = replay.Export(ctx, out, c.Store, s.ID, format)
	if flushed := out.Flush(); err == nil {
		err = flushed
	}
	return err
}
