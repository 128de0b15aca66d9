// Package meter counts what a VM uses, keeps the counts in records that cannot
// be altered unseen, and judges them against a budget and a plan. All but the
// Log is arithmetic over values: who samples, and who stops a VM, is
// compute/host.
//
// A VM's counters must be right whatever happens to the agent that reads them.
// The kernel counts for each process from its start; an agent samples these
// raw counters and appends a Record with the raw counters, the name of the
// process they are of, and the totals. An agent that starts again finds in the
// last Record where the raw counters stood, so it adds what came since and
// nothing twice.
package meter

import (
	"math"
	"math/bits"
	"time"
)

// Counters are what a VM has used in its life. They only grow.
type Counters struct {
	CPU        time.Duration `json:"cpu"`        // nanoseconds of host CPU, all cores together
	MemoryTime int64         `json:"memoryTime"` // MiB·ms: one MiB of host memory taken for a millisecond
	DiskRead   int64         `json:"diskRead"`   // bytes the guest asked for
	DiskWrite  int64         `json:"diskWrite"`  // bytes
	NetIn      int64         `json:"netIn"`      // bytes to the guest
	NetOut     int64         `json:"netOut"`     // bytes from the guest
	Wakes      int64         `json:"wakes"`
	Awake      time.Duration `json:"awake"`  // nanoseconds
	Asleep     time.Duration `json:"asleep"` // nanoseconds
}

// Add returns the sums of c's and d's counters.
func (c Counters) Add(d Counters) Counters {
	return Counters{
		CPU:        c.CPU + d.CPU,
		MemoryTime: c.MemoryTime + d.MemoryTime,
		DiskRead:   c.DiskRead + d.DiskRead,
		DiskWrite:  c.DiskWrite + d.DiskWrite,
		NetIn:      c.NetIn + d.NetIn,
		NetOut:     c.NetOut + d.NetOut,
		Wakes:      c.Wakes + d.Wakes,
		Awake:      c.Awake + d.Awake,
		Asleep:     c.Asleep + d.Asleep,
	}
}

// Sub returns what was used between d and the later c.
func (c Counters) Sub(d Counters) Counters {
	return c.Add(Counters{
		CPU:        -d.CPU,
		MemoryTime: -d.MemoryTime,
		DiskRead:   -d.DiskRead,
		DiskWrite:  -d.DiskWrite,
		NetIn:      -d.NetIn,
		NetOut:     -d.NetOut,
		Wakes:      -d.Wakes,
		Awake:      -d.Awake,
		Asleep:     -d.Asleep,
	})
}

// least returns the smallest of c's counters.
func (c Counters) least() int64 {
	return min(int64(c.CPU), c.MemoryTime, c.DiskRead, c.DiskWrite, c.NetIn, c.NetOut, c.Wakes,
		int64(c.Awake), int64(c.Asleep))
}

// Raw is what one process of a VM has used since it started, as the kernel and
// the hypervisor count it.
type Raw struct {
	CPU       time.Duration `json:"cpu"`       // nanoseconds
	DiskRead  int64         `json:"diskRead"`  // bytes
	DiskWrite int64         `json:"diskWrite"` // bytes
	NetIn     int64         `json:"netIn"`     // bytes to the guest
	NetOut    int64         `json:"netOut"`    // bytes from the guest
}

// since returns what r counts beyond before. A counter that went back, which
// none should, adds nothing.
func (r Raw) since(before Raw) Raw {
	return Raw{
		CPU:       max(0, r.CPU-before.CPU),
		DiskRead:  max(0, r.DiskRead-before.DiskRead),
		DiskWrite: max(0, r.DiskWrite-before.DiskWrite),
		NetIn:     max(0, r.NetIn-before.NetIn),
		NetOut:    max(0, r.NetOut-before.NetOut),
	}
}

// A State is what a VM was for some time.
type State int

// The states. Who is off neither runs nor could be woken.
const (
	Off State = iota
	Asleep
	Awake
)

// Account returns the totals after last, now that the process named by epoch
// counts raw. If it is the process of last, what it used since is added; a new
// one counts from zero. The time since last counts as what the VM was in that
// time, and as memory bytes taken for so long; where there is no last, or the
// clock went back, no time has passed. Wakes are the caller's to count.
func Account(last Record, epoch string, raw Raw, now time.Time, was State, memory int64) Counters {
	before := Raw{}
	if epoch == last.Epoch {
		before = last.Raw
	}
	used := raw.since(before)
	took := elapsed(last.Time, now)
	c := Counters{
		CPU: used.CPU, DiskRead: used.DiskRead, DiskWrite: used.DiskWrite,
		NetIn: used.NetIn, NetOut: used.NetOut,
		MemoryTime: memoryTime(memory, took),
	}
	switch was {
	case Awake:
		c.Awake = took
	case Asleep:
		c.Asleep = took
	}
	return last.Total.Add(c)
}

func elapsed(from, to time.Time) time.Duration {
	if from.IsZero() {
		return 0
	}
	// By the wall clock, as in the record: it runs while the host sleeps.
	return max(0, to.Round(0).Sub(from))
}

// memoryTime returns bytes times d in MiB·ms, rounded down.
func memoryTime(bytes int64, d time.Duration) int64 {
	const unit = 1 << 20 * uint64(time.Millisecond)
	hi, lo := bits.Mul64(uint64(max(0, bytes)), uint64(d))
	if hi >= unit/2 {
		return math.MaxInt64 // 2^63 MiB·ms: 4 million years of 64 GiB
	}
	n, _ := bits.Div64(hi, lo, unit)
	return int64(n)
}
