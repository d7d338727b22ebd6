package terminal

import (
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creack/pty"
)

func TestBoardLine(t *testing.T) {
	now := time.Unix(0, 0)
	b := &Board{total: 4, now: func() time.Time { return now }, running: map[string]job{}}
	b.Doing("web01", "connect")
	b.Doing("web02", "connect")
	if got := b.line(80); got != "0/4 done, 2 running" {
		t.Errorf("at first: %q", got)
	}
	now = now.Add(4 * time.Second)
	b.Doing("web02", "verify")
	b.Doing("web03", "connect")
	b.Done("web01", true)
	if got := b.line(80); got != "1/4 done, 2 running, 1 failed; slow: web02 verify (4s)" {
		t.Errorf("later: %q", got)
	}
	if got := b.line(20); len(got) > 20 {
		t.Errorf("does not fit: %q", got)
	}
}

func TestBoardSilentOnAPipe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		b := NewBoard(New(func(string) string { return "" }), &out, 1, time.Now)
		b.Doing("web01", "connect")
		time.Sleep(time.Second) // synctest's clock: no time passes
		b.Done("web01", false)
		b.Print("web01\x1b[31m\n")
		b.Close()
		if got := out.String(); got != "web01\\x1b[31m\n" {
			t.Errorf("wrote %q", got)
		}
	})
}

func TestBoardOnATerminal(t *testing.T) {
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	drawn := make(chan string, 1)
	go func() {
		var seen strings.Builder
		buf := make([]byte, 256)
		sent := false
		for {
			n, err := master.Read(buf)
			seen.Write(buf[:n])
			if !sent && strings.Contains(seen.String(), "0/1 done, 1 running") {
				drawn <- seen.String()
				sent = true
			}
			if err != nil || err == io.EOF {
				return
			}
		}
	}()
	b := NewBoard(New(os.Getenv), slave, 1, time.Now)
	b.Doing("web01", "connect")
	<-drawn
	b.Close()
	slave.Close()
}
