package main

import (
	"context"
	"sync"
	"time"

	"github.com/tradle/cloudpal/compute/guest"
)

// ringSize is how many bytes of the process's output are kept in the guest:
// the last, read or not.
const ringSize = 512 << 10

// A ring keeps what the process wrote until the host has read it. Nothing is
// lost while the host keeps up; a process that writes faster waits, as it would
// for a pipe.
type ring struct {
	mu       sync.Mutex
	entries  []guest.LogEntry
	size     int   // bytes in entries
	next     int64 // offset of the next entry
	read     int64 // what the host has read, up to this offset
	finished bool
	changed  chan struct{}
}

func newRing() *ring { return &ring{changed: make(chan struct{})} }

// tell wakes all who wait. The caller holds mu.
func (r *ring) tell() {
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *ring) write(stream string, data []byte) {
	r.mu.Lock()
	for r.next-r.read > ringSize && !r.finished {
		wait := r.changed
		r.mu.Unlock()
		<-wait
		r.mu.Lock()
	}
	defer r.mu.Unlock()
	r.entries = append(r.entries, guest.LogEntry{
		Offset: r.next, Time: time.Now(), Stream: stream, Data: append([]byte(nil), data...),
	})
	r.next += int64(len(data))
	r.size += len(data)
	for r.size > 2*ringSize {
		r.size -= len(r.entries[0].Data)
		r.entries = r.entries[1:]
	}
	r.tell()
}

// finish says that the process has ended.
func (r *ring) finish() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.finished = true
	r.tell()
}

// from calls each with all entries from offset on, until the process has ended
// and all is read, or ctx ends.
func (r *ring) from(ctx context.Context, offset int64, each func(guest.LogEntry) error) error {
	for {
		batch, finished, changed := r.after(offset)
		for _, e := range batch {
			if err := each(e); err != nil {
				return err
			}
			offset = e.Offset + int64(len(e.Data))
			r.sent(offset)
		}
		if len(batch) > 0 {
			continue
		}
		if finished {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *ring) after(offset int64) ([]guest.LogEntry, bool, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, e := range r.entries {
		if e.Offset >= offset {
			return append([]guest.LogEntry(nil), r.entries[i:]...), r.finished, r.changed
		}
	}
	return nil, r.finished, r.changed
}

func (r *ring) sent(offset int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if offset > r.read {
		r.read = offset
		r.tell()
	}
}
