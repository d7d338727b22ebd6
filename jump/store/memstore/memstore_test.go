package memstore_test

import (
	"testing"

	"github.com/fleetca/fleetca/jump/store"
	"github.com/fleetca/fleetca/jump/store/memstore"
	"github.com/fleetca/fleetca/jump/store/storetest"
)

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) (store.Store, func() store.Store) {
		s := memstore.New()
		return s, func() store.Store {
			s = s.Reopen()
			return s
		}
	})
}
