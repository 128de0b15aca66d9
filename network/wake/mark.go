//go:build linux

package wake

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"
)

// A mark is a packet of our own that goes to wake0. When it comes out, all that
// went in before it has come out.

// markPort is where marks go; nobody listens there.
const markPort = 9

// markWait bounds how long a mark is waited for. It takes well under a
// millisecond, unless wake0 is flooded and drops it.
const markWait = 50 * time.Millisecond

// markAddr is the second address of the IPv4 prefix, which is no VM's.
func (n *Network) markAddr() netip.Addr { return n.cfg.V4.Addr().Next().Next() }

// awaitPassing returns when all packets that are on their way through wake0
// have been taken.
func (n *Network) awaitPassing() {
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(n.markAddr(), markPort)))
	if err != nil {
		n.cfg.Log.Warn("send a mark to wake0", "err", err)
		return
	}
	defer conn.Close()
	passed := make(chan struct{}, 1)
	n.mu.Lock()
	n.mark++
	id := n.mark
	n.marks[id] = passed
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		delete(n.marks, id)
		n.mu.Unlock()
	}()
	if _, err := conn.Write(binary.BigEndian.AppendUint64(nil, id)); err != nil {
		n.cfg.Log.Warn("send a mark to wake0", "err", err)
		return
	}
	select {
	case <-passed:
	case <-time.After(markWait):
		n.cfg.Log.Warn("wake0 is flooded; packets may be out of order")
	}
}

// passed tells who waits for the mark p. Its end is the number; whoever else
// sends such a packet ends a wait early, and gets no more for it.
func (n *Network) passed(p []byte) {
	if len(p) < 8 {
		return
	}
	id := binary.BigEndian.Uint64(p[len(p)-8:])
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := n.marks[id]; c != nil {
		delete(n.marks, id)
		c <- struct{}{}
	}
}
