package qemu

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal/test/apart"
)

// TestMain: taps and a tmpfs are made.
func TestMain(m *testing.M) { apart.Main(m, unix.CLONE_NEWNS|unix.CLONE_NEWNET, nil) }

func require(t testing.TB) {
	t.Helper()
	apart.Root(t, "it makes jails and taps")
	if _, err := os.Stat(binaryAny); err != nil {
		apart.Skip(t, "needs "+binaryAny+": run make setup")
	}
}
