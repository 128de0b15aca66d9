package host

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/compute/meter"
)

// stats returns the VM's counters, with what its process has used since the
// last record.
func (v *vm) stats(r *http.Request) api.Stats {
	v.mu.Lock()
	m, state := v.machine, v.state
	v.mu.Unlock()
	total := v.meter.total()
	out := api.Stats{Name: v.name, State: state, MemoryLimit: v.rec.Request.Memory}
	if m != nil && state == api.Running {
		if c, err := v.counted(r.Context(), m); err == nil {
			out.Memory = c.memory
			if now, err := v.meter.add(c, false); err == nil {
				total = now
			}
		}
	} else {
		out.Memory = v.napBytes()
		total = v.meter.idle(metered[state])
	}
	out.CPU, out.DiskRead, out.DiskWrite = total.CPU, total.DiskRead, total.DiskWrite
	out.NetIn, out.NetOut, out.Wakes = total.NetIn, total.NetOut, total.Wakes
	out.Awake, out.Asleep = total.Awake, total.Asleep
	if state == api.Running {
		out.CPUPercent = v.meter.present()
	}
	out.Storage = v.storage()
	return out
}

// metered is what a VM that does not run counts as.
var metered = map[api.State]meter.State{
	api.Starting: meter.Awake, api.Asleep: meter.Asleep, api.Cold: meter.Asleep, api.Stopped: meter.Off,
}

// storage is what the VM takes on disk, in bytes, without layers that it
// shares and volumes that outlive it.
func (v *vm) storage() int64 {
	var sum int64
	entries, err := os.ReadDir(v.paths.disk)
	if err != nil {
		return 0
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			sum += allocated(info)
		}
	}
	return sum
}

func (v *vm) serveStats(w http.ResponseWriter, r *http.Request) error {
	return reply(w, v.stats(r))
}

// serveUsage sends the usage records as they are on disk, the oldest first.
func (v *vm) serveUsage(w http.ResponseWriter, r *http.Request) error {
	records, err := meter.History(v.paths.usage())
	if err != nil {
		return err
	}
	defer records.Close()
	w.Header().Set("Content-Type", "application/x-ndjson")
	_, _ = io.Copy(w, records) // a client that is gone needs no answer
	return nil
}

// describe tells how the host is.
func (h *Host) describe() api.Host {
	out := api.Host{
		Version: h.cfg.Version, PID: os.Getpid(),
		Driver: h.cfg.DriverName, Accelerator: h.cfg.Accelerator, Kernel: h.cfg.Kernel.Release,
		CPUs: runtime.NumCPU(), Memory: totalMemory(), NapLimit: h.cfg.NapMemory,
		StateDir: filepath.Clean(h.cfg.StateDir), RunDir: filepath.Clean(h.cfg.RunDir),
		AgentRSS: residentSize(),
	}
	for _, v := range h.all() {
		switch state, _ := v.now(); state {
		case api.Running, api.Starting:
			out.Running++
		case api.Asleep:
			out.Asleep++
			out.NapMemory += v.napBytes()
		}
	}
	return out
}

// residentSize returns the agent's own memory in bytes (proc(5), statm).
func residentSize() int64 {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(data))
	if len(f) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(f[1], 10, 64)
	return pages * int64(os.Getpagesize())
}
