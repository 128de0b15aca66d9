// Vminit is PID 1 of every microVM. It makes a root file system of the image's
// layers and the VM's volume, brings up the one network device, runs the
// image's process, and serves the control protocol of package compute/guest to
// the host, and to nobody else.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal/compute/guest"
)

// maxConfig bounds /config.json in bytes; arguments and environment are most
// of it.
const maxConfig = 4 << 20

// helloWait is how long the process's start waits for the host's time and
// entropy. A host that never sends them must not keep a guest down.
const helloWait = 2 * time.Second

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "vminit: runs only as PID 1 of a microVM")
		os.Exit(2)
	}
	// Little garbage is better than few collections: the snapshot holds it.
	debug.SetGCPercent(50)
	// The mailbox's watcher keeps one to itself.
	runtime.GOMAXPROCS(max(2, runtime.NumCPU()))
	// The console is what the host shows of a guest that did not come up.
	fmt.Fprintf(os.Stderr, "vminit: %v\n", run())
	powerOff()
}

// run returns only where the guest does not come up.
func run() error {
	if err := mountKernel("/"); err != nil {
		return err
	}
	if err := checkTimer("/sys/devices/system/clockevents/clockevent0/current_device"); err != nil {
		return err
	}
	cfg, err := readConfig("/config.json")
	if err != nil {
		return err
	}
	if err := loadModules("/modules", cfg.Modules); err != nil {
		return err
	}
	if err := bringUp(cfg.Net); err != nil {
		return fmt.Errorf("bring up the network: %w", err)
	}
	disks, err := makeRoot(cfg)
	if err != nil {
		return err
	}
	if err := enter(root); err != nil {
		return err
	}
	if err := raiseFileLimit(); err != nil {
		return err
	}
	if err := writeEtc(cfg); err != nil {
		return err
	}
	s := newService(cfg, disks)
	greeted, err := s.listen()
	if err != nil {
		return fmt.Errorf("serve the host: %w", err)
	}
	select {
	case <-greeted:
	case <-time.After(helloWait):
	}
	s.main.start(cfg.Process)
	select {} // until the host asks to power off
}

// readConfig reads the configuration and removes it: the environment in it may
// hold secrets, and the image's process must not find another's idea of it.
func readConfig(path string) (guest.Config, error) {
	var cfg guest.Config
	f, err := os.Open(path)
	if err != nil {
		return cfg, err
	}
	defer f.Close()
	if err := os.Remove(path); err != nil {
		return cfg, err
	}
	if err := json.NewDecoder(io.LimitReader(f, maxConfig)).Decode(&cfg); err != nil {
		return cfg, fmt.Errorf("read %s: %w", path, err)
	}
	return cfg, unix.Sethostname([]byte(cfg.Hostname))
}

// maxOpenFiles is what container tools give a process, and the kernel's own
// bound.
const maxOpenFiles = 1 << 20

func raiseFileLimit() error {
	limit := syscall.Rlimit{Cur: maxOpenFiles, Max: maxOpenFiles}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("raise the limit of open files: %w", err)
	}
	return nil
}

// loadModules loads kernel modules in the given order and frees their files.
func loadModules(dir string, names []string) error {
	for _, name := range names {
		f, err := os.Open(dir + "/" + name)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && err != unix.EEXIST {
			return fmt.Errorf("load module %s: %w", name, err)
		}
	}
	return os.RemoveAll(dir)
}
