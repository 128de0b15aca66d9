package card

import (
	"database/sql"
	"testing"
)

// engines runs a test over each database.
func engines(t *testing.T, test func(t *testing.T, db *sql.DB)) {
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		db, _ := lite(t)
		test(t, db)
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, postgresDB(t))
	})
}
