package mint

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/tradle/cloudpal/test/postgres"
)

func TestPostgreSQL(t *testing.T) {
	t.Parallel()
	s := postgres.New(t)
	var n atomic.Int64
	runSuite(t, func(testing.TB) string { return s.Database(fmt.Sprintf("books%d", n.Add(1))) })
}
