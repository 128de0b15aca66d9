//go:build !linux

package card

import (
	"database/sql"
	"testing"
)

func postgresDB(t *testing.T) *sql.DB {
	t.Skip("a server of PostgreSQL is run on Linux alone")
	return nil
}
