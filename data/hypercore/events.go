package hypercore

import (
	"context"
	"iter"
	"sync"
)

// A Kind says what happened to a log. Those of events that were joined are
// joined, too.
type Kind uint8

// The kinds of events.
const (
	Appended   Kind = 1 << iota // blocks Start to End are new, and here
	Upgraded                    // blocks Start to End are new, but not here
	Truncated                   // blocks Start to End are no more, or others
	Cleared                     // blocks Start to End are not here any more
	Downloaded                  // blocks Start to End are here now
)

// Has reports whether any of the kinds is one of k.
func (k Kind) Has(kinds Kind) bool { return k&kinds != 0 }

// An Event is a change of a log. Fork and Length are those after it.
type Event struct {
	Kind         Kind
	Start, End   uint64 // the blocks that it is about, those from Start up to End
	Fork, Length uint64
}

// events tells watchers what happened, in the order in which it did.
type events struct {
	log      *log
	mu       sync.Mutex
	queue    []Event // not told yet
	telling  bool    // somebody tells
	watchers []*watcher
}

// A watcher is a function that wants to be told.
type watcher struct{ tell func(Event) }

// add notes an event. The caller holds the log's lock, and calls deliver when
// it has given that back.
func (e *events) add(ev Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.watchers) == 0 {
		return
	}
	ev.Fork, ev.Length = e.log.head.Fork, e.log.head.Length
	e.queue = append(e.queue, ev)
}

// deliver tells the watchers, on this goroutine, unless another does so already:
// then that one tells these, too.
func (e *events) deliver() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.telling {
		return
	}
	e.telling = true
	for len(e.queue) > 0 {
		ev := e.queue[0]
		e.queue = e.queue[1:]
		watchers := e.watchers // a slice that is never changed
		e.mu.Unlock()
		for _, w := range watchers {
			w.tell(ev)
		}
		e.mu.Lock()
	}
	e.queue = nil
	e.telling = false
}

func (e *events) watch(w *watcher) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.watchers = append(e.watchers[:len(e.watchers):len(e.watchers)], w)
}

func (e *events) unwatch(w *watcher) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var left []*watcher
	for _, other := range e.watchers {
		if other != w {
			left = append(left, other)
		}
	}
	e.watchers = left
}

// Watch has tell called after each change, outside all locks, on the goroutine of
// one who changes the core, one event at a time and in order. It must return
// soon, and may call the core's methods. Stop ends it; an event may just be on
// its way.
func (c *Core) Watch(tell func(Event)) (stop func()) {
	w := &watcher{tell}
	c.log.events.watch(w)
	return func() { c.log.events.unwatch(w) }
}

// Changes yields what happens to the core from now on, until ctx ends. It does
// not hold the writer up: what happens while the loop's body runs comes as one
// event that has the kinds of all and the blocks from the first to the last of
// any.
func (c *Core) Changes(ctx context.Context) iter.Seq[Event] {
	return c.follow(ctx, &pending{ready: make(chan struct{}, 1)})
}

// States yields at once, and again whenever something has happened to the core,
// until ctx ends: for who looks at what is, and not at what has become of it. As
// with Changes, nothing is missed from the call on, and the writer is not held up.
func (c *Core) States(ctx context.Context) iter.Seq[struct{}] {
	p := &pending{ready: make(chan struct{}, 1)}
	p.add(Event{})
	events := c.follow(ctx, p)
	return func(yield func(struct{}) bool) {
		for range events {
			if !yield(struct{}{}) {
				return
			}
		}
	}
}

// follow yields what is pending, until ctx ends.
func (c *Core) follow(ctx context.Context, p *pending) iter.Seq[Event] {
	stop := c.Watch(p.add)
	return func(yield func(Event) bool) {
		defer stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-p.ready:
			}
			if !yield(p.take()) {
				return
			}
		}
	}
}

// pending is what one loop has not seen yet.
type pending struct {
	mu    sync.Mutex
	event Event
	ready chan struct{}
}

func (p *pending) add(ev Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.event.Kind == 0 {
		p.event = ev
	} else {
		p.event = Event{p.event.Kind | ev.Kind, min(p.event.Start, ev.Start), max(p.event.End, ev.End), ev.Fork, ev.Length}
	}
	select {
	case p.ready <- struct{}{}:
	default:
	}
}

func (p *pending) take() Event {
	p.mu.Lock()
	defer p.mu.Unlock()
	ev := p.event
	p.event = Event{}
	return ev
}
