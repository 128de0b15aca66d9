package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/tradle/cloudpal/compute/guest"
)

// keptResumes is how many resumes a slow reader may be behind.
const keptResumes = 16

// maxReaders is how many programs may follow the resumes at once.
const maxReaders = 16

// A diary has this guest's resumes, and who reads along.
type diary struct {
	mu      sync.Mutex
	last    []guest.Resume // the last is the latest
	readers int
	acked   int64
	changed chan struct{} // closed and replaced with each resume and acknowledgement
}

func newDiary() *diary { return &diary{changed: make(chan struct{})} }

// tell wakes all who wait. The caller holds mu.
func (d *diary) tell() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// latest is the number of the last resume. The caller holds mu.
func (d *diary) latest() int64 {
	if len(d.last) == 0 {
		return 0
	}
	return d.last[len(d.last)-1].N
}

// welcome notes the resume that h tells of, and calls answer once this guest is
// ready for packets. After a short nap that is at once, and only then its
// programs learn of it: the packet that woke it waits. After a long one they
// come first.
func (d *diary) welcome(h guest.Hello, answer func()) {
	r := guest.Resume{Time: h.Time, Slept: h.Slept, Reason: h.Reason}
	if h.Slept <= guest.LongNap {
		answer()
		d.note(r)
		return
	}
	d.note(r)
	d.await(guest.AckWait)
	answer()
}

func (d *diary) note(r guest.Resume) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r.N = d.latest() + 1
	d.last = append(d.last, r)
	if len(d.last) > keptResumes {
		d.last = d.last[1:]
	}
	d.tell()
}

// await returns when the latest resume is acknowledged, or after timeout, or at
// once where nobody reads along.
func (d *diary) await(timeout time.Duration) {
	end := time.NewTimer(timeout)
	defer end.Stop()
	for {
		d.mu.Lock()
		done, changed := d.readers == 0 || d.acked >= d.latest(), d.changed
		d.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-end.C:
			return
		}
	}
}

// acknowledge notes that a reader is ready to go on after resume n.
func (d *diary) acknowledge(n int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n < 1 || n > d.latest() {
		return errors.New("there was no such resume")
	}
	if n > d.acked {
		d.acked = n
		d.tell()
	}
	return nil
}

// read calls begin once it counts as a reader, then each for the latest resume
// and those to come, until ctx ends or an error of theirs.
func (d *diary) read(ctx context.Context, begin func() error, each func(guest.Resume) error) error {
	if err := d.enter(); err != nil {
		return err
	}
	defer d.leave()
	if err := begin(); err != nil {
		return err
	}
	for from := d.beforeLatest(); ; {
		next, changed := d.after(from)
		for _, r := range next {
			if err := each(r); err != nil {
				return err
			}
			from = r.N
		}
		if len(next) > 0 {
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

var errReaders = errors.New("too many programs follow the resumes")

func (d *diary) enter() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.readers >= maxReaders {
		return errReaders
	}
	d.readers++
	return nil
}

func (d *diary) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.readers--
	d.tell()
}

// beforeLatest is the number after which only the latest resume comes.
func (d *diary) beforeLatest() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.latest() - 1
}

// after returns the resumes that are kept and later than number n.
func (d *diary) after(n int64) ([]guest.Resume, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, r := range d.last {
		if r.N > n {
			return append([]guest.Resume(nil), d.last[i:]...), d.changed
		}
	}
	return nil, d.changed
}
