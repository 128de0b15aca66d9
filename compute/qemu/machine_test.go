package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal/compute"
	"github.com/tradle/cloudpal/compute/guest"
	"github.com/tradle/cloudpal/compute/image"
	"github.com/tradle/cloudpal/compute/kernel"
	"github.com/tradle/cloudpal/test/images"
)

// A rig is what a machine needs: a kernel, disks, a tap.
type rig struct {
	t      testing.TB
	driver *Driver
	kernel kernel.Prepared
	image  image.Image
	dir    string // on tmpfs
	volume string
	tap    *os.File
	ifname string
	ctl    *guest.Client
}

var mac = net.HardwareAddr{2, 0xc1, 0xd, 0, 0, 7}
var hostMAC = net.HardwareAddr{2, 0xc1, 0xd, 0xff, 0xff, 0xff}

func module(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOMOD").Output()
	must(t, err)
	return filepath.Dir(strings.TrimSpace(string(out)))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newRig(t testing.TB, name string) *rig {
	require(t)
	r := &rig{t: t, dir: t.TempDir()}
	root := module(t)
	must(t, unix.Mount("test", r.dir, "tmpfs", 0, "mode=0711"))
	t.Cleanup(func() { unix.Unmount(r.dir, unix.MNT_DETACH) })
	vminit := filepath.Join(t.TempDir(), "vminit")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", vminit, "github.com/tradle/cloudpal/cmd/vminit")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build vminit: %v\n%s", err, out)
	}
	k, err := kernel.Find(filepath.Join(root, "bin", "kernel"))
	must(t, err)
	r.kernel, err = k.Prepare(filepath.Join(root, ".cache", "host"), vminit)
	must(t, err)
	r.driver, err = Open(t.Context(), Config{
		Kernel: r.kernel.VMLinux, Cache: filepath.Join(root, ".cache", "host"),
		Usr: filepath.Join(r.dir, "usr"), Log: slog.Default(),
	})
	must(t, err)
	layout, err := images.Build(t.Context(), name, images.Cache())
	must(t, err)
	store, err := image.Open(t.TempDir())
	must(t, err)
	r.image, err = store.Import(t.Context(), layout, name, nil)
	must(t, err)
	r.volume = filepath.Join(t.TempDir(), "volume.img")
	must(t, os.WriteFile(r.volume, nil, 0o600))
	must(t, os.Truncate(r.volume, 1<<30))
	if out, err := exec.Command("/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=1,lazy_journal_init=1", r.volume).CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v %s", err, out)
	}
	r.plug()
	return r
}

// plug makes the tap, with the guest's addresses routed to it.
func (r *rig) plug() {
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	must(r.t, err)
	ifr, err := unix.NewIfreq("tap%d")
	must(r.t, err)
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	must(r.t, unix.IoctlIfreq(int(f.Fd()), unix.TUNSETIFF, ifr))
	r.tap, r.ifname = f, ifr.Name()
	r.t.Cleanup(func() { f.Close() })
	for _, args := range []string{
		"link set dev " + r.ifname + " address " + hostMAC.String(),
		"link set dev " + r.ifname + " up",
		"addr add fe80::1/64 dev " + r.ifname + " nodad",
		"addr add 10.9.0.1/32 dev " + r.ifname,
		"route add 10.9.0.2/32 dev " + r.ifname,
		"neigh replace 10.9.0.2 lladdr " + mac.String() + " dev " + r.ifname,
		"neigh replace " + guest.LinkLocal(mac).String() + " lladdr " + mac.String() + " dev " + r.ifname,
	} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			r.t.Fatalf("ip %s: %v %s", args, err, out)
		}
	}
	r.ctl = guest.Dial(r.ifname, mac)
}

func (r *rig) spec() compute.Spec {
	dir := filepath.Join(r.dir, "vm")
	s := compute.Spec{
		Name: "test", Dir: dir, Kernel: r.kernel.VMLinux, Initrd: filepath.Join(dir, "initrd"), Cmdline: r.kernel.Cmdline,
		CPUs: 1, Memory: 128 << 20, MemoryFile: filepath.Join(dir, "memory"),
		Disks: []compute.Disk{{Path: r.volume}},
		NIC:   compute.NIC{MAC: mac, TAP: r.tap},
		UID:   1_900_100_000, Limits: compute.Limits{Memory: 192 << 20},
	}
	for _, l := range r.image.Layers {
		s.Disks = append(s.Disks, compute.Disk{Path: l.Path, ReadOnly: true})
	}
	return s
}

