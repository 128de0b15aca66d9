package card

import (
	"database/sql"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/tradle/cloudpal/test/postgres"
)

// postgresDB is a database of PostgreSQL.
func postgresDB(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", postgres.New(t).URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}
