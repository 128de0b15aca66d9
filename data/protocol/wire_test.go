package protocol

import (
	"io"
	"net"
	"sync"

	"github.com/tradle/cloudpal/data/compact"
)

type secretstreamConn = io.ReadWriteCloser

// A limitedConn breaks after so many bytes, both ways together.
type limitedConn struct {
	net.Conn
	mu   sync.Mutex
	left int
}

func (c *limitedConn) take(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n = min(n, c.left)
	c.left -= n
	return n
}

func (c *limitedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if got := c.take(n); got < n {
		c.Close()
		return got, io.ErrUnexpectedEOF
	}
	return n, err
}

func (c *limitedConn) Write(b []byte) (int, error) {
	n := c.take(len(b))
	if n < len(b) {
		c.Conn.Write(b[:n])
		c.Close()
		return n, io.ErrClosedPipe
	}
	return c.Conn.Write(b)
}

// channelMessages returns the messages of channel 1 in a frame of protomux.
func channelMessages(frame []byte) (all []sent) {
	d := compact.NewDecoder(frame)
	id, typ := d.Uint(), d.Uint()
	if id != 0 {
		return []sent{{typ, d.Rest()}}
	}
	if typ != 0 {
		return nil
	}
	for id = d.Uint(); d.Len() > 0; {
		size := d.Uint()
		if size == 0 {
			id = d.Uint()
			continue
		}
		item := compact.NewDecoder(d.Take(int(size)))
		if t := item.Uint(); id != 0 {
			all = append(all, sent{t, item.Rest()})
		}
	}
	return all
}
