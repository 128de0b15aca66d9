//go:build linux

package wake

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkMAC1 is what it takes to refuse a forged initiation.
func BenchmarkMAC1(b *testing.B) {
	k := newMAC1Key(peerKey)
	m := initiation([32]byte{9})
	b.ReportAllocs()
	for b.Loop() {
		if k.signs(m) {
			b.Fatal("a forged one passes")
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "checks/s")
}

// refused are packets that a judge refuses, by what they are.
func refused() map[string][]byte {
	return map[string][]byte{
		"other-port":     datagram(phone, netip.AddrPortFrom(peerAddr.Addr(), 7), []byte("x")),
		"no-message":     fromPhone([]byte("GET / HTTP/1.0\r\n\r\n")),
		"unknown-index":  fromPhone(dataMessage(8, 1, 100)),
		"keepalive":      fromPhone(dataMessage(7, 1, 0)),
		"forged-initial": fromPhone(initiation([32]byte{9})),
	}
}

// BenchmarkJudge is what it takes to refuse a packet, once it is read.
func BenchmarkJudge(b *testing.B) {
	for what, p := range refused() {
		b.Run(what, func(b *testing.B) {
			j := judging()
			guestSends(j, response(7, 99), 0)
			b.ReportAllocs()
			for b.Loop() {
				if j.judge(p, noon, false) != drop {
					b.Fatal("it passes")
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "packets/s")
		})
	}
}

// BenchmarkGarbage reads packets of garbage out of wake0 and drops them: raw does
// nothing else, and the others judge them. The kernel's queue is filled before
// each run of reading, so that what is measured is who reads, on one core.
func BenchmarkGarbage(b *testing.B) {
	kinds := refused()
	kinds["raw"] = kinds["unknown-index"]
	for what, p := range kinds {
		b.Run(what, func(b *testing.B) {
			n, fd := garbageReader(b)
			raw := injector(b)
			buf := make([]byte, maxPacket)
			read := 0
			b.ReportAllocs()
			b.ResetTimer()
			for read < b.N {
				b.StopTimer()
				for range 2048 {
					if err := unix.Send(raw, p, 0); err != nil {
						b.Fatal(err)
					}
				}
				b.StartTimer()
				for {
					size, err := unix.Read(fd, buf)
					if err != nil {
						break
					}
					read++
					if what != "raw" {
						n.take(buf[:size])
					}
				}
			}
			b.ReportMetric(float64(read)/b.Elapsed().Seconds(), "packets/s")
		})
	}
}

// garbageReader is a network with a VM that sleeps, whose wake0 nobody reads yet.
func garbageReader(b *testing.B) (*Network, int) {
	b.Helper()
	if os.Getuid() != 0 {
		b.Skip("needs root: it makes a TUN device")
	}
	n := newNetwork(Config{V4: DefaultV4, V6: DefaultV6, Log: quiet, Wake: func(a netip.Addr, why string) { b.Errorf("%s wakes", why) }})
	if err := n.openDevice(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { n.forgetDevice(); n.tun.Close(); unix.Close(n.raw) })
	if err := n.open(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		for _, f := range n.ears {
			f.Close()
		}
		n.rules.Forget()
	})
	v4, v6 := addresses(16)
	v, err := n.add("a", NIC{Addrs: []netip.Addr{v4, v6}, WireGuard: &WireGuard{PublicKey: peerKey, Port: 51820, HostPort: hubPort}})
	if err != nil {
		b.Fatal(err)
	}
	guestSends(v.judge, response(7, 99), 0)
	return n, int(n.tun.Fd())
}

// injector is a packet socket that sends into wake0, past all rules.
func injector(b *testing.B) int {
	b.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, 0)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { unix.Close(fd) })
	link, err := net.InterfaceByName(device)
	if err != nil {
		b.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_IP), Ifindex: link.Index}); err != nil {
		b.Fatal(err)
	}
	return fd
}

func htons(n uint16) uint16 { return n<<8 | n>>8 }

// sleepers is how many a center is to have room for.
const sleepers = 10_000

// crowd adds VMs that sleep, each with a session.
func crowd(tb testing.TB, n *Network, count int) {
	tb.Helper()
	for i := range count {
		v4 := netip.AddrFrom4([4]byte{10, 201, byte((i + 16) >> 8), byte(i + 16)})
		a := DefaultV6.Addr().As16()
		a[14], a[15] = byte((i+16)>>8), byte(i+16)
		v, err := n.add(fmt.Sprintf("pal-%d", i), NIC{
			MAC: net.HardwareAddr{2, 0xc1, 0x0d, 0, byte(i >> 8), byte(i)}, Addrs: []netip.Addr{v4, netip.AddrFrom16(a)},
			WireGuard: &WireGuard{PublicKey: [32]byte{byte(i), byte(i >> 8)}, Port: 51820, HostPort: uint16(33000 + i)},
		})
		if err != nil {
			tb.Fatal(err)
		}
		v.judge.learn(udp{from: at(v4, 51820), to: phone, data: response(uint32(i), 1)}, time.Now())
	}
}

// TestSleepersAreSmall has ten thousand of them.
func TestSleepersAreSmall(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	n := unopened(ignore)
	crowd(t, n, sleepers)
	runtime.GC()
	runtime.ReadMemStats(&after)
	took := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	if most := int64(32 << 20); took > most {
		t.Errorf("%d sleepers take %d KiB, want at most %d", sleepers, took>>10, most>>10)
	}
	t.Logf("%d sleepers take %d KiB: %d bytes each", sleepers, took>>10, took/sleepers)
	runtime.KeepAlive(n)
}

// BenchmarkTake is a packet's way from wake0 to being held, with few sleepers and
// with many.
func BenchmarkTake(b *testing.B) {
	for _, count := range []int{10, sleepers} {
		b.Run(fmt.Sprintf("of-%d", count), func(b *testing.B) {
			n := unopened(ignore)
			crowd(b, n, count)
			last := count - 1
			v, err := n.find(fmt.Sprintf("pal-%d", last))
			if err != nil {
				b.Fatal(err)
			}
			p := datagram(phone, at(v.Addrs[0], 51820), dataMessage(uint32(last), 0, 100))
			for b.Loop() {
				n.take(p)
				if len(v.held) == 0 {
					b.Fatal("it is not held")
				}
				if len(v.held) == maxHeldPackets {
					v.drop()
				}
			}
		})
	}
}

// BenchmarkAdd makes a VM known, and unknown again, beside few others and many:
// the rules' maps included.
func BenchmarkAdd(b *testing.B) {
	for _, count := range []int{10, sleepers} {
		b.Run(fmt.Sprintf("beside-%d", count), func(b *testing.B) {
			n, _ := garbageReader(b)
			n.forget("a")
			crowd(b, n, count)
			start := time.Now()
			if err := n.rules.List(n.listings()...); err != nil {
				b.Fatal(err)
			}
			b.Logf("%d listed in %v", count, time.Since(start))
			c := NIC{Addrs: []netip.Addr{netip.MustParseAddr("10.201.200.1")}, WireGuard: &WireGuard{PublicKey: peerKey, Port: 51820, HostPort: hubPort}}
			for b.Loop() {
				if err := n.Add("one", c); err != nil {
					b.Fatal(err)
				}
				n.Remove("one")
			}
		})
	}
}
