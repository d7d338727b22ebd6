package badgerstore

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/fleetca/fleetca/jump/store"
)

// The keys; docs/storage.md describes them.
const (
	schemaKey     = "v"       // the version of all this
	sessionPrefix = "s"       // + ID: the index entry, JSON
	timePrefix    = "t"       // + start + ID: nothing; the order of lists
	openPrefix    = "o"       // + ID: nothing; the session is open
	blockPrefix   = "b"       // + ID + number: a block
	removedPrefix = "r"       // + ID: nothing; the session's blocks are to be dropped
	auditPrefix   = "a"       // + sequence: an audit record
	schemaVersion = "1"       // value of schemaKey
	timeLen       = 8         // of a start in a key
	formatByte    = byte('1') // first byte of binary values
)

func idKey(prefix, id string) []byte { return append([]byte(prefix), id...) }

// timeKey sorts by the microsecond in which the session started, then by ID.
func timeKey(start time.Time, id string) []byte {
	return append(timeStart(start), id...)
}

func timeStart(t time.Time) []byte {
	// Sign bit turned, so that times before 1970 sort first.
	return binary.BigEndian.AppendUint64([]byte(timePrefix), uint64(t.UnixMicro())^(1<<63))
}

// keyTime is the start in a key of timeKey.
func keyTime(key []byte) time.Time {
	return time.UnixMicro(int64(binary.BigEndian.Uint64(key[len(timePrefix):]) ^ (1 << 63))).UTC()
}

func blockKey(id string, number uint32) []byte {
	return binary.BigEndian.AppendUint32(idKey(blockPrefix, id), number)
}

func auditKey(sequence uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(auditPrefix), sequence)
}

var errDamaged = errors.New("damaged entry")

func encodeSession(e store.Session) ([]byte, error) { return json.Marshal(e) }

func decodeSession(raw []byte) (store.Session, error) {
	var e store.Session
	if err := json.Unmarshal(raw, &e); err != nil {
		return e, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return e, nil
}

// totals are the sums over a session's blocks up to one of them.
type totals struct{ raw, stored uint64 }

const blockHeader = 1 + 12 + 4 + 8 + 8

// encodeBlock makes a block's value. The totals in the last block save
// reading all of them to know how big a recording is.
func encodeBlock(k store.Block, sum totals) []byte {
	v := make([]byte, 0, blockHeader+len(k.Data))
	v = append(v, formatByte)
	v = appendTime(v, k.Time)
	v = binary.BigEndian.AppendUint32(v, k.Raw)
	v = binary.BigEndian.AppendUint64(v, sum.raw)
	v = binary.BigEndian.AppendUint64(v, sum.stored)
	return append(v, k.Data...)
}

// decodeBlock leaves Session and Number to the key. Data is part of raw.
func decodeBlock(raw []byte) (store.Block, totals, error) {
	if len(raw) < blockHeader || raw[0] != formatByte {
		return store.Block{}, totals{}, errDamaged
	}
	at, rest := cutTime(raw[1:])
	k := store.Block{Time: at, Raw: binary.BigEndian.Uint32(rest), Data: rest[20:]}
	return k, totals{raw: binary.BigEndian.Uint64(rest[4:]), stored: binary.BigEndian.Uint64(rest[12:])}, nil
}

func appendTime(v []byte, t time.Time) []byte {
	v = binary.BigEndian.AppendUint64(v, uint64(t.Unix()))
	return binary.BigEndian.AppendUint32(v, uint32(t.Nanosecond()))
}

// cutTime takes a time off raw, of at least 12 bytes.
func cutTime(raw []byte) (time.Time, []byte) {
	sec, nsec := binary.BigEndian.Uint64(raw), binary.BigEndian.Uint32(raw[8:])
	return time.Unix(int64(sec), int64(nsec)).UTC(), raw[12:]
}

// encodeAudit isn't JSON: paths needn't be UTF-8.
func encodeAudit(r store.AuditRecord) []byte {
	v := appendTime([]byte{formatByte}, r.Time)
	for _, f := range []string{r.Event, r.Identity, r.Login, r.Host, r.Session, r.Path, r.SHA256} {
		v = binary.AppendUvarint(v, uint64(len(f)))
		v = append(v, f...)
	}
	return append(v, r.Line...)
}

// decodeAudit leaves Sequence to the key.
func decodeAudit(raw []byte) (store.AuditRecord, error) {
	if len(raw) < 13 || raw[0] != formatByte {
		return store.AuditRecord{}, errDamaged
	}
	var r store.AuditRecord
	r.Time, raw = cutTime(raw[1:])
	for _, f := range []*string{&r.Event, &r.Identity, &r.Login, &r.Host, &r.Session, &r.Path, &r.SHA256} {
		n, used := binary.Uvarint(raw)
		if used <= 0 || n > uint64(len(raw)-used) {
			return store.AuditRecord{}, errDamaged
		}
		*f, raw = string(raw[used:used+int(n)]), raw[used+int(n):]
	}
	r.Line = bytes.Clone(raw)
	return r, nil
}
