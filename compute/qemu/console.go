package qemu

import (
	"net"
	"sync"
	"time"
)

// consoleSize is how many of the last bytes of a console are kept.
const consoleSize = 64 << 10

// A console keeps the last of what a guest wrote to its serial port.
type console struct {
	conn net.Conn
	mu   sync.Mutex
	tail []byte
	done chan struct{}
}

func readConsole(conn net.Conn) *console {
	c := &console{conn: conn, done: make(chan struct{})}
	go c.read()
	return c
}

// floodPause slows a reader that always finds more: a guest that floods its
// console waits for its serial port, and costs the host next to nothing.
const floodPause = 10 * time.Millisecond

func (c *console) read() {
	defer close(c.done)
	defer c.conn.Close()
	buf := make([]byte, 4096)
	for {
		n, err := c.conn.Read(buf)
		c.keep(buf[:n])
		if err != nil {
			return
		}
		if n == len(buf) {
			time.Sleep(floodPause)
		}
	}
}

func (c *console) keep(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tail = append(c.tail, b...)
	if extra := len(c.tail) - consoleSize; extra > 0 {
		c.tail = append(c.tail[:0], c.tail[extra:]...)
	}
}

func (c *console) bytes() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]byte(nil), c.tail...)
}

// finish reads what is left, when the other end is gone.
func (c *console) finish() {
	select {
	case <-c.done:
	case <-time.After(eventWait):
		c.conn.Close()
	}
}
