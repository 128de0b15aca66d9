package world

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Groups returns the directories of the cgroups that the world's VMs have, with
// v1 one for each controller. They are named after the VM and its directory, as
// package compute/qemu does it; other worlds have theirs beside them.
func (w *World) Groups() []string {
	unified, _ := filepath.Glob("/sys/fs/cgroup/cloudpal/*")
	split, _ := filepath.Glob("/sys/fs/cgroup/*/cloudpal/*")
	return slices.DeleteFunc(slices.Concat(unified, split), func(dir string) bool {
		name := filepath.Base(dir)
		vm := name[:max(0, strings.LastIndexByte(name, '-'))]
		sum := sha256.Sum256([]byte(filepath.Join(w.Run, "vm", vm)))
		return name != vm+"-"+hex.EncodeToString(sum[:4])
	})
}

// removeGroups removes what killed agents and processes have left.
func (w *World) removeGroups() {
	w.Eventually(10*time.Second, "the VMs' processes are gone", func() error {
		for _, dir := range w.Groups() {
			if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("remove %s: %w", dir, err)
			}
		}
		return nil
	})
}
