package badgerstore

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
)

// badgerLog passes Badger's own lines on, and holds Badger when one of them
// says that it is about to write a table. Badger has no other place where it
// could be made to wait for room; TestBadgerIsHeld holds it to these lines.
type badgerLog struct {
	log  *slog.Logger
	hold func()
}

// The formats of the lines that come before a table of a compaction, and
// before one of a memtable when prefixes are dropped. Tables of memtables that
// are full come with a commit, and so after the check before it.
const (
	beforeCompacted = "[%d] LOG Compact. Added"
	beforeDropped   = "Flushing memtable"
)

func (l *badgerLog) Errorf(f string, a ...any) { l.log.Error("badger", "line", fmt.Sprintf(f, a...)) }

func (l *badgerLog) Warningf(f string, a ...any) { l.log.Warn("badger", "line", fmt.Sprintf(f, a...)) }
func (l *badgerLog) Infof(f string, a ...any)    { l.debug(f, a) }

func (l *badgerLog) Debugf(f string, a ...any) {
	l.debug(f, a)
	if strings.HasPrefix(f, beforeCompacted) || strings.TrimSpace(f) == beforeDropped {
		l.hold()
	}
}

func (l *badgerLog) debug(f string, a []any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug("badger", "line", fmt.Sprintf(f, a...))
	}
}
