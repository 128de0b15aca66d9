package main

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tradle/cloudpal/compute/guest"
)

// A desk keeps what this guest's programs have said of its sleep. Times are the
// wall clock's, which goes on while the guest sleeps.
type desk struct {
	mu   sync.Mutex
	busy map[string]time.Time // until when
	wake map[string]time.Time
}

func newDesk() *desk {
	return &desk{busy: map[string]time.Time{}, wake: map[string]time.Time{}}
}

// keepAwake notes that a job lasts until a time.
func (d *desk) keepAwake(name string, until, now time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forget(now)
	return put(d.busy, name, until.Round(0))
}

// wakeAt notes that the guest is to run at a time.
func (d *desk) wakeAt(name string, at, now time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forget(now)
	if at.Before(now) {
		at = now
	}
	return put(d.wake, name, at.Round(0))
}

func (d *desk) done(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.busy, name)
}

func (d *desk) letSleep(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.wake, name)
}

// wishes puts all of it together.
func (d *desk) wishes(now time.Time) guest.Wishes {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forget(now)
	w := guest.Wishes{Busy: slices.Sorted(maps.Keys(d.busy))}
	for _, at := range d.wake {
		if w.WakeAt.IsZero() || at.Before(w.WakeAt) {
			w.WakeAt = at
		}
	}
	return w
}

// forget drops what is over: a job whose time is up, a timer that has gone off
// long enough ago that whoever set it has noticed. The caller holds mu.
func (d *desk) forget(now time.Time) {
	now = now.Round(0)
	maps.DeleteFunc(d.busy, func(_ string, until time.Time) bool { return !until.After(now) })
	maps.DeleteFunc(d.wake, func(_ string, at time.Time) bool { return now.Sub(at) > guest.TimerHold })
}

func put(m map[string]time.Time, name string, t time.Time) error {
	if err := guest.CheckName(name); err != nil {
		return err
	}
	if _, ok := m[name]; !ok && len(m) >= guest.MaxWishes {
		return errFull
	}
	m[name] = t
	return nil
}

var errFull = fmt.Errorf("there are %d names already", guest.MaxWishes)
