package secretstream

import "time"

// never is when nothing is to be done.
const never = time.Duration(1<<63 - 1)

// startClock has tick called when there may be something to do.
func (c *Conn) startClock() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := int64(time.Since(c.born))
	c.lastWrite.Store(max(now, 1))
	c.clock = time.AfterFunc(c.nextTick(time.Duration(now)), c.tick)
}

// tick keeps the times of the connection: one timer for all, so that reads and
// writes only note when they happened.
func (c *Conn) tick() {
	now := time.Since(c.born)
	if left(now, c.config.ReadTimeout, c.readFrom.Load()) <= 0 {
		c.fail(timeoutError("ReadMessage"))
		return
	}
	from := c.writeFrom.Load()
	if left(now, c.config.WriteTimeout, from) <= 0 {
		c.fail(timeoutError("WriteMessage"))
		return
	}
	if from == 0 && left(now, c.config.KeepAlive, c.lastWrite.Load()) <= 0 {
		c.lastWrite.Store(int64(now))
		go c.WriteMessage(nil) // not here, where it could hold up the clock
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.clock.Reset(c.nextTick(now))
	}
}

// left returns how much of a time is left for what began at from, and all of it
// for what has not begun. A time that is not set never ends.
func left(now, limit time.Duration, from int64) time.Duration {
	switch {
	case limit <= 0:
		return never
	case from == 0:
		return limit
	}
	return limit - (now - time.Duration(from))
}

// nextTick returns how long there is nothing to do. What begins meanwhile has
// its full time, so the clock need not be told of it.
func (c *Conn) nextTick(now time.Duration) time.Duration {
	return min(left(now, c.config.ReadTimeout, c.readFrom.Load()),
		left(now, c.config.WriteTimeout, c.writeFrom.Load()),
		max(left(now, c.config.KeepAlive, c.lastWrite.Load()), c.config.KeepAlive/8))
}
