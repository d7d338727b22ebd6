package store

import "iter"

// Interrupt returns the entry of a session that an implementation finds Open
// when it opens: Interrupted, with its blocks counted anew, ended at the time
// of its last block if it has one.
func Interrupt(s Session, blocks iter.Seq[Block]) Session {
	s.State = Interrupted
	s.Blocks, s.StoredBytes = 0, 0
	var raw uint64
	for b := range blocks {
		s.Blocks++
		raw += uint64(b.Raw)
		s.StoredBytes += uint64(len(b.Data))
		s.Ended = b.Time
	}
	s.Bytes = max(s.Bytes, raw) // Raw is known to writers that give it
	return s
}
