package badgerstore

import "time"

// guardUntil guards the disk until stop is closed. Between the store's look at
// the disk and Badger's write of a table others can take what was free: then
// the ballast buys the moments that Badger needs. It can't do more, since a
// table gets its blocks only as it is written.
func (d *disk) guardUntil(stop <-chan struct{}) {
	for {
		every := guardEvery
		if d.guard() {
			every = guardShort
		}
		select {
		case <-stop:
			return
		case <-time.After(every):
		}
	}
}

const (
	guardEvery = 10 * time.Millisecond
	guardShort = time.Millisecond // while room is short
)

// guard looks once; true: room is short.
func (d *disk) guard() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	free, err := d.cfg.FreeSpace(d.cfg.Dir)
	if err != nil {
		return true // the next look tells
	}
	if free+mib/4 < d.lastFree {
		d.fell = time.Now()
	}
	d.lastFree = free
	if d.ballast > 0 && free < d.tight() && (d.busy.Load() > 0 || d.backlog() > 0) {
		d.release()
	}
	return free < d.cfg.Reserve
}

// calm says whether free space hasn't fallen for a second. Who fills a disk goes
// on until it is full, and there is no hurry to write tables meanwhile. It must
// be called with mu held.
func (d *disk) calm() bool { return time.Since(d.fell) > time.Second }

// tight is less room than tables take that are written at one time.
func (d *disk) tight() uint64 { return 4 * d.size.mem }

// hold returns when there is room for a table. Badger calls it, by its log,
// right before it writes one: it waits then, and with it, sooner or later, all
// that is written, until somebody makes room. It may hold locks of its own
// meanwhile, so that reads wait too. The other choice is the end of the
// process.
func (d *disk) hold() {
	d.held.Add(1)
	for waited := time.Duration(0); ; waited += holdEvery {
		free, ok := d.roomForTable()
		if ok {
			return
		}
		if waited%(10*time.Second) == 0 {
			d.cfg.Log.Error("recording store waits for room to write a table", "free", free, "needed", d.tight())
		}
		time.Sleep(holdEvery)
	}
}

func (d *disk) roomForTable() (free uint64, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	free, err := d.cfg.FreeSpace(d.cfg.Dir)
	if err == nil && free < d.tight() && d.ballast > 0 {
		free = d.release()
	}
	return free, err == nil && free >= d.tight()
}

const holdEvery = 5 * time.Millisecond
