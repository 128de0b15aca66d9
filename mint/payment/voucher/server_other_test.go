//go:build !linux

package voucher

import (
	"database/sql"
	"testing"
)

func server(t *testing.T) *sql.DB {
	t.Skip("a server of PostgreSQL is run on Linux alone")
	return nil
}
