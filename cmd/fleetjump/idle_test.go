package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// BenchmarkIdle measures what 100 idle sessions of real clients cost the server.
// Run it without the race detector: go test -bench Idle -run '^$' -benchtime 1x
func BenchmarkIdle(b *testing.B) {
	const sessions, together = 100, 10
	for _, way := range []string{"subsystem", "jump", "login"} {
		b.Run(way, func(b *testing.B) {
			n := map[string]int{"subsystem": 0, "jump": 1, "login": 2}[way]
			for b.Loop() {
				s := newFleetSite(b, usualStore, "web1")
				p := s.person(b, "ann")
				srv := s.start(b)
				p.at(srv)
				before, _ := memory(b, srv)
				var all []*process
				for len(all) < sessions {
					for range together {
						all = append(all, p.terminal(n, "web1", "echo begun; exec cat"))
					}
					for _, r := range all[len(all)-together:] {
						r.says("begun")
					}
				}
				after, anonymous := memory(b, srv)
				b.ReportMetric(float64(after-before)/sessions, "KiB/session")
				b.ReportMetric(float64(before)/1024, "MiB-empty")
				b.ReportMetric(float64(anonymous)/1024, "MiB-anonymous")
				for _, r := range all {
					_ = r.cmd.Process.Kill()
					r.ends()
				}
				srv.kill()
			}
		})
	}
}

// memory is what a server has in memory, in KiB: all of it, and without files.
func memory(t testing.TB, srv *server) (resident, anonymous int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", srv.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		_, _ = fmt.Sscanf(line, "VmRSS: %d kB", &resident)
		_, _ = fmt.Sscanf(line, "RssAnon: %d kB", &anonymous)
	}
	return resident, anonymous
}
