//go:build linux

package ledger

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal/test/apart"
)

// TestMain runs the tests where mounts of theirs are nobody else's, and is the
// process that some of them kill.
func TestMain(m *testing.M) {
	if where := os.Getenv(childLedger); where != "" {
		if err := child(where); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	apart.Main(m, unix.CLONE_NEWNS, nil)
	os.Exit(m.Run())
}
