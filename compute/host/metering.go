package host

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute"
	"github.com/tradle/cloudpal/compute/meter"
)

// sampleInterval is how often a running VM is counted and the count written
// down.
const sampleInterval = time.Second

// A metering counts what one VM uses, over all its processes, and keeps it to
// its limits.
type metering struct {
	path, id string
	budget   meter.Budget

	mu        sync.Mutex
	log       *meter.Log // nil until open
	judge     *meter.Judge
	throttled bool
	// The last two samples, for the present use of CPU.
	at      time.Time
	cpu     time.Duration
	percent float64
}

func newMetering(v *vm) *metering {
	l := v.rec.Request.Limits
	m := &metering{
		path: v.paths.usage(), id: v.rec.ID,
		budget: meter.Budget{CPU: l.BudgetCPU, Net: l.BudgetNet},
	}
	if l.PlanCPU > 0 {
		plan := meter.Plan{Cores: l.PlanCPU, Window: v.h.cfg.PlanWindow, Grace: v.h.cfg.PlanGrace}
		m.judge = plan.Judge()
	}
	return m
}

// open opens the records, once.
func (m *metering) open() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.log != nil {
		return nil
	}
	log, err := meter.OpenLog(m.path, m.id)
	if err != nil {
		return err
	}
	m.log = log
	return nil
}

func (m *metering) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.log == nil {
		return nil
	}
	err := m.log.Close()
	m.log = nil
	return err
}

// total returns what the VM has used in all.
func (m *metering) total() meter.Counters {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.log == nil {
		return meter.Counters{}
	}
	return m.log.Last().Total
}

// idle returns the total of a VM that does not run, with the time since the
// last record.
func (m *metering) idle(is meter.State) meter.Counters {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.log == nil {
		return meter.Counters{}
	}
	last := m.log.Last()
	return meter.Account(last, last.Epoch, last.Raw, time.Now(), is, 0)
}

// present returns the use of CPU over the last second, in percent of a core.
func (m *metering) present() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.percent
}

func (m *metering) isThrottled() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.throttled
}

// A count is what a VM's process has used since it started.
type count struct {
	epoch  string
	raw    meter.Raw
	was    meter.State // since the last count
	memory int64       // bytes, since the last count
	wakes  int64       // since the last count
	event  string
}

// add works out the new total, and writes it down if write.
func (m *metering) add(c count, write bool) (meter.Counters, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.log == nil {
		return meter.Counters{}, nil
	}
	now := time.Now()
	last := m.log.Last()
	total := meter.Account(last, c.epoch, c.raw, now, c.was, c.memory)
	total.Wakes += c.wakes
	if took := now.Sub(m.at); took > sampleInterval/2 {
		m.percent = 0
		if !m.at.IsZero() && took < 3*sampleInterval {
			m.percent = 100 * (total.CPU - m.cpu).Seconds() / took.Seconds()
		}
		m.at, m.cpu = now, total.CPU
	}
	if !write {
		return total, nil
	}
	_, err := m.log.Append(meter.Record{Time: now, Epoch: c.epoch, Raw: c.raw, Total: total, Event: c.event})
	return total, err
}

// counted reads the counters of the VM's process m.
func (v *vm) counted(ctx context.Context, m compute.Machine) (count, error) {
	s, err := m.Stats(ctx)
	if err != nil {
		return count{}, err
	}
	n, err := v.h.net.Stats(v.name)
	if err != nil {
		return count{}, err
	}
	v.mu.Lock()
	epoch := v.mom.Epoch
	v.mu.Unlock()
	raw := meter.Raw{CPU: s.CPU, DiskRead: s.DiskRead, DiskWrite: s.DiskWrite, NetIn: n.In, NetOut: n.Out}
	return count{epoch: epoch, raw: raw, was: meter.Awake, memory: s.Memory}, nil
}

// account writes down a count, and logs it where that fails: a VM does not stop
// for a record.
func (v *vm) account(c count) {
	if _, err := v.meter.add(c, true); err != nil {
		v.h.log.Error("write a usage record", "vm", v.name, "err", err)
	}
}

// statsTimeout bounds how long a VM's process may take to tell its counters.
const statsTimeout = 5 * time.Second

// woken notes that the VM runs. Until now it slept, or booted, for which it was
// awake.
func (m *metering) woken(v *vm, was meter.State, reason string) {
	v.account(count{epoch: v.epoch(), was: was, memory: v.napBytes(), wakes: 1, event: "awake: " + nameless(reason)})
}

// event notes something that happened, without counting anything but the time
// since the last count.
func (m *metering) event(v *vm, was meter.State, text string) {
	m.mu.Lock()
	var last meter.Record
	if m.log != nil {
		last = m.log.Last()
	}
	m.mu.Unlock()
	v.account(count{epoch: last.Epoch, raw: last.Raw, was: was, event: text})
}