// start makes a machine whose vCPUs run.
func (r *rig) start(s compute.Spec) compute.Machine {
	r.t.Helper()
	must(r.t, os.RemoveAll(s.Dir))
	must(r.t, os.Mkdir(s.Dir, 0o711))
	cfg := guest.Config{
		Hostname: "test", Modules: r.kernel.Modules, Volume: "vda", LayerFS: image.FS,
		Net: guest.Net{
			MAC: mac.String(), Addresses: []netip.Addr{netip.MustParseAddr("10.9.0.2")},
			Gateway: netip.MustParseAddr("10.9.0.1"), GatewayMAC: hostMAC.String(),
		},
		Process: guest.Process{Args: append(r.image.Config.Entrypoint, r.image.Config.Cmd...), Env: r.image.Config.Env},
	}
	for i := range r.image.Layers {
		cfg.Layers = append(cfg.Layers, "vd"+string(rune('b'+i)))
	}
	data, err := json.Marshal(cfg)
	must(r.t, err)
	f, err := os.OpenFile(s.Initrd, os.O_CREATE|os.O_WRONLY, 0o600)
	must(r.t, err)
	must(r.t, r.kernel.Initrd(f, []kernel.File{{Name: "config.json", Mode: 0o600, Data: data}}))
	must(r.t, errors.Join(f.Chown(s.UID, s.UID), f.Close()))
	m, err := r.driver.Boot(r.t.Context(), s)
	must(r.t, err)
	r.t.Cleanup(func() { m.Kill() })
	must(r.t, m.Run(r.t.Context()))
	return m
}

// boot starts the image's process and waits until it listens.
func (r *rig) boot() compute.Machine {
	r.t.Helper()
	start := time.Now()
	m := r.start(r.spec())
	r.greet(m, 0)
	hello := time.Since(start)
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	must(r.t, r.ctl.Listening(ctx, []uint16{8080}))
	r.t.Logf("boot to hello %v, to listening %v", hello, time.Since(start))
	return m
}

func (r *rig) greet(m compute.Machine, slept time.Duration) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 60*time.Second)
	defer cancel()
	if err := r.ctl.Hello(ctx, guest.NewHello(slept, "")); err != nil {
		r.t.Fatalf("hello: %v\nconsole: %s", err, m.Console())
	}
}

func (r *rig) get(path string) string {
	r.t.Helper()
	out, err := exec.Command("curl", "-s", "-m", "10", "http://10.9.0.2:8080"+path).CombinedOutput()
	if err != nil {
		r.t.Fatalf("get %s: %v", path, err)
	}
	return strings.TrimSpace(string(out))
}

