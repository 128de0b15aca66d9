package host

import (
	"time"

	"github.com/tradle/cloudpal/compute/api"
)

// alarmCheck is the longest that alarms are not looked at: the machine's clock
// may be set, and it may have been suspended itself.
const alarmCheck = 15 * time.Second

// byTimer is why a VM runs that asked for it.
const byTimer = "a timer of its own"

// keepAlarms wakes sleeping and cold VMs when they asked for it.
func (h *Host) keepAlarms() {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-h.alarms:
		case <-t.C:
		}
		t.Reset(h.ring(time.Now()))
	}
}

// resetAlarms makes keepAlarms look again: there may be an earlier one.
func (h *Host) resetAlarms() {
	select {
	case h.alarms <- struct{}{}:
	default:
	}
}

// ring wakes those whose time has come, and returns how long there is until the
// next.
func (h *Host) ring(now time.Time) time.Duration {
	wait := alarmCheck
	for _, v := range h.all() {
		at := v.alarm()
		switch d := at.Sub(now); {
		case at.IsZero():
		case d <= 0:
			v.rouse(byTimer)
		default:
			wait = min(wait, d)
		}
	}
	return wait
}

// alarm returns when the VM is to be woken, or zero.
func (v *vm) alarm() time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.state != api.Asleep && v.state != api.Cold {
		return time.Time{}
	}
	return v.mom.WakeAt
}

// silence forgets a timer that has gone off in vain: a VM that cannot be woken
// is not tried again and again.
func (v *vm) silence(now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.mom.WakeAt.After(now) {
		v.mom.WakeAt = time.Time{}
	}
}
