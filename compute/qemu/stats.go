//go:build linux && amd64

package qemu

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute"
)

// blockStats are what the guest has read and written, in bytes.
type blockStats struct{ read, write int64 }

// Stats reads the machine's counters. Those of the disks are the last known
// ones when the process is gone.
func (m *machine) Stats(ctx context.Context) (compute.Stats, error) {
	cpu, err := m.proc.CPU()
	if err != nil {
		return compute.Stats{}, cloudpal.E("read the counters of "+m.spec.Name, "", err)
	}
	s := compute.Stats{CPU: cpu, Memory: m.memory()}
	blocks, err := m.blocks(ctx)
	if err != nil {
		// The connection ends a moment before the process has.
		select {
		case <-m.done:
		case <-time.After(eventWait):
			return s, cloudpal.E("read the counters of "+m.spec.Name, "", err)
		}
	}
	s.DiskRead, s.DiskWrite = blocks.read, blocks.write
	return s, nil
}

// blocks asks QEMU what the disks have done.
func (m *machine) blocks(ctx context.Context) (blockStats, error) {
	m.mu.Lock()
	last := m.last
	m.mu.Unlock()
	data, err := m.qmp.run(ctx, command{Execute: "query-blockstats"})
	if err != nil {
		return last, err
	}
	var disks []struct {
		Stats struct {
			Read  int64 `json:"rd_bytes"`
			Write int64 `json:"wr_bytes"`
		} `json:"stats"`
	}
	if err := decode(data, &disks); err != nil {
		return last, err
	}
	var sum blockStats
	for _, d := range disks {
		sum.read += max(0, d.Stats.Read)
		sum.write += max(0, d.Stats.Write)
	}
	m.mu.Lock()
	m.last = sum
	m.mu.Unlock()
	return sum, nil
}

// memory returns what the process and its memory file take, in bytes: its
// anonymous pages and the file's blocks (proc(5), statm).
func (m *machine) memory() int64 {
	var total int64
	if info, err := os.Stat(m.spec.MemoryFile); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			total = st.Blocks * 512
		}
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", m.proc.PID()))
	if err != nil {
		return total
	}
	f := strings.Fields(string(data))
	if len(f) < 3 {
		return total
	}
	resident, _ := strconv.ParseInt(f[1], 10, 64)
	shared, _ := strconv.ParseInt(f[2], 10, 64)
	return total + (resident-shared)*int64(os.Getpagesize())
}
