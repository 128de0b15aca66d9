package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/test/world"
)

// How many sleep, and how many of them are woken at once.
const (
	sleepers = 100
	atOnce   = 50
)

// benchMany has a hundred VMs sleep on disk, and wakes half of them at once.
func benchMany(b *run) error {
	w := world.New(b, "--armed", "0")
	w.Image("web")
	var vms []api.VM
	for i := range sleepers {
		v := web(w, fmt.Sprintf("vm-%d", i))
		b.must(ask(w, v))
		b.suspend(w, v.Name, api.Disk)
		vms = append(vms, v)
	}
	b.asleep(w, vms)
	one := b.backToBack(w, vms[:atOnce/2])
	b.toDisk(w, vms[:atOnce/2])
	all := b.wakeAtOnce(w, vms[:atOnce])
	b.add(least(fmt.Sprintf("wake %d at once (disk), throughput", atOnce), "wakes/s",
		atOnce/all.last.Seconds(), float64(atOnce/2)/one.last.Seconds(), "one after the other, on each core", 0.9),
		most("first answer of them", "ms", ms(all.first), one.each.at(0.5), "a wake when nobody else wakes, p50", 1.5),
		told("half of them have answered", "ms", all.each.at(0.5), ms(all.last), "all have"))
	return nil
}

// asleep measures what sleeping VMs take.
func (b *run) asleep(w *world.World, vms []api.VM) {
	processes := 0
	var storage, most int64
	for _, v := range vms {
		if w.VM(v.Name).PID != 0 {
			processes++
		}
		s, err := w.API.Stats(context.Background(), v.Name)
		b.must(err)
		storage, most = storage+s.Storage, max(most, s.Storage)
	}
	const quiet = 20 * time.Second
	time.Sleep(time.Second)
	agent := cpuOf(b, w.AgentPID())
	time.Sleep(quiet)
	share := 100 * (cpuOf(b, w.AgentPID()) - agent).Seconds() / quiet.Seconds()
	b.add(upTo(fmt.Sprintf("processes of %d VMs asleep on disk", len(vms)), "processes", float64(processes+b.inside(w)), 0),
		upTo("CPU of the agent meanwhile, share of a core", "%", share, 0.2),
		upTo("storage of a sleeping VM, mean", "MiB", mib(int(storage)/len(vms)), 20),
		told("storage of a sleeping VM, the largest", "MiB", mib(int(most)), 0, ""))
}

// inside counts the processes that live in the world's run directory.
func (b *run) inside(w *world.World) int {
	roots, err := filepath.Glob("/proc/[0-9]*/root")
	b.must(err)
	n := 0
	for _, r := range roots {
		if at, err := os.Readlink(r); err == nil && strings.HasPrefix(at, w.Run) {
			n++
		}
	}
	return n
}

// A herd is many wakes.
type herd struct {
	each        sample
	first, last time.Duration
}

// wakeAtOnce asks all of them at the same time.
func (b *run) wakeAtOnce(w *world.World, vms []api.VM) herd { return b.wakeBy(w, vms, len(vms)) }

// backToBack asks one after the other, on as many lanes as there are cores.
func (b *run) backToBack(w *world.World, vms []api.VM) herd { return b.wakeBy(w, vms, 2) }

func (b *run) wakeBy(w *world.World, vms []api.VM, lanes int) herd {
	todo := make(chan api.VM, len(vms))
	for _, v := range vms {
		todo <- v
	}
	close(todo)
	var mu sync.Mutex
	var h herd
	var failed error
	start := time.Now()
	var tasks sync.WaitGroup
	for range lanes {
		tasks.Go(func() {
			for v := range todo {
				d, err := timed(func() error { return ask(w, v) })
				mu.Lock()
				failed = errors.Join(failed, err)
				h.each = append(h.each, d)
				h.last = time.Since(start)
				if h.first == 0 {
					h.first = h.last
				}
				mu.Unlock()
			}
		})
	}
	tasks.Wait()
	b.must(failed)
	return h
}

func (b *run) toDisk(w *world.World, vms []api.VM) {
	for _, v := range vms {
		b.suspend(w, v.Name, api.Disk)
	}
}

// crowd is how many sleeping VMs the agent is to look after.
const crowd = 1000

// benchAgent measures the agent's own memory with a thousand VMs asleep. They
// are records and naps of one real VM, given names and numbers of their own:
// what the agent keeps of each is as real as if it had booted.
func benchAgent(b *run) error {
	w := world.New(b, "--armed", "0")
	w.Image("web")
	v := web(w, "vm-0")
	b.must(ask(w, v))
	b.suspend(w, "vm-0", api.Disk)
	w.StopAgent()
	for i := 1; i < crowd; i++ {
		b.clone(w, i)
	}
	w.StartAgent()
	h, err := w.API.Host(context.Background())
	b.must(err)
	if h.Asleep != crowd {
		return fmt.Errorf("%d of %d VMs are asleep", h.Asleep, crowd)
	}
	time.Sleep(12 * time.Second) // two looks of the policy
	list, err := w.API.VMs(context.Background())
	b.must(err)
	h, err = w.API.Host(context.Background())
	b.must(err)
	b.add(upTo(fmt.Sprintf("memory of the agent, %d VMs asleep", len(list)), "MiB", mib(int(h.AgentRSS)), 100))
	return nil
}

// clone gives the i-th VM the record and the nap of the first.
func (b *run) clone(w *world.World, i int) {
	name := fmt.Sprintf("vm-%d", i)
	state, run := filepath.Join(w.Dir, "state", "vms"), filepath.Join(w.Run, "nap")
	for _, dir := range []string{state, run} {
		b.linkAll(filepath.Join(dir, "vm-0"), filepath.Join(dir, name))
	}
	file := filepath.Join(state, name, "vm.json")
	data, err := os.ReadFile(file)
	b.must(err)
	b.must(os.Remove(file)) // not the first one's
	var record map[string]any
	b.must(json.Unmarshal(data, &record))
	record["index"] = i
	record["request"].(map[string]any)["name"] = name
	data, err = json.Marshal(record)
	b.must(err)
	b.must(os.WriteFile(file, data, 0o600))
}

// linkAll makes a directory with the same files as another.
func (b *run) linkAll(from, to string) {
	entries, err := os.ReadDir(from)
	b.must(err)
	b.must(os.Mkdir(to, 0o700))
	for _, e := range entries {
		b.must(os.Link(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())))
	}
}
