package relay

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// parsers are all of them, with an example each as its RFC has it.
var parsers = []struct {
	name  string
	parse func([]byte) (any, error)
	value any
	bytes string
}{
	{
		"pty-req", anyOf(ParsePtyRequest),
		PtyRequest{"xterm", 80, 24, 640, 480, "\x35\x00\x00\x00\x01\x00"},
		"00000005787465726d 00000050 00000018 00000280 000001e0 00000006350000000100",
	},
	{"window-change", anyOf(ParseWindowChange), WindowChange{132, 43, 0, 0}, "00000084 0000002b 00000000 00000000"},
	{"x11-req", anyOf(ParseX11Request), X11Request{true, "MIT", "ab", 1}, "01 000000034d4954 000000026162 00000001"},
	{"env", anyOf(ParseEnv), Env{"LANG", "C"}, "000000044c414e47 0000000143"},
	{"exec", anyOf(ParseExec), Exec{"id\x00\xff"}, "00000004696400ff"},
	{"subsystem", anyOf(ParseSubsystem), Subsystem{"sftp"}, "0000000473667470"},
	{"xon-xoff", anyOf(ParseFlowControl), FlowControl{true}, "01"},
	{"signal", anyOf(ParseSignal), Signal{"INT"}, "00000003494e54"},
	{"break", anyOf(ParseBreak), Break{500}, "000001f4"},
	{"exit-status", anyOf(ParseExitStatus), ExitStatus{255}, "000000ff"},
	{"exit-signal", anyOf(ParseExitSignal), ExitSignal{"SEGV", true, "m", "en"}, "0000000453454756 01 000000016d 00000002656e"},
	{"tcpip-forward", anyOf(ParseTCPIPForward), TCPIPForward{"", 0}, "00000000 00000000"},
	{"tcpip-forward reply", anyOf(ParseTCPIPForwardReply), TCPIPForwardReply{4711}, "00001267"},
	{"direct-tcpip", anyOf(ParseDirectTCPIP), DirectTCPIP{"db", 22, "::1", 9}, "000000026462 00000016 000000033a3a31 00000009"},
	{"forwarded-tcpip", anyOf(ParseForwardedTCPIP), ForwardedTCPIP{"", 80, "a", 1}, "00000000 00000050 0000000161 00000001"},
	{"x11", anyOf(ParseX11Open), X11Open{"a", 1}, "0000000161 00000001"},
	{"streamlocal-forward", anyOf(ParseStreamLocalForward), StreamLocalForward{"/s"}, "000000022f73"},
	{"direct-streamlocal", anyOf(ParseDirectStreamLocal), DirectStreamLocal{"/s", "", 0}, "000000022f73 00000000 00000000"},
	{"forwarded-streamlocal", anyOf(ParseForwardedStreamLocal), ForwardedStreamLocal{"/s", ""}, "000000022f73 00000000"},
}

func anyOf[T any](parse func([]byte) (T, error)) func([]byte) (any, error) {
	return func(b []byte) (any, error) { return parse(b) }
}

func example(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	check(t, err)
	return b
}

func TestPayloads(t *testing.T) {
	for _, p := range parsers {
		t.Run(p.name, func(t *testing.T) {
			b := example(t, p.bytes)
			if got, err := p.parse(b); err != nil || got != p.value {
				t.Errorf("got %+v, %v, want %+v", got, err, p.value)
			}
			if got := ssh.Marshal(p.value); !bytes.Equal(got, b) {
				t.Errorf("marshalled to %x", got)
			}
			zero := reflect.Zero(reflect.TypeOf(p.value)).Interface()
			for n := range b {
				if got, err := p.parse(b[:n]); err == nil || got != zero {
					t.Errorf("the first %d bytes were taken as %+v, %v", n, got, err)
				}
			}
			if got, err := p.parse(append(b, 0)); err == nil || got != zero {
				t.Errorf("a byte too many was taken as %+v, %v", got, err)
			}
		})
	}
}

// FuzzPayloads wants whatever parses to be the same after it was marshalled.
func FuzzPayloads(f *testing.F) {
	for i, p := range parsers {
		b := example(f, p.bytes)
		if _, err := p.parse(b); err != nil {
			f.Fatal(err)
		}
		f.Add(byte(i), b)
		f.Add(byte(i), b[:len(b)-1])
		f.Add(byte(i), []byte{0xff, 0xff, 0xff, 0xff})
	}
	f.Fuzz(func(t *testing.T, which byte, payload []byte) {
		p := parsers[int(which)%len(parsers)]
		value, err := p.parse(payload)
		if err != nil {
			return
		}
		again := ssh.Marshal(value)
		if len(again) != len(payload) {
			t.Errorf("%d bytes became %d", len(payload), len(again))
		}
		if back, err := p.parse(again); err != nil || back != value {
			t.Errorf("%+v became %+v, %v", value, back, err)
		}
	})
}