// sealed notes that a sleeping VM's snapshot is dropped.
func (m *metering) sealed(v *vm) { m.event(v, meter.Asleep, "sealed") }

// ended counts a process for the last time. It may be gone already.
func (m *metering) ended(v *vm, machine compute.Machine) {
	if machine == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(v.h.ctx), statsTimeout)
	defer cancel()
	c, err := v.counted(ctx, machine)
	if err != nil {
		v.h.log.Error("count what a VM used last", "vm", v.name, "err", err)
		return
	}
	v.account(c)
}

func (v *vm) epoch() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.mom.Epoch
}

// napBytes returns what the sleeping VM takes of the host's memory.
func (v *vm) napBytes() int64 {
	info, err := os.Stat(v.paths.memory())
	if err != nil {
		return 0
	}
	return allocated(info)
}

// keepMeter counts the running machine until ctx ends, and stops the VM when
// its budget or its plan's patience is used up.
func (v *vm) keepMeter(ctx context.Context, m compute.Machine) {
	var way courtesy
	written := time.Now()
	tick := time.NewTimer(sampleInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.Done():
			return
		case <-tick.C:
		}
		write := time.Since(written) >= sampleInterval
		if write {
			written = time.Now()
		}
		total, err := v.sample(ctx, m, write)
		if err != nil {
			if ctx.Err() == nil {
				v.h.log.Warn("count what a VM uses", "vm", v.name, "err", err)
			}
			tick.Reset(sampleInterval)
			continue
		}
		if why := v.verdict(m, total, way.on); why != "" {
			v.h.tasks.Go(func() { v.stopFor(why) })
			return
		}
		if write && way.observe(v.meter.present()/100, v.cores()) {
			v.bound(m, way.on)
		}
		// Never later than the next record is due.
		next := v.meter.budget.NextCheck(total, float64(v.rec.Request.CPUs))
		tick.Reset(max(min(next, sampleInterval-time.Since(written)), time.Millisecond))
	}
}

func (v *vm) sample(ctx context.Context, m compute.Machine, write bool) (meter.Counters, error) {
	ctx, cancel := context.WithTimeout(ctx, statsTimeout)
	defer cancel()
	c, err := v.counted(ctx, m)
	if err != nil {
		return meter.Counters{}, err
	}
	return v.meter.add(c, write)
}

// verdict says why the VM must stop, or "", and throttles it where that is
// enough.
func (v *vm) verdict(m compute.Machine, total meter.Counters, giveWay bool) string {
	if why := v.meter.budget.Exhausted(total); why != "" {
		return why
	}
	if v.meter.judge == nil {
		return ""
	}
	plan := v.rec.Request.Limits.PlanCPU
	switch v.meter.judge.Observe(time.Now(), total.CPU) {
	case meter.Throttle:
		v.throttle(m, true, giveWay, fmt.Sprintf("throttled: it uses more than its plan's %.2g cores", plan))
	case meter.Release:
		v.throttle(m, false, giveWay, "no longer throttled")
	case meter.Stop:
		return fmt.Sprintf("it kept using all of its plan's %.2g cores while it was throttled to them", plan)
	}
	return ""
}

// throttle holds the VM to its plan, or lets go of it.
func (v *vm) throttle(m compute.Machine, on, giveWay bool, event string) {
	v.meter.mu.Lock()
	changed := v.meter.throttled != on
	v.meter.throttled = on
	v.meter.mu.Unlock()
	if !changed {
		return
	}
	v.bound(m, giveWay)
	v.h.log.Info(event, "vm", v.name)
	v.meter.event(v, meter.Awake, event)
}

// bound holds the VM's process to what it may use now.
func (v *vm) bound(m compute.Machine, giveWay bool) {
	if err := m.SetCPU(v.cores(), giveWay); err != nil {
		v.h.log.Error("bound cpu use", "vm", v.name, "err", err)
	}
}

// cores is how many the VM's process may use now; 0 is no bound.
func (v *vm) cores() float64 {
	l := v.rec.Request.Limits
	if v.meter.isThrottled() && (l.CPU == 0 || l.PlanCPU < l.CPU) {
		return l.PlanCPU
	}
	return l.CPU
}

// stopFor stops the VM at once.
func (v *vm) stopFor(why string) {
	if err := v.kill(v.h.ctx, "stopped: "+why); err != nil {
		v.h.log.Error("stop a VM that is over its limits", "vm", v.name, "err", err)
	}
}

// mayRun refuses a VM whose budget is used up.
func (v *vm) mayRun() error {
	if why := v.meter.budget.Exhausted(v.meter.total()); why != "" {
		return cloudpal.E("start "+v.name, cloudpal.Exhausted, fmt.Errorf("%s", why)).
			WithHint("make a new VM with a larger budget; its volumes can move to it")
	}
	return nil
}
