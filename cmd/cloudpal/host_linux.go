//go:build amd64

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/host"
	"github.com/tradle/cloudpal/compute/image"
	"github.com/tradle/cloudpal/compute/kernel"
	"github.com/tradle/cloudpal/compute/qemu"
	"github.com/tradle/cloudpal/compute/seal"
	"github.com/tradle/cloudpal/network/route"
	"github.com/tradle/cloudpal/network/wake"
)

// runHost puts an agent together and runs it until ctx ends.
func (c *cli) runHost(ctx context.Context, o hostOptions) error {
	h, l, err := c.listenHost(ctx, o)
	if err != nil {
		return err
	}
	return h.Serve(ctx, l)
}

// listenHost opens an agent and its socket. What is missing is found out
// before anything is changed.
func (c *cli) listenHost(ctx context.Context, o hostOptions) (*host.Host, net.Listener, error) {
	if err := mustBeRoot(); err != nil {
		return nil, nil, err
	}
	// The agent's memory holds the key of naps: it must not reach a disk.
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return nil, nil, cloudpal.E("forbid core dumps", "", err)
	}
	if err := o.complete(); err != nil {
		return nil, nil, err
	}
	// Before anything is mounted: it is what is missing most often.
	if _, err := prepareKernel(o); err != nil {
		return nil, nil, err
	}
	if err := host.MountRunDir(o.run); err != nil {
		return nil, nil, err
	}
	if err := host.UnshareMounts(); err != nil {
		return nil, nil, err
	}
	h, err := c.openHost(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	l, err := host.Listen(o.socket)
	if err != nil {
		return nil, nil, errors.Join(err, h.Close())
	}
	return h, l, nil
}

func mustBeRoot() error {
	if os.Geteuid() == 0 {
		return nil
	}
	return cloudpal.E("", cloudpal.Denied, errors.New("only root may run VMs on this machine")).
		WithHint("run it again with sudo")
}

// complete makes all directories absolute: the agent's working directory is of
// no meaning to it.
func (o *hostOptions) complete() error {
	if o.cache == "" {
		o.cache = filepath.Join(o.state, "cache")
	}
	for _, dir := range []*string{&o.state, &o.run, &o.cache, &o.socket} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return cloudpal.E("find "+*dir, cloudpal.Invalid, err)
		}
		*dir = abs
	}
	for _, dir := range []string{o.state, o.cache} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return cloudpal.E("make the agent's directories", "", err)
		}
	}
	return nil
}

// openHost opens all that an agent is made of.
func (c *cli) openHost(ctx context.Context, o hostOptions) (*host.Host, error) {
	log := c.logger(o.debug)
	guests, err := prepareKernel(o)
	if err != nil {
		return nil, err
	}
	driver, err := qemu.Open(ctx, qemu.Config{
		Kernel: guests.VMLinux, Cache: o.cache, Usr: filepath.Join(o.cache, "usr"), Accelerator: o.accel, Log: log,
	})
	if err != nil {
		return nil, err
	}
	images, err := image.Open(filepath.Join(o.state, "images"))
	if err != nil {
		return nil, err
	}
	return host.New(ctx, host.Config{
		StateDir: o.state, RunDir: o.run, Version: versionName(),
		Kernel: guests, Driver: driver, DriverName: "qemu", Accelerator: driver.Accelerator(),
		Images: images, Key: napKey(o.state, log), Log: log,
		NapMemory: int64(o.nap), Armed: o.armed, PlanWindow: o.window, PlanGrace: o.grace,
		Network: func(asleep func(netip.Addr, string)) (host.Network, error) {
			n, err := wake.Open(wake.Config{V4: o.v4, V6: o.v6, Wake: asleep, Dir: filepath.Join(o.run, "network"), Log: log})
			return network{n, log}, err
		},
	})
}

// prepareKernel finds the guests' kernel and vminit and makes them ready.
func prepareKernel(o hostOptions) (kernel.Prepared, error) {
	init, err := findPart("vminit")
	if err != nil {
		return kernel.Prepared{}, err
	}
	k, err := findKernel(o.kernel)
	if err != nil {
		return kernel.Prepared{}, err
	}
	return k.Prepare(o.cache, init)
}

// findKernel finds the guests' kernel in dir or, where none is said, as
// findPart does, or else takes this machine's own.
func findKernel(dir string) (kernel.Kernel, error) {
	if dir != "" {
		return kernel.Find(dir)
	}
	if part, err := findPart("kernel"); err == nil {
		return kernel.Find(part)
	}
	k, err := kernel.Find("/")
	if err != nil {
		return k, cloudpal.E("find a guest kernel beside this program, in lib/cloudpal and on this machine", "", err)
	}
	return k, nil
}

// findPart returns where a part of CloudPal is that is no command: beside this
// program, where it was built, or in lib/cloudpal, where it was installed.
func findPart(name string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", cloudpal.E("find "+name, "", err)
	}
	bin := filepath.Dir(self)
	for _, dir := range []string{bin, filepath.Join(bin, "..", "lib", "cloudpal")} {
		part := filepath.Join(dir, name)
		if _, err := os.Stat(part); err == nil {
			return part, nil
		}
	}
	return "", cloudpal.E("find "+name, cloudpal.Missing, errors.New("it is not beside "+self)).
		WithHint("build it with: make build")
}

// napKey returns what seals naps on disk. Where the kernel keeps no keys, it is
// this agent's own.
func napKey(state string, log *slog.Logger) *seal.Key {
	sum := sha256.Sum256([]byte(state))
	key, err := seal.HostKey(hex.EncodeToString(sum[:8]))
	if err != nil {
		log.Warn("naps on disk will not outlive this agent", "err", err)
		return seal.NewKey()
	}
	return key
}

// network makes the host's network what the agent asks for.
type network struct {
	*wake.Network
	log *slog.Logger
}

func (n network) Add(vm string, nic host.NIC) error {
	c := wake.NIC{MAC: nic.MAC, Addrs: nic.Addrs, Rate: nic.Rate, Outbound: nic.Outbound}
	if w := nic.WireGuard; w != nil {
		c.WireGuard = &wake.WireGuard{PublicKey: [32]byte(w.PublicKey), Port: w.Port, HostPort: w.HostPort}
	}
	return n.Network.Add(vm, c)
}

func (n network) Stats(vm string) (host.NetStats, error) {
	in, out, err := n.Network.Stats(vm)
	return host.NetStats{In: in, Out: out}, err
}

func (n network) Publish(proto string, listen, target netip.AddrPort) (host.Published, error) {
	return route.Publish(proto, listen, target, n.log)
}
