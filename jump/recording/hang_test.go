package recording

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetca/fleetca/jump/cast"
	"github.com/fleetca/fleetca/jump/store"
	"github.com/fleetca/fleetca/jump/transfer"
)

// TestCloseDespiteHang closes a recording while who is told of files hangs,
// which holds the parser and a stream: in a call, or only at the end.
func TestCloseDespiteHang(t *testing.T) {
	for name, inCall := range map[string]bool{"in a call": true, "at the end": false} {
		for limit, sealed := range map[time.Duration]bool{time.Second: false, time.Minute: true} {
			t.Run(name+" "+limit.String(), func(t *testing.T) {
				t.Parallel() // in real time: who waits for a mutex isn't waited for in a bubble
				s := newStore(t)
				hang, hangs := make(chan struct{}), make(chan struct{})
				o := scpOptions(t, "scp -t x", &files{})
				o.OnFile = func(transfer.Operation) { close(hangs); <-hang }
				r := start(t, Config{Store: s}, o)
				must(t, r.Output([]byte{0}))
				must(t, r.Input([]byte("C0644 1 x\n")))
				must(t, r.Output([]byte{0}))
				must(t, r.Input([]byte("x\x00")))
				returned := make(chan error, 1)
				if inCall {
					go func() { returned <- r.Output([]byte{0}) }()
					<-hangs
				} else {
					returned <- ErrClosed
				}
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				began := time.Now()
				err := r.Close(ctx, "")
				if took := time.Since(began); took > min(limit, settling)+2*grace || (err == nil) != sealed {
					t.Errorf("closed after %v: %v", took, err)
				}
				close(hang)
				if err := <-returned; err == nil {
					t.Error("the call that hung had no error")
				}
				<-r.done
				events, d := read(t, s, r.ID())
				if sealed && (!d.Sealed() || len(data(events, cast.Note)) == 0) {
					t.Errorf("recorded %s", lines(events))
				}
			})
		}
	}
}

// deaf doesn't care about ctx.
type deaf struct {
	store.Store
	hang chan struct{}
}

func (s deaf) Write(ctx context.Context, b store.Batch, committed func(error)) error {
	if b.Closing {
		<-s.hang
	}
	return s.Store.Write(ctx, b, committed)
}

// TestCloseDespiteStore closes a recording whose store hangs against its
// contract.
func TestCloseDespiteStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := deaf{newStore(t), make(chan struct{})}
		r := start(t, Config{Store: s}, onTerminal())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Close(ctx, ""); err == nil {
			t.Error("closed without an error")
		}
		close(s.hang)
		<-r.done
	})
}
