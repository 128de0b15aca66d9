package simulation_test

import (
	"container/heap"
	"context"
	"runtime"
	"slices"
	"sync"
	"time"
)

// slowest is how long work takes at most. So far the time goes on while somebody is at
// work, and others with it; then it waits.
const slowest = 5 * time.Minute

// A clock is the simulation's time. Who lives in it is an actor, that sleeps or is at
// work. They wake in turn, and some are at work at once, on all processors. So a month
// passes as fast as the work in it is done.
type clock struct {
	mu      sync.Mutex
	now     time.Time
	asleep  sleepers
	working []*actor
	changed *sync.Cond
}

func newClock(at time.Time) *clock {
	c := &clock{now: at}
	c.changed = sync.NewCond(&c.mu)
	return c
}

// Now returns the time.
func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// run goes on until no actor is left.
func (c *clock) run() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.asleep) > 0 || len(c.working) > 0 {
		if !c.wakes() {
			c.changed.Wait()
			continue
		}
		a := heap.Pop(&c.asleep).(*actor)
		if a.at.After(c.now) {
			c.now = a.at
		}
		a.at = c.now
		c.working = append(c.working, a)
		a.wake <- struct{}{}
	}
}

// wakes reports whether the next actor can: it may not be so late that who is still at
// work would have taken too long.
func (c *clock) wakes() bool {
	if len(c.asleep) == 0 || len(c.working) >= 2*runtime.GOMAXPROCS(0) {
		return false
	}
	latest := c.asleep[0].at.Add(-slowest)
	return !slices.ContainsFunc(c.working, func(a *actor) bool { return a.at.Before(latest) })
}

// sleepAll moves the time on when no actor is left.
func (c *clock) sleepAll(d time.Duration) {
	c.actor().start(d, func() {})
	c.run()
}

// An actor is a goroutine, from start to the end of its life. It is a wallet.Clock.
type actor struct {
	*clock
	at   time.Time // when it wakes, or woke
	wake chan struct{}
}

func (c *clock) actor() *actor { return &actor{clock: c, wake: make(chan struct{}, 1)} }

// start lets an actor's life begin after a while.
func (a *actor) start(after time.Duration, life func()) {
	a.rest(after)
	go func() {
		<-a.wake
		defer a.stop()
		life()
	}()
}

// sleep lets the actor wait.
func (a *actor) sleep(d time.Duration) {
	a.rest(d)
	<-a.wake
}

// rest ends its work for a while, if it was at work.
func (a *actor) rest(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopLocked()
	a.at = a.now.Add(d)
	heap.Push(&a.asleep, a)
}

func (a *actor) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopLocked()
}

func (a *actor) stopLocked() {
	a.working = slices.DeleteFunc(a.working, func(other *actor) bool { return other == a })
	a.changed.Signal()
}

// Wait implements wallet.Clock.
func (a *actor) Wait(ctx context.Context, d time.Duration) error {
	if d > 0 {
		a.sleep(d)
	}
	return ctx.Err()
}

// Sleepers are actors that wait, the next first.
type sleepers []*actor

func (q sleepers) Len() int           { return len(q) }
func (q sleepers) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q sleepers) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *sleepers) Push(x any)        { *q = append(*q, x.(*actor)) }
func (q *sleepers) Pop() (x any) {
	last := len(*q) - 1
	x, *q = (*q)[last], (*q)[:last]
	return x
}
