//go:build linux

package names

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal/test/apart"
)

// TestMain: there is nothing but a loopback, no route to the internet, and no port
// is taken.
func TestMain(m *testing.M) { apart.Main(m, unix.CLONE_NEWNET, nil) }

// isApart skips a test that must not reach the internet from where it may.
func isApart(t *testing.T) {
	t.Helper()
	if !apart.Is() {
		apart.Skip(t, "needs root, for a network of its own")
	}
}
