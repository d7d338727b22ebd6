package badgerstore

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/fleetca/fleetca/jump/store"
)

// BenchmarkRecord has 100 sessions record text that looks like a terminal's,
// in blocks of 64 KiB that are zstd-compressed before, each as fast as the
// store lets it, with two blocks on their way. It reports raw MiB a second,
// how long a block takes to be durable, and bytes on disk for each raw byte.
//
// TMPDIR says which disk.
func BenchmarkRecord(b *testing.B) {
	for _, c := range []struct {
		name   string
		soon   bool
		paced  time.Duration
		rawLen int
	}{
		{"64KiB", false, 0, 64 << 10},
		{"64KiB_soon", true, 0, 64 << 10},
		{"4KiB_paced", false, 100 * time.Millisecond, 4 << 10},
	} {
		b.Run(c.name, func(b *testing.B) { benchmarkRecord(b, c.soon, c.paced, c.rawLen) })
	}
}

func benchmarkRecord(b *testing.B, soon bool, paced time.Duration, rawLen int) {
	const writers = 100
	dir := b.TempDir()
	s := openStore(b, Config{Dir: dir})
	used := func() uint64 {
		s.disk.measure()
		return s.Space().Used
	}
	raw := terminalText(rawLen)
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(2), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		b.Fatal(err)
	}
	latencies := make([][]time.Duration, writers)
	b.SetBytes(int64(rawLen) * writers)
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			e := openEntry()
			ahead := make(chan struct{}, 2)
			var mu sync.Mutex
			for n := range uint32(b.N) {
				// Each block differs a little, as a chain of hashes makes it.
				text := append(fmt.Appendf(nil, "%d %d\n", w, n), raw...)
				k := store.Block{Session: e.ID, Number: n, Raw: uint32(len(text)), Data: encoder.EncodeAll(text, nil)}
				batch := store.Batch{Blocks: []store.Block{k}, Soon: soon}
				if n == 0 {
					batch.Sessions = []store.Session{e}
				}
				ahead <- struct{}{}
				at := time.Now()
				err := s.Write(b.Context(), batch, func(err error) {
					if err != nil {
						b.Error(err)
					}
					mu.Lock()
					latencies[w] = append(latencies[w], time.Since(at))
					mu.Unlock()
					<-ahead
				})
				if err != nil {
					b.Error(err)
					return
				}
				time.Sleep(paced)
			}
			ahead <- struct{}{}
			ahead <- struct{}{}
		})
	}
	wg.Wait()
	b.StopTimer()
	all := slices.Concat(latencies...)
	slices.Sort(all)
	total := float64(rawLen) * float64(b.N) * writers
	b.ReportMetric(total/mib/b.Elapsed().Seconds(), "MiB/s")
	b.ReportMetric(float64(all[len(all)/2].Milliseconds()), "p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100].Milliseconds()), "p99-ms")
	closeStore(b, s)
	// Closed, so that what Badger takes ahead isn't counted.
	_ = os.Remove(filepath.Join(dir, "ballast"))
	after := used()
	b.ReportMetric(float64(after)/total, "disk/raw")
}

// terminalText is what zstd makes about a fifth of.
func terminalText(n int) []byte {
	var sb strings.Builder
	for i := 0; sb.Len() < n; i++ {
		fmt.Fprintf(&sb, "\x1b[32m%08x\x1b[0m drwxr-xr-x %2d root root %6d Nov 21 %02d:%02d file-%x.conf\r\n",
			i*2654435761, i%7, (i*7919)%100000, i%24, i%60, i*40503%65521)
	}
	return []byte(sb.String()[:n])
}
