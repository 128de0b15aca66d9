package image

import (
	"io"
	"sync"
)

// An ahead reads from another reader in a goroutine of its own, so that
// unpacking and writing use a processor each.
type ahead struct {
	full  chan []byte
	empty chan []byte
	stop  chan struct{}
	gone  sync.WaitGroup
	err   error // set before full is closed
	buf   []byte
	rest  []byte
}

const (
	aheadBuffers = 4
	aheadSize    = 256 << 10
)

// readAhead returns a reader of r. Its Close waits until r is no longer read,
// and then calls closed.
func readAhead(r io.Reader, closed func()) *ahead {
	a := &ahead{full: make(chan []byte, aheadBuffers), empty: make(chan []byte, aheadBuffers), stop: make(chan struct{})}
	for range aheadBuffers {
		a.empty <- make([]byte, aheadSize)
	}
	a.gone.Go(func() {
		defer closed()
		defer close(a.full)
		a.fill(r)
	})
	return a
}

func (a *ahead) fill(r io.Reader) {
	for a.err == nil {
		select {
		case <-a.stop:
			return
		case b := <-a.empty:
			var n int
			n, a.err = fillUp(r, b[:aheadSize])
			a.full <- b[:n] // has room: there are as many places as buffers
		}
	}
}

// fillUp is io.ReadFull that passes r's error on as it is: an early end that r
// tells of must not look like the end.
func fillUp(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
	}
	return n, err
}

func (a *ahead) Read(b []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.buf != nil {
			a.empty <- a.buf
			a.buf = nil
		}
		next, ok := <-a.full
		if !ok {
			return 0, a.err
		}
		a.buf, a.rest = next, next
	}
	n := copy(b, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

func (a *ahead) Close() {
	close(a.stop)
	a.gone.Wait()
}
