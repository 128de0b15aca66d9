package world

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/tradle/cloudpal/test/images"
)

// makeCore makes the image of pals' cores beside the program, where a center
// looks for it.
var makeCore = sync.OnceValue(func() error {
	bin, err := Binaries()
	if err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(bin, "cloudpal"), "core-image", filepath.Join(bin, "core"),
		"--kernel", filepath.Join(images.ModuleRoot(), "bin", "kernel"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make the core's image: %w\n%s", err, out)
	}
	return nil
})

// Core returns the real image of pals' cores, an OCI layout.
func Core(tb testing.TB) string {
	tb.Helper()
	must(tb, makeCore())
	bin, err := Binaries()
	must(tb, err)
	return filepath.Join(bin, "core")
}