// suspend puts the machine away and returns the file with its device state.
func (r *rig) suspend(m compute.Machine) *os.File {
	r.t.Helper()
	_, _, err := r.ctl.PrepareSuspend(r.t.Context())
	must(r.t, err)
	state, err := os.OpenFile(filepath.Join(r.dir, "state"), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	must(r.t, err)
	start := time.Now()
	must(r.t, m.Suspend(r.t.Context(), state))
	r.t.Logf("suspend %v", time.Since(start))
	if e := m.Exit(); e.Reason != compute.Suspended {
		r.t.Errorf("exit is %v", e)
	}
	_, err = state.Seek(0, 0)
	must(r.t, err)
	return state
}

// A guest whose kernel goes without its timer ends, and says why: it would stand
// still later.
func TestAGuestWithoutATimerEnds(t *testing.T) {
	r := newRig(t, "web")
	s := r.spec()
	s.Cmdline += " noapictimer"
	m := r.start(s)
	select {
	case <-m.Done():
	case <-time.After(60 * time.Second):
		t.Fatalf("it runs on; console: %s", m.Console())
	}
	if e := m.Exit(); e.Reason != compute.PoweredOff || !strings.Contains(string(m.Console()), guest.NoTimer) {
		t.Errorf("it ended: %v; console: %s", e, m.Console())
	}
}

func TestBootSuspendResume(t *testing.T) {
	r := newRig(t, "web")
	m := r.boot()
	canary := r.get("/canary")
	if got := r.get("/count"); got != "1" {
		t.Fatalf("count is %q", got)
	}
	for i := range 3 {
		state := r.suspend(m)
		start := time.Now()
		var err error
		m, err = r.driver.Arm(t.Context(), r.spec())
		must(t, err)
		armed := time.Since(start)
		must(t, m.Load(t.Context(), state))
		loaded := time.Since(start)
		must(t, m.Run(t.Context()))
		ran := time.Since(start)
		r.greet(m, time.Second)
		greeted := time.Since(start)
		if got := r.get("/count"); got != fmt.Sprint(i+2) {
			t.Fatalf("count is %q", got)
		}
		t.Logf("armed %v loaded %v ran %v greeted %v answered %v", armed, loaded, ran, greeted, time.Since(start))
		t.Cleanup(func() { m.Kill() })
	}
	if r.get("/canary") != canary {
		t.Error("the guest is another")
	}
	s, err := m.Stats(t.Context())
	must(t, err)
	if s.CPU == 0 || s.Memory < 16<<20 {
		t.Errorf("stats are %+v", s)
	}
}

// ways out of a machine that runs, each from the same boot.
func TestMachineEnds(t *testing.T) {
	r := newRig(t, "web")
	m := r.boot()
	t.Run("a suspend that is called off leaves it running", func(t *testing.T) {
		state, err := os.Create(filepath.Join(r.dir, "state"))
		must(t, err)
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("a packet came")
		cancel(why)
		if err := m.Suspend(ctx, state); !errors.Is(err, why) {
			t.Errorf("suspend: %v", err)
		}
		if got := r.get("/"); got == "" {
			t.Error("the guest does not answer")
		}
	})
	t.Run("another run of the program finds it", func(t *testing.T) {
		// As when that run ends; QEMU listens to one at a time.
		m.(*machine).disconnect()
		again, err := r.driver.Attach(t.Context(), r.spec(), m.Process())
		must(t, err)
		s, err := again.Stats(t.Context())
		must(t, err)
		if s.CPU < 500*time.Millisecond {
			t.Errorf("its CPU time is %v: not counted from its start", s.CPU)
		}
		if err := again.SetCPU(0.5, false); err != nil {
			t.Error(err)
		}
		other := m.Process()
		other.Start++
		if _, err := r.driver.Attach(t.Context(), r.spec(), other); err == nil {
			t.Error("another process of the same number is taken for it")
		}
		m = again
	})
	t.Run("another run of the program finds it while it writes a snapshot", func(t *testing.T) {
		here, there, err := os.Pipe()
		must(t, err)
		defer here.Close()
		_, err = unix.FcntlInt(there.Fd(), unix.F_SETPIPE_SZ, 4096) // which holds less than the snapshot
		must(t, err)
		_, err = m.(*machine).qmp.run(t.Context(),
			command{Execute: "getfd", Arguments: map[string]any{"fdname": stateFD}, file: there},
			command{Execute: "stop"},
			command{Execute: "migrate", Arguments: map[string]any{"uri": "fd:" + stateFD}})
		must(t, err)
		must(t, there.Close())
		m.(*machine).disconnect()
		if m, err = r.driver.Attach(t.Context(), r.spec(), m.Process()); err != nil {
			t.Fatal(err)
		}
		written := make(chan error, 1)
		go func() {
			_, err := io.Copy(io.Discard, here)
			written <- err
		}()
		must(t, m.Run(t.Context()))
		must(t, <-written)
		if got := r.get("/"); got == "" {
			t.Error("the guest does not answer")
		}
	})
	t.Run("a guest that powers off", func(t *testing.T) {
		must(t, r.ctl.PowerOff(t.Context()))
		select {
		case <-m.Done():
		case <-time.After(30 * time.Second):
			t.Fatalf("it does not end; console: %s", m.Console())
		}
		if e := m.Exit(); e.Reason != compute.PoweredOff {
			t.Errorf("the reason is %v", e)
		}
	})
	t.Run("its volume is clean", func(t *testing.T) {
		if out, err := exec.Command("/sbin/e2fsck", "-fn", r.volume).CombinedOutput(); err != nil {
			t.Errorf("e2fsck: %v\n%s", err, out)
		}
	})
	t.Run("killed", func(t *testing.T) {
		m := r.boot()
		must(t, m.Kill())
		if e := m.Exit(); e.Reason != compute.Killed {
			t.Errorf("the reason is %v", e)
		}
	})
	t.Run("crashed", func(t *testing.T) {
		m := r.boot()
		must(t, unix.Kill(m.Process().PID, unix.SIGSEGV))
		<-m.Done()
		if e := m.Exit(); e.Reason != compute.Crashed || !strings.Contains(e.Detail, "segmentation") {
			t.Errorf("the reason is %v", e)
		}
	})
}

// A state that is not one must end in an error, and not in a guest that runs.
func TestLoadRefusesGarbage(t *testing.T) {
	r := newRig(t, "web")
	s := r.spec()
	must(t, os.Mkdir(s.Dir, 0o711))
	for _, text := range []string{"", "garbage", strings.Repeat("QEVM", 1000)} {
		m, err := r.driver.Arm(t.Context(), s)
		must(t, err)
		state := filepath.Join(r.dir, "state")
		must(t, os.WriteFile(state, []byte(text), 0o600))
		f, err := os.Open(state)
		must(t, err)
		if err := m.Load(t.Context(), f); err == nil {
			t.Errorf("%.10q is loaded", text)
		}
		f.Close()
		must(t, m.Kill())
	}
}

func TestBadSpecsAreErrors(t *testing.T) {
	r := newRig(t, "web")
	must(t, os.Mkdir(r.spec().Dir, 0o711))
	for _, c := range []struct {
		what   string
		change func(*compute.Spec)
	}{
		{"no kernel", func(s *compute.Spec) { s.Kernel += ".none" }},
		{"no disk", func(s *compute.Spec) { s.Disks[0].Path += ".none" }},
		{"no initrd", func(s *compute.Spec) {}},
		{"root as the user", func(s *compute.Spec) { s.UID = 0 }},
	} {
		s := r.spec()
		c.change(&s)
		m, err := r.driver.Boot(t.Context(), s)
		if err == nil {
			t.Errorf("%s: it boots", c.what)
			m.Kill()
		}
	}
	if left, err := filepath.Glob("/sys/fs/cgroup/*/cloudpal/test-*"); err == nil && len(left) > 0 {
		t.Errorf("cgroups are left behind: %v", left)
	}
}
