package qemu

import (
	"fmt"
	"os"
	"strconv"

	"github.com/tradle/cloudpal/compute"
)

// Names inside the jail.
const (
	memoryName = "memory"
	kernelName = "vmlinux"
	initrdName = "initrd"
	qmpName    = "qmp"
	consoleSoc = "console"
	errorsName = "errors"
)

// firstFD is the number of the first descriptor that a process is given beside
// the standard three.
const firstFD = 3

// An argument list in the making, with the descriptors that it speaks of.
type arguments struct {
	list  []string
	files []*os.File
}

func (a *arguments) add(args ...string) { a.list = append(a.list, args...) }

// file gives the process one more descriptor and returns its number.
func (a *arguments) file(f *os.File) int {
	a.files = append(a.files, f)
	return firstFD + len(a.files) - 1
}

// slots is how many virtio-mmio devices the machine has with one I/O APIC and
// with two (QEMU, docs/system/i386/microvm.rst).
const (
	slots     = 8
	moreSlots = 24
)

// machine are the options that a boot and a resume must have in common: a
// snapshot fits no other machine.
func (a *arguments) machine(d *Driver, s compute.Spec) {
	ioapic2 := "off"
	if len(s.Disks)+2 > slots {
		ioapic2 = "on"
	}
	a.add("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-name", s.Name,
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
	a.add(d.acceleration(s)...)
	a.add("-smp", strconv.Itoa(s.CPUs), "-m", fmt.Sprintf("%dM", s.Memory>>20),
		"-object", fmt.Sprintf("memory-backend-file,id=ram,mem-path=/%s,size=%dM,share=on", memoryName, s.Memory>>20),
		"-M", "microvm,acpi=on,pit=off,pic=off,rtc=on,isa-serial=on,auto-kernel-cmdline=off,memory-backend=ram,ioapic2="+ioapic2)
}

// translated bounds the code that QEMU keeps translated, in MiB, and then begins
// anew. Left to itself it keeps up to a GiB, and a guest that runs much code would
// be ended for its process's memory.
const translated = 128

// acceleration returns how guest code runs. A guest's CPU is the same on every
// host, but for KVM, where it is the host's.
func (d *Driver) acceleration(s compute.Spec) []string {
	if d.accelerator == KVM {
		return []string{"-accel", KVM, "-cpu", kvmCPU}
	}
	thread := "single"
	if s.CPUs > 1 {
		thread = "multi"
	}
	// Without arat an idle guest's clock ticks on and burns 2 % of a core.
	return []string{"-accel", fmt.Sprintf("tcg,thread=%s,tb-size=%d", thread, translated), "-cpu", "qemu64,+arat"}
}

// sockets are the monitor's and the console's, on which QEMU listens.
func (a *arguments) sockets(qmp, console *os.File) {
	a.add("-chardev", fmt.Sprintf("socket,id=qmp,fd=%d,server=on,wait=off", a.file(qmp)), "-mon", "chardev=qmp,mode=control",
		"-chardev", fmt.Sprintf("socket,id=console,fd=%d,server=on,wait=off", a.file(console)), "-serial", "chardev:console")
}

// devices are the disks and the NIC. Each has its own slot: the guest finds
// them from the last slot to the first, and so the disks in the order of Spec.
func (a *arguments) devices(s compute.Spec, disks [][]*os.File) {
	for i, disk := range s.Disks {
		a.disk(i, slot(s, i), disk, disks[i], s.Limits)
	}
	a.add("-netdev", fmt.Sprintf("tap,id=net,fd=%d", a.file(s.NIC.TAP)),
		"-device", fmt.Sprintf("virtio-net-device,netdev=net,guest_announce=off,mac=%s,bus=virtio-mmio-bus.%d", s.NIC.MAC, slot(s, len(s.Disks))),
		"-object", "rng-random,id=rng,filename=/dev/urandom",
		"-device", fmt.Sprintf("virtio-rng-device,rng=rng,max-bytes=1024,period=100,bus=virtio-mmio-bus.%d", slot(s, len(s.Disks)+1)))
}

// slot returns the slot of the i-th device: the disks, the NIC, the random
// number generator.
func slot(s compute.Spec, i int) int { return len(s.Disks) + 1 - i }

// disk adds one. It comes as descriptors: its path is not in the jail.
func (a *arguments) disk(i, slot int, d compute.Disk, open []*os.File, l compute.Limits) {
	for _, f := range open {
		a.add("-add-fd", fmt.Sprintf("fd=%d,set=%d", a.file(f), i))
	}
	drive := fmt.Sprintf("if=none,id=d%d,format=raw,file.filename=/dev/fdset/%d,file.locking=off", i, i)
	if d.ReadOnly {
		drive += ",readonly=on"
	} else {
		drive += ",discard=unmap"
		if l.DiskBytes > 0 {
			drive += fmt.Sprintf(",throttling.bps-total=%d", l.DiskBytes)
		}
		if l.DiskOps > 0 {
			drive += fmt.Sprintf(",throttling.iops-total=%d", l.DiskOps)
		}
	}
	a.add("-drive", drive,
		"-device", fmt.Sprintf("virtio-blk-device,drive=d%d,bus=virtio-mmio-bus.%d", i, slot))
}

// kernel makes the machine boot, and wait before its first instruction.
func (a *arguments) kernel(d *Driver, s compute.Spec) {
	a.add("-kernel", "/"+kernelName, "-initrd", "/"+initrdName, "-append", d.cmdline(s), "-S")
}

// cmdline adds to the caller's what this machine needs.
func (d *Driver) cmdline(s compute.Spec) string {
	line := s.Cmdline + " console=ttyS0 8250.nr_uarts=1"
	if d.accelerator != KVM {
		// This machine has no timer that the guest could measure the TSC
		// by; under TCG it is the host's.
		line += fmt.Sprintf(" tsc=reliable tsc_early_khz=%d", d.tscKHz)
	}
	return line
}
