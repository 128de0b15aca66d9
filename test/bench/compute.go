package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/test/world"
)

// compute are the figures of microVMs on one host.
var compute = []bench{
	{"boot", benchBoot},
	{"resume", benchResume},
	{"suspend", benchSuspend},
	{"idle", benchIdle},
	{"neighbour", benchNeighbour},
	{"many", benchMany},
	{"agent", benchAgent},
	{"unpack", benchUnpack},
}

// port is where the guests of these benchmarks answer.
const port = 8080

// vmMemory is the guests' size in bytes.
const vmMemory = 128 << 20

// web starts a VM of the web server that answers on port.
func web(w *world.World, name string) api.VM {
	return w.Start(api.CreateRequest{Name: name, Image: "web", Memory: vmMemory})
}

// ask sends a request to a VM of a world and waits for the first byte of its
// answer.
func ask(w *world.World, v api.VM) error {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	conn, err := w.Dial(ctx, "tcp", world.Addr(v, port))
	if err != nil {
		return err
	}
	defer conn.Close()
	return firstByte(conn)
}

// firstByte asks what is at the other end of conn, and waits for it to begin
// its answer.
func firstByte(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(90 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	_, err := conn.Read(make([]byte, 1))
	return err
}

// timed returns how long f takes.
func timed(f func() error) (time.Duration, error) {
	start := time.Now()
	err := f()
	return time.Since(start), err
}

func (b *run) suspend(w *world.World, name string, d api.Depth) api.VM {
	v, err := w.API.Suspend(context.Background(), name, api.SuspendRequest{Depth: d})
	b.must(err)
	return v
}

func (b *run) must(err error) {
	if err != nil {
		b.Fatal(err)
	}
}

// files are what a VM's process has, as the peer needs them.
type files struct {
	state, memory string
	disks         []string
}

// filesOf finds them where the agent keeps them. The volume is first.
func (b *run) filesOf(w *world.World, name string) files {
	v, err := w.API.VM(context.Background(), name)
	b.must(err)
	state := filepath.Join(w.Dir, "state")
	f := files{
		state:  filepath.Join(w.Run, "nap", name, "state"),
		memory: filepath.Join(w.Run, "vm", name, "memory"),
		disks:  []string{filepath.Join(state, "vms", name, "volume.img")},
	}
	return files{f.state, f.memory, append(f.disks, b.layersOf(state, v.ImageID)...)}
}

// copyOf copies a file, holes left out, and returns the copy's name.
func (b *run) copyOf(from, to string) string {
	b.shell("cp", "--sparse=always", from, to)
	return to
}

// tmpfs makes a directory in memory, as the agent's is.
func (b *run) tmpfs() string {
	dir, err := os.MkdirTemp("/dev/shm", "cloudpal-bench-")
	b.must(err)
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// steps adds up the named parts of a VM's last wake or suspend.
func steps(v api.VM, names ...string) time.Duration {
	var sum time.Duration
	for _, s := range v.Steps {
		if slices.Contains(names, s.Name) {
			sum += s.Duration
		}
	}
	return sum
}

// accelerator tells what the agent's VMs run on: the peer's must on the same.
func (b *run) accelerator(w *world.World) string {
	h, err := w.API.Host(context.Background())
	b.must(err)
	return h.Accelerator
}

// tellSteps prints where the time of a wake went, by the medians of its parts.
func tellSteps(what string, all [][]api.Step) {
	parts := map[string]sample{}
	var order []string
	for _, steps := range all {
		for _, s := range steps {
			if parts[s.Name] == nil {
				order = append(order, s.Name)
			}
			parts[s.Name] = append(parts[s.Name], s.Duration)
		}
	}
	for _, name := range order {
		fmt.Fprintf(os.Stderr, "    %s: %s %s ms\n", what, name, short(parts[name].at(0.5)))
	}
}
