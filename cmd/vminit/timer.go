package main

import (
	"bytes"
	"errors"
	"os"

	"github.com/tradle/cloudpal/compute/guest"
)

// checkTimer looks whether the kernel has a timer; device is where it names the
// one that it uses.
//
// Under emulation it finds out at boot how fast its local APIC counts, by the
// processor's cycles (Linux, calibrate_APIC_clock). Where the host does not let
// QEMU run for a tenth of a second just then, it takes a good timer for one that
// is too slow, and goes without. Nothing that sleeps ever wakes in such a guest:
// it seems to run, and stands still sooner or later.
func checkTimer(device string) error {
	name, err := os.ReadFile(device)
	if err == nil && len(bytes.TrimSpace(name)) == 0 {
		return errors.New(guest.NoTimer)
	}
	return nil
}
