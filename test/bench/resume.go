package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/compute/guest"
	"github.com/tradle/cloudpal/compute/image"
	"github.com/tradle/cloudpal/test/world"
)

// rounds is how many naps each depth gets.
const rounds = 25

// benchResume holds the way from a client's SYN to the first byte of the
// answer, through the agent, against QEMU resumed by hand and then asked: the
// same guest, out of the same kind of files, in turn.
func benchResume(b *run) error {
	w := world.New(b, "--armed", "0")
	w.Image("web")
	v := web(w, "web")
	b.must(ask(w, v))
	p := b.napPeer(w, v)
	accel := b.accelerator(w)
	medians := map[api.Depth]float64{}
	for _, depth := range []api.Depth{api.Armed, api.Memory, api.Disk} {
		var ours, theirs sample
		var parts [][]api.Step
		for range rounds {
			b.suspend(w, "web", depth)
			if depth != api.Disk {
				b.copyNap(w, p)
				theirs = append(theirs, b.resumePeer(p, accel, depth == api.Armed))
			}
			d, err := timed(func() error { return ask(w, v) })
			b.must(err)
			ours = append(ours, d)
			parts = append(parts, w.VM("web").Steps)
		}
		medians[depth] = ours.at(0.5)
		name := fmt.Sprintf("resume (%s) to TCP answer", depth)
		if depth == api.Disk {
			b.add(most(name+", p50", "ms", ours.at(0.5), medians[api.Memory], "resume (memory)", 2),
				told(name+", p99", "ms", ours.at(0.99), 0, ""))
		} else {
			b.add(most(name+", p50", "ms", ours.at(0.5), theirs.at(0.5), "QEMU by hand", 1.15),
				told(name+", p99", "ms", ours.at(0.99), theirs.at(0.99), "QEMU by hand"))
		}
		tellSteps(string(depth), parts)
	}
	return nil
}

// napPeer makes a peer that takes the naps of a VM.
func (b *run) napPeer(w *world.World, v api.VM) *peer {
	disks := append([]string{filepath.Join(b.TempDir(), "volume")}, b.filesOf(w, v.Name).disks[1:]...)
	return newPeer(b, b.tmpfs(), v.Name, b.macOf(w.VM(v.Name)), v.Addresses[0], vmMemory, disks)
}

// copyNap gives the peer what the agent has of the VM's nap: the same guest, in
// the same place.
func (b *run) copyNap(w *world.World, p *peer) {
	found := b.filesOf(w, p.vm)
	b.copyOf(found.disks[0], p.disks[0])
	b.copyOf(found.memory, p.memoryFile())
	b.copyOf(found.state, p.stateFile())
	b.greet(p)
}

// greet leaves the time in the mailbox of the peer's guest, or it would go on
// looking for it.
func (b *run) greet(p *peer) {
	mem, err := os.OpenFile(p.memoryFile(), os.O_RDWR, 0)
	b.must(err)
	defer mem.Close()
	b.must(guest.NewHello(0, "").Leave(mem))
}

// resumePeer resumes the peer's guest and asks it. It returns how long it took
// from the start of QEMU, or of loading where that has been done before, to the
// answer.
func (b *run) resumePeer(p *peer, accel string, armed bool) time.Duration {
	var q *qemu
	var err error
	if armed {
		q, err = p.arm(accel)
		b.must(err)
		// As the agent's, it has waited for a while.
		time.Sleep(100 * time.Millisecond)
	}
	d, err := timed(func() (err error) {
		if !armed {
			if q, err = p.arm(accel); err != nil {
				return err
			}
		}
		if err := q.resumeFrom(p.stateFile()); err != nil {
			return err
		}
		return p.ask(port)
	})
	b.must(err)
	b.must(q.kill())
	return d
}

// suspendPeer puts it to sleep by hand and returns how long that took.
func (b *run) suspendPeer(p *peer, q *qemu) (time.Duration, error) {
	f, err := os.OpenFile(p.stateFile()+".new", os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return timed(func() error {
		if err := q.suspend(f); err != nil {
			return err
		}
		return os.Rename(p.stateFile()+".new", p.stateFile())
	})
}

// benchSuspend holds the time that a guest cannot be reached while it is put to
// sleep against the same commands by hand.
func benchSuspend(b *run) error {
	w := world.New(b, "--armed", "0")
	w.Image("web")
	v := web(w, "web")
	b.must(ask(w, v))
	p := b.napPeer(w, v)
	var ours, theirs sample
	for range rounds {
		slept := b.suspend(w, "web", api.Memory)
		ours = append(ours, steps(slept, "hold packets", "snapshot", "put away"))
		b.copyNap(w, p)
		b.must(ask(w, v))
		q, err := p.arm(b.accelerator(w))
		b.must(err)
		b.must(q.resumeFrom(p.stateFile()))
		b.must(p.ask(port))
		d, err := b.suspendPeer(p, q)
		b.must(err)
		theirs = append(theirs, d)
	}
	b.add(most("suspend to memory, p50", "ms", ours.at(0.5), theirs.at(0.5), "QMP by hand", 1.5),
		told("suspend to memory, p99", "ms", ours.at(0.99), theirs.at(0.99), "QMP by hand"))
	b.suspend(w, "web", api.Memory)
	b.sealRates(b.filesOf(w, "web").memory)
	b.template(w)
	return nil
}

// benchIdle measures what a VM costs that has nothing to do, agent and all.
func benchIdle(b *run) error {
	w := world.New(b, "--armed", "0")
	w.Image("web")
	v := web(w, "web")
	b.must(ask(w, v))
	const quiet = 30 * time.Second
	time.Sleep(5 * time.Second) // what a boot leaves to do
	before, err := w.API.Stats(context.Background(), "web")
	b.must(err)
	agent := cpuOf(b, w.AgentPID())
	time.Sleep(quiet)
	after, err := w.API.Stats(context.Background(), "web")
	b.must(err)
	b.add(upTo("idle awake guest, share of a core", "%", 100*(after.CPU-before.CPU).Seconds()/quiet.Seconds(), 0.3),
		told("agent with one awake guest, share of a core", "%", 100*(cpuOf(b, w.AgentPID())-agent).Seconds()/quiet.Seconds(), 0, ""))
	return nil
}

// cpuOf returns the processor time of a process (proc(5), fields 14 and 15 of
// stat, ticks of 10 ms).
func cpuOf(b *run, pid int) time.Duration {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	b.must(err)
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	var ticks time.Duration
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		b.must(err)
		ticks += time.Duration(n)
	}
	return ticks * 10 * time.Millisecond
}

// layersOf finds the devices of an image in an agent's store.
func (b *run) layersOf(state, id string) []string {
	store, err := image.Open(filepath.Join(state, "images"))
	b.must(err)
	img, err := store.Get(id)
	b.must(err)
	var paths []string
	for _, l := range img.Layers {
		paths = append(paths, l.Path)
	}
	return paths
}
