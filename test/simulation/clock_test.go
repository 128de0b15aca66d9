package simulation_test

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// A clock is the simulation's time. Who lives in it is an actor: a goroutine that runs
// while all others wait, and gives way when it sleeps. So a month passes as fast as the
// work in it is done, and one thing happens after another.
type clock struct {
	mu    sync.Mutex
	now   time.Time
	queue sleepers
	seq   int
	yield chan struct{}
}

func newClock(at time.Time) *clock { return &clock{now: at, yield: make(chan struct{})} }

// Now implements wallet.Clock.
func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Wait implements wallet.Clock, for actors.
func (c *clock) Wait(ctx context.Context, d time.Duration) error {
	if d > 0 {
		c.sleep(d)
	}
	return ctx.Err()
}

// start adds an actor, whose life begins after a while.
func (c *clock) start(after time.Duration, life func()) {
	wake := c.push(after)
	go func() {
		<-wake
		life()
		c.yield <- struct{}{}
	}()
}

// sleep lets an actor wait.
func (c *clock) sleep(d time.Duration) {
	wake := c.push(d)
	c.yield <- struct{}{}
	<-wake
}

func (c *clock) push(d time.Duration) chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	s := sleeper{at: c.now.Add(d), seq: c.seq, wake: make(chan struct{})}
	heap.Push(&c.queue, s)
	return s.wake
}

// run goes on until no actor is left.
func (c *clock) run() {
	for {
		c.mu.Lock()
		if len(c.queue) == 0 {
			c.mu.Unlock()
			return
		}
		s := heap.Pop(&c.queue).(sleeper)
		if s.at.After(c.now) {
			c.now = s.at
		}
		c.mu.Unlock()
		s.wake <- struct{}{}
		<-c.yield
	}
}

// A sleeper is an actor that waits, the next first.
type sleeper struct {
	at   time.Time
	seq  int
	wake chan struct{}
}

type sleepers []sleeper

func (q sleepers) Len() int { return len(q) }
func (q sleepers) Less(i, j int) bool {
	if q[i].at.Equal(q[j].at) {
		return q[i].seq < q[j].seq
	}
	return q[i].at.Before(q[j].at)
}
func (q sleepers) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *sleepers) Push(x any)   { *q = append(*q, x.(sleeper)) }
func (q *sleepers) Pop() (x any) {
	last := len(*q) - 1
	x, *q = (*q)[last], (*q)[:last]
	return x
}
