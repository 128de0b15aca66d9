package protocol

import (
	"errors"
	"fmt"
)

// maxServed is how many requests of one peer may wait; honest ones keep up to 512
// in flight. maxInvalid is how many of its requests may ask for what cannot be.
const (
	maxServed  = 4096
	maxInvalid = 64
)

// A serveQueue holds a peer's requests. Urgent ones go first, the latest before
// the others. A request that is cancelled stays in its list, and is skipped when
// its number is not that of the id any more.
type serveQueue struct {
	live    map[uint64]uint64 // by id: the number of the request that counts
	number  uint64
	urgent  []queued
	list    []queued
	head    int // of list: what is before was taken
	invalid int
}

type queued struct {
	request
	number uint64
}

var errTooMany = fmt.Errorf("more than %d are not answered yet", maxServed)

// push adds a request. One with the id of another takes its place.
func (q *serveQueue) push(r request) error {
	if q.live == nil {
		q.live = map[uint64]uint64{}
	}
	if _, ok := q.live[r.id]; !ok && len(q.live) >= maxServed {
		return errTooMany
	}
	q.number++
	q.live[r.id] = q.number
	if r.priority > 0 {
		q.urgent = append(q.urgent, queued{r, q.number})
	} else {
		q.list = append(q.list, queued{r, q.number})
	}
	if len(q.urgent)+len(q.list) > 3*maxServed {
		q.urgent, q.list, q.head = q.compact(q.urgent), q.compact(q.list[q.head:]), 0
	}
	return nil
}

// compact takes out what was cancelled.
func (q *serveQueue) compact(list []queued) []queued {
	kept := make([]queued, 0, len(q.live))
	for _, r := range list {
		if q.live[r.id] == r.number {
			kept = append(kept, r)
		}
	}
	return kept
}

// cancel forgets a request.
func (q *serveQueue) cancel(id uint64) { delete(q.live, id) }

// take moves up to n requests to dst.
func (q *serveQueue) take(dst []request, n int) []request {
	for n > 0 && len(q.urgent) > 0 {
		last := len(q.urgent) - 1
		if q.claim(q.urgent[last]) {
			dst = append(dst, q.urgent[last].request)
			n--
		}
		q.urgent = q.urgent[:last]
	}
	for ; n > 0 && q.head < len(q.list); q.head++ {
		if q.claim(q.list[q.head]) {
			dst = append(dst, q.list[q.head].request)
			n--
		}
	}
	if q.head == len(q.list) {
		q.list, q.head = q.list[:0], 0
	}
	return dst
}

// claim reports whether a request still counts, which it does once.
func (q *serveQueue) claim(r queued) bool {
	if q.live[r.id] != r.number {
		return false
	}
	delete(q.live, r.id)
	return true
}

// refused counts what cannot be answered; too much of it ends the peer.
func (q *serveQueue) refused() error {
	q.invalid++
	if q.invalid >= maxInvalid {
		return errors.New("one request too many for what cannot be")
	}
	return nil
}
