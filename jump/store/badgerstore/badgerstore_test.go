package badgerstore

import (
	"io"
	"log/slog"
	"os"
	"testing"

	"github.com/fleetca/fleetca/jump/store"
	"github.com/fleetca/fleetca/jump/store/storetest"
)

// small is for tests: it needs little room.
func small(dir string) Config {
	return Config{Dir: dir, Reserve: 96 * mib, CloseReserve: 64 * mib, Ballast: 16 * mib}
}

func textLog(w io.Writer) *slog.Logger {
	level := slog.LevelWarn
	if os.Getenv("BADGERSTORE_DEBUG") != "" {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

func TestContract(t *testing.T) {
	for name, config := range map[string]func(string) Config{
		"small":   small,
		"default": func(dir string) Config { return Config{Dir: dir} },
	} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) (store.Store, func() store.Store) {
				c := config(t.TempDir())
				s, err := Open(t.Context(), c)
				if err != nil {
					t.Fatal(err)
				}
				return s, func() store.Store {
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
					if s, err = Open(t.Context(), c); err != nil {
						t.Fatal(err)
					}
					return s
				}
			})
		})
	}
}
