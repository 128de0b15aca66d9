package main

import (
	"net/http"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// powerOff ends the VM: there is no power to switch off in a microVM, it ends
// when it resets.
func powerOff() {
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	select {}
}

// powerOff ends all processes, brings the disks in order and ends the VM.
func (s *service) powerOff(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).Flush()
	s.off.Do(func() {
		go func() {
			_ = unix.Kill(-1, unix.SIGKILL)
			unix.Sync()
			// Read-only, a disk is marked as clean.
			_ = unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
			for _, d := range s.disks {
				_ = unix.Syncfs(int(d.Fd()))
			}
			powerOff()
		}()
	})
}

// prepareSuspend makes the snapshot small: what is only a copy of a disk goes,
// and what this program has not used for a while.
func prepareSuspend() {
	unix.Sync()
	_ = os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
	debug.FreeOSMemory()
}
