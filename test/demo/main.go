// Demo shows what CloudPal does, with its own commands: a web server runs in a
// microVM, sleeps, and wakes when it is called. It is what "make demo" runs.
//
// A host's agent that runs is used; else one of the demo's own runs for as long
// as the demo.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/test/images"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	d := &demo{show: newShow(os.Stdout)}
	err := d.run(ctx)
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	d.leave()
	stop() // from here on a second Ctrl-C ends it at once
	d.clean()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// What the demo makes, and removes.
const (
	vmName    = "cloudpal-demo"
	imageName = "cloudpal-demo-nginx"
)

// A demo is one run of the show.
type demo struct {
	*show
	env    []string // that tells the command where the demo's own agent is
	runDir string   // its agent's; "" where the host's own is used
	host   api.Host
	vm     api.VM
	made   bool // the VM may be there
	taken  bool // the image may be there
}

func (d *demo) run(ctx context.Context) error {
	d.title("A web server in a microVM that sleeps until somebody calls")
	for _, step := range []func(context.Context) error{
		d.startAgent, d.importImage, d.boot, d.call, d.sleep(), d.wake, d.sleep("--depth", "disk"), d.wake, d.meter,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// startAgent finds the host's agent, or has the command start one that keeps
// apart from the host's: in .cache, and in a run directory of its own.
func (d *demo) startAgent(ctx context.Context) error {
	done := d.begin("start the agent")
	if ask(ctx, d.env, &d.host, "host", "status") != nil {
		d.runDir = "/run/cloudpal-demo"
		state, err := filepath.Abs(".cache/demo")
		if err != nil {
			return err
		}
		d.env = []string{"CLOUDPAL_RUN=" + d.runDir, "CLOUDPAL_STATE=" + state, "CLOUDPAL_SOCKET=" + d.runDir + ".sock"}
		if err := tell(ctx, d.env, "vm", "ps"); err != nil {
			return err
		}
	}
	if err := ask(ctx, d.env, &d.host, "host", "status"); err != nil {
		return err
	}
	done("%s on %d CPUs (%s), guests run Linux %s", d.host.Driver, d.host.CPUs, d.host.Accelerator, d.host.Kernel)
	return nil
}

func (d *demo) importImage(ctx context.Context) error {
	done := d.begin("make an image of nginx out of Debian's packages")
	layout, err := images.Build(ctx, "nginx", images.Cache())
	if err != nil {
		return err
	}
	done("")
	done = d.begin("import it, each layer a block device")
	var img api.Image
	d.taken = true
	if err := ask(ctx, d.env, &img, "image", "import", "--name", imageName, layout); err != nil {
		return err
	}
	done("%d layers, %.0f MiB", img.Layers, mib(img.Size))
	return nil
}

func (d *demo) boot(ctx context.Context) error {
	// A run that was killed may have left it.
	if ask(ctx, d.env, &d.vm, "vm", "inspect", vmName) == nil {
		if err := tell(ctx, d.env, "vm", "rm", "--force", vmName); err != nil {
			return err
		}
	}
	done := d.begin("boot a VM of 128 MiB that runs it")
	d.made = true
	if err := ask(ctx, d.env, &d.vm, "vm", "run", "--detach", "--name", vmName, "--publish", "80", imageName); err != nil {
		return err
	}
	done("%s", steps(d.vm))
	return nil
}

func (d *demo) call(ctx context.Context) error {
	done := d.begin("curl " + d.url())
	text, err := curl(ctx, d.url())
	if err != nil {
		return err
	}
	done("%q", text)
	return nil
}

// wake calls the sleeping VM: nothing but the packet wakes it.
func (d *demo) wake(ctx context.Context) error {
	done := d.begin("curl " + d.url() + " again, which wakes it")
	text, err := curl(ctx, d.url())
	if err != nil {
		return err
	}
	done("%q", text)
	if err := ask(ctx, d.env, &d.vm, "vm", "inspect", vmName); err != nil {
		return err
	}
	d.note("%s", steps(d.vm))
	return nil
}

// sleep suspends the VM and looks for what is left of it.
func (d *demo) sleep(depth ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := ask(ctx, d.env, &d.vm, "vm", "inspect", vmName); err != nil {
			return err
		}
		pid := d.vm.PID
		done := d.begin(strings.Join(append([]string{"suspend it"}, depth...), " "))
		if err := tell(ctx, d.env, append([]string{"vm", "suspend", vmName}, depth...)...); err != nil {
			return err
		}
		done("")
		return d.showAsleep(ctx, pid)
	}
}

func (d *demo) showAsleep(ctx context.Context, pid int) error {
	var stats api.Stats
	if err := errors.Join(ask(ctx, d.env, &d.vm, "vm", "inspect", vmName), d.stats(ctx, &stats)); err != nil {
		return err
	}
	left, err := processes(d.host.RunDir, d.vm)
	if err != nil {
		return err
	}
	if left > 0 || isRunning(pid) {
		return fmt.Errorf("the VM is %s, and yet %d processes of it run", d.vm.State, max(left, 1))
	}
	d.note("it is %s (%s): process %d is gone, %d others of it; %.0f MiB of RAM, %.0f MiB of disk",
		d.vm.State, d.vm.Depth, pid, left, mib(stats.Memory), mib(stats.Storage))
	return nil
}

func (d *demo) meter(ctx context.Context) error {
	var s api.Stats
	if err := d.stats(ctx, &s); err != nil {
		return err
	}
	d.title("The meter says")
	d.row("processor", "%.2f s", s.CPU.Seconds())
	d.row("awake", "%.1f s", s.Awake.Seconds())
	d.row("asleep", "%.1f s, in which it used no processor", s.Asleep.Seconds())
	d.row("wakes", "%d", s.Wakes)
	d.row("disk", "%.1f MiB read, %.1f MiB written", mib(s.DiskRead), mib(s.DiskWrite))
	d.row("network", "%.1f KiB in, %.1f KiB out", mib(s.NetIn)*1024, mib(s.NetOut)*1024)
	records, err := d.verifyUsage(ctx)
	if err != nil {
		return err
	}
	d.row("records", "%d, and their hashes are one chain", records)
	return nil
}

func (d *demo) stats(ctx context.Context, s *api.Stats) error {
	var all []api.Stats
	err := ask(ctx, d.env, &all, "vm", "stats", vmName)
	if err == nil && len(all) != 1 {
		err = fmt.Errorf("%d VMs are called %s", len(all), vmName)
	}
	if err == nil {
		*s = all[0]
	}
	return err
}

func (d *demo) url() string {
	if len(d.vm.Ports) == 0 {
		return "http://nowhere"
	}
	return "http://" + d.vm.Ports[0].Host.String()
}

// cleanTimeout is how long tidying up may take.
const cleanTimeout = time.Minute

// clean removes the VM, and ends the agent where it is the demo's own.
func (d *demo) clean() {
	ctx, cancel := context.WithTimeout(context.Background(), cleanTimeout)
	defer cancel()
	if d.made {
		d.complain(tell(ctx, d.env, "vm", "rm", "--force", vmName))
	}
	if d.runDir == "" {
		if d.taken {
			d.complain(tell(ctx, d.env, "image", "rm", imageName))
		}
		return
	}
	if tell(ctx, d.env, "host", "status") == nil {
		d.complain(tell(ctx, d.env, "host", "stop"))
	}
	if err := syscall.Unmount(d.runDir, syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOENT) {
		d.complain(err)
	}
	for _, left := range []string{d.runDir, d.runDir + ".sock", d.runDir + ".lock", d.runDir + ".log"} {
		d.complain(os.RemoveAll(left))
	}
}

func (d *demo) complain(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo: clean up:", err)
	}
}

// steps tells the parts of the last boot or wake.
func steps(v api.VM) string {
	var parts []string
	for _, s := range v.Steps {
		parts = append(parts, s.Name+" "+round(s.Duration))
	}
	return strings.Join(parts, ", ")
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }
