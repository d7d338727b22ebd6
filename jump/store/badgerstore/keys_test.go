package badgerstore

import (
	"bytes"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/fleetca/fleetca/jump/store"
)

func TestKeysSort(t *testing.T) {
	id := store.NewID(time.Now())
	var keys [][]byte
	for _, at := range []time.Time{{}, time.Unix(-1, 0), time.Unix(0, 0), time.Unix(1, 0), time.Unix(1, 1000), time.Now()} {
		key := timeKey(at, id)
		if got := keyTime(key); !got.Equal(at.Truncate(time.Microsecond)) {
			t.Errorf("time %v in a key is %v", at, got)
		}
		keys = append(keys, key)
	}
	if !slices.IsSortedFunc(keys, bytes.Compare) {
		t.Error("keys don't sort by time")
	}
}

func FuzzDecodeAudit(f *testing.F) {
	for _, r := range []store.AuditRecord{
		{},
		{Time: time.Unix(1, 2).UTC(), Event: "sftp", Identity: "joe", Login: "root", Host: "web01", Session: "s", Path: "\xff\x00", SHA256: "ab", Line: []byte("{}")},
		{Path: string(make([]byte, 300)), Line: make([]byte, 3)},
	} {
		raw := encodeAudit(r)
		if _, err := decodeAudit(raw); err != nil {
			f.Fatalf("a seed doesn't load: %v", err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := decodeAudit(raw)
		if err != nil {
			return
		}
		again, err := decodeAudit(encodeAudit(r))
		if err != nil || !reflect.DeepEqual(r, again) {
			t.Fatalf("%+v became %+v, %v", r, again, err)
		}
	})
}

func FuzzDecodeBlock(f *testing.F) {
	for _, k := range []store.Block{
		{},
		{Time: time.Unix(5, 6).UTC(), Raw: 7, Data: []byte("data")},
	} {
		raw := encodeBlock(k, totals{raw: 1 << 40, stored: 3})
		if _, _, err := decodeBlock(raw); err != nil {
			f.Fatalf("a seed doesn't load: %v", err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		k, sum, err := decodeBlock(raw)
		if err != nil {
			return
		}
		again, sum2, err := decodeBlock(encodeBlock(k, sum))
		if err != nil || !reflect.DeepEqual(k, again) || sum != sum2 {
			t.Fatalf("%+v %+v became %+v %+v, %v", k, sum, again, sum2, err)
		}
	})
}
