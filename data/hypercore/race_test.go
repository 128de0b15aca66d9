//go:build race

package hypercore_test

import (
	"flag"
	"os"
	"testing"
)

// With the race detector the models have a quarter of their usual runs, unless
// -rapid.checks says otherwise: each takes ten times as long.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "25"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
