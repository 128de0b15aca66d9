package main

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/compute/kernel"
	"github.com/tradle/cloudpal/test/images"
	"github.com/tradle/cloudpal/test/world"
)

// benchBoot holds a VM's boot, from a stopped VM to the first byte of its
// process, against the same kernel with busybox as init under the same QEMU
// options. Both serve with busybox httpd.
func benchBoot(b *run) error {
	w := world.New(b, "--armed", "0")
	w.Image("busybox")
	v := w.Start(api.CreateRequest{
		Name: "boot", Image: "busybox", Memory: vmMemory, Entry: []string{"httpd", "-f", "-p", fmt.Sprint(port), "-h", "/"},
		Ports: []api.Port{{Guest: port}},
	})
	p := b.barePeer(w, v)
	var ours, theirs sample
	for range 7 {
		b.must(w.API.Kill(context.Background(), "boot", api.SignalRequest{}))
		d, err := timed(func() error {
			if _, err := w.API.Start(context.Background(), "boot"); err != nil {
				return err
			}
			return ask(w, v)
		})
		b.must(err)
		ours = append(ours, d)
		theirs = append(theirs, b.bootPeer(w, p))
	}
	b.add(most("cold boot to TCP answer, p50", "ms", ours.at(0.5), theirs.at(0.5), "same kernel, busybox init", 1.25))
	return nil
}

// A bare peer is a kernel and an initrd with nothing but busybox.
type bare struct {
	*peer
	boot []string // QEMU's arguments
}

// barePeer makes one that has the VM's network and disks.
func (b *run) barePeer(w *world.World, v api.VM) bare {
	dir := b.tmpfs()
	found := b.filesOf(w, v.Name)
	disks := append([]string{b.copyOf(found.disks[0], filepath.Join(dir, "volume"))}, found.disks[1:]...)
	p := newPeer(b, dir, v.Name, b.macOf(v), v.Addresses[0], vmMemory, disks)
	guests := b.kernel()
	initrd := filepath.Join(dir, "initrd")
	b.must(os.WriteFile(initrd, b.busyboxInitrd(guests, p), 0o600))
	return bare{p, []string{"-kernel", guests.VMLinux, "-initrd", initrd, "-append", after(b.argsOf(v), "-append")}}
}

// argsOf returns the arguments of a VM's process.
func (b *run) argsOf(v api.VM) []string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", v.PID))
	b.must(err)
	return strings.Split(string(data), "\x00")
}

// after returns the argument that follows name.
func after(args []string, name string) string {
	i := slices.Index(args, name)
	if i < 0 || i+1 == len(args) {
		return ""
	}
	return args[i+1]
}

// macOf returns a VM's link address, as its process was told.
func (b *run) macOf(v api.VM) string {
	for _, a := range b.argsOf(v) {
		if _, rest, ok := strings.Cut(a, "mac="); ok {
			mac, _, _ := strings.Cut(rest, ",")
			return mac
		}
	}
	b.Fatalf("vm %s has no link address", v.Name)
	return ""
}

// bootPeer boots it and returns how long that took.
func (b *run) bootPeer(w *world.World, p bare) time.Duration {
	os.Remove(p.memoryFile())
	var q *qemu
	d, err := timed(func() (err error) {
		if q, err = p.start(b.accelerator(w), p.boot...); err != nil {
			return err
		}
		return p.ask(port)
	})
	if q != nil {
		b.must(q.kill())
	}
	b.must(err)
	return d
}

// kernel returns the one that the world's agent prepared.
func (b *run) kernel() kernel.Prepared {
	k, err := kernel.Find(filepath.Join(images.ModuleRoot(), "bin", "kernel"))
	b.must(err)
	bin, err := world.Binaries()
	b.must(err)
	p, err := k.Prepare(filepath.Join(bin, "cache"), filepath.Join(bin, "vminit"))
	b.must(err)
	return p
}

// busyboxInitrd has busybox, the modules of a disk and a network device, and a
// script that brings up the network and serves.
func (b *run) busyboxInitrd(guests kernel.Prepared, p *peer) []byte {
	dir := b.TempDir()
	for _, sub := range []string{"bin", "dev", "proc", "sys", "modules"} {
		b.must(os.Mkdir(filepath.Join(dir, sub), 0o755))
	}
	b.copyOf("/bin/busybox", filepath.Join(dir, "bin", "busybox"))
	var script strings.Builder
	script.WriteString("#!/bin/busybox sh\n" +
		"/bin/busybox mount -t devtmpfs dev /dev; /bin/busybox mount -t proc proc /proc; /bin/busybox mount -t sysfs sys /sys\n")
	for _, name := range guests.Modules {
		b.must(os.WriteFile(filepath.Join(dir, "modules", name), b.module(name), 0o600))
		script.WriteString("/bin/busybox insmod /modules/" + name + "\n")
	}
	gateway := gatewayOf(p.addr)
	script.WriteString(fmt.Sprintf("/bin/busybox ip link set lo up; /bin/busybox ip link set eth0 up; /bin/busybox ip addr add %v/32 dev eth0\n", p.addr))
	script.WriteString(fmt.Sprintf("/bin/busybox ip route add %v dev eth0; /bin/busybox ip route add default via %v dev eth0\n", gateway, gateway))
	script.WriteString(fmt.Sprintf("exec /bin/busybox httpd -f -p %d -h /\n", port))
	b.must(os.WriteFile(filepath.Join(dir, "init"), []byte(script.String()), 0o755))
	b.shell("sh", "-c", "cd "+dir+" && mknod dev/console c 5 1 && mknod dev/null c 1 3 && find . | busybox cpio -o -H newc > initrd.cpio")
	data, err := os.ReadFile(filepath.Join(dir, "initrd.cpio"))
	b.must(err)
	return bytes.Clone(data)
}

// module returns a module's file as the distribution has it.
func (b *run) module(name string) []byte {
	var found string
	root := filepath.Join(images.ModuleRoot(), "bin", "kernel")
	for _, pattern := range []string{"lib/modules/*/kernel", "usr/lib/modules/*/kernel"} {
		dirs, err := filepath.Glob(filepath.Join(root, pattern))
		b.must(err)
		for _, dir := range dirs {
			if out := b.shell("find", dir, "-name", name); out != "" {
				found = string(bytes.TrimSpace([]byte(out)))
			}
		}
	}
	data, err := os.ReadFile(found)
	b.must(err)
	return data
}

// gatewayOf is the host's own address: the first of the VMs' prefix.
func gatewayOf(a netip.Addr) netip.Addr {
	b := a.As4()
	return netip.AddrFrom4([4]byte{b[0], b[1], 0, 1})
}
