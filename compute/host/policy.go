package host

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/tradle/cloudpal/compute/api"
)

// policyInterval is how often the policy looks without being told to.
const policyInterval = 5 * time.Second

// keepPolicy moves naps between depths: the few most recent stay armed, all
// that fit stay in memory, and the least recently used spill to disk first.
func (h *Host) keepPolicy() {
	tick := time.NewTicker(policyInterval)
	defer tick.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-tick.C:
		case <-h.spill:
		}
		h.sealOld(h.ctx, time.Now())
		h.applyPolicy(h.ctx)
		if err := h.forget(time.Now()); err != nil {
			h.log.Error("forget VMs that are gone", "err", err)
		}
	}
}

// A nap is a sleeping VM as the policy sees it.
type nap struct {
	vm     *vm
	depth  api.Depth
	pinned api.Depth
	since  time.Time
	bytes  int64 // of RAM
}

// armedProcess is what a process that waits costs, in bytes of RAM (measured:
// 15 to 36 MiB).
const armedProcess = 32 << 20

func (h *Host) applyPolicy(ctx context.Context) {
	for v, depth := range plan(h.naps(), h.cfg.Armed, h.cfg.NapMemory-h.pressure()) {
		if ctx.Err() != nil {
			return
		}
		// A VM that is busy is being woken, or will be looked at next time.
		if !v.tryBegin() {
			continue
		}
		if state, _ := v.now(); state == api.Asleep {
			if err := v.deepen(ctx, depth); err != nil && !errors.Is(err, errInterrupted) {
				h.log.Error("move a nap", "vm", v.name, "to", depth, "err", err)
			}
		}
		v.end()
	}
}

// plan decides the depth of each nap that must move: room is how many bytes of
// RAM they may take together, arms how many may keep a process. It is pure, so
// that it can be tested without a VM.
func plan(naps []nap, arms int, room int64) func(yield func(*vm, api.Depth) bool) {
	slices.SortFunc(naps, func(a, b nap) int { return b.since.Compare(a.since) })
	return func(yield func(*vm, api.Depth) bool) {
		for _, n := range naps {
			want := n.depth
			cost := n.bytes
			switch {
			case n.depth == api.Disk && n.pinned != api.Armed:
				continue
			case n.pinned == api.Disk, n.bytes > room:
				want, cost = api.Disk, 0
			case n.pinned == "" && arms > 0 && n.bytes+armedProcess <= room:
				want, cost = api.Armed, n.bytes+armedProcess
				arms--
			case n.pinned == api.Armed && n.depth == api.Armed && n.bytes+armedProcess <= room:
				cost = n.bytes + armedProcess
			case n.pinned == "" || n.depth == api.Armed:
				want = api.Memory
			}
			room -= cost
			if want != n.depth && !yield(n.vm, want) {
				return
			}
		}
	}
}

// naps lists the sleeping VMs.
func (h *Host) naps() []nap {
	var list []nap
	for _, v := range h.all() {
		v.mu.Lock()
		n := nap{vm: v, depth: v.depth, pinned: v.pinned, since: v.since}
		sleeping := v.state == api.Asleep
		v.mu.Unlock()
		if !sleeping {
			continue
		}
		if info, err := os.Stat(v.paths.memory()); err == nil && n.depth != api.Disk {
			n.bytes = allocated(info)
		}
		list = append(list, n)
	}
	return list
}

// pressure is by how many bytes the naps must shrink for the machine to have a
// tenth of its memory free.
func (h *Host) pressure() int64 {
	available, err := meminfo("MemAvailable")
	if err != nil {
		return 0
	}
	if short := totalMemory()/10 - available<<10; short > 0 {
		var used int64
		for _, n := range h.naps() {
			used += n.bytes
		}
		return max(0, h.cfg.NapMemory-used) + short
	}
	return 0
}

// tryBegin is begin for who does not want to wait.
func (v *vm) tryBegin() bool {
	select {
	case v.op <- struct{}{}:
	default:
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.removed {
		<-v.op
		return false
	}
	return true
}
