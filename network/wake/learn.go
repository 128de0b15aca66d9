//go:build linux

package wake

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Sessions are learned from the handshake messages that VMs send: two packet
// sockets, one for each family, hear what comes in by any interface, and a
// filter in the kernel lets nothing through but those. They are open for good:
// to close one takes the kernel some 16 ms (measured).

// maxHandshakes is how much the kernel keeps of what is not read yet, in bytes.
const maxHandshakes = 4 << 20

// listen begins to learn.
func (n *Network) listen() error {
	for _, p := range n.prefixes() {
		f, err := listenIn(p)
		if err != nil {
			return fmt.Errorf("listen to handshakes: %w", err)
		}
		n.ears = append(n.ears, f)
		n.tasks.Go(func() { n.learn(f) })
	}
	return nil
}

// listenIn opens a packet socket that hears the handshake messages of senders
// in a prefix.
func listenIn(p netip.Prefix) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "handshakes")
	if err := hear(fd, p); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func hear(fd int, p netip.Prefix) error {
	filter, err := bpf.Assemble(handshakesFrom(p))
	if err != nil {
		return err
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: (*unix.SockFilter)(unsafe.Pointer(&filter[0]))}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, maxHandshakes); err != nil {
		return err
	}
	// From here it hears. A protocol of one family is of what comes in alone.
	proto := uint16(unix.ETH_P_IP)
	if p.Addr().Is6() {
		proto = unix.ETH_P_IPV6
	}
	return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto<<8 | proto>>8})
}

// handshakesFrom is a filter for IP packets: UDP, whole, of a sender in the
// prefix, with the first bytes and the size of an initiation or a response.
func handshakesFrom(p netip.Prefix) []bpf.Instruction {
	var is []bpf.Instruction
	// No is where a packet goes that is none: the filter's end.
	want := func(value uint32) { is = append(is, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: value}) }
	load := func(at, size uint32) { is = append(is, bpf.LoadAbsolute{Off: at, Size: int(size)}) }
	source, proto := uint32(12), uint32(9)
	if p.Addr().Is6() {
		source, proto = 8, 6
	}
	load(proto, 1)
	want(protoUDP)
	a, m := p.Addr().AsSlice(), maskOf(p)
	for i := 0; i < len(a); i += 4 {
		load(source+uint32(i), 4)
		is = append(is, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: binary.BigEndian.Uint32(m[i:])})
		want(binary.BigEndian.Uint32(a[i:]))
	}
	if p.Addr().Is4() {
		load(6, 2)
		is = append(is, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x3fff}) // a fragment
		want(0)
		is = append(is, bpf.LoadMemShift{Off: 0}) // X is the header's size
	} else {
		is = append(is, bpf.LoadConstant{Dst: bpf.RegX, Val: 40})
	}
	is = append(is,
		bpf.LoadIndirect{Off: 8, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: typeInitiation << 24, SkipTrue: 3},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: typeResponse << 24},
		bpf.LoadIndirect{Off: 4, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 8 + sizeResponse, SkipTrue: 2, SkipFalse: 3},
		bpf.LoadIndirect{Off: 4, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 8 + sizeInitiation},
		bpf.RetConstant{Val: 256},
		bpf.RetConstant{Val: 0},
	)
	for i, in := range is {
		if j, ok := in.(bpf.JumpIf); ok && j.Cond == bpf.JumpNotEqual {
			j.SkipTrue = uint8(len(is) - 1 - (i + 1))
			is[i] = j
		}
	}
	return is
}

func maskOf(p netip.Prefix) []byte {
	m := make([]byte, p.Addr().BitLen()/8)
	for i := range p.Bits() {
		m[i/8] |= 0x80 >> (i % 8)
	}
	return m
}

// learn takes what one of the sockets hears until it is closed.
func (n *Network) learn(f *os.File) {
	c, err := f.SyscallConn()
	if err != nil {
		n.cfg.Log.Error("listen to handshakes", "err", err)
		return
	}
	buf := make([]byte, 256)
	for {
		var size int
		var from unix.Sockaddr
		var failed error
		err := c.Read(func(fd uintptr) bool {
			size, from, failed = unix.Recvfrom(int(fd), buf, 0)
			return !errors.Is(failed, unix.EAGAIN)
		})
		if err != nil {
			return // it is closed
		}
		if by, ok := from.(*unix.SockaddrLinklayer); failed == nil && ok {
			n.overhear(buf[:size], by.Ifindex, time.Now())
		}
	}
}

// overhear takes in a handshake message that came in by an interface. It has
// passed no rule yet: that it is the VM's own is seen from the interface.
func (n *Network) overhear(ip []byte, index int, now time.Time) {
	u, err := parseUDP(ip)
	if err != nil {
		return
	}
	n.mu.Lock()
	v := n.byAddr[u.from.Addr()]
	n.mu.Unlock()
	if v == nil || !v.learn(u, index, now) {
		return
	}
	n.memory.changed(v)
}

// learn reports whether a message was the VM's, and news.
func (v *nic) learn(u udp, index int, now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.judge != nil && v.tap != nil && v.tap.Index() == index && u.from.Port() == v.judge.port &&
		v.judge.learn(u, now)
}
