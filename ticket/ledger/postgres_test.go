package ledger

import (
	"testing"

	"github.com/tradle/cloudpal/test/postgres"
)

func openPostgresFor(t testing.TB, url string) *Postgres {
	t.Helper()
	l, err := OpenPostgres(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestPostgres(t *testing.T) {
	server := postgres.New(t)
	suite(t, func(t *testing.T) Ledger { return openPostgresFor(t, server.URL()) })
}
