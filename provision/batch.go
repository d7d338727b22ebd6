package provision

import (
	"fmt"
	"strconv"
	"strings"
)

// Batches says how many hosts are taken at a time, as Ansible's serial does:
// the sizes are used in order, the last one for all that remain. Empty means
// all hosts at once.
type Batches []BatchSize

// BatchSize is a number of hosts, or a percentage of all of them.
type BatchSize struct {
	Number  int
	Percent bool
}

// ParseBatches reads "5", "20%" or "1,10,25%".
func ParseBatches(s string) (Batches, error) {
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	var out Batches
	for part := range strings.SplitSeq(s, ",") {
		text, percent := strings.CutSuffix(strings.TrimSpace(part), "%")
		n, err := strconv.Atoi(text)
		switch {
		case err != nil:
			return nil, fmt.Errorf("batch size %q: a number or a percentage is expected", part)
		case n < 1:
			return nil, fmt.Errorf("batch size %q: at least 1 is expected", part)
		case percent && n > 100:
			return nil, fmt.Errorf("batch size %q: at most 100%% is possible", part)
		}
		out = append(out, BatchSize{n, percent})
	}
	return out, nil
}

// split cuts n hosts into batches and returns where each ends. Percentages are
// rounded down, but never to nothing.
func (b Batches) split(n int) []int {
	var ends []int
	for at, i := 0, 0; at < n; i++ {
		size := n
		if len(b) > 0 {
			s := b[min(i, len(b)-1)]
			size = s.Number
			if s.Percent {
				size = max(1, n*s.Number/100)
			}
		}
		at = min(n, at+size)
		ends = append(ends, at)
	}
	return ends
}
